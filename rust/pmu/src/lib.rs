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
//! | [`snapshot`] | snapshot and restore |
//! | `reference` | the same, stepped cycle by cycle (feature `reference`) |
//! | `lockstep` | both side by side, for property tests and fuzzing (feature `reference`) |

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
#[cfg(any(test, feature = "reference"))]
pub mod reference;
pub mod register;
pub mod registers;
pub mod snapshot;
pub mod tally;
