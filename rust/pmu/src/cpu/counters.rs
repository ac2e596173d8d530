//! Counters start and stop, and what they count.

use super::{Cpu, bits};
use crate::counter::{NEVER, Threshold};
use crate::registers::{CPU_CYCLES, CYCLE};
use crate::tally::{FRACTION, ONE, World};

/// Rate of the cycle counter with PMCR_EL0.D.
const DIVIDED: u64 = ONE / 64;

/// Of an event that is not tallied. Those that are have lower positions: a machine has at most 4,096.
pub(super) const NOT_TALLIED: u16 = u16::MAX;

impl Cpu {
    pub(super) fn stop_all(&mut self) {
        for n in bits(self.live) {
            self.stop(n);
        }
        self.counting = 0;
        self.next_due = NEVER;
    }

    pub(super) fn stop(&mut self, n: usize) {
        self.stop_at(n, self.pending());
    }

    /// Stops counter `n` as of `pending`: now, or the cycle before.
    pub(super) fn stop_at(&mut self, n: usize, pending: u64) {
        if n == CYCLE && self.counters[n].rate() == DIVIDED {
            self.divider = self.counters[n].fraction(pending);
        }
        if (self.thresholded >> n) & 1 != 0 {
            let value = self.value_at(n, pending);
            self.counters[n].set(value, pending);
            self.thresholded &= !(1 << n);
        }
        self.counters[n].stop(pending);
        self.live &= !(1 << n);
    }

    /// Brings what counts, and the interrupt line, in line with the registers.
    pub(super) fn refresh(&mut self, world: &World) {
        let Some(running) = self.running else {
            self.update_interrupt();
            return;
        };
        let counting = self.registers.counting(running.el);
        for n in bits(self.live & !counting) {
            self.stop(n);
        }
        let fresh = counting & !self.counting;
        self.counting = counting;
        for n in bits(fresh) {
            self.start(world, running.tally, n);
        }
        self.update_interrupt();
    }

    fn start(&mut self, world: &World, tally: usize, n: usize) {
        let pending = self.pending();
        let event = self.registers.event(n);
        let (rate, fraction) = if n == CYCLE && self.registers.divided() {
            // The divider goes on where it stopped, whatever ran in between.
            (DIVIDED, self.divider)
        } else if event == CPU_CYCLES {
            (ONE, 0)
        } else if let Some(index) = self.tallied(world, n) {
            let tally = &world.tallies[tally];
            let rate = world.profiles[tally.profile].rates[index];
            (rate, (tally.totals[index] as u64).wrapping_add(rate.wrapping_mul(pending)) & FRACTION)
        } else {
            (0, 0)
        };
        if self.registers.thresholded(n) {
            // A threshold can make something even of an event that never happens.
            let low = rate >> 32;
            let levels = (self.registers.count_value(n, low), self.registers.count_value(n, low + 1));
            self.thresholds[n] = Threshold::new(rate, fraction, levels, pending);
            self.thresholded |= 1 << n;
        } else if rate == 0 {
            // SW_INCR and CHAIN come one by one.
            return;
        } else {
            self.counters[n].begin(rate, fraction, pending);
        }
        self.live |= 1 << n;
        self.watch(n);
    }

    /// Position of the event that counter `n` counts among those that are tallied.
    #[inline]
    fn tallied(&self, world: &World, n: usize) -> Option<usize> {
        match self.tallied.get(n) {
            Some(&index) => (index != NOT_TALLIED).then_some(usize::from(index)),
            None => world.events.index(self.registers.event(n)),
        }
    }

    /// Counter `n` has a new event.
    pub(super) fn event_changed(&mut self, world: &World, n: usize) {
        let index = world.events.index(self.registers.event(n));
        if let Some(tallied) = self.tallied.get_mut(n) {
            *tallied = index.map_or(NOT_TALLIED, |index| index as u16);
        }
    }

    /// Finds a lower bound for the next overflow of `n`, whose value or width is new.
    #[inline]
    pub(super) fn watch(&mut self, n: usize) {
        self.exact &= !(1 << n);
        let flagged = self.registers.pmovs >> n & 1 != 0;
        if flagged && !self.registers.chains(n) {
            // It would change nothing.
            self.counters[n].due = NEVER;
            self.exact |= 1 << n;
            return;
        }
        let distance = self.distance(n);
        let most = if (self.thresholded >> n) & 1 == 0 {
            self.counters[n].most()
        } else {
            self.thresholds[n].most()
        };
        // At most 2^shift are counted in a cycle.
        let shift = u64::BITS - most.saturating_sub(1).leading_zeros();
        let cycles = (distance >> shift).min(u128::from(u64::MAX)) as u64;
        let due = self.now.saturating_add(cycles);
        self.counters[n].due = due;
        self.next_due = self.next_due.min(due);
    }

    pub(super) fn watch_all(&mut self) {
        for n in bits(self.live) {
            self.watch(n);
        }
    }

    /// Occurrences up to and including the next overflow of `n`.
    #[inline]
    pub(super) fn distance(&self, n: usize) -> u128 {
        let value = self.counter(n);
        if self.registers.long() >> n & 1 != 0 {
            (1 << 64) - u128::from(value)
        } else {
            (1 << 32) - u128::from(value as u32)
        }
    }

    /// The value of counter `n`.
    #[inline]
    #[must_use]
    pub fn counter(&self, n: usize) -> u64 {
        self.value_at(n, self.pending())
    }

    #[inline]
    fn value_at(&self, n: usize, pending: u64) -> u64 {
        let value = self.counters[n].value(pending);
        if (self.thresholded >> n) & 1 != 0 {
            return value.wrapping_add(self.thresholds[n].counted(pending)) & self.registers.counter_mask(n);
        }
        if n < CYCLE { value & self.event_mask } else { value }
    }

    /// Counter `n` has this value from now on.
    #[inline]
    pub(super) fn set_counter(&mut self, n: usize, value: u64) {
        let pending = self.pending();
        self.counters[n].set(value, pending);
        if (self.thresholded >> n) & 1 != 0 {
            self.thresholds[n].rebase(pending);
        }
    }

    /// Has what counter `n` has counted by its threshold in its value, so that the threshold counts from now on.
    pub(super) fn rebase_threshold(&mut self, n: usize) {
        self.set_counter(n, self.counter(n));
    }

    /// Software writes counter `n`.
    pub(super) fn write_counter(&mut self, n: usize, value: u64) {
        self.set_counter(n, value);
        self.watch_if_live(n);
    }
}
