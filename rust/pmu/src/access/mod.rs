//! Which accesses are allowed, and where the others go: two tables that the code runs on.
//!
//! [`ROWS`] has one row per register: who may read and write it, and which controls trap it.
//! [`RULES`] are applied to an access in order; the first that applies decides, and an access to
//! which none applies is executed. The value of an executed access is another matter
//! ([`crate::registers`]): a row's [`View`] says whether MDCR_EL2.HPMN masks it.
//!
//! `D24.5` and `J1.3` in a source are sections of the Arm ARM, DDI 0487.

mod rows;
mod rules;

pub use rows::ROWS;
pub use rules::{RULES, Rule};

use crate::feature::{Constrained, Features, PMUV3P9};
use crate::field::{hcr_el2, pmuserenr};
use crate::register::{Kind, Register, iss};
use crate::registers::{CYCLE, INSTRUCTION};

/// Where an access goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It is executed.
    Executed,
    /// It reads zero; a write is ignored.
    RazWi,
    /// It is UNDEFINED: an exception with EC 0 to this exception level.
    Undefined(u8),
    /// It is trapped: an exception with EC 0x18 to this exception level.
    Trapped(u8),
}

impl Outcome {
    /// `ESR_ELx` of the exception, 0 if there is none. IL is 1; `Rt` is 0.
    #[must_use]
    pub const fn esr(self, encoding: u16, write: bool) -> u64 {
        match self {
            Self::Trapped(_) => 0x18 << 26 | 1 << 25 | iss(encoding, write),
            Self::Undefined(_) => 1 << 25,
            Self::Executed | Self::RazWi => 0,
        }
    }
}

/// Which bits of a register an access sees.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum View {
    /// All.
    Whole,
    /// Those of the counters that are accessible at the exception level; the others are RAZ/WI.
    AccessibleCounters,
    /// Value and effect depend on how many counters are accessible (PMCR_EL0.N, P).
    AccessibleCount,
}

/// Which counter a register belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Index {
    /// None, or all.
    None,
    /// The cycle counter.
    Cycle,
    /// The instruction counter.
    Instruction,
    /// The event counter in its own name.
    Name,
    /// The event counter in PMSELR_EL0.SEL.
    Selected,
    /// The event counter in PMSELR_EL0.SEL, where 31 is the cycle counter.
    SelectedOrCycle,
}

/// How an access at EL0 is allowed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum User {
    /// There is no such access: UNDEFINED at EL0.
    Never,
    /// If one of these bits of `PMUSERENR_EL0` is set, or UEN (`FEAT_PMUv3p9`).
    Enabled(u64),
    /// If `PMUSERENR_EL0`.EN is set and UEN is not.
    EnabledNotByUen,
    /// If `PMUSERENR_EL0`.UEN is set.
    ByUen,
    /// Always.
    Always,
}

/// What a register needs in order to exist.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Needs {
    /// `FEAT_PMUv3` is enough.
    Pmuv3,
    /// `FEAT_PMUv3p4`.
    Pmuv3p4,
    /// `FEAT_PMUv3p9`.
    Pmuv3p9,
    /// `FEAT_PMUv3_ICNTR`.
    Icntr,
    /// `FEAT_PMUv3_SS` (or `FEAT_EBEP`, which the model does not have).
    Ss,
    /// `FEAT_FGT`.
    Fgt,
    /// `FEAT_FGT2`.
    Fgt2,
    /// EL3.
    El3,
}

/// One register: who may access it and which controls trap it.
#[derive(Clone, Copy, Debug)]
pub struct Row {
    /// The register.
    pub kind: Kind,
    /// What it needs.
    pub needs: Needs,
    /// Lowest exception level of the controls proper, EL0 apart: 1, 2 or 3.
    pub lowest_el: u8,
    /// Whether there is a read, and how EL0 gets it.
    pub read: Option<User>,
    /// Whether there is a write, and how EL0 gets it.
    pub write: Option<User>,
    /// MDCR_EL2.TPM and MDCR_EL3.TPM trap it.
    pub tpm: bool,
    /// Bit of `HDFGRTR_EL2` that traps reads, 0 for none; of `HDFGRTR2_EL2` if `fgt2`.
    pub fgt_read: u64,
    /// Bit of `HDFGWTR_EL2` that traps writes, 0 for none; of `HDFGWTR2_EL2` if `fgt2`.
    pub fgt_write: u64,
    /// The bits are those of `FEAT_FGT2`, which trap if they are 0.
    pub fgt2: bool,
    /// MDCR_EL3.EnPM2 traps it if it is 0.
    pub en_pm2: bool,
    /// Its counter.
    pub index: Index,
    /// What an executed access sees.
    pub view: View,
    /// The register's name, and so its page in the Arm ARM.
    pub page: &'static str,
    /// The register's page was not at hand, or is followed in part.
    pub unverified: bool,
}

/// The controls that decide accesses.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Controls {
    /// `PMUSERENR_EL0`
    pub pmuserenr: u64,
    /// `PMUACR_EL1`
    pub pmuacr: u64,
    /// PMSELR_EL0.SEL
    pub sel: u8,
    /// `MDCR_EL2`
    pub mdcr_el2: u64,
    /// `HCR_EL2`
    pub hcr_el2: u64,
    /// `HDFGRTR_EL2`
    pub hdfgrtr: u64,
    /// `HDFGWTR_EL2`
    pub hdfgwtr: u64,
    /// `HDFGRTR2_EL2`
    pub hdfgrtr2: u64,
    /// `HDFGWTR2_EL2`
    pub hdfgwtr2: u64,
    /// `MDCR_EL3`
    pub mdcr_el3: u64,
}

/// One access, with all that decides it.
pub struct Access<'a> {
    /// The register's row.
    pub row: &'a Row,
    /// Index in the register's name.
    pub index: u8,
    /// PSTATE.EL.
    pub el: u8,
    /// A write.
    pub write: bool,
    /// Controls.
    pub controls: &'a Controls,
    /// Features.
    pub features: &'a Features,
    /// How many event counters are accessible at EL1 and EL0.
    pub accessible: u8,
}

impl<'a> Access<'a> {
    /// An access to `register`.
    #[must_use]
    pub fn new(
        register: Register,
        el: u8,
        write: bool,
        controls: &'a Controls,
        features: &'a Features,
        accessible: u8,
    ) -> Self {
        let row = &ROWS[register.kind() as usize];
        Self { row, index: register.index(), el, write, controls, features, accessible }
    }

    fn user(&self) -> Option<User> {
        if self.write { self.row.write } else { self.row.read }
    }

    /// The event counter that is accessed; `None` if none is, or the cycle or instruction counter.
    fn counter(&self) -> Option<u8> {
        match self.row.index {
            Index::None | Index::Cycle | Index::Instruction => None,
            Index::Name => Some(self.index),
            Index::Selected => Some(self.controls.sel),
            Index::SelectedOrCycle => (self.controls.sel != 31).then_some(self.controls.sel),
        }
    }

    /// The bit of the counter that is accessed in `PMUACR_EL1`, and the bit of `PMUSERENR_EL0`
    /// that makes it read-only.
    fn user_control(&self) -> Option<(u64, u64)> {
        if let Some(n) = self.counter() {
            return Some((1 << n, pmuserenr::ER));
        }
        match self.row.index {
            Index::Cycle | Index::SelectedOrCycle => Some((1 << CYCLE, pmuserenr::CR)),
            Index::Instruction => Some((1 << INSTRUCTION, pmuserenr::IR)),
            _ => None,
        }
    }

    fn uen(&self) -> bool {
        self.features.has(PMUV3P9) && self.controls.pmuserenr & pmuserenr::UEN != 0
    }

    fn tge(&self) -> bool {
        self.controls.hcr_el2 & hcr_el2::TGE != 0
    }

    /// EL0 belongs to a host at EL2.
    fn host_el0(&self) -> bool {
        const HOST: u64 = hcr_el2::E2H | hcr_el2::TGE;
        self.el == 0 && self.controls.hcr_el2 & HOST == HOST
    }

    /// The level that takes an exception which is not EL2's or EL3's by a control.
    fn own_level(&self) -> u8 {
        match self.el {
            0 if self.tge() => 2,
            0 => 1,
            el => el,
        }
    }

    fn constrained(&self, choice: Constrained) -> Outcome {
        match choice {
            Constrained::RazWi => Outcome::RazWi,
            Constrained::Trap if self.el < 2 => Outcome::Trapped(2),
            Constrained::Undefined | Constrained::Trap => Outcome::Undefined(self.own_level()),
        }
    }
}

/// Decides an access: where it goes, and the index in [`RULES`] of the rule that decided.
#[must_use]
pub fn decide(access: &Access) -> (Outcome, Option<usize>) {
    RULES
        .iter()
        .position(|rule| (rule.applies)(access))
        .map_or((Outcome::Executed, None), |i| ((RULES[i].outcome)(access), Some(i)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_syndrome_has_the_class_the_length_and_of_a_trap_the_access() {
        let encoding = Register::of(Kind::Pmcr).encoding();
        assert_eq!(Outcome::Trapped(2).esr(encoding, false), 0x6230_e419);
        assert_eq!(Outcome::Undefined(1).esr(encoding, false), 0x0200_0000);
        assert_eq!(Outcome::RazWi.esr(encoding, false), 0);
    }

    #[test]
    fn a_constrained_trap_needs_a_level_above() {
        let (controls, features) = (Controls::default(), Features::default());
        let at = |el| {
            Access::new(Register::pmevcntr(0), el, false, &controls, &features, 6)
                .constrained(Constrained::Trap)
        };
        assert_eq!([at(0), at(1), at(2)], [Outcome::Trapped(2), Outcome::Trapped(2), Outcome::Undefined(2)]);
    }
}
