//! Shadow ownership: whose each counter of a pCPU is, and since when, as the judge has seen it itself.

use std::collections::VecDeque;
use std::ops::Index;

use pmu::registers::COUNTERS;
use serde::{Deserialize, Serialize};

use crate::finding::Party;

/// A counter has an owner from a cycle on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Owned {
    /// Counter.
    pub counter: u8,
    /// Whose it is: who wrote its value last, or for whom KVM did.
    pub party: Party,
    /// Time in cycles.
    pub since: u64,
}

/// Changes of ownership that are kept of a CPU.
const KEPT: usize = 256;

/// Owners of a counter that are told.
const TOLD: usize = 4;

/// The counters of a pCPU.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Owners {
    now: Vec<Party>,
    log: VecDeque<Owned>,
}

impl Default for Owners {
    fn default() -> Self {
        Self { now: vec![Party::Nobody; COUNTERS], log: VecDeque::new() }
    }
}

impl Owners {
    /// Counter `n` is `party`'s from `cycle` on, if it was not.
    #[inline]
    pub fn pass(&mut self, n: usize, party: Party, cycle: u64) {
        if self.now[n] == party {
            return;
        }
        self.now[n] = party;
        if self.log.len() == KEPT {
            self.log.pop_front();
        }
        self.log.push_back(Owned { counter: n as u8, party, since: cycle });
    }

    /// What `party` has is nobody's from `cycle` on.
    pub fn lose_all(&mut self, party: Party, cycle: u64) {
        for n in 0..COUNTERS {
            if self.now[n] == party {
                self.pass(n, Party::Nobody, cycle);
            }
        }
    }

    /// The last owners of counter `n` that are kept, in order; the last of them is whose it is.
    #[must_use]
    pub fn of(&self, n: usize) -> impl DoubleEndedIterator<Item = &Owned> {
        self.log.iter().filter(move |owned| usize::from(owned.counter) == n)
    }

    /// The last few of them.
    #[must_use]
    pub fn last(&self, n: usize) -> Vec<Owned> {
        let mut last: Vec<_> = self.of(n).rev().take(TOLD).copied().collect();
        last.reverse();
        last
    }
}

impl Index<usize> for Owners {
    type Output = Party;

    fn index(&self, n: usize) -> &Party {
        &self.now[n]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn owners_are_kept_in_order_and_only_so_many() {
        let mut owners = Owners::default();
        owners.pass(2, Party::Host, 10);
        owners.pass(2, Party::Host, 20);
        owners.pass(3, Party::Guest(1), 25);
        owners.pass(2, Party::Guest(1), 30);
        owners.lose_all(Party::Guest(1), 40);
        let since: Vec<_> = owners.of(2).map(|owned| (owned.party, owned.since)).collect();
        assert_eq!(since, [(Party::Host, 10), (Party::Guest(1), 30), (Party::Nobody, 40)]);
        assert_eq!((owners[2], owners[3], owners[4]), (Party::Nobody, Party::Nobody, Party::Nobody));
        for cycle in 0..1_000 {
            owners.pass(0, if cycle % 2 == 0 { Party::Host } else { Party::Kvm }, cycle);
        }
        assert_eq!(owners.of(0).count(), KEPT);
        assert_eq!(owners.of(0).next_back().map(|owned| owned.since), Some(999));
    }
}
