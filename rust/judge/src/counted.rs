//! Who ran while a counter counted: with [`crate::owner`], for how long somebody was counted in a counter of another's.

use pmu::cpu::Cpu;
use pmu::register::Kind as Of;
use pmu::registers::COUNTERS;
use serde::{Deserialize, Serialize};

use crate::finding::Party;
use crate::traffic::bits;

/// A vcpu_load or vcpu_put.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Handover {
    /// vcpu_put.
    pub put: bool,
    /// The vCPU's context.
    pub context: usize,
    /// Time in cycles at which it begins.
    pub cycle: u64,
}

/// A party was counted in a counter.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counted {
    /// Who ran, while the counter was enabled and no filter excluded it.
    pub party: Party,
    /// For so many cycles.
    pub cycles: u64,
    /// Time in cycles from which on.
    pub since: u64,
    /// The last vcpu_load or vcpu_put on this CPU before that.
    pub after: Option<Handover>,
}

/// Those that are kept of a counter: what is counted after further handovers is the last one's of its party, too.
const KEPT: usize = 4;

/// Adds what was counted last: to what its party has behind the same handover.
pub(crate) fn add(counted: &mut Vec<Counted>, last: Counted) {
    let full = counted.len() >= KEPT;
    let of_party = counted.iter_mut().rev().find(|one| one.party == last.party);
    match of_party.filter(|one| one.after == last.after || full) {
        Some(one) => one.cycles += last.cycles,
        None => counted.push(last),
    }
}

/// Who has been counted in each counter of a pCPU since its value was written.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Accounts {
    counted: Vec<Vec<Counted>>,
    /// Who runs, the counters that count meanwhile, and up to when they are accounted for.
    party: Party,
    counting: u64,
    up_to: u64,
    after: Option<Handover>,
}

impl Default for Accounts {
    fn default() -> Self {
        let counted = vec![Vec::new(); COUNTERS];
        Self { counted, party: Party::Nobody, counting: 0, up_to: 0, after: None }
    }
}

/// Does a write of the register change what counts?
pub(crate) fn changes_counting(of: Of) -> bool {
    matches!(
        of,
        Of::Pmcr
            | Of::Pmcntenset
            | Of::Pmcntenclr
            | Of::MdcrEl2
            | Of::Pmevtyper
            | Of::Pmccfiltr
            | Of::Pmicfiltr
            | Of::Pmxevtyper
    )
}

impl Accounts {
    /// What has counted up to now is whoever ran.
    #[inline]
    pub fn account(&mut self, now: u64) {
        let passed = now.wrapping_sub(self.up_to);
        let since = std::mem::replace(&mut self.up_to, now);
        if passed == 0 || self.counting == 0 {
            return;
        }
        let Self { counted, party, after, .. } = self;
        for n in bits(self.counting) {
            add(&mut counted[n], Counted { party: *party, cycles: passed, since, after: *after });
        }
    }

    /// From now on `party` runs, or other counters count.
    #[inline]
    pub fn runs(&mut self, party: Party, cpu: &Cpu) {
        self.account(cpu.now());
        self.party = party;
        self.counting = cpu.counting();
    }

    /// Nobody ran up to now.
    pub fn idled(&mut self, now: u64) {
        self.up_to = now;
    }

    /// Counter `n` is given a value.
    pub fn written(&mut self, n: usize, now: u64) {
        self.account(now);
        self.counted[n].clear();
    }

    /// vcpu_load or vcpu_put begins.
    pub fn handed_over(&mut self, handover: Handover) {
        self.account(handover.cycle);
        self.after = Some(handover);
    }

    /// Who else than those of `own` was counted in counter `n`.
    #[must_use]
    pub fn others(&self, n: usize, own: impl Fn(Party) -> bool) -> Vec<Counted> {
        self.counted[n].iter().filter(|counted| !own(counted.party)).copied().collect()
    }
}
