//! Which of the tallied events each CPU implements. On one that lacks an event, it never happens.

use serde::{Deserialize, Serialize};

use crate::feature::Features;
use crate::registers::CPU_CYCLES;
use crate::tally::Events;

/// CPUs of the same events share a set; a profile is kept once per set, with the rates of what it lacks at 0.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Implemented {
    /// The set of each CPU.
    of_cpu: Vec<usize>,
    /// Positions among [`Events`] of what each set lacks.
    lacking: Vec<Vec<usize>>,
}

impl Implemented {
    pub(super) fn new(cpus: &[Features], events: &Events) -> Self {
        let mut lacking: Vec<Vec<usize>> = Vec::new();
        let of_cpu = cpus
            .iter()
            .map(|features| {
                let lacks = |&event: &u16| event != CPU_CYCLES && !features.implements(event);
                let positions: Vec<usize> =
                    events.numbers().iter().enumerate().filter(|(_, e)| lacks(e)).map(|(n, _)| n).collect();
                lacking.iter().position(|known| *known == positions).unwrap_or_else(|| {
                    lacking.push(positions);
                    lacking.len() - 1
                })
            })
            .collect();
        Self { of_cpu, lacking }
    }

    /// Number of sets.
    pub(super) fn sets(&self) -> usize {
        self.lacking.len()
    }

    /// The rates of one profile as each set has them.
    pub(super) fn rates(&self, rates: &[u64]) -> impl Iterator<Item = Vec<u64>> {
        self.lacking.iter().map(|lacking| {
            let mut own = rates.to_vec();
            for &index in lacking {
                own[index] = 0;
            }
            own
        })
    }

    /// Where a CPU finds `profile`.
    #[inline]
    pub(super) fn profile(&self, profile: usize, cpu: usize) -> usize {
        profile * self.sets() + self.of_cpu[cpu]
    }
}
