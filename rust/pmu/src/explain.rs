//! What an access would do, and by which rule.

use crate::access::{Access, Outcome, ROWS, View, decide};
use crate::cpu::Cpu;
use crate::feature::{BadFeature, Features};
use crate::register::{Kind, Register};
use crate::tally::{Events, World};

/// The answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Explanation {
    /// Where the access goes.
    pub outcome: Outcome,
    /// The rule that decided, as an index into [`crate::access::RULES`]; `None` if no rule applies and
    /// the access is executed.
    pub rule: Option<usize>,
    /// `ESR_ELx` of the exception, 0 if there is none.
    pub esr: u64,
    /// Of a register with a bit per counter, the bits that the access sees if it is executed.
    pub visible: Option<u64>,
    /// Event counters accessible at the exception level.
    pub accessible: u8,
    /// What an executed read yields.
    pub value: Option<u64>,
}

/// A question about an access that no CPU executes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Error {
    /// No CPU can have these features.
    Features(BadFeature),
    /// The model has no such exception level.
    NoLevel(u8),
}

impl std::fmt::Display for Error {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Features(error) => error.fmt(f),
            Self::NoLevel(el) => write!(f, "EL{el}: 0, 1 or 2"),
        }
    }
}

impl std::error::Error for Error {}

/// Explains an access to `register` at `el` on a CPU whose registers have been given the values in
/// `settings`, in that order, at EL2.
///
/// # Errors
/// No CPU can have these features, or there is no such exception level.
pub fn explain(
    features: Features,
    settings: &[(Register, u64)],
    register: Register,
    el: u8,
    write: bool,
) -> Result<Explanation, Error> {
    features.check().map_err(Error::Features)?;
    if el > 2 {
        return Err(Error::NoLevel(el));
    }
    let world = World::new(Events::new(&[]), 1);
    let mut cpu = Cpu::new(0, features);
    for &(register, value) in settings {
        cpu.write(&world, register, 2, value);
    }
    let registers = cpu.registers();
    let accessible = registers.accessible(1);
    let access = Access::new(register, el, write, &registers.controls, &registers.features, accessible);
    let (outcome, rule) = decide(&access);
    let executed = outcome == Outcome::Executed;
    let visible =
        (executed && ROWS[register.kind() as usize].view == View::AccessibleCounters).then(|| {
            match (register.kind(), write) {
                (Kind::Pmswinc, _) => registers.software_increment_mask(el),
                (kind, true) => registers.write_mask(el, kind == Kind::Pmzr),
                (_, false) => registers.read_mask(el),
            }
        });
    Ok(Explanation {
        outcome,
        rule,
        esr: outcome.esr(register.encoding(), write),
        visible,
        accessible: registers.accessible(el),
        value: (executed && !write).then(|| cpu.read(register, el)),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::access::RULES;

    fn at_el1(settings: &[(Kind, u64)], register: Register, write: bool) -> Explanation {
        let settings: Vec<_> = settings.iter().map(|&(kind, value)| (Register::of(kind), value)).collect();
        explain(Features::default(), &settings, register, 1, write).expect("a possible question")
    }

    #[test]
    fn hpmn_hides_counters_from_el1() {
        let seen = at_el1(&[(Kind::MdcrEl2, 4)], Register::of(Kind::Pmcntenset), false);
        assert_eq!(seen.outcome, Outcome::Executed);
        assert_eq!(seen.visible, Some(1 << 31 | 0b1111));
        let reserved = at_el1(&[(Kind::MdcrEl2, 4)], Register::pmevcntr(4), false);
        assert_eq!(reserved.outcome, Outcome::Trapped(2));
        assert_eq!(reserved.rule.map(|rule| RULES[rule].name), Some("reserved counter"));
    }

    #[test]
    fn there_is_no_fine_grained_trap_of_reads_of_pmcr() {
        let all = [(Kind::Hdfgrtr, u64::MAX), (Kind::Hdfgwtr, u64::MAX)];
        assert_eq!(at_el1(&all, Register::of(Kind::Pmcr), false).outcome, Outcome::Executed);
        assert_eq!(at_el1(&all, Register::of(Kind::Pmcr), true).outcome, Outcome::Trapped(2));
    }

    #[test]
    fn a_question_about_no_cpu_is_refused() {
        let impossible = Features { counters: 32, ..Features::default() };
        let refused = |features, el| {
            explain(features, &[], Register::of(Kind::Pmcr), el, false).unwrap_err().to_string()
        };
        assert_eq!(refused(impossible, 1), "counters = 32: 0 to 31");
        assert_eq!(refused(Features::default(), 3), "EL3: 0, 1 or 2");
    }
}
