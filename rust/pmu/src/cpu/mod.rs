//! One CPU: its PMU's registers, its clock, and the counters in time.
//!
//! Nothing is stepped. A counter that counts is a line in time ([`crate::counter`]); its value is worked
//! out when somebody looks, and the line is drawn anew only when something changes. When a counter
//! overflows next is remembered in its `due`: first as a lower bound that costs a shift, and exactly
//! once time comes near.
//!
//! `time` passes time, `accounts` have whom it is charged to, `cputime`
//! whose it is to the host's kernel, `overflow` performs overflows, `counters` starts and stops counters, `accesses`
//! reads and writes registers.

use serde::{Deserialize, Serialize};
use serde_big_array::BigArray;

use self::accesses::Decisions;
use self::accounts::Accounts;
use self::counters::NOT_TALLIED;
use self::cputime::CpuTime;
use crate::counter::{Counter, NEVER, Threshold};
use crate::feature::Features;
use crate::field::hcr_el2;
use crate::register::EVENT_COUNTERS;
use crate::registers::{COUNTERS, INSTRUCTION, Registers};
use crate::tally::{CLASSES, Class, World};

mod accesses;
mod accounts;
mod counters;
mod cputime;
mod overflow;
mod time;

pub use self::cputime::{ByWhose, Whose};
pub use self::overflow::{Overflow, Overflows};

/// Choices that the architecture leaves open and whose use is counted: CONSTRAINED UNPREDICTABLE
/// cases, and one in which texts of the Arm ARM differ.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Choice {
    /// `absent_counter`
    AbsentCounter,
    /// `reserved_counter`
    ReservedCounter,
    /// `bad_hpmn`
    BadHpmn,
    /// `chain_across_ranges`
    ChainAcrossRanges,
    /// `freeze_on_cycle_counter`
    FreezeOnCycleCounter,
}

impl Choice {
    /// Every choice with its name among the features.
    pub const ALL: [(Self, &str); 5] = [
        (Self::AbsentCounter, "absent_counter"),
        (Self::ReservedCounter, "reserved_counter"),
        (Self::BadHpmn, "bad_hpmn"),
        (Self::ChainAcrossRanges, "chain_across_ranges"),
        (Self::FreezeOnCycleCounter, "freeze_on_cycle_counter"),
    ];
}

/// What runs on a CPU.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Running {
    /// Its context.
    pub context: usize,
    /// Its tally.
    pub tally: usize,
    /// Exception level.
    pub el: u8,
    /// It is a guest's.
    pub guest: bool,
    /// Its class.
    pub class: Class,
}

/// One CPU.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Cpu {
    id: usize,
    registers: Registers,
    #[serde(with = "BigArray")]
    counters: [Counter; COUNTERS],
    /// No overflow that matters comes before these times, by counter.
    #[serde(with = "BigArray")]
    due: [u64; COUNTERS],
    thresholds: [Threshold; EVENT_COUNTERS as usize],
    /// Positions of the event counters' events among those that are tallied.
    tallied: [u16; EVENT_COUNTERS as usize],
    /// Time in cycles.
    now: u64,
    /// Time at which `execute` and `run` stop for a timer.
    pub(crate) deadline: u64,
    running: Option<Running>,
    /// `now` when the running tally's pending cycles were 0 (modulo 2^64).
    origin: u64,
    /// Counters that the rules let count now.
    counting: u64,
    /// Of those, the ones that count something with time.
    live: u64,
    /// Of those, the ones with a threshold.
    thresholded: u64,
    /// Of those that are live, the ones whose `due` is exact.
    exact: u64,
    /// Nothing that matters happens before this time.
    next_due: u64,
    /// Level of the interrupt line.
    line: bool,
    /// When it last rose.
    raised: u64,
    /// When its level reaches the CPU: [`NEVER`] while it is low, and once it has.
    arrives: u64,
    /// The level has reached the CPU, and the interrupt can be taken: it is pending and not active.
    interrupt: bool,
    /// The interrupt has been acknowledged and not been deactivated.
    active: bool,
    class_cycles: [u64; CLASSES],
    idle_cycles: u64,
    /// Up to when `class_cycles` are accounted.
    accounted: u64,
    accounts: Accounts,
    cputime: CpuTime,
    /// Register accesses executed or trapped.
    pub(crate) accesses: u64,
    /// Fraction of 64 cycles that the divided cycle counter has seen.
    divider: u64,
    overflows: Overflows,
    /// How often each choice that the architecture leaves open was made.
    choices: [u64; Choice::ALL.len()],
    #[serde(skip)]
    decisions: Decisions,
}

/// The order in which counters are processed within a cycle (`PMUCycle`, J1.1): the instruction counter
/// when the event happens, then the event counters, then the cycle counter.
fn order(n: usize) -> usize {
    if n == INSTRUCTION { 0 } else { n + 1 }
}

fn bits(mask: u64) -> impl Iterator<Item = usize> {
    let mut rest = mask;
    std::iter::from_fn(move || {
        let n = rest.trailing_zeros() as usize;
        rest &= rest.wrapping_sub(1);
        (n < 64).then_some(n)
    })
}

impl Cpu {
    /// A CPU after a reset, at time 0.
    #[must_use]
    pub fn new(id: usize, features: Features) -> Self {
        let registers = Registers::new(features);
        Self {
            id,
            counters: std::array::from_fn(|n| Counter::new(registers.counter_mask(n))),
            registers,
            due: [NEVER; COUNTERS],
            thresholds: [Threshold::default(); EVENT_COUNTERS as usize],
            // After a reset they have SW_INCR, which nobody tallies.
            tallied: [NOT_TALLIED; EVENT_COUNTERS as usize],
            now: 0,
            deadline: NEVER,
            running: None,
            origin: 0,
            counting: 0,
            live: 0,
            thresholded: 0,
            exact: 0,
            next_due: NEVER,
            line: false,
            raised: 0,
            arrives: NEVER,
            interrupt: false,
            active: false,
            class_cycles: [0; CLASSES],
            idle_cycles: 0,
            accounted: 0,
            accounts: Accounts::default(),
            cputime: CpuTime::default(),
            accesses: 0,
            divider: 0,
            overflows: Overflows::default(),
            choices: [0; Choice::ALL.len()],
            decisions: Decisions::default(),
        }
    }

    /// Its number.
    #[must_use]
    pub fn id(&self) -> usize {
        self.id
    }

    /// Time in cycles.
    #[inline]
    #[must_use]
    pub fn now(&self) -> u64 {
        self.now
    }

    /// Register accesses executed or trapped.
    #[must_use]
    pub fn accesses(&self) -> u64 {
        self.accesses
    }

    /// The cycle at which the interrupt line last rose.
    #[inline]
    #[must_use]
    pub fn raised(&self) -> u64 {
        self.raised
    }

    /// Counters that the rules let count now: none while nothing runs.
    #[inline]
    #[must_use]
    pub fn counting(&self) -> u64 {
        self.counting
    }

    /// The overflows of its counters.
    #[inline]
    #[must_use]
    pub fn overflows(&self) -> &Overflows {
        &self.overflows
    }

    /// When an interrupt that is under way to the CPU arrives, [`NEVER`] if none is.
    #[inline]
    #[must_use]
    pub fn arrives(&self) -> u64 {
        self.arrives
    }

    /// The interrupt line has the level that the registers give it. When it rises its level is under way for
    /// [`Features::pmi_delay`]; when it falls it is gone, also while it was under way.
    fn update_interrupt(&mut self) {
        let level = self.registers.interrupt();
        if level == self.line {
            return;
        }
        self.line = level;
        self.arrives = NEVER;
        self.interrupt = false;
        if level {
            self.raised = self.now;
            match self.registers.features.pmi_delay {
                0 => self.interrupt = !self.active,
                delay => {
                    self.arrives = self.now.saturating_add(delay);
                    self.next_due = self.next_due.min(self.arrives);
                }
            }
        }
    }

    /// The interrupt is there, if its time has come.
    #[inline]
    fn arrive(&mut self) {
        if self.arrives <= self.now {
            self.arrives = NEVER;
            self.interrupt = !self.active;
        }
    }

    /// The interrupt is acknowledged (`ICC_IAR1_EL1`), and its priority dropped: until it is deactivated it is active,
    /// and as a level high or not it is not taken again (Arm GIC architecture specification, interrupt states). What
    /// is not pending stays inactive: such a read is of the spurious interrupt.
    pub fn acknowledge(&mut self) {
        if self.interrupt {
            self.interrupt = false;
            self.active = true;
        }
    }

    /// The interrupt is deactivated (`ICC_DIR_EL1`): if its level is there, it is pending. Was it active?
    pub fn deactivate(&mut self) -> bool {
        let active = std::mem::take(&mut self.active);
        self.interrupt = self.line && self.arrives == NEVER;
        active
    }

    /// The registers.
    #[must_use]
    pub fn registers(&self) -> &Registers {
        &self.registers
    }

    /// What runs.
    #[inline]
    #[must_use]
    pub fn running(&self) -> Option<Running> {
        self.running
    }

    /// Has the interrupt reached the CPU: is its line high, and has been for as long as its level takes? Not while it is
    /// active.
    #[inline]
    #[must_use]
    pub fn interrupt(&self) -> bool {
        self.interrupt
    }

    /// Is there something to interrupt for: an interrupt has arrived, or the deadline has come?
    #[inline]
    #[must_use]
    pub fn pending_interrupt(&self) -> bool {
        self.interrupt || self.now >= self.deadline
    }

    /// How often each choice that the architecture leaves open was made, by its name.
    pub fn choices_made(&self) -> impl Iterator<Item = (&'static str, u64)> {
        Choice::ALL.iter().map(|&(choice, name)| (name, self.choices[choice as usize]))
    }

    fn chose(&mut self, choice: Choice) {
        let count = &mut self.choices[choice as usize];
        *count = count.saturating_add(1);
    }

    /// Cycles under the running tally's profile.
    #[inline]
    #[must_use]
    pub fn pending(&self) -> u64 {
        self.now.wrapping_sub(self.origin)
    }

    /// Switches to another tally, exception level and profile.
    pub fn set_running(&mut self, world: &mut World, next: Running, profile: usize) {
        self.account();
        self.stop_all();
        if let Some(last) = self.running {
            world.tallies[last.tally].pending = self.pending();
        }
        world.begin(next.tally, self.id, profile);
        self.origin = self.now.wrapping_sub(world.tallies[next.tally].pending);
        self.running = Some(next);
        self.write_tge(next);
        self.refresh(world);
    }

    /// Follows another CPU, on which `next` has just begun to run: from now on this one sees the same events. Its clock
    /// is its own; time between two stretches that it follows passes for it only if it is advanced.
    pub fn follow(&mut self, world: &World, next: Running) {
        self.stop_all();
        self.origin = self.now.wrapping_sub(world.tallies[next.tally].pending);
        self.running = Some(next);
        self.write_tge(next);
        self.refresh(world);
    }

    /// `PMCCNTR_EL0` counts in WFI from now on, or does not: as it does on a CPU that this one follows.
    pub fn count_in_wfi(&mut self, counts: bool) {
        self.registers.features.pmccntr_in_wfi = counts;
    }

    fn write_tge(&mut self, running: Running) {
        let hcr = self.registers.controls.hcr_el2 & !(hcr_el2::TGE | hcr_el2::E2H);
        let tge = if running.guest { 0 } else { hcr_el2::TGE };
        // The decisions are kept by TGE; E2H does not change.
        self.registers.write_hcr_el2(hcr | tge | hcr_el2::E2H);
    }

    /// A Warm reset, as after the core has lost its power: every register and counter is as at the beginning.
    pub fn warm_reset(&mut self, world: &World) {
        self.stop_all();
        self.registers = Registers::new(self.registers.features.clone());
        self.counters = std::array::from_fn(|n| Counter::new(self.registers.counter_mask(n)));
        self.due = [NEVER; COUNTERS];
        self.tallied = [NOT_TALLIED; EVENT_COUNTERS as usize];
        self.exact = 0;
        self.divider = 0;
        self.decisions.forget();
        if let Some(running) = self.running {
            self.write_tge(running);
        }
        self.refresh(world);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::field::pmcr;
    use crate::register::{Kind, Register};
    use crate::registers::CPU_CYCLES;
    use crate::tally::{Events, ONE};

    pub(super) const NSH: u64 = 1 << 27;
    pub(super) const EVENT: u16 = 0x03;
    pub(super) const ALMOST: u64 = u32::MAX as u64;

    /// A CPU at EL2 on which cycles happen, and `EVENT`.
    pub(super) struct Bench {
        pub(super) world: World,
        pub(super) cpu: Cpu,
    }

    impl Bench {
        pub(super) fn new(features: Features) -> Self {
            Self::with_event(features, 0)
        }

        /// `EVENT` happens at `rate`.
        pub(super) fn with_event(features: Features, rate: u64) -> Self {
            let mut world = World::new(Events::new(&[EVENT]), 1);
            world.add_profile(vec![rate, ONE]);
            for class in [Class::HostEl2, Class::GuestEl1] {
                world.add_tally(class);
            }
            let mut bench = Self { world, cpu: Cpu::new(0, features) };
            bench.run_host();
            bench
        }

        pub(super) fn run_host(&mut self) {
            let host = Running { context: 0, tally: 0, el: 2, guest: false, class: Class::HostEl2 };
            self.cpu.set_running(&mut self.world, host, 0);
        }

        pub(super) fn run_guest(&mut self) {
            let guest = Running { context: 1, tally: 1, el: 1, guest: true, class: Class::GuestEl1 };
            self.cpu.set_running(&mut self.world, guest, 0);
        }

        pub(super) fn write(&mut self, register: Register, value: u64) {
            self.cpu.write(&self.world, register, 2, value);
        }

        pub(super) fn write_to(&mut self, kind: Kind, value: u64) {
            self.write(Register::of(kind), value);
        }

        pub(super) fn counter_of(&mut self, n: u8, event: u16, value: u64) {
            self.write(Register::pmevtyper(n), NSH | u64::from(event));
            self.write(Register::pmevcntr(n), value);
            self.write_to(Kind::Pmcntenset, 1 << n);
        }

        pub(super) fn enable(&mut self) {
            self.write_to(Kind::Pmcr, pmcr::E);
        }

        pub(super) fn pass(&mut self, cycles: u64) {
            self.cpu.advance(self.cpu.now + cycles);
        }
    }

    #[test]
    fn what_runs_decides_what_counts_and_hcr_el2_follows() {
        let mut bench = Bench::new(Features::default());
        bench.counter_of(0, CPU_CYCLES, 0);
        bench.enable();
        let hcr = |bench: &Bench| bench.cpu.registers().controls.hcr_el2 & (hcr_el2::E2H | hcr_el2::TGE);
        assert_eq!(hcr(&bench), hcr_el2::E2H | hcr_el2::TGE);
        bench.pass(10);
        bench.write(Register::pmevtyper(0), u64::from(CPU_CYCLES));
        bench.pass(10);
        bench.run_guest();
        assert_eq!(hcr(&bench), hcr_el2::E2H);
        bench.pass(7);
        bench.run_host();
        bench.pass(10);
        assert_eq!(bench.cpu.counter(0), 10 + 7, "EL2 with NSH, then EL1, not EL2 without");
    }

    #[test]
    fn a_warm_reset_leaves_nothing_of_the_registers_and_all_of_the_truth() {
        let mut bench = Bench::new(Features::default());
        bench.counter_of(0, CPU_CYCLES, ALMOST - 9);
        bench.counter_of(1, EVENT, 77);
        bench.write_to(Kind::Pmintenset, 1);
        bench.write_to(Kind::MdcrEl2, 3);
        bench.enable();
        bench.pass(30);
        assert!(bench.cpu.interrupt());
        bench.cpu.warm_reset(&bench.world);
        assert!(!bench.cpu.interrupt());
        let mut fresh = Bench::new(Features::default());
        fresh.run_host();
        assert_eq!(bench.cpu.registers(), fresh.cpu.registers());
        assert_eq!([0, 1].map(|n| bench.cpu.counter(n)), [0, 0]);
        bench.pass(1 << 33);
        assert_eq!(bench.cpu.counter(0), 0, "nothing is enabled");
        bench.counter_of(0, CPU_CYCLES, 5);
        bench.enable();
        bench.pass(10);
        assert_eq!((bench.cpu.counter(0), bench.cpu.cycles().0[3]), (15, (1 << 33) + 40));
    }

    #[test]
    fn an_event_s_fraction_goes_on_where_its_tally_was_left() {
        let mut bench = Bench::with_event(Features::default(), ONE / 2);
        bench.counter_of(0, EVENT, 0);
        bench.enable();
        bench.pass(1);
        bench.run_guest();
        bench.pass(1);
        bench.run_host();
        assert_eq!(bench.cpu.counter(0), 0, "half an occurrence each");
        bench.pass(1);
        assert_eq!(bench.cpu.counter(0), 1, "the host's two halves");
    }

    #[test]
    fn an_interrupt_is_under_way_for_its_delay_and_gone_if_its_line_falls_before() {
        let mut bench = Bench::new(Features { pmi_delay: 7, ..Features::default() });
        bench.counter_of(0, CPU_CYCLES, ALMOST - 9);
        bench.counter_of(1, CPU_CYCLES, ALMOST - 12);
        bench.write_to(Kind::Pmintenset, 0b11);
        bench.enable();
        bench.cpu.advance_to_interrupt(100);
        assert_eq!((bench.cpu.now(), bench.cpu.raised(), bench.cpu.interrupt()), (17, 10, true));
        assert_eq!(bench.cpu.registers().pmovs, 0b11, "the other has overflowed meanwhile");
        bench.write_to(Kind::Pmovsclr, 0b01);
        assert!(bench.cpu.interrupt(), "the line has never been low");
        bench.write_to(Kind::Pmovsclr, 0b10);
        assert!(!bench.cpu.interrupt());
        bench.write(Register::pmevcntr(0), ALMOST);
        bench.pass(5);
        assert_eq!((bench.cpu.raised(), bench.cpu.arrives(), bench.cpu.interrupt()), (18, 25, false));
        bench.run_guest();
        bench.write_to(Kind::Pmovsclr, 0b01);
        bench.cpu.advance_to_interrupt(100);
        assert_eq!((bench.cpu.now(), bench.cpu.interrupt()), (100, false), "it never came");
    }

    #[test]
    fn an_interrupt_arrives_at_whatever_runs_then_or_at_an_idle_cpu() {
        let mut bench = Bench::new(Features { pmi_delay: 100, ..Features::default() });
        bench.counter_of(0, CPU_CYCLES, ALMOST - 9);
        bench.write_to(Kind::Pmintenset, 1);
        bench.enable();
        bench.pass(10);
        bench.run_guest();
        assert_eq!((bench.cpu.next_stop(50), bench.cpu.next_stop(1000)), (50, 110));
        let mut idle = bench.cpu.clone();
        idle.idle(50);
        assert_eq!((idle.now(), idle.interrupt()), (50, false));
        idle.idle(1000);
        assert_eq!((idle.now(), idle.interrupt()), (110, true));
        bench.cpu.advance(110);
        assert!(bench.cpu.interrupt());
    }

    #[test]
    fn an_active_interrupt_is_not_taken_again_until_it_is_deactivated() {
        let mut bench = Bench::new(Features { pmi_delay: 7, ..Features::default() });
        bench.counter_of(0, CPU_CYCLES, ALMOST - 9);
        bench.write_to(Kind::Pmintenset, 1);
        bench.enable();
        bench.cpu.acknowledge();
        bench.pass(17);
        assert!(bench.cpu.interrupt(), "what was not pending has not become active");
        bench.cpu.acknowledge();
        bench.cpu.advance_to_interrupt(100);
        assert_eq!((bench.cpu.now(), bench.cpu.interrupt()), (100, false), "though its line is high");
        bench.cpu.deactivate();
        assert!(bench.cpu.interrupt(), "its line is still high");
        bench.cpu.acknowledge();
        bench.write_to(Kind::Pmovsclr, 1);
        bench.write(Register::pmevcntr(0), ALMOST);
        bench.pass(3);
        bench.cpu.deactivate();
        assert!(!bench.cpu.interrupt(), "a new one is under way");
        bench.pass(5);
        assert!(bench.cpu.interrupt());
    }

    #[test]
    fn raised_is_when_the_interrupt_line_last_rose() {
        let mut bench = Bench::new(Features::default());
        bench.counter_of(0, CPU_CYCLES, ALMOST - 9);
        bench.write_to(Kind::Pmintenset, 1);
        bench.enable();
        bench.pass(30);
        assert_eq!((bench.cpu.interrupt(), bench.cpu.raised()), (true, 10));
        bench.write_to(Kind::Pmintenset, 0b11);
        assert_eq!(bench.cpu.raised(), 10, "it was high");
        bench.write_to(Kind::Pmintenclr, 1);
        bench.pass(5);
        bench.write_to(Kind::Pmintenset, 1);
        assert_eq!(bench.cpu.raised(), 35);
    }
}
