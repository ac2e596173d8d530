//! The host's PMU on a CPU as its perf should find it: an ideal one, which nobody but the host's perf writes.

use pmu::cpu::{Cpu, Running};
use pmu::feature::Features;
use pmu::field::{mdcr_el2, pmcr};
use pmu::register::{Kind as Of, REGISTERS, Register};
use pmu::registers::{CYCLE, INSTRUCTION};
use pmu::tally::World;
use serde::{Deserialize, Serialize};

use crate::counted::Accounts;
use crate::finding::Party;
use crate::order::Unsynchronised;
use crate::owner::Owners;
use crate::swap::Swap;

/// Who has changed what the host has on its counters, and when.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub struct Change {
    /// The counters that it concerns.
    pub counters: u64,
    /// By whom.
    pub by: Party,
    /// Time in cycles.
    pub cycle: u64,
}

/// A pCPU as the judge sees it.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Host {
    /// The host's PMU as it should be.
    pub ideal: Cpu,
    /// The context that is loaded, or being loaded or put.
    pub loaded: Option<usize>,
    /// Whose each counter is.
    pub owners: Owners,
    /// Who is counted in each.
    pub counted: Accounts,
    /// The last change of what the host's perf has not undone since.
    pub changed: Option<Change>,
    /// The vcpu_load or vcpu_put that has begun and not ended.
    pub swap: Option<Swap>,
    /// Its driver has started its range by MDCR_EL2.HPME alone, which no guest's HPMN has split off yet.
    pub(crate) starts_range: bool,
    /// PMU interrupts of the host's in a row.
    pub(crate) in_a_row: u32,
    /// When PMSELR_EL0 was written, if that is not synchronised yet.
    pub selected: Option<u64>,
    /// What its driver has written, and not synchronised.
    pub unsynchronised: Unsynchronised,
    /// The contexts of vCPUs that have blocked on it while an interrupt of theirs was on its way.
    pub(crate) asleep: Vec<usize>,
    /// Overflows that have been seen.
    pub(crate) overflows: u64,
    /// Whose value each register has: who wrote it last.
    pub of_registers: Vec<Party>,
}

impl Host {
    /// A CPU after its reset.
    #[must_use]
    pub fn new(id: usize, features: Features) -> Self {
        let ideal = Cpu::new(id, features);
        Self {
            ideal,
            loaded: None,
            owners: Owners::default(),
            counted: Accounts::default(),
            changed: None,
            swap: None,
            starts_range: false,
            in_a_row: 0,
            selected: None,
            unsynchronised: Unsynchronised::default(),
            asleep: Vec::new(),
            overflows: 0,
            of_registers: vec![Party::Nobody; REGISTERS],
        }
    }

    /// Something else runs on the CPU from now on.
    pub fn runs(&mut self, running: Running, world: &World) {
        self.ideal.follow(world, running);
    }

    /// A context synchronisation event: an ISB, an exception or the return from one.
    #[inline]
    pub(crate) fn synchronised(&mut self) {
        self.selected = None;
        self.unsynchronised = Unsynchronised::default();
    }

    /// The counter whose value a register is on this CPU.
    #[must_use]
    pub fn counter(cpu: &Cpu, register: Register) -> Option<usize> {
        match register.kind() {
            Of::Pmevcntr => Some(usize::from(register.index())),
            Of::Pmccntr => Some(CYCLE),
            Of::Pmicntr => Some(INSTRUCTION),
            Of::Pmxevcntr => Some(cpu.read(Register::of(Of::Pmselr), 2) as usize & 31),
            _ => None,
        }
    }

    /// Whose value a register of which each party has its own has; `None` of one that parties share, bit by bit.
    #[must_use]
    pub fn owner(&self, cpu: &Cpu, register: Register) -> Option<Party> {
        match register.kind() {
            Of::Pmevtyper | Of::Pmccfiltr | Of::Pmselr | Of::Pmuserenr => {
                Some(self.of_registers[register.id()])
            }
            _ => Self::counter(cpu, register).map(|n| self.owners[n]),
        }
    }

    /// Counters that count for the host's perf.
    #[must_use]
    pub fn enabled(&self) -> u64 {
        self.ideal.read(Register::of(Of::Pmcntenset), 2)
    }

    /// While a guest has the first range, MDCR_EL2.HPME is the host's one enable of its own: what its driver does by
    /// that stands when it has all counters again, and PMCR_EL0.E is its enable.
    pub fn started_by_hpme(&mut self, mdcr: u64, world: &World) {
        if self.divided() {
            let register = Register::of(Of::Pmcr);
            let others = self.ideal.read(register, 2) & !pmcr::E;
            let e = if mdcr & mdcr_el2::HPME != 0 { pmcr::E } else { 0 };
            self.ideal.write(world, register, 2, others | e);
        } else {
            self.starts_range = mdcr & mdcr_el2::HPME != 0;
        }
    }

    /// KVM writes MDCR_EL2. If that gives a guest the first range, what the driver has started by HPME alone is started.
    pub(crate) fn splits(&mut self, mdcr: u64, world: &World) -> bool {
        let split = mdcr & mdcr_el2::HPMN < u64::from(self.ideal.registers().features().counters);
        let starts = self.starts_range && split;
        if starts {
            let register = Register::of(Of::Pmcr);
            self.ideal.write(world, register, 2, self.ideal.read(register, 2) | pmcr::E);
            self.starts_range = false;
        }
        starts
    }

    /// Its driver has set what it wants in PMUSERENR_EL0 while the register is a guest's.
    pub fn has_userenr(&mut self, value: u64, world: &World) {
        self.ideal.write(world, Register::of(Of::Pmuserenr), 2, value);
    }

    /// A guest has the first range, and the host the second.
    #[must_use]
    pub fn divided(&self) -> bool {
        self.ideal.registers().second_range() != 0
    }

    /// The last change of counter `n` by others, if the host's perf has not started it anew since.
    #[must_use]
    pub fn changed(&self, n: usize) -> Option<Change> {
        self.changed.filter(|change| change.counters >> n & 1 != 0)
    }

    /// The host's perf has these counters as they should be again.
    pub fn undone(&mut self, counters: u64) {
        if let Some(change) = &mut self.changed {
            change.counters &= !counters;
        }
    }
}
