//! The architectural state of one PMU: what its registers hold, and how much of it an access sees.
//!
//! `ranges` has who sees which counters, `counting` what counts and when the interrupt line is high. No time
//! passes here. Counters are numbered as their bits in `PMCNTENSET_EL0`: 0 to 30 are the
//! event counters, [`CYCLE`] the cycle counter and [`INSTRUCTION`] the instruction counter.

mod counting;
mod ranges;

use serde::{Deserialize, Serialize};
use serde_big_array::BigArray;

use crate::access::Controls;
use crate::feature::{Features, PMUV3P1, PMUV3P5, PMUV3P7, PMUV3P9};
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
    pub(crate) features: Features,
    /// `PMCR_EL0`: the bits that are stored.
    pub(crate) pmcr: u64,
    /// `PMCNTENSET_EL0`
    pub(crate) pmcnten: u64,
    /// `PMINTENSET_EL1`
    pub(crate) pminten: u64,
    /// `PMOVSSET_EL0`
    pub(crate) pmovs: u64,
    /// `PMEVTYPER<n>_EL0`, `PMCCFILTR_EL0`, `PMICFILTR_EL0`
    #[serde(with = "BigArray")]
    pub(crate) filter: [u64; COUNTERS],
    /// `PMECR_EL1`
    pub(crate) pmecr: u64,
    /// What decides accesses.
    pub(crate) controls: Controls,
    // What follows from the above, kept because it is asked for at every access and overflow.
    /// Counters that do not count at EL0, EL1 and EL2 because of their filters.
    filtered: [u64; 3],
    /// See `hpmn`.
    hpmn: u8,
    /// See `second_range`.
    second_range: u64,
    /// See `long`.
    long: u64,
    /// Event counters that count CHAIN.
    chain_events: u64,
    /// See `chaining`.
    chaining: u64,
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
            hpmn: 0,
            second_range: 0,
            long: 0,
            chain_events: 0,
            chaining: 0,
        };
        registers.pmcr = registers.pmcr_fixed();
        (0..COUNTERS).for_each(|n| registers.update_filtered(n));
        registers.update_ranges();
        registers
    }

    /// What the CPU implements.
    #[must_use]
    pub fn features(&self) -> &Features {
        &self.features
    }

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
        self.update_filtered(n);
        let chain = self.event(n) == CHAIN;
        self.chain_events = self.chain_events & !(1 << n) | u64::from(chain) << n;
        self.update_chaining();
    }

    /// The bits of counter `n`'s filter register that are there; the others are RES0.
    #[must_use]
    pub fn filter_mask(&self, n: usize) -> u64 {
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

    fn update_filtered(&mut self, n: usize) {
        let filter = self.filter[n];
        let set = |bit: u64| filter & bit != 0;
        let filtered = [
            set(pmevtyper::U) != set(pmevtyper::NSU),
            set(pmevtyper::P) != set(pmevtyper::NSK),
            !set(pmevtyper::NSH),
        ];
        for (counters, filtered) in self.filtered.iter_mut().zip(filtered) {
            *counters = *counters & !(1 << n) | u64::from(filtered) << n;
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

    #[test]
    fn fields_of_absent_features_are_res0() {
        let mut registers = Registers::new(Features { pmuver: 1, ..Features::default() });
        registers.write_mdcr_el2(u64::MAX);
        let absent = mdcr_el2::HPMD | mdcr_el2::HCCD | mdcr_el2::HLP | mdcr_el2::HPMFZO | mdcr_el2::MTPME;
        assert_eq!(registers.controls.mdcr_el2 & absent, 0);
        registers.write_pmcr(u64::MAX);
        assert_eq!(registers.pmcr & (pmcr::LP | pmcr::FZO | pmcr::D), 0);
        registers.write_filter(0, u64::MAX);
        assert_eq!(registers.filter[0] & 0xffff, EVT_COUNT_PMUV3);
        assert_eq!(registers.filter[0] & (pmevtyper::TH | pmevtyper::TC | pmevtyper::MT), 0);
    }
}
