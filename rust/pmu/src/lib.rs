//! The Performance Monitors Extension of the Arm architecture (`PMUv3`) under a hypervisor: exact per
//! cycle, without stepping every cycle.
//!
//! | module | what it knows |
//! |---|---|
//! | [`register`] | names and encodings |
//! | [`field`] | the registers' fields |
//! | [`feature`] | what a CPU implements, and what it does where the architecture leaves a choice |
//! | [`access`] | who may access which register: the tables that the code runs on |
//! | [`registers`] | what the registers hold: ranges, what counts, the interrupt condition |
//! | [`explain`] | what an access would do, and by which rule |
//! | [`tally`] | rates and truth |
//! | [`counter`] | one counter as a line in time |
//! | [`cpu`] | a CPU: clock, overflows, what counts, accesses |
//! | [`burst`] | operations as software posts them |
//! | [`machine`] | CPUs, contexts, execution |
//! | [`log`] | the ordered log and its digest |
//! | [`observer`] | who watches a machine |
//! | [`snapshot`] | snapshot and restore |
//! | `reference` | the same, stepped cycle by cycle (feature `reference`) |
//! | `lockstep` | both side by side, for property tests and fuzzing (feature `reference`) |
//!
//! A host counts instructions at EL2 until the counter overflows:
//!
//! ```
//! use pmu::burst::{Burst, Operation};
//! use pmu::feature::Features;
//! use pmu::field::{pmcr, pmevtyper};
//! use pmu::machine::{Costs, Machine, Stop};
//! use pmu::register::{Kind, Register};
//! use pmu::registers::INST_RETIRED;
//! use pmu::tally::ONE;
//!
//! # fn main() -> Result<(), pmu::machine::Error> {
//! let costs = Costs { mrs: 30, msr: 30, isb: 30 };
//! let mut machine = Machine::new(vec![Features::default()], &[INST_RETIRED], costs)?;
//! let profile = machine.add_profile(&[(INST_RETIRED, 2 * ONE)])?;
//! let host = machine.add_context(false);
//! machine.set_running(0, host, 2, profile)?;
//!
//! let mut burst = Burst::default();
//! for (register, value) in [
//!     (Register::pmevtyper(0), pmevtyper::NSH | u64::from(INST_RETIRED)),
//!     (Register::pmevcntr(0), 0xffff_f000),
//!     (Register::of(Kind::Pmintenset), 1),
//!     (Register::of(Kind::Pmcntenset), 1),
//!     (Register::of(Kind::Pmcr), pmcr::E),
//! ] {
//!     burst.post(Operation::Msr, u32::from(register.encoding()), value);
//! }
//! assert_eq!(machine.execute(0, &mut burst, 0, false)?, Stop::End);
//! assert_eq!(machine.run(0, 1_000_000)?, 0x1000 / 2, "cycles until the interrupt");
//! assert!(machine.cpu(0)?.interrupt());
//! # Ok(())
//! # }
//! ```

#![forbid(unsafe_code)]
#![deny(missing_docs)]

pub mod access;
pub mod burst;
pub mod counter;
pub mod cpu;
pub mod explain;
pub mod feature;
pub mod field;
#[cfg(any(test, feature = "reference"))]
pub mod lockstep;
pub mod log;
pub mod machine;
pub mod observer;
#[cfg(any(test, feature = "reference"))]
pub mod reference;
pub mod register;
pub mod registers;
pub mod snapshot;
pub mod tally;
