//! `Executor`: the loop that runs a burst of software to its end on a CPU of the core.

use std::sync::atomic::{AtomicUsize, Ordering};

use pmu::machine::Stop as CoreStop;
use pmu::observer::By;
use pyo3::prelude::*;
use pyo3::types::PyInt;
use pyo3::{PyTraverseError, PyVisit};

use crate::burst::Burst;
use crate::machine::Machine;
use crate::stop::{Stop, access, of_program};

/// Executes the bursts of a context's software. What a stop is for, it asks Python.
#[pyclass(module = "services._pmu", frozen)]
pub struct Executor {
    machine: Py<Machine>,
    context: usize,
    cpu: AtomicUsize,
    interruptible: bool,
    trapped: Py<PyAny>,
    operation: Py<PyAny>,
    wait: Py<PyAny>,
}

/// Where a burst has got to.
enum At {
    /// Its end, at this time.
    End(u64),
    /// What has to be awaited.
    Stop(Stop),
}

impl Executor {
    fn begin(&self, py: Python<'_>) -> PyResult<()> {
        self.machine.bind(py).try_borrow_mut()?.begin_burst(self.context)
    }

    /// From the operation `start` on, to the end or to a stop that has to be awaited.
    fn run(&self, burst: &Bound<'_, Burst>, start: usize) -> PyResult<At> {
        let py = burst.py();
        let cpu = self.cpu.load(Ordering::Relaxed);
        let mut next = start;
        loop {
            let stop = {
                // Not while Python attends to a stop: it has the machine execute KVM's bursts and the host's.
                let mut machine = self.machine.bind(py).try_borrow_mut()?;
                let stop = machine.run_burst(
                    By::Software,
                    cpu,
                    &mut *burst.try_borrow_mut()?,
                    next,
                    self.interruptible,
                )?;
                if stop == CoreStop::End {
                    return Ok(At::End(machine.now(cpu)?));
                }
                stop
            };
            let due = match stop {
                CoreStop::Trap { index, value, .. } => {
                    let (register, write, program) = {
                        let burst = &burst.try_borrow()?.inner;
                        let (register, write) = access(burst, index);
                        (register, write, of_program(burst, index))
                    };
                    let emulated = self.trapped.bind(py).call1((register, write, value, program))?;
                    if emulated.is_exact_instance_of::<PyInt>() {
                        let value = emulated.extract()?;
                        self.machine.bind(py).try_borrow_mut()?.emulated(cpu, value)?;
                        burst.try_borrow_mut()?.set_value(index, value);
                        next = index + 1;
                        continue;
                    }
                    Some(emulated.unbind())
                }
                CoreStop::Operation { index, op } => {
                    let code = op.operation as u8;
                    let performed = self.operation.bind(py).call1((index, code, op.subject, op.operand))?;
                    if performed.is_none() {
                        next = index + 1;
                        continue;
                    }
                    Some(performed.unbind())
                }
                _ => None,
            };
            return Ok(At::Stop(Stop::of(&burst.try_borrow()?.inner, stop, due)));
        }
    }

    /// The time of the burst's end, or what gives it when it is awaited.
    fn eventual<'py>(
        slf: &Bound<'py, Self>,
        burst: &Bound<'py, Burst>,
        at: At,
    ) -> PyResult<Bound<'py, PyAny>> {
        let py = slf.py();
        match at {
            At::End(time) => Ok(time.into_pyobject(py)?.into_any()),
            At::Stop(stop) => slf.get().wait.bind(py).call1((slf, burst, stop)),
        }
    }
}

#[pymethods]
impl Executor {
    #[new]
    #[pyo3(signature = (machine, context, cpu, *, interruptible, trapped, operation, wait))]
    #[expect(clippy::too_many_arguments, reason = "as Python passes them")]
    fn new(
        py: Python<'_>,
        machine: Py<Machine>,
        context: usize,
        cpu: usize,
        interruptible: bool,
        trapped: Py<PyAny>,
        operation: Py<PyAny>,
        wait: Py<PyAny>,
    ) -> PyResult<Self> {
        machine.bind(py).try_borrow()?.bursts(context)?;
        Ok(Self { machine, context, cpu: AtomicUsize::new(cpu), interruptible, trapped, operation, wait })
    }

    #[getter]
    fn bursts(&self, py: Python<'_>) -> PyResult<u64> {
        self.machine.bind(py).try_borrow()?.bursts(self.context)
    }

    #[getter]
    fn cpu(&self) -> usize {
        self.cpu.load(Ordering::Relaxed)
    }

    fn set_task_cpu(&self, cpu: usize) {
        self.cpu.store(cpu, Ordering::Relaxed);
    }

    fn execute<'py>(slf: &Bound<'py, Self>, burst: &Bound<'py, Burst>) -> PyResult<Bound<'py, PyAny>> {
        let this = slf.get();
        this.begin(slf.py())?;
        Self::eventual(slf, burst, this.run(burst, 0)?)
    }

    #[expect(unused_variables, reason = "it is for executors on a stream")]
    fn finish<'py>(
        slf: &Bound<'py, Self>,
        burst: &Bound<'py, Burst>,
        answer: &Bound<'py, PyAny>,
    ) -> PyResult<Bound<'py, PyAny>> {
        let this = slf.get();
        burst.try_borrow_mut()?.done();
        this.begin(slf.py())?;
        let at = this.run(burst, 0)?;
        if let At::End(_) = at {
            burst.try_borrow_mut()?.clear();
        }
        Self::eventual(slf, burst, at)
    }

    fn resume<'py>(
        &self,
        burst: &Bound<'py, Burst>,
        stop: &Stop,
        value: Option<u64>,
    ) -> PyResult<Bound<'py, PyAny>> {
        let py = burst.py();
        let (at, mut next) = stop.place();
        match value {
            Some(value) => {
                if stop.is_trap() {
                    self.machine
                        .bind(py)
                        .try_borrow_mut()?
                        .emulated(self.cpu.load(Ordering::Relaxed), value)?;
                }
                burst.try_borrow_mut()?.set_value(at, value);
            }
            None if stop.is_trap() => next = at,
            None => {}
        }
        match self.run(burst, next)? {
            At::End(time) => Ok(time.into_pyobject(py)?.into_any()),
            At::Stop(stop) => Ok(Bound::new(py, stop)?.into_any()),
        }
    }

    #[expect(clippy::needless_pass_by_value, reason = "PyO3 passes it so")]
    fn __traverse__(&self, visit: PyVisit<'_>) -> Result<(), PyTraverseError> {
        visit.call(&self.machine)?;
        visit.call(&self.trapped)?;
        visit.call(&self.operation)?;
        visit.call(&self.wait)
    }
}
