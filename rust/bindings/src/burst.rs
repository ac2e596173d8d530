//! `Burst`.

use pmu::burst::{CAUSES, CHARGE_LIMIT, Operation};
use pyo3::exceptions::{PyIndexError, PyValueError};
use pyo3::prelude::*;

/// Operations in order, as packed arrays, and the values that they read.
#[pyclass(module = "services._pmu")]
pub struct Burst {
    pub inner: pmu::burst::Burst,
}

fn out_of_range(what: &str, value: u32) -> PyErr {
    PyValueError::new_err(format!("{what} {value} is out of range"))
}

impl Burst {
    fn op(&self, index: usize) -> PyResult<&pmu::burst::Op> {
        self.inner.ops.get(index).ok_or_else(|| PyIndexError::new_err(format!("no operation {index}")))
    }

    #[inline]
    fn post(&mut self, operation: Operation, subject: u32, operand: u64) -> PyResult<()> {
        if subject >= operation.subject_limit() {
            return Err(out_of_range("register, cause, profile or other subject", subject));
        }
        self.inner.post(operation, subject, operand);
        Ok(())
    }
}

#[pymethods]
impl Burst {
    #[new]
    fn new() -> Self {
        Self { inner: pmu::burst::Burst::default() }
    }

    fn mrs(&mut self, register: u16) -> u32 {
        self.inner.post_read(Operation::Mrs, u32::from(register))
    }

    fn msr(&mut self, register: u16, value: u64) {
        self.inner.post(Operation::Msr, u32::from(register), value);
    }

    fn write_back(&mut self, register: u16, slot: u32, mask: u64, bits: u64) -> PyResult<()> {
        if self.inner.post_write_back(register, slot, mask, bits) {
            Ok(())
        } else {
            Err(out_of_range("slot", slot))
        }
    }

    fn isb(&mut self) {
        self.inner.post(Operation::Isb, 0, 0);
    }

    fn charge(&mut self, cause: u32, cycles: u64) -> PyResult<()> {
        if cause as usize >= CAUSES {
            return Err(out_of_range("cause", cause));
        }
        if cycles >= CHARGE_LIMIT {
            return Err(PyValueError::new_err(format!("{cycles} cycles are out of range")));
        }
        self.inner.post(Operation::Charge, cause, cycles);
        Ok(())
    }

    fn clock(&mut self) -> u32 {
        self.inner.post_read(Operation::Clock, 0)
    }

    fn truth(&mut self, event: u16, scope: u32) -> PyResult<u32> {
        if scope > 15 {
            return Err(out_of_range("scope", scope));
        }
        Ok(self.inner.post_read(Operation::Truth, scope << 16 | u32::from(event)))
    }

    fn compute(&mut self, profile: u32, el: u32, cycles: u64) -> PyResult<()> {
        if profile >= 1 << 20 || el > 2 {
            return Err(out_of_range("profile or el", profile));
        }
        self.inner.post(Operation::Compute, el << 20 | profile, cycles);
        Ok(())
    }

    fn wfi(&mut self) {
        self.inner.post(Operation::Wfi, 0, 0);
    }

    fn hvc(&mut self, immediate: u16) {
        self.inner.post(Operation::Hvc, u32::from(immediate), 0);
    }

    fn timer(&mut self, timer: u32, deadline: u64) -> PyResult<()> {
        self.post(Operation::Timer, timer, deadline)
    }

    fn ipi(&mut self, target: u32) -> PyResult<()> {
        self.post(Operation::Ipi, target, 0)
    }

    fn window(&mut self) {
        self.inner.post(Operation::Window, 0, 0);
    }

    fn notify(&mut self, code: u32, value: u64) -> PyResult<()> {
        self.post(Operation::Notify, code, value)
    }

    fn done(&mut self) {
        self.inner.post(Operation::Done, 0, 0);
    }

    #[expect(clippy::needless_pass_by_value, reason = "PyO3 hands references out by value")]
    fn extend(&mut self, other: PyRef<'_, Self>) -> u32 {
        self.inner.extend(&other.inner)
    }

    #[expect(clippy::needless_pass_by_value, reason = "PyO3 extracts sequences into vectors")]
    fn extend_all(&mut self, bursts: Vec<PyRef<'_, Self>>) -> u32 {
        self.inner.extend_all(bursts.iter().map(|burst| &burst.inner))
    }

    fn values(&self) -> Vec<u64> {
        self.inner.values.clone()
    }

    fn set_value(&mut self, index: usize, value: u64) -> PyResult<()> {
        let op = *self.op(index)?;
        if !op.operation.yields() {
            return Err(PyValueError::new_err(format!("operation {index} yields no value")));
        }
        if let Some(place) = self.inner.values.get_mut(op.slot as usize) {
            *place = value;
        }
        Ok(())
    }

    fn set_values(&mut self, values: Vec<u64>) -> PyResult<()> {
        let expected = self.inner.values.len();
        if values.len() != expected {
            return Err(PyValueError::new_err(format!(
                "{} values for a burst that reads {expected}",
                values.len()
            )));
        }
        self.inner.values = values;
        Ok(())
    }

    fn arrays(&self) -> (Vec<u32>, Vec<u64>) {
        self.inner.arrays()
    }

    #[staticmethod]
    #[expect(clippy::needless_pass_by_value, reason = "PyO3 extracts sequences into vectors")]
    fn from_arrays(codes: Vec<u32>, operands: Vec<u64>) -> PyResult<Self> {
        let inner = pmu::burst::Burst::from_arrays(&codes, &operands);
        Ok(Self { inner: inner.map_err(|error| PyValueError::new_err(error.to_string()))? })
    }

    fn __len__(&self) -> usize {
        self.inner.ops.len()
    }
}
