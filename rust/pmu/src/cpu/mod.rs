//! One CPU: its PMU's registers, its clock, and the counters in time.
//!
//! Nothing is stepped. A counter that counts is a line in time ([`crate::counter`]); its value is worked
//! out when somebody looks, and the line is drawn anew only when something changes. When a counter
//! overflows next is remembered in its `due`: first as a lower bound that costs a shift, and exactly
//! once time comes near.
//!
//! `time` passes time and performs overflows, `counters` starts and stops counters, `accesses` reads
//! and writes registers.

use serde::{Deserialize, Serialize};
use serde_big_array::BigArray;

use self::accesses::Decisions;
use self::counters::NOT_TALLIED;
use crate::burst::{ACCOUNTS, CAUSES};
use crate::counter::{Counter, NEVER, Threshold};
use crate::feature::{Features, PMUV3P5};
use crate::field::hcr_el2;
use crate::register::EVENT_COUNTERS;
use crate::registers::{COUNTERS, INSTRUCTION, Registers};
use crate::tally::{CLASSES, Class, World};

mod accesses;
mod counters;
mod time;

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
    thresholds: [Threshold; EVENT_COUNTERS as usize],
    /// Positions of the event counters' events among those that are tallied.
    tallied: [u16; EVENT_COUNTERS as usize],
    /// Bits that an event counter has.
    event_mask: u64,
    /// Time in cycles.
    pub now: u64,
    /// Time at which `execute` and `run` stop for a timer.
    pub deadline: u64,
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
    interrupt: bool,
    /// When the interrupt line last rose.
    raised: u64,
    class_cycles: [u64; CLASSES],
    idle_cycles: u64,
    /// Up to when `class_cycles` are accounted.
    accounted: u64,
    /// By account, then by cause.
    charged: Vec<u64>,
    /// Whom the host's cycles are charged to.
    account: usize,
    /// Register accesses executed or trapped.
    pub accesses: u64,
    /// Fraction of 64 cycles that the divided cycle counter has seen.
    divider: u64,
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
        Self {
            id,
            event_mask: if features.has(PMUV3P5) { u64::MAX } else { u64::from(u32::MAX) },
            registers: Registers::new(features),
            counters: [Counter::ZERO; COUNTERS],
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
            interrupt: false,
            raised: 0,
            class_cycles: [0; CLASSES],
            idle_cycles: 0,
            accounted: 0,
            charged: vec![0; ACCOUNTS * CAUSES],
            account: 1,
            accesses: 0,
            divider: 0,
            choices: [0; Choice::ALL.len()],
            decisions: Decisions::default(),
        }
    }

    /// The cycle at which the interrupt line last rose.
    #[inline]
    #[must_use]
    pub fn raised(&self) -> u64 {
        self.raised
    }

    fn update_interrupt(&mut self) {
        let level = self.registers.interrupt();
        if level && !self.interrupt {
            self.raised = self.now;
        }
        self.interrupt = level;
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

    /// Level of the interrupt line.
    #[inline]
    #[must_use]
    pub fn interrupt(&self) -> bool {
        self.interrupt
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
        let hcr = self.registers.controls.hcr_el2 & !(hcr_el2::TGE | hcr_el2::E2H);
        let tge = if next.guest { 0 } else { hcr_el2::TGE };
        // The decisions are kept by TGE; E2H does not change.
        self.registers.write_hcr_el2(hcr | tge | hcr_el2::E2H);
        self.refresh(world);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::field::pmcr;
    use crate::register::{Kind, Register};
    use crate::registers::{CHAIN, CPU_CYCLES};
    use crate::tally::{Events, ONE, Profile};

    const NSH: u64 = 1 << 27;

    /// A CPU at EL2 on which only cycles happen.
    pub(super) struct Bench {
        pub(super) world: World,
        pub(super) cpu: Cpu,
    }

    impl Bench {
        pub(super) fn new(features: Features) -> Self {
            let mut world = World::new(Events::new(&[]), 1);
            world.profiles.push(Profile { rates: vec![ONE] });
            let tally = world.add_tally(Class::HostEl2);
            let mut cpu = Cpu::new(0, features);
            let running = Running { tally, el: 2, guest: false, class: Class::HostEl2 };
            cpu.set_running(&mut world, running, 0);
            Self { world, cpu }
        }

        pub(super) fn write(&mut self, register: Register, value: u64) {
            self.cpu.write(&self.world, register, 2, value);
        }

        pub(super) fn counter_of(&mut self, n: u8, event: u16, value: u64) {
            self.write(Register::pmevtyper(n), NSH | u64::from(event));
            self.write(Register::pmevcntr(n), value);
            self.write(Register::of(Kind::Pmcntenset), 1 << n);
        }

        pub(super) fn enable(&mut self) {
            self.write(Register::of(Kind::Pmcr), pmcr::E);
        }

        pub(super) fn pass(&mut self, cycles: u64) {
            self.cpu.advance(self.cpu.now + cycles);
        }
    }

    const ALMOST: u64 = u32::MAX as u64;

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
    fn chain_takes_effect_when_the_odd_counter_is_programmed_later() {
        let mut bench = Bench::new(Features::default());
        bench.counter_of(0, CPU_CYCLES, ALMOST);
        bench.enable();
        bench.pass(1);
        assert_eq!(bench.cpu.registers().pmovs, 1);
        bench.counter_of(1, CHAIN, 0);
        bench.pass(1 << 32);
        assert_eq!(bench.cpu.counter(1), 1);
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
        let mut bench = Bench::new(Features { pmuver: crate::feature::PMUV3P7, ..Features::default() });
        (0..3).for_each(|n| bench.counter_of(n, CPU_CYCLES, 0));
        bench.write(Register::pmevcntr(1), ALMOST - 4);
        bench.write(Register::of(Kind::Pmcr), pmcr::E | pmcr::FZO);
        bench.pass(100);
        assert_eq!([0, 2].map(|n| bench.cpu.counter(n)), [5, 4]);
        bench.write(Register::of(Kind::Pmovsclr), 0b10);
        bench.pass(100);
        assert_eq!([0, 2].map(|n| bench.cpu.counter(n)), [105, 104]);
    }

    #[test]
    fn idleness_counts_nothing_and_an_overflow_comes_as_much_later() {
        let mut bench = Bench::new(Features::default());
        bench.counter_of(0, CPU_CYCLES, ALMOST - 9);
        bench.write(Register::of(Kind::Pmintenset), 1);
        bench.enable();
        bench.pass(4);
        bench.cpu.idle(1_000_000);
        assert_eq!(bench.cpu.counter(0), ALMOST - 5);
        bench.cpu.advance_to_interrupt(2_000_000);
        assert_eq!(bench.cpu.now, 1_000_006);
        assert_eq!(bench.cpu.cycles(), ([0, 0, 0, 10], 999_996));
    }

    #[test]
    fn with_d_the_cycle_counter_counts_every_64th_cycle() {
        let mut bench = Bench::new(Features { aarch32: true, ..Features::default() });
        bench.write(Register::of(Kind::Pmccfiltr), NSH);
        bench.write(Register::of(Kind::Pmcntenset), 1 << 31);
        bench.write(Register::of(Kind::Pmcr), pmcr::E | pmcr::D);
        bench.pass(100);
        bench.write(Register::of(Kind::Pmcr), pmcr::D);
        bench.pass(1000);
        bench.write(Register::of(Kind::Pmcr), pmcr::E | pmcr::D);
        bench.pass(28);
        assert_eq!(bench.cpu.counter(31), 2, "the divider stands still with the counter");
        bench.write(Register::of(Kind::Pmcr), pmcr::E | pmcr::D | pmcr::LC);
        bench.pass(10);
        assert_eq!(bench.cpu.counter(31), 12, "LC overrides D");
    }

    #[test]
    fn each_use_of_a_choice_is_counted() {
        let mut bench = Bench::new(Features { fgt: 0, counters: 2, ..Features::default() });
        let absent = Register::pmevcntr(7);
        bench.cpu.decide(absent, 1, false);
        bench.cpu.decide(absent, 1, false);
        bench.write(Register::of(Kind::MdcrEl2), 7);
        let made: Vec<_> = bench.cpu.choices_made().filter(|made| made.1 > 0).collect();
        assert_eq!(made, [("absent_counter", 2), ("bad_hpmn", 1)]);
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
