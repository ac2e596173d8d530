//! A perf event, and its truth: what has happened on its CPU or vCPU where its attributes admit it, between its own
//! kernel's start of its counter and its stop. Nobody else's write, filter or trap counts.

use pmu::registers::CYCLE;
use pmu::tally::Class;
use serde::{Deserialize, Serialize};

use crate::At;
use crate::guest::Guest;
use crate::host::Change;
use crate::note::attribute;

/// An open event.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Event {
    pub(crate) number: u16,
    pub(crate) attributes: u16,
    /// The classes that it counts in.
    scope: u32,
    /// Of a guest's kernel, its vCPU's tally of EL0.
    vcpu: Option<usize>,
    pub(crate) leader: u64,
    pub(crate) enabled: bool,
    pub(crate) error: bool,
    /// The CPU on which it was opened.
    pub(crate) home: usize,
    /// Of an event of KVM's, the vCPU that was loaded when it was last given a counter.
    pub(crate) counts_for: Option<usize>,
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
    /// Its truth then.
    pub(crate) read_at: u64,
    /// Its truth, and the turn and CPU in which it stays that.
    pub(crate) truth: (u64, u64),
    /// Who has changed what is on its counter.
    pub(crate) changed: Option<Change>,
    /// `time_enabled` and `time_running` when it was last read.
    pub(crate) times: Option<(u64, u64)>,
    /// It and those that it leads have had counters at once.
    pub(crate) had: bool,
    /// It waits for counters that a vCPU has, or had when it was looked at last.
    pub(crate) waits: bool,
    /// It was on a counter when a vCPU was last loaded there.
    pub(crate) fitted: bool,
    /// What it has counted since it was last read is not known: its registers have been set by userspace.
    pub(crate) unclear: bool,
    /// It has been on, or off, all the time since it was last read.
    pub(crate) steady: bool,
    /// Time in cycles from which on it has been off.
    pub(crate) off_since: u64,
}

impl Event {
    /// As the host opens it on a CPU, or a guest; `noted` is the operand of `EVENT_OPEN`.
    pub(crate) fn opened(noted: u64, guest: Option<&Guest>, at: &At<'_>) -> Self {
        let (number, attributes) = (noted as u16, (noted >> 16) as u16);
        let scope = match guest {
            Some(guest) if guest.denied.contains(&number) => 0,
            Some(_) => scope(attributes & !(attribute::EXCLUDE_HOST | attribute::EXCLUDE_GUEST)) & GUESTS,
            None => scope(attributes),
        };
        Self {
            number,
            attributes,
            scope,
            vcpu: guest.map(|guest| guest.tally),
            leader: noted >> 32,
            enabled: attributes & attribute::ENABLED != 0,
            error: false,
            home: if guest.is_some() { 0 } else { at.id },
            counts_for: None,
            on: None,
            counter: 0,
            counted: 0,
            from: None,
            astray: 0,
            astray_from: None,
            read: (0, 0),
            read_at: 0,
            truth: (0, 0),
            changed: None,
            times: None,
            had: false,
            waits: false,
            fitted: false,
            unclear: false,
            steady: false,
            off_since: at.cpu.now(),
        }
    }

    pub(crate) fn has(&self, attribute: u16) -> bool {
        self.attributes & attribute != 0
    }

    /// The counters that it has, which is on counter `n`: before PMUv3p5 a pair, if it counts 64 bits.
    pub(crate) fn counters(&self, n: usize, pairs: bool) -> u64 {
        let paired = pairs && self.has(attribute::LONG) && n > 0 && n < CYCLE;
        if paired { 0b11 << (n - 1) } else { 1 << n }
    }

    pub(crate) fn admits_guests(&self) -> bool {
        self.scope & GUESTS != 0
    }

    /// What has happened on its CPU or vCPU where its attributes admit it. The host's kernel asks for it: where that is
    /// not admitted, the answer holds until something else has run (`turn`).
    pub(crate) fn truth(&mut self, turn: u64, at: &At<'_>) -> u64 {
        if let Some(first) = self.vcpu {
            return at.world.happened_to(first, at.cpu, self.scope, self.number).unwrap_or(0);
        }
        let turn = turn << 16 | at.id as u64; // each CPU counts its own
        if self.scope >> Class::HostEl2 as u32 & 1 != 0 || self.truth.1 != turn {
            self.truth = (at.world.happened(at.cpu, self.scope, self.number).unwrap_or(0), turn);
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
        self.read_at = self.truth(turn, at);
    }
}

/// Classes of guests.
const GUESTS: u32 = 1 << Class::GuestEl0 as u32 | 1 << Class::GuestEl1 as u32;

/// The classes that attributes admit, on a VHE host: `exclude_hv` says nothing there.
fn scope(attributes: u16) -> u32 {
    let mut classes = 0;
    for (class, excluding) in [
        (Class::GuestEl0, attribute::EXCLUDE_GUEST | attribute::EXCLUDE_USER),
        (Class::GuestEl1, attribute::EXCLUDE_GUEST | attribute::EXCLUDE_KERNEL),
        (Class::HostEl0, attribute::EXCLUDE_HOST | attribute::EXCLUDE_USER),
        (Class::HostEl2, attribute::EXCLUDE_HOST | attribute::EXCLUDE_KERNEL),
    ] {
        if attributes & excluding == 0 {
            classes |= 1 << class as u32;
        }
    }
    classes
}
