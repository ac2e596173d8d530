//! Times the core and prints one line per figure: name, nanoseconds.
//!
//! `benchmarks/core_speed.py` sets them beside their limits. Every figure is the best of several runs:
//! what disturbs a run only ever makes it slower.

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
const COSTS: Costs = Costs { mrs: 30, msr: 30, isb: 30 };
const RUNS: usize = 15;

/// Nanoseconds per repetition, best of several runs.
fn time(repetitions: u32, mut body: impl FnMut()) -> f64 {
    let once = |body: &mut dyn FnMut()| {
        let start = Instant::now();
        (0..repetitions).for_each(|_| body());
        start.elapsed().as_secs_f64() * 1e9 / f64::from(repetitions)
    };
    (0..RUNS).map(|_| once(&mut body)).fold(f64::INFINITY, f64::min)
}

/// The floor: what no model that counts exactly can do without, per counter.
fn floor(counters: usize) -> f64 {
    let mut values = vec![0u64; counters];
    let rates: Vec<u64> = (0..counters as u64).map(|n| RATE + n).collect();
    time(200_000, || {
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

fn advance_and_look(machine: &mut Machine, counters: u8, span: u64) {
    machine.run(0, span).expect("there is one");
    let cpu = machine.cpu(0).expect("there is one");
    for n in 0..usize::from(counters) {
        black_box(cpu.counter(n));
    }
}

/// An advance after which every counter is looked at.
fn advance(enabled: u8, span: u64) -> f64 {
    let mut machine = machine(31, enabled);
    time(100_000, || advance_and_look(&mut machine, enabled, black_box(span)))
}

/// An advance that nobody looks at.
fn advance_unseen(enabled: u8, span: u64) -> f64 {
    let mut machine = machine(31, enabled);
    time(100_000, || {
        black_box(machine.run(0, black_box(span)).expect("there is one"));
    })
}

/// The reference, for a span.
fn reference(enabled: u8, span: u64) -> f64 {
    let features = Features { counters: enabled, ..Features::default() };
    let mut cpu = Reference::new(features, vec![EVENT], vec![vec![RATE]], 1);
    cpu.set_running(0, 2, false, 0);
    for n in 0..enabled {
        cpu.access(Register::pmevtyper(n), 2, Some(NSH | u64::from(EVENT)));
    }
    cpu.access(Register::of(Kind::Pmcr), 2, Some(1 << 7 | 1));
    cpu.access(Register::of(Kind::Pmcntenset), 2, Some((1 << enabled) - 1));
    let once = |cpu: &mut Reference| {
        let start = Instant::now();
        (0..span).for_each(|_| cpu.step());
        start.elapsed().as_secs_f64() * 1e9
    };
    (0..3).map(|_| once(&mut cpu)).fold(f64::INFINITY, f64::min)
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

/// A run that goes through so many overflows.
fn overflows(enabled: u8, count: u32) -> f64 {
    let mut machine = overflowing(enabled);
    machine.poke(0, Register::pmevtyper(1).encoding(), NSH | 0x1e).expect("it exists");
    let span = ((u128::from(count) << 64) / u128::from(FAST)) as u64;
    let repetitions = (50_000 / count).max(10);
    let per_run = time(repetitions, || {
        machine.run(0, black_box(span)).expect("there is one");
    });
    let chained = machine.peek(0, Register::pmevcntr(1).encoding()).expect("it exists");
    assert!(
        chained + 2 >= u64::from(repetitions) * u64::from(count),
        "every overflow was counted: {chained}"
    );
    per_run
}

/// Running through overflows of one of `enabled` counters, each a CHAIN event for the next, so that
/// none can be passed over; per overflow.
fn overflow(enabled: u8) -> f64 {
    let mut machine = overflowing(enabled);
    machine.poke(0, Register::pmevtyper(1).encoding(), NSH | 0x1e).expect("it exists");
    let span = ((u128::from(OVERFLOWS) << 64) / u128::from(FAST)) as u64;
    let per_run = time(50, || {
        machine.run(0, black_box(span)).expect("there is one");
    });
    let chained = machine.peek(0, Register::pmevcntr(1).encoding()).expect("it exists");
    assert!(
        enabled == 1 || chained + 1 >= 50 * u64::from(OVERFLOWS),
        "every overflow was counted: {chained}"
    );
    per_run / f64::from(OVERFLOWS)
}

/// The same with an interrupt each: running up to it, and clearing the flag.
fn interrupt(enabled: u8) -> f64 {
    let mut machine = overflowing(enabled);
    let clear = Register::of(Kind::Pmovsclr).encoding();
    machine.poke(0, Register::of(Kind::Pmintenset).encoding(), 1).expect("it exists");
    time(20_000, || {
        let done = machine.run(0, black_box(1 << 32)).expect("there is one");
        assert!(done < 1 << 32, "it overflows");
        machine.poke(0, clear, 1).expect("it exists");
    })
}

/// Entering and leaving a guest while `enabled` counters count both; per switch.
fn switch(enabled: u8) -> f64 {
    let mut machine = machine(31, enabled);
    let guest = machine.add_context(true);
    time(50_000, || {
        machine.set_running(0, guest, 1, 0).expect("they exist");
        machine.run(0, black_box(1000)).expect("there is one");
        machine.set_running(0, 0, 2, 0).expect("they exist");
        machine.run(0, black_box(1000)).expect("there is one");
    }) / 2.0
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

fn access(register: impl Fn(u64) -> (Operation, Register, u64)) -> f64 {
    let mut machine = machine(6, 6);
    let mut burst = batch(register);
    time(5_000, || {
        black_box(machine.execute(0, &mut burst, 0, false).expect("something runs"));
    }) / 64.0
}

fn main() {
    let figure = |name: &str, nanoseconds: f64| println!("{name} {nanoseconds:.3}");
    for counters in [1, 6, 31] {
        figure(&format!("floor {counters}"), floor(counters));
        figure(&format!("advance {counters}"), advance(counters as u8, 30_000));
        figure(&format!("advance-unseen {counters}"), advance_unseen(counters as u8, 30_000));
    }
    for exponent in [2, 4, 6, 8, 10] {
        let span = 10u64.pow(exponent);
        figure(&format!("span {span}"), advance(6, span));
    }
    figure("reference 6", reference(6, 30_000));
    figure("reference 31", reference(31, 30_000));
    for counters in [1, 2, 6, 16, 31] {
        if counters > 1 {
            figure(&format!("overflow {counters}"), overflow(counters));
        }
        figure(&format!("interrupt {counters}"), interrupt(counters));
        figure(&format!("enabled {counters}"), advance(counters, 30_000));
    }
    for count in [1, 10, 100, 1_000, 10_000] {
        figure(&format!("overflows {count}"), overflows(6, count));
    }
    figure("switch 6", switch(6));
    figure("access read", access(|_| (Operation::Mrs, Register::pmevcntr(1), 0)));
    figure("access write", access(|i| (Operation::Msr, Register::pmevcntr(1), i)));
    figure("access driver", access(driver));
}
