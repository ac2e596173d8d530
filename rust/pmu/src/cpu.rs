//! One CPU: its PMU's registers, its clock, and the counters in time.
//!
//! Nothing is stepped. A counter that counts has a *source*: a rate and a phase, so that by `p` cycles
//! under the running tally's profile its event has happened ⌊(phase + rate·p) / 2^32⌋ times. Its
//! value is brought up to date (`sync`) only when somebody looks or something changes. When it
//! overflows next is remembered in `due`: first as a lower bound that costs a shift, and exactly
//! once time comes near.

use serde::{Deserialize, Serialize};
use serde_big_array::BigArray;

use crate::access::{Access, Outcome, decide};
use crate::burst::CAUSES;
use crate::feature::Features;
use crate::field::{hcr_el2, pmcr};
use crate::register::{EVENT_COUNTERS, Kind, REGISTERS, Register};
use crate::registers::{CHAIN, COUNTERS, CPU_CYCLES, CYCLE, INSTRUCTION, Registers, SW_INCR};
use crate::tally::{CLASSES, Class, FRACTION, ONE, World};

/// No overflow to come, no deadline.
pub const NEVER: u64 = u64::MAX;

/// What one counter counts, in time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Counter {
    /// `PMEVCNTR<n>_EL0`, `PMCCNTR_EL0`, `PMICNTR_EL0` when last brought up to date.
    value: u64,
    /// Occurrences of the source at that time.
    mark: u64,
    /// Occurrences per cycle, Q32.32.
    rate: u64,
    /// Fraction of an occurrence when `pending` was 0.
    phase: u64,
    /// No overflow that matters comes before this time; exact if its bit in `Cpu::exact` is set.
    due: u64,
}

impl Counter {
    /// Occurrences after `pending` cycles, modulo 2^64, and the fraction of the next.
    #[inline]
    fn occurrences(&self, pending: u64) -> (u64, u64) {
        let sum = u128::from(self.rate) * u128::from(pending) + u128::from(self.phase);
        ((sum >> 32) as u64, sum as u64 & FRACTION)
    }

    #[inline]
    fn sync(&mut self, pending: u64, mask: u64) {
        let (occurrences, _) = self.occurrences(pending);
        self.value = self.value.wrapping_add(occurrences.wrapping_sub(self.mark)) & mask;
        self.mark = occurrences;
    }
}

/// A decision about an access that holds until a control changes.
#[derive(Clone, Copy, Debug)]
struct Decision {
    generation: u32,
    outcome: Outcome,
    rule: u8,
}

const NO_RULE: u8 = u8::MAX;
const DECISIONS: usize = 2 * 3 * 2 * REGISTERS;
const UNDECIDED: Decision = Decision { generation: 0, outcome: Outcome::Executed, rule: NO_RULE };

/// What runs on a CPU.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Running {
    /// Its tally.
    pub tally: usize,
    /// Exception level.
    pub el: u8,
    /// It is a guest's.
    pub guest: bool,
    /// Its class.
    pub class: Class,
}

/// One CPU.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Cpu {
    /// Number of the CPU.
    id: usize,
    registers: Registers,
    #[serde(with = "BigArray")]
    counters: [Counter; COUNTERS],
    /// Time in cycles.
    pub now: u64,
    /// Time at which `execute` and `run` stop for a timer.
    pub deadline: u64,
    running: Option<Running>,
    /// `now` when the running tally's pending cycles were 0 (modulo 2^64).
    origin: u64,
    /// Counters that the rules let count now.
    counting: u64,
    /// Of those, the ones that have a source.
    live: u64,
    exact: u64,
    /// Nothing that matters happens before this time.
    next_due: u64,
    interrupt: bool,
    class_cycles: [u64; CLASSES],
    idle_cycles: u64,
    /// Up to when `class_cycles` are accounted.
    accounted: u64,
    #[serde(with = "BigArray")]
    charged: [u64; CAUSES],
    /// Register accesses executed or trapped.
    pub accesses: u64,
    /// Fraction of 64 cycles that the divided cycle counter has seen.
    divider: u64,
    generation: u32,
    #[serde(skip, default = "undecided")]
    decisions: Box<[Decision]>,
}

fn undecided() -> Box<[Decision]> {
    vec![UNDECIDED; DECISIONS].into_boxed_slice()
}

fn bits(mask: u64) -> impl Iterator<Item = usize> {
    let mut rest = mask;
    std::iter::from_fn(move || {
        let n = rest.trailing_zeros() as usize;
        rest &= rest.wrapping_sub(1);
        (n < 64).then_some(n)
    })
}

impl Cpu {
    /// A CPU after a reset, at time 0.
    #[must_use]
    pub fn new(id: usize, features: Features) -> Self {
        Self {
            id,
            registers: Registers::new(features),
            counters: [Counter { due: NEVER, ..Counter::default() }; COUNTERS],
            now: 0,
            deadline: NEVER,
            running: None,
            origin: 0,
            counting: 0,
            live: 0,
            exact: 0,
            next_due: NEVER,
            interrupt: false,
            class_cycles: [0; CLASSES],
            idle_cycles: 0,
            accounted: 0,
            charged: [0; CAUSES],
            accesses: 0,
            divider: 0,
            generation: 1,
            decisions: undecided(),
        }
    }

    /// The registers.
    #[must_use]
    pub fn registers(&self) -> &Registers {
        &self.registers
    }

    /// What runs.
    #[inline]
    #[must_use]
    pub fn running(&self) -> Option<Running> {
        self.running
    }

    /// Level of the interrupt line.
    #[inline]
    #[must_use]
    pub fn interrupt(&self) -> bool {
        self.interrupt
    }

    /// Cycles under the running tally's profile.
    #[inline]
    #[must_use]
    pub fn pending(&self) -> u64 {
        self.now.wrapping_sub(self.origin)
    }

    // Time.

    /// Passes time up to `to`.
    #[inline]
    pub fn advance(&mut self, to: u64) {
        if to < self.next_due {
            self.now = to;
        } else {
            self.advance_through_overflows(to, false);
        }
    }

    /// Passes time up to `to`, or to the first cycle at which the interrupt line is high.
    #[inline]
    pub fn advance_to_interrupt(&mut self, to: u64) {
        if self.interrupt {
            return;
        }
        if to < self.next_due {
            self.now = to;
        } else {
            self.advance_through_overflows(to, true);
        }
    }

    fn advance_through_overflows(&mut self, to: u64, stop: bool) {
        loop {
            let mut next = NEVER;
            for n in bits(self.live) {
                if self.counters[n].due <= to && self.exact >> n & 1 == 0 {
                    self.find_overflow(n);
                }
                next = next.min(self.counters[n].due);
            }
            self.next_due = next;
            if next > to || next == NEVER {
                self.now = to;
                return;
            }
            self.now = next;
            self.overflow_now();
            if stop && self.interrupt {
                return;
            }
        }
    }

    /// Passes time up to `until` in which nothing happens.
    pub fn idle(&mut self, until: u64) {
        self.account();
        let passed = until.saturating_sub(self.now);
        self.now = self.now.saturating_add(passed);
        self.origin = self.origin.wrapping_add(passed);
        self.accounted = self.now;
        self.idle_cycles = self.idle_cycles.wrapping_add(passed);
        self.next_due = self.next_due.saturating_add(passed);
        for counter in &mut self.counters {
            counter.due = counter.due.saturating_add(passed);
        }
    }

    /// Charges software time to a cause.
    #[inline]
    pub fn charge(&mut self, cause: usize, cycles: u64) {
        self.advance(self.now.saturating_add(cycles));
        if let Some(sum) = self.charged.get_mut(cause) {
            *sum = sum.wrapping_add(cycles);
        }
    }

    /// Cycles charged by cause.
    #[must_use]
    pub fn charged(&self) -> &[u64] {
        &self.charged
    }

    fn account(&mut self) {
        if let Some(running) = self.running {
            let sum = &mut self.class_cycles[running.class as usize];
            *sum = sum.wrapping_add(self.now.wrapping_sub(self.accounted));
        }
        self.accounted = self.now;
    }

    /// Cycles passed by class, and idle.
    pub fn cycles(&mut self) -> ([u64; CLASSES], u64) {
        self.account();
        (self.class_cycles, self.idle_cycles)
    }

    /// Switches to another tally, exception level and profile.
    pub fn set_running(&mut self, world: &mut World, next: Running, profile: usize) {
        self.account();
        self.stop_all();
        if let Some(last) = self.running {
            world.tallies[last.tally].pending = self.pending();
        }
        world.begin(next.tally, self.id, profile);
        self.origin = self.now.wrapping_sub(world.tallies[next.tally].pending);
        self.running = Some(next);
        let hcr = self.registers.controls.hcr_el2 & !(hcr_el2::TGE | hcr_el2::E2H);
        let tge = if next.guest { 0 } else { hcr_el2::TGE };
        // The decisions are kept by TGE; E2H does not change.
        self.registers.write_hcr_el2(hcr | tge | hcr_el2::E2H);
        self.refresh(world);
    }

    // Counters.

    fn stop_all(&mut self) {
        for n in bits(self.live) {
            self.stop(n);
        }
        self.counting = 0;
        self.next_due = NEVER;
    }

    fn stop(&mut self, n: usize) {
        self.sync(n);
        if n == CYCLE {
            self.divider = self.counters[n].occurrences(self.pending()).1;
        }
        self.counters[n].due = NEVER;
        self.live &= !(1 << n);
    }

    #[inline]
    fn sync(&mut self, n: usize) {
        let mask = self.registers.counter_mask(n);
        let pending = self.pending();
        self.counters[n].sync(pending, mask);
    }

    /// Brings what counts, and the interrupt line, in line with the registers.
    fn refresh(&mut self, world: &World) {
        let Some(running) = self.running else {
            self.interrupt = self.registers.interrupt();
            return;
        };
        let counting = self.registers.counting(running.el);
        for n in bits(self.live & !counting) {
            self.stop(n);
        }
        let fresh = counting & !self.counting;
        self.counting = counting;
        for n in bits(fresh) {
            self.start(world, running.tally, n);
        }
        self.interrupt = self.registers.interrupt();
    }

    fn start(&mut self, world: &World, tally: usize, n: usize) {
        let pending = self.pending();
        let event = self.registers.event(n);
        let (rate, phase) = if n == CYCLE && self.registers.divided() {
            // The divider goes on where it stopped, whatever ran in between.
            let rate = ONE / 64;
            (rate, self.divider.wrapping_sub(rate.wrapping_mul(pending)) & FRACTION)
        } else if event == CPU_CYCLES {
            (ONE, 0)
        } else {
            let Some(index) = world.events.index(event) else { return };
            let tally = &world.tallies[tally];
            (world.profiles[tally.profile].rates[index], tally.totals[index] as u64 & FRACTION)
        };
        if rate == 0 || event == SW_INCR || event == CHAIN {
            return;
        }
        let counter = &mut self.counters[n];
        counter.rate = rate;
        counter.phase = phase;
        counter.mark = counter.occurrences(pending).0;
        self.live |= 1 << n;
        self.watch(n);
    }

    /// Finds a lower bound for the next overflow of `n`, which is up to date.
    fn watch(&mut self, n: usize) {
        self.exact &= !(1 << n);
        let flagged = self.registers.pmovs >> n & 1 != 0;
        if flagged && !self.registers.chains(n) {
            // It would change nothing.
            self.counters[n].due = NEVER;
            return;
        }
        let distance = self.distance(n);
        let counter = &mut self.counters[n];
        // At most rate/2^32 + 1 occurrences in a cycle, so at most 2^shift.
        let shift = u64::BITS - (counter.rate >> 32).leading_zeros();
        let cycles = (distance >> shift).min(u128::from(u64::MAX)) as u64;
        counter.due = self.now.saturating_add(cycles);
        self.next_due = self.next_due.min(counter.due);
    }

    fn watch_all(&mut self) {
        for n in bits(self.live) {
            self.sync(n);
            self.watch(n);
        }
    }

    /// Occurrences up to and including the next overflow of `n`, which is up to date.
    fn distance(&self, n: usize) -> u128 {
        let value = self.counters[n].value;
        if self.registers.long() >> n & 1 != 0 {
            (1 << 64) - u128::from(value)
        } else {
            (1 << 32) - u128::from(value as u32)
        }
    }

    /// Finds the exact time of the next overflow of `n`.
    fn find_overflow(&mut self, n: usize) {
        self.sync(n);
        let distance = self.distance(n);
        let pending = self.pending();
        let counter = &mut self.counters[n];
        let (_, fraction) = counter.occurrences(pending);
        // The first cycle by which fraction + rate * cycles >= distance * 2^32.
        let cycles = if let Ok(short) = u32::try_from(distance) {
            u128::from(((u64::from(short) << 32) - fraction).div_ceil(counter.rate))
        } else {
            ((distance << 32) - u128::from(fraction)).div_ceil(u128::from(counter.rate))
        };
        counter.due = u64::try_from(cycles).map_or(NEVER, |cycles| self.now.saturating_add(cycles));
        self.exact |= 1 << n;
    }

    /// Performs the overflows of this cycle, in the order of the counters.
    fn overflow_now(&mut self) {
        for n in bits(self.live) {
            // An overflow of a lower counter may have frozen this one before it counted.
            if self.live >> n & 1 != 0 && self.exact >> n & 1 != 0 && self.counters[n].due == self.now {
                self.sync(n);
                self.overflow(n);
                self.watch(n);
            }
        }
        self.interrupt = self.registers.interrupt();
    }

    /// What an overflow of `n` does: its flag, freezing, and CHAIN for the odd counter above.
    fn overflow(&mut self, n: usize) {
        self.registers.pmovs |= 1 << n;
        if self.registers.freezes() {
            self.freeze(n);
        }
        if self.registers.chains(n) && self.counting >> (n + 1) & 1 != 0 {
            self.increment(n + 1);
        }
    }

    /// Stops what is frozen. Counters are processed in order within a cycle, so those above the
    /// one that overflowed no longer count in this cycle.
    fn freeze(&mut self, overflowed: usize) {
        let Some(running) = self.running else { return };
        let counting = self.registers.counting(running.el);
        let frozen = self.live & !counting;
        for n in bits(frozen) {
            let mask = self.registers.counter_mask(n);
            let late = u64::from(n > overflowed);
            let pending = self.pending().wrapping_sub(late);
            let counter = &mut self.counters[n];
            let (occurrences, _) = counter.occurrences(pending);
            // What is up to date already has no cycle to lose.
            if occurrences.wrapping_sub(counter.mark) as i64 > 0 {
                counter.sync(pending, mask);
            }
            if n == CYCLE {
                self.divider = counter.occurrences(pending).1;
            }
            counter.due = NEVER;
        }
        self.live &= !frozen;
        self.counting = counting;
    }

    /// One event for `n` at this instant: `SW_INCR` or `CHAIN`.
    fn increment(&mut self, n: usize) {
        let width = if self.registers.long() >> n & 1 != 0 { u64::MAX } else { u64::from(u32::MAX) };
        let before = self.counters[n].value;
        self.counters[n].value = before.wrapping_add(1) & self.registers.counter_mask(n);
        if before & width == width {
            self.overflow(n);
        }
    }

    /// The value of counter `n`.
    #[inline]
    #[must_use]
    pub fn counter(&self, n: usize) -> u64 {
        let mut counter = self.counters[n];
        if self.live >> n & 1 != 0 {
            counter.sync(self.pending(), self.registers.counter_mask(n));
        }
        counter.value
    }

    fn write_counter(&mut self, n: usize, value: u64) {
        let live = self.live >> n & 1 != 0;
        if live {
            self.sync(n);
        }
        self.counters[n].value = value & self.registers.counter_mask(n);
        if live {
            self.watch(n);
        }
    }

    // Registers.

    /// Decides an access of what runs.
    #[inline]
    pub fn decide(&mut self, register: Register, el: u8, write: bool) -> Outcome {
        let tge = usize::from(self.registers.controls.hcr_el2 & hcr_el2::TGE != 0);
        let at = ((tge * 3 + usize::from(el.min(2))) * 2 + usize::from(write)) * REGISTERS + register.id();
        let known = self.decisions[at];
        if known.generation == self.generation {
            return known.outcome;
        }
        self.decide_anew(register, el, write, at)
    }

    fn decide_anew(&mut self, register: Register, el: u8, write: bool, at: usize) -> Outcome {
        let registers = &self.registers;
        let accessible = registers.accessible(1);
        let access = Access::new(register, el, write, &registers.controls, &registers.features, accessible);
        let (outcome, rule) = decide(&access);
        let rule = rule.map_or(NO_RULE, |rule| rule as u8);
        self.decisions[at] = Decision { generation: self.generation, outcome, rule };
        outcome
    }

    fn controls_changed(&mut self) {
        self.generation = self.generation.wrapping_add(1);
        if self.generation == 0 {
            self.generation = 1;
            self.decisions.fill(UNDECIDED);
        }
    }

    /// What a read at an exception level yields.
    #[must_use]
    pub fn read(&self, register: Register, el: u8) -> u64 {
        let registers = &self.registers;
        let controls = &registers.controls;
        let sel = usize::from(controls.sel);
        let selectable = controls.sel < EVENT_COUNTERS;
        match register.kind() {
            Kind::Pmcr => registers.read_pmcr(el),
            Kind::Pmcntenset | Kind::Pmcntenclr => registers.pmcnten & registers.visible(el),
            Kind::Pmovsset | Kind::Pmovsclr => registers.pmovs & registers.visible(el),
            Kind::Pmintenset | Kind::Pmintenclr => registers.pminten & registers.visible(el),
            Kind::Pmselr => u64::from(controls.sel),
            Kind::Pmceid0 => registers.features.pmceid0.unwrap_or(0),
            Kind::Pmceid1 => registers.features.pmceid1.unwrap_or(0),
            Kind::Pmccntr => self.counter(CYCLE),
            Kind::Pmicntr => self.counter(INSTRUCTION),
            Kind::Pmevcntr => self.counter(usize::from(register.index())),
            Kind::Pmxevcntr if selectable => self.counter(sel),
            Kind::Pmevtyper => registers.filter[usize::from(register.index())],
            // SEL = 31 is PMCCFILTR_EL0, and its place in the array is 31.
            Kind::Pmxevtyper => registers.filter[sel],
            Kind::Pmccfiltr => registers.filter[CYCLE],
            Kind::Pmicfiltr => registers.filter[INSTRUCTION],
            Kind::Pmuserenr => controls.pmuserenr,
            Kind::Pmuacr => registers.pmuacr,
            Kind::Pmecr => registers.pmecr,
            Kind::Pmmir => registers.features.pmmir,
            Kind::MdcrEl2 => controls.mdcr_el2,
            Kind::HcrEl2 => controls.hcr_el2,
            Kind::Hdfgrtr => controls.hdfgrtr,
            Kind::Hdfgwtr => controls.hdfgwtr,
            Kind::Hdfgrtr2 => controls.hdfgrtr2,
            Kind::Hdfgwtr2 => controls.hdfgwtr2,
            Kind::MdcrEl3 => controls.mdcr_el3,
            Kind::IdAa64dfr0 => registers.id_aa64dfr0(),
            Kind::IdAa64dfr1 => registers.id_aa64dfr1(),
            Kind::Pmxevcntr | Kind::Pmswinc | Kind::Pmzr | Kind::IccSgi1r => 0,
        }
    }

    /// What a write at an exception level does.
    pub fn write(&mut self, world: &World, register: Register, el: u8, value: u64) {
        let visible = self.registers.visible(el);
        let sel = usize::from(self.registers.controls.sel);
        match register.kind() {
            Kind::Pmcr => self.write_pmcr(world, el, value),
            Kind::Pmcntenset => {
                self.registers.pmcnten |= value & visible;
                self.refresh(world);
            }
            Kind::Pmcntenclr => {
                self.registers.pmcnten &= !(value & visible);
                self.refresh(world);
            }
            Kind::Pmovsset => {
                self.registers.pmovs |= value & visible;
                self.refresh(world);
            }
            Kind::Pmovsclr => self.clear_overflows(world, value & visible),
            Kind::Pmintenset => {
                self.registers.pminten |= value & visible;
                self.interrupt = self.registers.interrupt();
            }
            Kind::Pmintenclr => {
                self.registers.pminten &= !(value & visible);
                self.interrupt = self.registers.interrupt();
            }
            Kind::Pmselr => {
                self.registers.controls.sel = (value & 31) as u8;
                self.controls_changed();
            }
            Kind::Pmccntr => self.write_counter(CYCLE, value),
            Kind::Pmicntr => self.write_counter(INSTRUCTION, value),
            Kind::Pmevcntr => self.write_counter(usize::from(register.index()), value),
            Kind::Pmxevcntr if sel < CYCLE => self.write_counter(sel, value),
            Kind::Pmevtyper => self.write_filter(world, usize::from(register.index()), value),
            Kind::Pmxevtyper => self.write_filter(world, sel, value),
            Kind::Pmccfiltr => self.write_filter(world, CYCLE, value),
            Kind::Pmicfiltr => self.write_filter(world, INSTRUCTION, value),
            Kind::Pmswinc => self.software_increment(value & visible),
            Kind::Pmzr => {
                for n in bits(value & visible) {
                    self.write_counter(n, 0);
                }
            }
            Kind::Pmuacr => self.registers.pmuacr = value & self.registers.implemented(),
            Kind::Pmecr => self.registers.pmecr = value,
            _ => self.write_control(world, register.kind(), value),
        }
    }

    fn write_control(&mut self, world: &World, kind: Kind, value: u64) {
        let registers = &mut self.registers;
        match kind {
            Kind::Pmuserenr => registers.write_pmuserenr(value),
            Kind::MdcrEl2 => {
                let long = registers.long();
                registers.write_mdcr_el2(value);
                self.widths_changed(long);
                self.refresh(world);
            }
            Kind::HcrEl2 => registers.write_hcr_el2(value),
            Kind::Hdfgrtr => registers.write_hdfgrtr(value),
            Kind::Hdfgwtr => registers.write_hdfgwtr(value),
            Kind::Hdfgrtr2 => registers.write_hdfgrtr2(value),
            Kind::Hdfgwtr2 => registers.write_hdfgwtr2(value),
            Kind::MdcrEl3 => registers.controls.mdcr_el3 = value,
            _ => return,
        }
        self.controls_changed();
    }

    fn widths_changed(&mut self, before: u64) {
        if self.registers.long() != before {
            self.watch_all();
        }
    }

    fn write_pmcr(&mut self, world: &World, el: u8, value: u64) {
        if value & pmcr::P != 0 {
            for n in 0..usize::from(self.registers.accessible(el)) {
                self.write_counter(n, 0);
            }
        }
        if value & pmcr::C != 0 {
            self.write_counter(CYCLE, 0);
        }
        let long = self.registers.long();
        let divided = self.registers.divided();
        self.registers.write_pmcr(value);
        if self.registers.divided() != divided {
            self.restart(CYCLE);
        }
        self.widths_changed(long);
        self.refresh(world);
    }

    /// Has `refresh` start counter `n` anew, with another source.
    fn restart(&mut self, n: usize) {
        if self.live >> n & 1 != 0 {
            self.stop(n);
        }
        self.counting &= !(1 << n);
    }

    fn clear_overflows(&mut self, world: &World, mask: u64) {
        let cleared = self.registers.pmovs & mask;
        self.registers.pmovs &= !mask;
        for n in bits(cleared & self.live) {
            self.sync(n);
            self.watch(n);
        }
        self.refresh(world);
    }

    fn write_filter(&mut self, world: &World, n: usize, value: u64) {
        self.restart(n);
        self.registers.write_filter(n, value);
        // Whether the even counter below chains depends on this event.
        if n % 2 == 1 && n < CYCLE && self.live >> (n - 1) & 1 != 0 {
            self.sync(n - 1);
            self.watch(n - 1);
        }
        self.refresh(world);
    }

    fn software_increment(&mut self, mask: u64) {
        let mask = mask & ((1 << EVENT_COUNTERS) - 1);
        for n in bits(mask) {
            if self.counting >> n & 1 != 0 && self.registers.event(n) == SW_INCR {
                self.increment(n);
            }
        }
        self.interrupt = self.registers.interrupt();
    }
}
