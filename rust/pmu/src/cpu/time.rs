//! Time passes, up to an overflow and through it.

use std::cmp::Ordering;

use super::{ByWhose, Cpu, Whose, bits};
use crate::burst::CAUSES;
use crate::counter::NEVER;
use crate::registers::CYCLE;
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

    /// Passes time up to `to`, or to the first cycle at which an interrupt has arrived.
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

    /// The first cycle up to `to` at which a counter overflows or an interrupt arrives, or `to`; now, if one has.
    pub fn next_stop(&mut self, to: u64) -> u64 {
        if self.interrupt {
            return self.now;
        }
        if to >= self.next_due {
            self.find_next_due(to);
        }
        to.min(self.next_due)
    }

    /// Has `next_due` exact if it is not after `to`; returns the counters that overflow first, and a time
    /// before which no other does and no interrupt arrives.
    #[inline]
    fn find_next_due(&mut self, to: u64) -> (u64, u64) {
        let mut next = NEVER;
        let mut overflowing = 0;
        let mut others = NEVER;
        for n in bits(self.live) {
            if self.due[n] <= to && (self.exact >> n) & 1 == 0 {
                self.find_overflow(n);
            }
            let due = self.due[n];
            match due.cmp(&next) {
                Ordering::Less => (others, next, overflowing) = (next, due, 1 << n),
                Ordering::Equal => overflowing |= 1 << n,
                Ordering::Greater => others = others.min(due),
            }
        }
        self.next_due = next.min(self.arrives);
        (overflowing, others.min(self.arrives))
    }

    fn advance_through_overflows(&mut self, to: u64, stop: bool) {
        loop {
            let (overflowing, others) = self.find_next_due(to);
            if self.next_due > to || self.next_due == NEVER {
                self.now = to;
                return;
            }
            if self.next_due == self.arrives {
                self.now = self.arrives;
                self.overflow_now(overflowing);
                self.arrive();
            } else if overflowing.is_power_of_two() {
                self.overflow_alone(overflowing.trailing_zeros() as usize, others, to, stop);
            } else {
                self.now = self.next_due;
                self.overflow_now(overflowing);
            }
            if stop && self.interrupt {
                return;
            }
        }
    }

    /// Passes time to the next overflow, which is of `n` only, and on while no other counter overflows: not
    /// before `others`, as long as the overflows of `n` do not change that.
    #[inline]
    fn overflow_alone(&mut self, n: usize, mut others: u64, to: u64, stop: bool) {
        while self.due[n] < others && self.due[n] <= to {
            self.now = self.due[n];
            self.next_due = others;
            let flags = self.registers.pmovs;
            self.overflow(n, true);
            if self.registers.pmovs != flags {
                self.update_interrupt();
            }
            others = self.next_due;
            if self.live >> n & 1 == 0 {
                return;
            }
            if self.registers.overflow_matters(n) {
                self.find_overflow(n);
            } else {
                self.due[n] = NEVER;
            }
            self.next_due = others.min(self.due[n]);
            if stop && self.interrupt {
                return;
            }
        }
    }

    /// In WFI up to `until`: nothing happens, and of the counters at most `PMCCNTR_EL0` counts
    /// ([`crate::feature::Features::pmccntr_in_wfi`]). It ends when an interrupt arrives, and at once if one has.
    pub fn idle(&mut self, until: u64) {
        self.account();
        while self.counts_in_wfi() && self.now < until && !self.interrupt {
            self.find_overflow_of_pmccntr();
            let to = until.min(self.arrives).min(self.due[CYCLE]);
            let overflows = self.due[CYCLE] == to && to != NEVER;
            let passed = to - self.now;
            self.stand_still(passed);
            self.counters[CYCLE].count_for(passed);
            if overflows {
                self.due[CYCLE] = self.now;
                self.overflow_now(1 << CYCLE);
            } else {
                self.watch(CYCLE);
            }
        }
        // What arrives while the interrupt is active ends nothing.
        while self.now < until && !self.interrupt {
            self.stand_still(until.min(self.arrives) - self.now);
        }
    }

    /// When `idle(until)` ends, or earlier, where `PMCCNTR_EL0` overflows.
    pub fn idle_stop(&mut self, until: u64) -> u64 {
        if self.interrupt || until <= self.now {
            return self.now;
        }
        let until = until.min(self.arrives);
        if self.counts_in_wfi() {
            self.find_overflow_of_pmccntr();
            return until.min(self.due[CYCLE]);
        }
        until
    }

    fn counts_in_wfi(&self) -> bool {
        self.registers.features.pmccntr_in_wfi && self.live >> CYCLE & 1 != 0
    }

    fn find_overflow_of_pmccntr(&mut self) {
        if self.registers.overflow_matters(CYCLE) && self.exact >> CYCLE & 1 == 0 {
            self.find_overflow(CYCLE);
        }
    }

    /// Time passes and no event happens: what is to come comes so much later.
    fn stand_still(&mut self, passed: u64) {
        self.now = self.now.saturating_add(passed);
        self.origin = self.origin.wrapping_add(passed);
        self.accounted = self.now;
        self.idle_cycles = self.idle_cycles.wrapping_add(passed);
        self.next_due = self.next_due.saturating_add(passed);
        for due in &mut self.due {
            *due = due.saturating_add(passed);
        }
        self.next_due = self.next_due.min(self.arrives);
        self.arrive();
    }

    /// Charges software time to a cause. What a program of the host does at EL0 is on no account.
    #[inline]
    pub fn charge(&mut self, cause: usize, cycles: u64) {
        self.advance(self.now.saturating_add(cycles));
        let (guest, el) = self.running.map_or((false, 2), |running| (running.guest, running.el));
        if guest || el > 0 {
            self.accounts.charge(guest, cause, cycles);
        }
    }

    /// From now on the host's cycles are charged to `account`, 1 or above; the one before.
    /// `None`, and nothing changes, if the host has no such account.
    #[inline]
    pub fn set_account(&mut self, account: usize) -> Option<usize> {
        self.accounts.set_host(account)
    }

    /// Cycles charged to an account, by cause.
    #[must_use]
    pub fn charged(&self, account: usize) -> [u64; CAUSES] {
        self.accounts.charged(account)
    }

    /// From now on the time is `whose` to the host's kernel.
    #[inline]
    pub fn set_cputime(&mut self, whose: Whose) {
        self.cputime.switch(whose, self.now);
    }

    /// From now on it is the host's kernel's that has interrupted somebody, whom a tick finds nevertheless.
    pub fn interrupt_cputime(&mut self) {
        self.cputime.switch_exactly(Whose::HostKernel, self.now);
    }

    /// A trap of a guest: its time until interrupts are unmasked, but then it is the host's kernel that a tick finds.
    #[inline]
    pub fn mask_cputime(&mut self) {
        self.cputime.mask_for(Whose::HostKernel, self.now);
    }

    /// The host's next tick falls due then; one that has and has not been accounted is forgotten.
    pub fn set_tick(&mut self, tick: u64) {
        self.cputime.set_tick(tick);
    }

    /// The host's tick: `cycles` are charged to whom it has found when it fell due. The `next` one.
    pub fn account_tick(&mut self, cycles: u64, next: u64) {
        self.cputime.account_tick(cycles, next, self.now);
    }

    /// An interrupt handler of the host begins whose time is accounted apart.
    pub fn begin_handler(&mut self) {
        self.cputime.begin_handler(self.now);
    }

    /// One ends and another begins.
    pub fn next_handler(&mut self) {
        self.cputime.next_handler(self.now);
    }

    /// The last one ends.
    pub fn end_handler(&mut self) {
        self.cputime.end_handler(self.now);
    }

    /// Whose the time was to the host's kernel, exactly or by its ticks, and what handlers took that are accounted apart.
    #[must_use]
    pub fn cputime(&self, by_ticks: bool) -> (ByWhose, u64) {
        self.cputime.spent(self.now, by_ticks)
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
}

#[cfg(test)]
mod tests {
    use super::super::tests::{ALMOST, Bench, EVENT, NSH};
    use super::*;
    use crate::burst::ACCOUNTS;
    use crate::feature::Features;
    use crate::register::Kind;
    use crate::registers::{CHAIN, CPU_CYCLES};

    #[test]
    fn idleness_counts_nothing_and_an_overflow_comes_as_much_later() {
        let mut bench = Bench::new(Features::default());
        bench.counter_of(0, CPU_CYCLES, ALMOST - 9);
        bench.write_to(Kind::Pmintenset, 1);
        bench.enable();
        bench.pass(4);
        bench.cpu.idle(1_000_000);
        assert_eq!(bench.cpu.counter(0), ALMOST - 5);
        bench.cpu.advance_to_interrupt(2_000_000);
        assert_eq!(bench.cpu.now, 1_000_006);
        assert_eq!(bench.cpu.cycles(), ([0, 0, 0, 10], 999_996));
    }

    #[test]
    fn idleness_ends_with_an_interrupt_that_arrives_but_while_it_is_active() {
        for active in [false, true] {
            let mut bench = Bench::new(Features { pmi_delay: 50, ..Features::default() });
            bench.counter_of(0, CPU_CYCLES, ALMOST);
            bench.write_to(Kind::Pmintenset, 1);
            bench.enable();
            bench.pass(60);
            assert!(bench.cpu.interrupt());
            if active {
                bench.cpu.acknowledge();
            }
            bench.write_to(Kind::Pmovsclr, 1);
            bench.write_to(Kind::Pmovsset, 1);
            let rises = bench.cpu.now;
            bench.cpu.idle(5_000);
            assert_eq!(bench.cpu.now, if active { 5_000 } else { rises + 50 });
        }
    }

    #[test]
    fn pmccntr_alone_may_count_in_wfi_and_wakes_the_cpu() {
        let mut bench = Bench::new(Features { pmccntr_in_wfi: true, ..Features::default() });
        bench.counter_of(0, CPU_CYCLES, 0);
        bench.write_to(Kind::Pmccfiltr, NSH);
        bench.write_to(Kind::Pmccntr, u64::MAX - 999);
        bench.write_to(Kind::Pmcntenset, 1 << 31);
        bench.write_to(Kind::Pmintenset, 1 << 31);
        bench.enable();
        bench.pass(100);
        bench.cpu.idle(600);
        assert_eq!((bench.cpu.counter(0), bench.cpu.counter(31)), (100, u64::MAX - 399));
        bench.pass(50);
        assert_eq!((bench.cpu.idle_stop(5_000), bench.cpu.now), (1_000, 650));
        bench.cpu.idle(5_000);
        assert_eq!((bench.cpu.now, bench.cpu.interrupt(), bench.cpu.raised()), (1_000, true, 1_000));
        assert_eq!((bench.cpu.counter(0), bench.cpu.counter(31)), (150, 0));
        bench.write_to(Kind::Pmovsclr, 1 << 31);
        bench.write_to(Kind::Pmccfiltr, 0);
        bench.cpu.idle(5_000);
        assert_eq!((bench.cpu.now, bench.cpu.counter(31)), (5_000, 0), "EL2 is filtered, in WFI too");
        assert_eq!(bench.cpu.cycles(), ([0, 0, 0, 150], 4_850));
    }

    #[test]
    fn time_stops_at_an_interrupt_only_if_it_is_to() {
        let mut bench = Bench::new(Features::default());
        bench.counter_of(0, CPU_CYCLES, ALMOST - 9);
        bench.write_to(Kind::Pmintenset, 1);
        bench.enable();
        let mut to_the_end = bench.cpu.clone();
        to_the_end.advance(100);
        assert_eq!((to_the_end.now, to_the_end.interrupt()), (100, true));
        bench.cpu.advance_to_interrupt(100);
        assert_eq!((bench.cpu.now, bench.cpu.interrupt()), (10, true));
        bench.cpu.advance_to_interrupt(100);
        assert_eq!(bench.cpu.now, 10, "the line is still high");
    }

    #[test]
    fn the_next_stop_is_an_overflow_that_changes_something_and_no_time_passes() {
        let mut bench = Bench::new(Features::default());
        bench.counter_of(0, CPU_CYCLES, ALMOST - 9);
        bench.enable();
        assert_eq!((bench.cpu.next_stop(9), bench.cpu.next_stop(1000), bench.cpu.now), (9, 10, 0));
        bench.pass(10);
        assert_eq!(bench.cpu.next_stop(1 << 33), 1 << 33, "its flag is set already");
    }

    #[test]
    fn overflows_of_one_counter_go_on_until_another_s_comes() {
        let mut bench = Bench::with_event(Features::default(), (1 << 47) + 12_345);
        bench.counter_of(0, EVENT, 0);
        bench.counter_of(1, CHAIN, 0);
        bench.counter_of(2, CPU_CYCLES, ALMOST - 999_999);
        bench.counter_of(4, CPU_CYCLES, ALMOST - 9_999_999);
        bench.write_to(Kind::Pmintenset, 1 << 2);
        bench.enable();
        let overflows = |cycles: u128| u64::try_from((cycles * ((1 << 47) + 12_345)) >> 64).expect("few");
        bench.cpu.advance_to_interrupt(1 << 40);
        assert_eq!(bench.cpu.now, 1_000_000);
        assert_eq!(bench.cpu.registers().pmovs, 0b101);
        assert_eq!(bench.cpu.counter(1), overflows(1_000_000));
        bench.cpu.advance(10_000_000);
        assert_eq!(bench.cpu.registers().pmovs, 0b1_0101);
        assert_eq!(bench.cpu.counter(1), overflows(10_000_000));
    }

    #[test]
    fn a_guest_s_cycles_are_on_account_0_and_the_host_s_on_the_one_that_is_set() {
        let mut bench = Bench::new(Features::default());
        bench.cpu.charge(2, 10);
        assert_eq!(bench.cpu.set_account(ACCOUNTS - 1), Some(1), "the first of the host's");
        bench.cpu.charge(2, 20);
        for refused in [0, ACCOUNTS, usize::MAX] {
            assert_eq!(bench.cpu.set_account(refused), None, "no account of the host's");
        }
        bench.cpu.charge(3, 80);
        bench.run_guest();
        bench.cpu.charge(usize::MAX, 40);
        assert_eq!(bench.cpu.now, 150);
        assert_eq!(bench.cpu.charged(0)[CAUSES - 1], 40, "no such cause: the last");
        assert_eq!(bench.cpu.charged(1)[2..4], [10, 0]);
        assert_eq!(bench.cpu.charged(ACCOUNTS - 1)[2..4], [20, 80], "what was refused changed nothing");
    }

    #[test]
    fn time_ends_without_a_panic() {
        let mut bench = Bench::new(Features::default());
        bench.counter_of(0, CPU_CYCLES, 0);
        bench.enable();
        bench.cpu.advance(u64::MAX);
        bench.cpu.charge(0, u64::MAX);
        bench.cpu.idle(u64::MAX);
        assert_eq!(bench.cpu.now, u64::MAX);
    }
}
