//! Each invariant, each kind of what it shows in, and each tolerance has a case that notices when the judge does not
//! look there.

use std::collections::BTreeSet;

use crate::board::{
    Board, COUNTERS, CYCLE, DELAY, DIVIDED, Drive, EVENT, Found, GUEST, GUEST_PMU_IRQ, HOST, HOST_PMU_IRQ,
    LEFT, OTHER, TRAPPED, of,
};
use judge::finding::{INVARIANTS, Invariant, KINDS, Kind, Mutant};
use judge::note::{self, attribute};
use judge::window::{IN_A_ROW, WINDOWS, Window};
use pmu::field::{pmcr, pmevtyper};
use pmu::register::{Kind as Of, Register};
use pmu::registers::{CHAIN, SW_INCR};

/// A tolerance: up to its edge, and one step further.
struct Edge {
    window: Window,
    last: fn(&mut Board),
    more: fn(&mut Board),
    finds: (Invariant, Kind),
}

impl Edge {
    fn holds(&self, mutant: Option<Mutant>) -> bool {
        let mut board = Board::new(mutant);
        (self.last)(&mut board);
        let before = board.found();
        let edges = board.edges(self.window);
        (self.more)(&mut board);
        let (invariant, kind) = self.finds;
        before.is_empty() && edges > 0 && board.found() == [(invariant, kind, Some(self.window))]
    }
}

const fn edge(window: Window, finds: (Invariant, Kind), last: fn(&mut Board), more: fn(&mut Board)) -> Edge {
    Edge { window, last, more, finds }
}

fn one_reg(board: &mut Board, code: u32, register: Of, value: u64) {
    one_reg_of(board, GUEST, code, of(register), value);
}

fn one_reg_of(board: &mut Board, context: usize, code: u32, register: Register, value: u64) {
    board.note(code, (context as u64) << 16 | u64::from(register.encoding()), value);
}

/// More than an event counter has before PMUv3p5.
const HIGH: u64 = 1 << 32;

const EDGES: &[Edge] = &[
    edge(
        Window::UnknownAfterReset,
        (Invariant::I4, Kind::GuestRead),
        |board| {
            board.loads(GUEST, TRAPPED);
            board.gets(Register::pmevcntr(0), 5);
            board.gets(Register::pmevcntr(0), 5);
        },
        |board| board.gets(Register::pmevcntr(0), 6),
    ),
    edge(
        Window::UnknownAfterReset,
        (Invariant::I7, Kind::GuestRead),
        |board| {
            board.loads(GUEST, TRAPPED);
            board.gets(of(Of::Pmcntenset), 0b101);
            board.sets(of(Of::Pmcntenset), 0b010);
            board.gets(of(Of::Pmcntenset), 0b111);
        },
        |board| board.gets(of(Of::Pmcntenset), 0b011),
    ),
    edge(
        Window::UnknownAfterReset,
        (Invariant::I1, Kind::GuestEntry),
        |board| {
            board.host_writes(of(Of::Pmintenset), 0b100);
            board.loads(GUEST, DIVIDED);
            board.pokes(of(Of::Pmintenclr), 0b100);
            board.pokes(of(Of::Pmintenset), 0b010);
            board.guest_reads(of(Of::Pmselr));
            board.exits();
        },
        |board| {
            board.pokes(of(Of::Pmintenset), 0b100);
            board.guest_reads(of(Of::Pmselr));
        },
    ),
    edge(
        Window::AbsentCounter,
        (Invariant::I8, Kind::Undefined),
        |board| {
            board.loads(GUEST, TRAPPED);
            board.undefined(Register::pmevcntr(COUNTERS));
        },
        |board| board.undefined(Register::pmevcntr(COUNTERS - 1)),
    ),
    edge(
        Window::AbsentCounter,
        (Invariant::I1, Kind::GuestRead),
        |board| {
            board.loads(GUEST, TRAPPED);
            board.settles(0);
            board.sets(Register::pmevcntr(1), 77);
            board.gets(Register::pmevcntr(COUNTERS), 0);
            board.gets(Register::pmevcntr(COUNTERS), 77);
        },
        |board| board.gets(Register::pmevcntr(COUNTERS), 78),
    ),
    edge(
        Window::InterruptOnItsWay,
        (Invariant::I5, Kind::LateInterrupt),
        |board| {
            board.will_overflow();
            board.works(GUEST, 1, LEFT + DELAY);
        },
        |board| board.works(GUEST, 1, 1),
    ),
    edge(
        Window::Polled,
        (Invariant::I5, Kind::SpuriousInterrupt),
        |board| {
            board.overflows();
            board.sets(of(Of::Pmovsclr), CYCLE);
            board.mark(GUEST_PMU_IRQ);
        },
        |board| board.mark(GUEST_PMU_IRQ),
    ),
    edge(
        Window::TrappedWrite,
        (Invariant::I5, Kind::SpuriousInterrupt),
        |board| {
            board.overflows();
            board.sets(of(Of::Pmintenclr), CYCLE);
            board.guest_writes(of(Of::Pmintenset), CYCLE);
            board.exits();
            board.mark(HOST_PMU_IRQ);
        },
        |board| {
            board.guest_writes(of(Of::Pmintenset), 1);
            board.exits();
            board.mark(HOST_PMU_IRQ);
        },
    ),
    edge(
        Window::StoppedByDriver,
        (Invariant::I3, Kind::EventCount),
        |board| {
            board.opens(1, attribute::EXCLUDE_KERNEL);
            board.starts(1, COUNTERS, pmevtyper::P);
            board.loads(GUEST, DIVIDED);
            board.works(HOST, 0, 50);
            board.host_writes(of(Of::Pmcr), 0);
            board.works(HOST, 0, 3);
            let count = board.host_reads(Register::pmevcntr(COUNTERS));
            assert_eq!(count, 2 * 53, "it has run on");
            board.finds(1, count, 0, 0);
        },
        |board| {
            board.works(HOST, 0, 3);
            let count = board.host_reads(Register::pmevcntr(COUNTERS));
            board.finds(1, count + 1, 0, 0);
        },
    ),
    edge(
        Window::CountersLent,
        (Invariant::I10, Kind::EventPinned),
        |board| {
            // One on each counter of the host's, and one more.
            for (id, n) in [(1, 1), (2, 4), (3, 5)] {
                board.opens(id, attribute::PINNED);
                board.tells(note::EVENT_ON, id << 8 | n);
            }
            board.loads(GUEST, DIVIDED);
            board.tells(note::EVENT_OFF, 1 << 8 | 1);
            board.works(GUEST, 1, 1);
            board.puts(GUEST);
        },
        |board| board.works(HOST, 0, 1),
    ),
    edge(
        Window::InterruptsInARow,
        (Invariant::I12, Kind::Livelock),
        |board| {
            board.host_overflows();
            (0..=IN_A_ROW).for_each(|_| board.mark(HOST_PMU_IRQ));
        },
        |board| board.mark(HOST_PMU_IRQ),
    ),
    edge(
        Window::UserView,
        (Invariant::I11, Kind::OneReg),
        |board| {
            one_reg(board, note::SET_ONE_REG, Of::Pmcntenset, 0b11);
            one_reg(board, note::SET_ONE_REG, Of::Pmcntenset, 0b01);
            one_reg(board, note::GET_ONE_REG, Of::Pmcntenset, 0b11);
            one_reg(board, note::GET_ONE_REG, Of::Pmcntenset, 0b11);
        },
        |board| one_reg(board, note::GET_ONE_REG, Of::Pmcntenset, 0b01),
    ),
    edge(
        Window::UserView,
        (Invariant::I11, Kind::OneReg),
        |board| {
            one_reg(board, note::SET_ONE_REG, Of::Pmcr, pmcr::P);
            one_reg(board, note::GET_ONE_REG, Of::Pmcr, pmcr::P | u64::from(COUNTERS) << 11);
        },
        |board| one_reg(board, note::GET_ONE_REG, Of::Pmcr, pmcr::P | pmcr::C | u64::from(COUNTERS) << 11),
    ),
    edge(
        Window::ReservedBits,
        (Invariant::I7, Kind::GuestRead),
        |board| {
            board.loads(GUEST, TRAPPED);
            board.sets(of(Of::Pmselr), 0x123);
            board.gets(of(Of::Pmselr), 0x3);
            board.gets(of(Of::Pmselr), 0x123);
        },
        |board| board.gets(of(Of::Pmselr), 0x163),
    ),
    edge(
        Window::LaterPmu,
        (Invariant::I4, Kind::GuestRead),
        |board| {
            board.loads(GUEST, TRAPPED);
            board.settles(pmcr::E | pmcr::LC);
            board.sets(of(Of::Pmcr), pmcr::E | pmcr::LC | pmcr::FZO);
            board.gets(Register::pmevcntr(1), 5);
            board.gets(Register::pmevcntr(1), 9);
            board.sets(of(Of::Pmcr), pmcr::E | pmcr::LC);
            board.gets(Register::pmevcntr(1), 7);
        },
        |board| board.gets(Register::pmevcntr(1), 6),
    ),
    edge(
        Window::LaterPmu,
        (Invariant::I4, Kind::GuestRead),
        |board| {
            board.loads(OTHER, DIVIDED);
            board.other_writes(of(Of::Pmcr), pmcr::LC | pmcr::LP);
            board.pokes(Register::pmevcntr(0), 9);
            board.other_reads(Register::pmevcntr(0));
            board.other_writes(of(Of::Pmcr), pmcr::LC);
            board.pokes(Register::pmevcntr(0), 7);
            board.other_reads(Register::pmevcntr(0));
            board.other_writes(of(Of::Pmselr), 0);
            board.other_writes(of(Of::Pmxevcntr), HIGH | 5);
            board.other_reads(of(Of::Pmxevcntr));
        },
        |board| {
            board.kvm_writes(of(Of::MdcrEl2), TRAPPED);
            board.other_reads(of(Of::Pmxevcntr));
            board.0.emulated(0, HIGH | 5).expect("it exists");
        },
    ),
    edge(
        Window::LaterPmu,
        (Invariant::I4, Kind::GuestEntry),
        |board| {
            board.loads(OTHER, DIVIDED);
            board.other_writes(of(Of::Pmcr), pmcr::LC | pmcr::LP);
            board.other_writes(Register::pmevcntr(0), 5);
            board.exits();
            board.pokes(Register::pmevcntr(0), 9);
            board.other_writes(of(Of::Pmcr), pmcr::LC);
            board.exits();
            board.other_reads(Register::pmevcntr(0));
            board.exits();
            board.pokes(Register::pmevcntr(0), HIGH | 9);
            board.other_reads(of(Of::Pmselr));
            board.exits();
        },
        |board| {
            board.pokes(Register::pmevcntr(0), HIGH | 8);
            board.other_reads(of(Of::Pmselr));
        },
    ),
    edge(
        Window::LaterPmu,
        (Invariant::I7, Kind::Restored),
        |board| {
            board.loads(OTHER, DIVIDED);
            board.other_writes(Register::pmevcntr(0), HIGH | 5);
            board.other_reads(Register::pmevcntr(0));
            board.exits();
            board.kvm_writes(Register::pmevcntr(0), 5);
        },
        |board| board.kvm_writes(Register::pmevcntr(0), HIGH | 5),
    ),
    edge(
        Window::LaterPmu,
        (Invariant::I11, Kind::OneReg),
        |board| {
            board.loads(OTHER, DIVIDED);
            board.other_writes(Register::pmevcntr(0), HIGH | 5);
            board.other_reads(Register::pmevcntr(0));
            board.puts(OTHER);
            one_reg_of(board, OTHER, note::GET_ONE_REG, Register::pmevcntr(0), 5);
        },
        |board| one_reg_of(board, OTHER, note::GET_ONE_REG, Register::pmevcntr(0), HIGH | 5),
    ),
    edge(
        Window::ShortCycles,
        (Invariant::I7, Kind::GuestRead),
        |board| {
            board.loads(GUEST, TRAPPED);
            board.settles(pmcr::E);
            board.sets(of(Of::Pmccntr), u64::from(u32::MAX));
            board.sets(of(Of::Pmcntenset), CYCLE);
            board.passes(1);
            board.gets(of(Of::Pmccntr), 1 << 32);
            board.gets(of(Of::Pmovsset), CYCLE);
            board.gets(of(Of::Pmovsset), 0);
            board.sets(of(Of::Pmcr), pmcr::E | pmcr::LC);
            board.gets(of(Of::Pmovsset), CYCLE);
        },
        |board| board.gets(of(Of::Pmovsset), 0),
    ),
    edge(
        Window::DeniedInMemory,
        (Invariant::I4, Kind::GuestRead),
        |board| {
            board.note(note::SET_FILTER, (GUEST as u64) << 16 | u64::from(SW_INCR), 1 << 1 | 1);
            board.loads(GUEST, TRAPPED);
            board.settles(pmcr::E | pmcr::LC);
            board.sets(of(Of::Pmcntenset), 1);
            board.sets(Register::pmevtyper(0), u64::from(SW_INCR));
            board.sets(Register::pmevcntr(0), 0);
            board.sets(of(Of::Pmswinc), 1);
            board.sets(Register::pmevtyper(0), u64::from(EVENT));
            board.gets(Register::pmevcntr(0), 1);
        },
        |board| board.gets(Register::pmevcntr(0), 0),
    ),
    edge(
        Window::Identification,
        (Invariant::I8, Kind::GuestRead),
        |board| {
            board.loads(GUEST, TRAPPED);
            let implemented = board.0.peek(0, of(Of::Pmceid0).encoding()).expect("it exists");
            assert_eq!(implemented >> CHAIN & 1, 0);
            board.gets(of(Of::Pmceid0), implemented | 1 << CHAIN);
        },
        |board| board.gets(of(Of::Pmceid0), 1 << 5),
    ),
];

/// What breaks an invariant, where no tolerance is near.
struct Case {
    finds: &'static [(Invariant, Kind)],
    does: fn(&mut Board),
}

impl Case {
    fn holds(&self, mutant: Option<Mutant>) -> bool {
        let mut board = Board::new(mutant);
        (self.does)(&mut board);
        let found: Found = self.finds.iter().map(|&(invariant, kind)| (invariant, kind, None)).collect();
        board.found() == found
    }
}

const fn case(finds: &'static [(Invariant, Kind)], does: fn(&mut Board)) -> Case {
    Case { finds, does }
}

const CASES: &[Case] = &[
    case(&[(Invariant::I4, Kind::GuestEntry)], |board| {
        board.loads(GUEST, DIVIDED);
        board.settles(0);
        board.exits();
        board.pokes(Register::pmevcntr(1), 9);
        board.guest_reads(of(Of::Pmuserenr));
    }),
    case(&[(Invariant::I4, Kind::GuestRead)], |board| {
        board.loads(GUEST, TRAPPED);
        board.settles(0);
        board.gets(Register::pmevcntr(1), 9);
    }),
    case(&[(Invariant::I8, Kind::Undefined)], |board| {
        board.loads(GUEST, TRAPPED);
        board.undefined(of(Of::Pmcntenset));
    }),
    case(&[(Invariant::I5, Kind::MisattributedInterrupt)], |board| {
        board.overflows();
        board.puts(GUEST);
        board.loads(OTHER, TRAPPED);
        board.mark(GUEST_PMU_IRQ);
    }),
    case(&[(Invariant::I5, Kind::SpuriousInterrupt)], |board| board.mark(HOST_PMU_IRQ)),
    case(&[(Invariant::I3, Kind::HostRead)], |board| {
        board.counts();
        board.pokes(Register::pmevcntr(COUNTERS), 9);
        board.host_reads(Register::pmevcntr(COUNTERS));
    }),
    case(&[(Invariant::I2, Kind::HostState)], |board| {
        board.counts();
        board.loads(GUEST, DIVIDED);
        board.kvm_writes(Register::pmevcntr(COUNTERS), 9);
    }),
    case(&[(Invariant::I7, Kind::Restored)], |board| {
        board.loads(GUEST, TRAPPED);
        board.settles(0);
        board.exits();
        board.kvm_writes(Register::pmevcntr(1), 9);
    }),
    case(&[(Invariant::I6, Kind::Unsynchronised)], |board| {
        board.loads(GUEST, TRAPPED);
        board.kvm_writes(of(Of::Pmselr), 1);
        board.kvm_writes(of(Of::Pmxevtyper), 0);
    }),
    case(&[(Invariant::I6, Kind::DriverOrder)], |board| {
        board.drives(&[Drive::Msr(Register::pmevtyper(1), 0), Drive::Msr(of(Of::Pmcntenset), 1 << 1)]);
    }),
    case(&[(Invariant::I6, Kind::WithoutEffect)], |board| {
        board.has_on_cpu(1);
        board.sets(Register::pmevtyper(1), u64::from(SW_INCR));
        board.runs(GUEST, 0);
    }),
    case(
        // It reads PMCR_EL0.N, and the enable of the host's.
        &[
            (Invariant::I8, Kind::GuestEntry),
            (Invariant::I1, Kind::GuestEntry),
            (Invariant::I10, Kind::HostPlacement),
        ],
        |board| {
            board.loads(GUEST, DIVIDED);
            board.settles(0);
            board.exits();
            board.host_writes(of(Of::Pmcntenset), 1 << COUNTERS);
            board.kvm_writes(of(Of::MdcrEl2), DIVIDED + 1);
            board.guest_reads(of(Of::Pmuserenr));
        },
    ),
    case(&[(Invariant::I8, Kind::UnpredictableHpmn)], |board| {
        board.note(note::VCPU_LOAD, GUEST as u64, 0);
        board.kvm_writes(of(Of::MdcrEl2), u64::from(COUNTERS) + 3);
    }),
    case(&[(Invariant::I10, Kind::EventTimes)], |board| {
        board.opens(1, 0);
        board.finds(1, 0, 10, 11);
    }),
    case(&[(Invariant::I10, Kind::EventPlacement)], |board| {
        for id in [1, 2] {
            board.opens(id, 0);
            board.tells(note::EVENT_ON, id << 8 | 5);
        }
    }),
    case(&[(Invariant::I10, Kind::EventGroup)], |board| {
        board.opens(1, 0);
        board.opens(2, 0);
        board.tells(note::EVENT_GROUP, 2 << 32 | 1);
        board.tells(note::EVENT_ON, 1 << 8 | 5);
        board.works(HOST, 0, 1);
    }),
    case(&[(Invariant::I10, Kind::EventFlexible)], |board| {
        board.opens(1, 0);
        board.tells(note::EVENT_ON, 1 << 8 | 1);
        board.loads(GUEST, DIVIDED);
        board.tells(note::EVENT_OFF, 1 << 8 | 1);
        board.puts(GUEST);
        board.works(HOST, 0, 1);
    }),
    case(&[(Invariant::I3, Kind::EventCount)], |board| {
        board.counts();
        board.finds(1, 9, 0, 0);
    }),
    case(&[(Invariant::I9, Kind::NotLoaded)], |board| board.runs(GUEST, 1)),
    case(&[(Invariant::I9, Kind::LoadedTwice)], |board| {
        board.loads(GUEST, TRAPPED);
        board.loads(OTHER, TRAPPED);
    }),
    case(&[(Invariant::I2, Kind::HostState), (Invariant::I9, Kind::HalfSwapped)], |board| {
        board.counts();
        board.note(note::VCPU_LOAD, GUEST as u64, 0);
        board.kvm_writes(of(Of::Pmcntenclr), 1 << COUNTERS);
        board.mark(2);
        board.kvm_writes(of(Of::Pmcntenset), 1 << COUNTERS);
        board.note(note::VCPU_LOADED, GUEST as u64, 0);
    }),
    case(&[(Invariant::I12, Kind::Deadlock)], |board| board.note(note::DEADLOCK, HOST as u64, 0)),
    case(&[(Invariant::I12, Kind::NeverWoken)], |board| {
        board.overflows();
        board.exits();
        board.note(note::ALL_IDLE, HOST as u64, 0);
    }),
    case(&[(Invariant::I11, Kind::OneReg)], |board| {
        one_reg(board, note::SET_ONE_REG, Of::Pmccntr, 7);
        one_reg(board, note::GET_ONE_REG, Of::Pmccntr, 8);
    }),
];

/// Beyond a tolerance that is given in cycles, to another loss than that of `EDGES`.
const LOST: Edge = edge(
    Window::InterruptOnItsWay,
    (Invariant::I5, Kind::LostInterrupt),
    |board| {
        board.overflows();
        board.exits();
        board.passes(DELAY);
        board.note(note::VCPU_BLOCKS, GUEST as u64, 0);
    },
    |board| {
        board.passes(1);
        board.note(note::VCPU_BLOCKS, GUEST as u64, 0);
    },
);

fn edges() -> impl Iterator<Item = &'static Edge> {
    EDGES.iter().chain([&LOST])
}

/// By a case that holds without it.
fn noticed(mutant: Mutant) -> bool {
    edges().any(|edge| edge.holds(None) && !edge.holds(Some(mutant)))
        || CASES.iter().any(|case| case.holds(None) && !case.holds(Some(mutant)))
}

#[test]
fn a_tolerance_allows_what_is_up_to_its_edge_and_one_step_more_exceeds_it() {
    for edge in edges() {
        let mut board = Board::new(None);
        let name = WINDOWS[edge.window as usize].name;
        (edge.last)(&mut board);
        assert_eq!(board.found(), [], "{name}");
        assert!(board.edges(edge.window) > 0, "{name} is not used up to its edge");
        (edge.more)(&mut board);
        let (invariant, kind) = edge.finds;
        assert_eq!(board.found(), [(invariant, kind, Some(edge.window))], "{name}");
    }
}

#[test]
fn each_case_finds_what_it_shows_and_nothing_else() {
    for case in CASES {
        let mut board = Board::new(None);
        (case.does)(&mut board);
        let found: Vec<_> = board.found().into_iter().map(|(invariant, kind, _)| (invariant, kind)).collect();
        assert_eq!(found, case.finds);
        assert!(case.holds(None), "{:?}: no tolerance is near", case.finds);
    }
}

#[test]
fn each_tolerance_is_used_up_to_its_edge_by_a_test() {
    let used: BTreeSet<_> = edges().map(|edge| WINDOWS[edge.window as usize].name).collect();
    let all: BTreeSet<_> = WINDOWS.iter().map(|window| window.name).collect();
    assert_eq!(used, all);
}

#[test]
fn a_tolerance_that_never_ends_is_noticed() {
    for edge in edges() {
        let mutant = Mutant::Widened(edge.window);
        assert!(edge.holds(None) && !edge.holds(Some(mutant)), "{mutant:?}");
    }
}

#[test]
fn an_invariant_that_is_not_checked_is_noticed() {
    let finds =
        CASES.iter().flat_map(|case| case.finds.iter().copied()).chain(edges().map(|edge| edge.finds));
    let invariants: BTreeSet<_> = finds.map(|(invariant, _)| invariant).collect();
    assert_eq!(invariants.len(), INVARIANTS, "each has a case: {invariants:?}");
    for invariant in invariants {
        assert!(noticed(Mutant::Off(invariant)), "{invariant:?}");
    }
}

#[test]
fn a_kind_of_violation_that_is_not_seen_is_noticed() {
    for kind in KINDS {
        assert!(noticed(Mutant::Blind(kind)), "{kind:?}");
    }
}
