//! When a counter overflows, and what that does: its flag, CHAIN for the counter above, freezing.

use serde::{Deserialize, Serialize};

use super::{Choice, Cpu, bits, order};
use crate::counter::NEVER;
use crate::registers::{CYCLE, INSTRUCTION};

/// Overflows that are remembered.
const REMEMBERED: usize = 4;

/// A counter has overflowed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Overflow {
    /// Which.
    pub counter: u8,
    /// Time in cycles at which its flag was set: when that matters to nobody yet, it is set when it is looked at.
    pub cycle: u64,
}

/// The overflows so far, of which the last ones are remembered.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Overflows {
    times: u64,
    last: [Overflow; REMEMBERED],
}

impl Overflows {
    /// How many there were.
    #[inline]
    #[must_use]
    pub fn times(&self) -> u64 {
        self.times
    }

    /// Those since there were so many, in order, as far as they are remembered.
    pub fn since(&self, times: u64) -> impl Iterator<Item = Overflow> {
        let first = times.max(self.times.saturating_sub(REMEMBERED as u64));
        (first..self.times).map(|nth| self.last[nth as usize % REMEMBERED])
    }

    #[inline]
    fn add(&mut self, counter: usize, cycle: u64) {
        self.last[self.times as usize % REMEMBERED] = Overflow { counter: counter as u8, cycle };
        self.times += 1;
    }
}

impl Cpu {
    /// Finds the exact time of the next overflow of `n`.
    #[inline]
    pub(super) fn find_overflow(&mut self, n: usize) {
        let cycles = if (self.thresholded >> n) & 1 == 0 {
            self.counters[n].cycles_until_overflow(self.long(n), self.pending())
        } else {
            let distance = self.distance(n);
            self.rebase_threshold(n);
            self.thresholds[n].cycles_until(distance)
        };
        self.due[n] = cycles.map_or(NEVER, |cycles| self.now.saturating_add(cycles));
        self.exact |= 1 << n;
    }

    /// Performs the overflows of this cycle, in the order of the counters.
    #[inline]
    pub(super) fn overflow_now(&mut self, overflowing: u64) {
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
        self.exact >> n & 1 != 0 && self.due[n] == self.now
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
    pub(super) fn overflow(&mut self, n: usize, in_cycle: bool) {
        self.registers.pmovs |= 1 << n;
        self.overflows.add(n, self.now);
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
        let width = if self.long(n) { u64::MAX } else { u64::from(u32::MAX) };
        let before = self.counter(n);
        self.counters[n].add(count);
        if count > 0 && before & width == width {
            self.overflow(n, in_cycle);
        }
        self.watch_if_live(n);
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{ALMOST, Bench, EVENT, NSH};
    use crate::feature::{Features, PMUV3P7};
    use crate::field::pmcr;
    use crate::register::{Kind, Register};
    use crate::registers::{CHAIN, CPU_CYCLES};

    #[test]
    fn the_last_overflows_are_remembered_with_counter_and_cycle() {
        let mut bench = Bench::new(Features::default());
        bench.counter_of(0, CPU_CYCLES, ALMOST - 9);
        bench.counter_of(1, CPU_CYCLES, ALMOST - 29);
        bench.write_to(Kind::Pmintenset, 0b11);
        bench.enable();
        let began = bench.cpu.now;
        bench.pass(100);
        let overflows = bench.cpu.overflows();
        let of =
            |times| overflows.since(times).map(|one| (one.counter, one.cycle - began)).collect::<Vec<_>>();
        assert_eq!((of(0), of(1), of(2)), (vec![(0, 10), (1, 30)], vec![(1, 30)], vec![]));
        for _ in 0..9 {
            bench.write_to(Kind::Pmovsclr, 1);
            bench.write(Register::pmevcntr(0), ALMOST);
            bench.pass(1);
        }
        let overflows = bench.cpu.overflows();
        assert_eq!((overflows.times(), overflows.since(0).count()), (11, 4));
    }

    #[test]
    fn an_overflow_is_a_chain_event_in_the_same_cycle() {
        let mut bench = Bench::new(Features::default());
        bench.counter_of(0, CPU_CYCLES, ALMOST - 9);
        bench.counter_of(1, CHAIN, 4);
        bench.enable();
        bench.pass(9);
        assert_eq!(bench.cpu.counter(1), 4);
        bench.pass(1);
        assert_eq!(bench.cpu.counter(1), 5);
        bench.pass(1 << 32);
        assert_eq!(bench.cpu.counter(1), 6, "though the flag is still set");
    }

    #[test]
    fn a_chain_event_finds_a_threshold_that_overflows_in_the_same_cycle() {
        let mut bench = Bench::new(Features { th: true, ..Features::default() });
        bench.counter_of(0, CPU_CYCLES, ALMOST - 4);
        bench.counter_of(1, CHAIN, ALMOST - 4);
        // Counts 1 in each cycle with fewer than 2 events: every one.
        let always = 0b111 << 61 | 2 << 32 | NSH | u64::from(CHAIN);
        bench.write(Register::pmevtyper(1), always);
        bench.enable();
        bench.pass(5);
        assert_eq!(bench.cpu.registers().pmovs, 0b11);
        assert_eq!(bench.cpu.counter(1), ALMOST + 2);
    }

    #[test]
    fn what_overflows_freezes_the_counters_after_it_within_the_cycle() {
        let mut bench = Bench::new(Features { pmuver: PMUV3P7, ..Features::default() });
        (0..3).for_each(|n| bench.counter_of(n, CPU_CYCLES, 0));
        bench.write(Register::pmevcntr(1), ALMOST - 4);
        bench.write_to(Kind::Pmcr, pmcr::E | pmcr::FZO);
        bench.pass(100);
        assert_eq!([0, 2].map(|n| bench.cpu.counter(n)), [5, 4]);
        bench.write_to(Kind::Pmovsclr, 0b10);
        bench.pass(100);
        assert_eq!([0, 2].map(|n| bench.cpu.counter(n)), [105, 104]);
    }

    #[test]
    fn a_chain_of_overflows_raises_the_interrupt_of_the_odd_counter() {
        let mut bench = Bench::with_event(Features::default(), (1 << 48) - 1);
        bench.counter_of(0, EVENT, 0);
        bench.counter_of(1, CHAIN, ALMOST - 4);
        bench.write_to(Kind::Pmintenset, 0b10);
        bench.enable();
        bench.cpu.advance_to_interrupt(1 << 40);
        assert_eq!(bench.cpu.now, (5u128 << 64).div_ceil((1 << 48) - 1) as u64, "the fifth");
        assert_eq!(bench.cpu.counter(1), ALMOST + 1);
    }

    #[test]
    fn a_chain_event_brings_a_threshold_s_overflow_nearer() {
        let mut bench = Bench::with_event(Features { th: true, ..Features::default() }, (1 << 48) - 1);
        bench.counter_of(0, EVENT, 0);
        // One per cycle, and one per overflow of counter 0 every 65,536 cycles and a little.
        bench.counter_of(1, CHAIN, ALMOST - (10 * 65_536 - 5 + 9 - 1));
        bench.write(Register::pmevtyper(1), 0b111 << 61 | 2 << 32 | NSH | u64::from(CHAIN));
        bench.write_to(Kind::Pmintenset, 0b10);
        bench.enable();
        bench.cpu.advance_to_interrupt(1 << 40);
        assert_eq!(bench.cpu.now, 10 * 65_536 - 5);
    }

    #[test]
    fn a_chain_event_that_a_threshold_does_not_count_overflows_nothing() {
        let mut bench = Bench::new(Features { th: true, ..Features::default() });
        bench.counter_of(0, CPU_CYCLES, ALMOST);
        bench.counter_of(1, CHAIN, ALMOST);
        let at_least_2 = 0b100 << 61 | 2 << 32;
        bench.write(Register::pmevtyper(1), at_least_2 | NSH | u64::from(CHAIN));
        bench.enable();
        bench.pass(1);
        assert_eq!((bench.cpu.registers().pmovs, bench.cpu.counter(1)), (0b01, ALMOST));
    }

    #[test]
    fn overflows_of_one_cycle_chain_each_and_a_chain_ends_with_the_odd_counter() {
        let mut bench = Bench::new(Features::default());
        bench.counter_of(0, CPU_CYCLES, ALMOST - 9);
        bench.counter_of(1, CHAIN, ALMOST);
        bench.counter_of(2, CPU_CYCLES, ALMOST - 9);
        bench.counter_of(3, CHAIN, 0);
        bench.enable();
        bench.pass(10);
        assert_eq!(bench.cpu.registers().pmovs, 0b111);
        assert_eq!([1, 3].map(|n| bench.cpu.counter(n)), [ALMOST + 1, 1]);
    }

    #[test]
    fn freezing_by_the_cycle_counter_is_a_choice_whose_use_is_counted() {
        for chosen in [false, true] {
            let mut features = Features { pmuver: PMUV3P7, ..Features::default() };
            features.choices.freeze_on_cycle_counter = chosen;
            let mut bench = Bench::new(features);
            bench.counter_of(0, CPU_CYCLES, 0);
            bench.write_to(Kind::Pmccfiltr, NSH);
            bench.write_to(Kind::Pmccntr, u64::MAX - 9);
            bench.write_to(Kind::Pmcntenset, 1 << 31);
            bench.write_to(Kind::Pmcr, pmcr::E | pmcr::FZO);
            bench.pass(30);
            assert_eq!(bench.cpu.counter(0), if chosen { 10 } else { 30 });
            let made = bench.cpu.choices_made().find(|made| made.0 == "freeze_on_cycle_counter");
            assert_eq!(made.map(|made| made.1), Some(1));
        }
    }
}
