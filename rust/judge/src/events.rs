//! The host's perf events count exactly what their attributes say, and are scheduled as perf promises: I3 and I10.
//!
//! What a throttled event misses it misses as the driver has disabled it, and a counter is not read or reprogrammed but
//! between a stop and a start: the one window that is needed is that between these two, in which a counter that others
//! keep running may go on.

use std::collections::BTreeMap;

use pmu::field::{mdcr_el2, pmcr};
use pmu::register::{Kind as Of, Register};
use pmu::registers::{COUNTERS, CYCLE};
use serde::{Deserialize, Serialize};

use crate::event::Event;
use crate::finding::{Invariant, Kind, Party};
use crate::host::Change;
use crate::note::{self, attribute};
use crate::traffic::{bits, value_of};
use crate::window::Window;
use crate::{At, Broken, Judge};

/// What is on a CPU's counters.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct OnCpu {
    /// By counter, of a pair the upper.
    events: Vec<Option<u64>>,
    /// The host has PMCR_EL0.E set.
    e: bool,
    /// It has started its counters: by that, or by MDCR_EL2.HPME where a guest owns that.
    started: bool,
    /// Counters that the host has enabled and started.
    counting: u64,
    /// Counters with an event that run though the host has stopped them.
    astray: u64,
    /// How often something else than the host's kernel has begun to run.
    turn: u64,
    /// The turn in which an event found no counter: in that, perf tries no further one (merge_sched_in's can_add_hw).
    full: u64,
    /// Events have come or gone since their scheduling was last looked at.
    rescheduled: bool,
    /// The event that is read, and its times.
    reading: (u64, u64, u64),
}

/// The host's events, and where they are.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Events {
    open: BTreeMap<u64, Event>,
    cpus: Vec<OnCpu>,
}

impl Events {
    pub(crate) fn new(cpus: usize) -> Self {
        let cpu = OnCpu {
            events: vec![None; COUNTERS],
            e: false,
            started: false,
            counting: 0,
            astray: 0,
            turn: 1,
            full: 0,
            rescheduled: false,
            reading: (0, 0, 0),
        };
        Self { open: BTreeMap::new(), cpus: vec![cpu; cpus] }
    }

    /// The counters that the host has enabled are these, or it has started or stopped them all.
    pub(crate) fn started(&mut self, register: Register, value: u64, enabled: u64, at: &At<'_>) {
        let cpu = &mut self.cpus[at.id];
        match register.kind() {
            Of::Pmcr => {
                cpu.e = value & pmcr::E != 0;
                cpu.started = cpu.e;
            }
            // A driver that sets both has set E last.
            Of::MdcrEl2 => cpu.started = cpu.e && value & mdcr_el2::HPME != 0,
            _ => {}
        }
        let counting = if cpu.started { enabled } else { 0 };
        let changed = cpu.counting ^ counting;
        cpu.counting = counting;
        for n in bits(changed) {
            if let Some(event) = cpu.events[n].and_then(|id| self.open.get_mut(&id)) {
                if counting >> n & 1 != 0 {
                    event.start(cpu.turn, at);
                } else {
                    event.stop(cpu.turn, at);
                }
            }
        }
        self.follow_astray(at);
    }

    /// What runs on the CPU's counters is looked at after whoever's write.
    pub(crate) fn follow_astray(&mut self, at: &At<'_>) {
        let cpu = &mut self.cpus[at.id];
        let real = (0..=2).fold(0, |counting, el| counting | at.cpu.registers().counting(el));
        let astray = real & !cpu.counting;
        for n in bits(astray ^ cpu.astray) {
            if let Some(event) = cpu.events[n].and_then(|id| self.open.get_mut(&id)) {
                event.strays(astray >> n & 1 != 0, cpu.turn, at);
            }
        }
        cpu.astray = astray;
    }

    /// A CPU has had a Warm reset: what it counted is over.
    pub(crate) fn reset(&mut self, at: &At<'_>) {
        self.started(Register::of(Of::Pmcr), 0, 0, at);
    }

    /// The host's kernel has read counter `n`.
    pub(crate) fn counter_read(&mut self, n: usize, at: &At<'_>) {
        let cpu = &self.cpus[at.id];
        if let Some(event) = cpu.events[n].and_then(|id| self.open.get_mut(&id)) {
            event.read_by(cpu.turn, at);
        }
    }

    /// Others have changed what is on counters of a CPU.
    pub(crate) fn changed(&mut self, change: Change, at: &At<'_>) {
        for n in bits(change.counters) {
            if let Some(event) = self.cpus[at.id].events[n].and_then(|id| self.open.get_mut(&id)) {
                event.changed = Some(change);
            }
        }
    }

    /// Something else than the host's kernel runs; whether the events' scheduling is to be looked at.
    pub(crate) fn left_kernel(&mut self, cpu: usize) -> bool {
        let cpu = &mut self.cpus[cpu];
        cpu.turn += 1;
        std::mem::take(&mut cpu.rescheduled)
    }

    /// A vCPU is put: what had to wait for its counters need not any more.
    pub(crate) fn vcpu_is_put(&mut self, cpu: usize) {
        self.cpus[cpu].rescheduled = true;
    }
}

impl Judge {
    /// The host's perf tells something of its events.
    pub(crate) fn event_noted(&mut self, code: u32, a: u64, at: &At<'_>) {
        let Self { events: Events { open, cpus }, .. } = self;
        let cpu = &mut cpus[at.id];
        match code {
            note::EVENT_OPEN => {
                let event = Event::opened(a, at);
                cpu.rescheduled |= event.has(attribute::PINNED) && !event.has(attribute::OF_TASK);
                open.insert(a >> 32, event);
            }
            note::EVENT_GROUP => {
                if let Some(event) = open.get_mut(&(a >> 32)) {
                    event.leader = a & 0xffff_ffff;
                }
            }
            note::EVENT_ENABLED | note::EVENT_DISABLED => {
                if let Some(event) = open.get_mut(&a) {
                    event.enabled = code == note::EVENT_ENABLED;
                    event.error = false;
                }
            }
            note::EVENT_ERROR => self.in_error(a, at),
            note::EVENT_CLOSED => {
                open.remove(&a);
                for event in open.values_mut().filter(|event| event.leader == a) {
                    event.leader = u64::MAX; // an event of its own from then on
                }
            }
            note::EVENT_ON => self.placed(a >> 8, (a & 0xff) as usize, at),
            note::EVENT_OFF => {
                let n = (a & 0xff) as usize;
                let Some(event) = open.get_mut(&(a >> 8)) else { return };
                event.stop(cpu.turn, at);
                event.strays(false, cpu.turn, at);
                event.on = None;
                event.steady = false;
                event.off_since = at.cpu.now();
                cpu.rescheduled |= !event.has(attribute::OF_KVM);
                cpu.astray &= !1_u64.wrapping_shl(n as u32);
                if let Some(there) = cpu.events.get_mut(n).filter(|there| **there == Some(a >> 8)) {
                    *there = None;
                }
            }
            note::EVENT_READ => cpu.reading.0 = a,
            note::EVENT_TIME_ENABLED => cpu.reading.1 = a,
            note::EVENT_TIME_RUNNING => cpu.reading.2 = a,
            note::EVENT_COUNT => self.event_read(a, at),
            _ => {}
        }
    }

    /// An event has counter `n`: no other has.
    fn placed(&mut self, id: u64, n: usize, at: &At<'_>) {
        let Self { events: Events { open, cpus }, hosts, findings, .. } = self;
        let cpu = &mut cpus[at.id];
        if n >= COUNTERS {
            return;
        }
        let Some(event) = open.get_mut(&id) else { return };
        findings.premise(Invariant::I10);
        let elsewhere = event.on.is_some();
        event.on = Some(at.id);
        event.counter = n;
        event.steady = false;
        event.changed = None;
        event.had = true;
        if event.has(attribute::OF_KVM)
            && let Some(context) = hosts[at.id].loaded
        {
            event.whose = Party::Guest(context);
        }
        if cpu.counting >> n & 1 != 0 {
            event.start(cpu.turn, at);
        }
        event.read_by(cpu.turn, at);
        cpu.rescheduled |= !event.has(attribute::OF_KVM);
        let other = cpu.events[n].replace(id).filter(|&other| other != id);
        hosts[at.id].owners.pass(n, Party::Host, at.cpu.now());
        if elsewhere || other.is_some() {
            let broken = Broken::new(Invariant::I10, Kind::EventPlacement);
            let other = other.unwrap_or(id);
            self.violated(
                Broken {
                    register: Some(value_of(n)),
                    other: Party::Host,
                    expected: other,
                    actual: id,
                    ..broken
                },
                at,
            );
        }
    }

    /// A pinned event that has had a counter is given up: for events that go before it, not for a guest.
    fn in_error(&mut self, id: u64, at: &At<'_>) {
        let Self { events: Events { open, cpus }, hosts, findings, .. } = self;
        let Some(event) = open.get_mut(&id) else { return };
        event.error = true;
        findings.premise(Invariant::I10);
        let (had, counter, off_since) = (event.had, event.counter, event.off_since);
        let on = |(n, on): (usize, &Option<u64>)| Some(open.get(&(*on)?)?.bits(n, at));
        let taken = cpus[at.id].events.iter().enumerate().filter_map(on).fold(0, |all, bits| all | bits);
        let free = at.cpu.registers().implemented() & !taken;
        let mut group = open.iter().filter(|(other, event)| **other == id || event.leader == id);
        let room = group.try_fold(free, |free, (_, event)| event.placed_in(free, at)).is_some();
        let cpu = &mut cpus[at.id];
        if !room {
            cpu.full = cpu.turn;
        }
        let free = had && cpu.full != cpu.turn;
        let Some(context) = hosts[at.id].loaded.filter(|_| free) else { return };
        let (register, since) = (Some(value_of(counter)), Some(off_since));
        let other = Party::Guest(context);
        let broken = Broken::new(Invariant::I10, Kind::EventPinned);
        self.violated(Broken { other, register, since, expected: 1, ..broken }, at);
    }

    /// A read of an event finds this count.
    fn event_read(&mut self, count: u64, at: &At<'_>) {
        let (id, enabled, running) = self.events.cpus[at.id].reading;
        let Some(event) = self.events.open.get_mut(&id) else { return };
        let before = event.times.replace((enabled, running));
        let steady = std::mem::replace(&mut event.steady, true);
        let on = event.on.is_some();
        let ((surely, possibly), changed, counter) = (event.read, event.changed, event.counter);
        let (of_kvm, victim) = (event.has(attribute::OF_KVM), event.whose);
        let surplus = count.wrapping_sub(surely) as i64;
        let within = surplus >= 0 && surplus as u64 <= possibly.wrapping_sub(surely);
        // A difference is found once.
        event.counted = event.counted.wrapping_add(surplus as u64);
        event.astray = 0;
        event.read = (count, count);
        let tallied = at.world.happened(at.cpu, 0, event.number).is_some();
        self.findings.premise(Invariant::I10);
        let times = Broken::new(Invariant::I10, Kind::EventTimes);
        let grown = before.map(|(e, r)| (enabled.wrapping_sub(e), running.wrapping_sub(r)));
        if of_kvm {
            // It does not ask for them.
        } else if running > enabled {
            self.violated(Broken { expected: enabled, actual: running, ..times }, at);
        } else if let Some((enabled, running)) = grown.filter(|_| steady) {
            let expected = if on { enabled } else { 0 };
            if running != expected {
                self.violated(Broken { expected, actual: running, ..times }, at);
            }
        }
        if !tallied {
            return;
        }
        self.findings.premise(Invariant::I3);
        if within {
            if surplus != 0 {
                self.findings.window(Window::StoppedByDriver, count == possibly);
            }
        } else {
            let expected = if surplus < 0 { surely } else { possibly };
            let (invariant, other) =
                changed.map_or((Invariant::I3, Party::Kvm), |one| (Invariant::I2, one.by));
            let broken = Broken::new(invariant, Kind::EventCount);
            let since = changed.map(|one| one.cycle);
            let register = Some(value_of(counter));
            self.violated(Broken { register, victim, other, expected, actual: count, since, ..broken }, at);
        }
    }

    /// The host's kernel is left with its events scheduled: groups all on or none, pinned ones on.
    pub(crate) fn scheduled(&mut self, at: &At<'_>) {
        let open = &self.events.open;
        let here = |event: &Event| event.on == Some(at.id);
        let mut broken = None;
        let (mut looked, mut waits) = (false, false);
        for (id, event) in open.iter().filter(|(_, event)| !event.has(attribute::OF_KVM)) {
            let wanted = event.enabled && !event.error;
            if event.leader != *id
                && wanted
                && let Some(leader) = open.get(&event.leader).filter(|leader| here(leader) || here(event))
            {
                looked = true;
                if here(leader) != here(event) {
                    broken = Some((Kind::EventGroup, event));
                }
            }
            let pinned =
                event.has(attribute::PINNED) && !event.has(attribute::OF_TASK) && event.home == at.id;
            if pinned && wanted {
                looked = true;
                if event.on.is_none() && self.hosts[at.id].loaded.is_some() {
                    waits = true;
                } else if event.on.is_none() {
                    broken = Some((Kind::EventPinned, event));
                }
            }
        }
        let found = broken.map(|(kind, event)| (kind, value_of(event.counter.min(CYCLE)), event.off_since));
        if waits {
            self.findings.window(Window::CountersLent, false);
        }
        if looked {
            self.findings.premise(Invariant::I10);
        }
        if let Some((kind, register, since)) = found {
            let broken = Broken { expected: 1, actual: 0, ..Broken::new(Invariant::I10, kind) };
            self.violated(Broken { register: Some(register), since: Some(since), ..broken }, at);
        }
    }
}
