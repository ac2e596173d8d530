//! The reference: the same PMU, stepped cycle by cycle as the Arm ARM's pseudocode does it.
//!
//! It shares with [`crate::cpu`] the registers' stored bits and the access rules, which have
//! vectors of their own, and nothing about counting, overflow, chaining, freezing, interrupts or time.

use crate::access::{Access, Outcome, decide};
use crate::feature::{Features, PMUV3P1, PMUV3P5, PMUV3P7};
use crate::field::{hcr_el2, mdcr_el2, pmcr, pmecr, pmevtyper};
use crate::register::{Kind, Register};
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
    #[must_use]
    pub fn interrupt(&self) -> bool {
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

    /// An access of what runs: where it goes, and what a read yields.
    pub fn access(&mut self, register: Register, el: u8, write: Option<u64>) -> (Outcome, u64) {
        let registers = &self.registers;
        let accessible = registers.accessible(1);
        let (outcome, _) = decide(&Access::new(
            register,
            el,
            write.is_some(),
            &registers.controls,
            &registers.features,
            accessible,
        ));
        if outcome != Outcome::Executed {
            return (outcome, 0);
        }
        match write {
            None => (outcome, self.read(register, el)),
            Some(value) => {
                self.write(register, el, value);
                (outcome, 0)
            }
        }
    }

    fn read(&self, register: Register, el: u8) -> u64 {
        let registers = &self.registers;
        let controls = &registers.controls;
        let masked = |bits: u64| bits & registers.read_mask(el);
        match register.kind() {
            Kind::Pmcr => registers.read_pmcr(el),
            Kind::Pmcntenset | Kind::Pmcntenclr => masked(registers.pmcnten),
            Kind::Pmovsset | Kind::Pmovsclr => masked(registers.pmovs),
            Kind::Pmintenset | Kind::Pmintenclr => masked(registers.pminten),
            Kind::Pmselr => u64::from(controls.sel),
            Kind::Pmceid0 => registers.features.pmceid0.unwrap_or(0),
            Kind::Pmceid1 => registers.features.pmceid1.unwrap_or(0),
            Kind::Pmccntr => self.value[CYCLE],
            Kind::Pmicntr => self.value[INSTRUCTION],
            Kind::Pmevcntr => self.value[usize::from(register.index())],
            Kind::Pmxevcntr => self.value[usize::from(controls.sel)],
            Kind::Pmevtyper => registers.read_filter(usize::from(register.index())),
            Kind::Pmxevtyper => registers.read_filter(usize::from(controls.sel)),
            Kind::Pmccfiltr => registers.read_filter(CYCLE),
            Kind::Pmicfiltr => registers.read_filter(INSTRUCTION),
            Kind::Pmuserenr => controls.pmuserenr,
            Kind::Pmuacr => registers.read_pmuacr(el),
            Kind::Pmecr => registers.pmecr,
            Kind::Pmmir => registers.features.pmmir,
            Kind::MdcrEl2 => controls.mdcr_el2,
            Kind::HcrEl2 => controls.hcr_el2,
            Kind::Hdfgrtr => controls.hdfgrtr,
            Kind::Hdfgwtr => controls.hdfgwtr,
            Kind::Hdfgrtr2 => controls.hdfgrtr2,
            Kind::Hdfgwtr2 => controls.hdfgwtr2,
            Kind::MdcrEl3 => controls.mdcr_el3,
            Kind::IdAa64dfr0 => registers.id_aa64dfr0(),
            Kind::IdAa64dfr1 => registers.id_aa64dfr1(),
            Kind::Pmswinc | Kind::Pmzr | Kind::IccSgi1r => 0,
        }
    }

    fn write(&mut self, register: Register, el: u8, value: u64) {
        let sel = usize::from(self.registers.controls.sel);
        let index = usize::from(register.index());
        let masked = value & self.registers.write_mask(el, false);
        let registers = &mut self.registers;
        match register.kind() {
            Kind::Pmcr => {
                for n in 0..usize::from(registers.accessible(el)) {
                    if set(value, pmcr::P) {
                        self.value[n] = 0;
                    }
                }
                if set(value, pmcr::C) {
                    self.value[CYCLE] = 0;
                }
                registers.write_pmcr(value);
            }
            Kind::Pmcntenset => registers.pmcnten |= masked,
            Kind::Pmcntenclr => registers.pmcnten &= !masked,
            Kind::Pmovsset => registers.pmovs |= masked,
            Kind::Pmovsclr => registers.pmovs &= !masked,
            Kind::Pmintenset => registers.pminten |= masked,
            Kind::Pmintenclr => registers.pminten &= !masked,
            Kind::Pmselr => registers.controls.sel = (value & 31) as u8,
            Kind::Pmccntr => self.value[CYCLE] = value,
            Kind::Pmicntr => self.value[INSTRUCTION] = value,
            Kind::Pmevcntr => self.value[index] = value & registers.counter_mask(index),
            Kind::Pmxevcntr => self.value[sel] = value & registers.counter_mask(sel),
            Kind::Pmevtyper => registers.write_filter(index, value),
            Kind::Pmxevtyper => registers.write_filter(sel, value),
            Kind::Pmccfiltr => registers.write_filter(CYCLE, value),
            Kind::Pmicfiltr => registers.write_filter(INSTRUCTION, value),
            Kind::Pmswinc => {
                let mask = value & registers.software_increment_mask(el);
                for n in 0..self.counters() {
                    if set(mask, 1 << n) && self.registers.event(n) == SW_INCR {
                        self.event(n, 1);
                    }
                }
            }
            Kind::Pmzr => {
                let mask = value & registers.write_mask(el, true);
                for n in 0..COUNTERS {
                    if set(mask, 1 << n) {
                        self.value[n] = 0;
                    }
                }
            }
            Kind::Pmuacr => registers.write_pmuacr(el, value),
            Kind::Pmecr => registers.pmecr = value & pmecr::SSE,
            Kind::Pmuserenr => registers.write_pmuserenr(value),
            Kind::MdcrEl2 => registers.write_mdcr_el2(value),
            Kind::HcrEl2 => registers.write_hcr_el2(value),
            Kind::Hdfgrtr => registers.write_hdfgrtr(value),
            Kind::Hdfgwtr => registers.write_hdfgwtr(value),
            Kind::Hdfgrtr2 => registers.write_hdfgrtr2(value),
            Kind::Hdfgwtr2 => registers.write_hdfgwtr2(value),
            Kind::MdcrEl3 => registers.controls.mdcr_el3 = value,
            Kind::Pmceid0
            | Kind::Pmceid1
            | Kind::Pmmir
            | Kind::IccSgi1r
            | Kind::IdAa64dfr0
            | Kind::IdAa64dfr1 => {}
        }
    }
}
