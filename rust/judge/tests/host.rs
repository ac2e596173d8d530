//! What the judge says of the host's events: each rule where it holds and where it is broken.

use judge::finding::{Invariant, Kind, Party, Violation};
use judge::note::{self, attribute};
use judge::window::{WINDOWS, Window};
use judge::{Judge, VcpuSetup};
use pmu::burst::{Burst, Operation};
use pmu::feature::{Features, PMUV3P1, PMUV3P5};
use pmu::field::{mdcr_el2, pmcr, pmevtyper};
use pmu::machine::{Costs, Machine};
use pmu::observer::By;
use pmu::register::{Kind as Of, Register};
use pmu::tally::ONE;

const EVENT: u16 = 0x08;
const COUNTERS: u8 = 6;
const HOST: usize = 0;
const GUEST: usize = 1;
const VM: Party = Party::Guest(GUEST);
const ENABLED: u16 = attribute::ENABLED;

/// A CPU with the host's kernel and one guest, which reaches the counters below HPMN; `EVENT` twice a cycle.
struct Board(Machine<Judge>);

impl Board {
    fn new() -> Self {
        Self::of(Features::default().pmuver)
    }

    fn of(pmuver: u8) -> Self {
        Self::with(&Features { pmuver, ..Features::default() })
    }

    fn with(features: &Features) -> Self {
        let features = || Features { counters: COUNTERS, ..features.clone() };
        let costs = Costs { mrs: 2, msr: 3, isb: 1 };
        let mut machine = Machine::new(vec![features()], &[EVENT], costs).expect("possible");
        machine.add_profile(&[(EVENT, 2 * ONE)]).expect("possible");
        machine.add_context(false);
        machine.add_context(true);
        let vcpu = VcpuSetup { context: GUEST, counters: 2, pmuver: 6, denied: Vec::new() };
        let mut board = Self(machine.observed_by(Judge::new(&[features()], vec![vcpu])));
        board.host(Operation::Msr, Register::of(Of::Pmcr), pmcr::E);
        board
    }

    fn executed(&mut self, context: usize, el: u8, operation: Operation, subject: u32, operand: u64) -> u64 {
        self.0.set_running(0, context, el, 0).expect("they exist");
        let mut burst = Burst::default();
        if operation.yields() {
            burst.post_read(operation, subject);
        } else {
            burst.post(operation, subject, operand);
        }
        self.0.execute_by(By::Software, 0, &mut burst, 0, false).expect("it runs");
        burst.values().first().copied().unwrap_or(0)
    }

    fn host(&mut self, operation: Operation, register: Register, value: u64) -> u64 {
        let read = self.executed(HOST, 2, operation, u32::from(register.encoding()), value);
        self.executed(HOST, 2, Operation::Isb, 0, 0);
        read
    }

    fn guest(&mut self, register: Register, value: u64) {
        self.executed(GUEST, 1, Operation::Msr, u32::from(register.encoding()), value);
    }

    fn kvm(&mut self, register: Register, value: u64) {
        self.0.set_running(0, HOST, 2, 0).expect("they exist");
        self.0.access(0, register.encoding(), Some(value)).expect("it runs");
    }

    fn works(&mut self, context: usize, el: u8, cycles: u64) {
        self.0.set_running(0, context, el, 0).expect("they exist");
        assert_eq!(self.0.run(0, cycles), Ok(cycles), "no interrupt");
    }

    fn note(&mut self, code: u32, value: u64) {
        self.executed(HOST, 2, Operation::Note, code, value);
    }

    fn loads(&mut self, mdcr: u64) {
        self.0.set_running(0, HOST, 2, 0).expect("they exist");
        self.0.note(0, note::VCPU_LOAD, GUEST as u64, 0).expect("it exists");
        self.kvm(Register::of(Of::MdcrEl2), mdcr);
    }

    fn puts(&mut self) {
        self.kvm(Register::of(Of::MdcrEl2), u64::from(COUNTERS));
        self.0.note(0, note::VCPU_IS_PUT, GUEST as u64, 0).expect("it exists");
    }

    fn opens(&mut self, id: u64, attributes: u16) {
        self.note(note::EVENT_OPEN, id << 32 | u64::from(attributes | ENABLED) << 16 | u64::from(EVENT));
    }

    /// The driver puts it on counter `n`, which the host starts.
    fn starts(&mut self, id: u64, n: u8, filter: u64) {
        self.host(Operation::Msr, Register::of(Of::Pmcr), 0);
        self.note(note::EVENT_ON, id << 8 | u64::from(n));
        self.host(Operation::Msr, Register::pmevcntr(n), 0);
        self.host(Operation::Msr, Register::pmevtyper(n), u64::from(EVENT) | filter);
        self.host(Operation::Msr, Register::of(Of::Pmcntenset), 1 << n);
        self.host(Operation::Msr, Register::of(Of::Pmcr), pmcr::E);
    }

    /// Its user finds what the counter has.
    fn reads(&mut self, id: u64, n: u8) {
        let count = self.host(Operation::Mrs, Register::pmevcntr(n), 0);
        self.finds(id, count, 0, 0);
    }

    fn finds(&mut self, id: u64, count: u64, enabled: u64, running: u64) {
        self.note(note::EVENT_READ, id);
        self.note(note::EVENT_TIME_ENABLED, enabled);
        self.note(note::EVENT_TIME_RUNNING, running);
        self.note(note::EVENT_COUNT, count);
    }

    fn found(&self) -> Vec<(Invariant, Kind, Party)> {
        let each = self.0.observer().findings().violations();
        let hosts = each.iter().filter(|found| found.victim == Party::Host);
        hosts.map(|found| (found.invariant, found.kind, found.other)).collect()
    }

    fn first(&self, kind: Kind) -> &Violation {
        let mut each = self.0.observer().findings().violations().iter();
        each.find(|found| found.kind == kind).expect("it is found")
    }

    fn premise(&self, invariant: Invariant) -> u64 {
        self.0.observer().findings().premises()[invariant as usize - 1]
    }

    fn window(&self, window: Window) -> (u64, u64) {
        let name = WINDOWS[window as usize].name;
        let mut each = self.0.observer().findings().windows();
        each.find(|(of, _, _)| *of == name).map(|(_, uses, edges)| (uses, edges)).expect("there is one")
    }
}

/// Only the guest's counters are in the guest's range.
const DIVIDED: u64 = 2 | mdcr_el2::HPME;
/// The counters that it leaves to the host.
const OF_HOST: std::ops::Range<u64> = 2..COUNTERS as u64;

#[test]
fn an_event_counts_what_its_attributes_admit() {
    let mut board = Board::new();
    board.opens(1, attribute::EXCLUDE_GUEST);
    board.starts(1, 4, pmevtyper::NSH | pmevtyper::P);
    board.loads(DIVIDED);
    board.works(GUEST, 1, 100);
    board.puts();
    board.works(HOST, 0, 50);
    board.reads(1, 4);
    assert_eq!(board.found(), []);
    assert!(board.premise(Invariant::I3) > 0);
}

#[test]
fn what_a_guest_did_is_not_counted_for_an_event_that_excludes_guests() {
    let mut board = Board::new();
    board.opens(1, attribute::EXCLUDE_GUEST);
    board.starts(1, 4, pmevtyper::NSH);
    board.loads(DIVIDED);
    board.works(GUEST, 1, 100);
    board.puts();
    board.reads(1, 4);
    assert_eq!(board.found(), [(Invariant::I3, Kind::EventCount, Party::Kvm)]);
    let found = board.first(Kind::EventCount);
    assert_eq!(found.actual - found.expected, 2 * 100, "what happened in the guest");
    board.reads(1, 4);
    assert_eq!(board.first(Kind::EventCount).times, 1, "a difference is found once");
}

#[test]
fn a_count_that_gets_lost_in_software_is_missed() {
    let mut board = Board::new();
    board.opens(1, 0);
    board.starts(1, 4, pmevtyper::NSH);
    board.works(HOST, 0, 50);
    let count = board.host(Operation::Mrs, Register::pmevcntr(4), 0);
    board.finds(1, count - 7, 0, 0);
    let found = board.first(Kind::EventCount);
    assert_eq!((found.invariant, found.expected - found.actual), (Invariant::I3, 7));
}

#[test]
fn a_driver_s_stop_that_does_not_stop_allows_what_happens_until_its_start_and_no_more() {
    // Less than was counted meanwhile, all of it, and more.
    for (surplus, found, edges) in [(-1, 0, 0), (0, 0, 1), (1, 1, 0), (-6, 0, 0), (-7, 1, 0)] {
        let mut board = Board::new();
        board.opens(1, attribute::EXCLUDE_KERNEL);
        board.starts(1, 4, pmevtyper::P);
        board.loads(DIVIDED);
        board.works(HOST, 0, 50);
        board.host(Operation::Msr, Register::of(Of::Pmcr), 0);
        board.works(HOST, 0, 3);
        let count = board.host(Operation::Mrs, Register::pmevcntr(4), 0);
        board.finds(1, count.wrapping_add_signed(surplus), 0, 0);
        assert_eq!(board.found().len(), found, "{surplus}");
        assert_eq!(board.window(Window::StoppedByDriver), (u64::from(surplus > -6 && found == 0), edges));
    }
}

#[test]
fn a_guest_that_stops_a_counter_of_the_host_s_changes_it() {
    let mut board = Board::new();
    board.opens(1, 0);
    board.starts(1, 4, pmevtyper::NSH);
    board.loads(u64::from(COUNTERS));
    let begun = board.first_write_by_guest();
    board.works(GUEST, 1, 100);
    board.puts();
    board.reads(1, 4);
    let change = board.first(Kind::HostState);
    assert_eq!((change.invariant, change.other, change.cycle), (Invariant::I2, VM, begun));
    assert_eq!((change.expected, change.actual), (1 << 4, 0));
    let read = board.first(Kind::HostRead);
    assert_eq!((read.invariant, read.other, read.since), (Invariant::I2, VM, Some(begun)));
    assert_eq!(read.counter, Some(4));
    assert_eq!(read.owned.last().map(|owned| owned.party), Some(Party::Host));
    let count = board.first(Kind::EventCount);
    assert_eq!((count.invariant, count.other, count.since), (Invariant::I2, VM, Some(begun)));
    assert!(board.found().contains(&(Invariant::I10, Kind::HostPlacement, VM)), "it could");
}

impl Board {
    fn first_write_by_guest(&mut self) -> u64 {
        self.guest(Register::of(Of::Pmcntenclr), 1 << 4);
        self.0.observer().findings().violations().iter().map(|found| found.cycle).max().expect("it is found")
    }
}

#[test]
fn a_guest_in_its_own_range_changes_nothing_of_the_host_s() {
    let mut board = Board::new();
    board.opens(1, 0);
    board.starts(1, 4, pmevtyper::NSH);
    board.loads(DIVIDED);
    for (register, value) in [
        (Register::of(Of::Pmcntenclr), 1 << 4 | 1),
        (Register::of(Of::Pmcr), pmcr::E | pmcr::P),
        (Register::pmevcntr(1), 7),
        (Register::of(Of::Pmovsclr), 1 << 4),
    ] {
        board.guest(register, value);
    }
    board.puts();
    board.reads(1, 4);
    assert_eq!(board.found(), []);
    assert!(board.premise(Invariant::I2) > 0);
    assert!(board.premise(Invariant::I10) > 0);
}

#[test]
fn kvm_that_writes_what_an_event_counts_changes_it() {
    let mut board = Board::new();
    board.opens(1, 0);
    board.starts(1, 4, pmevtyper::NSH);
    board.loads(DIVIDED);
    board.kvm(Register::pmevtyper(3), 0);
    board.kvm(Register::pmevcntr(3), 0);
    assert_eq!(board.found(), []);
    let changed = (Invariant::I2, Kind::HostState, Party::Kvm);
    board.kvm(Register::pmevcntr(4), 1 << 20);
    assert_eq!(board.found(), [changed]);
    board.kvm(Register::pmevtyper(4), 1 << 20);
    assert_eq!(board.found(), [changed; 2], "one of the counter, and one of its type");
    assert_eq!(board.first(Kind::HostState).times, 1);
    board.0.mark(0, 7, 0, 0).expect("it exists");
    assert_eq!(board.first(Kind::HostState).times, 2, "found when the thread is switched out, too");
}

#[test]
fn a_reset_of_all_counters_by_kvm_is_one_of_the_host_s() {
    let mut board = Board::new();
    board.opens(1, 0);
    board.starts(1, 4, pmevtyper::NSH);
    board.kvm(Register::of(Of::Pmcr), pmcr::E | pmcr::C);
    assert_eq!(board.found(), []);
    board.kvm(Register::of(Of::Pmcr), pmcr::E | pmcr::P);
    assert_eq!(board.found(), [(Invariant::I2, Kind::HostState, Party::Kvm)]);
}

#[test]
fn mdcr_el2_that_stops_the_host_s_range_stops_its_events() {
    for (mdcr, found) in [(DIVIDED, 0), (2, 1), (DIVIDED | mdcr_el2::HPMD, 0), (6 | mdcr_el2::HPMD, 1)] {
        let mut board = Board::new();
        board.opens(1, 0);
        board.starts(1, 4, pmevtyper::NSH);
        board.loads(mdcr);
        let expected = [(Invariant::I3, Kind::HostState, Party::Kvm)];
        assert_eq!(board.found(), expected[..found], "{mdcr:#x}");
    }
}

/// An event of the host's programs that was started by HPME, while a guest had PMCR_EL0; after the put, with what KVM
/// leaves in PMCR_EL0, they work.
fn started_while_a_guest_has_pmcr(left: u64) -> Board {
    let mut board = Board::new();
    board.host(Operation::Msr, Register::of(Of::Pmcr), 0);
    board.loads(2);
    board.opens(1, attribute::EXCLUDE_KERNEL);
    board.note(note::EVENT_ON, 1 << 8 | 4);
    board.host(Operation::Msr, Register::pmevcntr(4), 0);
    board.host(Operation::Msr, Register::pmevtyper(4), u64::from(EVENT) | pmevtyper::P);
    board.host(Operation::Msr, Register::of(Of::Pmcntenset), 1 << 4);
    board.host(Operation::Msr, Register::of(Of::MdcrEl2), DIVIDED);
    board.works(HOST, 0, 25);
    board.kvm(Register::of(Of::Pmcr), left);
    board.puts();
    board.works(HOST, 0, 50);
    board.reads(1, 4);
    board
}

#[test]
fn what_the_host_has_started_by_hpme_kvm_has_counting_by_e_after_the_put() {
    let mut board = started_while_a_guest_has_pmcr(pmcr::E);
    assert_eq!(board.found(), []);
    assert_eq!(board.window(Window::StoppedByDriver), (0, 0), "it is started: its count is to be exact");
    board.host(Operation::Msr, Register::of(Of::Pmcr), 0);
    board.works(HOST, 0, 50);
    board.reads(1, 4);
    assert_eq!(board.found(), [], "by which the host stops it");

    let board = started_while_a_guest_has_pmcr(0);
    for kind in [Kind::HostRead, Kind::EventCount] {
        let found = board.first(kind);
        assert_eq!((found.invariant, found.expected - found.actual), (Invariant::I3, 2 * 50), "{kind:?}");
    }
}

#[test]
fn what_the_host_has_started_by_hpme_ahead_of_hpmn_is_started() {
    for (mdcr, found) in [(DIVIDED, 0), (2, 1)] {
        let mut board = Board::new();
        board.starts(1, 4, pmevtyper::NSH);
        board.host(Operation::Msr, Register::of(Of::Pmcr), 0);
        board.host(Operation::Msr, Register::of(Of::MdcrEl2), u64::from(COUNTERS) | mdcr_el2::HPME);
        board.loads(mdcr);
        let expected = [(Invariant::I3, Kind::HostState, Party::Kvm)];
        assert_eq!(board.found(), expected[..found], "{mdcr:#x}");
    }
}

#[test]
fn a_counter_has_one_event_and_an_event_one_counter() {
    let placement = [(Invariant::I10, Kind::EventPlacement, Party::Host)];
    for (id, n, found) in [(2, 3, 0), (2, 4, 1), (1, 3, 1)] {
        let mut board = Board::new();
        board.opens(1, 0);
        board.opens(2, 0);
        board.note(note::EVENT_ON, 1 << 8 | 4);
        board.note(note::EVENT_ON, id << 8 | n);
        assert_eq!(board.found(), placement[..found], "{id} on {n}");
    }
}

#[test]
fn a_group_is_on_as_a_whole_or_not_at_all() {
    let mut board = Board::new();
    board.opens(1, 0);
    board.opens(2, 0);
    board.note(note::EVENT_GROUP, 2 << 32 | 1);
    board.works(HOST, 0, 1);
    for id in [1, 2] {
        board.note(note::EVENT_ON, id << 8 | id);
    }
    board.works(HOST, 0, 1);
    assert_eq!(board.found(), []);
    board.note(note::EVENT_OFF, 2 << 8 | 2);
    board.note(note::EVENT_DISABLED, 2);
    board.works(HOST, 0, 1);
    assert_eq!(board.found(), [], "it is disabled");
    board.note(note::EVENT_ENABLED, 2);
    board.note(note::EVENT_OFF, 1 << 8 | 1);
    board.note(note::EVENT_ON, 1 << 8 | 1);
    assert_eq!(board.found(), [], "the kernel is not through yet");
    board.works(HOST, 0, 1);
    assert_eq!(board.found(), [(Invariant::I10, Kind::EventGroup, Party::Kvm)]);
}

#[test]
fn a_pinned_event_is_on_or_waits_for_a_vcpu_s_counters() {
    let mut board = Board::new();
    for (id, n) in (1..).zip([1].into_iter().chain(OF_HOST)) {
        board.opens(id, attribute::PINNED);
        board.note(note::EVENT_ON, id << 8 | n);
    }
    board.loads(DIVIDED);
    board.note(note::EVENT_OFF, 1 << 8 | 1);
    board.works(GUEST, 1, 1);
    assert_eq!(board.found(), []);
    assert_eq!(board.window(Window::CountersLent).0, 1);
    board.puts();
    assert_eq!(board.found(), [], "the kernel is not through yet");
    board.works(HOST, 0, 1);
    assert_eq!(board.found(), [(Invariant::I10, Kind::EventPinned, Party::Kvm)]);
}

/// What is found behind a put where two flexible events were on before, and `meanwhile` has happened since one of them
/// had its counter taken.
fn behind_a_put(meanwhile: impl Fn(&mut Board)) -> Vec<(Invariant, Kind, Party)> {
    let mut board = Board::new();
    for (id, n) in [(1, 1), (2, 5)] {
        board.opens(id, 0);
        board.note(note::EVENT_ON, id << 8 | n);
    }
    board.loads(DIVIDED);
    board.note(note::EVENT_OFF, 1 << 8 | 1);
    board.works(GUEST, 1, 1);
    assert_eq!(board.found(), [], "it waits for what the vCPU has");
    meanwhile(&mut board);
    board.puts();
    assert_eq!(board.found(), [], "the kernel is not through yet");
    board.works(HOST, 0, 1);
    board.found()
}

#[test]
fn a_flexible_event_does_not_wait_for_a_vcpu_that_is_put() {
    let waits_in_vain = [(Invariant::I10, Kind::EventFlexible, Party::Kvm)];
    assert_eq!(behind_a_put(|_| {}), waits_in_vain);
    assert_eq!(behind_a_put(|board| board.note(note::EVENT_CLOSED, 2)), waits_in_vain);
    assert_eq!(behind_a_put(|board| board.note(note::EVENT_ON, 1 << 8 | 4)), []);
    assert_eq!(behind_a_put(|board| board.note(note::EVENT_DISABLED, 1)), []);
    let tried_first = |board: &mut Board| {
        board.opens(3, 0);
        board.note(note::EVENT_CLOSED, 3);
    };
    assert_eq!(behind_a_put(tried_first), [], "it has waited for the other, up to perf's next rotation");
}

/// What is found of a pinned event that waits while a vCPU is loaded, where those on `others` are pinned, too, and
/// flexible ones are on what is left of the host's counters.
fn waits(attributes: u16, on: bool, others: &[u64]) -> Vec<(Invariant, Kind, Party)> {
    let mut board = Board::new();
    board.opens(1, attribute::PINNED | attributes);
    if on {
        board.note(note::EVENT_ON, 1 << 8 | 1);
        board.note(note::EVENT_OFF, 1 << 8 | 1);
    }
    for (id, n) in (2..).zip(OF_HOST) {
        board.opens(id, if others.contains(&n) { attribute::PINNED } else { 0 });
        board.note(note::EVENT_ON, id << 8 | n);
    }
    board.loads(DIVIDED);
    board.works(GUEST, 1, 1);
    board.found()
}

#[test]
fn a_pinned_event_does_not_wait_for_what_no_vcpu_has() {
    let waits_in_vain = [(Invariant::I10, Kind::EventPinned, Party::Kvm)];
    let all: Vec<u64> = OF_HOST.collect();
    assert_eq!(waits(0, true, &all), []);
    assert_eq!(waits(0, true, &all[1..]), waits_in_vain, "a flexible one makes room");
    assert_eq!(waits(0, false, &[]), [], "it never was on");
    assert_eq!(waits(attribute::EXCLUDE_GUEST, true, &[]), [], "it counts nothing while a guest is entered");
}

/// A pinned event that has had a counter, or not, is in ERROR, where other events have these counters.
fn in_error(
    pmuver: u8,
    attributes: u16,
    had: bool,
    others: &[u64],
    loaded: bool,
) -> Vec<(Invariant, Kind, Party)> {
    let mut board = Board::of(pmuver);
    board.opens(1, attribute::PINNED | attribute::OF_TASK | attributes);
    if had {
        board.note(note::EVENT_ON, 1 << 8 | 1);
        board.note(note::EVENT_OFF, 1 << 8 | 1);
    }
    for n in others {
        board.opens(10 + n, 0);
        board.note(note::EVENT_ON, (10 + n) << 8 | n);
    }
    if loaded {
        board.loads(DIVIDED);
    }
    board.note(note::EVENT_ERROR, 1);
    board.found()
}

const GIVEN_UP: (Invariant, Kind, Party) = (Invariant::I10, Kind::EventPinned, VM);

#[test]
fn a_pinned_event_is_not_given_up_for_a_guest() {
    assert_eq!(in_error(PMUV3P5, 0, true, &[], true), [GIVEN_UP]);
    assert_eq!(in_error(PMUV3P5, 0, false, &[], true), [], "it never was on");
    assert_eq!(in_error(PMUV3P5, 0, true, &[], false), [], "there is no guest");
    assert_eq!(in_error(PMUV3P5, attribute::OF_KVM, true, &[], true), [], "it is the guest's matter");
}

#[test]
fn a_pinned_group_that_does_not_fit_has_never_had_a_counter() {
    for (fits, found) in [(false, 0), (true, 1)] {
        let mut board = Board::new();
        board.opens(1, attribute::PINNED);
        board.opens(2, 0);
        board.note(note::EVENT_GROUP, 2 << 32 | 1);
        board.note(note::EVENT_ON, 1 << 8 | 1);
        if fits {
            board.note(note::EVENT_ON, 2 << 8 | 2);
            board.note(note::EVENT_OFF, 2 << 8 | 2);
        }
        board.note(note::EVENT_OFF, 1 << 8 | 1);
        board.loads(DIVIDED);
        board.note(note::EVENT_ERROR, 1);
        assert_eq!(board.found(), [GIVEN_UP][..found]);
    }
}

#[test]
fn a_pinned_event_is_given_up_where_others_have_what_it_could_be_on() {
    let all: Vec<u64> = (0..u64::from(COUNTERS)).collect();
    assert_eq!(in_error(PMUV3P5, 0, true, &all, true), [], "PMCCNTR_EL0 counts cycles alone");
    assert_eq!(in_error(PMUV3P5, 0, true, &all[1..], true), [GIVEN_UP]);
    let no_pair = [0, 2, 4];
    assert_eq!(in_error(PMUV3P1, attribute::LONG, true, &no_pair, true), [], "it needs two");
    assert_eq!(in_error(PMUV3P1, attribute::LONG, true, &no_pair[1..], true), [GIVEN_UP]);
    assert_eq!(in_error(PMUV3P5, attribute::LONG, true, &no_pair, true), [GIVEN_UP], "counters have 64 bits");
}

#[test]
fn time_running_grows_as_time_enabled_does_while_an_event_is_on_and_else_not() {
    for (on, times, found) in [
        (true, [(10, 5), (30, 25)], 0),
        (true, [(10, 5), (30, 24)], 1),
        (false, [(10, 5), (30, 5)], 0),
        (false, [(10, 5), (30, 6)], 1),
        (true, [(10, 11), (30, 31)], 1),
    ] {
        let mut board = Board::new();
        board.opens(1, 0);
        if on {
            board.note(note::EVENT_ON, 1 << 8 | 4);
        }
        for (enabled, running) in times {
            board.finds(1, 0, enabled, running);
        }
        let expected = [(Invariant::I10, Kind::EventTimes, Party::Kvm)];
        assert_eq!(board.found(), expected[..found], "{on} {times:?}");
    }
}

#[test]
fn a_pinned_group_needs_counters_for_all_of_it() {
    for (others, found) in [(COUNTERS - 1, 0), (COUNTERS - 2, 1)] {
        let mut board = Board::new();
        board.opens(1, attribute::PINNED | attribute::OF_TASK);
        board.opens(2, attribute::OF_TASK);
        board.note(note::EVENT_GROUP, 2 << 32 | 1);
        for (id, n) in [(1, 0), (2, 1)] {
            board.note(note::EVENT_ON, id << 8 | n);
        }
        for (id, n) in [(1, 0), (2, 1)] {
            board.note(note::EVENT_OFF, id << 8 | n);
        }
        for n in 0..u64::from(others) {
            board.opens(10 + n, 0);
            board.note(note::EVENT_ON, (10 + n) << 8 | n);
        }
        board.loads(DIVIDED);
        board.note(note::EVENT_ERROR, 1);
        assert_eq!(board.found(), [(Invariant::I10, Kind::EventPinned, VM)][..found], "{others}");
    }
}

#[test]
fn where_an_event_has_found_no_counter_perf_tries_no_other_until_it_schedules_anew() {
    for (runs, found) in [(false, 0), (true, 1)] {
        let mut board = Board::of(PMUV3P1);
        for (id, long) in [(1, attribute::LONG), (2, 0)] {
            board.opens(id, attribute::PINNED | attribute::OF_TASK | long);
        }
        board.note(note::EVENT_ON, 2 << 8 | 1);
        board.note(note::EVENT_OFF, 2 << 8 | 1);
        for n in [0, 2, 4] {
            board.opens(10 + n, 0);
            board.note(note::EVENT_ON, (10 + n) << 8 | n);
        }
        board.loads(DIVIDED);
        board.note(note::EVENT_ERROR, 1);
        if runs {
            board.works(GUEST, 1, 1);
        }
        board.note(note::EVENT_ERROR, 2);
        assert_eq!(board.found(), [(Invariant::I10, Kind::EventPinned, VM)][..found]);
    }
}

#[test]
fn an_event_of_kvm_s_that_counts_wrongly_is_its_guest_s_loss() {
    for (of_kvm, victim) in [(attribute::OF_KVM, VM), (0, Party::Host)] {
        let mut board = Board::new();
        board.loads(DIVIDED);
        board.opens(1, of_kvm | attribute::EXCLUDE_HOST);
        board.starts(1, 4, pmevtyper::U); // and leaves out the guest's EL0
        board.works(GUEST, 0, 10);
        board.reads(1, 4);
        let count = board.first(Kind::EventCount);
        assert_eq!((count.invariant, count.victim), (Invariant::I3, victim));
        assert_eq!((count.expected, count.actual), (20, 0));
    }
}

#[test]
fn hpmn_is_no_more_than_this_cpu_has_and_not_0_without_feat_hpmn0() {
    let n = u64::from(COUNTERS);
    for (hpmn, hpmn0, holds) in
        [(1, false, true), (n, false, true), (n + 1, false, false), (0, false, false), (0, true, true)]
    {
        for loaded in [true, false] {
            let mut board = Board::with(&Features { hpmn0, ..Features::default() });
            if loaded {
                board.0.note(0, note::VCPU_LOAD, GUEST as u64, 0).expect("it exists");
            }
            board.kvm(Register::of(Of::MdcrEl2), hpmn | mdcr_el2::HPME);
            let found = board.0.observer().findings().violations().iter();
            let found: Vec<_> = found.map(|one| (one.invariant, one.kind, one.victim)).collect();
            let victim = if loaded { VM } else { Party::Host };
            let bad = vec![(Invariant::I8, Kind::UnpredictableHpmn, victim)];
            assert_eq!(found, if holds { vec![] } else { bad }, "HPMN = {hpmn}, FEAT_HPMN0: {hpmn0}");
        }
    }
}
