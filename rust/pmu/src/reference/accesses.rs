//! Software reads and writes registers.

use super::{Reference, set};
use crate::access::{Access, Outcome, decide};
use crate::field::{pmcr, pmecr};
use crate::register::{Kind, Register};
use crate::registers::{COUNTERS, CYCLE, INSTRUCTION, SW_INCR};

impl Reference {
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
                self.watch_line();
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

#[cfg(test)]
mod tests {
    use super::super::tests::{reference, write};
    use super::*;
    use crate::feature::{Features, PMUV3P1};
    use crate::field::mdcr_el2;

    #[test]
    fn an_access_that_traps_changes_nothing() {
        let mut reference = reference(Features::default());
        write(&mut reference, Kind::MdcrEl2, 6 | mdcr_el2::TPM);
        let before = reference.registers.clone();
        let pmcr = Register::of(Kind::Pmcr);
        assert_eq!(reference.access(pmcr, 1, Some(pmcr::E)), (Outcome::Trapped(2), 0));
        assert_eq!(reference.registers, before);
        assert_eq!(reference.access(pmcr, 2, Some(pmcr::E)), (Outcome::Executed, 0));
        assert_ne!(reference.registers, before);
    }

    #[test]
    fn what_is_written_is_read_as_the_exception_level_sees_it() {
        let mut reference = reference(Features { pmuver: PMUV3P1, ..Features::default() });
        write(&mut reference, Kind::MdcrEl2, 2);
        write(&mut reference, Kind::Pmcntenset, u64::MAX);
        let mut read = |kind, el| reference.access(Register::of(kind), el, None).1;
        assert_eq!(read(Kind::Pmcntenclr, 2), 1 << CYCLE | 0x3f);
        assert_eq!(read(Kind::Pmcntenclr, 1), 1 << CYCLE | 0b11);
        write(&mut reference, Kind::Pmselr, 1);
        write(&mut reference, Kind::Pmxevcntr, u64::MAX);
        assert_eq!(
            reference.access(Register::pmevcntr(1), 1, None).1,
            u64::from(u32::MAX),
            "32 bits before p5"
        );
    }

    #[test]
    fn a_reset_through_pmcr_zeroes_what_its_level_reaches() {
        let mut reference = reference(Features::default());
        write(&mut reference, Kind::MdcrEl2, 2);
        reference.value = [7; COUNTERS];
        reference.access(Register::of(Kind::Pmcr), 1, Some(pmcr::P));
        assert_eq!(reference.value[..4], [0, 0, 7, 7]);
        assert_eq!(reference.value[CYCLE], 7);
        reference.access(Register::of(Kind::Pmcr), 2, Some(pmcr::P | pmcr::C));
        assert_eq!(reference.value[..4], [0; 4]);
        assert_eq!(reference.value[CYCLE], 0);
    }
}
