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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::register::Register;

    #[test]
    fn every_kind_has_its_row() {
        for register in Register::all() {
            let row = &ROWS[register.kind() as usize];
            assert_eq!(row.kind, register.kind());
            assert_eq!(row.page.replace("<n>", &register.index().to_string()), register.name());
        }
    }

    #[test]
    fn the_pmu_s_traps_are_for_the_pmu_s_registers_only() {
        for row in &ROWS {
            let control = row.lowest_el > 1 || row.unverified;
            assert_eq!(row.tpm, !control, "{}", row.page);
            assert!(!control || row.fgt_read | row.fgt_write == 0, "{}", row.page);
        }
    }

    #[test]
    fn there_is_a_fine_grained_trap_for_every_access_but_reads_of_pmcr() {
        for row in ROWS.iter().filter(|row| row.tpm) {
            let trapped = [(row.read, row.fgt_read), (row.write, row.fgt_write)];
            let expected = [row.kind != Kind::Pmcr, true];
            for ((access, bit), expected) in trapped.into_iter().zip(expected) {
                assert!(access.is_none() || (bit != 0) == expected, "{}", row.page);
            }
        }
    }

    #[test]
    fn registers_share_a_fine_grained_trap_only_where_they_share_its_subject() {
        let sharing = |bit: u64, fgt2: bool| {
            let rows =
                ROWS.iter().filter(|row| row.fgt2 == fgt2 && (row.fgt_read | row.fgt_write) & bit != 0);
            rows.map(|row| row.page).collect::<Vec<_>>()
        };
        assert_eq!(sharing(hdfgtr::PMCNTEN, false), ["PMCNTENSET_EL0", "PMCNTENCLR_EL0"]);
        assert_eq!(sharing(hdfgtr::PMOVS, false), ["PMOVSCLR_EL0", "PMOVSSET_EL0"]);
        assert_eq!(sharing(hdfgtr::PMINTEN, false), ["PMINTENSET_EL1", "PMINTENCLR_EL1"]);
        assert_eq!(sharing(hdfgtr::PMEVCNTRN, false), ["PMXEVCNTR_EL0", "PMEVCNTR<n>_EL0"]);
        assert_eq!(sharing(hdfgtr::PMEVTYPERN, false), ["PMXEVTYPER_EL0", "PMEVTYPER<n>_EL0"]);
        assert_eq!(sharing(hdfgtr::PMCCFILTR, false), ["PMCCFILTR_EL0"]);
        assert_eq!(sharing(hdfgtr::PMCEIDN, false), ["PMCEID0_EL0", "PMCEID1_EL0"]);
        assert_eq!(sharing(hdfgtr2::N_PMICNTR, true), ["PMICNTR_EL0"]);
    }

    #[test]
    fn er_and_cr_let_el0_read_counters_and_write_none() {
        let counters = [Kind::Pmevcntr, Kind::Pmxevcntr, Kind::Pmccntr].map(|kind| &ROWS[kind as usize]);
        for row in counters {
            let bit = if row.kind == Kind::Pmccntr { CR } else { ER };
            assert_eq!(row.read, Some(User::Enabled(EN | bit)), "{}", row.page);
            assert_eq!(row.write, Some(User::Enabled(EN)), "{}", row.page);
        }
    }
}
