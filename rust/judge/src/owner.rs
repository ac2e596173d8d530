//! Shadow ownership: whose each counter of a pCPU is, and since when, as the judge has seen it itself.

use std::collections::VecDeque;
use std::ops::Index;

use pmu::registers::COUNTERS;
use serde::{Deserialize, Serialize};

use crate::finding::Party;

/// A counter has an owner from a cycle on, or the counters that guests are given have one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Owned {
    /// Counter; none of those below MDCR_EL2.HPMN together, with the controls that are theirs.
    pub counter: Option<u8>,
    /// Whose it is: who wrote its value last, or for whom KVM did; of the range, the vCPU that is loaded and has it.
    pub party: Party,
    /// Time in cycles.
    pub since: u64,
}

/// Changes of ownership that are kept of a CPU.
const KEPT: usize = 256;

/// Owners of a counter that are told.
const TOLD: usize = 32;

/// The counters of a pCPU.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Owners {
    now: Vec<Party>,
    range: Party,
    log: VecDeque<Owned>,
}

/// Of a counter, and of the range, at the reset.
const FIRST: (Party, Party) = (Party::Nobody, Party::Host);

impl Default for Owners {
    fn default() -> Self {
        let (of_counter, range) = FIRST;
        Self { now: vec![of_counter; COUNTERS], range, log: VecDeque::new() }
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
        self.logs(Owned { counter: Some(n as u8), party, since: cycle });
    }

    /// Likewise the counters below MDCR_EL2.HPMN.
    pub fn pass_range(&mut self, party: Party, cycle: u64) {
        if self.range != party {
            self.range = party;
            self.logs(Owned { counter: None, party, since: cycle });
        }
    }

    fn logs(&mut self, owned: Owned) {
        if self.log.len() == KEPT {
            self.log.pop_front();
        }
        self.log.push_back(owned);
    }

    /// What `party` has is nobody's from `cycle` on.
    pub fn lose_all(&mut self, party: Party, cycle: u64) {
        for n in 0..COUNTERS {
            if self.now[n] == party {
                self.pass(n, Party::Nobody, cycle);
            }
        }
    }

    /// The last owners of a counter, or of the range, that are kept, in order; the last of them is whose it is.
    #[must_use]
    pub fn of(&self, counter: Option<u8>) -> impl DoubleEndedIterator<Item = &Owned> {
        self.log.iter().filter(move |owned| owned.counter == counter)
    }

    /// The last of them; from the reset on, if there are no more.
    #[must_use]
    pub fn last(&self, counter: Option<u8>) -> Vec<Owned> {
        let mut last: Vec<_> = self.of(counter).rev().take(TOLD).copied().collect();
        if last.len() < TOLD && self.log.len() < KEPT {
            let party = if counter.is_some() { FIRST.0 } else { FIRST.1 };
            last.push(Owned { counter, party, since: 0 });
        }
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
    fn who_had_it_is_told_from_the_reset_on() {
        let mut owners = Owners::default();
        owners.pass_range(Party::Guest(1), 10);
        owners.pass_range(Party::Guest(1), 20);
        owners.pass(2, Party::Guest(1), 30);
        let told =
            |counter| owners.last(counter).into_iter().map(|owned| (owned.party, owned.since)).collect();
        let (range, second, third): (Vec<_>, Vec<_>, Vec<_>) = (told(None), told(Some(2)), told(Some(3)));
        assert_eq!(range, [(Party::Host, 0), (Party::Guest(1), 10)]);
        assert_eq!(second, [(Party::Nobody, 0), (Party::Guest(1), 30)]);
        assert_eq!(third, [(Party::Nobody, 0)]);
    }

    #[test]
    fn of_more_than_is_kept_the_first_is_not_made_up() {
        let mut owners = Owners::default();
        for cycle in 0..TOLD as u64 {
            owners.pass(0, if cycle % 2 == 0 { Party::Host } else { Party::Kvm }, cycle);
        }
        assert_eq!(owners.last(Some(0)).first().map(|owned| owned.party), Some(Party::Host));
        for cycle in 0..KEPT as u64 {
            owners.pass(0, if cycle % 2 == 0 { Party::Host } else { Party::Kvm }, cycle);
        }
        assert!(owners.last(Some(1)).is_empty());
    }

    #[test]
    fn owners_are_kept_in_order_and_only_so_many() {
        let mut owners = Owners::default();
        owners.pass(2, Party::Host, 10);
        owners.pass(2, Party::Host, 20);
        owners.pass(3, Party::Guest(1), 25);
        owners.pass(2, Party::Guest(1), 30);
        owners.lose_all(Party::Guest(1), 40);
        let since: Vec<_> = owners.of(Some(2)).map(|owned| (owned.party, owned.since)).collect();
        assert_eq!(since, [(Party::Host, 10), (Party::Guest(1), 30), (Party::Nobody, 40)]);
        assert_eq!((owners[2], owners[3], owners[4]), (Party::Nobody, Party::Nobody, Party::Nobody));
        for cycle in 0..1_000 {
            owners.pass(0, if cycle % 2 == 0 { Party::Host } else { Party::Kvm }, cycle);
        }
        assert_eq!(owners.of(Some(0)).count(), KEPT);
        assert_eq!(owners.of(Some(0)).next_back().map(|owned| owned.since), Some(999));
    }
}
