//! An interrupt is on its way for as long as the level of its own flag takes.

use crate::board::{Board, CYCLE, DELAY, GUEST, GUEST_PMU_IRQ, LEFT, OTHER, TRAPPED, of};
use judge::finding::{Invariant, Kind};
use judge::window::Window;
use pmu::field::pmcr;
use pmu::register::Kind as Of;

const OTHER_FLAG: u64 = 1 << 1;

/// The guest has set a flag that interrupts `before` its cycle counter has overflowed, and clears it `behind` that.
fn polled(before: u64, behind: u64) -> Board {
    let mut board = Board::new(None);
    board.will_overflow();
    board.sets(of(Of::Pmintenset), OTHER_FLAG);
    board.passes(LEFT - before);
    board.sets(of(Of::Pmovsset), OTHER_FLAG);
    board.passes(before + behind);
    board.sets(of(Of::Pmovsclr), OTHER_FLAG);
    board
}

#[test]
fn a_counter_that_has_overflowed_beside_a_flag_that_is_cleared_has_all_of_its_time() {
    let mut board = polled(50, 3);
    board.works(GUEST, 1, DELAY - 3);
    assert!(board.found().is_empty());
    board.works(GUEST, 1, 1);
    assert_eq!(board.found(), [(Invariant::I5, Kind::LateInterrupt, Some(Window::InterruptOnItsWay))]);
}

#[test]
fn it_has_no_more_than_that_if_it_was_the_first() {
    let mut board = Board::new(None);
    board.overflows();
    board.passes(DELAY);
    board.sets(of(Of::Pmintenset), OTHER_FLAG);
    board.sets(of(Of::Pmovsset), OTHER_FLAG);
    board.sets(of(Of::Pmovsclr), OTHER_FLAG);
    board.works(GUEST, 1, 1);
    assert_eq!(board.found(), [(Invariant::I5, Kind::LateInterrupt, Some(Window::InterruptOnItsWay))]);
}

#[test]
fn a_flag_that_is_enabled_interrupts_from_then_on() {
    let mut board = Board::new(None);
    board.overflows();
    board.sets(of(Of::Pmintenclr), CYCLE);
    board.passes(50);
    board.sets(of(Of::Pmintenset), CYCLE);
    board.works(GUEST, 1, DELAY);
    assert!(board.found().is_empty());
    board.works(GUEST, 1, 1);
    assert_eq!(board.found().len(), 1);
}

#[test]
fn an_interrupt_that_comes_too_late_is_its_own_whatever_another_has_pending() {
    let mut board = Board::new(None);
    board.overflows();
    board.puts(GUEST);
    board.loads(OTHER, TRAPPED);
    for (register, value) in [
        (Of::Pmcr, pmcr::LC | pmcr::E),
        (Of::Pmcntenclr, u64::from(u32::MAX)),
        (Of::Pmovsclr, u64::from(u32::MAX)),
        (Of::Pmintenclr, u64::from(u32::MAX)),
        (Of::Pmintenset, OTHER_FLAG),
        (Of::Pmovsset, OTHER_FLAG),
        (Of::Pmovsclr, OTHER_FLAG),
    ] {
        board.other_writes(of(register), value);
        board.0.emulated(0, 0).expect("it exists");
    }
    board.exits();
    board.mark(GUEST_PMU_IRQ);
    assert_eq!(board.found(), [(Invariant::I5, Kind::SpuriousInterrupt, Some(Window::Polled))]);
}

#[test]
fn an_interrupt_by_a_counter_of_its_own_that_should_not_have_overflowed_is_its_own_too() {
    let mut board = Board::new(None);
    board.overflows();
    board.puts(GUEST);
    board.loads(OTHER, TRAPPED);
    for of_all in [Of::Pmcntenclr, Of::Pmovsclr, Of::Pmintenclr] {
        board.other_writes(of(of_all), u64::from(u32::MAX));
        board.0.emulated(0, 0).expect("it exists");
    }
    board.exits();
    board.kvm_writes(of(Of::Pmccntr), 0);
    board.kvm_writes(of(Of::Pmintenset), CYCLE);
    board.kvm_writes(of(Of::Pmovsset), CYCLE);
    board.mark(GUEST_PMU_IRQ);
    assert_eq!(board.found(), [(Invariant::I5, Kind::SpuriousInterrupt, None)]);
}
