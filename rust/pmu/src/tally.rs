//! Time and truth: how often each event happens, and how often it has happened.
//!
//! Event *e* of a [`Profile`] happens at `rate` per cycle, in Q32.32. A [`Tally`] (one context at
//! one exception level) carries the sum of rate times cycles with its fraction, so an event has
//! happened ⌊sum⌋ times, whichever way the cycles were divided. Within one profile the sum is
//! `total + rate * pending`; it is folded into `total` only when the profile changes.

use serde::{Deserialize, Serialize};

use crate::registers::{CHAIN, CPU_CYCLES, SW_INCR};

/// One occurrence per cycle.
pub const ONE: u64 = 1 << 32;
/// Bits of an occurrence's fraction.
pub const FRACTION: u64 = ONE - 1;
/// Rates are below this: 65,536 occurrences per cycle.
pub const RATE_LIMIT: u64 = 1 << 48;
/// No CPU.
pub const NOWHERE: usize = usize::MAX;

/// Whose occurrences, by context and exception level; the bit of `TruthScope` in the port.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Class {
    /// Guests at EL0.
    GuestEl0 = 0,
    /// Guests at EL1.
    GuestEl1 = 1,
    /// The host at EL0.
    HostEl0 = 2,
    /// The host at EL2.
    HostEl2 = 3,
}

/// Classes.
pub const CLASSES: usize = 4;

/// The event numbers that are tallied, in ascending order; `CPU_CYCLES` always is.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Events(Vec<u16>);

impl Events {
    /// The events in `numbers`, and `CPU_CYCLES`.
    #[must_use]
    pub fn new(numbers: &[u16]) -> Self {
        let mut sorted = numbers.to_vec();
        sorted.push(CPU_CYCLES);
        sorted.sort_unstable();
        sorted.dedup();
        Self(sorted)
    }

    /// Position of an event.
    #[inline]
    #[must_use]
    pub fn index(&self, event: u16) -> Option<usize> {
        self.0.binary_search(&event).ok()
    }

    /// Their numbers.
    #[must_use]
    pub fn numbers(&self) -> &[u16] {
        &self.0
    }

    /// Number of events.
    #[must_use]
    pub fn count(&self) -> usize {
        self.0.len()
    }

    /// `PMCEID<half>_EL0` of a CPU that implements these events, `SW_INCR` and `CHAIN`.
    #[must_use]
    pub fn pmceid(&self, half: u16) -> u64 {
        let mut bits = 0;
        for &event in self.0.iter().chain(&[SW_INCR, CHAIN]) {
            for (first, shift) in [(0x0, 0), (0x4000, 32)] {
                let first = first + 32 * half;
                if (first..first + 32).contains(&event) {
                    bits |= 1 << (event - first + shift);
                }
            }
        }
        bits
    }
}

/// How fast each tallied event happens.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Profile {
    /// Occurrences per cycle in Q32.32, in the order of [`Events`].
    pub(crate) rates: Vec<u64>,
}

/// What has happened in one context at one exception level.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Tally {
    /// Whose it is.
    pub(crate) class: Class,
    /// The profile of the pending cycles.
    pub(crate) profile: usize,
    /// Cycles run under `profile` that are not in `totals`, up to when it was last left.
    pub(crate) pending: u64,
    /// Occurrences before those, Q96.32.
    pub(crate) totals: Vec<u128>,
    /// The CPU that it ran on last.
    home: usize,
    /// Occurrences when it came there.
    at_arrival: Vec<u64>,
}

impl Tally {
    fn new(class: Class, events: usize) -> Self {
        Self {
            class,
            profile: 0,
            pending: 0,
            totals: vec![0; events],
            home: NOWHERE,
            at_arrival: vec![0; events],
        }
    }

    /// Occurrences of the event at `index` when `pending` cycles have passed under the profile.
    fn occurrences(&self, profiles: &[Profile], index: usize, pending: u64) -> u64 {
        let rate = profiles.get(self.profile).map_or(0, |profile| profile.rates[index]);
        (self.totals[index].wrapping_add(u128::from(rate) * u128::from(pending)) >> 32) as u64
    }
}

/// What all CPUs share: events, profiles, tallies.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct World {
    /// Events.
    pub(crate) events: Events,
    /// Profiles, by their numbers.
    pub(crate) profiles: Vec<Profile>,
    /// Tallies, by their numbers.
    pub(crate) tallies: Vec<Tally>,
    /// Occurrences per CPU, class and event of tallies that have since moved elsewhere.
    moved: Vec<[Vec<u64>; CLASSES]>,
}

impl World {
    /// No profiles and no tallies yet.
    #[must_use]
    pub fn new(events: Events, cpus: usize) -> Self {
        let zeros = || vec![0; events.count()];
        let moved = (0..cpus).map(|_| [zeros(), zeros(), zeros(), zeros()]).collect();
        Self { events, profiles: Vec::new(), tallies: Vec::new(), moved }
    }

    /// Adds a profile of so many occurrences per cycle in Q32.32, in the order of [`Events`].
    pub fn add_profile(&mut self, rates: Vec<u64>) -> usize {
        self.profiles.push(Profile { rates });
        self.profiles.len() - 1
    }

    /// Adds a tally.
    pub fn add_tally(&mut self, class: Class) -> usize {
        self.tallies.push(Tally::new(class, self.events.count()));
        self.tallies.len() - 1
    }

    /// A tally begins to run on `cpu` under `profile`.
    #[inline]
    pub fn begin(&mut self, tally: usize, cpu: usize, profile: usize) {
        let home = self.tallies[tally].home;
        if home != cpu {
            self.move_to(tally, cpu);
        }
        if self.tallies[tally].profile != profile {
            self.fold(tally);
            self.tallies[tally].profile = profile;
        }
    }

    fn fold(&mut self, tally: usize) {
        let tally = &mut self.tallies[tally];
        if let Some(profile) = self.profiles.get(tally.profile) {
            for (total, &rate) in tally.totals.iter_mut().zip(&profile.rates) {
                *total = total.wrapping_add(u128::from(rate) * u128::from(tally.pending));
            }
        }
        tally.pending = 0;
    }

    fn move_to(&mut self, tally: usize, cpu: usize) {
        self.fold(tally);
        let tally = &mut self.tallies[tally];
        for (index, (total, at_arrival)) in tally.totals.iter().zip(&mut tally.at_arrival).enumerate() {
            let occurred = (total >> 32) as u64;
            if let Some(moved) = self.moved.get_mut(tally.home) {
                let sum = &mut moved[tally.class as usize][index];
                *sum = sum.wrapping_add(occurred.wrapping_sub(*at_arrival));
            }
            *at_arrival = occurred;
        }
        tally.home = cpu;
    }

    /// Occurrences in a tally. `running` is its pending cycles if it runs.
    #[must_use]
    pub fn occurred(&self, tally: usize, index: usize, running: Option<u64>) -> u64 {
        let tally = &self.tallies[tally];
        tally.occurrences(&self.profiles, index, running.unwrap_or(tally.pending))
    }

    /// Occurrences on a CPU in the classes of `scope` (bit `1 << class`). `running` is the tally
    /// that runs there with its pending cycles.
    #[must_use]
    pub fn on_cpu(&self, cpu: usize, scope: u32, index: usize, running: Option<(usize, u64)>) -> u64 {
        let mut sum = 0u64;
        for (class, moved) in self.moved[cpu].iter().enumerate() {
            if scope >> class & 1 != 0 {
                sum = sum.wrapping_add(moved[index]);
            }
        }
        for (id, tally) in self.tallies.iter().enumerate() {
            if tally.home == cpu && scope >> tally.class as u32 & 1 != 0 {
                let occurred = self.occurred(id, index, running.filter(|r| r.0 == id).map(|r| r.1));
                sum = sum.wrapping_add(occurred.wrapping_sub(tally.at_arrival[index]));
            }
        }
        sum
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const EVENT: u16 = 0x08;

    fn world(rates: &[u64]) -> World {
        let mut world = World::new(Events::new(&[EVENT]), 2);
        for &rate in rates {
            world.add_profile(vec![rate, ONE]);
        }
        world.add_tally(Class::GuestEl1);
        world
    }

    fn stay(world: &mut World, cpu: usize, profile: usize, cycles: u64) {
        world.begin(0, cpu, profile);
        world.tallies[0].pending += cycles;
    }

    fn happened(world: &World) -> u64 {
        world.occurred(0, 0, None)
    }

    #[test]
    fn cycles_are_always_tallied() {
        let events = Events::new(&[EVENT, EVENT, 0x03]);
        assert_eq!(events.count(), 3);
        assert_eq!(events.index(CPU_CYCLES), Some(2));
        assert_eq!(events.index(0x10), None);
    }

    #[test]
    fn pmceid_says_which_events_are_implemented() {
        let events = Events::new(&[0x00, 0x08, 0x24, 0x4005]);
        assert_eq!(events.pmceid(0), 1 | 1 << 0x08 | 1 << 0x11 | 1 << 0x1e | 1 << (32 + 5));
        assert_eq!(events.pmceid(1), 1 << 4);
    }

    #[test]
    fn a_change_of_profile_loses_no_fraction() {
        let third = ONE / 3 + 1;
        let mut world = world(&[third, 2 * third]);
        for _ in 0..300 {
            stay(&mut world, 0, 0, 1);
            stay(&mut world, 0, 1, 1);
        }
        assert_eq!(happened(&world), 300);
    }

    #[test]
    fn a_migration_loses_no_fraction_and_each_cpu_has_its_share() {
        let mut world = world(&[ONE / 4]);
        stay(&mut world, 0, 0, 6);
        stay(&mut world, 1, 0, 6);
        assert_eq!(happened(&world), 3);
        let on = |cpu| world.on_cpu(cpu, 1 << Class::GuestEl1 as u32, 0, None);
        assert_eq!((on(0), on(1)), (1, 2), "the third happened in the second stay, begun in the first");
        assert_eq!(world.on_cpu(0, 1 << Class::HostEl2 as u32, 0, None), 0);
    }
}
