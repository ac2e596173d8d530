//! What the host's perf has on its counters is changed by nobody else, and reads as it should: I2 and I3; and no guest
//! reaches it: I10. HPMN is one that the CPU has: I8.

use pmu::access::Outcome;
use pmu::cpu::Cpu;
use pmu::field::{mdcr_el2, pmcr};
use pmu::register::{Kind as Of, Register};
use pmu::registers::{CYCLE, INSTRUCTION};

use crate::finding::{Invariant, Kind, Party};
use crate::host::{Change, Host};
use crate::{At, Broken, Judge};

/// The counters in a mask.
pub(crate) fn bits(mut mask: u64) -> impl Iterator<Item = usize> {
    std::iter::from_fn(move || {
        let n = mask.trailing_zeros() as usize;
        (mask != 0).then(|| {
            mask &= mask - 1;
            n
        })
    })
}

/// The register that has the value of counter `n`.
pub(crate) fn value_of(n: usize) -> Register {
    match n {
        CYCLE => Register::of(Of::Pmccntr),
        n if n > CYCLE => Register::of(Of::Pmicntr),
        n => Register::pmevcntr(n as u8),
    }
}

/// The register that says what counter `n` counts.
pub(crate) fn type_of(n: usize) -> Register {
    match n {
        CYCLE => Register::of(Of::Pmccfiltr),
        n if n > CYCLE => Register::of(Of::Pmicfiltr),
        n => Register::pmevtyper(n as u8),
    }
}

/// The counter that a write changes the value or the type of.
pub(crate) fn written(cpu: &Cpu, register: Register) -> Option<usize> {
    match register.kind() {
        Of::Pmevtyper => Some(usize::from(register.index())),
        Of::Pmccfiltr => Some(CYCLE),
        Of::Pmicfiltr => Some(INSTRUCTION),
        Of::Pmxevtyper => Some(cpu.read(Register::of(Of::Pmselr), 2) as usize & 31),
        _ => Host::counter(cpu, register),
    }
}

impl Judge {
    /// The host's perf has accessed a register.
    pub(crate) fn host_access(&mut self, register: Register, written: Option<u64>, value: u64, at: &At<'_>) {
        if written.is_some() {
            let starts = matches!(register.kind(), Of::Pmcr | Of::MdcrEl2);
            let before = if starts { self.hosts[at.id].ideal.registers().counting(2) } else { 0 };
            self.driver_writes(register, value, at);
            let host = &mut self.hosts[at.id];
            host.ideal.write(at.world, register, at.running.el, value);
            if register.kind() == Of::Pmcntenset {
                host.undone(value);
            } else if register.kind() == Of::MdcrEl2 {
                host.started_by_hpme(value, at.world);
            } else if register.kind() == Of::Pmcr {
                host.starts_range = false; // by its E
            }
            if matches!(register.kind(), Of::Pmcr | Of::Pmcntenset | Of::Pmcntenclr | Of::MdcrEl2) {
                self.events.started(register, value, host, at);
            }
            if starts {
                self.driver_starts(register, before, at);
            }
            return;
        }
        let host = &mut self.hosts[at.id];
        // What is not enabled its perf writes before it enables it: nobody loses anything there.
        let Some(n) = Host::counter(at.cpu, register) else { return };
        if at.running.el == 2 {
            self.events.counter_read(at.id, n, at);
        }
        if host.enabled() >> n & 1 == 0 {
            return;
        }
        self.compare_counter(n, value, Kind::HostRead, at);
    }

    /// A thread is switched in or out: what its counters have counted is compared.
    pub(crate) fn handed_over(&mut self, at: &At<'_>) {
        for n in bits(self.hosts[at.id].enabled()) {
            self.compare_counter(n, at.cpu.counter(n), Kind::HostState, at);
        }
    }

    /// A program of the host's runs on: what it may access at EL0 is what the host's kernel has set.
    pub(crate) fn program_runs(&mut self, at: &At<'_>) {
        let register = Register::of(Of::Pmuserenr);
        let host = &self.hosts[at.id];
        if !matches!(host.of_registers[register.id()], Party::Guest(_)) {
            return; // nobody else has written it
        }
        let (expected, actual) = (host.ideal.read(register, 2), at.cpu.read(register, 2));
        self.findings.premise(Invariant::I2);
        if expected != actual {
            let broken = Broken { expected, actual, ..Broken::new(Invariant::I2, Kind::HostState) };
            self.violated(Broken { register: Some(register), ..broken }, at);
        }
    }

    fn compare_counter(&mut self, n: usize, actual: u64, kind: Kind, at: &At<'_>) {
        self.findings.premise(Invariant::I3);
        let expected = self.hosts[at.id].ideal.counter(n);
        if expected == actual {
            return;
        }
        let change = self.hosts[at.id].changed(n);
        let (invariant, other) = change.map_or((Invariant::I3, Party::Kvm), |one| (Invariant::I2, one.by));
        let broken = Broken { other, expected, actual, ..Broken::new(invariant, kind) };
        let since = change.map(|one| one.cycle);
        self.violated(Broken { register: Some(value_of(n)), since, ..broken }, at);
    }

    /// A guest, or KVM, has written a register of the PMU's directly: what the host has is as it was.
    pub(crate) fn others_wrote(&mut self, by: Party, register: Register, value: u64, at: &At<'_>) {
        let host = &mut self.hosts[at.id];
        let mine = host.enabled();
        if register.kind() == Of::Pmovsclr {
            // The flag of a counter that the host has stopped, of the lower one of a pair say, which it lets be.
            host.ideal.write(at.world, register, 2, value & !mine);
        }
        if mine == 0 {
            return;
        }
        let (cpu, ideal) = (at.cpu, &host.ideal);
        let of_first = mine & !cpu.registers().second_range();
        // The register, the bits of it that concern the host, and the counters of the host's that they concern.
        let (register, mask, counters) = match register.kind() {
            Of::Pmcntenset | Of::Pmcntenclr => (Register::of(Of::Pmcntenset), mine, mine),
            Of::Pmintenset | Of::Pmintenclr => (Register::of(Of::Pmintenset), mine, mine),
            Of::Pmovsset | Of::Pmovsclr => (Register::of(Of::Pmovsset), mine, mine),
            Of::Pmcr => {
                let mut mask = if of_first == 0 { 0 } else { pmcr::E };
                mask |= if of_first & !(1 << CYCLE) == 0 { 0 } else { pmcr::LP };
                mask |= if of_first >> CYCLE & 1 == 0 { 0 } else { pmcr::LC | pmcr::DP | pmcr::D };
                (register, mask, of_first)
            }
            _ => match written(cpu, register) {
                Some(n) if mine >> n & 1 == 0 => return,
                Some(n) if Host::counter(cpu, register).is_some() => (value_of(n), !0, 1 << n),
                Some(n) => (type_of(n), !0, 1 << n),
                None => return,
            },
        };
        self.findings.premise(Invariant::I2);
        let (expected, actual) = (ideal.read(register, 2) & mask, cpu.read(register, 2) & mask);
        let mut wrong = expected != actual;
        if wrong {
            let broken =
                Broken { other: by, expected, actual, ..Broken::new(Invariant::I2, Kind::HostState) };
            self.violated(Broken { register: Some(register), ..broken }, at);
        }
        if register.kind() == Of::Pmcr {
            wrong |= self.reset_by(by, value, mine, at);
        }
        if wrong {
            let host = &mut self.hosts[at.id];
            let before = host.changed.map_or(0, |change| change.counters);
            let change = Change { counters: counters | before, by, cycle: at.cpu.now() };
            host.changed = Some(change);
            self.events.changed(Change { counters, ..change }, at);
        }
    }

    /// Whether a write of PMCR_EL0 by others has reset counters of the host's.
    fn reset_by(&mut self, by: Party, value: u64, mine: u64, at: &At<'_>) -> bool {
        let mut wrong = false;
        let reset = (if value & pmcr::P != 0 { !(1 << CYCLE) } else { 0 })
            | (if value & pmcr::C != 0 { 1 << CYCLE } else { 0 });
        for n in bits(mine & reset) {
            let (expected, actual) = (self.hosts[at.id].ideal.counter(n), at.cpu.counter(n));
            if expected != actual {
                wrong = true;
                let broken =
                    Broken { other: by, expected, actual, ..Broken::new(Invariant::I2, Kind::HostState) };
                self.violated(Broken { register: Some(value_of(n)), ..broken }, at);
            }
        }
        wrong
    }

    /// KVM has written MDCR_EL2: what counts for the host while the host runs is what counted before, and overflows
    /// where it did.
    pub(crate) fn mdcr_written(&mut self, value: u64, at: &At<'_>) {
        let register = Register::of(Of::MdcrEl2);
        let host = &mut self.hosts[at.id];
        if host.splits(value, at.world) {
            self.events.started(Register::of(Of::Pmcr), pmcr::E, host, at);
        }
        let mine = host.enabled();
        let of = |cpu: &Cpu| (mine & cpu.registers().counting(2), mine & cpu.registers().long());
        let (counted, long) = of(&host.ideal);
        host.ideal.write(at.world, register, 2, value);
        self.events.follow_astray(at);
        if mine == 0 {
            return;
        }
        self.findings.premise(Invariant::I3);
        let (counts, now_long) = of(at.cpu);
        let broken = Broken { register: Some(register), ..Broken::new(Invariant::I3, Kind::HostState) };
        if counted & !counts != 0 {
            self.violated(Broken { expected: counted, actual: counts, ..broken }, at);
        } else if long != now_long {
            self.violated(Broken { expected: long, actual: now_long, ..broken }, at);
        }
    }

    /// KVM has written MDCR_EL2: HPMN is no more than this CPU's N, and not 0 without FEAT_HPMN0. Else it is
    /// UNPREDICTABLE which counters are the vCPU's that is loaded, or the host's where none is.
    pub(crate) fn hpmn_written(&mut self, value: u64, at: &At<'_>) {
        self.findings.premise(Invariant::I8);
        let registers = at.cpu.registers();
        if !registers.bad_hpmn() {
            return;
        }
        let register = Some(Register::of(Of::MdcrEl2));
        let victim = self.hosts[at.id].loaded.map_or(Party::Host, Party::Guest);
        let (expected, actual) = (u64::from(registers.features().counters), value & mdcr_el2::HPMN);
        let broken = Broken::new(Invariant::I8, Kind::UnpredictableHpmn);
        self.violated(Broken { register, victim, expected, actual, ..broken }, at);
    }

    /// A guest is entered: no counter that the host has an event on is one that it reaches.
    pub(crate) fn shared_with(&mut self, context: usize, at: &At<'_>) {
        let mine = self.hosts[at.id].enabled();
        if mine == 0 {
            return;
        }
        self.findings.premise(Invariant::I10);
        if at.guest_always_traps() {
            return;
        }
        let theirs = at.cpu.registers().access_mask(1);
        let register = bits(mine & theirs).map(value_of).find(|&value| {
            [false, true].into_iter().any(|write| at.cpu.would(value, 1, write) == Outcome::Executed)
        });
        if register.is_some() {
            let other = Party::Guest(context);
            let broken = Broken { register, other, ..Broken::new(Invariant::I10, Kind::HostPlacement) };
            self.violated(Broken { expected: mine & !theirs, actual: mine, ..broken }, at);
        }
    }
}
