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
//! | [`tally`] | rates and truth |
//! | [`cpu`] | counters in time |
//! | [`burst`] | operations as software posts them |
//! | [`machine`] | CPUs, contexts, execution |
//! | [`log`] | the ordered log and its digest |
//! | [`snapshot`] | snapshot and restore |

#![forbid(unsafe_code)]
#![deny(missing_docs)]

pub mod access;
pub mod burst;
pub mod cpu;
pub mod feature;
pub mod field;
pub mod log;
pub mod machine;
pub mod register;
pub mod registers;
pub mod snapshot;
pub mod tally;
