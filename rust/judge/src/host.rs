//! The host's PMU on a CPU as its perf should find it: an ideal one, which nobody but the host's perf writes.

use pmu::cpu::{Cpu, Running};
use pmu::feature::Features;
use pmu::register::{Kind as Of, REGISTERS, Register};
use pmu::registers::CYCLE;
use pmu::tally::World;
use serde::{Deserialize, Serialize};

use crate::finding::Party;

/// A pCPU as the judge sees it.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Host {
    /// The host's PMU as it should be.
    pub ideal: Cpu,
    /// The context that is loaded, or being loaded or put.
    pub loaded: Option<usize>,
    /// When PMSELR_EL0 was written, if that is not synchronised yet.
    pub selected: Option<u64>,
    /// Whose value each counter has: who wrote it last.
    pub owners: Vec<Party>,
    /// Likewise each register.
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
            selected: None,
            owners: vec![Party::Nobody; CYCLE + 2],
            of_registers: vec![Party::Nobody; REGISTERS],
        }
    }

    /// Something else runs on the CPU from now on.
    pub fn runs(&mut self, running: Running, world: &World) {
        self.ideal.follow(world, running);
    }

    /// The counter whose value a register is on this CPU.
    #[must_use]
    pub fn counter(cpu: &Cpu, register: Register) -> Option<usize> {
        match register.kind() {
            Of::Pmevcntr => Some(usize::from(register.index())),
            Of::Pmccntr => Some(CYCLE),
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
}
