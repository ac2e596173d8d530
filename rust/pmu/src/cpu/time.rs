//! Time passes; counters overflow.

use super::{Choice, Cpu, bits, order};
use crate::burst::{ACCOUNTS, CAUSES};
use crate::counter::NEVER;
use crate::registers::{CYCLE, INSTRUCTION};
use crate::tally::CLASSES;

impl Cpu {
    /// Passes time up to `to`.
    #[inline]
    pub fn advance(&mut self, to: u64) {
        if to < self.next_due {
            self.now = to;
        } else {
            self.advance_through_overflows(to, false);
        }
    }

    /// Passes time up to `to`, or to the first cycle at which the interrupt line is high.
    #[inline]
    pub fn advance_to_interrupt(&mut self, to: u64) {
        if self.interrupt {
            return;
        }
        if to < self.next_due {
            self.now = to;
        } else {
            self.advance_through_overflows(to, true);
        }
    }

    /// The first cycle up to `to` at which a counter overflows, or `to`; now, if the interrupt line is high.
    pub fn next_stop(&mut self, to: u64) -> u64 {
        if self.interrupt {
            return self.now;
        }
        if to >= self.next_due {
            self.find_next_due(to);
        }
        to.min(self.next_due)
    }

    /// Has `next_due` exact if it is not after `to`; returns the counters that overflow then.
    #[inline]
    fn find_next_due(&mut self, to: u64) -> u64 {
        let mut next = NEVER;
        let mut overflowing = 0;
        for n in bits(self.live) {
            if self.counters[n].due <= to && (self.exact >> n) & 1 == 0 {
                self.find_overflow(n);
            }
            let due = self.counters[n].due;
            if due < next {
                next = due;
                overflowing = 0;
            }
            overflowing |= u64::from(due == next) << n;
        }
        self.next_due = next;
        overflowing
    }

    fn advance_through_overflows(&mut self, to: u64, stop: bool) {
        loop {
            let overflowing = self.find_next_due(to);
            let next = self.next_due;
            if next > to || next == NEVER {
                self.now = to;
                return;
            }
            self.now = next;
            self.overflow_now(overflowing);
            if stop && self.interrupt {
                return;
            }
        }
    }

    /// Passes time up to `until` in which nothing happens.
    pub fn idle(&mut self, until: u64) {
        self.account();
        let passed = until.saturating_sub(self.now);
        self.now = self.now.saturating_add(passed);
        self.origin = self.origin.wrapping_add(passed);
        self.accounted = self.now;
        self.idle_cycles = self.idle_cycles.wrapping_add(passed);
        self.next_due = self.next_due.saturating_add(passed);
        for counter in &mut self.counters {
            counter.due = counter.due.saturating_add(passed);
        }
    }

    /// Charges software time to a cause.
    #[inline]
    pub fn charge(&mut self, cause: usize, cycles: u64) {
        self.advance(self.now.saturating_add(cycles));
        let account = if self.running.is_some_and(|running| running.guest) { 0 } else { self.account };
        if let Some(sum) = self.charged.get_mut(account * CAUSES + cause.min(CAUSES - 1)) {
            *sum = sum.wrapping_add(cycles);
        }
    }

    /// From now on the host's cycles are charged to `account`; the one before.
    ///
    /// An account that there is not is the last one.
    pub fn set_account(&mut self, account: usize) -> usize {
        std::mem::replace(&mut self.account, account.clamp(1, ACCOUNTS - 1))
    }

    /// Cycles charged to an account, by cause.
    #[must_use]
    pub fn charged(&self, account: usize) -> &[u64] {
        self.charged.chunks(CAUSES).nth(account).unwrap_or_default()
    }

    pub(super) fn account(&mut self) {
        if let Some(running) = self.running {
            let sum = &mut self.class_cycles[running.class as usize];
            *sum = sum.wrapping_add(self.now.wrapping_sub(self.accounted));
        }
        self.accounted = self.now;
    }

    /// Cycles passed by class, and idle.
    pub fn cycles(&mut self) -> ([u64; CLASSES], u64) {
        self.account();
        (self.class_cycles, self.idle_cycles)
    }

    /// Finds the exact time of the next overflow of `n`.
    #[inline]
    fn find_overflow(&mut self, n: usize) {
        let distance = self.distance(n);
        let pending = self.pending();
        let cycles = if (self.thresholded >> n) & 1 == 0 {
            self.counters[n].cycles_until(distance, pending)
        } else {
            self.rebase_threshold(n);
            self.thresholds[n].cycles_until(distance)
        };
        self.counters[n].due = cycles.map_or(NEVER, |cycles| self.now.saturating_add(cycles));
        self.exact |= 1 << n;
    }

    /// Performs the overflows of this cycle, in the order of the counters.
    #[inline]
    fn overflow_now(&mut self, overflowing: u64) {
        let instruction = overflowing & 1 << INSTRUCTION;
        for n in bits(instruction).chain(bits(overflowing & !instruction)) {
            // One before it may have frozen this one, so that it did not count in this cycle, or have
            // chained to it and so performed its overflow.
            if self.live >> n & 1 != 0 && self.overflows_now(n) {
                self.overflow(n, true);
                self.watch_if_live(n);
            }
        }
        self.update_interrupt();
    }

    #[inline]
    fn overflows_now(&self, n: usize) -> bool {
        self.exact >> n & 1 != 0 && self.counters[n].due == self.now
    }

    #[inline]
    pub(super) fn watch_if_live(&mut self, n: usize) {
        if self.live >> n & 1 != 0 {
            self.watch(n);
        }
    }

    /// What an overflow of `n` does: its flag, freezing, and CHAIN for the odd counter above.
    /// `in_cycle`: within the processing of a cycle, not at an instant after it.
    #[inline]
    fn overflow(&mut self, n: usize, in_cycle: bool) {
        self.registers.pmovs |= 1 << n;
        if self.registers.freezes() {
            if n == CYCLE {
                self.chose(Choice::FreezeOnCycleCounter);
            }
            self.freeze(n, in_cycle);
        }
        if n < CYCLE && self.registers.chains(n) {
            if self.registers.chain_crosses_ranges(n) {
                self.chose(Choice::ChainAcrossRanges);
            }
            if self.counting >> (n + 1) & 1 != 0 {
                self.increment(n + 1, in_cycle);
            }
        }
    }

    /// Stops what is frozen. Counters are processed in order within a cycle, so those after the one
    /// that overflowed no longer count in this cycle.
    fn freeze(&mut self, overflowed: usize, in_cycle: bool) {
        let Some(running) = self.running else { return };
        let counting = self.registers.counting(running.el);
        let frozen = self.live & !counting;
        for n in bits(frozen) {
            let late = u64::from(in_cycle && order(n) > order(overflowed));
            self.stop_at(n, self.pending().wrapping_sub(late));
        }
        self.counting = counting;
    }

    /// One `SW_INCR` or `CHAIN` event for `n`. With a threshold it is a cycle of its own, in which the
    /// event happens once.
    #[inline]
    pub(super) fn increment(&mut self, n: usize, in_cycle: bool) {
        if self.live >> n & 1 != 0 && self.overflows_now(n) {
            self.overflow(n, in_cycle);
        }
        if self.counting >> n & 1 == 0 {
            return;
        }
        let count = self.registers.count_value(n, 1);
        let width = if self.registers.long() >> n & 1 != 0 { u64::MAX } else { u64::from(u32::MAX) };
        let before = self.counter(n);
        self.set_counter(n, before.wrapping_add(count));
        if count > 0 && before & width == width {
            self.overflow(n, in_cycle);
        }
        self.watch_if_live(n);
    }
}
