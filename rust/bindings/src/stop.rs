//! `Stop`.

use pmu::burst::{Burst, Operation};
use pyo3::prelude::*;
use pyo3::types::{PyBool, PyInt};

/// Why `Machine.execute` stopped, and where.
///
/// The fields are Python objects, so that reading one costs Python no call.
#[pyclass(module = "services._pmu", frozen)]
pub struct Stop {
    at: usize,
    #[pyo3(get)]
    reason: Py<PyInt>,
    #[pyo3(get)]
    index: Py<PyInt>,
    #[pyo3(get)]
    esr: Py<PyInt>,
    #[pyo3(get)]
    register: Py<PyInt>,
    #[pyo3(get)]
    write: Py<PyBool>,
    #[pyo3(get)]
    value: Py<PyInt>,
    #[pyo3(get)]
    operation: Py<PyInt>,
    #[pyo3(get)]
    argument: Py<PyInt>,
    #[pyo3(get)]
    operand: Py<PyInt>,
    /// Is what it stopped at done by now, so that execution goes on behind it?
    past: bool,
}

fn int<'py, T: IntoPyObject<'py, Target = PyInt, Output = Bound<'py, PyInt>>>(
    py: Python<'py>,
    value: T,
) -> Result<Py<PyInt>, PyErr>
where
    PyErr: From<T::Error>,
{
    Ok(value.into_pyobject(py)?.unbind())
}

/// What of an access that was not executed there is to tell.
#[derive(Clone, Copy, Default)]
struct Access {
    esr: u64,
    register: u16,
    write: bool,
    value: u64,
}

impl Access {
    fn of(burst: &Burst, index: usize, esr: u64, value: u64) -> Self {
        let (register, write) = burst
            .ops()
            .get(index)
            .map_or((0, false), |op| (op.subject as u16, op.operation != Operation::Mrs));
        Self { esr, register, write, value }
    }
}

impl Stop {
    /// What Python is told of a stop of `burst`; nothing of its end.
    #[inline]
    pub fn of<'py>(
        py: Python<'py>,
        burst: &Burst,
        stop: pmu::machine::Stop,
    ) -> PyResult<Option<Bound<'py, Self>>> {
        use pmu::machine::Stop as S;
        let stop = match stop {
            S::End => return Ok(None),
            S::Trap { index, esr, value } => {
                Self::new(py, Self::TRAP, index, Access::of(burst, index, esr, value), (0, 0, 0))
            }
            S::Exception { index, esr } => {
                Self::new(py, Self::EXCEPTION, index, Access::of(burst, index, esr, 0), (0, 0, 0))
            }
            S::Operation { index, op } => {
                let operation = (op.operation as u8, op.subject, op.operand);
                Self::new(py, Self::OPERATION, index, Access::default(), operation)
            }
            S::Interrupt { index } => Self::new(py, Self::INTERRUPT, index, Access::default(), (0, 0, 0)),
        };
        stop.map(Some)
    }

    /// The operation, and whether execution goes on behind it.
    pub fn place(&self) -> (usize, bool) {
        (self.at, self.past)
    }

    fn new(
        py: Python<'_>,
        reason: u8,
        index: usize,
        access: Access,
        (operation, argument, operand): (u8, u32, u64),
    ) -> PyResult<Bound<'_, Self>> {
        let stop = Self {
            at: index,
            past: reason != Self::INTERRUPT,
            reason: int(py, reason)?,
            index: int(py, index)?,
            esr: int(py, access.esr)?,
            register: int(py, access.register)?,
            write: PyBool::new(py, access.write).to_owned().unbind(),
            value: int(py, access.value)?,
            operation: int(py, operation)?,
            argument: int(py, argument)?,
            operand: int(py, operand)?,
        };
        Bound::new(py, stop)
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

    fn __repr__(&self, py: Python<'_>) -> PyResult<String> {
        let number = |field: &Py<PyInt>| field.extract::<u64>(py);
        let index = number(&self.index)?;
        let access = || -> PyResult<String> {
            let register = self.register.extract::<u16>(py)?;
            let name = pmu::register::Register::decode(register)
                .map_or_else(|| format!("{register:#x}"), pmu::register::Register::name);
            let direction = if self.write.bind(py).is_true() { "MSR" } else { "MRS" };
            Ok(format!("{direction} {name}, ESR {:#x}", number(&self.esr)?))
        };
        Ok(match self.reason.extract::<u8>(py)? {
            Self::TRAP => format!("<Stop TRAP at {index}: {}>", access()?),
            Self::EXCEPTION => format!("<Stop EXCEPTION at {index}: {}>", access()?),
            Self::OPERATION => {
                let (operation, argument) = (number(&self.operation)?, number(&self.argument)?);
                format!("<Stop OPERATION at {index}: {operation} ({argument}, {})>", number(&self.operand)?)
            }
            _ => format!("<Stop INTERRUPT before {index}>"),
        })
    }
}
