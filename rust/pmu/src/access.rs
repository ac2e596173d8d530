//! Which accesses are allowed, and where the others go: two tables that the code runs on.
//!
//! [`ROWS`] has one row per register: who may read and write it, and which controls trap it.
//! [`RULES`] are applied to an access in order; the first that applies decides, and an access to
//! which none applies is executed. The value of an executed access is another matter
//! ([`crate::registers`]): a row's [`View`] says whether MDCR_EL2.HPMN masks it.
//!
//! `D24.5` and `J1.3` in a source are sections of the Arm ARM, DDI 0487.

use crate::feature::{Constrained, Features, PMUV3P4, PMUV3P9};
use crate::field::{hcr_el2, hdfgtr, hdfgtr2, mdcr_el2, mdcr_el3, pmuserenr};
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

use pmuserenr::{CR, EN, ER, SW};

const BASE: Row = Row {
    kind: Kind::Pmcr,
    needs: Needs::Pmuv3,
    lowest_el: 1,
    read: Some(User::Enabled(EN)),
    write: Some(User::Enabled(EN)),
    tpm: true,
    fgt_read: 0,
    fgt_write: 0,
    fgt2: false,
    en_pm2: false,
    index: Index::None,
    view: View::Whole,
    page: "",
    unverified: false,
};

const fn el0(kind: Kind, page: &'static str, fgt: u64) -> Row {
    Row { kind, page, fgt_read: fgt, fgt_write: fgt, ..BASE }
}

const fn el1(kind: Kind, page: &'static str, fgt: u64) -> Row {
    Row { read: Some(User::Never), write: Some(User::Never), ..el0(kind, page, fgt) }
}

const fn control(kind: Kind, page: &'static str, needs: Needs, lowest_el: u8) -> Row {
    Row { needs, lowest_el, tpm: false, ..el1(kind, page, 0) }
}

/// A register of another extension, with as much of its access rules as a PMU driver meets.
const fn simplified(kind: Kind, page: &'static str) -> Row {
    Row { unverified: true, ..control(kind, page, Needs::Pmuv3, 1) }
}

const fn second(row: Row, needs: Needs) -> Row {
    Row { needs, fgt2: true, en_pm2: true, ..row }
}

const fn of(index: Index, row: Row) -> Row {
    Row { index, ..row }
}

const fn by_uen(row: Row) -> Row {
    Row { read: Some(User::ByUen), write: Some(User::ByUen), ..row }
}

const fn per_counter(row: Row) -> Row {
    Row { view: View::AccessibleCounters, ..row }
}

/// One row per kind of register, in the order of [`Kind`].
pub static ROWS: [Row; Kind::Pmevtyper as usize + 1] = [
    Row {
        read: Some(User::EnabledNotByUen),
        write: Some(User::EnabledNotByUen),
        fgt_read: 0,
        view: View::AccessibleCount,
        ..el0(Kind::Pmcr, "PMCR_EL0", hdfgtr::PMCR)
    },
    per_counter(el0(Kind::Pmcntenset, "PMCNTENSET_EL0", hdfgtr::PMCNTEN)),
    per_counter(el0(Kind::Pmcntenclr, "PMCNTENCLR_EL0", hdfgtr::PMCNTEN)),
    per_counter(el0(Kind::Pmovsclr, "PMOVSCLR_EL0", hdfgtr::PMOVS)),
    Row {
        read: None,
        write: Some(User::Enabled(EN | SW)),
        ..per_counter(el0(Kind::Pmswinc, "PMSWINC_EL0", hdfgtr::PMSWINC))
    },
    Row {
        read: Some(User::Enabled(EN | ER)),
        write: Some(User::Enabled(EN | ER)),
        ..el0(Kind::Pmselr, "PMSELR_EL0", hdfgtr::PMSELR)
    },
    Row { write: None, ..el0(Kind::Pmceid0, "PMCEID0_EL0", hdfgtr::PMCEIDN) },
    Row { write: None, ..el0(Kind::Pmceid1, "PMCEID1_EL0", hdfgtr::PMCEIDN) },
    Row {
        read: Some(User::Enabled(EN | CR)),
        ..of(Index::Cycle, el0(Kind::Pmccntr, "PMCCNTR_EL0", hdfgtr::PMCCNTR))
    },
    of(Index::SelectedOrCycle, el0(Kind::Pmxevtyper, "PMXEVTYPER_EL0", hdfgtr::PMEVTYPERN)),
    Row {
        read: Some(User::Enabled(EN | ER)),
        ..of(Index::Selected, el0(Kind::Pmxevcntr, "PMXEVCNTR_EL0", hdfgtr::PMEVCNTRN))
    },
    Row {
        read: None,
        fgt_read: 0,
        en_pm2: false,
        ..per_counter(second(el0(Kind::Pmzr, "PMZR_EL0", hdfgtr2::N_PMZR), Needs::Pmuv3p9))
    },
    Row {
        read: Some(User::Always),
        write: Some(User::Never),
        ..el0(Kind::Pmuserenr, "PMUSERENR_EL0", hdfgtr::PMUSERENR)
    },
    per_counter(el0(Kind::Pmovsset, "PMOVSSET_EL0", hdfgtr::PMOVS)),
    of(
        Index::Instruction,
        by_uen(second(el0(Kind::Pmicntr, "PMICNTR_EL0", hdfgtr2::N_PMICNTR), Needs::Icntr)),
    ),
    of(
        Index::Instruction,
        by_uen(second(el0(Kind::Pmicfiltr, "PMICFILTR_EL0", hdfgtr2::N_PMICFILTR), Needs::Icntr)),
    ),
    per_counter(el1(Kind::Pmintenset, "PMINTENSET_EL1", hdfgtr::PMINTEN)),
    per_counter(el1(Kind::Pmintenclr, "PMINTENCLR_EL1", hdfgtr::PMINTEN)),
    per_counter(second(el1(Kind::Pmuacr, "PMUACR_EL1", hdfgtr2::N_PMUACR), Needs::Pmuv3p9)),
    second(el1(Kind::Pmecr, "PMECR_EL1", hdfgtr2::N_PMECR), Needs::Ss),
    Row { needs: Needs::Pmuv3p4, write: None, ..el1(Kind::Pmmir, "PMMIR_EL1", hdfgtr::PMMIR) },
    of(Index::Cycle, el0(Kind::Pmccfiltr, "PMCCFILTR_EL0", hdfgtr::PMCCFILTR)),
    control(Kind::MdcrEl2, "MDCR_EL2", Needs::Pmuv3, 2),
    control(Kind::HcrEl2, "HCR_EL2", Needs::Pmuv3, 2),
    control(Kind::Hdfgrtr, "HDFGRTR_EL2", Needs::Fgt, 2),
    control(Kind::Hdfgwtr, "HDFGWTR_EL2", Needs::Fgt, 2),
    control(Kind::Hdfgrtr2, "HDFGRTR2_EL2", Needs::Fgt2, 2),
    control(Kind::Hdfgwtr2, "HDFGWTR2_EL2", Needs::Fgt2, 2),
    control(Kind::MdcrEl3, "MDCR_EL3", Needs::El3, 3),
    Row { read: None, ..simplified(Kind::IccSgi1r, "ICC_SGI1R_EL1") },
    Row { write: None, ..simplified(Kind::IdAa64dfr0, "ID_AA64DFR0_EL1") },
    Row { write: None, ..simplified(Kind::IdAa64dfr1, "ID_AA64DFR1_EL1") },
    Row {
        read: Some(User::Enabled(EN | ER)),
        ..of(Index::Name, el0(Kind::Pmevcntr, "PMEVCNTR<n>_EL0", hdfgtr::PMEVCNTRN))
    },
    of(Index::Name, el0(Kind::Pmevtyper, "PMEVTYPER<n>_EL0", hdfgtr::PMEVTYPERN)),
];

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
            return Some((1 << n, ER));
        }
        match self.row.index {
            Index::Cycle | Index::SelectedOrCycle => Some((1 << CYCLE, CR)),
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

/// A rule: when it applies and what then happens.
pub struct Rule {
    /// Short name.
    pub name: &'static str,
    /// In words.
    pub text: &'static str,
    /// Register page and field in the Arm ARM.
    pub source: &'static str,
    /// The page was not at hand, or is followed in part.
    pub unverified: bool,
    /// The architecture leaves a choice here: its name among the features.
    pub choice: Option<&'static str>,
    applies: fn(&Access) -> bool,
    outcome: fn(&Access) -> Outcome,
}

const fn rule(
    name: &'static str,
    text: &'static str,
    source: &'static str,
    applies: fn(&Access) -> bool,
    outcome: fn(&Access) -> Outcome,
) -> Rule {
    Rule { name, text, source, unverified: false, choice: None, applies, outcome }
}

fn undefined(access: &Access) -> Outcome {
    Outcome::Undefined(access.own_level())
}

fn to_own_level(access: &Access) -> Outcome {
    Outcome::Trapped(access.own_level())
}

fn to_el2(_: &Access) -> Outcome {
    Outcome::Trapped(2)
}

fn to_el3(_: &Access) -> Outcome {
    Outcome::Trapped(3)
}

/// The rules, in the order in which they are applied.
pub static RULES: &[Rule] = &[
    rule(
        "absent register",
        "a register whose feature is not implemented is UNDEFINED",
        "the register's page, Configurations",
        |a| match a.row.needs {
            Needs::Pmuv3 => false,
            Needs::Pmuv3p4 => !a.features.has(PMUV3P4),
            Needs::Pmuv3p9 => !a.features.has(PMUV3P9),
            Needs::Icntr => !a.features.icntr,
            Needs::Ss => !a.features.ss,
            Needs::Fgt => a.features.fgt < 1,
            Needs::Fgt2 => a.features.fgt < 2,
            Needs::El3 => !a.features.el3,
        },
        undefined,
    ),
    rule(
        "no such access",
        "reads of a write-only register, writes of a read-only one, and accesses below the register's exception level are UNDEFINED",
        "the register's page, Accessing",
        |a| match a.user() {
            None => true,
            Some(user) => a.el < a.row.lowest_el && (a.el > 0 || user == User::Never),
        },
        undefined,
    ),
    rule(
        "absent counter",
        "an event counter that is not implemented is UNDEFINED",
        "PMEVCNTR<n>_EL0, Accessing: n >= NUM_PMU_COUNTERS, FEAT_FGT",
        |a| a.features.fgt > 0 && a.counter().is_some_and(|n| n >= a.features.counters),
        undefined,
    ),
    Rule {
        choice: Some("absent_counter"),
        ..rule(
            "absent counter, no FEAT_FGT",
            "an event counter that is not implemented is CONSTRAINED UNPREDICTABLE",
            "PMEVCNTR<n>_EL0, Accessing: n >= NUM_PMU_COUNTERS",
            |a| a.counter().is_some_and(|n| n >= a.features.counters),
            |a| a.constrained(a.features.choices.absent_counter),
        )
    },
    rule(
        "user enable",
        "EL0 needs a bit of PMUSERENR_EL0: UEN (except PMCR_EL0, which it traps), or unless it is about the instruction counter EN, SW, CR or ER; the trap goes to EL1, or to EL2 if HCR_EL2.TGE is 1",
        "PMUSERENR_EL0.{EN,SW,CR,ER,UEN}",
        |a| {
            let userenr = a.controls.pmuserenr;
            a.el == 0
                && match a.user() {
                    Some(User::Enabled(mask)) => userenr & mask == 0 && !a.uen(),
                    Some(User::EnabledNotByUen) => userenr & EN == 0 || a.uen(),
                    Some(User::ByUen) => !a.uen(),
                    Some(User::Never | User::Always) | None => false,
                }
        },
        to_own_level,
    ),
    rule(
        "user identification",
        "PMUSERENR_EL0.TID traps EL0 reads of PMCEID0_EL0 and PMCEID1_EL0",
        "PMUSERENR_EL0.TID",
        |a| {
            a.el == 0
                && a.features.has(PMUV3P9)
                && a.controls.pmuserenr & pmuserenr::TID != 0
                && matches!(a.row.kind, Kind::Pmceid0 | Kind::Pmceid1)
        },
        to_own_level,
    ),
    rule(
        "fine-grained trap",
        "HDFGRTR_EL2 and HDFGWTR_EL2 trap EL1, and EL0 unless HCR_EL2.{E2H,TGE} is {1,1}",
        "HDFGRTR_EL2, HDFGWTR_EL2",
        |a| {
            let (bit, bits) = if a.write {
                (a.row.fgt_write, a.controls.hdfgwtr)
            } else {
                (a.row.fgt_read, a.controls.hdfgrtr)
            };
            a.features.fgt > 0 && !a.row.fgt2 && bits & bit != 0 && a.el < 2 && !a.host_el0()
        },
        to_el2,
    ),
    rule(
        "fine-grained trap 2",
        "a 0 in HDFGRTR2_EL2 or HDFGWTR2_EL2 traps EL1, and EL0 unless HCR_EL2.{E2H,TGE} is {1,1}",
        "HDFGRTR2_EL2, HDFGWTR2_EL2",
        |a| {
            let (bit, bits) = if a.write {
                (a.row.fgt_write, a.controls.hdfgwtr2)
            } else {
                (a.row.fgt_read, a.controls.hdfgrtr2)
            };
            a.features.fgt > 1 && a.row.fgt2 && bit & !bits != 0 && a.el < 2 && !a.host_el0()
        },
        to_el2,
    ),
    rule(
        "trap all",
        "MDCR_EL2.TPM traps EL1 and EL0, a VHE host's EL0 too",
        "MDCR_EL2.TPM",
        |a| a.row.tpm && a.el < 2 && a.controls.mdcr_el2 & mdcr_el2::TPM != 0,
        to_el2,
    ),
    rule(
        "trap PMCR_EL0",
        "MDCR_EL2.TPMCR traps PMCR_EL0 at EL1 and EL0",
        "MDCR_EL2.TPMCR",
        |a| a.row.kind == Kind::Pmcr && a.el < 2 && a.controls.mdcr_el2 & mdcr_el2::TPMCR != 0,
        to_el2,
    ),
    rule(
        "reserved counter",
        "at EL1 and EL0 an event counter of HPMN or above traps",
        "PMEVCNTR<n>_EL0, Accessing: n >= MDCR_EL2.HPMN, FEAT_FGT",
        |a| a.features.fgt > 0 && a.el < 2 && a.counter().is_some_and(|n| n >= a.accessible),
        to_el2,
    ),
    Rule {
        choice: Some("reserved_counter"),
        ..rule(
            "reserved counter, no FEAT_FGT",
            "at EL1 and EL0 an event counter of HPMN or above is CONSTRAINED UNPREDICTABLE",
            "PMEVCNTR<n>_EL0, Accessing: n >= MDCR_EL2.HPMN",
            |a| a.el < 2 && a.counter().is_some_and(|n| n >= a.accessible),
            |a| a.constrained(a.features.choices.reserved_counter),
        )
    },
    Rule {
        unverified: true,
        ..rule(
            "software generated interrupt",
            "a guest's write of ICC_SGI1R_EL1 traps: HCR_EL2.{IMO,FMO} are set whenever KVM runs a guest",
            "ICC_SGI1R_EL1, Accessing: HCR_EL2.{IMO,FMO}",
            |a| a.row.kind == Kind::IccSgi1r && a.el < 2,
            to_el2,
        )
    },
    rule(
        "trap newer registers to EL3",
        "with MDCR_EL3.EnPM2 0 the registers of FEAT_PMUv3_ICNTR, FEAT_PMUv3_SS, and PMUACR_EL1 trap",
        "MDCR_EL3.EnPM2",
        |a| a.features.el3 && a.row.en_pm2 && a.el < 3 && a.controls.mdcr_el3 & mdcr_el3::EN_PM2 == 0,
        to_el3,
    ),
    rule(
        "trap all to EL3",
        "MDCR_EL3.TPM traps EL2, EL1 and EL0",
        "MDCR_EL3.TPM",
        |a| a.features.el3 && a.row.tpm && a.el < 3 && a.controls.mdcr_el3 & mdcr_el3::TPM != 0,
        to_el3,
    ),
    rule(
        "user access control",
        "with PMUSERENR_EL0.UEN a counter is RAZ/WI at EL0 unless PMUACR_EL1 grants it, and read-only if ER (event counters), CR (cycle counter) or IR (instruction counter) is set",
        "PMUACR_EL1.{P<m>,C,F0}, PMUSERENR_EL0.{UEN,ER,CR,IR}",
        |a| {
            a.el == 0
                && a.uen()
                && a.user_control().is_some_and(|(granted, read_only)| {
                    a.controls.pmuacr & granted == 0 || a.write && a.controls.pmuserenr & read_only != 0
                })
        },
        |_| Outcome::RazWi,
    ),
];

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
    fn every_kind_has_its_row() {
        for register in Register::all() {
            let row = &ROWS[register.kind() as usize];
            assert_eq!(row.kind, register.kind());
            assert_eq!(row.page.replace("<n>", &register.index().to_string()), register.name());
        }
    }
}
