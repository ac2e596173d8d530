//! Whom software time is charged to, and for what.

use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::burst::{ACCOUNTS, CAUSES};

/// Cycles charged so far, by account and cause, and the account that the host's are charged to now.
#[derive(Clone, Debug)]
pub(super) struct Accounts {
    /// By account, then by cause.
    charged: Box<[u64]>,
    host: usize,
}

/// The guests' account.
const GUESTS: usize = 0;

impl Default for Accounts {
    fn default() -> Self {
        Self { charged: vec![0; ACCOUNTS * CAUSES].into_boxed_slice(), host: 1 }
    }
}

impl Accounts {
    /// Charges time of a guest's or of the host to a cause.
    #[inline]
    pub(super) fn charge(&mut self, guest: bool, cause: usize, cycles: u64) {
        let account = if guest { GUESTS } else { self.host };
        if let Some(sum) = self.charged.get_mut(account * CAUSES + cause.min(CAUSES - 1)) {
            *sum = sum.wrapping_add(cycles);
        }
    }

    /// From now on the host's cycles are charged to `account`; the one before, or `None` if the host has no such
    /// account.
    #[inline]
    pub(super) fn set_host(&mut self, account: usize) -> Option<usize> {
        (1..ACCOUNTS).contains(&account).then(|| std::mem::replace(&mut self.host, account))
    }

    /// Cycles charged to an account, by cause; none to one that there is not.
    pub(super) fn charged(&self, account: usize) -> &[u64] {
        self.charged.chunks(CAUSES).nth(account).unwrap_or_default()
    }
}

/// What has been charged, as (place, cycles): most of the 4,096 sums are 0.
#[derive(Serialize, Deserialize)]
struct State {
    host: usize,
    charged: Vec<(u16, u64)>,
}

impl Serialize for Accounts {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let places = (0u16..).zip(&self.charged);
        let charged = places.filter(|(_, cycles)| **cycles != 0).map(|(place, &cycles)| (place, cycles));
        State { host: self.host, charged: charged.collect() }.serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Accounts {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let state = State::deserialize(deserializer)?;
        let mut accounts = Self::default();
        let wrong = || D::Error::custom("an account that there is not");
        accounts.set_host(state.host).ok_or_else(wrong)?;
        for (place, cycles) in state.charged {
            *accounts.charged.get_mut(usize::from(place)).ok_or_else(wrong)? = cycles;
        }
        Ok(accounts)
    }
}
