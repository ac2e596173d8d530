//! What a guest writes has its effect by its next context synchronisation: I6.
//!
//! The effect is what counts, at which exception levels, and which event. What else a write does is read back (I7), or
//! interrupts (I5).

use pmu::cpu::Cpu;
use pmu::field::pmevtyper;
use pmu::register::{Kind as Of, Register};
use pmu::registers::Registers;
use serde::{Deserialize, Serialize};

use crate::finding::{Invariant, Kind, Party};
use crate::guest::Guest;
use crate::traffic::{bits, type_of};
use crate::{At, Broken, Judge};

/// A guest's writes since its last context synchronisation.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Effects {
    /// Counters for which they have changed what counts.
    changed: u64,
    /// Those of them for which the CPU's has not been so yet.
    open: u64,
    /// Time in cycles of the last of them.
    since: u64,
}

/// What counts at EL0 and EL1, and the event of the counter whose type is to be written.
#[derive(Clone, Copy)]
pub(crate) struct Counting {
    at: [u64; 2],
    event: u64,
}

fn counting(registers: &Registers) -> [u64; 2] {
    [0, 1].map(|el| registers.counting(el))
}

impl Guest {
    /// What counts for it, and the event of the counter whose type the register is.
    pub(crate) fn counting(&self, register: Register) -> Counting {
        let registers = self.ideal.registers();
        let event = self.counter(register).map_or(0, |n| registers.read_filter(n) & pmevtyper::EVT_COUNT);
        Counting { at: counting(registers), event }
    }

    /// The counters for which a write has changed what counts, as far as that is known.
    fn changed(&self, register: Register, before: Counting) -> u64 {
        let Counting { at, event } = self.counting(register);
        let mut changed = (at[0] ^ before.at[0]) | (at[1] ^ before.at[1]);
        if event != before.event {
            changed |= self.counter(register).map_or(0, |n| (at[0] | at[1]) & 1 << n);
        }
        let denied = bits(changed).filter(|&n| self.denied(n)).fold(0, |denied, n| denied | 1 << n);
        changed & self.determined() & !denied
    }

    /// Does counter `n` on a CPU count what this guest has it count?
    fn is_in_effect(&self, n: usize, cpu: &Cpu) -> bool {
        let (ideal, on_cpu) = (self.ideal.registers(), cpu.registers());
        let counts = |registers| counting(registers).map(|at| at >> n & 1);
        let events = (ideal.read_filter(n) ^ on_cpu.read_filter(n)) & pmevtyper::EVT_COUNT;
        counts(ideal) == counts(on_cpu) && (counts(ideal) == [0, 0] || events & ideal.filter_mask(n) == 0)
    }
}

impl Judge {
    /// A guest's write is done. What it changes may be so on the CPU at once.
    pub(crate) fn takes_effect(&mut self, guest: usize, register: Register, before: Counting, at: &At<'_>) {
        let judged = &self.guests[guest];
        let changed = judged.changed(register, before);
        if changed == 0 {
            return;
        }
        let Effects { changed: earlier, open, .. } = judged.effects;
        let open = bits(open | changed).filter(|&n| !judged.is_in_effect(n, at.cpu));
        let open = open.fold(0, |open, n| open | 1 << n);
        self.guests[guest].effects = Effects { changed: earlier | changed, open, since: at.cpu.now() };
    }

    /// A guest has executed an ISB, taken an exception or come back from one.
    pub(crate) fn context_synchronised(&mut self, guest: usize, at: &At<'_>) {
        let Effects { changed, open, since } = std::mem::take(&mut self.guests[guest].effects);
        let victim = Party::Guest(at.running.context);
        // What is not on the CPU is counted by perf events of the host's, which are compared when they are read.
        if !bits(changed).any(|n| self.is_on_cpu(victim, n, at)) {
            return;
        }
        self.findings.premise(Invariant::I6);
        let judged = &self.guests[guest];
        let open = open & judged.determined();
        let late = |&n: &usize| self.is_on_cpu(victim, n, at) && !judged.is_in_effect(n, at.cpu);
        let Some(n) = bits(open).find(late) else { return };
        let (ideal, on_cpu) = (judged.ideal.registers(), at.cpu.registers());
        let types = [ideal, on_cpu].map(|registers| registers.read_filter(n) & ideal.filter_mask(n));
        let counts = [ideal, on_cpu].map(|registers| {
            let [el0, el1] = counting(registers);
            (el0 | el1) & ideal.implemented()
        });
        let (register, [expected, actual]) =
            if types[0] == types[1] { (Register::of(Of::Pmcntenset), counts) } else { (type_of(n), types) };
        let broken = Broken {
            register: Some(register),
            victim,
            expected,
            actual,
            ..Broken::new(Invariant::I6, Kind::WithoutEffect)
        };
        self.violated(Broken { since: Some(since), ..broken }, at);
    }
}
