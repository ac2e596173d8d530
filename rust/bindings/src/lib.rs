//! `services._pmu`: the Python face of the `pmu` crate. `services/_pmu.pyi` documents it.

mod burst;
mod executor;
mod judgement;
mod machine;
mod rules;
mod stop;
mod turns;

use judge::note;
use pmu::burst::{COMPUTE_EL_SHIFT, Operation};
use pmu::cpu::Whose;
use pmu::register::Register;
use pyo3::exceptions::PyKeyError;
use pyo3::prelude::*;

/// The judge's tolerances: name, what opens it, what closes it, what is allowed meanwhile, and the source.
#[pyfunction]
fn judge_windows() -> Vec<(&'static str, &'static str, &'static str, &'static str, &'static str)> {
    judge::window::WINDOWS.iter().map(|w| (w.name, w.opened, w.closed, w.allowed, w.source)).collect()
}

/// In what what the judge finds shows.
#[pyfunction]
fn judge_kinds() -> Vec<&'static str> {
    judge::finding::KINDS.iter().map(|kind| kind.name()).collect()
}

/// Name of a register.
#[pyfunction]
fn register_name(encoding: u16) -> PyResult<String> {
    Register::decode(encoding)
        .map(Register::name)
        .ok_or_else(|| PyKeyError::new_err(format!("no register {encoding:#x}")))
}

/// Encoding of a register.
#[pyfunction]
fn register_encoding(name: &str) -> PyResult<u16> {
    Register::by_name(name).map(Register::encoding).ok_or_else(|| PyKeyError::new_err(name.to_owned()))
}

/// Names of all registers.
#[pyfunction]
fn register_names() -> Vec<String> {
    Register::all().map(Register::name).collect()
}

#[pymodule]
fn _pmu(module: &Bound<'_, PyModule>) -> PyResult<()> {
    for (name, operation) in [
        ("OP_MRS", Operation::Mrs),
        ("OP_MSR", Operation::Msr),
        ("OP_WRITE_BACK", Operation::WriteBack),
        ("OP_ISB", Operation::Isb),
        ("OP_CHARGE", Operation::Charge),
        ("OP_CLOCK", Operation::Clock),
        ("OP_TRUTH", Operation::Truth),
        ("OP_COMPUTE", Operation::Compute),
        ("OP_WFI", Operation::Wfi),
        ("OP_HVC", Operation::Hvc),
        ("OP_TIMER", Operation::Timer),
        ("OP_IPI", Operation::Ipi),
        ("OP_WINDOW", Operation::Window),
        ("OP_NOTIFY", Operation::Notify),
        ("OP_DONE", Operation::Done),
        ("OP_USER_MRS", Operation::UserMrs),
        ("OP_NOTE", Operation::Note),
        ("OP_USER_MSR", Operation::UserMsr),
    ] {
        module.add(name, operation as u8)?;
    }
    for (name, code) in [
        ("NOTE_VCPU_LOAD", note::VCPU_LOAD),
        ("NOTE_VCPU_LOADED", note::VCPU_LOADED),
        ("NOTE_VCPU_PUT", note::VCPU_PUT),
        ("NOTE_VCPU_IS_PUT", note::VCPU_IS_PUT),
        ("NOTE_GET_ONE_REG", note::GET_ONE_REG),
        ("NOTE_SET_ONE_REG", note::SET_ONE_REG),
        ("NOTE_SET_NR_COUNTERS", note::SET_NR_COUNTERS),
        ("NOTE_SET_FILTER", note::SET_FILTER),
        ("NOTE_INJECT_UNDEF", note::INJECT_UNDEF),
        ("NOTE_EVENT_OPEN", note::EVENT_OPEN),
        ("NOTE_EVENT_GROUP", note::EVENT_GROUP),
        ("NOTE_EVENT_ENABLED", note::EVENT_ENABLED),
        ("NOTE_EVENT_DISABLED", note::EVENT_DISABLED),
        ("NOTE_EVENT_ON", note::EVENT_ON),
        ("NOTE_EVENT_OFF", note::EVENT_OFF),
        ("NOTE_EVENT_ERROR", note::EVENT_ERROR),
        ("NOTE_EVENT_CLOSED", note::EVENT_CLOSED),
        ("NOTE_EVENT_READ", note::EVENT_READ),
        ("NOTE_EVENT_TIME_ENABLED", note::EVENT_TIME_ENABLED),
        ("NOTE_EVENT_TIME_RUNNING", note::EVENT_TIME_RUNNING),
        ("NOTE_EVENT_COUNT", note::EVENT_COUNT),
        ("NOTE_MASKED", note::MASKED),
        ("NOTE_UNMASKED", note::UNMASKED),
        ("NOTE_HOST_PMUSERENR", note::HOST_PMUSERENR),
        ("NOTE_VCPU_BLOCKS", note::VCPU_BLOCKS),
        ("NOTE_VCPU_WAKES", note::VCPU_WAKES),
        ("NOTE_LIVELOCK", note::LIVELOCK),
        ("NOTE_DEADLOCK", note::DEADLOCK),
        ("NOTE_ALL_IDLE", note::ALL_IDLE),
    ] {
        module.add(name, code)?;
    }
    module.add("COMPUTE_EL_SHIFT", COMPUTE_EL_SHIFT)?;
    for (name, whose) in [
        ("CPUTIME_GUEST", Whose::Guest),
        ("CPUTIME_HOST_KERNEL", Whose::HostKernel),
        ("CPUTIME_HOST_USER", Whose::HostUser),
        ("CPUTIME_IDLE", Whose::Idle),
    ] {
        module.add(name, whose as u8)?;
    }
    module.add_class::<burst::Burst>()?;
    module.add_class::<executor::Executor>()?;
    module.add_class::<machine::Machine>()?;
    module.add_class::<stop::Stop>()?;
    module.add_function(wrap_pyfunction!(judge_kinds, module)?)?;
    module.add_function(wrap_pyfunction!(judge_windows, module)?)?;
    module.add_function(wrap_pyfunction!(register_name, module)?)?;
    module.add_function(wrap_pyfunction!(register_encoding, module)?)?;
    module.add_function(wrap_pyfunction!(register_names, module)?)?;
    module.add_class::<rules::Row>()?;
    module.add_class::<rules::Rule>()?;
    module.add_class::<rules::Field>()?;
    module.add_class::<rules::Explanation>()?;
    module.add_function(wrap_pyfunction!(rules::register_rows, module)?)?;
    module.add_function(wrap_pyfunction!(rules::rules, module)?)?;
    module.add_function(wrap_pyfunction!(rules::register_fields, module)?)?;
    module.add_function(wrap_pyfunction!(rules::explain, module)?)?;
    Ok(())
}
