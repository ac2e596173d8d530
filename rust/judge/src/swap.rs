//! What the host's software sees amid vcpu_load and vcpu_put: I9.

use pmu::cpu::Cpu;
use pmu::register::{Kind as Of, Register};
use pmu::registers::CYCLE;
use serde::{Deserialize, Serialize};

use crate::finding::{Invariant, Kind, Party};
use crate::host::Host;
use crate::{At, Broken, HOST_PMU_IRQ, Judge};

/// Registers that are compared: those of counters by number, before them the enables.
const ENABLES: [Of; 2] = [Of::Pmcntenset, Of::Pmintenset];

/// A vcpu_load or vcpu_put under way.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Swap {
    /// What was not the host's when it began, one bit each.
    before: u64,
    /// What the host's software has found amid it that was not as it should be.
    seen: Vec<Seen>,
}

#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
struct Seen {
    place: usize,
    cycle: u64,
    expected: u64,
    actual: u64,
}

fn register(place: usize) -> Register {
    match place {
        0 | 1 => Register::of(ENABLES[place]),
        _ if place - ENABLES.len() == CYCLE => Register::of(Of::Pmccntr),
        _ => Register::pmevcntr((place - ENABLES.len()) as u8),
    }
}

/// What of the host's enabled counters is not on the CPU: place, what should be there, what is.
fn differing<'a>(host: &'a Host, cpu: &'a Cpu) -> impl Iterator<Item = (usize, u64, u64)> + 'a {
    let enabled = host.enabled();
    let counters = (0..=CYCLE).filter(move |n| enabled >> n & 1 != 0).map(|n| n + ENABLES.len());
    let places = (0..ENABLES.len()).filter(move |_| enabled != 0).chain(counters);
    places.filter_map(move |place| {
        let mask = if place < ENABLES.len() { enabled } else { !0 };
        let expected = host.ideal.read(register(place), 2) & mask;
        let actual = cpu.read(register(place), 2) & mask;
        (expected != actual).then_some((place, expected, actual))
    })
}

impl Judge {
    /// vcpu_load or vcpu_put begins.
    pub(crate) fn swap_begins(&mut self, at: &At<'_>) {
        let host = &mut self.hosts[at.id];
        let before = differing(host, at.cpu).fold(0, |before, (place, ..)| before | 1 << place);
        host.swap = Some(Swap { before, seen: Vec::new() });
    }

    /// Software of the host's is entered. Amid a swap it should find its counters as before it.
    pub(crate) fn host_entered(&mut self, code: u16, at: &At<'_>) {
        if code == HOST_PMU_IRQ {
            self.host_interrupted(at);
        }
        let host = &mut self.hosts[at.id];
        let Some(mut swap) = host.swap.take() else { return };
        for (place, expected, actual) in differing(host, at.cpu) {
            let known = swap.before >> place & 1 != 0 || swap.seen.iter().any(|seen| seen.place == place);
            if !known {
                swap.seen.push(Seen { place, cycle: at.cpu.now(), expected, actual });
            }
        }
        host.swap = Some(swap);
        if host.enabled() != 0 {
            self.findings.premise(Invariant::I9);
        }
    }

    /// The host's perf writes: what it has found there before is no longer of interest.
    #[inline]
    pub(crate) fn rewritten(&mut self, written: Register, at: &At<'_>) {
        if let Some(swap) = self.hosts[at.id].swap.as_mut().filter(|swap| !swap.seen.is_empty()) {
            let counter = Host::counter(at.cpu, written);
            swap.seen.retain(|seen| match written.kind() {
                Of::Pmcntenset | Of::Pmcntenclr => seen.place != 0,
                Of::Pmintenset | Of::Pmintenclr => seen.place != 1,
                _ => counter.is_none_or(|n| seen.place != n + ENABLES.len()),
            });
        }
    }

    /// It has ended: what is the host's again was half swapped when its software saw it. What is still not is no matter
    /// of when it was looked at.
    pub(crate) fn swap_ends(&mut self, context: usize, at: &At<'_>) {
        let Some(swap) = self.hosts[at.id].swap.take() else { return };
        if swap.seen.is_empty() {
            return;
        }
        let still =
            differing(&self.hosts[at.id], at.cpu).fold(0_u64, |still, (place, ..)| still | 1 << place);
        for Seen { place, cycle, expected, actual } in swap.seen {
            if still >> place & 1 == 0 {
                let broken = Broken::new(Invariant::I9, Kind::HalfSwapped);
                let (register, other, since) = (Some(register(place)), Party::Guest(context), Some(cycle));
                self.violated(Broken { register, other, expected, actual, since, ..broken }, at);
            }
        }
    }
}
