//! A perf event of the host's, and its truth: what has happened on its CPU where its attributes admit it, between the
//! host's own start of its counter and its own stop. Nobody else's write, filter or trap counts.

use pmu::feature::PMUV3P5;
use pmu::registers::{CPU_CYCLES, CYCLE};
use pmu::tally::Class;
use serde::{Deserialize, Serialize};

use crate::At;
use crate::finding::Party;
use crate::host::Change;
use crate::note::attribute;

/// Counters that may be the upper of a pair.
const ODD: u64 = 0x2aaa_aaaa;

/// An open event.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Event {
    pub(crate) number: u16,
    pub(crate) attributes: u16,
    pub(crate) leader: u64,
    pub(crate) enabled: bool,
    pub(crate) error: bool,
    /// The CPU on which it was opened.
    pub(crate) home: usize,
    /// Whose loss it is if it counts wrongly: of an event of KVM's the vCPU's that was loaded there last.
    pub(crate) whose: Party,
    /// The CPU on which it has a counter.
    pub(crate) on: Option<usize>,
    /// The counter that it is on, or was.
    pub(crate) counter: usize,
    /// What it should have counted, up to when its counter was last stopped.
    pub(crate) counted: u64,
    /// Its truth when its counter was last started, if that runs.
    pub(crate) from: Option<u64>,
    /// What its counter may have counted though the host had stopped it, and its truth when that last began.
    pub(crate) astray: u64,
    pub(crate) astray_from: Option<u64>,
    /// What it should have counted when its counter was last read, and what it could have.
    pub(crate) read: (u64, u64),
    /// Its truth, and until when on that CPU it stays that.
    pub(crate) truth: (u64, u64),
    /// Who has changed what is on its counter.
    pub(crate) changed: Option<Change>,
    /// `time_enabled` and `time_running` when it was last read.
    pub(crate) times: Option<(u64, u64)>,
    /// It has had a counter.
    pub(crate) had: bool,
    /// It has been on, or off, all the time since it was last read.
    pub(crate) steady: bool,
    /// Time in cycles from which on it has been off.
    pub(crate) off_since: u64,
}

impl Event {
    /// As it is opened on a CPU; `noted` is the operand of `EVENT_OPEN`.
    pub(crate) fn opened(noted: u64, at: &At<'_>) -> Self {
        let attributes = (noted >> 16) as u16;
        Self {
            number: noted as u16,
            attributes,
            leader: noted >> 32,
            enabled: attributes & attribute::ENABLED != 0,
            error: false,
            home: at.id,
            whose: Party::Host,
            on: None,
            counter: 0,
            counted: 0,
            from: None,
            astray: 0,
            astray_from: None,
            read: (0, 0),
            truth: (0, 0),
            changed: None,
            times: None,
            had: false,
            steady: false,
            off_since: at.cpu.now(),
        }
    }

    pub(crate) fn has(&self, attribute: u16) -> bool {
        self.attributes & attribute != 0
    }

    /// The classes that its attributes admit, on a VHE host: `exclude_hv` says nothing there.
    pub(crate) fn scope(&self) -> u32 {
        let mut classes = 0;
        for (class, excluding) in [
            (Class::GuestEl0, attribute::EXCLUDE_GUEST | attribute::EXCLUDE_USER),
            (Class::GuestEl1, attribute::EXCLUDE_GUEST | attribute::EXCLUDE_KERNEL),
            (Class::HostEl0, attribute::EXCLUDE_HOST | attribute::EXCLUDE_USER),
            (Class::HostEl2, attribute::EXCLUDE_HOST | attribute::EXCLUDE_KERNEL),
        ] {
            if !self.has(excluding) {
                classes |= 1 << class as u32;
            }
        }
        classes
    }

    /// Counters that it takes on counter `n`: one, or a pair where one has not the bits.
    pub(crate) fn bits(&self, n: usize, at: &At<'_>) -> u64 {
        1 << n | if self.chained(at) && n > 0 && n < CYCLE { 1 << (n - 1) } else { 0 }
    }

    /// The counters of `free` that are left where it gets one, or a pair; `None` where there is none for it.
    pub(crate) fn placed_in(&self, free: u64, at: &At<'_>) -> Option<u64> {
        let general = free & ((1 << CYCLE) - 1);
        let (uppers, pair) =
            if self.chained(at) { (general & general << 1 & ODD, true) } else { (general, false) };
        match uppers.trailing_zeros() {
            _ if self.number == CPU_CYCLES && free >> CYCLE & 1 != 0 => Some(free & !(1 << CYCLE)),
            64 => None,
            n => Some(free & !(1 << n) & if pair { !(1 << (n - 1)) } else { !0 }),
        }
    }

    fn chained(&self, at: &At<'_>) -> bool {
        self.has(attribute::LONG) && !at.cpu.registers().features().has(PMUV3P5)
    }

    /// What has happened on its CPU where its attributes admit it. It is asked for by the host's kernel: where that is
    /// not admitted, the answer holds until something else has run (`turn`).
    pub(crate) fn truth(&mut self, turn: u64, at: &At<'_>) -> u64 {
        let scope = self.scope();
        if scope >> Class::HostEl2 as u32 & 1 != 0 || self.truth.1 != turn {
            self.truth = (at.world.happened(at.cpu, scope, self.number).unwrap_or(0), turn);
        }
        self.truth.0
    }

    pub(crate) fn start(&mut self, turn: u64, at: &At<'_>) {
        self.from = Some(self.truth(turn, at));
    }

    pub(crate) fn stop(&mut self, turn: u64, at: &At<'_>) {
        self.counted = self.counted_by(turn, at);
        self.from = None;
    }

    pub(crate) fn counted_by(&mut self, turn: u64, at: &At<'_>) -> u64 {
        let Some(from) = self.from else { return self.counted };
        self.counted.wrapping_add(self.truth(turn, at).wrapping_sub(from))
    }

    pub(crate) fn astray_by(&mut self, turn: u64, at: &At<'_>) -> u64 {
        let Some(from) = self.astray_from else { return self.astray };
        self.astray.wrapping_add(self.truth(turn, at).wrapping_sub(from))
    }

    /// Its counter runs on though the host has stopped it, or does not any more.
    pub(crate) fn strays(&mut self, strays: bool, turn: u64, at: &At<'_>) {
        self.astray = self.astray_by(turn, at);
        self.astray_from = strays.then(|| self.truth(turn, at));
    }

    pub(crate) fn read_by(&mut self, turn: u64, at: &At<'_>) {
        let counted = self.counted_by(turn, at);
        self.read = (counted, counted.wrapping_add(self.astray_by(turn, at)));
    }
}
