//! Which vCPU is loaded where, as KVM tells it: I9.

use pmu::access::Outcome;
use pmu::feature::PMUV3P1;
use pmu::register::{Kind as Of, Register};

use crate::counted::Handover;
use crate::effects::Effects;
use crate::finding::{Invariant, Kind, Party};
use crate::guest::Trapped;
use crate::window::Window;
use crate::{At, Broken, Judge, note};

/// Does a loaded vCPU have its registers on the CPU: a range of its own, or accesses that are executed?
fn has_registers_on(at: &At<'_>) -> bool {
    at.cpu.registers().second_range() != 0
        || at.cpu.would(Register::of(Of::Pmccntr), 1, false) == Outcome::Executed
}

impl Judge {
    pub(crate) fn noted(&mut self, code: u32, a: u64, b: u64, at: &At<'_>) {
        let guest = self.guest(a as usize);
        match code {
            note::VCPU_LOAD => self.loads(a as usize, guest, at),
            note::VCPU_PUT => {
                if let Some(guest) = guest.filter(|_| has_registers_on(at)) {
                    self.guests[guest].last_on = Some(at.id);
                }
                self.hands_over(true, a as usize, at);
                self.swap_begins(at);
                if let Some(guest) = guest {
                    self.guests[guest].leaving = true;
                    // What KVM loads next has all of it: I7.
                    self.guests[guest].effects = Effects::default();
                }
            }
            note::VCPU_LOADED => {
                self.swap_ends(a as usize, at);
                self.range_passes(at);
            }
            note::VCPU_IS_PUT => {
                self.swap_ends(a as usize, at);
                if self.events.vcpu_is_put(at.id) {
                    self.findings.allows(Window::CountersLent, true, true);
                }
                let host = &mut self.hosts[at.id];
                host.loaded = None;
                host.owners.lose_all(Party::Guest(a as usize), at.cpu.now());
                self.range_passes(at);
                if let Some(guest) = guest {
                    self.guests[guest].loaded = None;
                }
            }
            note::VCPU_BLOCKS => {
                if let Some(guest) = guest {
                    self.blocks(guest, at);
                }
            }
            note::VCPU_WAKES => self.wakes(a as usize),
            note::LIVELOCK => self.interrupts_take_all(guest, at),
            note::DEADLOCK => self.deadlock(b, at),
            note::ALL_IDLE => self.all_idle(at),
            note::GET_ONE_REG | note::SET_ONE_REG => {
                let Some(guest) = self.guest((a >> 16) as usize) else { return };
                if code == note::GET_ONE_REG {
                    self.got_one_reg(guest, a as u16, b, at);
                } else {
                    self.set_one_reg(guest, a as u16, b, at);
                }
            }
            note::SET_NR_COUNTERS => {
                if let Some(guest) = guest {
                    self.guests[guest].set_counters(at.world, b as u8);
                }
            }
            note::SET_FILTER => {
                let narrow = self.hosts.iter().any(|host| !host.ideal.registers().features().has(PMUV3P1));
                if let Some(guest) = self.guest((a >> 16) as usize) {
                    let events = u32::from(a as u16)..u32::from(a as u16) + (b >> 1) as u32;
                    self.guests[guest].filter(if narrow { 1 << 10 } else { 1 << 16 }, events, b & 1 != 0);
                }
            }
            note::INJECT_UNDEF => {
                let Some(guest) = guest else { return };
                if let Some(Trapped { register, write, el, .. }) = self.guests[guest].trapped.take() {
                    self.undefined(guest, register, el, write, at);
                }
            }
            _ => {}
        }
    }

    /// Whose are the counters below MDCR_EL2.HPMN? What a vcpu_load or vcpu_put has done of it is seen at its end.
    pub(crate) fn range_passes(&mut self, at: &At<'_>) {
        let host = &mut self.hosts[at.id];
        if host.swap.is_some() {
            return;
        }
        let owner = match host.loaded {
            Some(context) if has_registers_on(at) => Party::Guest(context),
            None if at.cpu.registers().second_range() != 0 => Party::Nobody,
            _ => Party::Host,
        };
        host.owners.pass_range(owner, at.cpu.now());
    }

    fn loads(&mut self, context: usize, guest: Option<usize>, at: &At<'_>) {
        self.findings.premise(Invariant::I9);
        let elsewhere = guest.is_some_and(|guest| self.guests[guest].loaded.is_some());
        if elsewhere || self.hosts[at.id].loaded.is_some() {
            let victim = Party::Guest(context);
            self.violated(Broken { victim, ..Broken::new(Invariant::I9, Kind::LoadedTwice) }, at);
        }
        self.wakes(context);
        self.hands_over(false, context, at);
        self.hosts[at.id].loaded = Some(context);
        self.events.vcpu_loads(at.id);
        self.swap_begins(at);
        if let Some(guest) = guest {
            self.guests[guest].loaded = Some(at.id);
            self.guests[guest].leaving = false;
        }
    }

    fn hands_over(&mut self, put: bool, context: usize, at: &At<'_>) {
        self.hosts[at.id].counted.handed_over(Handover { put, context, cycle: at.cpu.now() });
    }
}
