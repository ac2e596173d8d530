//! The rules.

use super::{Access, Needs, Outcome, User};
use crate::feature::{PMUV3P4, PMUV3P9};
use crate::field::{mdcr_el2, mdcr_el3, pmuserenr};
use crate::register::Kind;

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
    pub(super) applies: fn(&Access) -> bool,
    pub(super) outcome: fn(&Access) -> Outcome,
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
                    Some(User::EnabledNotByUen) => userenr & pmuserenr::EN == 0 || a.uen(),
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

#[cfg(test)]
mod tests {
    use super::super::{Controls, decide};
    use super::*;
    use crate::cpu::Choice;
    use crate::feature::{Constrained, Features};
    use crate::field::{hcr_el2, hdfgtr};
    use crate::register::Register;

    /// All features, EL3 too, nothing trapped, EL0 enabled.
    fn open() -> (Features, Controls) {
        let features = Features { pmuver: PMUV3P9, fgt: 2, icntr: true, ss: true, ..Features::default() };
        let controls = Controls {
            pmuserenr: pmuserenr::EN,
            mdcr_el3: mdcr_el3::EN_PM2,
            hdfgrtr2: u64::MAX,
            hdfgwtr2: u64::MAX,
            ..Controls::default()
        };
        (features, controls)
    }

    /// Where an access goes, and the name of the rule that decided.
    fn goes(
        register: Register,
        el: u8,
        write: bool,
        change: impl FnOnce(&mut Features, &mut Controls),
    ) -> (Outcome, Option<&'static str>) {
        let (mut features, mut controls) = open();
        change(&mut features, &mut controls);
        let (outcome, rule) = decide(&Access::new(register, el, write, &controls, &features, 4));
        (outcome, rule.map(|rule| RULES[rule].name))
    }

    const PMCR: Register = Register::of(Kind::Pmcr);
    const PMICNTR: Register = Register::of(Kind::Pmicntr);

    #[test]
    fn each_rule_decides_what_it_says() {
        use Outcome::{RazWi, Trapped, Undefined};
        let reserved = Register::pmevcntr(4);
        let absent = Register::pmevcntr(6);
        let sgi = Register::of(Kind::IccSgi1r);
        let decided = [
            goes(PMICNTR, 2, false, |f, _| f.icntr = false),
            goes(Register::of(Kind::Pmswinc), 2, false, |_, _| ()),
            goes(absent, 2, false, |_, _| ()),
            goes(absent, 2, false, |f, _| (f.fgt, f.choices.absent_counter) = (0, Constrained::RazWi)),
            goes(PMCR, 0, false, |_, c| c.pmuserenr = 0),
            goes(Register::of(Kind::Pmceid0), 0, false, |_, c| c.pmuserenr |= pmuserenr::TID),
            goes(PMCR, 1, true, |_, c| c.hdfgwtr = hdfgtr::PMCR),
            goes(PMICNTR, 1, false, |_, c| c.hdfgrtr2 = 0),
            goes(PMCR, 1, false, |_, c| c.mdcr_el2 = mdcr_el2::TPM),
            goes(PMCR, 1, false, |_, c| c.mdcr_el2 = mdcr_el2::TPMCR),
            goes(reserved, 1, false, |_, _| ()),
            goes(reserved, 1, false, |f, _| (f.fgt, f.choices.reserved_counter) = (0, Constrained::RazWi)),
            goes(sgi, 1, true, |_, _| ()),
            goes(PMICNTR, 2, false, |_, c| c.mdcr_el3 = 0),
            goes(PMCR, 2, false, |_, c| c.mdcr_el3 |= mdcr_el3::TPM),
            goes(Register::pmevcntr(0), 0, false, |_, c| c.pmuserenr = pmuserenr::UEN),
        ];
        let outcomes = [
            Undefined(2),
            Undefined(2),
            Undefined(2),
            RazWi,
            Trapped(1),
            Trapped(1),
            Trapped(2),
            Trapped(2),
            Trapped(2),
            Trapped(2),
            Trapped(2),
            RazWi,
            Trapped(2),
            Trapped(3),
            Trapped(3),
            RazWi,
        ];
        assert_eq!(RULES.len(), outcomes.len());
        for (rule, (decided, outcome)) in RULES.iter().zip(decided.into_iter().zip(outcomes)) {
            assert_eq!(decided, (outcome, Some(rule.name)));
        }
    }

    #[test]
    fn an_access_to_which_no_rule_applies_is_executed() {
        for el in 0..3 {
            assert_eq!(goes(PMCR, el, true, |_, _| ()), (Outcome::Executed, None));
        }
    }

    #[test]
    fn the_earlier_rule_decides() {
        let all = mdcr_el2::TPM | mdcr_el2::TPMCR;
        let to = |el, pmuserenr| goes(PMCR, el, false, |_, c| (c.mdcr_el2, c.pmuserenr) = (all, pmuserenr));
        assert_eq!(to(0, 0), (Outcome::Trapped(1), Some("user enable")), "EL1 comes before EL2");
        assert_eq!(to(0, pmuserenr::EN), (Outcome::Trapped(2), Some("trap all")));
        let el2_first = goes(PMICNTR, 1, false, |_, c| (c.hdfgrtr2, c.mdcr_el3) = (0, 0));
        assert_eq!(el2_first, (Outcome::Trapped(2), Some("fine-grained trap 2")), "EL2 comes before EL3");
    }

    #[test]
    fn a_host_s_el0_is_free_of_fine_grained_traps_not_of_tpm() {
        const HOST: u64 = hcr_el2::E2H | hcr_el2::TGE;
        let fine = |hcr| goes(PMCR, 0, true, |_, c| (c.hdfgwtr, c.hcr_el2) = (hdfgtr::PMCR, hcr));
        assert_eq!(fine(hcr_el2::E2H).1, Some("fine-grained trap"));
        assert_eq!(fine(HOST).0, Outcome::Executed);
        let all = goes(PMCR, 0, true, |_, c| (c.mdcr_el2, c.hcr_el2) = (mdcr_el2::TPM, HOST));
        assert_eq!(all.1, Some("trap all"));
    }

    #[test]
    fn rules_are_told_apart_have_a_source_and_name_choices_that_there_are() {
        for (i, rule) in RULES.iter().enumerate() {
            assert!(!rule.source.is_empty() && !rule.text.is_empty(), "{}", rule.name);
            assert!(RULES[..i].iter().all(|other| other.name != rule.name), "{}", rule.name);
            let known = |choice| Choice::ALL.iter().any(|(_, name)| *name == choice);
            assert!(rule.choice.is_none_or(known), "{}", rule.name);
        }
    }
}
