//! A guest's write has its effect by its next context synchronisation, or I6 is broken there.

use crate::board::{Board, COUNTERS, CYCLE, EVENT, GUEST, HOST, TRAPPED, of};
use judge::finding::{Invariant, Kind, Violation};
use pmu::burst::{Burst, Operation};
use pmu::field::{pmcr, pmevtyper};
use pmu::observer::By;
use pmu::register::{Kind as Of, Register};
use pmu::registers::SW_INCR;

const TYPE: u64 = SW_INCR as u64;

fn board() -> Board {
    let mut board = Board::new(None);
    board.has_on_cpu(1);
    synchronises(&mut board);
    board
}

/// What I6 finds.
fn late(board: &Board) -> Vec<&Violation> {
    let all = board.0.observer().findings().violations().iter();
    all.filter(|one| one.kind == Kind::WithoutEffect).collect()
}

fn premises(board: &Board) -> u64 {
    board.0.observer().findings().premises()[Invariant::I6 as usize - 1]
}

/// It synchronises its context by an ISB.
fn synchronises(board: &mut Board) {
    board.runs(GUEST, 1);
    let mut burst = Burst::default();
    burst.post(Operation::Isb, 0, 0);
    board.0.execute_by(By::Software, 0, &mut burst, 0, false).expect("it runs");
}

#[test]
fn a_type_that_only_memory_has_is_late_from_the_next_synchronisation_on() {
    for synchronise in [
        synchronises,
        |board: &mut Board| board.runs(GUEST, 0),
        |board: &mut Board| {
            board.exits();
            synchronises(board);
        },
    ] {
        let mut board = board();
        board.sets(Register::pmevtyper(1), TYPE);
        assert!(late(&board).is_empty(), "up to there it may be so");
        synchronise(&mut board);
        let found = late(&board);
        let [one] = found[..] else { panic!("{found:?}") };
        assert_eq!(one.register, Some(Register::pmevtyper(1).encoding()));
        assert_eq!((one.expected, one.actual), (TYPE, u64::from(EVENT)));
        assert_eq!(one.invariant, Invariant::I6);
    }
}

#[test]
fn what_kvm_writes_to_the_cpu_before_it_goes_back_is_in_time() {
    let mut board = board();
    let before = premises(&board);
    board.guest_writes(Register::pmevtyper(1), TYPE);
    board.exits();
    board.kvm_writes(Register::pmevtyper(1), TYPE);
    board.0.emulated(0, 0).expect("it exists");
    synchronises(&mut board);
    assert!(late(&board).is_empty());
    assert_eq!(premises(&board), before + 1);
}

#[test]
fn an_enable_is_late_and_so_is_what_takes_one_away() {
    for (register, counts) in [(Of::Pmcntenclr, 0), (Of::Pmcr, 0), (Of::Pmcntenset, 0b11)] {
        let mut board = board();
        let value = if register == Of::Pmcr { pmcr::LC } else { 0b11 };
        board.exits();
        board.kvm_writes(Register::pmevcntr(0), 0);
        board.kvm_writes(Register::pmevtyper(0), u64::from(EVENT));
        board.sets(of(register), value);
        synchronises(&mut board);
        let found = late(&board);
        let [one] = found[..] else { panic!("{register:?}: {found:?}") };
        assert_eq!(one.register, Some(of(Of::Pmcntenset).encoding()));
        assert_eq!((one.expected, one.actual), (counts, 0b10), "{register:?}");
    }
}

#[test]
fn a_filter_is_late_at_the_level_that_it_names() {
    let mut board = board();
    board.sets(Register::pmevtyper(1), u64::from(EVENT) | pmevtyper::U);
    synchronises(&mut board);
    assert_eq!(late(&board).len(), 1);
}

#[test]
fn what_was_in_effect_and_has_been_undone_since_is_another_matter() {
    let mut board = board();
    board.guest_writes(Register::pmevtyper(1), TYPE);
    board.exits();
    board.kvm_writes(Register::pmevtyper(1), TYPE);
    board.0.emulated(0, 0).expect("it exists");
    board.pokes(Register::pmevtyper(1), u64::from(EVENT));
    synchronises(&mut board);
    assert!(late(&board).is_empty());
}

#[test]
fn a_write_that_changes_nothing_that_counts_has_no_effect_to_wait_for() {
    let mut board = board();
    let before = premises(&board);
    board.sets(Register::pmevtyper(0), TYPE); // not enabled
    board.sets(of(Of::Pmcntenset), 0b10); // enabled already
    synchronises(&mut board);
    assert!(late(&board).is_empty());
    assert_eq!(premises(&board), before);
}

#[test]
fn counters_that_are_not_on_the_cpu_are_counted_elsewhere() {
    let mut board = Board::new(None);
    board.loads(GUEST, TRAPPED);
    board.settles(pmcr::LC | pmcr::E);
    let before = premises(&board);
    board.sets(of(Of::Pmcntenset), CYCLE | 1 << (COUNTERS - 1));
    synchronises(&mut board);
    assert!(late(&board).is_empty());
    assert_eq!(premises(&board), before);
}

#[test]
fn what_is_loaded_next_has_all_of_it_and_is_compared_as_such() {
    let mut board = board();
    board.sets(Register::pmevtyper(1), TYPE);
    board.runs(HOST, 2);
    board.puts(GUEST);
    board.loads(GUEST, TRAPPED);
    synchronises(&mut board);
    assert!(late(&board).is_empty());
}
