//! What is found: invariants, parties, violations with what was seen before them, and how often each premise was met.

use std::collections::VecDeque;

use pmu::register::{Kind as Of, Register};
use serde::{Deserialize, Serialize};

use crate::counted::Counted;
use crate::owner::Owned;
use crate::window::{WINDOWS, Window};

/// The twelve rules.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[repr(u8)]
pub enum Invariant {
    /// A guest never sees host counts or configuration, nor another guest's, nor what was left there.
    I1 = 1,
    /// A guest never changes host counters, enables or global bits.
    I2,
    /// Host events count exactly what their filters say.
    I3,
    /// Guest counts are conserved over residency: none lost, none doubled.
    I4,
    /// The overflow condition is exact: no interrupt lost, late, spurious or misattributed.
    I5,
    /// A guest register write takes effect by its next context synchronisation.
    I6,
    /// One canonical copy per register.
    I7,
    /// The architected view holds.
    I8,
    /// All of it under preemption, interrupts and migration.
    I9,
    /// The host perf contract.
    I10,
    /// Save and restore round trips.
    I11,
    /// Liveness.
    I12,
}

/// Invariants.
pub const INVARIANTS: usize = 12;

/// Who takes part.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Party {
    /// The guest on the vCPU of this context.
    Guest(usize),
    /// The host's perf.
    Host,
    /// KVM.
    Kvm,
    /// Nobody.
    Nobody,
}

/// In what a violation shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Kind {
    /// What a guest's read gave.
    GuestRead,
    /// What is on the CPU, for a guest to read, when it is entered.
    GuestEntry,
    /// A guest's access is UNDEFINED that should not be, or is not that should.
    Undefined,
    /// A guest or the host works although its interrupt condition has been true.
    LateInterrupt,
    /// A guest waits, or a CPU has no interrupt line raised, although the interrupt condition has been true.
    LostInterrupt,
    /// An interrupt without an interrupt condition that is true.
    SpuriousInterrupt,
    /// An interrupt of one whose interrupt condition is not true, while that of another is.
    MisattributedInterrupt,
    /// What a read of the host's perf gave.
    HostRead,
    /// What is on the CPU of an event of the host's.
    HostState,
    /// What KVM_GET_ONE_REG gave.
    OneReg,
    /// What KVM writes into a register of the guest's on the CPU.
    Restored,
    /// KVM accesses a register that another one selects, before that is synchronised.
    Unsynchronised,
    /// The host's driver writes a register before what it has written of the same counters is synchronised.
    DriverOrder,
    /// What a guest has written does not count as it should, behind its context synchronisation.
    WithoutEffect,
    /// A guest reaches a counter that an event of the host's is on.
    HostPlacement,
    /// MDCR_EL2.HPMN has a value for which this CPU is CONSTRAINED UNPREDICTABLE.
    UnpredictableHpmn,
    /// What a read of an event of the host's finds as its count.
    EventCount,
    /// Its `time_enabled` and `time_running`.
    EventTimes,
    /// An event on a counter that another is on, or on two.
    EventPlacement,
    /// Of a group some events are on.
    EventGroup,
    /// A pinned event is not on.
    EventPinned,
    /// A flexible event is not on, though it and all others were before a vCPU was loaded, which is not any more.
    EventFlexible,
    /// A guest runs, or KVM writes a guest's counter, on a CPU on which the vCPU is not loaded.
    NotLoaded,
    /// A vCPU is loaded that is loaded elsewhere, or where another is.
    LoadedTwice,
    /// Software of the host's is entered amid vcpu_load or vcpu_put, and finds its own counters otherwise than it
    /// left them.
    HalfSwapped,
    /// Interrupt after interrupt, and nobody gets anywhere.
    Livelock,
    /// A CPU waits for a lock that it holds itself.
    Deadlock,
    /// All wait, one of them for an interrupt that is due, and nothing else will happen.
    NeverWoken,
}

/// All that can be found, each of what it shows in.
pub const KINDS: [Kind; 28] = [
    Kind::GuestRead,
    Kind::GuestEntry,
    Kind::Undefined,
    Kind::LateInterrupt,
    Kind::LostInterrupt,
    Kind::SpuriousInterrupt,
    Kind::MisattributedInterrupt,
    Kind::HostRead,
    Kind::HostState,
    Kind::OneReg,
    Kind::Restored,
    Kind::Unsynchronised,
    Kind::DriverOrder,
    Kind::WithoutEffect,
    Kind::HostPlacement,
    Kind::UnpredictableHpmn,
    Kind::EventCount,
    Kind::EventTimes,
    Kind::EventPlacement,
    Kind::EventGroup,
    Kind::EventPinned,
    Kind::EventFlexible,
    Kind::NotLoaded,
    Kind::LoadedTwice,
    Kind::HalfSwapped,
    Kind::Livelock,
    Kind::Deadlock,
    Kind::NeverWoken,
];

impl Kind {
    /// Is what is compared a count?
    pub(crate) const fn of_value(self) -> bool {
        matches!(
            self,
            Self::GuestRead
                | Self::GuestEntry
                | Self::HostRead
                | Self::HostState
                | Self::OneReg
                | Self::Restored
                | Self::EventCount
        )
    }

    /// Its name, as it is written down.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::GuestRead => "guest_read",
            Self::GuestEntry => "guest_entry",
            Self::Undefined => "undefined",
            Self::LateInterrupt => "late_interrupt",
            Self::LostInterrupt => "lost_interrupt",
            Self::SpuriousInterrupt => "spurious_interrupt",
            Self::MisattributedInterrupt => "misattributed_interrupt",
            Self::HostRead => "host_read",
            Self::HostState => "host_state",
            Self::OneReg => "one_reg",
            Self::Restored => "restored",
            Self::Unsynchronised => "unsynchronised",
            Self::DriverOrder => "driver_order",
            Self::WithoutEffect => "without_effect",
            Self::HostPlacement => "host_placement",
            Self::UnpredictableHpmn => "unpredictable_hpmn",
            Self::EventCount => "event_count",
            Self::EventTimes => "event_times",
            Self::EventPlacement => "event_placement",
            Self::EventGroup => "event_group",
            Self::EventPinned => "event_pinned",
            Self::EventFlexible => "event_flexible",
            Self::NotLoaded => "not_loaded",
            Self::LoadedTwice => "loaded_twice",
            Self::HalfSwapped => "half_swapped",
            Self::Livelock => "livelock",
            Self::Deadlock => "deadlock",
            Self::NeverWoken => "never_woken",
        }
    }
}

/// One of the last things before a violation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Seen {
    /// CPU.
    pub cpu: usize,
    /// Time in cycles.
    pub cycle: u64,
    /// Exception level.
    pub el: u8,
    /// Who did it.
    pub party: Party,
    /// What.
    pub did: Did,
    /// Register, or first operand.
    pub a: u64,
    /// Value, or second operand.
    pub b: u64,
}

/// What was done.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Did {
    /// A read.
    Mrs,
    /// A write.
    Msr,
    /// A read that traps to EL2.
    MrsTraps,
    /// A write that traps to EL2.
    MsrTraps,
    /// A read that is UNDEFINED, or taken to the reader's own level.
    MrsTaken,
    /// Likewise a write.
    MsrTaken,
    /// What a trapped access gives.
    Emulated,
    /// A context synchronisation.
    Isb,
    /// From here on it runs.
    Runs,
    /// Software is entered.
    Entry,
    /// KVM_GET_ONE_REG, and what it gave: of the vCPU's context << 16 | register.
    GetOneReg,
    /// Likewise KVM_SET_ONE_REG, and what was to be set.
    SetOneReg,
    /// What KVM or software told else.
    Note,
    /// A counter, which is its party's, overflows.
    Overflow,
}

impl Did {
    /// Its name, as it is written down.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Mrs => "MRS",
            Self::Msr => "MSR",
            Self::MrsTraps => "MRS traps",
            Self::MsrTraps => "MSR traps",
            Self::MrsTaken => "MRS taken",
            Self::MsrTaken => "MSR taken",
            Self::Emulated => "emulated",
            Self::Isb => "ISB",
            Self::Runs => "runs",
            Self::Entry => "entry",
            Self::GetOneReg => "KVM_GET_ONE_REG",
            Self::SetOneReg => "KVM_SET_ONE_REG",
            Self::Note => "note",
            Self::Overflow => "overflow",
        }
    }
}

/// A broken invariant.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Violation {
    /// Which.
    pub invariant: Invariant,
    /// In what it shows.
    pub kind: Kind,
    /// CPU.
    pub cpu: usize,
    /// Time in cycles.
    pub cycle: u64,
    /// Register encoding.
    pub register: Option<u16>,
    /// Counter.
    pub counter: Option<u8>,
    /// Whose loss it is.
    pub victim: Party,
    /// Whose doing.
    pub other: Party,
    /// What it should be.
    pub expected: u64,
    /// What it is.
    pub actual: u64,
    /// The tolerance that was exceeded.
    pub window: Option<Window>,
    /// Time in cycles from which on it is so.
    pub since: Option<u64>,
    /// The last owners of the counter, in order; the last of them is whose it is. Of the counters below MDCR_EL2.HPMN,
    /// if it is about none of the CPU's.
    pub owned: Vec<Owned>,
    /// Who else was counted in it.
    pub counted: Vec<Counted>,
    /// How often the like was found.
    pub times: u64,
    /// What was seen before, the last last.
    pub before: Vec<Seen>,
}

impl Violation {
    /// Is `other` the like of it: of the same invariant and kind, between the same parties, of such a register?
    fn like(&self, other: &Self) -> bool {
        (self.invariant, self.kind, self.victim, self.other, self.of())
            == (other.invariant, other.kind, other.victim, other.other, other.of())
    }

    /// The kind of its register: one for all event counters, and one for all their types.
    fn of(&self) -> Option<Of> {
        self.register.and_then(Register::decode).map(Register::kind)
    }
}

/// What is kept of what is seen.
const SEEN: usize = 24;

/// All that has been found.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Findings {
    violations: Vec<Violation>,
    found: u64,
    premises: [u64; INVARIANTS],
    windows: Vec<(u64, u64)>,
    seen: VecDeque<Seen>,
    #[serde(skip)]
    pub(crate) mutant: Option<Mutant>,
}

/// A fault that a test makes in the judge, to be noticed by the tests.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mutant {
    /// An invariant is not checked.
    Off(Invariant),
    /// What shows in this is not seen.
    Blind(Kind),
    /// A tolerance never ends.
    Widened(Window),
}

impl Findings {
    /// Something is seen, and about to be judged.
    #[inline]
    pub fn see(&mut self, seen: Seen) {
        if self.seen.len() == SEEN {
            self.seen.pop_front();
        }
        self.seen.push_back(seen);
    }

    /// The premise of an invariant is met: it could fail here.
    #[inline]
    pub fn premise(&mut self, invariant: Invariant) {
        self.premises[invariant as usize - 1] += 1;
    }

    /// Is what is not as it should be `within` a tolerance? That is used then; at its `edge`, if one step more would
    /// exceed it.
    pub fn allows(&mut self, window: Window, within: bool, edge: bool) -> bool {
        if !within && self.mutant != Some(Mutant::Widened(window)) {
            return false;
        }
        self.windows.resize(WINDOWS.len(), (0, 0));
        let (uses, edges) = &mut self.windows[window as usize];
        *uses += 1;
        *edges += u64::from(edge);
        true
    }

    /// An invariant is broken.
    #[cold]
    pub fn violated(&mut self, mut violation: Violation) {
        match self.mutant {
            Some(Mutant::Off(invariant)) if invariant == violation.invariant => return,
            Some(Mutant::Blind(kind)) if kind == violation.kind => return,
            _ => {}
        }
        self.found += 1;
        if let Some(first) = self.violations.iter_mut().find(|first| first.like(&violation)) {
            first.times += 1;
            return;
        }
        violation.before = self.seen.iter().copied().collect();
        self.violations.push(violation);
    }

    /// How many violations there are.
    #[must_use]
    pub fn found(&self) -> u64 {
        self.found
    }

    /// The first of each kind.
    #[must_use]
    pub fn violations(&self) -> &[Violation] {
        &self.violations
    }

    /// How often each invariant's premise was met.
    #[must_use]
    pub fn premises(&self) -> &[u64; INVARIANTS] {
        &self.premises
    }

    /// Each window with how often it was used, and at its edge.
    pub fn windows(&self) -> impl Iterator<Item = (&'static str, u64, u64)> {
        let used = |at: usize| self.windows.get(at).copied().unwrap_or_default();
        WINDOWS.iter().enumerate().map(move |(at, window)| (window.name, used(at).0, used(at).1))
    }
}
