//! `Burst.enable_in_turn`: what enabling counters one after the other posts.

use pmu::burst::Operation;
use pmu::register::{Kind, Register};
use pmu::registers::{COUNTERS, CYCLE};
use pyo3::exceptions::PyIndexError;
use pyo3::prelude::*;
use pyo3::types::PyList;

use crate::burst::Burst;

/// A counter's event: the value that its counter is written with, whether it has the cycle counter, by counter
/// what starts it there, and the counter that it is on if it is active.
pub type Event<'py> = (u64, bool, Bound<'py, PyList>, usize);

/// The sequences that every reschedule begins and ends with, and those that take an event off, by counter.
pub struct Around<'py> {
    pub call: PyRef<'py, Burst>,
    pub off: PyRef<'py, Burst>,
    pub on: PyRef<'py, Burst>,
    pub outs: Bound<'py, PyList>,
}

fn counter(free: &[usize], nth: usize) -> PyResult<usize> {
    free.get(nth).copied().ok_or_else(|| PyIndexError::new_err("more events than counters"))
}

fn extend(burst: &mut Burst, by_counter: &Bound<'_, PyList>, idx: usize) -> PyResult<()> {
    let item = by_counter.get_item(idx)?;
    let prepared = item.cast::<Burst>()?.try_borrow()?;
    burst.inner.extend(&prepared.inner);
    Ok(())
}

/// Enables the events at the places `turns`, in turn, of `events` in their context's order; those of `active`
/// are on the PMU already. Each reschedule takes every event off its counter and puts all back, each on the
/// next counter of `free`. The counters that they end on, by place.
pub fn enable(
    burst: &mut Burst,
    around: &Around<'_>,
    free: &[usize],
    events: &[Event<'_>],
    active: u64,
    turns: &[usize],
) -> PyResult<Vec<usize>> {
    if events.len() > COUNTERS {
        return Err(PyIndexError::new_err(format!("{} events: at most {COUNTERS}", events.len())));
    }
    if let Some(idx) = free.iter().find(|&&idx| idx >= CYCLE) {
        return Err(PyIndexError::new_err(format!("no event counter {idx}: 0 to {}", CYCLE - 1)));
    }
    if let Some(turn) = turns.iter().find(|&&turn| turn >= events.len()) {
        return Err(PyIndexError::new_err(format!("no event at place {turn} of {}", events.len())));
    }
    let (ops, values) = (burst.inner.ops().len(), burst.inner.values().len());
    let placed = in_turn(burst, around, free, events, active, turns);
    if placed.is_err() {
        burst.inner.truncate(ops, values);
    }
    placed
}

fn in_turn(
    burst: &mut Burst,
    around: &Around<'_>,
    free: &[usize],
    events: &[Event<'_>],
    mut active: u64,
    turns: &[usize],
) -> PyResult<Vec<usize>> {
    let mut at: Vec<usize> = events.iter().map(|&(.., idx)| idx).collect();
    for &turn in turns {
        burst.inner.extend(&around.call.inner);
        let bit = 1 << turn;
        if active & bit != 0 {
            continue;
        }
        burst.inner.extend(&around.off.inner);
        for (rank, &idx) in at.iter().enumerate() {
            if active >> rank & 1 != 0 {
                extend(burst, &around.outs, idx)?;
            }
        }
        active |= bit;
        place(&mut at, free, events, active)?;
        for (rank, ((value, cycles, starts, _), &idx)) in events.iter().zip(&at).enumerate() {
            if active >> rank & 1 != 0 {
                let register =
                    if *cycles { Register::of(Kind::Pmccntr) } else { Register::pmevcntr(idx as u8) };
                burst.inner.post(Operation::Msr, u32::from(register.encoding()), *value);
                extend(burst, starts, idx)?;
            }
        }
        burst.inner.extend(&around.on.inner);
    }
    Ok(at)
}

/// Each active event's counter: the cycle counter, or the next one that is free.
fn place(at: &mut [usize], free: &[usize], events: &[Event<'_>], active: u64) -> PyResult<()> {
    let mut nth = 0;
    for (rank, (idx, (_, cycles, ..))) in at.iter_mut().zip(events).enumerate() {
        if active >> rank & 1 != 0 {
            if *cycles {
                *idx = CYCLE;
            } else {
                *idx = counter(free, nth)?;
                nth += 1;
            }
        }
    }
    Ok(())
}
