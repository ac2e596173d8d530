//! The architectural state of one PMU: what its registers hold, and how much of it an access sees.
//!
//! No time passes here. Counters are numbered as their bits in `PMCNTENSET_EL0`: 0 to 30 are the
//! event counters, [`CYCLE`] the cycle counter and [`INSTRUCTION`] the instruction counter.

use serde::{Deserialize, Serialize};
use serde_big_array::BigArray;

use crate::access::Controls;
use crate::feature::{BadHpmn, Features, PMUV3P1, PMUV3P5, PMUV3P7, PMUV3P9};
use crate::field::{
    EVT_COUNT_PMUV3, hcr_el2, hdfgtr, hdfgtr2, mdcr_el2, mdcr_el3, pmcr, pmevtyper, pmmir, pmuserenr,
};

/// The cycle counter's bit.
pub const CYCLE: usize = 31;
/// The instruction counter's bit (`FEAT_PMUv3_ICNTR`).
pub const INSTRUCTION: usize = 32;
/// Counters that there may be.
pub const COUNTERS: usize = 33;

/// `PMSWINC_EL0`'s event.
pub const SW_INCR: u16 = 0x000;
/// Instruction architecturally executed: what `PMICNTR_EL0` counts.
pub const INST_RETIRED: u16 = 0x008;
/// Cycle.
pub const CPU_CYCLES: u16 = 0x011;
/// Overflow of the even counter below, for the odd one.
pub const CHAIN: u16 = 0x01e;

const BIT31: u64 = 1 << CYCLE;
const BIT32: u64 = 1 << INSTRUCTION;

/// Registers of one PMU.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Registers {
    /// What the CPU implements.
    pub features: Features,
    /// `PMCR_EL0`: the bits that are stored.
    pub pmcr: u64,
    /// `PMCNTENSET_EL0`
    pub pmcnten: u64,
    /// `PMINTENSET_EL1`
    pub pminten: u64,
    /// `PMOVSSET_EL0`
    pub pmovs: u64,
    /// `PMEVTYPER<n>_EL0`, `PMCCFILTR_EL0`, `PMICFILTR_EL0`
    #[serde(with = "BigArray")]
    pub filter: [u64; COUNTERS],
    /// `PMECR_EL1`
    pub pmecr: u64,
    /// What decides accesses.
    pub controls: Controls,
    // What follows from the above, kept because it is asked for at every access and overflow.
    /// Counters that do not count at EL0, EL1 and EL2 because of their filters.
    filtered: [u64; 3],
    /// See `second_range`.
    second_range: u64,
    /// See `long`.
    long: u64,
}

const fn ones(n: u8) -> u64 {
    (1 << n) - 1
}

impl Registers {
    /// Registers after a reset: what the architecture leaves UNKNOWN is 0, and HPMN is N.
    ///
    /// Fine-grained traps and traps to EL3 are off, as Linux and the firmware leave them.
    #[must_use]
    pub fn new(mut features: Features) -> Self {
        if features.th && features.pmmir & pmmir::THWIDTH == 0 {
            features.pmmir |= 12 << pmmir::THWIDTH.trailing_zeros();
        }
        let controls = Controls {
            mdcr_el2: u64::from(features.counters),
            mdcr_el3: mdcr_el3::EN_PM2,
            hdfgrtr2: HDFGRTR2,
            hdfgwtr2: HDFGWTR2,
            hcr_el2: hcr_el2::RW,
            ..Controls::default()
        };
        let mut registers = Self {
            features,
            pmcr: 0,
            pmcnten: 0,
            pminten: 0,
            pmovs: 0,
            filter: [0; COUNTERS],
            pmecr: 0,
            controls,
            filtered: [0; 3],
            second_range: 0,
            long: 0,
        };
        registers.pmcr = registers.pmcr_fixed();
        registers.update_filters();
        registers.update_ranges();
        registers
    }

    // Ranges of counters.

    /// Effective MDCR_EL2.HPMN: counters in the first range.
    #[inline]
    #[must_use]
    pub fn hpmn(&self) -> u8 {
        let hpmn = (self.controls.mdcr_el2 & mdcr_el2::HPMN) as u8;
        if self.bad_hpmn() {
            return match self.features.choices.bad_hpmn {
                BadHpmn::AllCounters => self.features.counters,
                BadHpmn::NoCounters => 0,
            };
        }
        hpmn
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

    fn fixed(&self) -> u64 {
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

    fn uen(&self) -> bool {
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

    fn update_ranges(&mut self) {
        let second = ones(self.features.counters) & !ones(self.hpmn());
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

    // Counting and interrupt.

    /// Counters that count at an exception level: enabled, not prohibited, not filtered, not frozen.
    #[must_use]
    pub fn counting(&self, el: u8) -> u64 {
        let mdcr = self.controls.mdcr_el2;
        let second = self.second_range();
        let first = self.implemented() & !second;
        let gated = (if self.pmcr & pmcr::E != 0 { first } else { 0 })
            | (if mdcr & mdcr_el2::HPME != 0 { second } else { 0 });
        let enabled = self.pmcnten & gated;

        let mut stopped = 0;
        if el == 2 && self.features.has(PMUV3P1) && mdcr & mdcr_el2::HPMD != 0 {
            stopped |= first;
        }
        stopped |= self.frozen(first, second);
        if self.pmcr & pmcr::DP == 0 {
            stopped &= !BIT31;
        }
        if el == 2 && self.features.has(PMUV3P5) && mdcr & mdcr_el2::HCCD != 0 {
            stopped |= BIT31;
        }
        enabled & !stopped & !self.filtered[usize::from(el)]
    }

    fn frozen(&self, first: u64, second: u64) -> u64 {
        let mut frozen = 0;
        if self.features.has(PMUV3P7) && self.pmovs != 0 {
            let freezing = if self.features.choices.freeze_on_cycle_counter { first } else { first & !BIT31 };
            if self.pmcr & pmcr::FZO != 0 && self.pmovs & freezing != 0 {
                frozen |= first;
            }
            if self.controls.mdcr_el2 & mdcr_el2::HPMFZO != 0 && self.pmovs & second != 0 {
                frozen |= second;
            }
        }
        frozen
    }

    /// Freezing is on for some range, so that an overflow may stop counters.
    #[inline]
    #[must_use]
    pub fn freezes(&self) -> bool {
        self.features.has(PMUV3P7)
            && (self.pmcr & pmcr::FZO != 0 || self.controls.mdcr_el2 & mdcr_el2::HPMFZO != 0)
    }

    /// Level of the interrupt line.
    #[inline]
    #[must_use]
    pub fn interrupt(&self) -> bool {
        let asserted = self.pmovs & self.pminten;
        if asserted == 0 {
            return false;
        }
        let second = self.second_range();
        (self.pmcr & pmcr::E != 0 && asserted & !second != 0)
            || (self.controls.mdcr_el2 & mdcr_el2::HPME != 0 && asserted & second != 0)
    }

    /// An overflow of event counter `n` is an event for counter `n + 1`.
    #[inline]
    #[must_use]
    pub fn chains(&self, n: usize) -> bool {
        n.is_multiple_of(2)
            && n + 1 < usize::from(self.features.counters)
            && self.event(n + 1) == CHAIN
            && self.long() >> n & 1 == 0
            && (self.features.choices.chain_across_ranges || !self.chain_crosses_ranges(n))
    }

    /// Counters `n` and `n + 1` are in different ranges, so that it is CONSTRAINED UNPREDICTABLE
    /// whether an overflow chains.
    #[must_use]
    pub fn chain_crosses_ranges(&self, n: usize) -> bool {
        n + 1 == usize::from(self.hpmn())
    }

    /// What event counter `n` counts in a cycle in which its event happens `value` times
    /// (`PMUCountValue`, J1.3; `FEAT_PMUv3_TH`).
    #[must_use]
    pub fn count_value(&self, n: usize, value: u64) -> u64 {
        let filter = self.filter[n];
        let threshold = (filter & pmevtyper::TH) >> pmevtyper::TH.trailing_zeros();
        let control = (filter & pmevtyper::TC) >> pmevtyper::TC.trailing_zeros();
        if threshold == 0 && control == 0 {
            return value;
        }
        let met = match control >> 1 {
            0 => value != threshold,
            1 => value == threshold,
            2 => value >= threshold,
            _ => value < threshold,
        };
        match (met, control & 1) {
            (false, _) => 0,
            (true, 0) => value,
            (true, _) => 1,
        }
    }

    /// Counter `n` has its threshold function enabled.
    #[inline]
    #[must_use]
    pub fn thresholded(&self, n: usize) -> bool {
        self.filter[n] & (pmevtyper::TH | pmevtyper::TC) != 0
    }

    /// The event that counter `n` is programmed to count.
    #[inline]
    #[must_use]
    pub fn event(&self, n: usize) -> u16 {
        match n {
            CYCLE => CPU_CYCLES,
            INSTRUCTION => INST_RETIRED,
            _ => (self.filter[n] & pmevtyper::EVT_COUNT) as u16,
        }
    }

    // Values as they are read, and writes by the bits that a register stores.

    /// `PMCR_EL0` as it reads at an exception level.
    #[inline]
    #[must_use]
    pub fn read_pmcr(&self, el: u8) -> u64 {
        self.pmcr
            | u64::from(self.accessible(el)) << pmcr::N.trailing_zeros()
            | self.features.pmcr_id & (pmcr::IMP | pmcr::IDCODE)
    }

    /// Stores the bits of `PMCR_EL0` that stay; `P` and `C` are the caller's.
    pub fn write_pmcr(&mut self, value: u64) {
        let features = &self.features;
        let mut mask = pmcr::E | pmcr::X | pmcr::DP;
        if features.aarch32 {
            mask |= pmcr::D | pmcr::LC;
        }
        if features.has(PMUV3P5) {
            mask |= pmcr::LP;
        }
        if features.has(PMUV3P7) {
            mask |= pmcr::FZO;
        }
        self.pmcr = value & mask | self.pmcr_fixed();
        self.update_ranges();
    }

    /// LC is RES1 without AArch32.
    fn pmcr_fixed(&self) -> u64 {
        if self.features.aarch32 { 0 } else { pmcr::LC }
    }

    /// Stores a filter register: `PMEVTYPER<n>_EL0`, `PMCCFILTR_EL0` or `PMICFILTR_EL0`.
    pub fn write_filter(&mut self, n: usize, value: u64) {
        self.filter[n] = value & self.filter_mask(n);
        self.update_filters();
    }

    fn filter_mask(&self, n: usize) -> u64 {
        let features = &self.features;
        let mut mask = pmevtyper::P | pmevtyper::U | pmevtyper::NSH;
        if features.el3 {
            mask |= pmevtyper::NSK | pmevtyper::NSU | pmevtyper::M;
            if features.sel2 {
                mask |= pmevtyper::SH;
            }
        }
        if n < CYCLE {
            mask |= if features.has(PMUV3P1) { pmevtyper::EVT_COUNT } else { EVT_COUNT_PMUV3 };
            if features.mtpmu {
                mask |= pmevtyper::MT;
            }
            if features.th {
                mask |= self.threshold_mask() | pmevtyper::TC;
            }
        }
        mask
    }

    /// PMMIR_EL1.THWIDTH says how many bits of TH there are.
    fn threshold_mask(&self) -> u64 {
        let width = (self.features.pmmir & pmmir::THWIDTH) >> pmmir::THWIDTH.trailing_zeros();
        ((1 << width) - 1) << pmevtyper::TH.trailing_zeros() & pmevtyper::TH
    }

    /// A filter register as it reads.
    #[inline]
    #[must_use]
    pub fn read_filter(&self, n: usize) -> u64 {
        if n == INSTRUCTION { self.filter[n] | u64::from(INST_RETIRED) } else { self.filter[n] }
    }

    /// Stores `PMUACR_EL1`: the bits of the counters that the exception level sees.
    pub fn write_pmuacr(&mut self, el: u8, value: u64) {
        let mask = ones(self.accessible(el)) | self.fixed();
        self.controls.pmuacr = self.controls.pmuacr & !mask | value & mask;
    }

    /// `PMUACR_EL1` as it reads at an exception level.
    #[must_use]
    pub fn read_pmuacr(&self, el: u8) -> u64 {
        self.controls.pmuacr & (ones(self.accessible(el)) | self.fixed())
    }

    fn update_filters(&mut self) {
        self.filtered = [0; 3];
        for (n, filter) in self.filter.iter().enumerate() {
            let set = |bit: u64| filter & bit != 0;
            let filtered = [
                set(pmevtyper::U) != set(pmevtyper::NSU),
                set(pmevtyper::P) != set(pmevtyper::NSK),
                !set(pmevtyper::NSH),
            ];
            for (el, &filtered) in filtered.iter().enumerate() {
                self.filtered[el] |= u64::from(filtered) << n;
            }
        }
    }

    /// Stores `PMUSERENR_EL0`.
    pub fn write_pmuserenr(&mut self, value: u64) {
        let mut mask = pmuserenr::EN | pmuserenr::SW | pmuserenr::CR | pmuserenr::ER;
        if self.features.has(PMUV3P9) {
            mask |= pmuserenr::UEN | pmuserenr::TID;
            if self.features.icntr {
                mask |= pmuserenr::IR;
            }
        }
        self.controls.pmuserenr = value & mask;
    }

    /// Stores `MDCR_EL2`. Fields of other debug features are kept, they trap nothing here.
    pub fn write_mdcr_el2(&mut self, value: u64) {
        let features = &self.features;
        let mut absent = 0;
        if !features.has(PMUV3P1) {
            absent |= mdcr_el2::HPMD;
        }
        if !features.has(PMUV3P5) {
            absent |= mdcr_el2::HCCD | mdcr_el2::HLP;
        }
        if !features.has(PMUV3P7) {
            absent |= mdcr_el2::HPMFZO;
        }
        if !features.mtpmu || features.el3 {
            absent |= mdcr_el2::MTPME;
        }
        self.controls.mdcr_el2 = value & !absent;
        self.update_ranges();
    }

    /// Stores `HCR_EL2`.
    pub fn write_hcr_el2(&mut self, value: u64) {
        let absent = if self.features.vhe { 0 } else { hcr_el2::E2H };
        self.controls.hcr_el2 = value & !absent;
    }

    /// Stores `HDFGRTR_EL2`: the bits of the PMU.
    pub fn write_hdfgrtr(&mut self, value: u64) {
        self.controls.hdfgrtr = value & HDFGRTR;
    }

    /// Stores `HDFGWTR_EL2`: the bits of the PMU.
    pub fn write_hdfgwtr(&mut self, value: u64) {
        self.controls.hdfgwtr = value & HDFGWTR;
    }

    /// Stores `HDFGRTR2_EL2`: the bits of the PMU.
    pub fn write_hdfgrtr2(&mut self, value: u64) {
        self.controls.hdfgrtr2 = value & HDFGRTR2;
    }

    /// Stores `HDFGWTR2_EL2`: the bits of the PMU.
    pub fn write_hdfgwtr2(&mut self, value: u64) {
        self.controls.hdfgwtr2 = value & HDFGWTR2;
    }

    /// `ID_AA64DFR0_EL1`: DebugVer 6, PMUVer, and MTPMU.
    #[must_use]
    pub fn id_aa64dfr0(&self) -> u64 {
        0x6 | u64::from(self.features.pmuver) << 8
            | u64::from(self.features.mtpmu) << 48
            | u64::from(self.features.hpmn0) << 60
    }

    /// `ID_AA64DFR1_EL1`: PMICNTR.
    #[must_use]
    pub fn id_aa64dfr1(&self) -> u64 {
        u64::from(self.features.icntr) << 36
    }
}

const BOTH: u64 = hdfgtr::PMEVCNTRN
    | hdfgtr::PMEVTYPERN
    | hdfgtr::PMCCFILTR
    | hdfgtr::PMCCNTR
    | hdfgtr::PMCNTEN
    | hdfgtr::PMINTEN
    | hdfgtr::PMOVS
    | hdfgtr::PMSELR
    | hdfgtr::PMUSERENR;
const HDFGRTR: u64 = BOTH | hdfgtr::PMMIR | hdfgtr::PMCEIDN;
const HDFGWTR: u64 = BOTH | hdfgtr::PMSWINC | hdfgtr::PMCR;
const HDFGRTR2: u64 = hdfgtr2::N_PMECR | hdfgtr2::N_PMICNTR | hdfgtr2::N_PMICFILTR | hdfgtr2::N_PMUACR;
const HDFGWTR2: u64 = HDFGRTR2 | hdfgtr2::N_PMZR;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::feature::PMUV3P4;

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
    fn fields_of_absent_features_are_res0() {
        let mut registers = registers(1, 6);
        registers.write_mdcr_el2(u64::MAX);
        let absent = mdcr_el2::HPMD | mdcr_el2::HCCD | mdcr_el2::HLP | mdcr_el2::HPMFZO | mdcr_el2::MTPME;
        assert_eq!(registers.controls.mdcr_el2 & absent, 0);
        registers.write_pmcr(u64::MAX);
        assert_eq!(registers.pmcr & (pmcr::LP | pmcr::FZO | pmcr::D), 0);
        registers.write_filter(0, u64::MAX);
        assert_eq!(registers.filter[0] & 0xffff, EVT_COUNT_PMUV3);
        assert_eq!(registers.filter[0] & (pmevtyper::TH | pmevtyper::TC | pmevtyper::MT), 0);
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
    fn hpmd_prohibits_the_first_range_at_el2_and_dp_decides_for_the_cycle_counter() {
        let mut registers = registers(PMUV3P4, 2);
        registers.write_mdcr_el2(1 | mdcr_el2::HPME | mdcr_el2::HPMD);
        registers.pmcnten = registers.implemented();
        (0..2).chain([CYCLE, INSTRUCTION]).for_each(|n| registers.write_filter(n, pmevtyper::NSH));
        registers.write_pmcr(pmcr::E);
        assert_eq!(registers.counting(2), 0b10 | BIT31);
        registers.write_pmcr(pmcr::E | pmcr::DP);
        assert_eq!(registers.counting(2), 0b10);
        assert_eq!(registers.counting(1), registers.implemented());
    }

    #[test]
    fn the_cycle_counter_s_flag_freezes_if_so_chosen() {
        let with = |freeze_on_cycle_counter| {
            let mut features = Features { pmuver: PMUV3P7, counters: 1, ..Features::default() };
            features.choices.freeze_on_cycle_counter = freeze_on_cycle_counter;
            let mut registers = Registers::new(features);
            registers.pmcnten = 1;
            registers.pmovs = BIT31;
            registers.write_pmcr(pmcr::E | pmcr::FZO);
            registers.counting(1)
        };
        assert_eq!([with(false), with(true)], [1, 0]);
    }

    #[test]
    fn a_threshold_compares_and_counts_as_tc_says() {
        let mut registers = Registers::new(Features { th: true, ..Features::default() });
        let mut counted = |control: u64, values: [u64; 3]| {
            registers.write_filter(0, control << pmevtyper::TC.trailing_zeros() | 2 << 32);
            values.map(|value| registers.count_value(0, value))
        };
        let values = [1, 2, 3];
        let not_equal = counted(0b000, values);
        assert_eq!(not_equal, [1, 0, 3]);
        assert_eq!(counted(0b010, values), [0, 2, 0]);
        assert_eq!(counted(0b100, values), [0, 2, 3]);
        assert_eq!(counted(0b110, values), [1, 0, 0]);
        assert_eq!(counted(0b101, values), [0, 1, 1]);
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
