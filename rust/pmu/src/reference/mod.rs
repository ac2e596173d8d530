//! The reference: the same PMU, stepped cycle by cycle as the Arm ARM's pseudocode does it.
//!
//! It shares with [`crate::cpu`] the registers' stored bits and the access rules, which have
//! vectors of their own, and nothing about counting, overflow, chaining, freezing, interrupts or time.

mod accesses;

use crate::feature::{Features, PMUV3P1, PMUV3P5, PMUV3P7};
use crate::field::{hcr_el2, mdcr_el2, pmcr, pmevtyper};
use crate::registers::{CHAIN, COUNTERS, CPU_CYCLES, CYCLE, INST_RETIRED, INSTRUCTION, Registers, SW_INCR};

/// What has happened in one context at one exception level.
#[derive(Clone, Debug, Default)]
pub struct Happened {
    fraction: Vec<u64>,
    /// Occurrences by event.
    pub occurred: Vec<u64>,
}

/// One CPU, stepped.
pub struct Reference {
    /// Registers.
    pub registers: Registers,
    /// Counters by their bit.
    pub value: [u64; COUNTERS],
    /// Cycles.
    pub now: u64,
    events: Vec<u16>,
    profiles: Vec<Vec<u64>>,
    /// By tally.
    pub happened: Vec<Happened>,
    running: Option<(usize, u8, usize)>,
    elapsed: u64,
    /// How often each event happens in the cycle that is being stepped.
    values: Vec<u64>,
    /// Since when the interrupt line has been high.
    high_since: Option<u64>,
    /// The interrupt has been acknowledged and not been deactivated.
    active: bool,
}

fn set(value: u64, bit: u64) -> bool {
    value & bit != 0
}

impl Reference {
    /// A CPU after a reset. `events` are tallied; `profiles` give their rates.
    #[must_use]
    pub fn new(features: Features, events: Vec<u16>, profiles: Vec<Vec<u64>>, tallies: usize) -> Self {
        let happened = Happened { fraction: vec![0; events.len()], occurred: vec![0; events.len()] };
        Self {
            registers: Registers::new(features),
            value: [0; COUNTERS],
            now: 0,
            values: vec![0; events.len()],
            events,
            profiles,
            happened: vec![happened; tallies],
            running: None,
            elapsed: 0,
            high_since: None,
            active: false,
        }
    }

    /// Switches what runs.
    pub fn set_running(&mut self, tally: usize, el: u8, guest: bool, profile: usize) {
        self.running = Some((tally, el, profile));
        let hcr = self.registers.controls.hcr_el2 & !hcr_el2::TGE;
        let tge = if guest { 0 } else { hcr_el2::TGE };
        self.registers.write_hcr_el2(hcr | hcr_el2::E2H | tge);
    }

    fn counters(&self) -> usize {
        usize::from(self.registers.features.counters)
    }

    fn first_range(&self, n: usize) -> bool {
        n >= CYCLE || n < usize::from(self.registers.hpmn())
    }

    // J1.3, ShouldPMUFreeze and CheckPMUOverflowCondition.
    fn should_freeze(&self, first: bool) -> bool {
        let mut overflow = false;
        for n in 0..self.counters() {
            overflow |= self.first_range(n) == first && set(self.registers.pmovs, 1 << n);
        }
        if first && self.registers.features.choices.freeze_on_cycle_counter {
            overflow |= set(self.registers.pmovs, 1 << CYCLE);
        }
        if first && self.registers.features.icntr {
            overflow |= set(self.registers.pmovs, 1 << INSTRUCTION);
        }
        overflow
    }

    // J1.3, CountPMUEvents in Non-secure state.
    fn counts(&self, n: usize) -> bool {
        let Some((_, el, _)) = self.running else { return false };
        let registers = &self.registers;
        let features = &registers.features;
        let mdcr = registers.controls.mdcr_el2;
        let first = self.first_range(n);
        let global = if first { set(registers.pmcr, pmcr::E) } else { set(mdcr, mdcr_el2::HPME) };
        let mut enabled = global && set(registers.pmcnten, 1 << n);
        let mut prohibited = el == 2 && features.has(PMUV3P1) && first && set(mdcr, mdcr_el2::HPMD);
        let freezing = if first { set(registers.pmcr, pmcr::FZO) } else { set(mdcr, mdcr_el2::HPMFZO) };
        let mut frozen = features.has(PMUV3P7) && freezing && self.should_freeze(first);
        if (prohibited || frozen) && n == CYCLE {
            enabled = enabled && !set(registers.pmcr, pmcr::DP);
            prohibited = false;
            frozen = false;
        }
        if features.has(PMUV3P5) && n == CYCLE && el == 2 && set(mdcr, mdcr_el2::HCCD) {
            prohibited = true;
        }
        let filter = registers.filter[n];
        let bit = |bit: u64| set(filter, bit);
        let filtered = match el {
            0 => bit(pmevtyper::U) != (features.el3 && bit(pmevtyper::NSU)),
            1 => bit(pmevtyper::P) != (features.el3 && bit(pmevtyper::NSK)),
            _ => !bit(pmevtyper::NSH),
        };
        enabled && !prohibited && !filtered && !frozen
    }

    // J1.1, AArch64.IncrementEventCounter.
    fn increment_event_counter(&mut self, n: usize, increment: u64) -> bool {
        let counts = self.registers.count_value(n, increment);
        let old = u128::from(self.value[n]);
        let new = old + u128::from(counts);
        let mut long = false;
        if self.registers.features.has(PMUV3P5) {
            self.value[n] = new as u64;
            long = if self.first_range(n) {
                set(self.registers.pmcr, pmcr::LP)
            } else {
                set(self.registers.controls.mdcr_el2, mdcr_el2::HLP)
            };
        } else {
            self.value[n] = u64::from(new as u32);
        }
        let overflow = if long { 64 } else { 32 };
        if old >> overflow == new >> overflow {
            return false;
        }
        self.registers.pmovs |= 1 << n;
        let same_range = n + 1 < CYCLE && self.first_range(n) == self.first_range(n + 1);
        n.is_multiple_of(2)
            && n + 1 < self.counters()
            && !long
            && (same_range || self.registers.features.choices.chain_across_ranges)
            && self.registers.event(n + 1) == CHAIN
    }

    // One event for counter n; a CHAIN event that it causes is processed in the same cycle.
    fn event(&mut self, n: usize, increment: u64) {
        if self.counts(n) && self.increment_event_counter(n, increment) {
            self.event(n + 1, 1);
        }
    }

    /// One cycle.
    pub fn step(&mut self) {
        self.now += 1;
        let Some((tally, _, profile)) = self.running else { return };
        let happened = &mut self.happened[tally];
        let mut values = std::mem::take(&mut self.values);
        for (e, &rate) in self.profiles[profile].iter().enumerate() {
            let sum = happened.fraction[e] + (rate & 0xffff_ffff);
            let value = (rate >> 32) + (sum >> 32);
            happened.fraction[e] = sum & 0xffff_ffff;
            happened.occurred[e] += value;
            values[e] = value;
        }
        let instructions = self.value_of(INST_RETIRED, &values);
        if self.registers.features.icntr && self.counts(INSTRUCTION) {
            let (new, carry) = self.value[INSTRUCTION].overflowing_add(instructions);
            self.value[INSTRUCTION] = new;
            self.registers.pmovs |= u64::from(carry) << INSTRUCTION;
        }
        for n in 0..self.counters() {
            let increment = match self.registers.event(n) {
                SW_INCR | CHAIN => 0,
                CPU_CYCLES => 1,
                event => self.value_of(event, &values),
            };
            self.event(n, increment);
        }
        self.increment_cycle_counter();
        self.values = values;
        self.watch_line();
    }

    /// In WFI up to `until`, or to the arrival of an interrupt.
    pub fn idle(&mut self, until: u64) {
        while self.now < until && !self.interrupt() {
            self.wait();
        }
    }

    // One cycle.
    fn wait(&mut self) {
        self.now += 1;
        if self.running.is_some() && self.registers.features.pmccntr_in_wfi {
            self.increment_cycle_counter();
            self.watch_line();
        }
    }

    fn value_of(&self, event: u16, values: &[u64]) -> u64 {
        self.events.iter().position(|&e| e == event).map_or(0, |e| values[e])
    }

    // J1.1, AArch64.IncrementCycleCounter.
    fn increment_cycle_counter(&mut self) {
        if !self.counts(CYCLE) {
            return;
        }
        let aarch32 = self.registers.features.aarch32;
        let long = !aarch32 || set(self.registers.pmcr, pmcr::LC);
        if aarch32 && !long && set(self.registers.pmcr, pmcr::D) {
            self.elapsed += 1;
            if !self.elapsed.is_multiple_of(64) {
                return;
            }
        }
        let old = u128::from(self.value[CYCLE]);
        let overflow = if long { 64 } else { 32 };
        self.value[CYCLE] = (old + 1) as u64;
        if old >> overflow != (old + 1) >> overflow {
            self.registers.pmovs |= 1 << CYCLE;
        }
    }

    // J1.3, CheckPMUOverflowCondition for the interrupt.
    /// Level of the interrupt line.
    fn line(&self) -> bool {
        let gate = |n: usize| {
            if self.first_range(n) {
                set(self.registers.pmcr, pmcr::E)
            } else {
                set(self.registers.controls.mdcr_el2, mdcr_el2::HPME)
            }
        };
        let raised = |n: usize| set(self.registers.pmovs & self.registers.pminten, 1 << n) && gate(n);
        (0..self.counters()).any(raised)
            || raised(CYCLE)
            || self.registers.features.icntr && raised(INSTRUCTION)
    }

    /// The line may have changed.
    fn watch_line(&mut self) {
        let now = self.now;
        self.high_since = self.line().then(|| self.high_since.unwrap_or(now));
    }

    fn pending(&self) -> bool {
        self.high_since.is_some_and(|since| self.now - since >= self.registers.features.pmi_delay)
    }

    /// Has the interrupt reached the CPU, and is not active?
    #[must_use]
    pub fn interrupt(&self) -> bool {
        self.pending() && !self.active
    }

    /// An interrupt that is pending becomes active, and so stays if its level does.
    pub fn acknowledge(&mut self) {
        self.active |= self.pending();
    }

    /// It is no longer active.
    pub fn deactivate(&mut self) {
        self.active = false;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::access::Outcome;
    use crate::register::{Kind, Register};
    use crate::tally::ONE;

    const EVENT: u16 = 0x03;
    const NSH: u64 = pmevtyper::NSH;

    /// At EL2; `EVENT` three times in two cycles.
    pub(super) fn reference(features: Features) -> Reference {
        let mut reference = Reference::new(features, vec![EVENT], vec![vec![3 * ONE / 2]], 1);
        reference.set_running(0, 2, false, 0);
        reference
    }

    fn counter_of(reference: &mut Reference, n: u8, event: u16, value: u64) {
        reference.access(Register::pmevtyper(n), 2, Some(NSH | u64::from(event)));
        reference.access(Register::pmevcntr(n), 2, Some(value));
        reference.access(Register::of(Kind::Pmcntenset), 2, Some(1 << n));
    }

    pub(super) fn write(reference: &mut Reference, kind: Kind, value: u64) {
        assert_eq!(reference.access(Register::of(kind), 2, Some(value)).0, Outcome::Executed);
    }

    fn steps(reference: &mut Reference, cycles: u64) {
        (0..cycles).for_each(|_| reference.step());
    }

    #[test]
    fn an_event_happens_as_often_as_its_rate_says_and_its_counter_with_it() {
        let mut reference = reference(Features::default());
        counter_of(&mut reference, 0, EVENT, 0);
        write(&mut reference, Kind::Pmcr, pmcr::E);
        let values: Vec<u64> = (0..4)
            .map(|_| {
                reference.step();
                reference.value[0]
            })
            .collect();
        assert_eq!(values, [1, 3, 4, 6]);
        assert_eq!(reference.happened[0].occurred, [6]);
    }

    #[test]
    fn a_cycle_s_counters_come_in_their_order() {
        let features = Features { pmuver: PMUV3P7, ..Features::default() };
        let mut reference = reference(features);
        for n in 0..3 {
            counter_of(&mut reference, n, CPU_CYCLES, if n == 1 { u64::from(u32::MAX) - 1 } else { 0 });
        }
        write(&mut reference, Kind::Pmcr, pmcr::E | pmcr::FZO);
        steps(&mut reference, 5);
        assert_eq!(reference.value[..3], [2, 1 << 32, 1], "frozen by the one before");
    }

    #[test]
    fn an_overflow_chains_in_its_cycle_once() {
        let mut reference = reference(Features::default());
        counter_of(&mut reference, 0, EVENT, u64::from(u32::MAX));
        counter_of(&mut reference, 1, CHAIN, 7);
        write(&mut reference, Kind::Pmcr, pmcr::E);
        reference.step();
        assert_eq!((reference.value[1], reference.registers.pmovs), (8, 1));
        steps(&mut reference, 10);
        assert_eq!(reference.value[1], 8);
    }

    #[test]
    fn each_range_has_its_own_gate_to_the_interrupt() {
        let mut reference = reference(Features::default());
        write(&mut reference, Kind::MdcrEl2, 1);
        write(&mut reference, Kind::Pmintenset, 0b11);
        let mut raised = |flags, pmcr, mdcr| {
            reference.registers.pmovs = flags;
            write(&mut reference, Kind::Pmcr, pmcr);
            write(&mut reference, Kind::MdcrEl2, 1 | mdcr);
            reference.interrupt()
        };
        assert_eq!([raised(0b01, pmcr::E, 0), raised(0b01, 0, mdcr_el2::HPME)], [true, false]);
        assert_eq!([raised(0b10, pmcr::E, 0), raised(0b10, 0, mdcr_el2::HPME)], [false, true]);
        assert!(!raised(0b100, pmcr::E, mdcr_el2::HPME), "not enabled");
    }

    #[test]
    fn the_divider_counts_what_the_cycle_counter_would() {
        let mut reference = reference(Features { aarch32: true, ..Features::default() });
        write(&mut reference, Kind::Pmccfiltr, NSH);
        write(&mut reference, Kind::Pmcntenset, 1 << CYCLE);
        write(&mut reference, Kind::Pmcr, pmcr::E | pmcr::D);
        steps(&mut reference, 63);
        write(&mut reference, Kind::Pmcr, pmcr::D);
        steps(&mut reference, 100);
        assert_eq!(reference.value[CYCLE], 0);
        write(&mut reference, Kind::Pmcr, pmcr::E | pmcr::D);
        reference.step();
        assert_eq!(reference.value[CYCLE], 1);
    }
}
