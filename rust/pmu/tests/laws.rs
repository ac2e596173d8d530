//! Laws of the architecture that hold for every state of every CPU, and that vectors cannot cover.

use pmu::access::Outcome;
use pmu::cpu::{Cpu, Running};
use pmu::feature::Features;
use pmu::register::{Kind, Register};
use pmu::tally::{Class, Events, ONE, World};
use proptest::prelude::*;

const NSH: u64 = 1 << 27;
const EVENT: u16 = 0x08;

/// A CPU with two tallies, a guest's EL1 and the host's EL2; one event, `rate` per cycle.
struct Bench {
    world: World,
    cpu: Cpu,
}

impl Bench {
    fn new(features: Features, rate: u64) -> Self {
        let mut world = World::new(Events::new(&[EVENT]), 1);
        world.add_profile(vec![rate, ONE]);
        for class in [Class::GuestEl0, Class::GuestEl1, Class::HostEl2] {
            world.add_tally(class);
        }
        let mut bench = Self { world, cpu: Cpu::new(0, features) };
        bench.run_at(2);
        bench
    }

    fn run_at(&mut self, el: u8) {
        let classes = [Class::GuestEl0, Class::GuestEl1, Class::HostEl2];
        let level = usize::from(el);
        let running = Running { context: level, tally: level, el, guest: el < 2, class: classes[level] };
        self.cpu.set_running(&mut self.world, running, 0);
    }

    fn write(&mut self, kind: Kind, el: u8, value: u64) {
        self.cpu.write(&self.world, Register::of(kind), el, value);
    }

    fn write_to(&mut self, register: Register, value: u64) {
        self.cpu.write(&self.world, register, 2, value);
    }

    fn read(&self, kind: Kind, el: u8) -> u64 {
        self.cpu.read(Register::of(kind), el)
    }

    fn pass(&mut self, cycles: u64) {
        self.cpu.advance(self.cpu.now() + cycles);
    }
}

fn features() -> impl Strategy<Value = Features> {
    let flags = proptest::array::uniform6(any::<bool>());
    (0u8..=31, prop::sample::select(vec![1u8, 4, 5, 6, 7, 8, 9]), 0u8..=2, flags).prop_map(
        |(counters, pmuver, fgt, [hpmn0, icntr, th, el3, sel2, aarch32])| Features {
            counters,
            pmuver,
            fgt,
            hpmn0,
            icntr,
            th,
            el3,
            sel2,
            aarch32,
            ..Features::default()
        },
    )
}

/// HPMN within what the architecture defines.
fn hpmn(features: &Features, wanted: u8) -> u64 {
    let lowest = u8::from(!features.hpmn0).min(features.counters);
    u64::from(wanted.clamp(lowest, features.counters.max(lowest)))
}

const PAIRS: [(Kind, Kind); 3] = [
    (Kind::Pmcntenset, Kind::Pmcntenclr),
    (Kind::Pmintenset, Kind::Pmintenclr),
    (Kind::Pmovsset, Kind::Pmovsclr),
];

proptest! {
    #[test]
    fn set_and_clear_are_two_views_of_one_register(
        features in features(),
        wanted in 0u8..32,
        start: u64,
        value: u64,
        el in 1u8..=2,
    ) {
        for (set, clear) in PAIRS {
            let mut bench = Bench::new(features.clone(), 0);
            bench.write(Kind::MdcrEl2, 2, hpmn(&features, wanted));
            bench.write(set, 2, start);
            let whole = bench.read(set, 2);
            let seen = bench.cpu.registers().write_mask(el, false);
            bench.write(set, el, value);
            prop_assert_eq!(bench.read(set, 2), whole | value & seen, "{:?} sets what is seen", set);
            prop_assert_eq!(bench.read(set, el), bench.read(clear, el));
            let whole = bench.read(set, 2);
            bench.write(clear, el, value);
            prop_assert_eq!(bench.read(clear, 2), whole & !(value & seen), "{:?} clears what is seen", clear);
            prop_assert_eq!(bench.read(set, el), bench.read(clear, el));
        }
    }

    #[test]
    fn the_ranges_are_disjoint_and_cover_all_counters(features in features(), wanted in 0u8..32) {
        let mut bench = Bench::new(features.clone(), 0);
        bench.write(Kind::MdcrEl2, 2, hpmn(&features, wanted));
        let registers = bench.cpu.registers();
        let seen_at_el1 = registers.access_mask(1);
        prop_assert_eq!(seen_at_el1 & registers.second_range(), 0);
        prop_assert_eq!(seen_at_el1 | registers.second_range(), registers.implemented());
        prop_assert_eq!(registers.access_mask(2), registers.implemented());
        prop_assert_eq!(bench.read(Kind::Pmcr, 1) >> 11 & 31, u64::from(registers.hpmn()));
        prop_assert_eq!(bench.read(Kind::Pmcr, 2) >> 11 & 31, u64::from(features.counters));
    }

    #[test]
    fn a_guest_changes_nothing_of_the_second_range(
        features in features(),
        wanted in 0u8..32,
        writes in prop::collection::vec((0..pmu::register::REGISTERS, any::<u64>(), 0u8..=1), 1..40),
    ) {
        let mut bench = Bench::new(features.clone(), ONE / 3);
        bench.write(Kind::MdcrEl2, 2, hpmn(&features, wanted) | 1 << 7);
        let second = bench.cpu.registers().second_range();
        for n in 0..features.counters {
            bench.write_to(Register::pmevtyper(n), NSH | u64::from(EVENT));
            bench.write_to(Register::pmevcntr(n), 1000 + u64::from(n));
        }
        bench.write(Kind::Pmcntenset, 2, second);
        bench.write(Kind::Pmintenset, 2, second);
        let whole = |bench: &Bench| {
            let controls =
                [Kind::Pmcntenset, Kind::Pmintenset, Kind::Pmovsset].map(|kind| bench.read(kind, 2) & second);
            let reserved = (0..31).filter(|n| second >> n & 1 != 0);
            let filters: Vec<u64> = reserved.map(|n| bench.cpu.read(Register::pmevtyper(n), 2)).collect();
            (controls, filters, bench.read(Kind::MdcrEl2, 2))
        };
        let before = whole(&bench);
        let mut counts = 0;
        for (id, value, el) in writes {
            bench.run_at(el);
            let register = Register::all().nth(id).expect("there are that many");
            if bench.cpu.decide(register, el, true) == Outcome::Executed {
                bench.write_register(register, el, value);
            }
            counts += 5;
            bench.pass(5);
        }
        prop_assert_eq!(whole(&bench), before);
        // NSH alone: they count at EL1 and EL0 as well, what happened there and nothing else.
        let happened = |level: usize| {
            let running = bench.cpu.running().expect("something runs");
            bench.world.occurred(level, 0, (running.tally == level).then(|| bench.cpu.pending()))
        };
        prop_assert!(counts > 0);
        for n in (0..31).filter(|n| second >> n & 1 != 0) {
            prop_assert_eq!(bench.cpu.counter(n), 1000 + n as u64 + happened(0) + happened(1));
        }
    }

    #[test]
    fn a_reset_through_pmcr_reaches_the_first_range_only_from_el1(
        features in features(),
        wanted in 0u8..32,
        el in 1u8..=2,
        p: bool,
        c: bool,
    ) {
        let mut bench = Bench::new(features.clone(), 0);
        bench.write(Kind::MdcrEl2, 2, hpmn(&features, wanted));
        for n in 0..features.counters {
            bench.write_to(Register::pmevcntr(n), 7);
        }
        bench.write(Kind::Pmccntr, 2, 7);
        bench.write(Kind::Pmovsset, 2, u64::MAX);
        let flags = bench.read(Kind::Pmovsset, 2);
        bench.write(Kind::Pmcr, el, u64::from(p) << 1 | u64::from(c) << 2);
        let reached = bench.cpu.registers().accessible(el);
        for n in 0..features.counters {
            let reset = p && n < reached;
            prop_assert_eq!(bench.cpu.counter(usize::from(n)), if reset { 0 } else { 7 });
        }
        prop_assert_eq!(bench.read(Kind::Pmccntr, 2), if c { 0 } else { 7 });
        prop_assert_eq!(bench.read(Kind::Pmovsset, 2), flags, "overflow flags are not touched");
        prop_assert_eq!(bench.read(Kind::Pmcr, 2) & 6, 0, "P and C read 0");
    }

    #[test]
    fn a_counter_overflows_where_its_width_says(
        mut features in features(),
        hlp: bool,
        lp: bool,
        second: bool,
        below in 1u64..2000,
        rate in 1u64..3 << 32,
    ) {
        features.counters = 4;
        features.th = false;
        let mut bench = Bench::new(features.clone(), rate);
        let n = if second { 3 } else { 0 };
        bench.write(Kind::MdcrEl2, 2, 2 | 1 << 7 | u64::from(hlp) << 26);
        bench.write(Kind::Pmcr, 2, 1 | u64::from(lp) << 7);
        let long = features.pmuver >= 6 && if second { hlp } else { lp };
        let end: u128 = if long { 1 << 64 } else { 1 << 32 };
        bench.write_to(Register::pmevtyper(n), NSH | u64::from(EVENT));
        bench.write_to(Register::pmevcntr(n), (end - u128::from(below)) as u64);
        bench.write(Kind::Pmcntenset, 2, 1 << n);
        bench.write(Kind::Pmintenset, 2, 1 << n);
        let cycles = (u128::from(below) << 32).div_ceil(u128::from(rate)) as u64;
        bench.cpu.advance_to_interrupt(cycles - 1);
        prop_assert!(!bench.cpu.interrupt());
        prop_assert_eq!(bench.read(Kind::Pmovsset, 2), 0);
        bench.cpu.advance_to_interrupt(cycles + 1000);
        prop_assert_eq!(bench.cpu.now(), cycles, "the first cycle at which the line is high");
        prop_assert_eq!(bench.read(Kind::Pmovsset, 2), 1 << n);
        let counted = ((u128::from(rate) * u128::from(cycles)) >> 32) as u64;
        let value = (end as u64).wrapping_sub(below).wrapping_add(counted);
        let mask = if features.pmuver >= 6 { u64::MAX } else { u64::from(u32::MAX) };
        prop_assert_eq!(bench.cpu.counter(usize::from(n)), value & mask);
    }

    #[test]
    fn an_active_interrupt_changes_nothing_but_that_it_is_not_taken(
        mut features in features(),
        pmi_delay in 0u64..40,
        below in 1u64..200,
        steps in prop::collection::vec((0u8..6, 1u64..100), 1..40),
    ) {
        features.counters = 1;
        features.th = false;
        features.pmi_delay = pmi_delay;
        let mut plain = Bench::new(features.clone(), ONE);
        plain.write(Kind::Pmintenset, 2, 1);
        plain.write_to(Register::pmevtyper(0), NSH | u64::from(EVENT));
        plain.write_to(Register::pmevcntr(0), (1 << 32) - below);
        plain.write(Kind::Pmcntenset, 2, 1);
        plain.write(Kind::Pmcr, 2, 1);
        let mut forwarded = Bench::new(features, ONE);
        forwarded.cpu = plain.cpu.clone();
        forwarded.world = plain.world.clone();
        let mut active = false;
        for (action, cycles) in steps {
            match action {
                0 => {
                    active |= plain.cpu.interrupt();
                    forwarded.cpu.acknowledge();
                }
                1 => {
                    active = false;
                    forwarded.cpu.deactivate();
                }
                _ => {
                    for bench in [&mut plain, &mut forwarded] {
                        match action {
                            2 => bench.write(Kind::Pmovsclr, 2, 1),
                            3 => bench.write_to(Register::pmevcntr(0), (1 << 32) - below),
                            _ => bench.pass(cycles),
                        }
                    }
                }
            }
            prop_assert_eq!(forwarded.cpu.interrupt(), plain.cpu.interrupt() && !active);
            prop_assert_eq!(forwarded.cpu.registers(), plain.cpu.registers());
            prop_assert_eq!(forwarded.cpu.counter(0), plain.cpu.counter(0));
            prop_assert_eq!(forwarded.cpu.arrives(), plain.cpu.arrives());
            prop_assert_eq!(forwarded.cpu.raised(), plain.cpu.raised());
        }
    }

    #[test]
    fn a_long_time_is_the_sum_of_its_parts(
        mut features in features(),
        rate in 0u64..3 << 32,
        filters in prop::collection::vec((0u8..4, any::<u64>(), any::<u64>()), 4),
        pmcr in any::<u64>(),
        hlp in any::<bool>(),
        pieces in prop::collection::vec((0u64..1 << 31, 0u8..4), 1..24),
    ) {
        features.counters = 4;
        let mut whole = Bench::new(features.clone(), rate);
        whole.write(Kind::MdcrEl2, 2, 2 | 1 << 7 | u64::from(hlp) << 26 | 1 << 29);
        whole.write(Kind::Pmccfiltr, 2, NSH);
        for (n, (event, filter, value)) in (0u8..).zip(filters) {
            let event = [u64::from(EVENT), 0x11, 0x1e, 0x00][usize::from(event)];
            // Half of the thresholds off; small ones, so that they matter.
            let threshold = if filter & 1 == 0 { 0 } else { filter & 7 << 61 | filter >> 8 & 3 << 32 };
            whole.write_to(Register::pmevtyper(n), NSH | event | threshold);
            whole.write_to(Register::pmevcntr(n), value | if value & 1 == 0 { u64::MAX << 24 } else { 0 });
        }
        whole.write(Kind::Pmcntenset, 2, u64::MAX);
        whole.write(Kind::Pmcr, 2, pmcr & 0x2f8 | 1);
        let mut parts = Bench::new(features.clone(), rate);
        parts.cpu = whole.cpu.clone();
        parts.world = whole.world.clone();
        whole.pass(pieces.iter().map(|piece| piece.0).sum());
        for (cycles, interlude) in pieces {
            parts.pass(cycles);
            match interlude {
                0 => parts.run_at(2),
                1 => _ = parts.cpu.next_stop(parts.cpu.now() + cycles),
                2 => parts.write(Kind::Pmcntenset, 2, u64::MAX),
                _ => {}
            }
        }
        prop_assert_eq!(whole.cpu.now(), parts.cpu.now());
        prop_assert_eq!(whole.cpu.registers(), parts.cpu.registers());
        for n in (0..4).chain([31, 32]) {
            prop_assert_eq!(whole.cpu.counter(n), parts.cpu.counter(n), "counter {}", n);
        }
    }

    #[test]
    fn a_filter_lets_through_exactly_its_levels(
        mut features in features(),
        filter in any::<u32>(),
        rate in 0u64..3 << 32,
        stays in prop::collection::vec((0u8..=2, 1u64..300), 1..12),
    ) {
        features.counters = 1;
        features.th = false;
        let mut bench = Bench::new(features.clone(), rate);
        bench.write_to(Register::pmevtyper(0), u64::from(filter) & 0xfc00_0000 | u64::from(EVENT));
        bench.write(Kind::Pmcr, 2, 1);
        bench.write(Kind::Pmcntenset, 2, 1);
        let bit = |n: u32| filter >> n & 1 != 0;
        let admits = [
            bit(30) == (features.el3 && bit(28)),
            bit(31) == (features.el3 && bit(29)),
            bit(27),
        ];
        for (el, cycles) in stays {
            bench.run_at(el);
            bench.pass(cycles);
        }
        bench.run_at(2);
        let happened = |level: usize| bench.world.occurred(level, 0, None);
        let expected: u64 = (0..3).filter(|&level| admits[level]).map(happened).sum();
        prop_assert_eq!(bench.cpu.counter(0), expected);
    }
}

impl Bench {
    fn write_register(&mut self, register: Register, el: u8, value: u64) {
        self.cpu.write(&self.world, register, el, value);
    }
}

#[test]
fn what_is_counted_does_not_depend_on_how_the_cycles_were_divided() {
    let rate = ONE / 7 + 12_345;
    let run = |pieces: &[u64]| {
        let mut bench = Bench::new(Features::default(), rate);
        bench.write_to(Register::pmevtyper(0), NSH | u64::from(EVENT));
        bench.write(Kind::Pmcr, 2, 1);
        bench.write(Kind::Pmcntenset, 2, 1);
        for &cycles in pieces {
            bench.pass(cycles);
        }
        bench.cpu.counter(0)
    };
    assert_eq!(run(&[1000]), run(&[1; 1000]));
    assert_eq!(run(&[1000]), run(&[333, 333, 334]));
}
