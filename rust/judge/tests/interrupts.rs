//! A guest and the host are interrupted when their overflow condition is true: neither later than the level takes to
//! arrive, nor otherwise; and interrupts do not take all.

use judge::finding::{Invariant, Kind, Party, Violation};
use judge::window::IN_A_ROW;
use judge::{Judge, VcpuSetup, note};
use pmu::burst::{Burst, Operation};
use pmu::feature::Features;
use pmu::machine::{Costs, Machine};
use pmu::observer::By;
use pmu::register::{Kind as Of, Register};

const COSTS: Costs = Costs { mrs: 0, msr: 0, isb: 0 };
const DELAY: u64 = 7;
const LEFT: u64 = 100;
const HOST: usize = 0;
const GUEST: usize = 1;
const OTHER: usize = 2;
const HOST_OF_1: usize = 3;
const HOST_PMU_IRQ: u16 = 1;
const GUEST_PMU_IRQ: u16 = 17;

/// The host at EL2, two vCPUs none of which is loaded, and all known of their PMUs.
fn machine() -> Machine<Judge> {
    machine_of(1)
}

/// With so many pCPUs. The host's context on a second one is the last.
fn machine_of(pcpus: usize) -> Machine<Judge> {
    let features = Features { counters: 4, pmi_delay: DELAY, ..Features::default() };
    let features = vec![features; pcpus];
    let mut machine = Machine::new(features.clone(), &[], COSTS).expect("possible");
    machine.add_profile(&[]).expect("possible");
    for guest in [false, true, true, false] {
        machine.add_context(guest);
    }
    let vcpu = |context| VcpuSetup { context, counters: 4, pmuver: 6, denied: Vec::new() };
    let mut machine = machine.observed_by(Judge::new(&features, vec![vcpu(GUEST), vcpu(OTHER)]));
    for (cpu, host) in [HOST, HOST_OF_1].into_iter().enumerate().take(pcpus) {
        machine.set_running(cpu, host, 2, 0).expect("it exists");
    }
    machine
}

fn writes(machine: &mut Machine<Judge>, by: By, each: &[(Of, u64)]) {
    writes_on(machine, 0, by, each);
}

fn writes_on(machine: &mut Machine<Judge>, cpu: usize, by: By, each: &[(Of, u64)]) {
    let mut burst = Burst::default();
    for &(of, value) in each {
        burst.post(Operation::Msr, u32::from(Register::of(of).encoding()), value);
        burst.post(Operation::Isb, 0, 0);
    }
    machine.execute_by(by, cpu, &mut burst, 0, false).expect("it runs");
}

fn notes(machine: &mut Machine<Judge>, code: u32) {
    let mut burst = Burst::default();
    burst.post(Operation::Note, code, 0);
    machine.execute_by(By::Software, 0, &mut burst, 0, false).expect("it runs");
}

/// Whose software runs has its cycle counter overflow after `LEFT` cycles.
fn counts(machine: &mut Machine<Judge>, el2: u64) {
    counts_on(machine, 0, el2);
}

fn counts_on(machine: &mut Machine<Judge>, cpu: usize, el2: u64) {
    let all = u64::from(u32::MAX);
    let cycle = 1 << 31;
    let each = [
        (Of::Pmcr, 1 << 6),
        (Of::Pmcntenclr, all),
        (Of::Pmintenclr, all),
        (Of::Pmovsclr, all),
        (Of::Pmccfiltr, el2),
        (Of::Pmccntr, 0_u64.wrapping_sub(LEFT)),
        (Of::Pmcntenset, cycle),
        (Of::Pmintenset, cycle),
        (Of::Pmcr, 1 << 6 | 1),
    ];
    writes_on(machine, cpu, By::Software, &each);
}

/// The vCPU is loaded, and what is the host's of the PMU is off.
fn loads(machine: &mut Machine<Judge>, context: usize) {
    loads_on(machine, 0, context);
}

fn loads_on(machine: &mut Machine<Judge>, cpu: usize, context: usize) {
    machine.note(cpu, note::VCPU_LOAD, context as u64, 0).expect("it exists");
    machine.note(cpu, note::VCPU_LOADED, context as u64, 0).expect("it exists");
    machine.set_running(cpu, context, 1, 0).expect("it exists");
}

fn exits(machine: &mut Machine<Judge>) {
    machine.set_running(0, HOST, 2, 0).expect("it exists");
    machine.guest_timing_exit(0, 0, 0).expect("it exists");
}

fn found(machine: &Machine<Judge>) -> Vec<(Invariant, Kind, Party)> {
    of(machine.observer().findings().violations())
}

fn of_interrupts(machine: &Machine<Judge>) -> Vec<(Invariant, Kind, Party)> {
    found(machine).into_iter().filter(|&(invariant, ..)| invariant == Invariant::I5).collect()
}

fn of(violations: &[Violation]) -> Vec<(Invariant, Kind, Party)> {
    violations.iter().map(|found| (found.invariant, found.kind, found.victim)).collect()
}

/// The cycle counter on the CPU is so many cycles behind.
fn falls_behind(machine: &mut Machine<Judge>, cycles: u64) {
    machine.set_running(0, HOST, 2, 0).expect("it exists");
    writes(machine, By::Kvm, &[(Of::Pmccntr, 0_u64.wrapping_sub(LEFT + cycles))]);
}

/// Up to an interrupt.
fn works_on(machine: &mut Machine<Judge>, context: usize, cycles: u64) {
    let el = if context == HOST { 2 } else { 1 };
    machine.work(0, context, el, 0, cycles).expect("it exists");
    exits(machine);
}

fn at_edge(machine: &Machine<Judge>, window: &str) -> u64 {
    machine.observer().findings().windows().find(|(name, ..)| *name == window).expect("it is there").2
}

#[test]
fn a_guest_works_on_for_as_long_as_the_level_takes_and_no_cycle_longer() {
    for (over, expected) in
        [(0, vec![]), (1, vec![(Invariant::I5, Kind::LateInterrupt, Party::Guest(GUEST))])]
    {
        let mut machine = machine();
        loads(&mut machine, GUEST);
        counts(&mut machine, 0);
        falls_behind(&mut machine, over);
        works_on(&mut machine, GUEST, LEFT + DELAY + over);
        assert_eq!(of_interrupts(&machine), expected);
        assert_eq!(at_edge(&machine, "interrupt on its way"), 1 - over);
        for late in
            machine.observer().findings().violations().iter().filter(|found| found.invariant == Invariant::I5)
        {
            assert_eq!((late.expected, late.actual), (DELAY, DELAY + over));
            assert_eq!(late.since, Some(LEFT));
        }
    }
}

#[test]
fn a_guest_that_masks_interrupts_is_not_late_but_by_the_instant_in_which_it_lets_them_in() {
    let late = (Invariant::I5, Kind::LateInterrupt, Party::Guest(GUEST));
    for (over, expected) in [(0, vec![]), (1, vec![late])] {
        let mut machine = machine();
        loads(&mut machine, GUEST);
        counts(&mut machine, 0);
        falls_behind(&mut machine, over);
        machine.set_running(0, GUEST, 1, 0).expect("it exists");
        notes(&mut machine, note::MASKED);
        falls_behind(&mut machine, over);
        works_on(&mut machine, GUEST, LEFT + DELAY + over);
        assert_eq!(of_interrupts(&machine), []);
        machine.set_running(0, GUEST, 1, 0).expect("it exists");
        notes(&mut machine, note::UNMASKED);
        assert_eq!(of_interrupts(&machine), expected);
        assert_eq!(at_edge(&machine, "interrupt on its way"), 1 - over);
    }
}

#[test]
fn the_host_works_on_for_as_long_as_the_level_takes_and_no_cycle_longer() {
    for (over, expected) in [(0, vec![]), (1, vec![(Invariant::I5, Kind::LateInterrupt, Party::Host)])] {
        let mut machine = machine();
        counts(&mut machine, 1 << 27);
        falls_behind(&mut machine, over);
        works_on(&mut machine, HOST, LEFT + DELAY + over);
        assert_eq!(of_interrupts(&machine), expected);
    }
}

#[test]
fn a_host_that_masks_interrupts_is_not_late() {
    for works in [0, LEFT - 1] {
        let mut machine = machine();
        counts(&mut machine, 1 << 27);
        machine.work(0, HOST, 2, 0, works).expect("it exists");
        machine.charge(0, 0, LEFT + DELAY + 1000).expect("it exists");
        machine.mark(0, HOST_PMU_IRQ, 0, 0).expect("it exists");
        assert_eq!(found(&machine), [], "after {works} cycles with interrupts unmasked");
    }
}

#[test]
fn an_overflow_of_the_host_s_whose_flag_kvm_has_cleared_is_lost() {
    let mut machine = machine();
    counts(&mut machine, 1 << 27);
    machine.charge(0, 0, LEFT).expect("it exists");
    writes(&mut machine, By::Kvm, &[(Of::Pmovsclr, 1 << 31)]);
    works_on(&mut machine, HOST, DELAY + 1);
    let lost = (Invariant::I5, Kind::LostInterrupt, Party::Host);
    assert_eq!(found(&machine), [(Invariant::I2, Kind::HostState, Party::Host), lost]);
}

#[test]
fn a_flag_that_the_host_has_left_on_a_counter_of_nobody_s_may_be_cleared_by_kvm() {
    for (stops, expected) in
        [(true, vec![]), (false, vec![(Invariant::I5, Kind::LostInterrupt, Party::Host)])]
    {
        let mut machine = machine();
        counts(&mut machine, 1 << 27);
        writes(&mut machine, By::Software, &[(Of::Pmintenclr, 1 << 31)]);
        machine.charge(0, 0, LEFT).expect("it exists");
        if stops {
            writes(&mut machine, By::Software, &[(Of::Pmcntenclr, 1 << 31)]);
        }
        writes(&mut machine, By::Kvm, &[(Of::Pmovsclr, 1 << 31)]);
        writes(&mut machine, By::Software, &[(Of::Pmintenset, 1 << 31)]);
        works_on(&mut machine, HOST, DELAY + 1);
        let of_interrupts: Vec<_> =
            found(&machine).into_iter().filter(|found| found.0 == Invariant::I5).collect();
        assert_eq!(of_interrupts, expected);
    }
}

/// The vCPU has a write trap, by which its flag is to interrupt or not, and KVM has not done it yet.
fn has_trapped(register: Of, value: u64) -> Machine<Judge> {
    let mut machine = machine();
    loads(&mut machine, GUEST);
    counts(&mut machine, 0);
    writes(&mut machine, By::Software, &[(Of::Pmintenclr, u64::from(u32::MAX))]);
    machine.charge(0, 0, LEFT).expect("it exists");
    let hpmn_and_tpm = 4 | 1 << 6;
    exits(&mut machine);
    writes(&mut machine, By::Kvm, &[(Of::MdcrEl2, hpmn_and_tpm)]);
    machine.set_running(0, GUEST, 1, 0).expect("it exists");
    writes(&mut machine, By::Software, &[(register, value)]);
    exits(&mut machine);
    machine
}

#[test]
fn the_host_may_be_interrupted_by_what_a_trapped_write_has_just_done_for_the_guest() {
    for (register, value, expected) in [
        (Of::Pmintenset, 1 << 31, vec![]),
        (Of::Pmintenset, 1, vec![(Invariant::I5, Kind::SpuriousInterrupt, Party::Host)]),
        (Of::Pmintenclr, 1 << 31, vec![(Invariant::I5, Kind::SpuriousInterrupt, Party::Host)]),
    ] {
        let mut machine = has_trapped(register, value);
        machine.mark(0, HOST_PMU_IRQ, 0, 0).expect("it exists");
        assert_eq!(found(&machine), expected, "{register:?} {value:#x}");
        let uses = machine.observer().findings().windows().find(|(name, ..)| *name == "trapped write");
        assert_eq!(uses.expect("it is there").1 > 0, expected.is_empty());
    }
}

#[test]
fn a_vcpu_that_blocks_with_its_interrupt_condition_true_has_lost_an_interrupt() {
    for (over, expected) in
        [(0, vec![]), (1, vec![(Invariant::I5, Kind::LostInterrupt, Party::Guest(GUEST))])]
    {
        let mut machine = machine();
        loads(&mut machine, GUEST);
        counts(&mut machine, 0);
        machine.charge(0, 0, LEFT).expect("it exists");
        exits(&mut machine);
        machine.charge(0, 0, DELAY + over).expect("it exists");
        machine.note(0, note::VCPU_BLOCKS, GUEST as u64, 0).expect("it exists");
        assert_eq!(found(&machine), expected);
    }
}

#[test]
fn a_vcpu_that_blocks_while_its_interrupt_is_on_its_way_does_not_sleep_over_it() {
    let lost = vec![(Invariant::I5, Kind::LostInterrupt, Party::Guest(GUEST))];
    for (cycles, woken_by, expected) in [
        (DELAY, None, vec![]),
        (DELAY + 1, None, lost),
        (DELAY + 1, Some(note::VCPU_WAKES), vec![]),
        (DELAY + 1, Some(note::VCPU_LOAD), vec![]),
    ] {
        let mut machine = machine();
        loads(&mut machine, GUEST);
        counts(&mut machine, 0);
        machine.charge(0, 0, LEFT).expect("it exists");
        exits(&mut machine);
        for code in [note::VCPU_BLOCKS, note::VCPU_PUT] {
            machine.note(0, code, GUEST as u64, 0).expect("it exists");
        }
        writes(&mut machine, By::Kvm, &[(Of::Pmovsclr, 1 << 31)]);
        machine.note(0, note::VCPU_IS_PUT, GUEST as u64, 0).expect("it exists");
        if let Some(code) = woken_by {
            machine.note(0, code, GUEST as u64, 0).expect("it exists");
        }
        works_on(&mut machine, HOST, cycles);
        assert_eq!(found(&machine), expected, "{cycles} cycles, woken by {woken_by:?}");
    }
}

#[test]
fn an_interrupt_of_nobody_s_is_spurious_and_one_of_another_s_misattributed() {
    let mut nobody_s = machine();
    nobody_s.mark(0, HOST_PMU_IRQ, 0, 0).expect("it exists");
    assert_eq!(found(&nobody_s), [(Invariant::I5, Kind::SpuriousInterrupt, Party::Host)]);

    let mut another_s = machine();
    loads(&mut another_s, GUEST);
    counts(&mut another_s, 0);
    another_s.charge(0, 0, LEFT).expect("it exists");
    exits(&mut another_s);
    another_s.mark(0, HOST_PMU_IRQ, 0, 0).expect("it exists");
    assert_eq!(found(&another_s), [], "the host's handler finds the flag of the vCPU that is loaded");
    another_s.note(0, note::VCPU_PUT, GUEST as u64, 0).expect("it exists");
    another_s.note(0, note::VCPU_IS_PUT, GUEST as u64, 0).expect("it exists");
    loads(&mut another_s, OTHER);
    another_s.mark(0, GUEST_PMU_IRQ, 0, 0).expect("it exists");
    let misattributed = another_s.observer().findings().violations();
    let interrupted: Vec<_> = misattributed.iter().filter(|found| found.invariant == Invariant::I5).collect();
    assert_eq!(interrupted.len(), 1);
    assert_eq!(interrupted[0].kind, Kind::MisattributedInterrupt);
    assert_eq!((interrupted[0].victim, interrupted[0].other), (Party::Guest(OTHER), Party::Guest(GUEST)));
}

#[test]
fn a_guest_that_has_cleared_its_flag_by_itself_is_interrupted_once_more_at_most_up_to_its_next_exit() {
    for (leaves, expected) in
        [(false, vec![]), (true, vec![(Invariant::I5, Kind::SpuriousInterrupt, Party::Guest(GUEST))])]
    {
        let mut machine = machine();
        loads(&mut machine, GUEST);
        counts(&mut machine, 0);
        machine.charge(0, 0, LEFT).expect("it exists");
        writes(&mut machine, By::Software, &[(Of::Pmovsclr, 1 << 31)]);
        if leaves {
            exits(&mut machine);
        }
        machine.mark(0, GUEST_PMU_IRQ, 0, 0).expect("it exists");
        assert_eq!(found(&machine), expected);
    }
}

#[test]
fn interrupts_in_a_row_end_in_a_livelock_unless_something_is_got_done_between_them() {
    for (further, works, expected) in [
        (IN_A_ROW, false, vec![]),
        (IN_A_ROW + 1, false, vec![(Invariant::I12, Kind::Livelock, Party::Host)]),
        (IN_A_ROW + 1, true, vec![]),
    ] {
        let mut machine = machine();
        counts(&mut machine, 1 << 27);
        machine.charge(0, 0, LEFT).expect("it exists");
        for n in 0..=further {
            machine.mark(0, HOST_PMU_IRQ, 0, 0).expect("it exists");
            if works && n == IN_A_ROW / 2 {
                works_on(&mut machine, HOST, 1);
            }
        }
        assert_eq!(found(&machine), expected);
        assert_eq!(at_edge(&machine, "interrupts in a row") > 0, !works);
    }
}

#[test]
fn a_guest_that_does_not_end_its_own_interrupt_condition_is_the_cause_of_what_follows() {
    for (ended, expected) in
        [(true, vec![(Invariant::I12, Kind::Livelock, Party::Guest(GUEST))]), (false, vec![])]
    {
        let mut machine = machine();
        loads(&mut machine, GUEST);
        counts(&mut machine, 0);
        machine.charge(0, 0, LEFT).expect("it exists");
        if ended {
            writes(&mut machine, By::Software, &[(Of::Pmovsclr, 1 << 31)]);
        }
        for _ in 0..=IN_A_ROW + 1 {
            machine.mark(0, GUEST_PMU_IRQ, 0, 0).expect("it exists");
        }
        let found: Vec<_> = found(&machine).into_iter().filter(|&(of, ..)| of == Invariant::I12).collect();
        assert_eq!(found, expected);
    }
}

#[test]
fn interrupts_that_take_all_are_a_livelock_where_the_pmus_have_a_part_in_it() {
    for (further, times) in [(IN_A_ROW, 0), (IN_A_ROW + 1, 2)] {
        let mut machine = machine();
        counts(&mut machine, 1 << 27);
        machine.charge(0, 0, LEFT).expect("it exists");
        for _ in 0..=further {
            machine.mark(0, HOST_PMU_IRQ, 0, 0).expect("it exists");
        }
        machine.note(0, note::LIVELOCK, GUEST as u64, 0).expect("it exists");
        let times_of: Vec<_> =
            machine.observer().findings().violations().iter().map(|one| one.times).collect();
        assert_eq!(times_of, if times > 0 { vec![times] } else { vec![] });
    }
}

#[test]
fn all_wait_for_ever_where_an_interrupt_is_due_and_for_nothing_where_none_is() {
    let never_woken = |victim| vec![(Invariant::I12, Kind::NeverWoken, victim)];
    for (over, of_guest, expected) in [
        (1, true, never_woken(Party::Guest(GUEST))),
        (1, false, never_woken(Party::Host)),
        (-1, true, vec![]),
        (-1, false, vec![]),
    ] {
        let mut machine = machine();
        if of_guest {
            loads(&mut machine, GUEST);
        }
        counts(&mut machine, if of_guest { 0 } else { 1 << 27 });
        machine.charge(0, 0, LEFT.saturating_add_signed(over)).expect("it exists");
        exits(&mut machine);
        machine.note(0, note::ALL_IDLE, HOST as u64, 0).expect("it exists");
        assert_eq!(found(&machine), expected);
    }
}

#[test]
fn a_lock_that_its_own_cpu_waits_for_is_never_released() {
    let mut machine = machine();
    machine.note(0, note::DEADLOCK, HOST as u64, 2).expect("it exists");
    assert_eq!(found(&machine), [(Invariant::I12, Kind::Deadlock, Party::Host)]);
    assert_eq!(machine.observer().findings().violations()[0].actual, 2);
}

#[test]
fn an_interrupt_is_another_vcpu_s_only_where_its_registers_have_been_last() {
    for (on, migrates, traps, kind) in [
        (0, false, false, Kind::MisattributedInterrupt),
        (0, true, false, Kind::SpuriousInterrupt),
        (1, false, false, Kind::SpuriousInterrupt),
        (0, false, true, Kind::SpuriousInterrupt), // a vPMU in memory
    ] {
        let mut machine = machine_of(2);
        loads_on(&mut machine, on, GUEST);
        counts_on(&mut machine, on, 0);
        machine.charge(on, 0, LEFT).expect("it exists");
        machine.set_running(on, if on == 0 { HOST } else { HOST_OF_1 }, 2, 0).expect("it exists");
        if traps {
            writes_on(&mut machine, on, By::Kvm, &[(Of::MdcrEl2, 4 | 1 << 6)]); // HPMN = N, TPM
        }
        machine.note(on, note::VCPU_PUT, GUEST as u64, 0).expect("it exists");
        machine.note(on, note::VCPU_IS_PUT, GUEST as u64, 0).expect("it exists");
        if migrates {
            loads_on(&mut machine, 1 - on, GUEST);
            let host = if on == 0 { HOST_OF_1 } else { HOST };
            machine.set_running(1 - on, host, 2, 0).expect("it exists");
            machine.note(1 - on, note::VCPU_PUT, GUEST as u64, 0).expect("it exists");
            machine.note(1 - on, note::VCPU_IS_PUT, GUEST as u64, 0).expect("it exists");
        }
        loads_on(&mut machine, 0, OTHER);
        machine.mark(0, GUEST_PMU_IRQ, 0, 0).expect("it exists");
        let each = machine.observer().findings().violations().iter();
        let found: Vec<_> = each.filter(|one| one.invariant == Invariant::I5).collect();
        let other = if kind == Kind::SpuriousInterrupt { Party::Kvm } else { Party::Guest(GUEST) };
        let parties: Vec<_> = found.iter().map(|one| (one.kind, one.victim, one.other)).collect();
        assert_eq!(parties, [(kind, Party::Guest(OTHER), other)], "on pCPU {on}, migrates: {migrates}");
    }
}
