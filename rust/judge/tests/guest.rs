//! What the judge says of what a guest reads, and of what KVM writes for it.

use judge::finding::{Invariant, Kind, Party};
use judge::{Judge, VcpuSetup, note};
use pmu::burst::{Burst, Operation};
use pmu::feature::{Features, PMUV3P4, PMUV3P5};
use pmu::field::pmcr;
use pmu::machine::{Costs, Machine};
use pmu::observer::By;
use pmu::register::{Kind as Of, Register};

const HOST: usize = 0;
const GUEST: usize = 1;
const OTHER: usize = 2;
const COUNTERS: u8 = 4; // of each guest; the CPU has two more
const TPM: u64 = 1 << 6; // MDCR_EL2

/// A CPU with the host's kernel and a guest whose accesses trap, loaded, with `known` of its registers.
struct Board(Machine<Judge>);

impl Board {
    fn new(pmuver: u8, denied: Vec<u16>, known: &[(Register, u64)]) -> Self {
        let features = Features { counters: COUNTERS + 2, pmuver, ..Features::default() };
        let costs = Costs { mrs: 0, msr: 0, isb: 0 };
        let mut machine = Machine::new(vec![features.clone()], &[], costs).expect("possible");
        machine.add_profile(&[]).expect("possible");
        machine.add_context(false);
        machine.add_context(true);
        machine.add_context(true);
        let vcpu = |context, denied| VcpuSetup { context, counters: COUNTERS, pmuver, denied };
        let vcpus = vec![vcpu(GUEST, denied), vcpu(OTHER, Vec::new())];
        let mut board = Self(machine.observed_by(Judge::new(&[features], vcpus)));
        board.0.set_running(0, HOST, 2, 0).expect("they exist");
        for &(register, value) in known {
            board.is_set(GUEST, register, value);
        }
        board.0.note(0, note::VCPU_LOAD, GUEST as u64, 0).expect("it exists");
        board.kvm(Register::of(Of::MdcrEl2), Some(u64::from(COUNTERS + 2) | TPM));
        board.0.note(0, note::VCPU_LOADED, GUEST as u64, 0).expect("it exists");
        board
    }

    /// By KVM_SET_ONE_REG.
    fn is_set(&mut self, context: usize, register: Register, value: u64) {
        let operand = (context as u64) << 16 | u64::from(register.encoding());
        self.0.note(0, note::SET_ONE_REG, operand, value).expect("it exists");
    }

    fn kvm(&mut self, register: Register, written: Option<u64>) {
        self.0.access(0, register.encoding(), written).expect("it runs");
    }

    fn host_writes(&mut self, register: Register, value: u64) {
        let mut burst = Burst::default();
        burst.post(Operation::Msr, u32::from(register.encoding()), value);
        self.0.execute_by(By::Software, 0, &mut burst, 0, false).expect("it runs");
    }

    /// The guest's read traps.
    fn reads(&mut self, register: Register) {
        self.0.set_running(0, GUEST, 1, 0).expect("they exist");
        let mut burst = Burst::default();
        burst.post_read(Operation::Mrs, u32::from(register.encoding()));
        self.0.execute_by(By::Software, 0, &mut burst, 0, false).expect("it runs");
        self.0.set_running(0, HOST, 2, 0).expect("they exist");
    }

    /// The guest's write traps, and is done.
    fn writes(&mut self, register: Register, value: u64) {
        self.0.set_running(0, GUEST, 1, 0).expect("they exist");
        let mut burst = Burst::default();
        burst.post(Operation::Msr, u32::from(register.encoding()), value);
        self.0.execute_by(By::Software, 0, &mut burst, 0, false).expect("it runs");
        self.0.set_running(0, HOST, 2, 0).expect("they exist");
        self.is_given(value);
    }

    /// And is given this.
    fn is_given(&mut self, value: u64) {
        self.0.emulated(0, value).expect("it exists");
    }

    fn found(&self) -> Vec<(Invariant, Kind, Party)> {
        let each = self.0.observer().findings().violations().iter();
        each.map(|found| (found.invariant, found.kind, found.other)).collect()
    }
}

#[test]
fn what_a_counter_does_not_keep_of_a_value_is_no_other_value() {
    let value = 1 << 32 | 5;
    let restored = (Invariant::I7, Kind::Restored, Party::Kvm);
    for (pmuver, written, expected) in [
        (PMUV3P4, value, vec![]),
        (PMUV3P4, 5, vec![]),
        (PMUV3P4, value + 1, vec![restored]),
        (PMUV3P5, value, vec![]),
        (PMUV3P5, 5, vec![restored]),
    ] {
        let mut board = Board::new(pmuver, Vec::new(), &[(Register::pmevcntr(0), value)]);
        board.kvm(Register::pmevcntr(0), Some(written));
        assert_eq!(board.found(), expected, "PMUVer {pmuver}, {written:#x}");
    }
}

#[test]
fn what_is_left_on_the_cpu_is_seen_only_where_the_cpu_is_read() {
    let counter = Register::pmevcntr(0);
    for (kvm_reads, expected) in [(true, (Invariant::I1, Party::Host)), (false, (Invariant::I4, Party::Kvm))]
    {
        let mut board = Board::new(PMUV3P5, Vec::new(), &[(counter, 5)]);
        board.host_writes(counter, 77);
        board.reads(counter);
        if kvm_reads {
            board.kvm(counter, None);
        }
        board.is_given(77);
        assert_eq!(board.found(), [(expected.0, Kind::GuestRead, expected.1)]);
    }
}

#[test]
fn an_event_that_is_denied_and_has_counted_is_seen_and_counts_that_are_gone_are_lost() {
    let known = [(Register::pmevcntr(0), 5), (Register::pmevtyper(0), 8)];
    for (given, expected) in [
        (5, vec![]),
        (6, vec![(Invariant::I1, Kind::GuestRead, Party::Kvm)]),
        (4, vec![(Invariant::I4, Kind::GuestRead, Party::Kvm)]),
    ] {
        let mut board = Board::new(PMUV3P5, vec![8], &known);
        board.reads(Register::pmevcntr(0));
        board.is_given(given);
        assert_eq!(board.found(), expected, "{given}");
    }
}

#[test]
fn a_flag_that_was_read_says_nothing_once_a_counter_that_may_be_anywhere_has_counted() {
    // Its event was UNKNOWN when PMSWINC_EL0 was written: the counter has 0 then, or still 0xffff_ffff.
    let mut board = Board::new(PMUV3P5, Vec::new(), &[]);
    let each = [
        (Register::of(Of::Pmcr), pmcr::E),
        (Register::of(Of::Pmcntenset), 1),
        (Register::pmevcntr(0), 0xffff_ffff),
        (Register::of(Of::Pmovsclr), 1),
        (Register::of(Of::Pmswinc), 1),
    ];
    for (register, value) in each {
        board.writes(register, value);
    }
    let reads = |board: &mut Board, register, value| {
        board.reads(register);
        board.is_given(value);
    };
    reads(&mut board, Register::of(Of::Pmovsset), 0);
    board.writes(Register::pmevtyper(0), 8);
    reads(&mut board, Register::pmevcntr(0), 0x1_0000_0005);
    reads(&mut board, Register::of(Of::Pmovsset), 1);
    assert_eq!(board.found(), []);
    reads(&mut board, Register::of(Of::Pmovsset), 0);
    assert_eq!(board.found(), [(Invariant::I7, Kind::GuestRead, Party::Kvm)]);
}

#[test]
fn pmxevcntr_by_a_selection_of_31_may_be_the_cycle_counter_as_it_should_be() {
    let known = [(Register::of(Of::Pmselr), 31), (Register::of(Of::Pmccntr), 5)];
    for (given, expected) in
        [(0, vec![]), (5, vec![]), (4, vec![(Invariant::I4, Kind::GuestRead, Party::Kvm)])]
    {
        let mut board = Board::new(PMUV3P5, Vec::new(), &known);
        for n in 0..COUNTERS {
            board.is_set(GUEST, Register::pmevcntr(n), 9);
        }
        board.reads(Register::of(Of::Pmxevcntr));
        board.is_given(given);
        assert_eq!(board.found(), expected, "{given}");
    }
}

#[test]
fn what_pmxevcntr_leaks_is_of_the_counter_that_the_guest_selects_not_the_host() {
    let absent = COUNTERS + 1;
    for (select, written, expected) in [
        (absent, absent, (Invariant::I1, Kind::GuestRead, Party::Host)),
        (absent, 0, (Invariant::I1, Kind::GuestRead, Party::Nobody)),
        (31, 0, (Invariant::I4, Kind::GuestRead, Party::Kvm)),
    ] {
        let known = [(Register::of(Of::Pmselr), u64::from(select)), (Register::of(Of::Pmccntr), 5)];
        let mut board = Board::new(PMUV3P5, Vec::new(), &known);
        for n in 0..COUNTERS {
            board.is_set(GUEST, Register::pmevcntr(n), 9);
        }
        board.host_writes(Register::pmevcntr(written), 77);
        board.reads(Register::of(Of::Pmxevcntr));
        board.is_given(77);
        assert_eq!(board.found(), [expected], "{select}, {written}");
    }
}

#[test]
fn one_violation_stands_for_all_of_its_kind_of_register() {
    let mut board = Board::new(
        PMUV3P5,
        Vec::new(),
        &[(Register::pmevcntr(0), 5), (Register::pmevcntr(1), 5), (Register::of(Of::Pmccntr), 5)],
    );
    for register in [Register::pmevcntr(0), Register::of(Of::Pmccntr), Register::pmevcntr(1)] {
        board.reads(register);
        board.is_given(4);
    }
    let each = board.0.observer().findings().violations();
    let times: Vec<_> = each.iter().map(|found| (found.register, found.times)).collect();
    let encoding = |register: Register| Some(register.encoding());
    assert_eq!(times, [(encoding(Register::pmevcntr(0)), 2), (encoding(Register::of(Of::Pmccntr)), 1)]);
}

/// `GUEST` has `own` in PMCR_EL0, KVM leaves `left` there, and `OTHER`, which has nothing there, runs untrapped.
#[test]
fn what_another_guest_has_left_in_pmcr_is_a_leak_of_its_and_what_nobody_has_is_none() {
    let register = Register::of(Of::Pmcr);
    let n = u64::from(COUNTERS);
    let i1 = |other| vec![(Invariant::I1, Kind::GuestEntry, other)];
    let i8 = vec![(Invariant::I8, Kind::GuestEntry, Party::Kvm)];
    for (own, left, hosts, expected) in [
        (pmcr::E, pmcr::E, 0, i1(Party::Guest(GUEST))),
        (0, pmcr::E, 0, i8.clone()),
        (pmcr::E, pmcr::E | pmcr::X, 0, i8),
        (pmcr::E, pmcr::E, pmcr::E, i1(Party::Host)),
        (pmcr::E, 0, 0, vec![]),
    ] {
        let mut board = Board::new(PMUV3P5, Vec::new(), &[(register, own | n << 11)]);
        board.is_set(OTHER, register, n << 11);
        for zero in [Of::Pmselr, Of::Pmuserenr] {
            board.host_writes(Register::of(zero), 0);
        }
        board.host_writes(register, hosts);
        board.kvm(register, Some(left));
        board.0.note(0, note::VCPU_PUT, GUEST as u64, 0).expect("it exists");
        board.0.note(0, note::VCPU_IS_PUT, GUEST as u64, 0).expect("it exists");
        board.0.note(0, note::VCPU_LOAD, OTHER as u64, 0).expect("it exists");
        board.kvm(Register::of(Of::MdcrEl2), Some(n));
        board.0.note(0, note::VCPU_LOADED, OTHER as u64, 0).expect("it exists");
        board.0.set_running(0, OTHER, 1, 0).expect("they exist");
        let mut burst = Burst::default();
        burst.post_read(Operation::Mrs, u32::from(Register::of(Of::Pmuserenr).encoding()));
        board.0.execute_by(By::Software, 0, &mut burst, 0, false).expect("it runs");
        assert_eq!(board.found(), expected, "{own:#x} {left:#x} {hosts:#x}");
    }
}
