//! Ranges of counters: HPMN, who sees which counters' bits, widths.

use super::{BIT31, BIT32, Registers, ones};
use crate::feature::{BadHpmn, PMUV3P5, PMUV3P9};
use crate::field::{hcr_el2, hdfgtr2, mdcr_el2, mdcr_el3, pmcr, pmuserenr};
use crate::registers::CYCLE;

impl Registers {
    /// Effective MDCR_EL2.HPMN: counters in the first range.
    #[inline]
    #[must_use]
    pub fn hpmn(&self) -> u8 {
        self.hpmn
    }

    /// HPMN has a value for which the behaviour is CONSTRAINED UNPREDICTABLE.
    #[inline]
    #[must_use]
    pub fn bad_hpmn(&self) -> bool {
        let hpmn = (self.controls.mdcr_el2 & mdcr_el2::HPMN) as u8;
        hpmn > self.features.counters || hpmn == 0 && self.features.counters > 0 && !self.features.hpmn0
    }

    /// Event counters accessible at an exception level (PMCR_EL0.N as it reads there).
    #[inline]
    #[must_use]
    pub fn accessible(&self, el: u8) -> u8 {
        if el < 2 { self.hpmn() } else { self.features.counters }
    }

    /// All counters that are implemented.
    #[inline]
    #[must_use]
    pub fn implemented(&self) -> u64 {
        ones(self.features.counters) | self.fixed()
    }

    pub(super) fn fixed(&self) -> u64 {
        BIT31 | if self.features.icntr { BIT32 } else { 0 }
    }

    /// Counters whose bits an exception level can see (`GetPMUAccessMask`, J1.3).
    #[inline]
    #[must_use]
    pub fn access_mask(&self, el: u8) -> u64 {
        let mask = ones(self.accessible(el)) | self.fixed();
        if el > 0 {
            return mask;
        }
        if self.uen() { mask & self.controls.pmuacr } else { mask & !BIT32 }
    }

    /// Counters whose bits read as they are in `PMCNTENSET_EL0`, `PMINTENSET_EL1`, `PMOVSSET_EL0` and
    /// their counterparts (`GetPMUReadMask`, J1.3).
    #[inline]
    #[must_use]
    pub fn read_mask(&self, el: u8) -> u64 {
        let mask = self.access_mask(el);
        if mask & BIT32 == 0 {
            return mask;
        }
        self.unless_trapped(el, mask, self.controls.hdfgrtr2, hdfgtr2::N_PMICFILTR)
    }

    /// Counters whose bits can be written there and, with `zeroing`, in `PMZR_EL0`
    /// (`GetPMUWriteMask`, J1.3).
    #[inline]
    #[must_use]
    pub fn write_mask(&self, el: u8, zeroing: bool) -> u64 {
        let mut mask = self.access_mask(el);
        if el == 0 && self.uen() {
            let read_only = |bit| self.controls.pmuserenr & bit != 0;
            if read_only(pmuserenr::IR) {
                mask &= !BIT32;
            }
            if read_only(pmuserenr::CR) {
                mask &= !BIT31;
            }
            if read_only(pmuserenr::ER) {
                mask &= BIT31 | BIT32;
            }
        }
        if mask & BIT32 == 0 {
            return mask;
        }
        let bit = if zeroing { hdfgtr2::N_PMICNTR } else { hdfgtr2::N_PMICFILTR };
        self.unless_trapped(el, mask, self.controls.hdfgwtr2, bit)
    }

    /// `mask` without the instruction counter if an access to its register traps to EL2 or EL3.
    fn unless_trapped(&self, el: u8, mask: u64, fine_grained: u64, bit: u64) -> u64 {
        const HOST: u64 = hcr_el2::E2H | hcr_el2::TGE;
        let to_el3 = self.features.el3 && self.controls.mdcr_el3 & mdcr_el3::EN_PM2 == 0;
        let host = self.controls.hcr_el2 & HOST == HOST;
        let to_el2 = self.features.fgt > 1 && el < 2 && !host && fine_grained & bit == 0;
        if to_el3 || to_el2 { mask & !BIT32 } else { mask }
    }

    /// Event counters that a write of `PMSWINC_EL0` reaches (`PMUSwIncrement`, J1.3).
    #[must_use]
    pub fn software_increment_mask(&self, el: u8) -> u64 {
        let mask = ones(self.accessible(el));
        let by_acr = el == 0 && self.uen() && self.controls.pmuserenr & pmuserenr::SW == 0;
        if by_acr { mask & self.controls.pmuacr } else { mask }
    }

    pub(super) fn uen(&self) -> bool {
        self.features.has(PMUV3P9) && self.controls.pmuserenr & pmuserenr::UEN != 0
    }

    /// Event counters of the second range, `[HPMN, N)`.
    #[inline]
    #[must_use]
    pub fn second_range(&self) -> u64 {
        self.second_range
    }

    /// Counters whose overflow is the carry out of bit 63; of the others, out of bit 31.
    #[inline]
    #[must_use]
    pub fn long(&self) -> u64 {
        self.long
    }

    pub(super) fn update_ranges(&mut self) {
        self.hpmn = match self.features.choices.bad_hpmn {
            BadHpmn::AllCounters if self.bad_hpmn() => self.features.counters,
            BadHpmn::NoCounters if self.bad_hpmn() => 0,
            _ => (self.controls.mdcr_el2 & mdcr_el2::HPMN) as u8,
        };
        let second = ones(self.features.counters) & !ones(self.hpmn);
        let mut long = BIT32;
        if self.features.has(PMUV3P5) {
            if self.pmcr & pmcr::LP != 0 {
                long |= ones(self.features.counters) & !second;
            }
            if self.controls.mdcr_el2 & mdcr_el2::HLP != 0 {
                long |= second;
            }
        }
        if !self.features.aarch32 || self.pmcr & pmcr::LC != 0 {
            long |= BIT31;
        }
        self.second_range = second;
        self.long = long;
        self.update_chaining();
    }

    /// Bits that a counter has.
    #[inline]
    #[must_use]
    pub fn counter_mask(&self, n: usize) -> u64 {
        if n < CYCLE && !self.features.has(PMUV3P5) { u64::from(u32::MAX) } else { u64::MAX }
    }

    /// The cycle counter counts every 64th cycle.
    #[must_use]
    pub fn divided(&self) -> bool {
        self.features.aarch32 && self.pmcr & pmcr::LC == 0 && self.pmcr & pmcr::D != 0
    }
}

#[cfg(test)]
mod tests {
    use super::super::{HDFGRTR2, HDFGWTR2};
    use super::*;
    use crate::feature::Features;

    fn registers(pmuver: u8, counters: u8) -> Registers {
        Registers::new(Features { pmuver, counters, icntr: true, ..Features::default() })
    }

    #[test]
    fn after_a_reset_nothing_counts_and_nothing_is_reserved() {
        let registers = registers(PMUV3P9, 6);
        assert_eq!(registers.hpmn(), 6);
        assert_eq!(registers.second_range(), 0);
        assert_eq!((0..3).fold(0, |counting, el| counting | registers.counting(el)), 0);
        assert!(!registers.interrupt());
    }

    #[test]
    fn an_hpmn_out_of_range_is_a_choice() {
        let with = |bad_hpmn, hpmn| {
            let mut features = Features { counters: 6, ..Features::default() };
            features.choices.bad_hpmn = bad_hpmn;
            let mut registers = Registers::new(features);
            registers.write_mdcr_el2(hpmn);
            assert!(registers.bad_hpmn());
            registers.accessible(1)
        };
        assert_eq!([with(BadHpmn::AllCounters, 7), with(BadHpmn::AllCounters, 0)], [6, 6]);
        assert_eq!([with(BadHpmn::NoCounters, 7), with(BadHpmn::NoCounters, 0)], [0, 0]);
    }

    #[test]
    fn at_el0_pmuacr_grants_counters_and_er_cr_ir_make_them_read_only() {
        let mut registers = registers(PMUV3P9, 4);
        registers.write_pmuacr(2, 0b11 | BIT31 | BIT32);
        assert_eq!(registers.access_mask(0), 0b1111 | BIT31, "without UEN");
        registers.write_pmuserenr(pmuserenr::UEN);
        assert_eq!(registers.access_mask(0), 0b11 | BIT31 | BIT32);
        registers.write_pmuserenr(pmuserenr::UEN | pmuserenr::ER | pmuserenr::IR);
        assert_eq!(registers.read_mask(0), 0b11 | BIT31 | BIT32);
        assert_eq!(registers.write_mask(0, false), BIT31);
        assert_eq!(registers.write_mask(1, false), 0b1111 | BIT31 | BIT32, "EL0 only");
    }

    #[test]
    fn the_instruction_counter_s_bits_hide_from_a_guest_whose_accesses_would_trap() {
        let mut registers =
            Registers::new(Features { pmuver: PMUV3P9, icntr: true, fgt: 2, ..Features::default() });
        registers.write_hdfgrtr2(HDFGRTR2 & !hdfgtr2::N_PMICFILTR);
        registers.write_hdfgwtr2(HDFGWTR2 & !hdfgtr2::N_PMICNTR);
        assert_eq!(registers.read_mask(1) & BIT32, 0);
        assert_eq!(registers.write_mask(1, false) & BIT32, BIT32);
        assert_eq!(registers.write_mask(1, true) & BIT32, 0);
        assert_eq!(registers.read_mask(2) & BIT32, BIT32);
    }
}
