//! Perf events count exactly what their attributes say, and are scheduled as perf promises: the host's I3 and I10, a
//! guest's I4 and I10.
//!
//! What a throttled event misses it misses as the driver has disabled it, and a counter is not read or reprogrammed but
//! between a stop and a start: the one window that is needed is that between these two, in which a counter that others
//! keep running may go on.

use std::collections::BTreeMap;

use pmu::feature::PMUV3P5;
use pmu::field::{mdcr_el2, pmcr};
use pmu::register::{Kind as Of, Register};
use pmu::registers::{COUNTERS, CPU_CYCLES, CYCLE, INST_RETIRED, INSTRUCTION};
use serde::{Deserialize, Serialize};

use crate::event::Event;
use crate::finding::{Invariant, Kind, Party};
use crate::host::{Change, Host};
use crate::note::{self, attribute};
use crate::traffic::{bits, value_of};
use crate::window::Window;
use crate::{At, Broken, EVENT_COUNTERS, Judge};

/// Counters that are the lower one of a pair.
const EVEN: u64 = 0x5555_5555;

/// Does an event of 64 bits take two counters?
fn pairs(at: &At<'_>) -> bool {
    !at.cpu.registers().features().has(PMUV3P5)
}

/// What is on the counters of a CPU, or of a vCPU.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct OnCpu {
    /// By counter, of a pair the upper.
    pub(crate) events: Vec<Option<u64>>,
    /// The host has PMCR_EL0.E set.
    e: bool,
    /// It has started its counters: by that, or by MDCR_EL2.HPME where a guest owns that.
    started: bool,
    /// Counters that its kernel has enabled and started.
    counting: u64,
    /// Counters with an event that run though the host has stopped them; a guest's PMU as it should be has none.
    astray: u64,
    /// How often something else than the host's kernel has begun to run.
    pub(crate) turn: u64,
    /// The turn in which an event found no counter: in that, perf tries no further one (merge_sched_in's can_add_hw).
    pub(crate) full: u64,
    /// A vCPU has been put, and the host's kernel has not been left since.
    put: bool,
    /// What was not on when a vCPU was last loaded has been tried since, or may have been.
    others: bool,
    /// Events have come or gone since their scheduling was last looked at.
    rescheduled: bool,
    /// The event that is read, and its times.
    reading: (u64, u64, u64),
}

/// A kernel's events, and where they are.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Events {
    pub(crate) open: BTreeMap<u64, Event>,
    pub(crate) cpus: Vec<OnCpu>,
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
            put: false,
            others: false,
            rescheduled: false,
            reading: (0, 0, 0),
        };
        Self { open: BTreeMap::new(), cpus: vec![cpu; cpus] }
    }

    /// The counters that the host has enabled are these, or it has started or stopped them all.
    pub(crate) fn started(&mut self, register: Register, value: u64, host: &Host, at: &At<'_>) {
        let enabled = host.enabled();
        let cpu = &mut self.cpus[at.id];
        match register.kind() {
            Of::Pmcr => {
                cpu.e = value & pmcr::E != 0;
                cpu.started = cpu.e;
            }
            Of::MdcrEl2 => {
                let hpme = value & mdcr_el2::HPME != 0;
                // Its one enable while a guest has the first range. Else a driver that sets both has set E last.
                cpu.e = if host.divided() { hpme } else { cpu.e };
                cpu.started = cpu.e && hpme;
            }
            _ => {}
        }
        let counting = if cpu.started { enabled } else { 0 };
        self.count(at.id, counting, at);
        self.follow_astray(at);
    }

    /// These are the counters that the kernel has enabled and started.
    fn count(&mut self, cpu: usize, counting: u64, at: &At<'_>) {
        let cpu = &mut self.cpus[cpu];
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
    }

    /// What runs on the CPU's counters is looked at after whoever's write.
    pub(crate) fn follow_astray(&mut self, at: &At<'_>) {
        let cpu = &mut self.cpus[at.id];
        let mut astray = at.cpu.read(Register::of(Of::Pmcntenset), 2) & !cpu.counting;
        if astray != 0 {
            astray &= (0..=2).fold(0, |counting, el| counting | at.cpu.registers().counting(el));
        }
        for n in bits(astray ^ cpu.astray) {
            if let Some(event) = cpu.events[n].and_then(|id| self.open.get_mut(&id)) {
                event.strays(astray >> n & 1 != 0, cpu.turn, at);
            }
        }
        cpu.astray = astray;
    }

    /// A CPU has had a Warm reset: what it counted is over.
    pub(crate) fn reset(&mut self, host: &Host, at: &At<'_>) {
        self.cpus[at.id].put = false;
        self.started(Register::of(Of::Pmcr), 0, host, at);
    }

    /// Its kernel has read counter `n`.
    pub(crate) fn counter_read(&mut self, cpu: usize, n: usize, at: &At<'_>) {
        let cpu = &self.cpus[cpu];
        let (id, pair) = match cpu.events[n] {
            Some(id) => (Some(id), false),
            None => (cpu.events.get(n + 1).copied().flatten(), true),
        };
        if let Some(event) = id.and_then(|id| self.open.get_mut(&id))
            && (!pair || event.has(attribute::LONG))
        {
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

    /// A vCPU was in WFI, in which its PMCCNTR_EL0 has counted so many cycles, and CPU_CYCLES none.
    pub(crate) fn idled(&mut self, cycles: u64) {
        let event = self.cpus[0].events[CYCLE].and_then(|id| self.open.get_mut(&id));
        if let Some(event) = event.filter(|event| event.from.is_some()) {
            event.counted = event.counted.wrapping_add(cycles);
        }
    }

    /// Userspace has set what is on the counters of a vCPU, and it depends on the kernel how.
    pub(crate) fn unclear(&mut self) {
        for event in self.open.values_mut().filter(|event| event.on.is_some()) {
            event.unclear = true;
        }
    }

    /// Is there a counter on this CPU that an event could have, and no other has?
    fn room_for(&self, id: u64, at: &At<'_>) -> bool {
        let taken = self.taken(|_| true, at);
        self.fits(id, at.cpu.registers().implemented() & !taken, at)
    }

    /// The counters of this CPU that such events are on.
    fn taken(&self, of: impl Fn(&Event) -> bool, at: &At<'_>) -> u64 {
        let pairs = pairs(at);
        let on = self.cpus[at.id].events.iter().enumerate();
        let on = on.filter_map(|(n, &id)| Some((n, self.open.get(&id?)?)));
        on.filter(|(_, event)| of(event)).fold(0, |taken, (n, event)| taken | event.counters(n, pairs))
    }

    /// Are these counters enough for an event and those that it leads?
    fn fits(&self, id: u64, free: u64, at: &At<'_>) -> bool {
        let mut group = self.open.iter().filter(|(other, event)| **other == id || event.leader == id);
        group.try_fold(free, |free, (_, event)| Self::placed_in(free, event, at)).is_some()
    }

    /// Has this CPU a counter above HPMN, which no vCPU has, for each of these pinned events, whichever is tried first?
    /// Flexible ones make room. Of those that had one, and count guests: others may be off while a guest is entered.
    fn left_for(&self, waiting: &[u64], at: &At<'_>) -> bool {
        let stays = |event: &Event| self.open.get(&event.leader).unwrap_or(event).has(attribute::PINNED);
        let free = at.cpu.registers().second_range() & !self.taken(stays, at);
        free != 0
            && waiting.iter().all(|&id| {
                let event = &self.open[&id];
                event.had && event.admits_guests() && self.fits(id, free, at)
            })
    }

    /// The counters of `free` that are left where an event gets one, or a pair; `None` where there is none for it.
    fn placed_in(free: u64, event: &Event, at: &At<'_>) -> Option<u64> {
        let features = at.cpu.registers().features();
        let of_events = free & EVENT_COUNTERS;
        let lowest = |mask: u64, pair: u64| (mask != 0).then(|| free & !(pair << mask.trailing_zeros()));
        match event.number {
            CPU_CYCLES if free >> CYCLE & 1 != 0 && !features.pmccntr_in_wfi => Some(free & !(1 << CYCLE)),
            INST_RETIRED if free >> INSTRUCTION & 1 != 0 => Some(free & !(1 << INSTRUCTION)),
            _ if pairs(at) && event.has(attribute::LONG) => lowest(of_events & of_events >> 1 & EVEN, 0b11),
            _ => lowest(of_events, 1),
        }
    }

    /// Something else than its kernel runs; whether the events' scheduling is to be looked at.
    pub(crate) fn left_kernel(&mut self, cpu: usize) -> bool {
        let cpu = &mut self.cpus[cpu];
        cpu.turn += 1;
        std::mem::take(&mut cpu.rescheduled)
    }

    /// Does the event on counter `n` of a CPU, if there is one, count guests?
    pub(crate) fn admits_guests(&self, n: usize, cpu: usize) -> bool {
        self.cpus[cpu].events[n].and_then(|id| self.open.get(&id)).is_none_or(Event::admits_guests)
    }

    /// A vCPU is loaded. What has not come back behind a put just now, the kernel has had no time for.
    pub(crate) fn vcpu_loads(&mut self, cpu: usize) {
        let OnCpu { put, others, .. } = &mut self.cpus[cpu];
        let put = std::mem::take(put);
        *others &= put;
        for event in self.open.values_mut().filter(|event| event.home == cpu || event.on == Some(cpu)) {
            event.fitted = event.on == Some(cpu) || put && event.fitted;
        }
    }

    /// Which flexible event of this CPU waits, behind a put, for no reason: all that are enabled were on when the vCPU
    /// was loaded, and nothing has come since, so that in whichever order perf tries them each finds a counter.
    fn waits_in_vain(&self, at: &At<'_>) -> Option<&Event> {
        let enabled = |event: &&Event| event.enabled && !event.error;
        let of_cpu =
            |event: &&Event| event.home == at.id && !event.has(attribute::OF_TASK | attribute::OF_KVM);
        let mut all = self.open.values().filter(|event| of_cpu(event) && enabled(event));
        // In pairs of counters it depends on the order.
        let fits = all.clone().all(|event| event.fitted && !(pairs(at) && event.has(attribute::LONG)));
        let fits = fits && !self.cpus[at.id].others;
        all.find(|event| fits && event.on.is_none() && !event.has(attribute::PINNED))
    }

    /// A vCPU is put. Did an event wait for its counters, which need not wait any more?
    pub(crate) fn vcpu_is_put(&mut self, cpu: usize) -> bool {
        self.cpus[cpu].rescheduled = true;
        self.cpus[cpu].put = true;
        self.open.values().any(|event| event.waits && event.home == cpu)
    }
}

/// Whose events, and which of its CPUs.
#[derive(Clone, Copy)]
struct Kernel {
    guest: Option<usize>,
    cpu: usize,
    party: Party,
}

impl Judge {
    /// Of the kernel that runs; `None` of a guest's that has no PMU.
    fn kernel(&self, at: &At<'_>) -> Option<Kernel> {
        if !at.running.guest {
            return Some(Kernel { guest: None, cpu: at.id, party: Party::Host });
        }
        let guest = self.guest(at.running.context)?;
        Some(Kernel { guest: Some(guest), cpu: 0, party: Party::Guest(at.running.context) })
    }

    fn events(&mut self, of: Kernel) -> &mut Events {
        match of.guest {
            Some(guest) => &mut self.guests[guest].events,
            None => &mut self.events,
        }
    }

    /// A guest has written a register, or userspace has: its counters count as its PMU as it should be says.
    pub(crate) fn guest_counts(&mut self, guest: usize, at: &At<'_>) {
        let counting = self.guests[guest].started();
        self.guests[guest].events.count(0, counting, at);
    }

    /// A kernel's perf tells something of its events.
    pub(crate) fn event_noted(&mut self, code: u32, a: u64, at: &At<'_>) {
        let Some(of) = self.kernel(at) else { return };
        let opened = (code == note::EVENT_OPEN)
            .then(|| Event::opened(a, of.guest.map(|guest| &self.guests[guest]), at));
        let Events { open, cpus } = self.events(of);
        let cpu = &mut cpus[of.cpu];
        match code {
            note::EVENT_OPEN => {
                let Some(event) = opened else { return };
                cpu.others = true;
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
                    cpu.others = true;
                    event.enabled = code == note::EVENT_ENABLED;
                    event.error = false;
                }
            }
            note::EVENT_ERROR => self.in_error(of, a, at),
            note::EVENT_CLOSED => {
                open.remove(&a);
                for event in open.values_mut().filter(|event| event.leader == a) {
                    event.leader = u64::MAX; // an event of its own from then on
                }
            }
            note::EVENT_ON => self.placed(of, a >> 8, (a & 0xff) as usize, at),
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
            note::EVENT_COUNT => self.event_read(of, a, at),
            _ => {}
        }
    }

    /// An event has counter `n`: no other has.
    fn placed(&mut self, of: Kernel, id: u64, n: usize, at: &At<'_>) {
        let loaded = self.hosts[at.id].loaded;
        let Events { open, cpus } = self.events(of);
        let cpu = &mut cpus[of.cpu];
        if n >= COUNTERS {
            return;
        }
        let Some(event) = open.get_mut(&id) else { return };
        let elsewhere = event.on.is_some();
        cpu.others |= !event.fitted;
        event.on = Some(of.cpu);
        event.counter = n;
        event.steady = false;
        event.changed = None;
        event.waits = false;
        if event.has(attribute::OF_KVM) {
            event.counts_for = loaded.or(event.counts_for);
        }
        if cpu.counting >> n & 1 != 0 {
            event.start(cpu.turn, at);
        }
        event.read_by(cpu.turn, at);
        cpu.rescheduled |= !event.has(attribute::OF_KVM);
        let (leader, other) = (event.leader, cpu.events[n].replace(id).filter(|&other| other != id));
        if open.get(&leader).is_some_and(|leader| !leader.had) {
            // A group that does not fit is tried, and off again.
            let mut group = open.iter().filter(|(id, event)| **id == leader || event.leader == leader);
            let all = group.all(|(_, event)| event.on.is_some() || !event.enabled);
            if let Some(leader) = open.get_mut(&leader) {
                leader.had = all;
            }
        }
        self.findings.premise(Invariant::I10);
        if of.guest.is_none() {
            self.hosts[at.id].owners.pass(n, Party::Host, at.cpu.now());
        }
        if elsewhere || other.is_some() {
            let broken = Broken::new(Invariant::I10, Kind::EventPlacement);
            let (expected, register) = (other.unwrap_or(id), Some(value_of(n)));
            let (victim, other) = (of.party, of.party);
            self.violated(Broken { register, victim, other, expected, actual: id, ..broken }, at);
        }
    }

    /// A pinned event that has had a counter is given up: for events that go before it, not for a guest.
    fn in_error(&mut self, of: Kernel, id: u64, at: &At<'_>) {
        let Some(event) = self.events(of).open.get_mut(&id) else { return };
        event.error = true;
        // What counts in a guest's stead is the guest's matter.
        let had = event.had && !event.has(attribute::OF_KVM);
        if of.guest.is_some() {
            return; // nobody takes a guest's counters
        }
        self.findings.premise(Invariant::I10);
        let Self { events, hosts, .. } = self;
        let room = events.room_for(id, at);
        let event = &events.open[&id];
        let cpu = &mut events.cpus[at.id];
        if !room {
            cpu.full = cpu.turn;
        }
        let room = had && cpu.full != cpu.turn;
        let Some(context) = hosts[at.id].loaded.filter(|_| room) else { return };
        let (register, since) = (Some(value_of(event.counter)), Some(event.off_since));
        let other = Party::Guest(context);
        let broken = Broken::new(Invariant::I10, Kind::EventPinned);
        self.violated(Broken { other, register, since, expected: 1, ..broken }, at);
    }

    /// A read of an event finds this count.
    fn event_read(&mut self, of: Kernel, count: u64, at: &At<'_>) {
        let Events { open, cpus } = self.events(of);
        let (id, enabled, running) = cpus[of.cpu].reading;
        let Some(event) = open.get_mut(&id) else { return };
        let before = event.times.replace((enabled, running));
        let steady = std::mem::replace(&mut event.steady, true);
        let unclear = std::mem::replace(&mut event.unclear, false);
        let on = event.on.is_some();
        let ((surely, possibly), changed, counter) = (event.read, event.changed, event.counter);
        let (of_kvm, counts_for) = (event.has(attribute::OF_KVM), event.counts_for);
        let surplus = count.wrapping_sub(surely) as i64;
        let within = surplus >= 0 && surplus as u64 <= possibly.wrapping_sub(surely);
        // A difference is found once.
        event.counted = event.counted.wrapping_add(surplus as u64);
        event.astray = 0;
        event.astray_from = event.astray_from.map(|from| from.max(event.read_at));
        event.read = (count, count);
        let number = event.number;
        let tallied = at.world.happened(at.cpu, 0, number).is_some();
        self.findings.premise(Invariant::I10);
        let victim = of.party;
        let times = Broken { victim, ..Broken::new(Invariant::I10, Kind::EventTimes) };
        let grown = before.map(|(e, r)| (enabled.wrapping_sub(e), running.wrapping_sub(r)));
        // Where it has been on for a part of the time only, nobody but perf knows for how long.
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
            return; // there is no truth of it
        }
        let whose = if of.guest.is_some() { Invariant::I4 } else { Invariant::I3 };
        self.findings.premise(whose);
        // What it may have counted astray, if it may have at all.
        let astray = (possibly != surely).then_some(Window::StoppedByDriver);
        let window = if unclear { Some(Window::UserView) } else { astray };
        let edge = count == possibly && !unclear;
        if surplus != 0 && !window.is_some_and(|window| self.findings.allows(window, within || unclear, edge))
        {
            let expected = if surplus < 0 { surely } else { possibly };
            let (invariant, other) = changed.map_or((whose, Party::Kvm), |one| (Invariant::I2, one.by));
            let victim = counts_for.map_or(victim, Party::Guest);
            let broken = Broken { victim, other, window, ..Broken::new(invariant, Kind::EventCount) };
            let (register, since) = (Some(value_of(counter)), changed.map(|one| one.cycle));
            self.violated(Broken { register, since, expected, actual: count, ..broken }, at);
        }
    }

    /// A kernel is left with its events scheduled: groups all on or none, pinned ones on. Of a task's events nothing
    /// tells whether the task runs: of those only groups are looked at.
    pub(crate) fn left_kernel(&mut self, at: &At<'_>) {
        let Some(of) = self.kernel(at) else { return };
        if !self.events(of).left_kernel(of.cpu) {
            return;
        }
        let lent = of.guest.is_none() && self.hosts[at.id].loaded.is_some();
        let here = |event: &Event| event.on == Some(of.cpu);
        let wanted = |event: &Event| event.enabled && !event.error && !event.has(attribute::OF_KVM);
        let its = |event: &Event| (value_of(event.counter.min(CYCLE)), event.off_since);
        let mut broken = None;
        let mut looked = false;
        let mut waiting = Vec::new();
        let open = &mut self.events(of).open;
        for (_, event) in open.iter().filter(|(id, event)| wanted(event) && event.leader != **id) {
            if let Some(leader) = open.get(&event.leader).filter(|leader| here(leader) || here(event)) {
                looked = true;
                if here(leader) != here(event) {
                    broken = Some((Kind::EventGroup, its(event), None));
                }
            }
        }
        let of_cpu = |event: &Event| event.has(attribute::PINNED) && !event.has(attribute::OF_TASK);
        for (&id, event) in
            open.iter_mut().filter(|(_, event)| wanted(event) && of_cpu(event) && event.home == of.cpu)
        {
            looked = true;
            if event.on.is_none() {
                let lent_before = std::mem::replace(&mut event.waits, lent);
                waiting.push((id, its(event), (lent || lent_before).then_some(Window::CountersLent)));
            }
        }
        let ids: Vec<u64> = waiting.iter().map(|&(id, ..)| id).collect();
        let within = lent && !ids.is_empty() && !self.events(of).left_for(&ids, at);
        for (_, its, window) in waiting {
            if !window.is_some_and(|window| self.findings.allows(window, within, false)) {
                broken = Some((Kind::EventPinned, its, window));
            }
        }
        if of.guest.is_none() && !lent && std::mem::take(&mut self.events.cpus[of.cpu].put) {
            looked = true;
            if let Some(event) = self.events.waits_in_vain(at) {
                broken = broken.or(Some((Kind::EventFlexible, its(event), None)));
            }
        }
        if looked {
            self.findings.premise(Invariant::I10);
        }
        if let Some((kind, (register, since), window)) = broken {
            let (victim, register) = (of.party, Some(register));
            let broken = Broken { victim, expected: 1, window, ..Broken::new(Invariant::I10, kind) };
            self.violated(Broken { register, since: Some(since), ..broken }, at);
        }
    }
}
