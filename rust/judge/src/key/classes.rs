//! What is in the key of counters' values, times and ids, which are not in it as they are.
//!
//! A counter's value is its distance to the next wrap where that is near, and what it has more than the judge's ideal of
//! its owner has, which is 0 in a correct state: without that a state that has lost counts would be one that has not.

use pmu::counter::NEVER;
use pmu::cpu::Cpu;
use pmu::feature::PMUV3P5;
use pmu::registers::CYCLE;

use super::{Form, Observed};
use crate::event::Event;
use crate::events::{Events, OnCpu};
use crate::finding::Party;
use crate::guest::Guest;
use crate::host::Host;
use crate::note::attribute;
use crate::traffic::bits;
use crate::{At, BEFORE_BOOT, Judge};

/// Occurrences before a wrap from which on each one counts: more than an action has, and less than the distance at which
/// the worlds' guests begin otherwise.
const NEAR: u64 = 1 << 13;

/// No event.
pub const NONE: u64 = u64::MAX;

/// What the host's perf has of an event.
#[derive(Clone, Copy, Debug)]
pub struct PerfEvent {
    /// Its id.
    pub id: u64,
    /// Its count when its counter was last read.
    pub count: u64,
    /// What that read, if it is on one.
    pub previous: Option<u64>,
    /// Bits that it counts.
    pub mask: u64,
    /// `time_enabled` and `time_running`, up to the last update.
    pub times: (u64, u64),
}

/// Of a vCPU by its context: each counter with its value in memory, and the id of the event whose count comes on top, or
/// [`NONE`].
pub type Kept = (usize, Vec<(usize, u64, u64)>);

/// What is known of counters elsewhere: in KVM's memory, and in the host's perf.
#[derive(Clone, Copy, Debug, Default)]
pub struct Copies<'a> {
    /// In memory.
    pub guests: &'a [Kept],
    /// Open events, by their ids.
    pub events: &'a [PerfEvent],
    /// The values that actions give to counters.
    pub chosen: &'a [u64],
}

impl Copies<'_> {
    /// The class of a value: the distance to a wrap that is near, of 32 and of 64 bits, 0 if it is far; and which one it
    /// is of those that are chosen, for then it may be the same as another's at once.
    fn class(&self, value: u64) -> u64 {
        let of = |distance: u64| if distance <= NEAR { distance } else { 0 };
        let chosen = self.chosen.iter().position(|&one| one == value).map_or(0, |place| 1 + place as u64);
        of(u64::from((value as u32).wrapping_neg())) | of(value.wrapping_neg()) << 16 | chosen << 32
    }
}

/// For how long it has been late, beyond what a level takes.
fn late(since: u64, now: u64, delay: u64) -> u64 {
    now.wrapping_sub(since).min(delay.saturating_add(1))
}

pub(super) fn put(form: &mut Form, machine: &Observed, copies: &Copies<'_>) {
    let cpus = machine.cpus();
    for cpu in cpus {
        put_cpu(form, cpu, copies);
    }
    let Some(judge) = machine.observer().1.as_ref() else { return };
    for (host, cpu) in judge.hosts.iter().zip(cpus) {
        put_host(form, host, cpu, copies);
    }
    for guest in &judge.guests {
        form.enter("guest");
        put_guest(form, guest, judge, cpus, copies);
        let of = copies.guests.iter().find(|of| of.0 == guest.context);
        for &(n, value, event) in of.into_iter().flat_map(|of| &of.1) {
            if guest.implements(n) {
                let more = copies.events.iter().find(|one| one.id == event);
                let value = value.wrapping_add(more.map_or(0, |one| counted(one, judge, cpus)));
                let error = value.wrapping_sub(guest.ideal.counter(n)) & guest.mask(n);
                // While its live copy is on the CPU, what is in memory is stale: for how long says nothing. What is
                // UNKNOWN becomes what is read, unless it is the same.
                form.field("class", copies.class(value));
                let exact = guest.certain(n) && (guest.loaded.is_none() || event != NONE);
                form.field("memory", if exact { error } else { (error != 0).into() });
            }
        }
        put_ids(form, &guest.events);
        form.leave();
    }
    put_ids(form, &judge.events);
    for (id, event) in &judge.events.open {
        let perf = copies.events.iter().find(|one| one.id == *id);
        put_event(form, event, perf, machine, judge);
    }
}

fn put_cpu(form: &mut Form, cpu: &Cpu, copies: &Copies<'_>) {
    form.enter("cpu");
    let delay = cpu.registers().features().pmi_delay;
    let arrives = if cpu.arrives() == NEVER { NEVER } else { cpu.arrives().saturating_sub(cpu.now()) };
    form.field("arrives", arrives);
    let line = cpu.registers().interrupt();
    form.field("raised", if line { late(cpu.raised(), cpu.now(), delay) } else { 0 });
    for n in bits(cpu.registers().implemented()) {
        form.field("class", copies.class(cpu.counter(n)));
    }
    form.leave();
}

/// The host's counters are as its ideal has them where it has enabled them: what is not its perf writes before.
fn put_host(form: &mut Form, host: &Host, cpu: &Cpu, copies: &Copies<'_>) {
    form.enter("host");
    let (ideal, delay) = (&host.ideal, cpu.registers().features().pmi_delay);
    let line = ideal.registers().interrupt();
    form.field("raised", if line { late(ideal.raised(), ideal.now(), delay) } else { 0 });
    form.field("selected", host.selected.is_some().into());
    for n in bits(host.enabled()) {
        form.field("class", copies.class(ideal.counter(n)));
        form.field("error", cpu.counter(n).wrapping_sub(ideal.counter(n)));
    }
    form.leave();
}

fn put_guest(form: &mut Form, guest: &Guest, judge: &Judge, cpus: &[Cpu], copies: &Copies<'_>) {
    let delay = cpus.iter().map(|cpu| cpu.registers().features().pmi_delay).max().unwrap_or(0);
    for raised in guest.raised.times() {
        form.field("raised", late(raised, guest.ideal.now(), delay));
    }
    for n in bits(guest.ideal.registers().implemented()) {
        let ideal = guest.ideal.counter(n);
        form.field("class", copies.class(ideal));
        for (cpu, host) in cpus.iter().zip(&judge.hosts) {
            if cpu.registers().implemented() >> n & 1 == 0 {
                continue;
            }
            let error = cpu.counter(n).wrapping_sub(ideal) & guest.mask(n);
            // What is another's, or nobody's: is it what this guest could read there and lose nothing by?
            let own = guest.certain(n) && host.owners[n] == Party::Guest(guest.context);
            form.field("error", if own { error } else { (error != 0).into() });
        }
    }
}

/// The rank of an event's id among those that are open.
fn rank(events: &Events, id: u64) -> u64 {
    events.open.keys().position(|&open| open == id).map_or(NONE, |rank| rank as u64)
}

fn put_ids(form: &mut Form, events: &Events) {
    for event in events.open.values() {
        form.field("leader", rank(events, event.leader));
        form.field("counter", event.on.map_or(NONE, |_| event.counter as u64));
    }
    for cpu in &events.cpus {
        let OnCpu { events: on, full, turn, .. } = cpu;
        form.field("full", (full == turn).into());
        for (n, id) in on.iter().enumerate().filter_map(|(n, id)| Some((n, (*id)?))) {
            form.field("on", (n as u64) << 32 | rank(events, id) & 0xffff_ffff);
        }
    }
}

/// What perf would find an event's count to be, were its counter read now.
fn counted(perf: &PerfEvent, judge: &Judge, cpus: &[Cpu]) -> u64 {
    let event = judge.events.open.get(&perf.id);
    let on = event.and_then(|event| Some((event, cpus.get(event.on?)?)));
    let (Some(previous), Some((event, cpu))) = (perf.previous, on) else { return perf.count };
    let n = event.counter;
    let pair = event.counters(n, !cpu.registers().features().has(PMUV3P5)) != 1 << n && n < CYCLE;
    let raw = if pair { cpu.counter(n) << 32 | cpu.counter(n - 1) } else { cpu.counter(n) };
    perf.count.wrapping_add(raw.wrapping_sub(previous) & perf.mask)
}

/// What perf has of an event's count and times more than it should have.
fn put_event(form: &mut Form, event: &Event, perf: Option<&PerfEvent>, machine: &Observed, judge: &Judge) {
    let place = event.on.unwrap_or(event.home);
    let Some(cpu) = machine.cpus().get(place) else { return };
    let running = cpu.running().unwrap_or(BEFORE_BOOT);
    let at = At { cpu, id: cpu.id(), world: machine.world(), running };
    let turn = judge.events.cpus[place].turn;
    let mut event = event.clone();
    let ideal = event.counted_by(turn, &at);
    form.enter("event");
    form.field("runs", event.from.is_some().into());
    form.field("astray", event.astray_by(turn, &at));
    form.field("strays", event.astray_from.is_some().into());
    if event.on.is_none() {
        form.field("read", ideal.wrapping_sub(event.read.0));
        form.field("possibly", event.read.1.wrapping_sub(event.read.0));
    }
    if let Some(perf) = perf {
        form.field("error", counted(perf, judge, machine.cpus()).wrapping_sub(ideal));
        let since = event.times.map(|(enabled, running)| {
            let enabled = if event.on.is_some() { perf.times.0.wrapping_sub(enabled) } else { 0 };
            perf.times.1.wrapping_sub(running).wrapping_sub(enabled)
        });
        // KVM does not ask for them.
        let asked = !event.has(attribute::OF_KVM);
        form.field("times", since.filter(|_| asked && event.steady).unwrap_or(NONE));
        form.field("beyond", (asked && perf.times.1 > perf.times.0).into());
    }
    form.leave();
}
