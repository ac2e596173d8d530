//! The host's driver synchronises what it writes before it goes on by it: I6.
//!
//! A direct write of a System register is sure to have its effect behind a context synchronisation event, and not
//! before. The core has it at once: so it is judged by the order of the writes, as drivers/perf/arm_pmuv3.c has it. What
//! KVM writes of a guest's counters, which count nothing at EL2, the entry to the guest synchronises.

use pmu::cpu::Cpu;
use pmu::register::{Kind as Of, Register};
use serde::{Deserialize, Serialize};

use crate::finding::{Invariant, Kind, Party};
use crate::traffic::written;
use crate::{At, Broken, Judge};

/// The counters of which the host's driver has written something since the CPU's last context synchronisation.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Unsynchronised {
    /// That were enabled, and are not any more.
    disabled: u64,
    /// That interrupted, and do not any more.
    silenced: u64,
    /// Whose type or value is new.
    configured: u64,
    /// That are enabled.
    enabled: u64,
    /// That MDCR_EL2.HPME has started with something of this, unless an ISB is next.
    starting: u64,
}

impl Unsynchronised {
    /// The driver writes a register on `cpu`, where its own are as `host` has them up to here. The counters for which an
    /// ISB is missing before that.
    fn write(&mut self, register: Register, value: u64, host: &Cpu, cpu: &Cpu) -> u64 {
        let read = |of| host.read(Register::of(of), 2);
        match register.kind() {
            Of::Pmcntenclr => {
                self.disabled |= value & read(Of::Pmcntenset);
                0
            }
            Of::Pmintenclr => {
                self.silenced |= value & read(Of::Pmintenset);
                0
            }
            // armv8pmu_disable_intens(): the flag of an interrupt that may come still; and it may be set once more.
            Of::Pmovsclr => value & (self.silenced | self.disabled),
            // armv8pmu_enable_event()
            Of::Pmcntenset => {
                self.enabled |= value;
                value & self.configured
            }
            _ => {
                // armv8pmu_disable_event_counter()
                let counter = written(cpu, register).map_or(0, |n| 1 << n);
                self.configured |= counter;
                counter & self.disabled
            }
        }
    }
}

impl Judge {
    /// The host's driver is about to write a register, which the ideal has not seen yet.
    pub(crate) fn driver_writes(&mut self, register: Register, value: u64, at: &At<'_>) {
        let host = &mut self.hosts[at.id];
        let early = host.unsynchronised.write(register, value, &host.ideal, at.cpu);
        self.in_order(register, early, at);
    }

    /// It has written PMCR_EL0 or MDCR_EL2, before which these counted at EL2.
    pub(crate) fn driver_starts(&mut self, register: Register, before: u64, at: &At<'_>) {
        let host = &self.hosts[at.id];
        let started = host.ideal.registers().counting(2) & !before;
        let early = started & (host.unsynchronised.configured | host.unsynchronised.enabled);
        if started != 0 {
            self.findings.premise(Invariant::I6);
        }
        if register.kind() == Of::Pmcr {
            self.in_order(register, early, at); // armv8pmu_pmcr_write()
        } else {
            // kvm_pmu_host_counters_enable() has no ISB, and armv8pmu_pmcr_write(), which follows, has.
            self.hosts[at.id].unsynchronised.starting = early;
        }
    }

    /// Something else than that ISB is next, or a read before it.
    #[inline]
    pub(crate) fn goes_on(&mut self, at: &At<'_>) {
        let starting = std::mem::take(&mut self.hosts[at.id].unsynchronised.starting);
        self.in_order(Register::of(Of::MdcrEl2), starting, at);
    }

    #[inline]
    fn in_order(&mut self, register: Register, early: u64, at: &At<'_>) {
        if early != 0 {
            let broken = Broken::new(Invariant::I6, Kind::DriverOrder);
            self.violated(
                Broken { register: Some(register), other: Party::Host, actual: early, ..broken },
                at,
            );
        }
    }
}
