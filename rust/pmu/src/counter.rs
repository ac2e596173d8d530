//! One counter as a line in time.
//!
//! Time here is `pending`: cycles under the running tally's profile ([`crate::tally`]). A counter that
//! counts an event of `rate` per cycle (Q32.32) has the value ⌊(start + rate · pending) / 2^32⌋; one
//! that does not count is the same with rate 0. With a threshold (`FEAT_PMUv3_TH`) it is a sum of two
//! such lines. The architecture processes counters cycle by cycle; these forms say what that comes to.

use serde::{Deserialize, Serialize};

use crate::tally::FRACTION;

/// No overflow to come, no deadline.
pub const NEVER: u64 = u64::MAX;

/// One counter.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counter {
    /// Value when `pending` was 0, Q64.32 (modulo 2^96).
    start: u128,
    /// Occurrences per cycle, Q32.32; 0 if it does not count.
    rate: u64,
    /// No overflow that matters comes before this time of the CPU's clock.
    pub due: u64,
}

impl Counter {
    /// One that does not count.
    pub const ZERO: Self = Self { start: 0, rate: 0, due: NEVER };

    #[inline]
    fn sum(&self, pending: u64) -> u128 {
        self.start.wrapping_add(u128::from(self.rate) * u128::from(pending))
    }

    /// Its value, modulo 2^64.
    #[inline]
    #[must_use]
    pub fn value(&self, pending: u64) -> u64 {
        (self.sum(pending) >> 32) as u64
    }

    /// Occurrences per cycle.
    #[must_use]
    pub fn rate(&self) -> u64 {
        self.rate
    }

    /// Fraction of the next occurrence.
    #[inline]
    #[must_use]
    pub fn fraction(&self, pending: u64) -> u64 {
        self.sum(pending) as u64 & FRACTION
    }

    /// Has this value now; what it counts stays.
    #[inline]
    pub fn set(&mut self, value: u64, pending: u64) {
        let now = u128::from(value) << 32 | u128::from(self.fraction(pending));
        self.start = now.wrapping_sub(u128::from(self.rate) * u128::from(pending));
    }

    /// Begins to count: `fraction` of the next occurrence has passed.
    #[inline]
    pub fn begin(&mut self, rate: u64, fraction: u64, pending: u64) {
        let now = u128::from(self.value(pending)) << 32 | u128::from(fraction);
        self.rate = rate;
        self.start = now.wrapping_sub(u128::from(rate) * u128::from(pending));
    }

    /// Stops counting, as of `pending`.
    #[inline]
    pub fn stop(&mut self, pending: u64) {
        *self = Self { start: u128::from(self.value(pending)) << 32, ..Self::ZERO };
    }

    /// Counted in a cycle at most.
    #[inline]
    #[must_use]
    pub fn most(&self) -> u64 {
        (self.rate + FRACTION) >> 32
    }

    /// Cycles from `pending` until `distance` more are counted; `None` if beyond 2^64.
    #[must_use]
    pub fn cycles_until(&self, distance: u128, pending: u64) -> Option<u64> {
        if self.rate == 0 {
            return None;
        }
        let fraction = self.fraction(pending);
        // The first cycle by which fraction + rate * cycles >= distance * 2^32.
        if let Ok(short) = u32::try_from(distance) {
            return Some(((u64::from(short) << 32) - fraction).div_ceil(self.rate));
        }
        let cycles = ((distance << 32) - u128::from(fraction)).div_ceil(u128::from(self.rate));
        u64::try_from(cycles).ok()
    }
}

/// The threshold function of a counter that counts: in each cycle its event happens ⌊rate⌋ times or
/// once more, so there are two values that the function can have.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Threshold {
    /// Fraction of the rate.
    rate: u64,
    /// Fraction of the next occurrence at `since`.
    fraction: u64,
    /// Counted in a cycle with ⌊rate⌋ occurrences.
    low: u64,
    /// Counted in a cycle with one more.
    high: u64,
    /// When it began, in `pending`.
    since: u64,
}

impl Threshold {
    /// Begins at `pending`.
    #[must_use]
    pub fn new(rate: u64, fraction: u64, (low, high): (u64, u64), pending: u64) -> Self {
        Self { rate: rate & FRACTION, fraction, low, high, since: pending }
    }

    fn after(&self, cycles: u64) -> u128 {
        let higher = (u128::from(self.rate) * u128::from(cycles) + u128::from(self.fraction)) >> 32;
        u128::from(self.low) * (u128::from(cycles) - higher) + u128::from(self.high) * higher
    }

    /// Counted since it began, modulo 2^64.
    #[must_use]
    pub fn counted(&self, pending: u64) -> u64 {
        self.after(pending.wrapping_sub(self.since)) as u64
    }

    /// Begins anew at `pending`.
    pub fn rebase(&mut self, pending: u64) {
        let cycles = pending.wrapping_sub(self.since);
        self.fraction = self.rate.wrapping_mul(cycles).wrapping_add(self.fraction) & FRACTION;
        self.since = pending;
    }

    /// Counted in a cycle at most.
    #[must_use]
    pub fn most(&self) -> u64 {
        self.low.max(self.high)
    }

    /// Cycles from when it began until `distance` are counted; `None` if beyond 2^64. What is counted
    /// never falls with time, so that the cycle can be found by halving.
    #[must_use]
    pub fn cycles_until(&self, distance: u128) -> Option<u64> {
        let (mut before, mut after) = (0, u64::MAX);
        if self.after(after) < distance {
            return None;
        }
        while after - before > 1 {
            let middle = before + (after - before) / 2;
            if self.after(middle) < distance {
                before = middle;
            } else {
                after = middle;
            }
        }
        Some(after)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn the_overflow_comes_in_the_first_cycle_that_reaches_it(
            rate in 1u64..1 << 48,
            fraction in 0..=FRACTION,
            distance in 1u128..1 << 64,
            pending in 0u64..1 << 40,
        ) {
            let mut counter = Counter::ZERO;
            counter.begin(rate, fraction, pending);
            if let Some(cycles) = counter.cycles_until(distance, pending) {
                let exact = |cycles: u64| (u128::from(fraction) + u128::from(rate) * u128::from(cycles)) >> 32;
                prop_assert!(exact(cycles) >= distance);
                prop_assert!(exact(cycles - 1) < distance);
                prop_assert!(distance.div_ceil(u128::from(counter.most())) <= u128::from(cycles));
            }
        }

        #[test]
        fn a_value_is_where_it_was_set_whenever_that_was(
            rate in 0u64..1 << 48,
            fraction in 0..=FRACTION,
            value: u64,
            then: u64,
            later in 0u64..1 << 40,
        ) {
            let mut counter = Counter::ZERO;
            counter.begin(rate, fraction, then);
            counter.set(value, then);
            prop_assert_eq!(counter.value(then), value);
            prop_assert_eq!(counter.fraction(then), fraction);
            let at = then.saturating_add(later);
            let counted = (u128::from(fraction) + u128::from(rate) * u128::from(at - then)) >> 32;
            prop_assert_eq!(counter.value(at), value.wrapping_add(counted as u64));
        }
    }
}
