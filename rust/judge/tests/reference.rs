//! The judge finds the same on the per-cycle reference as on the fast core, in runs with violations and without.

use std::cell::Cell;

use judge::{Judge, VcpuSetup, note};
use pmu::access::Outcome;
use pmu::burst::{Burst, Operation};
use pmu::cpu::{Cpu, Running};
use pmu::feature::Features;
use pmu::field::mdcr_el2;
use pmu::machine::{Costs, Machine};
use pmu::observer::{By, Observer, What};
use pmu::reference::Reference;
use pmu::register::{Kind as Of, Register};
use pmu::registers::{CHAIN, CPU_CYCLES, CYCLE, INST_RETIRED, SW_INCR};
use pmu::tally::{ONE, World};
use proptest::prelude::*;

const EVENTS: [u16; 2] = [INST_RETIRED, CPU_CYCLES];
const COSTS: Costs = Costs { mrs: 2, msr: 3, isb: 1 };
const N: u8 = 4;
const HOST: usize = 0;
const GUESTS: [usize; 2] = [1, 2];
const GUEST_COUNTERS: u8 = 2;

/// A judge that is shown the reference: it is stepped as the machine's time passes, executes each access itself, and
/// what the judge sees of the CPU, and of what a read gives, is what the reference has.
struct Stepped {
    judge: Judge,
    reference: Reference,
    /// What is different in the reference from what it should be: for a test of this test.
    flaw: u64,
}

impl Stepped {
    fn new(judge: Judge, features: &Features, profiles: Vec<Vec<u64>>, flaw: u64) -> Self {
        let tallies = 4 * (1 + GUESTS.len());
        let reference = Reference::new(features.clone(), EVENTS.to_vec(), profiles, tallies);
        Self { judge, reference, flaw }
    }

    /// The CPU as the reference has it.
    fn shown(&mut self, cpu: &Cpu, world: &World) -> Cpu {
        let mut shown = cpu.clone();
        let all = u64::from(u32::MAX);
        let of = Register::of;
        let counters = (0..N).flat_map(|n| [Register::pmevcntr(n), Register::pmevtyper(n)]);
        let first = [of(Of::MdcrEl2)].into_iter().chain(counters);
        let last = [Of::Pmccntr, Of::Pmccfiltr, Of::Pmselr, Of::Pmuserenr, Of::Pmcr].map(of);
        for register in first.chain(last) {
            shown.write(world, register, 2, self.reference.access(register, 2, None).1);
        }
        for (clear, set) in
            [(Of::Pmcntenclr, Of::Pmcntenset), (Of::Pmintenclr, Of::Pmintenset), (Of::Pmovsclr, Of::Pmovsset)]
        {
            let value = self.reference.access(of(set), 2, None).1;
            shown.write(world, of(clear), 2, all & !value);
            shown.write(world, of(set), 2, value);
        }
        shown
    }
}

thread_local! {
    static READS: Cell<u64> = const { Cell::new(0) };
}

impl Observer for Stepped {
    fn see(&mut self, by: By, what: What, cpu: &Cpu, world: &World) {
        let running = cpu.running();
        let el = running.map_or(2, |running| running.el);
        while self.reference.now < cpu.now() {
            self.reference.step();
        }
        let mut executes = |encoding: u16, write: Option<u64>| {
            let register = Register::decode(encoding).expect("it is accessed");
            self.reference.access(register, el, write)
        };
        let what = match what {
            What::Runs { .. } => {
                let Running { tally, el, guest, .. } = running.expect("something does");
                self.reference.set_running(tally, el, guest, 0);
                what
            }
            What::Read { register, .. } => {
                let (outcome, value) = executes(register, None);
                assert_eq!(outcome, Outcome::Executed);
                READS.set(READS.get() + 1);
                What::Read { register, value: value ^ self.flaw }
            }
            What::Wrote { register, value } => {
                assert_eq!(executes(register, Some(value)).0, Outcome::Executed);
                what
            }
            What::Taken { register, write, value, .. } => {
                assert_ne!(executes(register, write.then_some(value)).0, Outcome::Executed);
                what
            }
            _ => what,
        };
        let shown = self.shown(cpu, world);
        self.judge.see(by, what, &shown, world);
    }
}

/// What somebody does.
#[derive(Clone, Debug)]
enum Step {
    /// A guest's kernel, or the host's perf, accesses a register of its own.
    Access { guest: Option<usize>, register: Register, write: Option<u64> },
    /// KVM does, whether right or wrong.
    Kvm { register: Register, value: u64 },
    /// KVM loads a vCPU, with MDCR_EL2 so.
    Load { guest: usize, mdcr: u64 },
    /// And puts the one that is loaded.
    Put,
    /// A trapped access gives this.
    Emulated { value: u64 },
    /// Whoever runs works.
    Works { guest: Option<usize>, cycles: u64 },
    /// Software is entered.
    Entry { code: u16 },
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let value = prop_oneof![
        Just(u64::from(u32::MAX)),
        (0..2_000_u64).prop_map(|below| (1 << 32) - 1 - below),
        0..16_u64,
        Just(1 << CYCLE),
        any::<u64>(),
    ];
    let kinds = [
        Of::Pmcntenset,
        Of::Pmcntenclr,
        Of::Pmovsclr,
        Of::Pmovsset,
        Of::Pmintenset,
        Of::Pmintenclr,
        Of::Pmccfiltr,
        Of::Pmccntr,
        Of::Pmselr,
        Of::Pmcr,
    ];
    let event = prop::sample::select(vec![INST_RETIRED, CPU_CYCLES, SW_INCR, CHAIN]);
    let write = prop_oneof![
        (prop::sample::select(kinds.to_vec()), value.clone())
            .prop_map(|(kind, value)| (Register::of(kind), value)),
        (0..N, value.clone()).prop_map(|(n, value)| (Register::pmevcntr(n), value)),
        (0..N, event, 0..4_u64)
            .prop_map(|(n, event, filter)| (Register::pmevtyper(n), u64::from(event) | filter << 30)),
    ];
    let who = prop_oneof![Just(None), (0..2_usize).prop_map(|guest| Some(GUESTS[guest]))];
    let divided = u64::from(GUEST_COUNTERS) | mdcr_el2::HPME;
    let mdcr = prop::sample::select(vec![divided, divided, divided | mdcr_el2::TPM, u64::from(N), 1]);
    let step = prop_oneof![
        6 => (who.clone(), write.clone(), any::<bool>()).prop_map(|(guest, (register, value), writes)| {
            Step::Access { guest, register, write: writes.then_some(value) }
        }),
        1 => write.prop_map(|(register, value)| Step::Kvm { register, value }),
        2 => (0..2_usize, mdcr).prop_map(|(guest, mdcr)| Step::Load { guest: GUESTS[guest], mdcr }),
        1 => Just(Step::Put),
        1 => value.prop_map(|value| Step::Emulated { value }),
        3 => (who, 0..1_500_u64).prop_map(|(guest, cycles)| Step::Works { guest, cycles }),
        1 => prop::sample::select(vec![1_u16, 2, 7, 17]).prop_map(|code| Step::Entry { code }),
    ];
    prop::collection::vec(step, 1..50)
}

/// What the judge finds on the fast core, and what the one that sees the reference does.
fn both(steps: &[Step], rate: u64, flaw: u64) -> (String, String) {
    let features = Features { counters: N, ..Features::default() };
    let mut machine = Machine::new(vec![features.clone()], &EVENTS, COSTS).expect("possible");
    machine.add_profile(&[(INST_RETIRED, rate), (CPU_CYCLES, ONE)]).expect("possible");
    for guest in [false, true, true] {
        machine.add_context(guest);
    }
    let vcpu = |context| VcpuSetup { context, counters: GUEST_COUNTERS, pmuver: 6, denied: Vec::new() };
    let judge = || Judge::new(std::slice::from_ref(&features), GUESTS.map(vcpu).to_vec());
    let stepped = Stepped::new(judge(), &features, vec![vec![rate, ONE]], flaw);
    let mut machine = machine.observed_by((judge(), stepped));
    machine.set_running(0, HOST, 2, 0).expect("it exists");
    let runs = |machine: &mut Machine<_>, guest: Option<usize>| {
        let (context, el) = guest.map_or((HOST, 2), |guest| (guest, 1));
        machine.set_running(0, context, el, 0).expect("it exists");
    };
    let mut loaded = None;
    for step in steps {
        match *step {
            Step::Access { guest, register, write } => {
                runs(&mut machine, guest);
                let (mut burst, subject) = (Burst::default(), u32::from(register.encoding()));
                match write {
                    Some(value) => burst.post(Operation::Msr, subject, value),
                    None => {
                        burst.post_read(Operation::Mrs, subject);
                    }
                }
                machine.execute_by(By::Software, 0, &mut burst, 0, false).expect("it runs");
            }
            Step::Kvm { register, value } => {
                runs(&mut machine, None);
                machine.access(0, register.encoding(), Some(value)).expect("it is executed");
            }
            Step::Load { guest, mdcr } => {
                runs(&mut machine, None);
                machine.note(0, note::VCPU_LOAD, guest as u64, 0).expect("it exists");
                machine.access(0, Register::of(Of::MdcrEl2).encoding(), Some(mdcr)).expect("it is executed");
                machine.note(0, note::VCPU_LOADED, guest as u64, 0).expect("it exists");
                loaded = Some(guest);
            }
            Step::Put => {
                if let Some(guest) = loaded.take() {
                    runs(&mut machine, None);
                    machine.note(0, note::VCPU_PUT, guest as u64, 0).expect("it exists");
                    machine.note(0, note::VCPU_IS_PUT, guest as u64, 0).expect("it exists");
                }
            }
            Step::Emulated { value } => machine.emulated(0, value).expect("it exists"),
            Step::Works { guest, cycles } => {
                let (context, el) = guest.map_or((HOST, 2), |guest| (guest, 1));
                machine.work(0, context, el, 0, cycles).expect("it exists");
                runs(&mut machine, None);
            }
            Step::Entry { code } => {
                machine.mark(0, code, 0, 0).expect("it exists");
            }
        }
    }
    let (fast, stepped) = machine.observer();
    (format!("{:?}", fast.findings()), format!("{:?}", stepped.judge.findings()))
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn the_judge_finds_the_same_on_the_reference(steps in steps(), rate in 0..3 * ONE) {
        let (fast, stepped) = both(&steps, rate, 0);
        prop_assert_eq!(fast, stepped);
    }
}

/// Without violations, with one, and with one that a flaw of the reference makes.
#[test]
fn what_it_finds_depends_on_what_it_is_shown() {
    let read = |register| Step::Access { guest: Some(1), register, write: None };
    let wrote = |register, value| Step::Access { guest: Some(1), register, write: Some(value) };
    let load = Step::Load { guest: 1, mdcr: u64::from(GUEST_COUNTERS) | mdcr_el2::HPME };
    let counter = Register::pmevcntr(1);
    let off = wrote(Register::of(Of::Pmcntenclr), u64::from(u32::MAX));
    let right = [load, off, wrote(counter, 7), read(counter)];
    let mut wrong = right.to_vec();
    wrong.insert(3, Step::Kvm { register: counter, value: 9 });
    let found = |steps: &[Step], flaw| {
        let (fast, stepped) = both(steps, ONE, flaw);
        [fast, stepped].map(|findings| findings.contains("Violation"))
    };
    assert_eq!(found(&right, 0), [false, false]);
    assert_eq!(found(&wrong, 0), [true, true]);
    assert_eq!(found(&right, 1), [false, true], "a flaw is seen");
    assert!(READS.get() > 0);
}
