//! Who watches a machine sees what happens on it, in order, and changes nothing.
//!
//! What is observed is in no log and no digest. Without an observer (`()`) the compiler leaves all of it out.

use serde::{Deserialize, Serialize};

use crate::cpu::{Cpu, Running};
use crate::log::{Record, code};
use crate::tally::World;

/// Whose operations a CPU executes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum By {
    /// Software that attends the CPU: a guest's kernel or the host's perf.
    Software,
    /// KVM itself, at EL2.
    Kvm,
}

/// What has happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum What {
    /// An `MRS` was executed, and read `value`.
    Read {
        /// Register encoding.
        register: u16,
        /// What it read.
        value: u64,
    },
    /// An `MSR` was executed.
    Wrote {
        /// Register encoding.
        register: u16,
        /// What it wrote.
        value: u64,
    },
    /// An access took an exception: to EL2 a trap, else to its own level.
    Taken {
        /// Register encoding.
        register: u16,
        /// An `MSR`.
        write: bool,
        /// What it was to write, 0 for a read.
        value: u64,
        /// Exception level to which it is taken.
        to: u8,
        /// `ESR_ELx` there.
        esr: u64,
    },
    /// The access that has trapped last is emulated.
    Emulated {
        /// What a read is to find.
        value: u64,
    },
    /// An `ISB`.
    Isb,
    /// Something else runs from now on, at another level or under another profile; before it, `last` did.
    Runs {
        /// What ran.
        last: Option<Running>,
    },
    /// KVM's run loop has the CPU again: the guest has not only left for the hypervisor's own code
    /// (`guest_timing_exit_irqoff`).
    Exited,
    /// Somebody has worked from this cycle on, at an exception level at which interrupts are unmasked.
    Worked {
        /// Time at which it began.
        from: u64,
    },
    /// The CPU was in WFI from this cycle on.
    Idled {
        /// Time at which it began.
        from: u64,
    },
    /// The CPU had a Warm reset.
    Reset,
    /// A mark, which is in the log too.
    Mark {
        /// Its code.
        code: u16,
        /// First operand.
        a: u64,
        /// Second operand.
        b: u64,
    },
    /// What software or KVM tells, for an observer alone.
    Note {
        /// Its code.
        code: u32,
        /// First operand.
        a: u64,
        /// Second operand.
        b: u64,
    },
}

/// Sees what happens on a machine.
pub trait Observer {
    /// On `cpu`, whose time and running context are as of then, `what` has happened. An access at EL0 of a program is
    /// seen while the program runs.
    fn see(&mut self, by: By, what: What, cpu: &Cpu, world: &World);
}

impl Observer for () {
    #[inline]
    fn see(&mut self, _: By, _: What, _: &Cpu, _: &World) {}
}

impl<O: Observer> Observer for Option<O> {
    #[inline]
    fn see(&mut self, by: By, what: What, cpu: &Cpu, world: &World) {
        if let Some(observer) = self {
            observer.see(by, what, cpu, world);
        }
    }
}

impl<A: Observer, B: Observer> Observer for (A, B) {
    #[inline]
    fn see(&mut self, by: By, what: What, cpu: &Cpu, world: &World) {
        self.0.see(by, what, cpu, world);
        self.1.see(by, what, cpu, world);
    }
}

/// Keeps what is in the log: accesses and marks.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Recorder(Vec<Record>);

impl Recorder {
    /// The records since the last call.
    pub fn take(&mut self) -> Vec<Record> {
        std::mem::take(&mut self.0)
    }
}

impl Observer for Recorder {
    fn see(&mut self, _: By, what: What, cpu: &Cpu, _: &World) {
        let (code, subject, value) = match what {
            What::Read { register, value } => (code::READ, u64::from(register), value),
            What::Wrote { register, value } => (code::WRITE, u64::from(register), value),
            What::Taken { register, write: false, esr, .. } => {
                (code::READ_EXCEPTION, u64::from(register), esr)
            }
            What::Taken { register, write: true, esr, .. } => {
                (code::WRITE_EXCEPTION, u64::from(register), esr)
            }
            What::Mark { code, a, b } => (code::MARK.saturating_add(code), a, b),
            _ => return,
        };
        let el = cpu.running().map_or(0, |running| running.el);
        self.0.push(Record { cpu: cpu.id() as u16, el, code, cycle: cpu.now(), subject, value });
    }
}
