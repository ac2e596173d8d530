//! The canonical key of a machine's state and its judge's: two states with the same key have the same futures, but for
//! clocks and running totals. `table` has every field, and whether it is in.

mod classes;
mod table;
mod walk;

use pmu::machine::Machine;
use pmu::observer::Recorder;
use serde::Serialize;
use xxhash_rust::xxh3::xxh3_64_with_seed;

use crate::Judge;

pub use classes::{Copies, NONE, PerfEvent};
pub use walk::Unnamed;

use walk::Walk;

/// Of every key, in every process.
const SEED: u64 = 0x706d_756c_6162;

/// A machine with its observers.
pub type Observed = Machine<(Option<Recorder>, Option<Judge>)>;

/// The canonical form of a state: words, and if they are asked for the name of each.
#[derive(Default)]
struct Form {
    bytes: Vec<u8>,
    named: Option<(Vec<&'static str>, Vec<String>)>,
}

impl Form {
    #[inline]
    fn put(&mut self, word: u64) {
        self.bytes.extend_from_slice(&word.to_le_bytes());
        if let Some((path, names)) = &mut self.named {
            names.push(path.join("."));
        }
    }

    fn put_bytes(&mut self, bytes: &[u8]) {
        self.put(bytes.len() as u64);
        for chunk in bytes.chunks(8) {
            let mut word = [0; 8];
            word[..chunk.len()].copy_from_slice(chunk);
            self.put(u64::from_le_bytes(word));
        }
    }

    #[inline]
    fn field(&mut self, name: &'static str, word: u64) {
        self.enter(name);
        self.put(word);
        self.leave();
    }

    #[inline]
    fn enter(&mut self, name: &'static str) {
        if let Some((path, _)) = &mut self.named {
            path.push(name);
        }
    }

    #[inline]
    fn leave(&mut self) {
        if let Some((path, _)) = &mut self.named {
            path.pop();
        }
    }

    fn of(&mut self, machine: &mut Observed, copies: &Copies<'_>) -> Result<(), Unnamed> {
        if let ((_, Some(judge)), cpus) = machine.observed() {
            judge.catch_up(cpus);
        }
        machine.serialize(&mut Walk { form: self })?;
        classes::put(self, machine, copies);
        Ok(())
    }
}

/// The key of a state, up to which its judge is brought; `extra` is what else is in it, and `copies` the counters' values that are kept elsewhere.
///
/// # Errors
/// The table does not name a field.
pub fn key(machine: &mut Observed, extra: &[u8], copies: &Copies<'_>) -> Result<u64, Unnamed> {
    let mut form = Form { bytes: Vec::with_capacity(1 << 15), named: None };
    form.of(machine, copies)?;
    form.bytes.extend_from_slice(extra);
    Ok(xxh3_64_with_seed(&form.bytes, SEED))
}

/// What is in a key but `extra`, with names: to tell in what two states differ.
///
/// # Errors
/// The table does not name a field.
pub fn parts(machine: &mut Observed, copies: &Copies<'_>) -> Result<Vec<(String, u64)>, Unnamed> {
    let mut form = Form { bytes: Vec::new(), named: Some((Vec::new(), Vec::new())) };
    form.of(machine, copies)?;
    let (_, names) = form.named.unwrap_or_default();
    let words = form.bytes.chunks_exact(8).map(|word| word.try_into().map_or(0, u64::from_le_bytes));
    Ok(names.into_iter().zip(words).collect())
}
