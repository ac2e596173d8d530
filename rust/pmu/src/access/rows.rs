//! The registers' rows.

use super::{Index, Needs, Row, User, View};
use crate::field::{hdfgtr, hdfgtr2, pmuserenr};
use crate::register::Kind;

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
