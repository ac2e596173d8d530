//! Since when each flag of a guest's interrupts it.
//!
//! That is no matter of the level alone: when the guest clears the flag that it has been interrupted for, a counter that
//! has overflowed meanwhile goes on with it, and its own interrupt may be on its way still.

use pmu::cpu::{Cpu, Overflow};
use serde::{Deserialize, Serialize};

use crate::traffic::bits;

/// Of the flags that interrupt.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Raised {
    flags: u64,
    /// By flag, on the clock of the ideal PMU, in cycles: its counter's overflow, or the write by which it interrupts.
    at: Vec<u64>,
    /// Overflows of the ideal PMU that have been seen.
    overflows: u64,
}

impl Raised {
    /// From now on these flags interrupt.
    #[inline]
    pub(crate) fn follow(&mut self, flags: u64, ideal: &Cpu) {
        let seen = std::mem::replace(&mut self.overflows, ideal.overflows().times());
        let new = flags & !std::mem::replace(&mut self.flags, flags);
        if new == 0 {
            return;
        }
        self.at.resize(u64::BITS as usize, 0);
        for n in bits(new) {
            let mut of_counter = ideal.overflows().since(seen).filter(|one| usize::from(one.counter) == n);
            self.at[n] = of_counter.next().map_or(ideal.now(), |Overflow { cycle, .. }| cycle);
        }
    }

    /// When each flag that interrupts began to.
    pub(crate) fn times(&self) -> impl Iterator<Item = u64> {
        bits(self.flags).map(|n| self.at[n])
    }

    /// When the one that has for longest began to.
    pub(crate) fn first(&self) -> Option<u64> {
        self.times().min()
    }
}
