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
    /// Bits that it has.
    mask: u64,
}

impl Counter {
    /// One that does not count, with the bits of `mask`: the low 32, or all 64.
    #[must_use]
    pub const fn new(mask: u64) -> Self {
        Self { start: 0, rate: 0, mask }
    }

    #[inline]
    fn sum(&self, pending: u64) -> u128 {
        self.start.wrapping_add(u128::from(self.rate) * u128::from(pending))
    }

    /// Its value.
    #[inline]
    #[must_use]
    pub fn value(&self, pending: u64) -> u64 {
        (self.sum(pending) >> 32) as u64 & self.mask
    }

    /// The bits that it has.
    #[inline]
    #[must_use]
    pub fn mask(&self) -> u64 {
        self.mask
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

    /// Has counted so much more, of what does not come with time.
    #[inline]
    pub fn add(&mut self, count: u64) {
        self.start = self.start.wrapping_add(u128::from(count) << 32);
    }

    /// Has counted for so many cycles more, in which `pending` stood still.
    pub fn count_for(&mut self, cycles: u64) {
        self.start = self.start.wrapping_add(u128::from(self.rate) * u128::from(cycles));
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
        *self = Self { start: u128::from(self.value(pending)) << 32, rate: 0, mask: self.mask };
    }

    /// What is left to count before the next overflow, out of bit 63 if `long`, else out of bit 31: in
    /// units of 2^-32 of an occurrence, less one.
    #[inline]
    fn left(&self, long: bool, pending: u64) -> u128 {
        const WIDTH: u128 = (1 << 96) - 1;
        let sum = self.sum(pending);
        if long { !sum & WIDTH } else { u128::from(!(sum as u64)) }
    }

    /// Cycles in which it does not overflow, at the price of a shift: at least half of those until it does.
    #[inline]
    #[must_use]
    pub fn cycles_at_least(&self, long: bool, pending: u64) -> u64 {
        // At most 2^shift are counted in a cycle.
        let shift = u64::BITS - self.rate.saturating_sub(1).leading_zeros();
        u64::try_from(self.left(long, pending) >> shift).unwrap_or(u64::MAX)
    }

    /// Cycles until it overflows; `None` if beyond 2^64.
    #[inline]
    #[must_use]
    pub fn cycles_until_overflow(&self, long: bool, pending: u64) -> Option<u64> {
        let left = self.left(long, pending);
        if let Ok(left) = u64::try_from(left) {
            return left.checked_div(self.rate)?.checked_add(1);
        }
        u64::try_from(left.checked_div(u128::from(self.rate))?).ok()?.checked_add(1)
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
            value: u64,
            long: bool,
            pending in 0u64..1 << 40,
        ) {
            let mut counter = Counter::new(u64::MAX);
            counter.begin(rate, fraction, pending);
            counter.set(value, pending);
            let end = if long { 1 << 64 } else { (u128::from(value) | u128::from(u32::MAX)) + 1 };
            let reached = |cycles: u64| {
                let counted = (u128::from(fraction) + u128::from(rate) * u128::from(cycles)) >> 32;
                u128::from(value) + counted >= end
            };
            let at_least = counter.cycles_at_least(long, pending);
            match counter.cycles_until_overflow(long, pending) {
                Some(cycles) => {
                    prop_assert!(reached(cycles) && !reached(cycles - 1));
                    prop_assert!((cycles - 1) / 2 <= at_least && at_least < cycles);
                }
                None => prop_assert!(!reached(u64::MAX)),
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
            let mut counter = Counter::new(u64::MAX);
            counter.begin(rate, fraction, then);
            counter.set(value, then);
            prop_assert_eq!(counter.value(then), value);
            prop_assert_eq!(counter.fraction(then), fraction);
            let at = then.saturating_add(later);
            let counted = (u128::from(fraction) + u128::from(rate) * u128::from(at - then)) >> 32;
            prop_assert_eq!(counter.value(at), value.wrapping_add(counted as u64));
        }
    }
    #[test]
    fn what_does_not_count_never_overflows() {
        let counter = Counter::new(u64::MAX);
        assert_eq!(counter.cycles_until_overflow(false, 7), None);
        assert_eq!(counter.cycles_until_overflow(true, 7), None);
    }

    #[test]
    fn a_counter_of_32_bits_has_no_more() {
        let mut counter = Counter::new(u64::from(u32::MAX));
        counter.begin(1 << 32, 0, 0);
        counter.set(u64::MAX, 0);
        assert_eq!([0, 1, 5].map(|pending| counter.value(pending)), [u64::from(u32::MAX), 0, 4]);
        counter.add(1);
        counter.stop(5);
        assert_eq!(counter.value(9), 5);
    }

    #[test]
    fn a_threshold_s_two_values_come_as_often_as_the_rate_s_fraction_says() {
        // 1.25 occurrences per cycle: in three cycles one, which counts 7, in the fourth two, which count 2.
        let mut threshold = Threshold::new((1 << 32) + (1 << 30), 0, (7, 2), 100);
        assert_eq!([100, 103, 104, 108].map(|pending| threshold.counted(pending)), [0, 21, 23, 46]);
        assert_eq!(threshold.most(), 7);
        assert_eq!([21, 22, 23, 24].map(|distance| threshold.cycles_until(distance)), [3, 4, 4, 5].map(Some));
        threshold.rebase(103);
        assert_eq!(
            [103, 104, 107].map(|pending| threshold.counted(pending)),
            [0, 2, 23],
            "the fraction stays"
        );
    }
}
