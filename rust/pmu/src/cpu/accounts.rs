//! Whom software time is charged to, and for what.

use serde::{Deserialize, Serialize};

use crate::burst::{ACCOUNTS, CAUSES};

/// Cycles charged so far, by account and cause, and the account that the host's are charged to now.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Accounts {
    /// By account, then by cause up to the highest that was charged: a snapshot has no room for those that
    /// nobody charges.
    charged: [Vec<u64>; ACCOUNTS],
    host: usize,
}

/// The guests' account.
const GUESTS: usize = 0;

impl Default for Accounts {
    fn default() -> Self {
        Self { charged: [const { Vec::new() }; ACCOUNTS], host: 1 }
    }
}

impl Accounts {
    /// Charges time of a guest's or of the host to a cause.
    #[inline]
    pub(super) fn charge(&mut self, guest: bool, cause: usize, cycles: u64) {
        let account = if guest { GUESTS } else { self.host };
        let cause = cause.min(CAUSES - 1);
        let Some(charged) = self.charged.get_mut(account) else { return };
        match charged.get_mut(cause) {
            Some(sum) => *sum = sum.wrapping_add(cycles),
            None => charge_first(charged, cause, cycles),
        }
    }

    /// From now on the host's cycles are charged to `account`; the one before, or `None` if the host has no such
    /// account.
    #[inline]
    pub(super) fn set_host(&mut self, account: usize) -> Option<usize> {
        (1..ACCOUNTS).contains(&account).then(|| std::mem::replace(&mut self.host, account))
    }

    /// Cycles charged to an account, by cause; none to one that there is not.
    pub(super) fn charged(&self, account: usize) -> [u64; CAUSES] {
        let mut by_cause = [0; CAUSES];
        let charged = self.charged.get(account).into_iter().flatten();
        by_cause.iter_mut().zip(charged).for_each(|(sum, &cycles)| *sum = cycles);
        by_cause
    }
}

#[cold]
fn charge_first(charged: &mut Vec<u64>, cause: usize, cycles: u64) {
    charged.resize(cause, 0);
    charged.push(cycles);
}
