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
    /// Empty until there is the first.
    by_access: Box<[(u32, Outcome)]>,
}

const DECISIONS: usize = 2 * 3 * 2 * REGISTERS;

impl Default for Decisions {
    fn default() -> Self {
        Self { generation: 1, by_access: Box::default() }
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
        let &(generation, outcome) = self.by_access.get(at)?;
        (generation == self.generation).then_some(outcome)
    }

    fn learn(&mut self, at: usize, outcome: Outcome) {
        if self.by_access.is_empty() {
            self.by_access = vec![(0, Outcome::Executed); DECISIONS].into_boxed_slice();
        }
        self.by_access[at] = (self.generation, outcome);
    }

    pub(super) fn forget(&mut self) {
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

    /// What [`Cpu::decide`] would say, without making a choice that is counted.
    #[must_use]
    pub fn would(&self, register: Register, el: u8, write: bool) -> Outcome {
        let registers = &self.registers;
        let accessible = registers.accessible(1);
        let access = Access::new(register, el, write, &registers.controls, &registers.features, accessible);
        decide(&access).0
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
                let (long, chaining) = (registers.long(), registers.chaining());
                registers.write_mdcr_el2(value);
                if registers.bad_hpmn() {
                    self.chose(Choice::BadHpmn);
                }
                self.watch_changed(long, chaining);
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

    /// Watches anew those counters for which an overflow now is something else, or matters as it did not.
    fn watch_changed(&mut self, long: u64, chaining: u64) {
        let changed = self.registers.long() ^ long | self.registers.chaining() ^ chaining;
        for n in bits(self.live & changed) {
            self.watch(n);
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
        let (long, chaining) = (self.registers.long(), self.registers.chaining());
        let divided = self.registers.divided();
        self.registers.write_pmcr(value);
        if self.registers.divided() != divided {
            self.restart(CYCLE);
        }
        self.watch_changed(long, chaining);
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

#[cfg(test)]
mod tests {
    use super::super::tests::{ALMOST, Bench, NSH};
    use crate::access::Outcome;
    use crate::feature::{Features, PMUV3P9};
    use crate::field::{hcr_el2, mdcr_el2, pmcr};
    use crate::register::{Kind, Register};
    use crate::registers::{CHAIN, CPU_CYCLES, CYCLE, INST_RETIRED, SW_INCR};

    #[test]
    fn each_use_of_a_choice_is_counted() {
        let mut bench = Bench::new(Features { fgt: 0, counters: 2, ..Features::default() });
        let absent = Register::pmevcntr(7);
        bench.cpu.decide(absent, 1, false);
        bench.cpu.decide(absent, 1, false);
        bench.write_to(Kind::MdcrEl2, 7);
        let made: Vec<_> = bench.cpu.choices_made().filter(|made| made.1 > 0).collect();
        assert_eq!(made, [("absent_counter", 2), ("bad_hpmn", 1)]);
    }

    #[test]
    fn chain_takes_effect_when_the_odd_counter_is_programmed_later() {
        let mut bench = Bench::new(Features::default());
        bench.counter_of(0, CPU_CYCLES, ALMOST);
        bench.enable();
        bench.pass(1);
        assert_eq!(bench.cpu.registers().pmovs, 1);
        bench.counter_of(1, CHAIN, 0);
        bench.pass(1 << 32);
        assert_eq!(bench.cpu.counter(1), 1);
    }

    #[test]
    fn a_flag_keeps_an_overflow_from_chaining_no_longer_once_hpmn_lets_it() {
        let mut features = Features::default();
        features.choices.chain_across_ranges = false;
        let mut bench = Bench::new(features);
        bench.write_to(Kind::MdcrEl2, 1 | mdcr_el2::HPME);
        bench.counter_of(0, CPU_CYCLES, ALMOST);
        bench.counter_of(1, CHAIN, 0);
        bench.enable();
        bench.pass(1);
        assert_eq!((bench.cpu.registers().pmovs, bench.cpu.counter(1)), (1, 0));
        bench.write_to(Kind::MdcrEl2, 2);
        bench.pass(1 << 32);
        assert_eq!(bench.cpu.counter(1), 1);
    }

    #[test]
    fn a_counter_that_becomes_short_overflows_sooner() {
        let mut bench = Bench::new(Features::default());
        bench.counter_of(0, CPU_CYCLES, ALMOST - 99);
        bench.write_to(Kind::Pmcr, pmcr::E | pmcr::LP);
        bench.pass(10);
        bench.enable();
        bench.pass(89);
        assert_eq!(bench.cpu.registers().pmovs, 0);
        bench.pass(1);
        assert_eq!(bench.cpu.registers().pmovs, 1);
    }

    #[test]
    fn a_flag_that_is_cleared_can_be_set_again() {
        let mut bench = Bench::new(Features::default());
        bench.counter_of(0, CPU_CYCLES, ALMOST);
        bench.write_to(Kind::Pmintenset, 1);
        bench.enable();
        bench.pass(1);
        bench.write_to(Kind::Pmovsclr, 1);
        assert!(!bench.cpu.interrupt());
        bench.cpu.advance_to_interrupt(1 << 40);
        assert_eq!(bench.cpu.now, 1 + (1 << 32));
    }

    #[test]
    fn a_decision_is_remembered_until_a_control_changes() {
        let mut bench = Bench::new(Features::default());
        let counter = Register::pmevcntr(4);
        assert_eq!(bench.cpu.decide(counter, 1, false), Outcome::Executed);
        bench.write_to(Kind::MdcrEl2, 4);
        assert_eq!(bench.cpu.decide(counter, 1, false), Outcome::Trapped(2));
        assert_eq!(bench.cpu.decide(counter, 2, false), Outcome::Executed);
        assert_eq!(bench.cpu.decide(Register::of(Kind::Pmxevcntr), 1, false), Outcome::Executed);
        bench.write_to(Kind::Pmselr, 5);
        assert_eq!(bench.cpu.decide(Register::of(Kind::Pmxevcntr), 1, false), Outcome::Trapped(2));
    }

    #[test]
    fn what_el0_may_not_goes_to_the_host_or_the_guest_whichever_runs() {
        let mut bench = Bench::new(Features::default());
        let pmcr = Register::of(Kind::Pmcr);
        for _ in 0..2 {
            assert_eq!(bench.cpu.decide(pmcr, 0, false), Outcome::Trapped(2));
            bench.run_guest();
            assert_eq!(bench.cpu.registers().controls.hcr_el2 & hcr_el2::TGE, 0);
            assert_eq!(bench.cpu.decide(pmcr, 0, false), Outcome::Trapped(1));
            bench.run_host();
        }
    }

    #[test]
    fn the_selector_s_31_is_the_cycle_counter_s_filter() {
        let mut bench = Bench::new(Features::default());
        bench.write_to(Kind::Pmselr, 31);
        bench.write_to(Kind::Pmxevtyper, NSH);
        assert_eq!(bench.cpu.read(Register::of(Kind::Pmccfiltr), 2), NSH);
        bench.write_to(Kind::Pmselr, 3);
        bench.write_to(Kind::Pmxevcntr, 33);
        bench.write_to(Kind::Pmxevtyper, NSH | u64::from(INST_RETIRED));
        assert_eq!(bench.cpu.counter(3), 33);
        assert_eq!(bench.cpu.read(Register::pmevtyper(3), 2), NSH | u64::from(INST_RETIRED));
    }

    #[test]
    fn a_software_increment_reaches_the_counters_that_count_it() {
        let mut bench = Bench::new(Features::default());
        bench.counter_of(0, SW_INCR, 0);
        bench.counter_of(1, CPU_CYCLES, 0);
        bench.counter_of(2, SW_INCR, ALMOST);
        bench.counter_of(3, CHAIN, 0);
        bench.write_to(Kind::Pmswinc, 0b111);
        assert_eq!(bench.cpu.counter(0), 0, "not enabled");
        bench.enable();
        bench.write_to(Kind::Pmswinc, 0b110);
        assert_eq!([0, 1, 2, 3].map(|n| bench.cpu.counter(n)), [0, 0, ALMOST + 1, 1]);
        assert_eq!(bench.cpu.registers().pmovs, 0b100);
    }

    #[test]
    fn pmzr_zeroes_the_counters_that_the_exception_level_may_write() {
        let mut bench = Bench::new(Features { pmuver: PMUV3P9, ..Features::default() });
        (0..3).for_each(|n| bench.write(Register::pmevcntr(n), 9));
        bench.write_to(Kind::Pmccntr, 9);
        bench.write_to(Kind::MdcrEl2, 2);
        bench.cpu.write(&bench.world, Register::of(Kind::Pmzr), 1, 0b110 | 1 << CYCLE);
        assert_eq!([0, 1, 2, CYCLE].map(|n| bench.cpu.counter(n)), [9, 0, 9, 0]);
    }

    #[test]
    fn a_new_divider_begins_with_the_write() {
        let mut bench = Bench::new(Features { aarch32: true, ..Features::default() });
        bench.write_to(Kind::Pmccfiltr, NSH);
        bench.write_to(Kind::Pmcntenset, 1 << CYCLE);
        bench.enable();
        bench.pass(100);
        bench.write_to(Kind::Pmcr, pmcr::E | pmcr::D);
        bench.pass(64);
        assert_eq!(bench.cpu.counter(CYCLE), 101);
    }
}
