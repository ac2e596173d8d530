//! What a counter has counted by one below that is not known is what it reads first, once that one is known.

use crate::board::{Board, EVENT, GUEST, TRAPPED, of};
use judge::finding::{Invariant, Kind};
use judge::window::Window;
use pmu::field::pmcr;
use pmu::register::{Kind as Of, Register};
use pmu::registers::{CHAIN, SW_INCR};

/// A guest has its counter 1 chained to its counter 0, which may have wrapped, or not.
fn perhaps_wrapped() -> Board {
    let mut board = Board::new(None);
    board.loads(GUEST, TRAPPED);
    for (register, value) in [
        (of(Of::Pmcr), pmcr::E),
        (of(Of::Pmcntenset), 0b11),
        (Register::pmevtyper(1), u64::from(CHAIN)),
        (Register::pmevcntr(0), u64::from(u32::MAX)),
        (of(Of::Pmswinc), 1), // its type is UNKNOWN: perhaps it counts
        (Register::pmevtyper(0), u64::from(SW_INCR)),
        (Register::pmevcntr(1), 0),
        (of(Of::Pmswinc), 1), // and perhaps this has it overflow
    ] {
        board.sets(register, value);
    }
    board
}

#[test]
fn a_counter_above_one_that_has_been_read_first_is_not_known_before_it_is_read_itself() {
    let mut board = perhaps_wrapped();
    board.gets(Register::pmevcntr(0), 1 << 32);
    board.gets(Register::pmevcntr(1), 1);
    board.gets(Register::pmevcntr(1), 1);
    assert!(board.found().is_empty());
    board.gets(Register::pmevcntr(1), 2);
    assert_eq!(board.found(), [(Invariant::I4, Kind::GuestRead, Some(Window::UnknownAfterReset))]);
}

#[test]
fn a_counter_above_one_that_may_have_wrapped_is_not_known_once_that_has_another_type_and_a_value() {
    let mut board = perhaps_wrapped();
    board.sets(Register::pmevtyper(0), u64::from(EVENT));
    board.sets(Register::pmevcntr(0), 0);
    board.gets(Register::pmevcntr(1), 1);
    assert!(board.found().is_empty());
    board.gets(Register::pmevcntr(1), 2);
    assert_eq!(board.found(), [(Invariant::I4, Kind::GuestRead, Some(Window::UnknownAfterReset))]);
}
