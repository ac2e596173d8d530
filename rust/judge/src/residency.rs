//! Which vCPU is loaded where, as KVM tells it, and what is seen amid a swap: I9.

use pmu::register::{Kind as Of, Register};

use crate::finding::{Invariant, Kind, Party};
use crate::guest::Trapped;
use crate::{At, Broken, HOST_PMU_IRQ, Judge, note};

impl Judge {
    pub(crate) fn noted(&mut self, code: u32, a: u64, _b: u64, at: &At<'_>) {
        let guest = self.guest(a as usize);
        match code {
            note::VCPU_LOAD => self.loads(a as usize, guest, at),
            note::VCPU_PUT => self.hosts[at.id].swapping = true,
            note::VCPU_LOADED => self.hosts[at.id].swapping = false,
            note::VCPU_IS_PUT => {
                self.hosts[at.id].loaded = None;
                self.hosts[at.id].swapping = false;
                if let Some(guest) = guest {
                    self.guests[guest].loaded = None;
                }
            }
            note::VCPU_BLOCKS => {
                if let Some(guest) = guest {
                    self.blocks(guest, at);
                }
            }
            note::LIVELOCK => {
                let victim = guest.map_or(Party::Host, |guest| Party::Guest(self.guests[guest].context));
                self.findings.premise(Invariant::I12);
                self.livelock(victim, 0, at);
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

    fn loads(&mut self, context: usize, guest: Option<usize>, at: &At<'_>) {
        self.findings.premise(Invariant::I9);
        let elsewhere = guest.is_some_and(|guest| self.guests[guest].loaded.is_some());
        if elsewhere || self.hosts[at.id].loaded.is_some() {
            let victim = Party::Guest(context);
            self.violated(Broken { victim, ..Broken::new(Invariant::I9, Kind::LoadedTwice) }, at);
        }
        let host = &mut self.hosts[at.id];
        host.loaded = Some(context);
        host.swapping = true;
        if let Some(guest) = guest {
            self.guests[guest].loaded = Some(at.id);
        }
    }

    /// Software of the host's is entered.
    pub(crate) fn host_entered(&mut self, code: u16, at: &At<'_>) {
        if code == HOST_PMU_IRQ {
            self.host_interrupted(at);
        }
        if self.hosts[at.id].swapping {
            self.half_swapped(at);
        }
    }

    /// Amid vcpu_load or vcpu_put it finds its counters as they should be.
    fn half_swapped(&mut self, at: &At<'_>) {
        let enabled = self.hosts[at.id].enabled();
        if enabled == 0 {
            return;
        }
        self.findings.premise(Invariant::I9);
        let counters = (0..u64::BITS as usize).filter(|n| enabled >> n & 1 != 0);
        let of_counters = counters.filter_map(|n| match n {
            pmu::registers::CYCLE => Some((Register::of(Of::Pmccntr), !0)),
            n if n < pmu::registers::CYCLE => Some((Register::pmevcntr(n as u8), !0)),
            _ => None,
        });
        let enables = [Of::Pmcntenset, Of::Pmintenset, Of::Pmovsset].map(|of| (Register::of(of), enabled));
        for (register, mask) in enables.into_iter().chain(of_counters) {
            let expected = self.hosts[at.id].ideal.read(register, 2) & mask;
            let actual = at.cpu.read(register, 2) & mask;
            if expected != actual {
                let broken = Broken::new(Invariant::I9, Kind::HalfSwapped);
                self.violated(Broken { register: Some(register), expected, actual, ..broken }, at);
            }
        }
    }
}
