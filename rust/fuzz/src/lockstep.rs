//! Random register traffic and time from every exception level: no panic, and the core equal to its
//! per-cycle reference after every operation.

#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| pmu::lockstep::run(bytes));
