//! Software reads and writes registers.

use super::{Choice, Cpu, bits};
use crate::access::{Access, Outcome, RULES, decide};
use crate::field::{hcr_el2, pmcr, pmecr};
use crate::register::{EVENT_COUNTERS, Kind, REGISTERS, Register};
use crate::registers::{CYCLE, INSTRUCTION, SW_INCR};
use crate::tally::World;

/// Decisions about accesses that hold until a control changes, by register, exception level, direction
/// and HCR_EL2.TGE, which changes whenever a guest is entered or left. Those that a CONSTRAINED
/// UNPREDICTABLE choice made are not remembered, so that every use of it is counted.
#[derive(Clone, Debug)]
pub(super) struct Decisions {
    generation: u32,
    by_access: Box<[(u32, Outcome)]>,
}

const DECISIONS: usize = 2 * 3 * 2 * REGISTERS;

impl Default for Decisions {
    fn default() -> Self {
        Self { generation: 1, by_access: vec![(0, Outcome::Executed); DECISIONS].into_boxed_slice() }
    }
}

impl Decisions {
    #[inline]
    fn index(register: Register, el: u8, write: bool, tge: bool) -> usize {
        let el = usize::from(el.min(2));
        ((usize::from(tge) * 3 + el) * 2 + usize::from(write)) * REGISTERS + register.id()
    }

    #[inline]
    fn known(&self, at: usize) -> Option<Outcome> {
        let (generation, outcome) = self.by_access[at];
        (generation == self.generation).then_some(outcome)
    }

    fn learn(&mut self, at: usize, outcome: Outcome) {
        self.by_access[at] = (self.generation, outcome);
    }

    fn forget(&mut self) {
        match self.generation.checked_add(1) {
            Some(generation) => self.generation = generation,
            None => *self = Self::default(),
        }
    }
}

impl Cpu {
    /// Decides an access of what runs.
    #[inline]
    pub fn decide(&mut self, register: Register, el: u8, write: bool) -> Outcome {
        let tge = self.registers.controls.hcr_el2 & hcr_el2::TGE != 0;
        let at = Decisions::index(register, el, write, tge);
        if let Some(outcome) = self.decisions.known(at) {
            return outcome;
        }
        let registers = &self.registers;
        let accessible = registers.accessible(1);
        let access = Access::new(register, el, write, &registers.controls, &registers.features, accessible);
        let (outcome, rule) = decide(&access);
        let choice = rule.and_then(|rule| RULES[rule].choice);
        match Choice::ALL.iter().find(|(_, name)| Some(*name) == choice) {
            Some(&(choice, _)) => self.chose(choice),
            None => self.decisions.learn(at, outcome),
        }
        outcome
    }

    /// What a read at an exception level yields.
    #[must_use]
    pub fn read(&self, register: Register, el: u8) -> u64 {
        let registers = &self.registers;
        let controls = &registers.controls;
        let sel = usize::from(controls.sel);
        let selectable = controls.sel < EVENT_COUNTERS;
        match register.kind() {
            Kind::Pmcr => registers.read_pmcr(el),
            Kind::Pmcntenset | Kind::Pmcntenclr => registers.pmcnten & registers.read_mask(el),
            Kind::Pmovsset | Kind::Pmovsclr => registers.pmovs & registers.read_mask(el),
            Kind::Pmintenset | Kind::Pmintenclr => registers.pminten & registers.read_mask(el),
            Kind::Pmselr => u64::from(controls.sel),
            Kind::Pmceid0 => registers.features.pmceid0.unwrap_or(0),
            Kind::Pmceid1 => registers.features.pmceid1.unwrap_or(0),
            Kind::Pmccntr => self.counter(CYCLE),
            Kind::Pmicntr => self.counter(INSTRUCTION),
            Kind::Pmevcntr => self.counter(usize::from(register.index())),
            Kind::Pmxevcntr if selectable => self.counter(sel),
            Kind::Pmevtyper => registers.filter[usize::from(register.index())],
            // SEL = 31 is PMCCFILTR_EL0, and its place in the array is 31.
            Kind::Pmxevtyper => registers.filter[sel],
            Kind::Pmccfiltr => registers.filter[CYCLE],
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
            Kind::Pmxevcntr | Kind::Pmswinc | Kind::Pmzr | Kind::IccSgi1r => 0,
        }
    }

    /// What a write at an exception level does.
    pub fn write(&mut self, world: &World, register: Register, el: u8, value: u64) {
        let sel = usize::from(self.registers.controls.sel);
        let masked = |cpu: &Self| value & cpu.registers.write_mask(el, false);
        match register.kind() {
            Kind::Pmcr => self.write_pmcr(world, el, value),
            Kind::Pmcntenset => {
                self.registers.pmcnten |= masked(self);
                self.refresh(world);
            }
            Kind::Pmcntenclr => {
                self.registers.pmcnten &= !masked(self);
                self.refresh(world);
            }
            Kind::Pmovsset => {
                self.registers.pmovs |= masked(self);
                self.refresh(world);
            }
            Kind::Pmovsclr => self.clear_overflows(world, masked(self)),
            Kind::Pmintenset => {
                self.registers.pminten |= masked(self);
                self.update_interrupt();
            }
            Kind::Pmintenclr => {
                self.registers.pminten &= !masked(self);
                self.update_interrupt();
            }
            Kind::Pmselr => {
                self.registers.controls.sel = (value & 31) as u8;
                self.decisions.forget();
            }
            Kind::Pmccntr => self.write_counter(CYCLE, value),
            Kind::Pmicntr => self.write_counter(INSTRUCTION, value),
            Kind::Pmevcntr => self.write_counter(usize::from(register.index()), value),
            Kind::Pmxevcntr if sel < CYCLE => self.write_counter(sel, value),
            Kind::Pmevtyper => self.write_filter(world, usize::from(register.index()), value),
            Kind::Pmxevtyper => self.write_filter(world, sel, value),
            Kind::Pmccfiltr => self.write_filter(world, CYCLE, value),
            Kind::Pmicfiltr => self.write_filter(world, INSTRUCTION, value),
            Kind::Pmswinc => self.software_increment(value & self.registers.software_increment_mask(el)),
            Kind::Pmzr => {
                for n in bits(value & self.registers.write_mask(el, true)) {
                    self.write_counter(n, 0);
                }
            }
            Kind::Pmuacr => {
                self.registers.write_pmuacr(el, value);
                self.decisions.forget();
            }
            Kind::Pmecr => self.registers.pmecr = value & pmecr::SSE,
            _ => self.write_control(world, register.kind(), value),
        }
    }

    fn write_control(&mut self, world: &World, kind: Kind, value: u64) {
        let registers = &mut self.registers;
        match kind {
            Kind::Pmuserenr => registers.write_pmuserenr(value),
            Kind::MdcrEl2 => {
                let long = registers.long();
                registers.write_mdcr_el2(value);
                if registers.bad_hpmn() {
                    self.chose(Choice::BadHpmn);
                }
                self.widths_changed(long);
                self.refresh(world);
            }
            Kind::HcrEl2 => registers.write_hcr_el2(value),
            Kind::Hdfgrtr => registers.write_hdfgrtr(value),
            Kind::Hdfgwtr => registers.write_hdfgwtr(value),
            Kind::Hdfgrtr2 => registers.write_hdfgrtr2(value),
            Kind::Hdfgwtr2 => registers.write_hdfgwtr2(value),
            Kind::MdcrEl3 => registers.controls.mdcr_el3 = value,
            _ => return,
        }
        self.decisions.forget();
    }

    fn widths_changed(&mut self, before: u64) {
        if self.registers.long() != before {
            self.watch_all();
        }
    }

    fn write_pmcr(&mut self, world: &World, el: u8, value: u64) {
        if value & pmcr::P != 0 {
            for n in 0..usize::from(self.registers.accessible(el)) {
                self.write_counter(n, 0);
            }
        }
        if value & pmcr::C != 0 {
            self.write_counter(CYCLE, 0);
        }
        let long = self.registers.long();
        let divided = self.registers.divided();
        self.registers.write_pmcr(value);
        if self.registers.divided() != divided {
            self.restart(CYCLE);
        }
        self.widths_changed(long);
        self.refresh(world);
    }

    /// Has `refresh` start counter `n` anew, with another source.
    fn restart(&mut self, n: usize) {
        if self.live >> n & 1 != 0 {
            self.stop(n);
        }
        self.counting &= !(1 << n);
    }

    fn clear_overflows(&mut self, world: &World, mask: u64) {
        let cleared = self.registers.pmovs & mask;
        self.registers.pmovs &= !mask;
        for n in bits(cleared & self.live) {
            self.watch(n);
        }
        if self.registers.freezes() {
            self.refresh(world);
        } else {
            self.update_interrupt();
        }
    }

    fn write_filter(&mut self, world: &World, n: usize, value: u64) {
        self.restart(n);
        self.registers.write_filter(n, value);
        self.event_changed(world, n);
        // Whether the even counter below chains depends on this event.
        if n % 2 == 1 && n < CYCLE && self.live >> (n - 1) & 1 != 0 {
            self.watch(n - 1);
        }
        self.refresh(world);
    }

    fn software_increment(&mut self, mask: u64) {
        for n in bits(mask) {
            if self.counting >> n & 1 != 0 && self.registers.event(n) == SW_INCR {
                self.increment(n, false);
            }
        }
        self.update_interrupt();
    }
}
