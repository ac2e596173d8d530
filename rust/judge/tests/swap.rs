//! What the host's software finds amid vcpu_load and vcpu_put is the host's; and a vCPU is loaded once.

use judge::finding::{Invariant, Kind};
use judge::{Judge, VcpuSetup, note};
use pmu::burst::{Burst, Operation};
use pmu::feature::Features;
use pmu::machine::{Costs, Machine};
use pmu::observer::By;
use pmu::register::{Kind as Of, Register};

const COSTS: Costs = Costs { mrs: 1, msr: 1, isb: 1 };
const HOST: usize = 0;
const GUEST: usize = 1;
const TIMER: u16 = 2;
const CYCLE: u64 = 1 << 31;

/// The host at EL2, which counts cycles at EL0.
fn machine() -> Machine<Judge> {
    let features = Features { counters: 4, ..Features::default() };
    let mut machine = Machine::new(vec![features.clone(), features.clone()], &[], COSTS).expect("possible");
    machine.add_profile(&[]).expect("possible");
    for guest in [false, true] {
        machine.add_context(guest);
    }
    let vcpu = VcpuSetup { context: GUEST, counters: 4, pmuver: 6, denied: Vec::new() };
    let mut machine = machine.observed_by(Judge::new(&[features.clone(), features], vec![vcpu]));
    for cpu in 0..2 {
        machine.set_running(cpu, HOST, 2, 0).expect("it exists");
    }
    write(&mut machine, By::Software, Of::Pmcntenset, CYCLE);
    machine
}

fn write(machine: &mut Machine<Judge>, by: By, of: Of, value: u64) {
    let mut burst = Burst::default();
    burst.post(Operation::Msr, u32::from(Register::of(of).encoding()), value);
    machine.execute_by(by, 0, &mut burst, 0, false).expect("it runs");
}

/// What is found by I9. That KVM writes an enable of the host's at all is I2's matter.
fn found(machine: &Machine<Judge>) -> Vec<(Invariant, Kind)> {
    let violations = machine.observer().findings().violations().iter();
    let of_swaps = violations.filter(|found| found.invariant == Invariant::I9);
    of_swaps.map(|found| (found.invariant, found.kind)).collect()
}

/// vcpu_load, which takes the host's counter for a while, `restores` it or not, and is interrupted or not.
fn load(interrupted: bool, restores: bool) -> Machine<Judge> {
    let mut machine = machine();
    machine.note(0, note::VCPU_LOAD, GUEST as u64, 0).expect("it exists");
    write(&mut machine, By::Kvm, Of::Pmcntenclr, CYCLE);
    if interrupted {
        machine.mark(0, TIMER, 0, 0).expect("it exists");
    }
    if restores {
        write(&mut machine, By::Kvm, Of::Pmcntenset, CYCLE);
    }
    machine.note(0, note::VCPU_LOADED, GUEST as u64, 0).expect("it exists");
    machine
}

#[test]
fn a_half_done_swap_is_one_that_the_host_s_software_sees() {
    assert_eq!(found(&load(true, true)), [(Invariant::I9, Kind::HalfSwapped)]);
    assert_eq!(found(&load(false, true)), []);
}

#[test]
fn what_is_missing_after_the_swap_too_is_no_matter_of_when_it_is_looked_at() {
    assert_eq!(found(&load(true, false)), []);
}

#[test]
fn a_vcpu_is_loaded_where_no_other_is_and_it_is_not() {
    for (cpu, put, expected) in [
        (1, false, vec![(Invariant::I9, Kind::LoadedTwice)]),
        (0, false, vec![(Invariant::I9, Kind::LoadedTwice)]),
        (1, true, vec![]),
    ] {
        let mut machine = load(false, true);
        if put {
            machine.note(0, note::VCPU_PUT, GUEST as u64, 0).expect("it exists");
            machine.note(0, note::VCPU_IS_PUT, GUEST as u64, 0).expect("it exists");
        }
        machine.note(cpu, note::VCPU_LOAD, GUEST as u64, 0).expect("it exists");
        assert_eq!(found(&machine), expected);
    }
}

#[test]
fn kvm_accesses_a_counter_where_a_vcpu_is_loaded() {
    let mut writes = machine();
    write(&mut writes, By::Kvm, Of::Pmccntr, 1);
    let mut reads = machine();
    reads.access(0, Register::of(Of::Pmccntr).encoding(), None).expect("it runs").expect("EL2 reads it");
    for machine in [writes, reads] {
        assert_eq!(found(&machine), [(Invariant::I9, Kind::NotLoaded)]);
    }
}
