//! The ideal PMU of a vCPU is what the per-cycle reference is that is stepped through the guest's time alone: whoever
//! else runs in between, and on whichever CPU.

use judge::guest::Guest;
use pmu::burst::{Burst, Operation};
use pmu::cpu::Cpu;
use pmu::feature::Features;
use pmu::machine::{Costs, Machine};
use pmu::observer::{By, Observer, What};
use pmu::reference::Reference;
use pmu::register::{Kind, Register};
use pmu::registers::{CHAIN, COUNTERS, CPU_CYCLES, INST_RETIRED, SW_INCR};
use pmu::tally::{ONE, World};
use proptest::prelude::*;

const EVENTS: [u16; 3] = [0x03, INST_RETIRED, CPU_CYCLES];
const COSTS: Costs = Costs { mrs: 2, msr: 3, isb: 1 };
const CPUS: usize = 2;
const GUEST: usize = 0;
const OTHER: usize = 1;
const HOST: usize = 2;

/// Has a vCPU's ideal follow it.
struct Follower(Guest);

impl Observer for Follower {
    fn see(&mut self, _: By, what: What, cpu: &Cpu, world: &World) {
        let own = |context| context == GUEST;
        if let What::Runs { last } = what {
            if last.is_some_and(|last| own(last.context)) {
                self.0.catch_up(cpu.now());
            }
            if let Some(running) = cpu.running().filter(|running| own(running.context)) {
                self.0.runs(running, cpu, world);
            }
        } else if let Some(running) = cpu.running().filter(|running| own(running.context)) {
            self.0.catch_up(cpu.now());
            if let What::Wrote { register, value } = what {
                let register = Register::decode(register).expect("it was written");
                if !self.0.absent(register) {
                    self.0.write(world, register, running.el, value);
                }
            }
        }
    }
}

#[derive(Clone, Debug)]
enum Step {
    /// The guest works on a CPU at an exception level under a profile.
    Work { cpu: usize, el: u8, profile: usize, cycles: u64 },
    /// Another guest or the host does.
    Others { cpu: usize, guest: bool, profile: usize, cycles: u64 },
    /// The guest's kernel writes, on the CPU on which it worked last.
    Write { register: Register, value: u64 },
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let place = || (0..CPUS, 0..2_usize, 0..3_000_u64);
    let kinds = [
        Kind::Pmcntenset,
        Kind::Pmcntenclr,
        Kind::Pmovsclr,
        Kind::Pmovsset,
        Kind::Pmintenset,
        Kind::Pmcr,
        Kind::Pmswinc,
        Kind::Pmccfiltr,
        Kind::Pmccntr,
        Kind::Pmselr,
        Kind::Pmxevcntr,
        Kind::Pmxevtyper,
    ];
    let value = prop_oneof![
        Just(u64::MAX),
        (0..4_000_u64).prop_map(|below| (1 << 32) - 1 - below),
        (0..4_000_u64).prop_map(|below| u64::MAX - below),
        any::<u64>(),
        (0..16_u64),
    ];
    let event = prop::sample::select(vec![0x03, INST_RETIRED, CPU_CYCLES, SW_INCR, CHAIN]);
    let step = prop_oneof![
        (place(), 0..2_u8).prop_map(|((cpu, profile, cycles), el)| Step::Work { cpu, el, profile, cycles }),
        (place(), any::<bool>()).prop_map(|((cpu, profile, cycles), guest)| Step::Others {
            cpu,
            guest,
            profile,
            cycles
        }),
        (prop::sample::select(kinds.to_vec()), value.clone())
            .prop_map(|(kind, value)| Step::Write { register: Register::of(kind), value }),
        (0..4_u8, value).prop_map(|(n, value)| Step::Write { register: Register::pmevcntr(n), value }),
        (0..4_u8, event, 0..4_u64).prop_map(|(n, event, filter)| Step::Write {
            register: Register::pmevtyper(n),
            value: u64::from(event) | filter << 30,
        }),
    ];
    prop::collection::vec(step, 1..60)
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn the_ideal_of_a_vcpu_is_the_reference_in_the_guest_s_own_time(
        steps in steps(), rates in prop::array::uniform4(0..3 * ONE), pmuver in prop::sample::select(vec![4_u8, 5, 6]),
    ) {
        let features = || Features { counters: 4, pmuver, ..Features::default() };
        let mut machine = Machine::new(vec![features(), features()], &EVENTS, COSTS).expect("possible");
        let profiles: Vec<Vec<u64>> = rates.chunks_exact(2).map(|pair| vec![pair[0], pair[1], ONE]).collect();
        for profile in &profiles {
            let rates: Vec<_> = EVENTS.iter().copied().zip(profile.iter().copied()).collect();
            machine.add_profile(&rates).expect("possible");
        }
        for guest in [true, true, false] {
            machine.add_context(guest);
        }
        let mut machine = machine.observed_by(Follower(Guest::new(GUEST, &features(), 4, pmuver, Vec::new())));
        let of_reference = machine.observer().0.ideal.registers().features().clone();
        let mut reference = Reference::new(of_reference, EVENTS.to_vec(), profiles, 3);
        let (mut on, mut profile) = (0, 0);
        let elsewhere = |machine: &mut Machine<Follower>, cpu: usize| {
            machine.set_running(1 - cpu, HOST, 2, 0).expect("it exists");
        };
        for step in steps {
            match step {
                Step::Work { cpu, el, profile: of, cycles } => {
                    (on, profile) = (cpu, of);
                    elsewhere(&mut machine, cpu);
                    machine.set_running(cpu, GUEST, el, of).expect("it exists");
                    reference.set_running(usize::from(el), el, true, of);
                    machine.charge(cpu, 0, cycles).expect("it exists");
                    machine.note(cpu, 0, 0, 0).expect("it exists"); // so that it is seen
                    (0..cycles).for_each(|_| reference.step());
                }
                Step::Others { cpu, guest, profile, cycles } => {
                    elsewhere(&mut machine, cpu);
                    let (context, el) = if guest { (OTHER, 1) } else { (HOST, 2) };
                    machine.set_running(cpu, context, el, profile).expect("it exists");
                    machine.charge(cpu, 0, cycles).expect("it exists");
                    continue; // of which the reference sees nothing
                }
                Step::Write { register, value } => {
                    elsewhere(&mut machine, on);
                    machine.set_running(on, GUEST, 1, profile).expect("it exists");
                    reference.set_running(1, 1, true, profile);
                    // The guest selects anew before it goes by PMSELR_EL0: a CPU that it has come to has another's.
                    let select = Register::of(Kind::Pmselr);
                    let (_, selected) = reference.access(select, 1, None);
                    let indirect = matches!(register.kind(), Kind::Pmxevcntr | Kind::Pmxevtyper);
                    let first = indirect.then_some((select, selected));
                    for (register, value) in first.into_iter().chain([(register, value)]) {
                        let mut burst = Burst::default();
                        burst.post(Operation::Msr, u32::from(register.encoding()), value);
                        machine.execute(on, &mut burst, 0, false).expect("it runs");
                        (0..COSTS.msr).for_each(|_| reference.step());
                        reference.access(register, 1, Some(value));
                    }
                }
            }
            let ideal = &machine.observer().0.ideal;
            let mut values = [0; COUNTERS];
            ideal.read_counters(&mut values);
            prop_assert_eq!(&values[..], &reference.value[..]);
            prop_assert_eq!(ideal.registers(), &reference.registers);
        }
    }
}
