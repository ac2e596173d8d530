//! `Burst`.
//!
//! Calls that Python makes by the million borrow exclusively also what they only read: that is one atomic
//! operation in PyO3, a shared borrow is two.

use pmu::burst::{CAUSES, CHARGE_LIMIT, COMPUTE_EL_SHIFT, Operation};
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use pyo3::types::PyList;

use crate::turns::{self, Around, Event};

/// Operations in order, as packed arrays, and the values that they read.
#[pyclass(module = "services._pmu")]
pub struct Burst {
    pub inner: pmu::burst::Burst,
}

fn out_of_range(what: &str, value: u32) -> PyErr {
    PyValueError::new_err(format!("{what} {value} is out of range"))
}

impl Burst {
    #[inline]
    fn post(&mut self, operation: Operation, subject: u32, operand: u64) -> PyResult<()> {
        if subject >= operation.subject_limit() {
            return Err(out_of_range("register, cause, profile or other subject", subject));
        }
        self.inner.post(operation, subject, operand);
        Ok(())
    }

    /// Takes back all that was posted.
    pub fn clear(&mut self) {
        self.inner.truncate(0, 0);
    }

    /// What the operation at `index` has read, if it reads.
    pub fn set_value(&mut self, index: usize, value: u64) {
        if let Some(place) = self.inner.value_mut(index) {
            *place = value;
        }
    }
}

#[pymethods]
impl Burst {
    #[new]
    fn new() -> Self {
        Self { inner: pmu::burst::Burst::with_room() }
    }

    fn mrs(&mut self, register: u16) -> u32 {
        self.inner.post_read(Operation::Mrs, u32::from(register))
    }

    fn msr(&mut self, register: u16, value: u64) {
        self.inner.post(Operation::Msr, u32::from(register), value);
    }

    fn user_mrs(&mut self, register: u16) -> u32 {
        self.inner.post_read(Operation::UserMrs, u32::from(register))
    }

    fn user_msr(&mut self, register: u16, value: u64) {
        self.inner.post(Operation::UserMsr, u32::from(register), value);
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
        if profile >= 1 << COMPUTE_EL_SHIFT || el > 2 {
            return Err(out_of_range("profile or el", profile));
        }
        self.inner.post(Operation::Compute, el << COMPUTE_EL_SHIFT | profile, cycles);
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

    fn note(&mut self, code: u32, value: u64) -> PyResult<()> {
        self.post(Operation::Note, code, value)
    }

    #[expect(clippy::needless_pass_by_value, reason = "PyO3 extracts sequences into vectors")]
    fn note_each(&mut self, code: u32, values: Vec<u64>) -> PyResult<()> {
        values.iter().try_for_each(|&value| self.post(Operation::Note, code, value))
    }

    pub fn done(&mut self) {
        self.inner.post(Operation::Done, 0, 0);
    }

    fn extend(&mut self, other: &mut Self) -> u32 {
        self.inner.extend(&other.inner)
    }

    fn place(&mut self, register: u16, value: u64, start: &mut Self) {
        self.msr(register, value);
        self.inner.extend(&start.inner);
    }

    #[expect(clippy::needless_pass_by_value, clippy::too_many_arguments, reason = "as Python passes them")]
    fn enable_in_turn<'py>(
        &mut self,
        call: PyRef<'py, Self>,
        off: PyRef<'py, Self>,
        on: PyRef<'py, Self>,
        outs: Bound<'py, PyList>,
        free: Vec<usize>,
        events: Vec<Event<'py>>,
        active: u64,
        turns: Vec<usize>,
    ) -> PyResult<Vec<usize>> {
        turns::enable(self, &Around { call, off, on, outs }, &free, &events, active, &turns)
    }

    #[expect(clippy::needless_pass_by_value, reason = "as Python passes them")]
    fn disable_in_turn<'py>(
        &mut self,
        call: PyRef<'py, Self>,
        off: PyRef<'py, Self>,
        on: PyRef<'py, Self>,
        outs: Vec<Option<PyRef<'py, Self>>>,
        others: bool,
    ) -> Vec<u32> {
        let mut left = outs.iter().flatten().count();
        let mut slots = Vec::with_capacity(left);
        for out in &outs {
            self.inner.extend(&call.inner);
            if let Some(out) = out {
                self.inner.extend(&off.inner);
                slots.push(self.inner.extend(&out.inner));
                left -= 1;
                if others || left > 0 {
                    self.inner.extend(&on.inner);
                }
            }
        }
        slots
    }

    fn values<'py>(&mut self, py: Python<'py>) -> PyResult<Bound<'py, PyList>> {
        PyList::new(py, self.inner.values())
    }

    fn take<'py>(&mut self, py: Python<'py>) -> PyResult<Bound<'py, PyList>> {
        let values = self.values(py);
        self.clear();
        values
    }

    #[expect(clippy::needless_pass_by_value, reason = "PyO3 extracts sequences into vectors")]
    fn set_values(&mut self, values: Vec<u64>) -> PyResult<()> {
        if self.inner.set_values(&values) {
            return Ok(());
        }
        let (given, read) = (values.len(), self.inner.values().len());
        Err(PyValueError::new_err(format!("{given} values for a burst that reads {read}")))
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
        self.inner.ops().len()
    }
}
