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
        self.next_due = self.arrives;
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
        if !self.registers.overflow_matters(n) {
            self.due[n] = NEVER;
            self.exact |= 1 << n;
            return;
        }
        self.exact &= !(1 << n);
        let cycles = if (self.thresholded >> n) & 1 == 0 {
            self.counters[n].cycles_at_least(self.long(n), self.pending())
        } else {
            let least = self.distance(n) / u128::from(self.thresholds[n].most().max(1));
            u64::try_from(least).unwrap_or(u64::MAX)
        };
        let due = self.now.saturating_add(cycles);
        self.due[n] = due;
        self.next_due = self.next_due.min(due);
    }

    /// Counter `n` overflows out of bit 63, not out of bit 31.
    #[inline]
    pub(super) fn long(&self, n: usize) -> bool {
        self.registers.long() >> n & 1 != 0
    }

    /// Occurrences up to and including the next overflow of `n`.
    pub(super) fn distance(&self, n: usize) -> u128 {
        let value = self.counter(n);
        if self.long(n) { (1 << 64) - u128::from(value) } else { (1 << 32) - u128::from(value as u32) }
    }

    /// The value of counter `n`.
    #[inline]
    #[must_use]
    pub fn counter(&self, n: usize) -> u64 {
        self.value_at(n, self.pending())
    }

    /// The values of the first counters, as many as there are places for.
    #[inline]
    pub fn read_counters(&self, values: &mut [u64]) {
        let pending = self.pending();
        for (value, counter) in values.iter_mut().zip(&self.counters) {
            *value = counter.value(pending);
        }
        for n in bits(self.thresholded) {
            if let Some(value) = values.get_mut(n) {
                *value = self.counter(n);
            }
        }
    }

    #[inline]
    fn value_at(&self, n: usize, pending: u64) -> u64 {
        let counter = &self.counters[n];
        let value = counter.value(pending);
        if (self.thresholded >> n) & 1 != 0 {
            return value.wrapping_add(self.thresholds[n].counted(pending)) & counter.mask();
        }
        value
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

#[cfg(test)]
mod tests {
    use super::super::tests::{ALMOST, Bench, EVENT, NSH};
    use super::*;
    use crate::feature::{Features, PMUV3P1};
    use crate::field::{pmcr, pmevtyper};
    use crate::register::{Kind, Register};
    use crate::registers::{CHAIN, COUNTERS, INSTRUCTION, SW_INCR};

    #[test]
    fn with_d_the_cycle_counter_counts_every_64th_cycle() {
        let mut bench = Bench::new(Features { aarch32: true, ..Features::default() });
        bench.write_to(Kind::Pmccfiltr, NSH);
        bench.write_to(Kind::Pmcntenset, 1 << 31);
        bench.write_to(Kind::Pmcr, pmcr::E | pmcr::D);
        bench.pass(100);
        bench.write_to(Kind::Pmcr, pmcr::D);
        bench.pass(1000);
        bench.write_to(Kind::Pmcr, pmcr::E | pmcr::D);
        bench.pass(28);
        assert_eq!(bench.cpu.counter(31), 2, "the divider stands still with the counter");
        bench.write_to(Kind::Pmcr, pmcr::E | pmcr::D | pmcr::LC);
        bench.pass(10);
        assert_eq!(bench.cpu.counter(31), 12, "LC overrides D");
    }

    #[test]
    fn a_counter_takes_the_event_s_fraction_not_its_own() {
        let mut bench = Bench::with_event(Features::default(), ONE / 4);
        bench.counter_of(0, EVENT, 0);
        bench.pass(3);
        bench.enable();
        bench.pass(1);
        assert_eq!(bench.cpu.counter(0), 1, "it happens in every fourth cycle, and this is one");
        bench.pass(2);
        bench.write_to(Kind::Pmcr, 0);
        bench.pass(1);
        bench.enable();
        bench.pass(1);
        assert_eq!(bench.cpu.counter(0), 2, "in the eighth");
    }

    #[test]
    fn what_does_not_come_with_time_needs_no_watching() {
        let mut bench = Bench::with_event(Features::default(), ONE);
        for (n, event) in [(0, SW_INCR), (1, CHAIN), (2, 0x99), (3, EVENT)] {
            bench.counter_of(n, event, ALMOST);
        }
        bench.enable();
        assert_eq!((bench.cpu.counting, bench.cpu.live), (0b1111, 0b1000));
        bench.pass(1);
        assert_eq!([0, 1, 2, 3].map(|n| bench.cpu.counter(n)), [ALMOST, ALMOST, ALMOST, ALMOST + 1]);
    }

    #[test]
    fn a_threshold_makes_something_of_an_event_that_never_happens() {
        let mut bench = Bench::new(Features { th: true, ..Features::default() });
        bench.counter_of(0, EVENT, 5);
        let fewer_than_1 = 0b111 << pmevtyper::TC.trailing_zeros() | 1 << pmevtyper::TH.trailing_zeros();
        bench.write(Register::pmevtyper(0), NSH | fewer_than_1 | u64::from(EVENT));
        bench.enable();
        bench.pass(10);
        assert_eq!(bench.cpu.counter(0), 15);
        bench.write(Register::pmevcntr(0), 100);
        bench.pass(10);
        bench.write_to(Kind::Pmcntenclr, 1);
        bench.pass(10);
        assert_eq!(bench.cpu.counter(0), 110, "what it has counted stays when it stops");
    }

    #[test]
    fn a_counter_is_watched_closer_than_it_can_overflow() {
        let mut bench = Bench::with_event(Features::default(), 3 * ONE);
        bench.counter_of(0, EVENT, ALMOST - 299);
        bench.enable();
        assert!((50..=100).contains(&bench.cpu.next_due), "{}", bench.cpu.next_due);
        bench.write(Register::pmevcntr(0), ALMOST - 2999);
        assert!(bench.cpu.due[0] > 100, "a new value, a new overflow");
        bench.write_to(Kind::Pmcr, pmcr::E | pmcr::LP);
        assert!(bench.cpu.due[0] > u64::MAX / 8, "a new width, a new overflow");
        bench.write_to(Kind::Pmovsset, 1);
        bench.write(Register::pmevcntr(0), u64::MAX);
        assert_eq!(bench.cpu.due[0], NEVER, "its flag is set already");
    }

    #[test]
    fn all_counters_at_once_are_each_counter() {
        let features = Features { pmuver: PMUV3P1, th: true, icntr: true, ..Features::default() };
        let mut bench = Bench::with_event(features, 3 * ONE / 2);
        for n in 0..6 {
            bench.counter_of(n, EVENT, u64::MAX - u64::from(n));
        }
        bench.write(Register::pmevtyper(4), NSH | 1 << pmevtyper::TH.trailing_zeros() | u64::from(EVENT));
        bench.write_to(Kind::Pmicntr, 77);
        bench.enable();
        bench.pass(9);
        let mut values = [0; COUNTERS];
        bench.cpu.read_counters(&mut values);
        assert_eq!(values, std::array::from_fn(|n| bench.cpu.counter(n)));
        // 13 in nine cycles, 4 of them in cycles with one: of those with one the threshold counts none.
        assert_eq!((values[0], values[4], values[INSTRUCTION]), (12, 3, 77));
        let mut first = [0; 2];
        bench.cpu.read_counters(&mut first);
        assert_eq!(first, values[..2]);
    }
}
