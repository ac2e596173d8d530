//! Whose time it is, as the host kernel's own bookkeeping has it (Linux 6.12 `kernel/sched/cputime.c`): exactly, as with
//! `CONFIG_VIRT_CPU_ACCOUNTING_GEN`, and as its ticks find it.

use serde::{Deserialize, Serialize};

use crate::counter::NEVER;

/// Whose a CPU's time is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Whose {
    /// The guest's.
    Guest,
    /// The host's kernel's.
    HostKernel,
    /// A task's of the host, at EL0.
    HostUser,
    /// Nobody's.
    Idle,
}

impl Whose {
    /// All with their names.
    pub const ALL: [(Self, &str); 4] = [
        (Self::Guest, "guest"),
        (Self::HostKernel, "host_kernel"),
        (Self::HostUser, "host_user"),
        (Self::Idle, "idle"),
    ];
}

/// Cycles by whose they are.
pub type ByWhose = [u64; Whose::ALL.len()];

/// Of one CPU, in cycles.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct CpuTime {
    exact: ByWhose,
    /// Of that, what interrupt handlers took, if their time is accounted apart.
    in_handlers: ByWhose,
    whose: Whose,
    since: u64,
    /// What ticks have charged.
    ticked: ByWhose,
    /// When the next tick falls due.
    tick: u64,
    /// To whom a tick is charged that falls due now: while interrupts are masked, whose time it is when they no
    /// longer are; in a handler, whose time that has interrupted.
    found_by_tick: Whose,
    /// To whom the tick is charged that has fallen due and has not been taken.
    due: Option<Whose>,
    /// When handlers began whose time is accounted apart, and how deep they are nested.
    handlers: (u64, u32),
    /// What they have taken since the last tick.
    since_tick: u64,
}

impl Default for CpuTime {
    fn default() -> Self {
        Self {
            exact: ByWhose::default(),
            in_handlers: ByWhose::default(),
            whose: Whose::Idle,
            since: 0,
            ticked: ByWhose::default(),
            tick: NEVER,
            found_by_tick: Whose::Idle,
            due: None,
            handlers: (0, 0),
            since_tick: 0,
        }
    }
}

fn add(sums: &mut ByWhose, whose: Whose, cycles: u64) {
    let sum = &mut sums[whose as usize];
    *sum = sum.wrapping_add(cycles);
}

impl CpuTime {
    /// From `now` on the time is `whose`.
    #[inline]
    pub(super) fn switch(&mut self, whose: Whose, now: u64) {
        self.switch_exactly(whose, now);
        self.found_by_tick = whose;
    }

    /// From `now` on the time is `whose`, but a tick finds whom it would have found before.
    #[inline]
    pub(super) fn switch_exactly(&mut self, whose: Whose, now: u64) {
        self.note(now);
        add(&mut self.exact, self.whose, now.wrapping_sub(self.since));
        (self.whose, self.since) = (whose, now);
    }

    /// From `now` on a tick finds `whose` time it will be when interrupts are no longer masked.
    #[inline]
    pub(super) fn mask_for(&mut self, whose: Whose, now: u64) {
        self.note(now);
        self.found_by_tick = whose;
    }

    /// Has a tick fallen due before `now`?
    #[inline]
    fn note(&mut self, now: u64) {
        if now >= self.tick && self.due.is_none() {
            self.due = Some(self.found_by_tick);
        }
    }

    /// The next tick falls due then; one that has and has not been taken is forgotten.
    pub(super) fn set_tick(&mut self, tick: u64) {
        (self.tick, self.due) = (tick, None);
    }

    /// `account_process_tick`: the tick is taken, which charges `cycles`, less what handlers have taken since the one
    /// before; what they took beyond that is lost. The `next` one falls due then.
    pub(super) fn account_tick(&mut self, cycles: u64, next: u64, now: u64) {
        self.note(now);
        if let Some(whose) = self.due {
            add(&mut self.ticked, whose, cycles.saturating_sub(self.since_tick));
        }
        self.since_tick = 0;
        self.set_tick(next);
    }

    /// `irqtime_account_irq`: a handler whose time is accounted apart begins.
    pub(super) fn begin_handler(&mut self, now: u64) {
        if self.handlers.1 == 0 {
            self.handlers.0 = now;
        }
        self.handlers.1 += 1;
    }

    /// One handler ends and another begins.
    pub(super) fn next_handler(&mut self, now: u64) {
        let took = now.wrapping_sub(self.handlers.0);
        self.handlers.0 = now;
        self.since_tick = self.since_tick.wrapping_add(took);
        add(&mut self.in_handlers, self.whose, took);
    }

    /// The last one ends.
    pub(super) fn end_handler(&mut self, now: u64) {
        self.next_handler(now);
        self.handlers.1 = self.handlers.1.saturating_sub(1);
    }

    /// By whose it was up to `now`, exactly or by ticks, and what handlers took. A kernel measures how long it idles.
    pub(super) fn spent(&self, now: u64, by_ticks: bool) -> (ByWhose, u64) {
        let mut up_to_now = self.clone();
        up_to_now.switch_exactly(self.whose, now);
        let mut spent = up_to_now.exact;
        for (sum, cycles) in spent.iter_mut().zip(self.in_handlers) {
            *sum = sum.wrapping_sub(cycles);
        }
        if by_ticks {
            let idle = spent[Whose::Idle as usize];
            spent = self.ticked;
            spent[Whose::Idle as usize] = idle;
        }
        (spent, self.in_handlers.iter().fold(0, |sum, &cycles| sum.wrapping_add(cycles)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PERIOD: u64 = 1000;

    /// A host's kernel whose first tick falls due at `PERIOD`.
    fn kernel() -> CpuTime {
        let mut time = CpuTime::default();
        time.switch(Whose::HostKernel, 0);
        time.set_tick(PERIOD);
        time
    }

    fn ticked(time: &CpuTime, now: u64) -> [u64; 3] {
        let ([guest, kernel, user, _], _) = time.spent(now, true);
        [guest, kernel, user]
    }

    #[test]
    fn a_tick_charges_a_period_to_whom_it_has_found() {
        let mut time = kernel();
        time.switch(Whose::Guest, 400);
        time.switch(Whose::HostKernel, PERIOD); // the interrupt's exit
        time.account_tick(PERIOD, 2 * PERIOD, PERIOD + 50);
        time.account_tick(PERIOD, 3 * PERIOD, 2 * PERIOD);
        time.switch(Whose::HostUser, 2 * PERIOD + 10);
        time.switch_exactly(Whose::HostKernel, 2 * PERIOD + 700); // a handler, in which the tick falls due
        time.account_tick(PERIOD, 4 * PERIOD, 3 * PERIOD + 20);
        assert_eq!(ticked(&time, 3500), [PERIOD; 3]);
        assert_eq!(time.spent(3500, false).0, [600, 400 + 1010 + 800, 690, 0]);
    }

    #[test]
    fn a_tick_that_falls_due_while_interrupts_are_masked_is_of_whoever_unmasks_them() {
        let mut time = kernel();
        time.switch(Whose::Guest, 0);
        time.mask_for(Whose::HostKernel, PERIOD - 10);
        time.switch(Whose::HostKernel, PERIOD + 10);
        time.switch(Whose::Guest, PERIOD + 20); // taken only here, by a later exit
        time.account_tick(PERIOD, 2 * PERIOD, PERIOD + 90);
        assert_eq!(ticked(&time, PERIOD + 90), [0, PERIOD, 0]);
        assert_eq!(time.spent(PERIOD + 90, false).0, [PERIOD + 10 + 70, 10, 0, 0]);
    }

    #[test]
    fn a_tick_that_comes_late_counts_once_and_one_that_is_stopped_not_at_all() {
        let mut time = kernel();
        time.account_tick(PERIOD, 5 * PERIOD, 4 * PERIOD + 1);
        time.switch(Whose::Idle, 5 * PERIOD + 1);
        time.set_tick(NEVER);
        time.switch(Whose::HostKernel, 9 * PERIOD);
        time.set_tick(10 * PERIOD);
        time.switch(Whose::HostUser, 10 * PERIOD - 1);
        assert_eq!(ticked(&time, 10 * PERIOD - 1), [0, PERIOD, 0]);
        assert_eq!(time.spent(10 * PERIOD, true).0[Whose::Idle as usize], 4 * PERIOD - 1);
    }

    #[test]
    fn handlers_that_are_accounted_apart_are_taken_off_the_next_tick_and_nothing_is_carried_on() {
        let mut time = kernel();
        time.switch(Whose::Guest, 0);
        time.begin_handler(100);
        time.begin_handler(120);
        time.end_handler(150);
        time.end_handler(400);
        time.begin_handler(PERIOD);
        time.account_tick(PERIOD, 2 * PERIOD, PERIOD + 10);
        time.next_handler(2 * PERIOD + 500);
        time.account_tick(PERIOD, 3 * PERIOD, 2 * PERIOD + 500);
        time.end_handler(2 * PERIOD + 500);
        time.account_tick(PERIOD, 4 * PERIOD, 3 * PERIOD);
        assert_eq!(ticked(&time, 3 * PERIOD), [PERIOD - 300 + PERIOD, 0, 0]);
        assert_eq!(time.spent(3 * PERIOD, false), ([3 * PERIOD - 1800, 0, 0, 0], 1800));
    }
}
