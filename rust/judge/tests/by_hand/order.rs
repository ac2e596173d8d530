//! The host's driver has an ISB where what it writes next goes by what it has written before, or I6 is broken there.

use crate::board::{Board, COUNTERS, DIVIDED, Drive, EVENT, GUEST, LEFT, of};
use judge::finding::{Kind, Party};
use pmu::field::{mdcr_el2, pmcr, pmevtyper};
use pmu::register::{Kind as Of, Register};

/// A counter of the host's.
const N: u8 = COUNTERS;
const BIT: u64 = 1 << N;

fn msr(kind: Of, value: u64) -> Drive {
    Drive::Msr(of(kind), value)
}

fn typed(filter: u64) -> Drive {
    Drive::Msr(Register::pmevtyper(N), u64::from(EVENT) | filter)
}

/// The counter counts and interrupts, and all is synchronised.
fn counting() -> Board {
    let mut board = Board::new(None);
    board.host_writes(Register::pmevtyper(N), u64::from(EVENT) | pmevtyper::NSH);
    board.host_writes(of(Of::Pmintenset), BIT);
    board.host_writes(of(Of::Pmcntenset), BIT);
    board.host_writes(of(Of::Pmcr), pmcr::E);
    board
}

/// The registers that are written too early.
fn early(board: &Board) -> Vec<Register> {
    let all = board.0.observer().findings().violations().iter();
    let early = all.filter(|one| one.kind == Kind::DriverOrder);
    early
        .map(|one| {
            assert_eq!((one.victim, one.other, one.actual), (Party::Host, Party::Host, BIT));
            Register::decode(one.register.expect("one")).expect("a register")
        })
        .collect()
}

/// Without the ISB between them it is said of the second one; with it, or with an exception in its place, of none.
fn needs_an_isb(start: fn() -> Board, first: Drive, second: Drive) {
    let mut board = start();
    board.drives(&[first, second]);
    let Drive::Msr(register, _) = second else { panic!("a write") };
    assert_eq!(early(&board), [register]);

    let mut board = start();
    board.drives(&[first, Drive::Isb, second]);
    assert!(early(&board).is_empty());

    for interrupt in [1, 2] {
        let mut board = start();
        board.drives(&[first]);
        board.mark(interrupt);
        board.drives(&[second]);
        assert!(early(&board).is_empty());
    }
}

fn needs_none(start: fn() -> Board, writes: &[Drive]) {
    let mut board = start();
    board.drives(writes);
    assert!(early(&board).is_empty());
}

#[test]
fn a_counter_that_counts_is_disabled_before_its_type_or_value_is_changed() {
    needs_an_isb(counting, msr(Of::Pmcntenclr, BIT), typed(0));
    needs_an_isb(counting, msr(Of::Pmcntenclr, BIT), Drive::Msr(Register::pmevcntr(N), LEFT));
    needs_none(|| Board::new(None), &[msr(Of::Pmcntenclr, BIT), typed(0)]);
}

#[test]
fn a_type_or_value_is_there_before_its_counter_is_enabled() {
    needs_an_isb(|| Board::new(None), typed(0), msr(Of::Pmcntenset, BIT));
    needs_an_isb(|| Board::new(None), Drive::Msr(Register::pmevcntr(N), LEFT), msr(Of::Pmcntenset, BIT));
    needs_none(|| Board::new(None), &[typed(0), msr(Of::Pmcntenset, BIT << 1)]);
}

#[test]
fn a_flag_is_cleared_when_it_interrupts_no_more_and_is_not_set_again() {
    needs_an_isb(counting, msr(Of::Pmintenclr, BIT), msr(Of::Pmovsclr, BIT));
    needs_an_isb(counting, msr(Of::Pmcntenclr, BIT), msr(Of::Pmovsclr, BIT));
    needs_none(|| Board::new(None), &[msr(Of::Pmintenclr, BIT), msr(Of::Pmovsclr, BIT)]);
}

#[test]
fn what_the_pmu_starts_is_enabled_before() {
    fn stopped() -> Board {
        let mut board = Board::new(None);
        board.host_writes(Register::pmevtyper(N), u64::from(EVENT) | pmevtyper::NSH);
        board
    }
    fn excluding_el2() -> Board {
        let mut board = Board::new(None);
        board.host_writes(Register::pmevtyper(N), u64::from(EVENT));
        board
    }
    needs_an_isb(stopped, msr(Of::Pmcntenset, BIT), msr(Of::Pmcr, pmcr::E));
    needs_none(stopped, &[msr(Of::Pmcntenset, BIT), msr(Of::Pmcr, 0)]);
    needs_none(excluding_el2, &[msr(Of::Pmcntenset, BIT), msr(Of::Pmcr, pmcr::E)]);
}

#[test]
fn what_hpme_starts_is_enabled_before_or_an_isb_is_next() {
    let starts = |isbs: [bool; 2]| {
        let mut board = Board::new(None);
        board.host_writes(Register::pmevtyper(N), u64::from(EVENT) | pmevtyper::NSH);
        board.loads(GUEST, DIVIDED & !mdcr_el2::HPME);
        board.drives(&[msr(Of::Pmcntenset, BIT)]);
        board.drives(&[Drive::Isb][..isbs[0].into()]);
        board.drives(&[msr(Of::MdcrEl2, DIVIDED)]);
        board.host_reads(of(Of::Pmcr));
        board.drives(&[Drive::Isb][..isbs[1].into()]);
        board.drives(&[msr(Of::Pmcr, pmcr::E)]);
        early(&board)
    };
    assert_eq!(starts([false, false]), [of(Of::MdcrEl2)]);
    assert!(starts([true, false]).is_empty());
    assert!(starts([false, true]).is_empty());
}

#[test]
fn what_kvm_swaps_of_a_guests_counters_needs_none() {
    let mut board = Board::new(None);
    board.loads(GUEST, DIVIDED);
    board.kvm_writes(Register::pmevtyper(1), u64::from(EVENT));
    board.kvm_writes(of(Of::Pmcntenset), 1 << 1);
    board.kvm_writes(of(Of::Pmcr), pmcr::E);
    board.kvm_writes(of(Of::Pmcntenclr), 1 << 1);
    board.kvm_writes(Register::pmevcntr(1), 0);
    assert!(early(&board).is_empty());
}
