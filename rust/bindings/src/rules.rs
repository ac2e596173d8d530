//! The tables of `pmu::access`, as `pmulab registers` and `pmulab explain` show them.

use std::collections::BTreeMap;

use pmu::access::{Index, Needs, Outcome, ROWS, RULES, User, View};
use pmu::register::{KINDS, Register};
use pyo3::exceptions::PyKeyError;
use pyo3::prelude::*;

use crate::machine::{features, value_error};

/// One row of the register table.
#[pyclass(module = "services._pmu", frozen, get_all)]
pub struct Row {
    name: &'static str,
    encoding: u16,
    feature: &'static str,
    lowest_el: u8,
    read: bool,
    write: bool,
    user_read: String,
    user_write: String,
    tpm: bool,
    tpmcr: bool,
    trap_read: String,
    trap_write: String,
    index: &'static str,
    view: &'static str,
    unverified: bool,
}

/// One rule of the access table.
#[pyclass(module = "services._pmu", frozen, get_all)]
#[derive(Clone)]
pub struct Rule {
    name: &'static str,
    text: &'static str,
    source: &'static str,
    unverified: bool,
    choice: Option<&'static str>,
}

/// One field of a register.
#[pyclass(module = "services._pmu", frozen, get_all)]
pub struct Field {
    name: &'static str,
    mask: u64,
    text: &'static str,
}

/// What an access would do.
#[pyclass(module = "services._pmu", frozen, get_all)]
pub struct Explanation {
    outcome: &'static str,
    target: u8,
    esr: u64,
    rule: Option<Rule>,
    visible: Option<u64>,
    accessible: u8,
    value: Option<u64>,
}

fn feature(needs: Needs) -> &'static str {
    match needs {
        Needs::Pmuv3 => "FEAT_PMUv3",
        Needs::Pmuv3p4 => "FEAT_PMUv3p4",
        Needs::Pmuv3p9 => "FEAT_PMUv3p9",
        Needs::Icntr => "FEAT_PMUv3_ICNTR",
        Needs::Ss => "FEAT_PMUv3_SS",
        Needs::Fgt => "FEAT_FGT",
        Needs::Fgt2 => "FEAT_FGT2",
        Needs::El3 => "EL3",
    }
}

fn user(user: Option<User>) -> String {
    match user {
        None => String::new(),
        Some(User::Never) => "never".to_owned(),
        Some(User::Always) => "always".to_owned(),
        Some(User::EnabledNotByUen) => "EN, not UEN".to_owned(),
        Some(User::ByUen) => "UEN".to_owned(),
        Some(User::Enabled(mask)) => {
            let bits = pmu::field::of("PMUSERENR_EL0").filter(|field| field.mask & mask != 0);
            bits.map(|field| field.name).chain(["UEN"]).collect::<Vec<_>>().join(" ")
        }
    }
}

fn trap(register: &str, bit: u64) -> String {
    let name = pmu::field::of(register).find(|field| field.mask == bit).map(|field| field.name);
    name.map_or_else(String::new, |name| format!("{register}.{name}"))
}

/// The register table.
#[pyfunction]
pub fn register_rows() -> Vec<Row> {
    let row = |&(kind, name, encoding): &(pmu::register::Kind, &'static str, u16)| {
        let row = &ROWS[kind as usize];
        let (trap_read, trap_write) =
            if row.fgt2 { ("HDFGRTR2_EL2", "HDFGWTR2_EL2") } else { ("HDFGRTR_EL2", "HDFGWTR_EL2") };
        Row {
            name,
            encoding,
            feature: feature(row.needs),
            lowest_el: row.lowest_el,
            read: row.read.is_some(),
            write: row.write.is_some(),
            user_read: user(row.read),
            user_write: user(row.write),
            tpm: row.tpm,
            tpmcr: kind == pmu::register::Kind::Pmcr,
            trap_read: trap(trap_read, row.fgt_read),
            trap_write: trap(trap_write, row.fgt_write),
            index: match row.index {
                Index::None => "",
                Index::Cycle => "cycle counter",
                Index::Instruction => "instruction counter",
                Index::Name => "n",
                Index::Selected => "PMSELR_EL0.SEL",
                Index::SelectedOrCycle => "PMSELR_EL0.SEL, 31 the cycle counter",
            },
            view: match row.view {
                View::Whole => "",
                View::AccessibleCounters => "bits of accessible counters",
                View::AccessibleCount => "number of accessible counters",
            },
            unverified: row.unverified,
        }
    };
    KINDS.iter().map(row).collect()
}

fn rule(rule: &pmu::access::Rule) -> Rule {
    Rule {
        name: rule.name,
        text: rule.text,
        source: rule.source,
        unverified: rule.unverified,
        choice: rule.choice,
    }
}

/// The access rules, in the order in which they are applied.
#[pyfunction]
pub fn rules() -> Vec<Rule> {
    RULES.iter().map(rule).collect()
}

/// The fields of a register.
#[pyfunction]
pub fn register_fields(name: &str) -> PyResult<Vec<Field>> {
    register(name)?;
    Ok(pmu::field::of(name).map(|f| Field { name: f.name, mask: f.mask, text: f.text.trim() }).collect())
}

fn register(name: &str) -> PyResult<Register> {
    Register::by_name(name).ok_or_else(|| PyKeyError::new_err(name.to_owned()))
}

/// What an access would do, and by which rule.
#[pyfunction]
#[pyo3(signature = (register, el, *, write, features, settings))]
#[expect(clippy::needless_pass_by_value, reason = "PyO3 extracts mappings into maps")]
pub fn explain(
    register: &str,
    el: u8,
    write: bool,
    features: BTreeMap<String, u64>,
    settings: BTreeMap<String, u64>,
) -> PyResult<Explanation> {
    let settings = settings.iter().map(|(name, &value)| Ok((self::register(name)?, value)));
    let settings = settings.collect::<PyResult<Vec<_>>>()?;
    let features = self::features(&features)?;
    let explanation = pmu::explain::explain(features, &settings, self::register(register)?, el, write);
    let explanation = explanation.map_err(value_error)?;
    let (outcome, target) = match explanation.outcome {
        Outcome::Executed => ("executed", el),
        Outcome::RazWi => ("RAZ/WI", el),
        Outcome::Undefined(target) => ("UNDEFINED", target),
        Outcome::Trapped(target) => ("trapped", target),
    };
    Ok(Explanation {
        outcome,
        target,
        esr: explanation.esr,
        rule: explanation.rule.map(|index| rule(&RULES[index])),
        visible: explanation.visible,
        accessible: explanation.accessible,
        value: explanation.value,
    })
}
