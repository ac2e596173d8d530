//! The core and its per-cycle reference in lockstep, driven by bytes: what the property tests, the
//! fuzz target and its corpus run.
//!
//! The bytes choose the CPU's features, the rates of the events, and then operations: accesses from
//! EL0, EL1 and EL2, cycles, switches of what runs, idleness, snapshots. After each, everything
//! that software or a test could look at must be equal.

use crate::access::Outcome;
use crate::burst::{Burst, Operation};
use crate::feature::{BadHpmn, Constrained, Features};
use crate::machine::{Costs, Machine, Stop};
use crate::reference::Reference;
use crate::register::{EVENT_COUNTERS, Kind, Register};
use crate::registers::{CHAIN, COUNTERS, CPU_CYCLES, INST_RETIRED, SW_INCR};
use crate::tally::ONE;

/// Events that are tallied: `INST_RETIRED`, `CPU_CYCLES` and two more.
const EVENTS: [u16; 4] = [0x03, INST_RETIRED, 0x10, CPU_CYCLES];
/// Events that counters are programmed with: those, `SW_INCR`, `CHAIN` and one that nobody tallies.
const PROGRAMMED: [u16; 8] = [0x03, INST_RETIRED, 0x10, CPU_CYCLES, SW_INCR, CHAIN, CHAIN, 0xff];
const COSTS: Costs = Costs { mrs: 2, msr: 3, isb: 1 };

/// Event counters by name: mostly few, so that what happens to them meets.
const NEAR: [u8; 8] = [0, 1, 0, 1, 2, 3, 4, 7];

/// Bytes as choices; past the end they are all 0.
struct Choices<'a>(&'a [u8]);

impl Choices<'_> {
    fn byte(&mut self) -> u8 {
        let Some((&first, rest)) = self.0.split_first() else { return 0 };
        self.0 = rest;
        first
    }

    fn flag(&mut self) -> bool {
        self.byte() & 1 != 0
    }

    fn word(&mut self) -> u64 {
        u64::from_le_bytes(std::array::from_fn(|_| self.byte()))
    }

    fn one_of<T: Copy>(&mut self, choices: &[T]) -> T {
        choices[usize::from(self.byte()) % choices.len()]
    }

    fn features(&mut self) -> Features {
        let constrained = [Constrained::Undefined, Constrained::RazWi, Constrained::Trap];
        let mut features = Features {
            counters: self.byte() % (EVENT_COUNTERS + 1),
            pmuver: self.one_of(&[1, 4, 5, 6, 7, 8, 9]),
            fgt: self.byte() % 3,
            hpmn0: self.flag(),
            // Of the byte that is next: the corpus was there first.
            pmccntr_in_wfi: self.0.first().is_some_and(|byte| byte & 2 != 0),
            icntr: self.flag(),
            th: self.flag(),
            mtpmu: self.flag(),
            ss: self.flag(),
            el3: self.flag(),
            sel2: self.flag(),
            ..Features::default()
        };
        let byte = self.byte();
        features.aarch32 = byte & 1 != 0;
        features.pmi_delay = if byte & 2 != 0 { u64::from(byte >> 2) } else { 0 };
        let choices = &mut features.choices;
        choices.absent_counter = self.one_of(&constrained);
        choices.reserved_counter = self.one_of(&constrained);
        choices.bad_hpmn = self.one_of(&[BadHpmn::AllCounters, BadHpmn::NoCounters]);
        choices.chain_across_ranges = self.flag();
        choices.freeze_on_cycle_counter = self.flag();
        features
    }

    fn rate(&mut self) -> u64 {
        let fraction = self.word() & 0xffff_ffff;
        match self.byte() % 8 {
            0 => 0,
            1 => ONE,
            2 => fraction >> 16,
            3 => fraction | ONE,
            4 => fraction | u64::from(self.byte()) << 32,
            5 => fraction | 0xffff << 32,
            _ => fraction,
        }
    }

    /// A value to write: often one that matters for the register.
    fn value(&mut self, kind: Kind) -> u64 {
        let word = self.word();
        match (self.byte() % 4, kind) {
            (0, _) => word,
            (_, Kind::Pmevcntr | Kind::Pmxevcntr | Kind::Pmccntr | Kind::Pmicntr) => {
                let below = word & 0x1ff;
                let end = if self.flag() { 1 << 32 } else { 0 };
                u64::wrapping_sub(end, below)
            }
            (_, Kind::Pmevtyper | Kind::Pmxevtyper | Kind::Pmccfiltr | Kind::Pmicfiltr) => {
                let event = u64::from(self.one_of(&PROGRAMMED));
                let threshold =
                    if (word >> 56).is_multiple_of(4) { word & 0x7 << 61 | word >> 40 & 3 << 32 } else { 0 };
                word & 0xfc00_0000 & word << 1 | event | threshold
            }
            (_, Kind::MdcrEl2) => word & word >> 32 & 0x3fff_ffff | word >> 5 & 0x9f,
            (_, Kind::Pmcr) => word & 0x2ff & !6 | 1,
            (1 | 2, _) => u64::MAX,
            _ => word & word >> 32,
        }
    }

    fn register(&mut self) -> Register {
        const OFTEN: [Kind; 9] = [
            Kind::Pmcr,
            Kind::Pmcntenset,
            Kind::Pmcntenclr,
            Kind::Pmovsclr,
            Kind::Pmintenset,
            Kind::MdcrEl2,
            Kind::Pmswinc,
            Kind::Pmccntr,
            Kind::Pmccfiltr,
        ];
        let pick = self.byte();
        match pick % 4 {
            0 => Register::all()
                .nth(usize::from(self.byte()) % crate::register::REGISTERS)
                .unwrap_or(Register::of(Kind::Pmcr)),
            1 => Register::of(self.one_of(&OFTEN)),
            2 => Register::pmevcntr(NEAR[usize::from(pick / 4) % NEAR.len()]),
            _ => Register::pmevtyper(NEAR[usize::from(pick / 4) % NEAR.len()]),
        }
    }
}

/// What runs: context, exception level, whether it is a guest's, and its tally.
const PLACES: [(usize, u8, bool, usize); 6] =
    [(0, 0, true, 0), (0, 1, true, 1), (1, 1, true, 4), (2, 0, false, 6), (2, 2, false, 8), (2, 2, false, 8)];
const PROFILES: usize = 3;
const LONGEST: u64 = 4096;

struct Pair {
    machine: Machine,
    reference: Reference,
    el: u8,
    guest: bool,
}

impl Pair {
    fn new(choices: &mut Choices) -> Self {
        let features = choices.features();
        let mut machine = Machine::new(vec![features], &EVENTS, COSTS).expect("features are in range");
        let mut profiles = Vec::new();
        for _ in 0..PROFILES {
            let rates = [choices.rate(), choices.rate(), choices.rate(), ONE];
            machine
                .add_profile(&EVENTS.into_iter().zip(rates).collect::<Vec<_>>())
                .expect("rates are in range");
            profiles.push(rates.to_vec());
        }
        for guest in [true, true, false] {
            machine.add_context(guest);
        }
        let features = machine.cpu(0).expect("there is one").registers().features.clone();
        let reference = Reference::new(features, EVENTS.to_vec(), profiles, 9);
        let mut pair = Self { machine, reference, el: 0, guest: false };
        pair.switch(4, 0);
        if choices.flag() {
            pair.enable_all(choices);
        }
        pair
    }

    /// Most of what can happen happens to counters that are enabled, so half of the runs begin so.
    fn enable_all(&mut self, choices: &mut Choices) {
        let mdcr = 1 << 7 | u64::from(choices.byte() % 8);
        let pmcr = u64::from(choices.byte()) << 2 & 0x2f8 | 1;
        let fixed = [
            (Kind::MdcrEl2, mdcr),
            (Kind::Pmcr, pmcr),
            (Kind::Pmcntenset, u64::MAX),
            (Kind::Pmccfiltr, 1 << 27),
        ];
        for (kind, value) in fixed {
            self.access(Register::of(kind), Some(value));
        }
        for n in 0..8 {
            let event = u64::from(choices.one_of(&PROGRAMMED));
            self.access(Register::pmevtyper(n), Some(1 << 27 | event));
        }
    }

    fn switch(&mut self, place: u8, profile: u8) {
        let (context, el, guest, tally) = PLACES[usize::from(place) % PLACES.len()];
        let profile = usize::from(profile) % PROFILES;
        self.machine.set_running(0, context, el, profile).expect("the place exists");
        self.reference.set_running(tally, el, guest, profile);
        (self.el, self.guest) = (el, guest);
    }

    fn step(&mut self, cycles: u64) {
        (0..cycles).for_each(|_| self.reference.step());
    }

    fn access(&mut self, register: Register, write: Option<u64>) {
        let mut burst = Burst::default();
        let encoding = u32::from(register.encoding());
        match write {
            None => _ = burst.post_read(Operation::Mrs, encoding),
            Some(value) => burst.post(Operation::Msr, encoding, value),
        }
        let stop = self.machine.execute(0, &mut burst, 0, false).expect("something runs");
        // The reference's access has its effect after the cost, an exception too.
        let before = self.reference.registers.clone();
        self.step(if write.is_some() { COSTS.msr } else { COSTS.mrs });
        let (outcome, value) = self.reference.access(register, self.el, write);
        match (stop, outcome) {
            (Stop::End, Outcome::Executed | Outcome::RazWi) => {
                assert_eq!(burst.values.first().copied().unwrap_or(0), value, "{}", register.name());
            }
            (Stop::Trap { esr, .. }, Outcome::Trapped(2) | Outcome::Undefined(2)) if self.guest => {
                assert_eq!(esr, outcome.esr(register.encoding(), write.is_some()));
            }
            (Stop::Exception { esr, .. }, Outcome::Trapped(_) | Outcome::Undefined(_)) => {
                assert_eq!(esr, outcome.esr(register.encoding(), write.is_some()));
            }
            _ => panic!("{} {write:?}: {stop:?}, the reference {outcome:?} {before:?}", register.name()),
        }
    }

    fn run(&mut self, cycles: u64) {
        let done = self.machine.run(0, cycles).expect("there is one");
        for cycle in 0..cycles {
            if self.reference.interrupt() {
                assert_eq!(done, cycle, "cycle at which the interrupt rises");
                return;
            }
            self.reference.step();
        }
        assert_eq!(done, cycles, "the interrupt rises too early");
    }

    fn compare(&self) {
        let cpu = self.machine.cpu(0).expect("there is one");
        assert_eq!(cpu.now(), self.reference.now, "time");
        let mut values = [0; COUNTERS];
        cpu.read_counters(&mut values);
        for (n, value) in values.into_iter().enumerate() {
            assert_eq!(value, self.reference.value[n], "counter {n} at {}", cpu.now());
            assert_eq!(cpu.counter(n), value, "counter {n} alone");
        }
        assert_eq!(cpu.registers(), &self.reference.registers, "registers at {}", cpu.now());
        assert_eq!(cpu.interrupt(), self.reference.interrupt(), "interrupt at {}", cpu.now());
        for (place, tally) in [(0, 0), (1, 1), (2, 4), (3, 6), (4, 8)] {
            let (context, el, ..) = PLACES[place];
            for (index, &event) in EVENTS.iter().enumerate() {
                let truth = self.machine.truth(context, el, event).expect("the event is tallied");
                assert_eq!(truth, self.reference.happened[tally].occurred[index], "truth of {event:#x}");
            }
        }
    }

    /// Acknowledges or deactivates the interrupt.
    fn gic(&mut self, acknowledge: bool) {
        let cpu = self.machine.cpu_mut(0).expect("there is one");
        if acknowledge {
            cpu.acknowledge();
            self.reference.acknowledge();
        } else {
            cpu.deactivate();
            self.reference.deactivate();
        }
    }

    fn restore(&mut self) {
        let state = self.machine.state().expect("the state can be written");
        self.machine = Machine::from_state(&state).expect("the state can be read");
        assert_eq!(self.machine.state().as_deref(), Ok(state.as_slice()));
    }
}

/// Runs both on what the bytes say.
///
/// # Panics
/// They differ.
pub fn run(bytes: &[u8]) {
    let mut choices = Choices(bytes);
    let mut pair = Pair::new(&mut choices);
    while !choices.0.is_empty() {
        let byte = choices.byte();
        match byte % 16 {
            0..=8 => {
                let register = choices.register();
                let write = (choices.byte() % 4 != 0).then(|| choices.value(register.kind()));
                pair.access(register, write);
            }
            9 | 10 => {
                let cycles = u64::from(choices.byte());
                pair.machine.charge(0, 0, cycles).expect("there is one");
                pair.step(cycles);
            }
            11 | 12 => pair.run((u64::from(choices.byte()) << 4 | 7) % LONGEST),
            13 => {
                let now = pair.reference.now + u64::from(choices.byte());
                let stop = pair.machine.idle_stop(0, now).expect("there is one");
                pair.machine.idle(0, now).expect("there is one");
                pair.reference.idle(now);
                assert!(stop <= pair.reference.now, "the stop of WFI");
            }
            14 => pair.switch(choices.byte(), choices.byte()),
            _ if byte & 0x80 != 0 => pair.gic(byte & 0x40 == 0),
            _ => pair.restore(),
        }
        pair.compare();
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    #[test]
    fn the_fuzzer_s_corpus_still_passes() {
        let corpus = concat!(env!("CARGO_MANIFEST_DIR"), "/../fuzz/corpus");
        let files = std::fs::read_dir(corpus).expect("the corpus is in the tree");
        let inputs: Vec<_> =
            files.map(|file| std::fs::read(file.expect("a file").path()).expect("readable")).collect();
        assert!(inputs.len() > 50, "{} inputs in {corpus}", inputs.len());
        for input in &inputs {
            super::run(input);
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig { max_shrink_iters: 20_000, failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn the_closed_form_is_the_reference_at_every_cycle(bytes in proptest::collection::vec(any::<u8>(), 60..1500)) {
            super::run(&bytes);
        }
    }
}
