//! `Machine`. As to `&mut self` where `&self` would do, see `burst`.

use std::collections::BTreeMap;

use judge::finding::Findings;
use judge::key::{self, Copies, Kept, PerfEvent};
use judge::{Judge, VcpuSetup};
use pmu::cpu::Whose;
use pmu::feature::Features;
use pmu::machine::{Costs, Interrupts, Stop as CoreStop};
use pmu::observer::{By, Recorder};
use pyo3::exceptions::{PyRuntimeError, PyValueError};
use pyo3::prelude::*;
use pyo3::types::PyBytes;

use crate::burst::Burst;
use crate::stop::Stop;

/// All pCPUs, the contexts that run on them, what really happened, and the ordered log's digest.
#[pyclass(module = "services._pmu")]
pub struct Machine {
    inner: pmu::machine::Machine<(Option<Recorder>, Option<Judge>)>,
}

/// An event's id, count, what its counter read last, its bits, and its times.
type KeptEvent = (u64, u64, Option<u64>, u64, (u64, u64));

fn perf_event(&(id, count, previous, mask, times): &KeptEvent) -> PerfEvent {
    PerfEvent { id, count, previous, mask, times }
}

/// What makes no sense, for Python.
#[cold]
pub fn value_error(error: impl std::error::Error) -> PyErr {
    PyValueError::new_err(error.to_string())
}

/// `Features` from the names and values that Python passes.
pub fn features(values: &BTreeMap<String, u64>) -> PyResult<Features> {
    let mut features = Features::default();
    for (name, &value) in values {
        features.set(name, value).map_err(value_error)?;
    }
    Ok(features)
}

impl Machine {
    /// Executes `burst` from its operation `start` on, as software of `by`.
    pub fn run_burst(
        &mut self,
        by: By,
        cpu: usize,
        burst: &mut Burst,
        start: usize,
        interrupts: impl Into<Interrupts>,
    ) -> PyResult<CoreStop> {
        self.inner.execute_by(by, cpu, &mut burst.inner, start, interrupts).map_err(value_error)
    }

    /// As of `pmu::machine::Machine`.
    pub fn emulated(&mut self, cpu: usize, value: u64) -> PyResult<()> {
        self.inner.emulated(cpu, value).map_err(value_error)
    }

    /// As of `pmu::machine::Machine`.
    pub fn begin_burst(&mut self, context: usize) -> PyResult<()> {
        self.inner.begin_burst(context).map_err(value_error)
    }

    /// As of `pmu::machine::Machine`.
    pub fn bursts(&self, context: usize) -> PyResult<u64> {
        self.inner.bursts(context).map_err(value_error)
    }

    fn access(&mut self, cpu: usize, register: u16, written: Option<u64>) -> PyResult<u64> {
        let value = self.inner.access(cpu, register, written).map_err(value_error)?;
        value.ok_or_else(|| {
            PyValueError::new_err(format!("CPU {cpu}: an access to {register:#x} took an exception"))
        })
    }

    /// What the judge has found, if anybody judges and it has not failed.
    fn findings(&self) -> PyResult<Option<&Findings>> {
        let Some(judge) = self.inner.observer().1.as_ref() else { return Ok(None) };
        match judge.fault() {
            Some(fault) => Err(PyRuntimeError::new_err(fault.to_owned())),
            None => Ok(Some(judge.findings())),
        }
    }
}

#[pymethods]
impl Machine {
    #[new]
    #[pyo3(signature = (cpus, events, *, mrs_cycles, msr_cycles, isb_cycles))]
    #[expect(clippy::needless_pass_by_value, reason = "PyO3 extracts sequences into vectors")]
    fn new(
        cpus: Vec<BTreeMap<String, u64>>,
        events: Vec<u16>,
        mrs_cycles: u64,
        msr_cycles: u64,
        isb_cycles: u64,
    ) -> PyResult<Self> {
        let cpus = cpus.iter().map(features).collect::<PyResult<Vec<_>>>()?;
        let costs = Costs { mrs: mrs_cycles, msr: msr_cycles, isb: isb_cycles };
        let inner = pmu::machine::Machine::new(cpus, &events, costs).map_err(value_error)?;
        Ok(Self { inner: inner.observed_by((None, None)) })
    }

    #[expect(clippy::needless_pass_by_value, reason = "PyO3 extracts sequences into vectors")]
    fn add_profile(&mut self, rates: Vec<(u16, u64)>) -> PyResult<usize> {
        self.inner.add_profile(&rates).map_err(value_error)
    }

    fn add_context(&mut self, guest: bool) -> usize {
        self.inner.add_context(guest)
    }

    fn set_running(&mut self, cpu: usize, context: usize, el: u8, profile: usize) -> PyResult<()> {
        self.inner.set_running(cpu, context, el, profile).map_err(value_error)
    }

    fn exit_guest(
        &mut self,
        cpu: usize,
        context: usize,
        profile: usize,
        cause: usize,
        cycles: u64,
    ) -> PyResult<bool> {
        self.inner.exit_guest(cpu, context, profile, cause, cycles).map_err(value_error)
    }

    fn trap_guest(
        &mut self,
        cpu: usize,
        context: usize,
        profile: usize,
        cause: usize,
        cycles: (u64, u64),
    ) -> PyResult<bool> {
        self.inner.trap_guest(cpu, context, profile, cause, cycles).map_err(value_error)
    }

    fn guest_timing_exit(&mut self, cpu: usize, cause: usize, cycles: u64) -> PyResult<()> {
        self.inner.guest_timing_exit(cpu, cause, cycles).map_err(value_error)
    }

    fn guest_timing_enter(&mut self, cpu: usize, cause: usize, cycles: u64) -> PyResult<()> {
        self.inner.guest_timing_enter(cpu, cause, cycles).map_err(value_error)
    }

    fn enter_guest(
        &mut self,
        cpu: usize,
        context: usize,
        profile: usize,
        cause: usize,
        cycles: u64,
        due: u64,
    ) -> PyResult<bool> {
        self.inner.enter_guest(cpu, context, profile, cause, cycles, due).map_err(value_error)
    }

    fn take_interrupt(
        &mut self,
        cpu: usize,
        cause: usize,
        cycles: u64,
        account: usize,
    ) -> PyResult<Option<(u64, u64, usize)>> {
        self.inner.take_interrupt(cpu, cause, cycles, account).map_err(value_error)
    }

    fn begin_call(&mut self, cpu: usize, account: usize, code: u16, columns: u64) -> PyResult<(u64, usize)> {
        let before = self.inner.set_account(cpu, account).map_err(value_error)?;
        Ok((self.inner.mark(cpu, code, 0, columns).map_err(value_error)?, before))
    }

    fn end_call(&mut self, cpu: usize, account: usize) -> PyResult<u64> {
        self.inner.set_account(cpu, account).map_err(value_error)?;
        Ok(self.inner.cpu(cpu).map_err(value_error)?.now())
    }

    fn set_cputime(&mut self, cpu: usize, whose: usize) -> PyResult<()> {
        let known =
            Whose::ALL.get(whose).ok_or_else(|| PyValueError::new_err(format!("nobody's time: {whose}")));
        self.inner.cpu_mut(cpu).map_err(value_error)?.set_cputime(known?.0);
        Ok(())
    }

    fn interrupt_cputime(&mut self, cpu: usize) -> PyResult<()> {
        self.inner.cpu_mut(cpu).map_err(value_error)?.interrupt_cputime();
        Ok(())
    }

    fn set_tick(&mut self, cpu: usize, tick: u64) -> PyResult<()> {
        self.inner.cpu_mut(cpu).map_err(value_error)?.set_tick(tick);
        Ok(())
    }

    fn account_tick(&mut self, cpu: usize, cycles: u64, following: u64) -> PyResult<()> {
        self.inner.cpu_mut(cpu).map_err(value_error)?.account_tick(cycles, following);
        Ok(())
    }

    fn begin_handler(&mut self, cpu: usize) -> PyResult<()> {
        self.inner.cpu_mut(cpu).map_err(value_error)?.begin_handler();
        Ok(())
    }

    fn next_handler(&mut self, cpu: usize) -> PyResult<()> {
        self.inner.cpu_mut(cpu).map_err(value_error)?.next_handler();
        Ok(())
    }

    fn end_handler(&mut self, cpu: usize) -> PyResult<()> {
        self.inner.cpu_mut(cpu).map_err(value_error)?.end_handler();
        Ok(())
    }

    fn cputime(&self, cpu: usize, by_ticks: bool) -> PyResult<BTreeMap<&'static str, u64>> {
        let (spent, handlers) = self.inner.cpu(cpu).map_err(value_error)?.cputime(by_ticks);
        let by_name = Whose::ALL.iter().map(|&(_, name)| name).zip(spent);
        Ok(by_name.chain([("irq", handlers)]).collect())
    }

    pub fn now(&mut self, cpu: usize) -> PyResult<u64> {
        Ok(self.inner.cpu(cpu).map_err(value_error)?.now())
    }

    fn set_deadline(&mut self, cpu: usize, deadline: u64) -> PyResult<()> {
        self.inner.set_deadline(cpu, deadline).map_err(value_error)
    }

    fn execute<'py>(
        &mut self,
        py: Python<'py>,
        cpu: usize,
        burst: &Bound<'py, Burst>,
        start: usize,
        interrupts: u8,
    ) -> PyResult<Bound<'py, PyAny>> {
        let interrupts = Interrupts::from_number(interrupts)
            .ok_or_else(|| PyValueError::new_err(format!("which interrupts is {interrupts}?")))?;
        let mut burst = burst.try_borrow_mut()?;
        match self.run_burst(By::Kvm, cpu, &mut burst, start, interrupts)? {
            CoreStop::End => Ok(self.now(cpu)?.into_pyobject(py)?.into_any()),
            stop => Ok(Bound::new(py, Stop::of(&burst.inner, stop, None))?.into_any()),
        }
    }

    fn read(&mut self, cpu: usize, register: u16) -> PyResult<u64> {
        self.access(cpu, register, None)
    }

    fn write(&mut self, cpu: usize, register: u16, value: u64) -> PyResult<()> {
        self.access(cpu, register, Some(value)).map(drop)
    }

    fn run(&mut self, cpu: usize, cycles: u64) -> PyResult<u64> {
        self.inner.run(cpu, cycles).map_err(value_error)
    }

    fn work(
        &mut self,
        cpu: usize,
        context: usize,
        el: u8,
        profile: usize,
        cycles: u64,
    ) -> PyResult<(u64, u64, bool)> {
        self.inner.work(cpu, context, el, profile, cycles).map_err(value_error)
    }

    fn next_stop(&mut self, cpu: usize, cycles: u64) -> PyResult<u64> {
        self.inner.next_stop(cpu, cycles).map_err(value_error)
    }

    fn charge(&mut self, cpu: usize, cause: usize, cycles: u64) -> PyResult<()> {
        self.inner.charge(cpu, cause, cycles).map_err(value_error)
    }

    fn idle(&mut self, cpu: usize, until: u64) -> PyResult<()> {
        self.inner.idle(cpu, until).map_err(value_error)
    }

    fn warm_reset(&mut self, cpu: usize) -> PyResult<()> {
        self.inner.warm_reset(cpu).map_err(value_error)
    }

    fn idle_stop(&mut self, cpu: usize, until: u64) -> PyResult<u64> {
        self.inner.idle_stop(cpu, until).map_err(value_error)
    }

    fn interrupt(&mut self, cpu: usize) -> PyResult<bool> {
        Ok(self.inner.cpu(cpu).map_err(value_error)?.interrupt())
    }

    fn acknowledge(&mut self, cpu: usize) -> PyResult<()> {
        self.inner.cpu_mut(cpu).map_err(value_error)?.acknowledge();
        Ok(())
    }

    fn deactivate(&mut self, cpu: usize) -> PyResult<bool> {
        Ok(self.inner.cpu_mut(cpu).map_err(value_error)?.deactivate())
    }

    fn pending_interrupt(&self, cpu: usize) -> PyResult<bool> {
        Ok(self.inner.cpu(cpu).map_err(value_error)?.pending_interrupt())
    }

    fn arrives(&self, cpu: usize) -> PyResult<u64> {
        Ok(self.inner.cpu(cpu).map_err(value_error)?.arrives())
    }

    fn raised(&self, cpu: usize) -> PyResult<u64> {
        Ok(self.inner.cpu(cpu).map_err(value_error)?.raised())
    }

    fn trap(&mut self, context: usize, register: u16, write: bool) -> PyResult<()> {
        self.inner.trap(context, register, write).map_err(value_error)
    }

    fn traps(&self, context: usize) -> BTreeMap<u32, u64> {
        self.inner.traps(context).collect()
    }

    fn peek(&self, cpu: usize, register: u16) -> PyResult<u64> {
        self.inner.peek(cpu, register).map_err(value_error)
    }

    fn poke(&mut self, cpu: usize, register: u16, value: u64) -> PyResult<()> {
        self.inner.poke(cpu, register, value).map_err(value_error)
    }

    fn truth(&self, context: usize, el: u8, event: u16) -> PyResult<u64> {
        self.inner.truth(context, el, event).map_err(value_error)
    }

    fn cycles(&mut self, cpu: usize) -> PyResult<BTreeMap<&'static str, u64>> {
        let ([guest_el0, guest_el1, host_user, host_kernel], idle) =
            self.inner.cycles(cpu).map_err(value_error)?;
        Ok(BTreeMap::from([
            ("guest", guest_el0.wrapping_add(guest_el1)),
            ("host_kernel", host_kernel),
            ("host_user", host_user),
            ("idle", idle),
        ]))
    }

    fn set_account(&mut self, cpu: usize, account: usize) -> PyResult<usize> {
        self.inner.set_account(cpu, account).map_err(value_error)
    }

    fn charged(&self, cpu: usize, account: usize) -> PyResult<Vec<u64>> {
        Ok(self.inner.cpu(cpu).map_err(value_error)?.charged(account).into())
    }

    fn accesses(&self, cpu: usize) -> PyResult<u64> {
        Ok(self.inner.cpu(cpu).map_err(value_error)?.accesses())
    }

    fn choices_made(&self, cpu: usize) -> PyResult<BTreeMap<&'static str, u64>> {
        Ok(self.inner.cpu(cpu).map_err(value_error)?.choices_made().collect())
    }

    fn mark(&mut self, cpu: usize, code: u16, a: u64, b: u64) -> PyResult<u64> {
        self.inner.mark(cpu, code, a, b).map_err(value_error)
    }

    fn digest(&self) -> String {
        format!("{:032x}", self.inner.digest())
    }

    fn observe(&mut self, on: bool) {
        let recorder = &mut self.inner.observer_mut().0;
        *recorder = on.then(|| recorder.take().unwrap_or_default());
    }

    fn observed(&mut self) -> Vec<(u16, u64, u8, u16, u64, u64)> {
        let records = self.inner.observer_mut().0.as_mut().map(Recorder::take).unwrap_or_default();
        records.iter().map(|r| (r.cpu, r.cycle, r.el, r.code, r.subject, r.value)).collect()
    }

    fn note(&mut self, cpu: usize, code: u32, a: u64, b: u64) -> PyResult<()> {
        self.inner.note(cpu, code, a, b).map_err(value_error)
    }

    fn judge(&mut self, vcpus: Vec<(usize, u8, u8, Vec<u16>)>) {
        let vcpus = vcpus
            .into_iter()
            .map(|(context, counters, pmuver, denied)| VcpuSetup { context, counters, pmuver, denied })
            .collect();
        let features: Vec<_> =
            self.inner.cpus().iter().map(|cpu| cpu.registers().features().clone()).collect();
        self.inner.observer_mut().1 = Some(Judge::new(&features, vcpus));
    }

    fn violations(&self) -> u64 {
        self.inner.observer().1.as_ref().map_or(0, |judge| judge.findings().found())
    }

    fn different_violations(&self) -> usize {
        self.inner.observer().1.as_ref().map_or(0, |judge| judge.findings().violations().len())
    }

    fn premises(&self) -> Vec<u64> {
        self.inner.observer().1.as_ref().map_or(Vec::new(), |judge| judge.findings().premises().to_vec())
    }

    fn windows(&self) -> PyResult<BTreeMap<&'static str, u64>> {
        let findings = self.findings()?;
        Ok(findings
            .map_or(BTreeMap::new(), |found| found.windows().map(|(name, uses, _)| (name, uses)).collect()))
    }

    fn judgement<'py>(&self, py: Python<'py>) -> PyResult<Option<Bound<'py, PyBytes>>> {
        let findings = self.findings()?;
        Ok(findings.map(|found| PyBytes::new(py, crate::judgement::json(found).to_string().as_bytes())))
    }

    fn state<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyBytes>> {
        Ok(PyBytes::new(py, &self.inner.state().map_err(value_error)?))
    }

    #[expect(clippy::needless_pass_by_value, reason = "PyO3 extracts sequences into vectors")]
    fn key(
        &mut self,
        extra: &[u8],
        guests: Vec<Kept>,
        events: Vec<KeptEvent>,
        chosen: Vec<u64>,
    ) -> PyResult<u64> {
        let events: Vec<_> = events.iter().map(perf_event).collect();
        key::key(&mut self.inner, extra, &Copies { guests: &guests, events: &events, chosen: &chosen })
            .map_err(value_error)
    }

    #[expect(clippy::needless_pass_by_value, reason = "PyO3 extracts sequences into vectors")]
    fn key_parts(
        &mut self,
        guests: Vec<Kept>,
        events: Vec<KeptEvent>,
        chosen: Vec<u64>,
    ) -> PyResult<Vec<(String, u64)>> {
        let events: Vec<_> = events.iter().map(perf_event).collect();
        key::parts(&mut self.inner, &Copies { guests: &guests, events: &events, chosen: &chosen })
            .map_err(value_error)
    }

    fn restore(&mut self, state: &[u8]) -> PyResult<()> {
        self.inner = pmu::machine::Machine::from_state(state).map_err(value_error)?;
        Ok(())
    }
}
