//! One CPU: its PMU's registers, its clock, and the counters in time.
//!
//! Nothing is stepped. A counter that counts is a line in time ([`crate::counter`]); its value is worked
//! out when somebody looks, and the line is drawn anew only when something changes. When a counter
//! overflows next is remembered in its `due`: first as a lower bound that costs a shift, and exactly
//! once time comes near.
//!
//! `time` passes time and performs overflows, `counting` starts and stops counters, `accesses` reads
//! and writes registers.

use serde::{Deserialize, Serialize};
use serde_big_array::BigArray;

use self::accesses::Decisions;
use crate::burst::CAUSES;
use crate::counter::{Counter, NEVER, Threshold};
use crate::feature::{Features, PMUV3P5};
use crate::field::hcr_el2;
use crate::register::EVENT_COUNTERS;
use crate::registers::{COUNTERS, INSTRUCTION, Registers};
use crate::tally::{CLASSES, Class, World};

mod accesses;
mod counting;
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
    #[serde(with = "BigArray")]
    charged: [u64; CAUSES],
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
            charged: [0; CAUSES],
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
