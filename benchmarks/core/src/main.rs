//! Times the core and prints one line per figure: name, nanoseconds.
//!
//! `benchmarks/core_speed.py` sets them beside their limits. All figures are measured in turn, many times, in
//! batches that are shorter than what disturbs a shared machine, and each is its best batch: a disturbance
//! only ever makes a batch slower, and a slower clock meets the floor as it meets what stands beside it.

use std::hint::black_box;
use std::time::Instant;

use pmu::burst::{Burst, Operation};
use pmu::feature::Features;
use pmu::machine::{Costs, Machine};
use pmu::reference::Reference;
use pmu::register::{Kind, Register};

const EVENT: u16 = 0x08;
/// About 0.7 occurrences per cycle.
const RATE: u64 = 0xb333_3333;
const NSH: u64 = 1 << 27;
/// Cycles of an advance.
const SPAN: u64 = 30_000;
const COSTS: Costs = Costs { mrs: 30, msr: 30, isb: 30 };
const ROUNDS: usize = 1_000;
/// A batch is at least so long, in nanoseconds.
const BATCH: f64 = 50_000.0;

/// A figure and how to take it once more.
struct Figure {
    name: String,
    batch: Box<dyn FnMut() -> f64>,
    best: f64,
}

/// Nanoseconds per repetition of `body`, divided by the `parts` of each.
fn figure(name: impl Into<String>, parts: u32, mut body: impl FnMut() + 'static) -> Figure {
    let mut once = move |repetitions: u32| {
        let start = Instant::now();
        (0..repetitions).for_each(|_| body());
        start.elapsed().as_secs_f64() * 1e9
    };
    let mut repetitions = 1;
    while once(repetitions) < BATCH {
        repetitions *= 2;
    }
    let batch = Box::new(move || once(repetitions) / f64::from(repetitions) / f64::from(parts));
    Figure { name: name.into(), batch, best: f64::INFINITY }
}

/// Takes all figures in turn, and prints the best of each.
fn measure(mut figures: Vec<Figure>) {
    for _ in 0..ROUNDS {
        for figure in &mut figures {
            figure.best = figure.best.min((figure.batch)());
        }
    }
    for figure in figures {
        println!("{} {:.3}", figure.name, figure.best);
    }
}

/// The floor: what no model that counts exactly can do without, per counter.
fn floor(counters: usize) -> Figure {
    let mut values = vec![0u64; counters];
    let rates: Vec<u64> = (0..counters as u64).map(|n| RATE + n).collect();
    figure(format!("floor {counters}"), 1, move || {
        let span = black_box(30_000u64);
        for (value, &rate) in values.iter_mut().zip(&rates) {
            *value = value.wrapping_add(((u128::from(rate) * u128::from(span)) >> 32) as u64);
        }
        black_box(&mut values);
    })
}

/// A host at EL2 with `counters` event counters, `enabled` of which count.
fn machine(counters: u8, enabled: u8) -> Machine {
    let features = Features { counters, ..Features::default() };
    let mut machine = Machine::new(vec![features], &[EVENT], COSTS).expect("a possible CPU");
    let profile = machine.add_profile(&[(EVENT, RATE)]).expect("a possible profile");
    let other = machine.add_context(false);
    machine.set_running(0, other, 2, profile).expect("they exist");
    let mut poke =
        |register: Register, value| machine.poke(0, register.encoding(), value).expect("it exists");
    for n in 0..counters {
        poke(Register::pmevtyper(n), NSH | u64::from(EVENT));
    }
    // 64-bit overflow, so that nothing overflows unless a benchmark wants it.
    poke(Register::of(Kind::Pmcr), 1 << 7 | 1);
    poke(Register::of(Kind::Pmcntenset), (1 << enabled) - 1);
    machine
}

/// An advance after which every counter is looked at, its value kept as the floor keeps its own.
fn advance(name: impl Into<String>, enabled: u8, span: u64) -> Figure {
    let mut machine = machine(31, enabled);
    let mut values = vec![0u64; usize::from(enabled)];
    figure(name, 1, move || {
        machine.run(0, black_box(span)).expect("there is one");
        machine.cpu(0).expect("there is one").read_counters(&mut values);
        black_box(&mut values);
    })
}

/// An advance that nobody looks at.
fn advance_unseen(enabled: u8) -> Figure {
    let mut machine = machine(31, enabled);
    figure(format!("advance-unseen {enabled}"), 1, move || {
        black_box(machine.run(0, black_box(SPAN)).expect("there is one"));
    })
}

/// A cycle of the reference.
fn reference(enabled: u8) -> Figure {
    let features = Features { counters: enabled, ..Features::default() };
    let mut cpu = Reference::new(features, vec![EVENT], vec![vec![RATE]], 1);
    cpu.set_running(0, 2, false, 0);
    for n in 0..enabled {
        cpu.access(Register::pmevtyper(n), 2, Some(NSH | u64::from(EVENT)));
    }
    cpu.access(Register::of(Kind::Pmcr), 2, Some(1 << 7 | 1));
    cpu.access(Register::of(Kind::Pmcntenset), 2, Some((1 << enabled) - 1));
    figure(format!("reference {enabled}"), 1, move || cpu.step())
}

/// The greatest rate that a profile can have, nearly: a 32-bit counter overflows every 131,000 cycles.
const FAST: u64 = (1 << 47) + 12_345;
const OVERFLOWS: u32 = 1_000;

/// `enabled` counters with 32-bit overflow, of which the first is fast and the others count cycles.
fn overflowing(enabled: u8) -> Machine {
    let mut machine = machine(31, enabled);
    let fast = machine.add_profile(&[(EVENT, FAST)]).expect("a possible profile");
    machine.set_running(0, 0, 2, fast).expect("they exist");
    let mut poke =
        |register: Register, value| machine.poke(0, register.encoding(), value).expect("it exists");
    for n in 1..enabled {
        poke(Register::pmevtyper(n), NSH | 0x11);
    }
    poke(Register::of(Kind::Pmcr), 1);
    machine
}

/// A run through `count` overflows of one of `enabled` counters, each a CHAIN event for the next, so that
/// none can be passed over.
fn overflows(name: impl Into<String>, parts: u32, enabled: u8, count: u32) -> Figure {
    let mut machine = overflowing(enabled);
    machine.poke(0, Register::pmevtyper(1).encoding(), NSH | 0x1e).expect("it exists");
    let span = ((u128::from(count) << 64) / u128::from(FAST)) as u64;
    for _ in 0..10 {
        machine.run(0, span).expect("there is one");
    }
    let chained = machine.peek(0, Register::pmevcntr(1).encoding()).expect("it exists");
    let all = 10 * u64::from(count);
    assert!((all - 1..=all).contains(&chained), "every overflow was counted: {chained}");
    figure(name, parts, move || {
        machine.run(0, black_box(span)).expect("there is one");
    })
}

/// Running up to an overflow interrupt and clearing its flag.
fn interrupt(enabled: u8) -> Figure {
    let mut machine = overflowing(enabled);
    let clear = Register::of(Kind::Pmovsclr).encoding();
    machine.poke(0, Register::of(Kind::Pmintenset).encoding(), 1).expect("it exists");
    figure(format!("interrupt {enabled}"), 1, move || {
        let done = machine.run(0, black_box(1 << 32)).expect("there is one");
        assert!(done < 1 << 32, "it overflows");
        machine.poke(0, clear, 1).expect("it exists");
    })
}

/// Entering and leaving a guest while `enabled` counters count both; per switch.
fn switch(enabled: u8) -> Figure {
    let mut machine = machine(31, enabled);
    let guest = machine.add_context(true);
    figure(format!("switch {enabled}"), 2, move || {
        machine.set_running(0, guest, 1, 0).expect("they exist");
        machine.run(0, black_box(1000)).expect("there is one");
        machine.set_running(0, 0, 2, 0).expect("they exist");
        machine.run(0, black_box(1000)).expect("there is one");
    })
}

fn batch(register: impl Fn(u64) -> (Operation, Register, u64)) -> Burst {
    let mut burst = Burst::default();
    for i in 0..64 {
        match register(i) {
            (Operation::Mrs, register, _) => {
                burst.post_read(Operation::Mrs, u32::from(register.encoding()));
            }
            (operation, register, value) => burst.post(operation, u32::from(register.encoding()), value),
        }
    }
    burst
}

/// The accesses of stopping and starting an event, as a driver makes them.
fn driver(i: u64) -> (Operation, Register, u64) {
    match i % 8 {
        0 => (Operation::Mrs, Register::of(Kind::Pmovsclr), 0),
        1 => (Operation::Msr, Register::of(Kind::Pmcntenclr), 2),
        2 => (Operation::Msr, Register::of(Kind::Pmintenclr), 2),
        3 => (Operation::Mrs, Register::pmevcntr(1), 0),
        4 => (Operation::Msr, Register::pmevcntr(1), i << 20),
        5 => (Operation::Msr, Register::pmevtyper(1), NSH | u64::from(EVENT)),
        6 => (Operation::Msr, Register::of(Kind::Pmintenset), 2),
        _ => (Operation::Msr, Register::of(Kind::Pmcntenset), 2),
    }
}

fn access(name: &str, register: impl Fn(u64) -> (Operation, Register, u64)) -> Figure {
    let mut machine = machine(6, 6);
    let mut burst = batch(register);
    figure(format!("access {name}"), 64, move || {
        black_box(machine.execute(0, &mut burst, 0, false).expect("something runs"));
    })
}

fn main() {
    let mut figures = vec![floor(1)];
    for counters in [6, 31] {
        figures.extend([
            floor(counters),
            advance(format!("advance {counters}"), counters as u8, SPAN),
            advance_unseen(counters as u8),
            overflows(format!("overflow {counters}"), OVERFLOWS, counters as u8, OVERFLOWS),
        ]);
    }
    figures.extend([2, 4, 6, 8, 10].map(|exponent| {
        let span = 10u64.pow(exponent);
        advance(format!("span {span}"), 6, span)
    }));
    for counters in [1, 2, 6, 16, 31] {
        figures.extend([interrupt(counters), advance(format!("enabled {counters}"), counters, SPAN)]);
    }
    figures.extend(
        [1, 10, 100, 1_000, 10_000].map(|count| overflows(format!("overflows {count}"), 1, 6, count)),
    );
    figures.extend([
        switch(6),
        access("read", |_| (Operation::Mrs, Register::pmevcntr(1), 0)),
        access("write", |i| (Operation::Msr, Register::pmevcntr(1), i)),
        access("driver", driver),
    ]);
    figures.extend([6, 31].map(reference));
    measure(figures);
}
