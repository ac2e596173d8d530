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

pub use classes::{Copies, Kept, NONE, PerfEvent};
pub use walk::Unnamed;

use walk::Walk;

/// Of every key, in every process.
const SEED: u64 = 0x706d_756c_6162;

/// A machine with its observers.
pub type Observed = Machine<(Option<Recorder>, Option<Judge>)>;

/// The canonical form of a state, and if they are asked for its words with the name of each.
#[derive(Default)]
struct Form {
    bytes: Vec<u8>,
    named: Option<Named>,
}

/// Where the walk is, and what it has come to.
#[derive(Default)]
struct Named {
    path: Vec<&'static str>,
    words: Vec<(String, u64)>,
}

impl Form {
    #[inline]
    fn put(&mut self, word: u64) {
        self.bytes.extend_from_slice(&word.to_le_bytes());
        if self.named.is_some() {
            self.name(word);
        }
    }

    /// One of few.
    #[inline]
    fn put_small(&mut self, number: u8) {
        self.bytes.push(number);
        if self.named.is_some() {
            self.name(number.into());
        }
    }

    #[cold]
    fn name(&mut self, word: u64) {
        if let Some(Named { path, words }) = &mut self.named {
            words.push((path.join("."), word));
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
        if let Some(named) = &mut self.named {
            named.path.push(name);
        }
    }

    #[inline]
    fn leave(&mut self) {
        if let Some(named) = &mut self.named {
            named.path.pop();
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
    let mut form = Form { bytes: Vec::new(), named: Some(Named::default()) };
    form.of(machine, copies)?;
    Ok(form.named.unwrap_or_default().words)
}

#[cfg(test)]
mod tests {
    use pmu::feature::Features;
    use pmu::machine::Costs;
    use pmu::register::{Kind, Register};

    use super::*;
    use crate::VcpuSetup;

    /// Owners as the table does not know them, and what it does not know at all.
    #[derive(Serialize)]
    #[serde(rename = "Owners")]
    struct Grown {
        now: u64,
        newer: u64,
    }

    #[derive(Serialize)]
    struct Unheard {
        field: u64,
    }

    fn observed() -> Observed {
        let costs = Costs { mrs: 1, msr: 1, isb: 1 };
        let cpus = vec![Features { counters: 4, ..Features::default() }];
        let mut machine = Machine::new(cpus.clone(), &[0x08], costs).expect("a possible machine");
        machine.add_profile(&[]).expect("a possible profile");
        let (host, guest) = (machine.add_context(false), machine.add_context(true));
        let vcpu = VcpuSetup { context: guest, counters: 2, pmuver: 6, denied: Vec::new() };
        let mut machine = machine.observed_by((None, Some(Judge::new(&cpus, vec![vcpu]))));
        machine.set_running(0, host, 2, 0).expect("it can run");
        machine
    }

    fn key_of(machine: &mut Observed) -> u64 {
        key(machine, b"", &Copies::default()).expect("the table has all of it")
    }

    fn walked(value: &impl Serialize) -> Result<(), Unnamed> {
        value.serialize(&mut Walk { form: &mut Form::default() })
    }

    #[test]
    fn a_field_or_struct_that_the_table_does_not_name_is_an_error() {
        assert_eq!(walked(&Grown { now: 1, newer: 2 }), Err(Unnamed("Owners.newer".to_owned())));
        assert_eq!(walked(&Unheard { field: 1 }), Err(Unnamed("Unheard".to_owned())));
    }

    #[test]
    fn time_alone_changes_no_key_and_a_register_does() {
        let mut machine = observed();
        let before = key_of(&mut machine);
        machine.run(0, 1_000).expect("it runs");
        machine.mark(0, 1, 2, 3).expect("it is marked");
        assert_eq!(key_of(&mut machine), before);
        machine.poke(0, Register::of(Kind::Pmselr).encoding(), 3).expect("it has it");
        assert_ne!(key_of(&mut machine), before);
    }

    #[test]
    fn a_counter_s_value_matters_near_its_wrap_and_where_it_is_not_its_owner_s() {
        let with = |value| {
            let mut machine = observed();
            let register = |kind| Register::of(kind).encoding();
            machine.poke(0, register(Kind::Pmccntr), value).expect("it has it");
            key_of(&mut machine)
        };
        assert_eq!(with(1_000), with(2_000));
        assert_ne!(with(1_000), with(u64::MAX - 5));
        assert_ne!(with(u64::MAX - 5), with(u64::MAX - 6));
        let lost = |value| {
            let mut machine = observed();
            let copies = [(1, vec![(31, value, NONE)])];
            let copies = Copies { guests: &copies, ..Copies::default() };
            key(&mut machine, b"", &copies).expect("the table has all of it")
        };
        assert_ne!(lost(0), lost(1_000));
    }

    #[test]
    fn what_is_told_apart_has_a_name() {
        let mut machine = observed();
        let before = parts(&mut machine, &Copies::default()).expect("the table has all of it");
        machine.poke(0, Register::of(Kind::Pmselr).encoding(), 3).expect("it has it");
        let after = parts(&mut machine, &Copies::default()).expect("the table has all of it");
        let different: Vec<_> =
            before.iter().zip(&after).filter(|(a, b)| a != b).map(|(a, _)| &a.0).collect();
        assert_eq!(different, ["cpus.registers.controls.sel"]);
    }
}
