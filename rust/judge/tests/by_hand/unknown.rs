//! What is UNKNOWN is known from its first read on, and where PMCR_EL0.E is clear nothing makes it UNKNOWN again.

use crate::board::{Board, CYCLE, Found, GUEST, GUEST_PMU_IRQ, TRAPPED, of};
use judge::finding::{Invariant, Kind};
use judge::note;
use judge::window::Window;
use pmu::field::pmcr;
use pmu::register::Kind as Of;

/// What is found of a cycle counter that reads 6 after 10 cycles, when the guest has reset it and written no enable yet.
fn reset_with(control: u64) -> Found {
    let mut board = Board::new(None);
    board.loads(GUEST, TRAPPED);
    board.sets(of(Of::Pmcr), pmcr::LC | pmcr::C | control);
    board.works(GUEST, 1, 10);
    board.gets(of(Of::Pmccntr), 6);
    board.found()
}

#[test]
fn a_counter_whose_enable_is_unknown_may_count_by_pmcr_e_and_not_without() {
    assert!(reset_with(pmcr::E).is_empty());
    assert_eq!(reset_with(0), [(Invariant::I4, Kind::GuestRead, None)]);
}

#[test]
fn a_flag_that_was_first_read_as_clear_is_clear() {
    let mut board = Board::new(None);
    board.loads(GUEST, TRAPPED);
    board.gets(of(Of::Pmovsset), 0);
    assert!(board.found().is_empty());
    board.gets(of(Of::Pmovsset), 1);
    assert_eq!(board.found(), [(Invariant::I7, Kind::GuestRead, Some(Window::UnknownAfterReset))]);
}

/// What is found of the PMU's interrupt of a guest that counts nothing, once a VMM has read these of its registers as 0.
fn interrupted_after(read: &[Of]) -> Found {
    let mut board = Board::new(None);
    let mut one_reg = |code, kind, value| {
        board.note(code, (GUEST as u64) << 16 | u64::from(of(kind).encoding()), value);
    };
    one_reg(note::SET_ONE_REG, Of::Pmcr, pmcr::LC | pmcr::E);
    one_reg(note::SET_ONE_REG, Of::Pmintenset, CYCLE);
    for &kind in read {
        one_reg(note::GET_ONE_REG, kind, 0);
    }
    board.loads(GUEST, TRAPPED);
    board.mark(GUEST_PMU_IRQ);
    board.found()
}

#[test]
fn no_flag_interrupts_that_get_one_reg_has_given_as_clear() {
    assert!(interrupted_after(&[Of::Pmcntenset]).is_empty());
    let found = interrupted_after(&[Of::Pmcntenset, Of::Pmovsset]);
    assert_eq!(found, [(Invariant::I5, Kind::SpuriousInterrupt, None)]);
}

#[test]
fn a_counter_that_may_be_enabled_may_have_overflowed_since() {
    assert!(interrupted_after(&[Of::Pmovsset]).is_empty());
}
