//! What a guest reads, or could read, is what its ideal PMU reads: I1, I4, I7 and I8.

use pmu::access::Outcome;
use pmu::cpu::Running;
use pmu::field::pmcr;
use pmu::observer::By;
use pmu::register::{Kind as Of, Register};
use pmu::registers::CHAIN;

use crate::counted::changes_counting;
use crate::finding::{Invariant, Kind, Party};
use crate::guest::{Compared, Trapped};
use crate::host::Host;
use crate::window::Window;
use crate::{At, Broken, Judge};

/// What of PMCR_EL0 is nobody's but its writer's, where LC is not RES1.
const PMCR_CONTROLS: u64 = pmcr::E | pmcr::D | pmcr::X | pmcr::DP | pmcr::LP;

/// How a read is not as it should be.
pub(crate) struct Difference {
    /// What it should be.
    pub(crate) expected: u64,
    /// The bits that are compared.
    pub(crate) mask: u64,
    /// The tolerance that is exceeded.
    pub(crate) window: Option<Window>,
}

/// STALL_SLOT_BACKEND, STALL_SLOT_FRONTEND and STALL_SLOT, which mean nothing without PMMIR_EL1.SLOTS.
const STALL_SLOTS: u64 = 0b111 << (0x3d - 0x20);

impl Judge {
    /// What a guest that is entered could read without a trap is what it should read.
    pub(crate) fn entered(&mut self, guest: usize, at: &At<'_>) {
        if at.guest_always_traps() {
            return;
        }
        let registers = at.cpu.registers();
        let counters = self.guests[guest].ideal.registers().accessible(1).min(registers.accessible(1));
        let each = [
            Of::Pmcr,
            Of::Pmcntenset,
            Of::Pmintenset,
            Of::Pmovsset,
            Of::Pmselr,
            Of::Pmuserenr,
            Of::Pmccntr,
            Of::Pmccfiltr,
        ];
        let executed = |register| at.cpu.would(register, 1, false) == Outcome::Executed;
        let each = each.into_iter().map(Register::of).filter(|&register| executed(register));
        // Where one of a counter that EL1 reaches goes, those of all go.
        let (value, of_type) = (executed(Register::pmevcntr(0)), executed(Register::pmevtyper(0)));
        let of_counters = (0..counters).flat_map(|n| {
            [value.then(|| Register::pmevcntr(n)), of_type.then(|| Register::pmevtyper(n))]
                .into_iter()
                .flatten()
        });
        for register in each.chain(of_counters) {
            let actual = self.as_wide(guest, register, at.cpu.read(register, 1));
            self.compare(guest, register, 1, actual, Kind::GuestEntry, at);
        }
    }

    /// What the CPU has given of an event counter, as far as the guest's PMU has its bits.
    #[inline]
    pub(crate) fn as_wide(&mut self, guest: usize, register: Register, actual: u64) -> u64 {
        let above = self.guests[guest].above(register) & actual;
        if above != 0 && self.findings.allows(Window::LaterPmu, true, true) {
            actual & !above
        } else {
            actual
        }
    }

    pub(crate) fn compare(
        &mut self,
        guest: usize,
        register: Register,
        el: u8,
        actual: u64,
        kind: Kind,
        at: &At<'_>,
    ) {
        let (invariant, of_host) = match register.kind() {
            Of::Pmevcntr | Of::Pmccntr | Of::Pmxevcntr => (Invariant::I4, 0),
            Of::Pmcr => (Invariant::I8, self.hosts[at.id].ideal.read(register, 2) & PMCR_CONTROLS),
            of @ (Of::Pmcntenset
            | Of::Pmcntenclr
            | Of::Pmintenset
            | Of::Pmintenclr
            | Of::Pmovsset
            | Of::Pmovsclr) => (Invariant::I7, self.hosts[at.id].ideal.read(Register::of(of), 2)),
            _ => (Invariant::I7, 0),
        };
        self.findings.premise(invariant);
        self.findings.premise(Invariant::I1);
        let others = if kind == Kind::GuestEntry { of_host } else { 0 };
        let Some(Difference { expected, mask, window }) =
            self.difference(guest, register, el, actual, others, at)
        else {
            return;
        };
        let extra = actual & !expected & mask;
        let victim = Party::Guest(at.running.context);
        let of_counter = self.hosts[at.id].owner(at.cpu, register);
        let owner = of_counter.or_else(|| self.controls_of(register, extra, at));
        let above = self.guests[guest].above(register);
        let left = extra != 0 && self.from_cpu && (at.cpu.read(register, el) ^ actual) & !above == 0;
        let visible = of_host & self.guests[guest].ideal.registers().implemented();
        let (invariant, other) = match owner {
            // Bits that it has not, or on the CPU just those that the host has of its counters.
            _ if extra & of_host != 0 || visible != 0 && self.from_cpu && actual & mask == visible => {
                (Invariant::I1, Party::Host)
            }
            Some(owner) if left && owner != victim => (Invariant::I1, owner),
            _ if self.guests[guest].counts_denied(register) && actual.wrapping_sub(expected) >> 63 == 0 => {
                (Invariant::I1, Party::Kvm)
            }
            _ => (invariant, Party::Kvm),
        };
        let (expected, actual) = (expected & mask, actual & mask);
        let broken = Broken { window, ..Broken::new(invariant, kind) };
        self.violated(Broken { register: Some(register), victim, other, expected, actual, ..broken }, at);
    }

    /// The guest whose controls are in PMCR_EL0: it, or KVM for it, wrote that last, and it has them itself. What else
    /// KVM may have written while it was loaded, its own or the host's, the guest has not.
    fn controls_of(&self, register: Register, extra: u64, at: &At<'_>) -> Option<Party> {
        let controls = extra & PMCR_CONTROLS;
        if register.kind() != Of::Pmcr || controls == 0 {
            return None;
        }
        let last = self.hosts[at.id].of_registers[register.id()];
        let Party::Guest(context) = last else { return None };
        let guest = &self.guests[self.guest(context)?];
        (controls & !guest.ideal.read(register, 1) == 0).then_some(last)
    }

    /// How what is read of a guest's, or is there to be read, is not as it should be, and not tolerated: with the bits
    /// that `others` have, which an UNKNOWN value has not (Arm ARM, Glossary).
    pub(crate) fn difference(
        &mut self,
        guest: usize,
        register: Register,
        el: u8,
        actual: u64,
        others: u64,
        at: &At<'_>,
    ) -> Option<Difference> {
        let leaked =
            if others == 0 { 0 } else { actual & others & !self.guests[guest].expected(register, el) };
        match self.guests[guest].compare(at.world, register, el, actual) {
            Compared::Same => None,
            Compared::AsWritten => {
                self.findings.allows(Window::ReservedBits, true, true);
                None
            }
            Compared::Adopted { window, closes } => {
                let allowed = self.findings.allows(window, leaked == 0, closes);
                let expected = actual & !others;
                (!allowed).then_some(Difference { expected, mask: !0, window: Some(window) })
            }
            Compared::Differs { expected, mask, window } => {
                let allowed = window.is_some_and(|window| self.findings.allows(window, false, false));
                (!allowed).then_some(Difference { expected, mask, window })
            }
        }
    }

    /// The guest's access is done, by the CPU or by KVM.
    pub(crate) fn guest_access(
        &mut self,
        guest: usize,
        register: Register,
        el: u8,
        written: Option<u64>,
        value: u64,
        at: &At<'_>,
    ) {
        self.findings.premise(Invariant::I8);
        if el == 0
            && self.guests[guest].el0_is_beyond()
            && self.findings.allows(Window::LaterPmu, true, false)
        {
            self.guests[guest].accessed_beyond(at.world, register, written);
            return;
        }
        if written.is_none() && matches!(register.kind(), Of::Pmceid0 | Of::Pmceid1 | Of::Pmmir) {
            self.identified(guest, register, value, at);
            return;
        }
        if self.guests[guest].absent(register) && self.guests[guest].selected(register) {
            self.absent_accessed(guest, register, written.is_some(), value, at);
            return;
        }
        if let Outcome::Undefined(_) | Outcome::Trapped(_) =
            self.guests[guest].outcome(register, el, written.is_some())
        {
            self.violated(
                Broken {
                    register: Some(register),
                    victim: Party::Guest(at.running.context),
                    expected: 1,
                    actual: 0,
                    ..Broken::new(Invariant::I8, Kind::Undefined)
                },
                at,
            );
            return;
        }
        if let Some(value) = written {
            let before = changes_counting(register.kind()).then(|| self.guests[guest].counting(register));
            self.guests[guest].write(at.world, register, el, value);
            if let Some(before) = before {
                self.takes_effect(guest, register, before, at);
            }
            if let Some(n) = self.guests[guest].counter(register) {
                self.guests[guest].counted[n].clear();
                self.guests[guest].counted_before[n].clear();
            }
            if matches!(register.kind(), Of::Pmcr | Of::Pmcntenset | Of::Pmcntenclr) {
                self.guest_counts(guest, at);
            }
        } else {
            self.compare(guest, register, el, value, Kind::GuestRead, at);
            let of_value = matches!(register.kind(), Of::Pmevcntr | Of::Pmccntr | Of::Pmxevcntr);
            if let Some(n) = self.guests[guest].counter(register).filter(|_| of_value && el == 1) {
                self.guests[guest].events.counter_read(0, n, at);
            }
        }
    }

    /// Of a counter that it has not, a guest's access that is executed reads 0, or what one of its own counters has
    /// (PMSELR_EL0 selects an UNKNOWN one); a write is ignored, or KVM takes SEL = 31 for the cycle counter.
    fn absent_accessed(&mut self, guest: usize, register: Register, write: bool, value: u64, at: &At<'_>) {
        let lowest = self.guests[guest].lowest_absent(register);
        if write {
            self.findings.allows(Window::AbsentCounter, true, lowest);
            self.guests[guest].absent_written();
            return;
        }
        let within = value == 0 || self.guests[guest].reads(value);
        if !self.findings.allows(Window::AbsentCounter, within, lowest) {
            let victim = Party::Guest(at.running.context);
            let window = Some(Window::AbsentCounter);
            let broken = Broken { window, ..Broken::new(Invariant::I1, Kind::GuestRead) };
            let named = self.guests[guest].named(register);
            if named.kind() == Of::Pmccntr {
                self.compare(guest, named, at.running.el, value, Kind::GuestRead, at);
                return;
            }
            let other = self.whose(at, named, value, victim).unwrap_or(Party::Nobody);
            self.violated(Broken { register: Some(register), victim, other, actual: value, ..broken }, at);
        }
    }

    /// PMCEID<n>_EL0 has no event that no CPU implements, CHAIN aside, which KVM counts itself, nor one that the VM's
    /// filter denies; PMMIR_EL1 has the hardware's value or is RAZ.
    fn identified(&mut self, guest: usize, register: Register, value: u64, at: &At<'_>) {
        let (mut some, mut all) = (0, !0);
        for host in &self.hosts {
            let read = host.ideal.read(register, 2);
            (some, all) = (some | read, all & read);
        }
        let half = u16::from(register.kind() == Of::Pmceid1);
        let denied = self.guests[guest].denied_in(half);
        let (least, most) = match register.kind() {
            Of::Pmceid0 => (all & !denied & u64::from(u32::MAX), (some | 1 << CHAIN) & !denied),
            Of::Pmceid1 => (all & !denied & u64::from(u32::MAX) & !STALL_SLOTS, some & !denied),
            _ => (0, some),
        };
        let own = self.hosts[at.id].ideal.read(register, 2);
        if value == own & !denied {
            return;
        }
        let expected = (value | least) & most;
        let edge = value == least || value == most;
        if !self.findings.allows(Window::Identification, value == expected, edge) {
            let victim = Party::Guest(at.running.context);
            let window = Some(Window::Identification);
            let broken = Broken { window, ..Broken::new(Invariant::I8, Kind::GuestRead) };
            self.violated(Broken { register: Some(register), victim, expected, actual: value, ..broken }, at);
        }
    }

    /// Who else has this value in the register.
    fn whose(&self, at: &At<'_>, register: Register, value: u64, victim: Party) -> Option<Party> {
        if value == 0 {
            return None;
        }
        if self.hosts[at.id].ideal.read(register, 2) == value {
            return Some(Party::Host);
        }
        let others = self.guests.iter().filter(|other| Party::Guest(other.context) != victim);
        others
            .filter(|other| other.ideal.read(register, 1) == value)
            .map(|other| Party::Guest(other.context))
            .next()
    }

    pub(crate) fn taken(&mut self, by: By, access: (u16, bool, u64), to: u8, at: &At<'_>) {
        let (encoding, write, value) = access;
        let el = at.running.el;
        let Some(guest) = self.running(at.cpu) else {
            if el == 2 {
                self.oopses(by, encoding, at);
            }
            return;
        };
        if to == 2 {
            self.guests[guest].trapped =
                Some(Trapped { register: encoding, write, value, el, on_cpu: false });
            return;
        }
        self.undefined(guest, encoding, el, write, at);
    }

    /// An access of the host's kernel is UNDEFINED: KVM's, or its perf's.
    fn oopses(&mut self, by: By, encoding: u16, at: &At<'_>) {
        self.findings.premise(Invariant::I8);
        let broken = Broken::new(Invariant::I8, Kind::Undefined);
        let (register, other) = (Register::decode(encoding), Self::party(by, at.running));
        self.violated(Broken { register, other, actual: 1, ..broken }, at);
    }

    /// The guest's access is UNDEFINED for it.
    pub(crate) fn undefined(&mut self, guest: usize, encoding: u16, el: u8, write: bool, at: &At<'_>) {
        let Some(register) = Register::decode(encoding) else { return };
        self.findings.premise(Invariant::I8);
        let judged = &self.guests[guest];
        if !judged.selected(register) {
            self.findings.allows(Window::UnknownAfterReset, true, false);
        } else if judged.absent(register) {
            let lowest = judged.lowest_absent(register);
            self.findings.allows(Window::AbsentCounter, true, lowest);
        } else if judged.outcome(register, el, write) == Outcome::Executed {
            let victim = Party::Guest(judged.context);
            if el == 0 && judged.el0_is_beyond() && self.findings.allows(Window::LaterPmu, true, false) {
                return;
            }
            // It has the counter.
            let window = judged.counter(register).map(|_| Window::AbsentCounter);
            if window.is_some_and(|window| self.findings.allows(window, false, false)) {
                return;
            }
            let broken = Broken { window, ..Broken::new(Invariant::I8, Kind::Undefined) };
            self.violated(Broken { register: Some(register), victim, actual: 1, ..broken }, at);
        }
    }

    pub(crate) fn emulated(&mut self, value: u64, at: &At<'_>) {
        // KVM has run, and perhaps not come back to the guest yet.
        let Some(guest) = self.hosts[at.id].loaded.and_then(|context| self.guest(context)) else { return };
        let Some(Trapped { register, write, value: written, el, on_cpu }) = self.guests[guest].trapped.take()
        else {
            return;
        };
        let Some(register) = Register::decode(register) else { return };
        let running = Running { context: self.guests[guest].context, ..at.running };
        let at = At { running, ..*at };
        self.from_cpu = on_cpu;
        self.guest_access(guest, register, el, write.then_some(written), value, &at);
        self.from_cpu = true;
    }

    /// KVM has read a register on the CPU: for the access that has trapped, perhaps.
    pub(crate) fn kvm_read(&mut self, register: Register, at: &At<'_>) {
        let Some(guest) = self.hosts[at.id].loaded.and_then(|context| self.guest(context)) else { return };
        let Some(trapped) = &mut self.guests[guest].trapped else { return };
        let Some(other) = Register::decode(trapped.register) else { return };
        let counters = [register, other].map(|register| Host::counter(at.cpu, register));
        trapped.on_cpu |= register == other || counters[0].is_some() && counters[0] == counters[1];
    }
}
