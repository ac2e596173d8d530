//! What a CPU implements, and what it does where the architecture leaves a choice.

use serde::{Deserialize, Serialize};

use crate::register::EVENT_COUNTERS;

/// ID_AA64DFR0_EL1.PMUVer of `FEAT_PMUv3p1`: 16-bit event numbers, MDCR_EL2.HPMD.
pub const PMUV3P1: u8 = 4;
/// ID_AA64DFR0_EL1.PMUVer of `FEAT_PMUv3p4`: `PMMIR_EL1`.
pub const PMUV3P4: u8 = 5;
/// ID_AA64DFR0_EL1.PMUVer of `FEAT_PMUv3p5`: 64-bit event counters, MDCR_EL2.HCCD.
pub const PMUV3P5: u8 = 6;
/// ID_AA64DFR0_EL1.PMUVer of `FEAT_PMUv3p7`: freezing.
pub const PMUV3P7: u8 = 7;
/// ID_AA64DFR0_EL1.PMUVer of `FEAT_PMUv3p8`.
pub const PMUV3P8: u8 = 8;
/// ID_AA64DFR0_EL1.PMUVer of `FEAT_PMUv3p9`: `PMZR_EL0`, `PMUACR_EL1`.
pub const PMUV3P9: u8 = 9;

/// Features of one CPU. Everything runs in Non-secure state.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Features {
    /// Event counters implemented, 0 to 31; the cycle counter comes on top.
    pub counters: u8,
    /// ID_AA64DFR0_EL1.PMUVer: 1 for `FEAT_PMUv3`, 4 to 9 for p1, p4, p5, p7, p8, p9.
    pub pmuver: u8,
    /// 1: `FEAT_FGT`, 2: `FEAT_FGT2` as well.
    pub fgt: u8,
    /// `FEAT_HPMN0`.
    pub hpmn0: bool,
    /// `FEAT_PMUv3_ICNTR`.
    pub icntr: bool,
    /// `FEAT_PMUv3_TH`.
    pub th: bool,
    /// `FEAT_MTPMU`. Every CPU is alone in its core, so that its controls are stored and change nothing.
    pub mtpmu: bool,
    /// `FEAT_PMUv3_SS`: `PMECR_EL1` exists; snapshots themselves are not modelled.
    pub ss: bool,
    /// EL3 is implemented.
    pub el3: bool,
    /// Secure EL2 is implemented.
    pub sel2: bool,
    /// AArch32 is implemented at some exception level.
    pub aarch32: bool,
    /// `FEAT_VHE`.
    pub vhe: bool,
    /// PMCR_EL0.IMP and IDCODE, in place.
    pub pmcr_id: u64,
    /// `PMCEID0_EL0`; `None`: the events that the machine tallies.
    pub pmceid0: Option<u64>,
    /// `PMCEID1_EL0`; `None`: the events that the machine tallies.
    pub pmceid1: Option<u64>,
    /// `PMMIR_EL1`.
    pub pmmir: u64,
    /// Cycles that the interrupt's level is under way from the PMU to the CPU.
    pub pmi_delay: u64,
    /// What it does where the architecture leaves a choice.
    pub choices: Choices,
}

impl Default for Features {
    /// Neoverse-like: `FEAT_PMUv3p5` with six counters, VHE and FGT, AArch64 only.
    fn default() -> Self {
        Self {
            counters: 6,
            pmuver: PMUV3P5,
            fgt: 1,
            hpmn0: false,
            icntr: false,
            th: false,
            mtpmu: false,
            ss: false,
            el3: true,
            sel2: false,
            aarch32: false,
            vhe: true,
            pmcr_id: 0x41 << 24,
            pmceid0: None,
            pmceid1: None,
            pmmir: 0,
            pmi_delay: 0,
            choices: Choices::default(),
        }
    }
}

/// What a CPU does where the architecture leaves a choice.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Choices {
    /// An index of N or above, without `FEAT_FGT`.
    pub absent_counter: Constrained,
    /// An index that HPMN puts out of reach at EL1 and EL0, without `FEAT_FGT`.
    pub reserved_counter: Constrained,
    /// HPMN above N, or 0 without `FEAT_HPMN0`.
    pub bad_hpmn: BadHpmn,
    /// An overflow of the last counter of the first range is a CHAIN event for the first of the
    /// second.
    pub chain_across_ranges: bool,
    /// The flag of the cycle counter freezes the first range, as in the Arm ARM's pseudocode of 2023;
    /// PMCR_EL0.FZO's text and later pseudocode (`CheckPMUOverflowCondition`) leave it out.
    pub freeze_on_cycle_counter: bool,
}

impl Default for Choices {
    fn default() -> Self {
        Self {
            absent_counter: Constrained::Undefined,
            reserved_counter: Constrained::Undefined,
            bad_hpmn: BadHpmn::AllCounters,
            chain_across_ranges: true,
            freeze_on_cycle_counter: false,
        }
    }
}

/// What an access that is CONSTRAINED UNPREDICTABLE does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Constrained {
    /// It is UNDEFINED. Linux and KVM expect no more than that it does no harm.
    Undefined,
    /// It reads zero and ignores writes.
    RazWi,
    /// It traps to EL2, where it is allowed to.
    Trap,
}

/// Counters of the first range when HPMN is out of range.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum BadHpmn {
    /// All N: nothing is reserved for EL2, as when Linux has not written HPMN.
    AllCounters,
    /// None.
    NoCounters,
}

/// A feature that no CPU can have.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum BadFeature {
    /// There is no feature of this name.
    Unknown(String),
    /// Its value is out of range.
    OutOfRange {
        /// The feature's name.
        name: String,
        /// Its value.
        value: u64,
        /// The values that it can have.
        range: &'static str,
    },
}

impl std::fmt::Display for BadFeature {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Unknown(name) => write!(f, "unknown feature {name}"),
            Self::OutOfRange { name, value, range } => write!(f, "{name} = {value}: {range}"),
        }
    }
}

impl std::error::Error for BadFeature {}

const COUNTERS: &str = "0 to 31";
const PMUVER: &str = "1, or 4 to 9 (ID_AA64DFR0_EL1.PMUVer)";
const FGT: &str = "0, 1 (FEAT_FGT) or 2 (FEAT_FGT2)";
const FLAG: &str = "0 or 1";
const CONSTRAINED: &str = "0 (UNDEFINED), 1 (RAZ/WI) or 2 (trap to EL2)";

impl Features {
    /// Refuses what no CPU can have.
    ///
    /// # Errors
    /// Names the feature and its range.
    pub fn check(&self) -> Result<(), BadFeature> {
        for (name, value, possible, range) in [
            ("counters", self.counters, self.counters <= EVENT_COUNTERS, COUNTERS),
            ("pmuver", self.pmuver, matches!(self.pmuver, 1 | PMUV3P1..=PMUV3P9), PMUVER),
            ("fgt", self.fgt, self.fgt <= 2, FGT),
        ] {
            if !possible {
                return Err(BadFeature::OutOfRange { name: name.to_owned(), value: u64::from(value), range });
            }
        }
        Ok(())
    }

    /// At least this `FEAT_PMUv3` version.
    #[inline]
    #[must_use]
    pub const fn has(&self, pmuver: u8) -> bool {
        self.pmuver >= pmuver
    }

    /// Is it a common event that `PMCEID<n>_EL0` names, or one beyond these registers?
    #[must_use]
    pub fn implements(&self, event: u16) -> bool {
        let (register, bit) = match event {
            0..0x20 => (self.pmceid0, event),
            0x20..0x40 => (self.pmceid1, event - 0x20),
            0x4000..0x4020 => (self.pmceid0, event - 0x4000 + 32),
            0x4020..0x4040 => (self.pmceid1, event - 0x4020 + 32),
            _ => return true,
        };
        register.is_none_or(|implemented| implemented >> bit & 1 != 0)
    }

    /// Sets one by name, as Python passes them.
    ///
    /// # Errors
    /// The name is unknown or the value is out of range.
    pub fn set(&mut self, name: &str, value: u64) -> Result<(), BadFeature> {
        let refuse = |range| BadFeature::OutOfRange { name: name.to_owned(), value, range };
        let flag = || match value {
            0 => Ok(false),
            1 => Ok(true),
            _ => Err(refuse(FLAG)),
        };
        let small = |range| u8::try_from(value).map_err(|_| refuse(range));
        let constrained = || match value {
            0 => Ok(Constrained::Undefined),
            1 => Ok(Constrained::RazWi),
            2 => Ok(Constrained::Trap),
            _ => Err(refuse(CONSTRAINED)),
        };
        match name {
            "counters" => self.counters = small(COUNTERS)?,
            "pmuver" => self.pmuver = small(PMUVER)?,
            "fgt" => self.fgt = small(FGT)?,
            "hpmn0" => self.hpmn0 = flag()?,
            "icntr" => self.icntr = flag()?,
            "th" => self.th = flag()?,
            "mtpmu" => self.mtpmu = flag()?,
            "ss" => self.ss = flag()?,
            "el3" => self.el3 = flag()?,
            "sel2" => self.sel2 = flag()?,
            "aarch32" => self.aarch32 = flag()?,
            "vhe" => self.vhe = flag()?,
            "pmcr_id" => self.pmcr_id = value,
            "pmceid0" => self.pmceid0 = Some(value),
            "pmceid1" => self.pmceid1 = Some(value),
            "pmmir" => self.pmmir = value,
            "pmi_delay" => self.pmi_delay = value,
            "absent_counter" => self.choices.absent_counter = constrained()?,
            "reserved_counter" => self.choices.reserved_counter = constrained()?,
            "bad_hpmn" => {
                self.choices.bad_hpmn = if flag()? { BadHpmn::NoCounters } else { BadHpmn::AllCounters };
            }
            "chain_across_ranges" => self.choices.chain_across_ranges = flag()?,
            "freeze_on_cycle_counter" => self.choices.freeze_on_cycle_counter = flag()?,
            _ => return Err(BadFeature::Unknown(name.to_owned())),
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn features_are_set_by_name() {
        let mut features = Features::default();
        features.set("counters", 31).expect("in range");
        features.set("bad_hpmn", 1).expect("in range");
        features.set("reserved_counter", 2).expect("in range");
        assert_eq!(features.counters, 31);
        assert_eq!(features.choices.bad_hpmn, BadHpmn::NoCounters);
        assert_eq!(features.choices.reserved_counter, Constrained::Trap);
    }

    #[test]
    fn pmceid_says_what_of_the_common_events_is_implemented() {
        let features =
            Features { pmceid0: Some(1 << 8 | 1 << 37), pmceid1: Some(1 << 1), ..Features::default() };
        let implemented = |event| features.implements(event);
        assert!([0x08, 0x21, 0x4005, 0xc2, 0x8040].into_iter().all(implemented));
        assert!(![0x09, 0x22, 0x4004, 0x4021].into_iter().any(implemented));
        assert!(Features::default().implements(0x22), "what is not said is there");
    }

    #[test]
    fn what_no_cpu_can_have_is_refused_by_name() {
        let refused = |name: &str, value| Features::default().set(name, value).unwrap_err().to_string();
        assert_eq!(refused("speed", 1), "unknown feature speed");
        assert_eq!(refused("hpmn0", 2), "hpmn0 = 2: 0 or 1");
        assert_eq!(refused("counters", 256), "counters = 256: 0 to 31");
        for (name, value) in [("counters", 32), ("pmuver", 2), ("pmuver", 10), ("fgt", 3)] {
            let mut features = Features::default();
            features.set(name, value).expect("it fits");
            assert!(features.check().unwrap_err().to_string().starts_with(&format!("{name} = {value}: ")));
        }
    }
}
