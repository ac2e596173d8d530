//! `Stop`.

use pmu::burst::{Burst, Operation};
use pyo3::prelude::*;

/// Why `Machine.execute` stopped, and where.
#[pyclass(module = "services._pmu", frozen, get_all)]
#[derive(Default)]
pub struct Stop {
    reason: u8,
    index: usize,
    esr: u64,
    register: u16,
    write: bool,
    value: u64,
    due: Option<Py<PyAny>>,
    operation: u8,
    argument: u32,
    operand: u64,
}

/// The register that the access at `index` of `burst` concerns, and whether it is written.
#[inline]
pub fn access(burst: &Burst, index: usize) -> (u16, bool) {
    burst.ops().get(index).map_or((0, false), |op| {
        (op.subject as u16, !matches!(op.operation, Operation::Mrs | Operation::UserMrs))
    })
}

/// Whether the access at `index` of `burst` is the software's program's, at EL0.
#[inline]
pub fn of_program(burst: &Burst, index: usize) -> bool {
    burst.ops().get(index).is_some_and(|op| op.operation.of_program())
}

impl Stop {
    /// What Python is told of a stop of `burst`, with what is `due` for a trap or an operation. Of the burst's end there
    /// is nothing to tell.
    pub fn of(burst: &Burst, stop: pmu::machine::Stop, due: Option<Py<PyAny>>) -> Self {
        use pmu::machine::Stop as S;
        match stop {
            S::End => Self::default(),
            S::Trap { index, esr, value } => {
                let (register, write) = access(burst, index);
                Self { reason: Self::TRAP, index, esr, register, write, value, due, ..Self::default() }
            }
            S::Exception { index, esr } => {
                let (register, write) = access(burst, index);
                Self { reason: Self::EXCEPTION, index, esr, register, write, ..Self::default() }
            }
            S::Operation { index, op } => Self {
                reason: Self::OPERATION,
                index,
                operation: op.operation as u8,
                argument: op.subject,
                operand: op.operand,
                due,
                ..Self::default()
            },
            S::Interrupt { index } => Self { reason: Self::INTERRUPT, index, ..Self::default() },
        }
    }

    /// The operation at which it stopped, and the one to go on with.
    pub fn place(&self) -> (usize, usize) {
        let done = self.reason != Self::INTERRUPT;
        (self.index, self.index.saturating_add(usize::from(done)))
    }

    /// An access trapped.
    pub fn is_trap(&self) -> bool {
        self.reason == Self::TRAP
    }
}

#[pymethods]
impl Stop {
    #[classattr]
    const TRAP: u8 = 1;
    #[classattr]
    const EXCEPTION: u8 = 2;
    #[classattr]
    const OPERATION: u8 = 3;
    #[classattr]
    const INTERRUPT: u8 = 4;

    fn __repr__(&self) -> String {
        let Self { reason, index, esr, operation, argument, operand, .. } = self;
        let access = || {
            let name = pmu::register::Register::decode(self.register)
                .map_or_else(|| format!("{:#x}", self.register), pmu::register::Register::name);
            format!("{} {name}, ESR {esr:#x}", if self.write { "MSR" } else { "MRS" })
        };
        match *reason {
            Self::TRAP => format!("<Stop TRAP at {index}: {}>", access()),
            Self::EXCEPTION => format!("<Stop EXCEPTION at {index}: {}>", access()),
            Self::OPERATION => format!("<Stop OPERATION at {index}: {operation} ({argument}, {operand})>"),
            _ => format!("<Stop INTERRUPT before {index}>"),
        }
    }
}
