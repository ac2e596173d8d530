//! What the judge says of guests' perf events, and of whose time a guest's counter has counted.

use judge::counted::{Counted, Handover};
use judge::finding::{Did, Invariant, Kind, Party, Violation};
use judge::note::{self, attribute};
use judge::{Judge, VcpuSetup};
use pmu::burst::{Burst, Operation};
use pmu::feature::Features;
use pmu::field::{mdcr_el2, pmcr, pmevtyper};
use pmu::machine::{Costs, Machine};
use pmu::observer::By;
use pmu::register::{Kind as Of, Register};
use pmu::registers::{CPU_CYCLES, CYCLE};
use pmu::tally::ONE;

const EVENT: u16 = 0x08;
const DENIED: u16 = 0x03;
const COUNTERS: u8 = 6;
const HOST: usize = 0;
const GUEST: usize = 1;
const VM: Party = Party::Guest(GUEST);
const ID: u64 = 7;

/// A CPU with the host's kernel and one guest, which has two counters; `EVENT` twice a cycle, `DENIED` once.
struct Board(Machine<Judge>);

impl Board {
    fn new() -> Self {
        Self::of(&Features::default())
    }

    fn of(features: &Features) -> Self {
        let features = || Features { counters: COUNTERS, ..features.clone() };
        let costs = Costs { mrs: 2, msr: 3, isb: 1 };
        let mut machine = Machine::new(vec![features()], &[EVENT, DENIED], costs).expect("possible");
        machine.add_profile(&[(EVENT, 2 * ONE), (DENIED, ONE)]).expect("possible");
        machine.add_context(false);
        machine.add_context(true);
        let vcpu = VcpuSetup { context: GUEST, counters: 2, pmuver: 6, denied: vec![DENIED] };
        let mut board = Self(machine.observed_by(Judge::new(&[features()], vec![vcpu])));
        board.loads();
        board.guest(Register::of(Of::Pmcntenclr), !0);
        board.guest(Register::of(Of::Pmcr), pmcr::E);
        board
    }

    /// The guest counts `EVENT` on its first counter.
    fn counting() -> Self {
        let mut board = Self::new();
        board.guest(Register::pmevtyper(0), u64::from(EVENT));
        board.guest(Register::pmevcntr(0), 0);
        board.guest(Register::of(Of::Pmcntenset), 1);
        board
    }

    fn runs(&mut self, context: usize, el: u8, cycles: u64) {
        self.0.set_running(0, context, el, 0).expect("they exist");
        assert_eq!(self.0.run(0, cycles), Ok(cycles), "no interrupt");
    }

    fn told(&mut self, code: u32) {
        self.0.set_running(0, HOST, 2, 0).expect("they exist");
        self.0.note(0, code, GUEST as u64, 0).expect("it exists");
    }

    fn kvm(&mut self, register: Register, value: u64) {
        self.0.set_running(0, HOST, 2, 0).expect("they exist");
        self.0.access(0, register.encoding(), Some(value)).expect("it runs");
    }

    fn loads(&mut self) {
        self.told(note::VCPU_LOAD);
        self.kvm(Register::of(Of::MdcrEl2), 2 | mdcr_el2::HPME | mdcr_el2::HPMD);
        self.told(note::VCPU_LOADED);
    }

    fn puts(&mut self) {
        self.told(note::VCPU_PUT);
        self.kvm(Register::of(Of::MdcrEl2), u64::from(COUNTERS));
        self.told(note::VCPU_IS_PUT);
    }

    fn executes(&mut self, operation: Operation, subject: u32, operand: u64) -> u64 {
        self.0.set_running(0, GUEST, 1, 0).expect("they exist");
        let mut burst = Burst::default();
        if operation.yields() {
            burst.post_read(operation, subject);
        } else {
            burst.post(operation, subject, operand);
        }
        self.0.execute_by(By::Software, 0, &mut burst, 0, false).expect("it runs");
        burst.values().first().copied().unwrap_or(0)
    }

    fn guest(&mut self, register: Register, value: u64) {
        self.executes(Operation::Msr, u32::from(register.encoding()), value);
    }

    fn reads(&mut self, register: Register) -> u64 {
        self.executes(Operation::Mrs, u32::from(register.encoding()), 0)
    }

    fn notes(&mut self, code: u32, value: u64) {
        self.executes(Operation::Note, code, value);
    }

    /// The guest's perf opens an event, and its driver starts it on counter 0.
    fn counts(&mut self, event: u16, attributes: u16, filter: u64) {
        let noted = u64::from(attributes | attribute::ENABLED) << 16 | u64::from(event);
        self.notes(note::EVENT_OPEN, ID << 32 | noted);
        self.notes(note::EVENT_ON, ID << 8);
        self.guest(Register::pmevtyper(0), u64::from(event) | filter);
        self.guest(Register::pmevcntr(0), 0);
        self.guest(Register::of(Of::Pmcntenset), 1);
    }

    /// Its user is told so much more than the counter has.
    fn finds(&mut self, more: i64) {
        let count = self.reads(Register::pmevcntr(0)).wrapping_add_signed(more);
        self.is_told(count);
    }

    fn is_told(&mut self, count: u64) {
        self.notes(note::EVENT_READ, ID);
        self.notes(note::EVENT_TIME_ENABLED, 5);
        self.notes(note::EVENT_TIME_RUNNING, 5);
        self.notes(note::EVENT_COUNT, count);
    }

    fn found(&self) -> Vec<(Invariant, Kind, Party)> {
        let each = self.0.observer().findings().violations();
        each.iter().map(|found| (found.invariant, found.kind, found.victim)).collect()
    }

    fn first(&self, kind: Kind) -> &Violation {
        let mut each = self.0.observer().findings().violations().iter();
        each.find(|found| found.kind == kind).expect("it is found")
    }

    fn only(&self) -> &Violation {
        let [found] = self.0.observer().findings().violations() else { panic!("{:?}", self.found()) };
        found
    }
}

#[test]
fn a_guest_s_event_counts_what_its_attributes_admit_while_the_guest_runs() {
    for (attributes, filter) in [
        (0, 0),
        (attribute::EXCLUDE_KERNEL, pmevtyper::P),
        (attribute::EXCLUDE_USER | attribute::EXCLUDE_GUEST, pmevtyper::U),
    ] {
        let mut board = Board::new();
        board.counts(EVENT, attributes, filter);
        board.runs(GUEST, 0, 100);
        board.guest(Register::of(Of::Pmcntenclr), 1);
        board.puts();
        board.runs(HOST, 0, 1_000);
        board.loads();
        board.guest(Register::of(Of::Pmcntenset), 1);
        board.runs(GUEST, 1, 10);
        board.finds(0);
        assert_eq!(board.found(), []);
        let premises = board.0.observer().findings().premises();
        assert!(premises[Invariant::I10 as usize - 1] > 0);
    }
}

#[test]
fn a_guest_s_cycle_counter_counts_in_wfi_where_its_cpu_s_does_and_not_a_cycle_more() {
    for (counts, more, found) in [
        (true, 0, vec![]),
        (true, -1, vec![(Invariant::I4, Kind::EventCount, VM)]),
        (true, 1, vec![(Invariant::I4, Kind::EventCount, VM)]),
        (false, 0, vec![]),
    ] {
        let mut board = Board::of(&Features { pmccntr_in_wfi: counts, ..Features::default() });
        board.notes(note::EVENT_OPEN, ID << 32 | u64::from(attribute::ENABLED) << 16 | u64::from(CPU_CYCLES));
        board.notes(note::EVENT_ON, ID << 8 | CYCLE as u64);
        board.guest(Register::of(Of::Pmccfiltr), 0);
        board.guest(Register::of(Of::Pmccntr), 0);
        board.guest(Register::of(Of::Pmcntenset), 1 << CYCLE);
        board.runs(GUEST, 1, 10);
        let until = board.0.cpu(0).expect("it exists").now() + 500;
        board.0.idle(0, until).expect("it runs");
        let count = board.reads(Register::of(Of::Pmccntr));
        assert_eq!(count >= 500, counts);
        board.is_told(count.wrapping_add_signed(more));
        assert_eq!(board.found(), found);
    }
}

#[test]
fn a_count_that_a_guest_s_perf_loses_or_doubles_is_missed_once() {
    for more in [-1, 1] {
        let mut board = Board::new();
        board.counts(EVENT, 0, 0);
        board.runs(GUEST, 0, 100);
        board.finds(more);
        board.finds(more);
        let found = board.only();
        assert_eq!((found.invariant, found.kind, found.victim), (Invariant::I4, Kind::EventCount, VM));
        assert_eq!(found.actual.wrapping_sub(found.expected) as i64, more);
        assert_eq!(found.times, 1);
    }
}

#[test]
fn an_event_that_the_vm_s_filter_denies_is_to_count_nothing() {
    for (more, found) in [(0, vec![]), (1, vec![(Invariant::I4, Kind::EventCount, VM)])] {
        let mut board = Board::new();
        board.counts(DENIED, 0, pmevtyper::P | pmevtyper::U);
        board.runs(GUEST, 0, 100);
        board.finds(more);
        assert_eq!(board.found(), found);
    }
}

#[test]
fn a_guest_s_perf_keeps_its_contract_as_the_host_s_does() {
    let mut board = Board::new();
    board.counts(EVENT, 0, 0);
    board.notes(note::EVENT_OPEN, 8 << 32 | u64::from(attribute::ENABLED) << 16 | u64::from(EVENT));
    board.notes(note::EVENT_GROUP, 8 << 32 | ID);
    board.runs(GUEST, 0, 1);
    assert_eq!(board.found(), [(Invariant::I10, Kind::EventGroup, VM)], "one of a group has a counter");
    let mut board = Board::new();
    board.counts(EVENT, 0, 0);
    board.notes(note::EVENT_OPEN, 8 << 32 | u64::from(attribute::ENABLED) << 16 | u64::from(EVENT));
    board.notes(note::EVENT_ON, 8 << 8);
    assert_eq!(board.found(), [(Invariant::I10, Kind::EventPlacement, VM)]);
}

#[test]
fn what_software_says_is_of_its_own_events_alone() {
    let mut board = Board::new();
    for code in 0..64 {
        board.notes(code, GUEST as u64);
    }
    board.runs(GUEST, 0, 100);
    assert_eq!(board.found(), [], "it is loaded still, whatever it says");
}

/// A guest's counter is enabled when the guest is put, or not; then a program of the host's runs.
fn put(enabled: bool) -> Board {
    let mut board = Board::counting();
    board.runs(GUEST, 0, 100);
    board.told(note::VCPU_PUT);
    if !enabled {
        board.kvm(Register::of(Of::Pmcntenclr), 1);
    }
    board.kvm(Register::of(Of::MdcrEl2), u64::from(COUNTERS));
    board.told(note::VCPU_IS_PUT);
    board.runs(HOST, 0, 412);
    board.loads();
    if !enabled {
        board.kvm(Register::of(Of::Pmcntenset), 1);
    }
    board.reads(Register::pmevcntr(0));
    board
}

#[test]
fn it_is_known_for_how_long_after_vcpu_put_the_host_was_counted_in_a_guest_s_counter() {
    let board = put(true);
    let found = board.first(Kind::GuestRead);
    assert_eq!((found.invariant, found.victim), (Invariant::I1, VM));
    assert_eq!(found.actual - found.expected, 2 * 412);
    let [Counted { party: Party::Host, cycles: 412, since, after: Some(after) }] = found.counted[..] else {
        panic!("{:?}", found.counted)
    };
    assert_eq!((after.put, after.context), (true, GUEST));
    assert!(after.cycle < since && since + 412 < found.cycle);
}

/// Who was counted in a guest's counter, for how many cycles, and whether after a vcpu_put.
fn told(found: &Violation) -> Vec<(Party, u64, Option<bool>)> {
    found.counted.iter().map(|one| (one.party, one.cycles, one.after.map(|after| after.put))).collect()
}

#[test]
fn what_was_counted_after_another_handover_is_told_by_itself() {
    let mut board = Board::counting();
    board.puts();
    board.runs(HOST, 0, 412);
    board.loads();
    board.runs(HOST, 0, 100);
    board.reads(Register::pmevcntr(0));
    let found = board.first(Kind::GuestRead);
    assert_eq!(found.actual - found.expected, 2 * 512);
    assert_eq!(told(found), [(Party::Host, 412, Some(true)), (Party::Host, 100, Some(false))]);
}

#[test]
fn after_many_handovers_the_last_that_is_told_has_all_that_came_later() {
    let mut board = Board::counting();
    for cycles in 1..=6 {
        board.puts();
        board.runs(HOST, 0, cycles);
        board.loads();
    }
    board.reads(Register::pmevcntr(0));
    let cycles: Vec<_> = told(board.first(Kind::GuestRead)).iter().map(|&(_, cycles, _)| cycles).collect();
    assert_eq!(cycles, [1, 2, 3, 4 + 5 + 6]);
}

#[test]
fn what_was_saved_more_than_once_with_somebody_else_s_count_is_told_in_all() {
    let mut board = Board::counting();
    for cycles in [30, 20] {
        board.told(note::VCPU_PUT);
        board.kvm(Register::of(Of::MdcrEl2), u64::from(COUNTERS));
        board.runs(HOST, 0, cycles);
        board.0.set_running(0, HOST, 2, 0).expect("they exist");
        let saved = board.0.access(0, Register::pmevcntr(0).encoding(), None).expect("it runs");
        board.kvm(Register::pmevcntr(0), 0);
        board.told(note::VCPU_IS_PUT);
        board.loads();
        board.kvm(Register::pmevcntr(0), saved.expect("EL2 reads it"));
    }
    board.reads(Register::pmevcntr(0));
    let found = board.first(Kind::GuestRead);
    assert_eq!(found.actual - found.expected, 2 * 50);
    assert_eq!(told(found), [(Party::Host, 30, Some(true)), (Party::Host, 20, Some(true))]);
}

#[test]
fn a_counter_that_is_stopped_at_vcpu_put_counts_nobody_else() {
    assert_eq!(put(false).found(), []);
}

#[test]
fn what_is_saved_with_somebody_else_s_count_in_it_is_restored_with_it() {
    let mut board = Board::counting();
    board.told(note::VCPU_PUT);
    board.kvm(Register::of(Of::MdcrEl2), u64::from(COUNTERS));
    board.runs(HOST, 0, 30);
    board.0.set_running(0, HOST, 2, 0).expect("they exist");
    let saved = board.0.access(0, Register::pmevcntr(0).encoding(), None).expect("it runs");
    board.kvm(Register::pmevcntr(0), 0);
    board.told(note::VCPU_IS_PUT);
    board.loads();
    let saved = saved.expect("EL2 reads it");
    board.kvm(Register::pmevcntr(0), saved);
    let counted =
        board.first(Kind::Restored).counted.iter().map(|one| (one.party, one.cycles)).collect::<Vec<_>>();
    assert_eq!(counted, [(Party::Host, 30)]);
}

#[test]
fn an_overflow_is_seen_with_its_counter_and_cycle() {
    let mut board = Board::new();
    board.guest(Register::pmevtyper(0), u64::from(EVENT));
    board.guest(Register::pmevcntr(0), u64::from(u32::MAX) - 99);
    board.guest(Register::of(Of::Pmintenset), 1);
    board.guest(Register::of(Of::Pmcntenset), 1);
    let began = board.0.cpu(0).expect("it exists").now();
    board.0.set_running(0, GUEST, 0, 0).expect("they exist");
    board.0.run(0, 1_000).expect("it exists");
    board.puts();
    board.kvm(Register::pmevcntr(1), 0); // nobody is loaded
    let before = &board.0.observer().findings().violations()[0].before;
    let seen = before.iter().find(|seen| seen.did == Did::Overflow).expect("it overflows");
    assert_eq!((seen.party, seen.a, seen.cycle - began), (VM, 0, 50));
}

#[test]
fn a_handover_is_kept_with_what_is_counted_after_it() {
    let board = put(true);
    let found = board.first(Kind::GuestRead);
    let [first] = found.counted[..] else { panic!("one party") };
    let Some(Handover { cycle, .. }) = first.after else { panic!("it was put") };
    let note = found.before.iter().find(|seen| seen.did == Did::Note && seen.cycle == cycle);
    assert!(note.is_some_and(|seen| seen.a == u64::from(note::VCPU_PUT)));
}

#[test]
fn a_program_of_the_host_s_may_access_what_the_host_s_kernel_has_set() {
    for restored in [true, false] {
        let mut board = Board::new();
        board.kvm(Register::of(Of::Pmuserenr), 0xf);
        board.runs(GUEST, 1, 10);
        if restored {
            board.kvm(Register::of(Of::Pmuserenr), 0);
        }
        board.puts();
        board.runs(HOST, 0, 10);
        let of_host = |found: &&(Invariant, Kind, Party)| found.2 == Party::Host;
        let found: Vec<_> = board.found().iter().filter(of_host).copied().collect();
        let broken = vec![(Invariant::I2, Kind::HostState, Party::Host)];
        assert_eq!(found, if restored { vec![] } else { broken });
    }
}
