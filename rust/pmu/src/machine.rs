//! The machine: CPUs, the contexts that run on them, and the log.

use serde::{Deserialize, Serialize};

use crate::access::Outcome;
use crate::burst::{Burst, Op, Operation, PROFILES};
use crate::cpu::{Cpu, Running};
use crate::feature::Features;
use crate::log::{Log, Record, code};
use crate::register::Register;
use crate::registers::{CHAIN, CPU_CYCLES, SW_INCR};
use crate::tally::{Class, Events, ONE, Profile, RATE_LIMIT, World};

/// Causes that the core itself charges (`services.costs.Cost`).
pub mod cause {
    /// Register reads.
    pub const MRS: usize = 1;
    /// Register writes.
    pub const MSR: usize = 2;
    /// Context synchronisation.
    pub const ISB: usize = 3;
}

/// Cycles that the core charges by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Costs {
    /// A register read.
    pub mrs: u64,
    /// A register write.
    pub msr: u64,
    /// An `ISB`.
    pub isb: u64,
}

/// Why [`Machine::execute`] stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stop {
    /// All operations are executed.
    End,
    /// The access at `index` trapped to EL2 and was not executed.
    Trap {
        /// Operation.
        index: usize,
        /// `ESR_EL2`
        esr: u64,
        /// The value being written, 0 for a read.
        value: u64,
    },
    /// The access at `index` took an exception to its own level.
    Exception {
        /// Operation.
        index: usize,
        /// `ESR_ELx`
        esr: u64,
    },
    /// The operation at `index` is for KVM to perform.
    Operation {
        /// Operation.
        index: usize,
        /// What it is.
        op: Op,
    },
    /// Before the operation at `index` an interrupt is pending or the deadline is reached.
    Interrupt {
        /// Operation.
        index: usize,
    },
}

/// A call that makes no sense.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Error(pub String);

impl std::fmt::Display for Error {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Error {}

#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
struct Context {
    guest: bool,
    /// First of its tallies, one per exception level; the host has them for each CPU.
    tallies: usize,
}

/// All CPUs, what runs on them, what really happened, and the log.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Machine {
    cpus: Vec<Cpu>,
    world: World,
    contexts: Vec<Context>,
    costs: Costs,
    log: Log,
}

const LEVELS: usize = 3;

impl Machine {
    /// A machine at time 0 on which nothing runs.
    ///
    /// # Errors
    /// No CPU, more than 65,536 of them, or a feature set that no CPU can have.
    pub fn new(cpus: Vec<Features>, events: &[u16], costs: Costs) -> Result<Self, Error> {
        if cpus.is_empty() || cpus.len() > 1 << 16 {
            return Err(Error(format!("{} CPUs: 1 to 65536", cpus.len())));
        }
        let events = Events::new(events);
        let world = World::new(events, cpus.len());
        let mut made = Vec::with_capacity(cpus.len());
        for (id, mut features) in cpus.into_iter().enumerate() {
            features.check().map_err(|error| Error(format!("CPU {id}: {error}")))?;
            features.pmceid0.get_or_insert(world.events.pmceid(0));
            features.pmceid1.get_or_insert(world.events.pmceid(1));
            made.push(Cpu::new(id, features));
        }
        Ok(Self { cpus: made, world, contexts: Vec::new(), costs, log: Log::default() })
    }

    /// Adds a profile of (event, occurrences per cycle in Q32.32); events that are not tallied are left out.
    ///
    /// # Errors
    /// A rate of 65,536 per cycle or above, a rate for `SW_INCR` or `CHAIN`, or one other than 1.0 for
    /// `CPU_CYCLES`.
    pub fn add_profile(&mut self, rates: &[(u16, u64)]) -> Result<usize, Error> {
        let mut profile = Profile { rates: vec![0; self.world.events.count()] };
        for &(event, rate) in rates.iter().chain(&[(CPU_CYCLES, ONE)]) {
            if rate >= RATE_LIMIT {
                return Err(Error(format!("event {event:#x}: rate {rate} is 65536 per cycle or above")));
            }
            if event == SW_INCR || event == CHAIN {
                return Err(Error(format!("event {event:#x} happens by itself, it has no rate")));
            }
            if event == CPU_CYCLES && rate != ONE {
                return Err(Error(format!(
                    "event {event:#x} (CPU_CYCLES) happens once per cycle, not {rate}/2^32 times"
                )));
            }
            if let Some(index) = self.world.events.index(event) {
                profile.rates[index] = rate;
            }
        }
        if self.world.profiles.len() == PROFILES {
            return Err(Error(format!("more than {PROFILES} profiles")));
        }
        self.world.profiles.push(profile);
        Ok(self.world.profiles.len() - 1)
    }

    /// Adds a context: a guest's vCPU, or the host, which may run on several CPUs at a time.
    pub fn add_context(&mut self, guest: bool) -> usize {
        let tallies = self.world.tallies.len();
        let classes = if guest {
            [Class::GuestEl0, Class::GuestEl1, Class::GuestEl1]
        } else {
            [Class::HostEl0, Class::HostEl2, Class::HostEl2]
        };
        for _ in 0..if guest { 1 } else { self.cpus.len() } {
            for class in classes {
                self.world.add_tally(class);
            }
        }
        self.contexts.push(Context { guest, tallies });
        self.contexts.len() - 1
    }

    /// The CPU with this number.
    ///
    /// # Errors
    /// There is none.
    pub fn cpu(&self, cpu: usize) -> Result<&Cpu, Error> {
        self.cpus.get(cpu).ok_or_else(|| no_cpu(cpu))
    }

    fn cpu_mut(&mut self, cpu: usize) -> Result<&mut Cpu, Error> {
        self.cpus.get_mut(cpu).ok_or_else(|| no_cpu(cpu))
    }

    fn context(&self, context: usize) -> Result<Context, Error> {
        self.contexts.get(context).copied().ok_or_else(|| Error(format!("no context {context}")))
    }

    // Running.

    /// Switches a CPU to a context at an exception level, under a profile. HCR_EL2.{E2H,TGE} is
    /// {1,1} for the host, {1,0} for a guest.
    ///
    /// # Errors
    /// No such CPU, context or profile, a level that the context does not have, or a guest's
    /// context that runs on another CPU.
    pub fn set_running(&mut self, cpu: usize, context: usize, el: u8, profile: usize) -> Result<(), Error> {
        let Context { guest, tallies } = self.context(context)?;
        if profile >= self.world.profiles.len() {
            return Err(Error(format!("no profile {profile}")));
        }
        if el > 2 || el == if guest { 2 } else { 1 } {
            let levels = if guest { "EL0 and EL1" } else { "EL0 and EL2" };
            return Err(Error(format!("EL{el}: a {} has {levels}", if guest { "guest" } else { "host" })));
        }
        if cpu >= self.cpus.len() {
            return Err(no_cpu(cpu));
        }
        let first = if guest { tallies } else { tallies + cpu * LEVELS };
        if guest {
            let runs_there =
                |other: &Cpu| other.running().is_some_and(|r| (first..first + LEVELS).contains(&r.tally));
            if let Some(other) =
                (0..self.cpus.len()).find(|&other| other != cpu && runs_there(&self.cpus[other]))
            {
                return Err(Error(format!("context {context} still runs on CPU {other}")));
            }
        }
        let tally = first + usize::from(el);
        let class = self.world.tallies[tally].class;
        self.cpus[cpu].set_running(&mut self.world, Running { tally, el, guest, class }, profile);
        Ok(())
    }

    /// Sets the time at which [`Machine::execute`] and [`Machine::run`] stop for a timer.
    ///
    /// # Errors
    /// No such CPU.
    pub fn set_deadline(&mut self, cpu: usize, deadline: u64) -> Result<(), Error> {
        self.cpu_mut(cpu)?.deadline = deadline;
        Ok(())
    }

    /// Executes operations from `start` on, until one needs KVM.
    ///
    /// An access takes its cost, and has its effect at the end of it. A trapped access takes no
    /// time: the trap's cost is the hypervisor's to charge.
    ///
    /// # Errors
    /// No such CPU, or nothing runs on it.
    pub fn execute(
        &mut self,
        cpu: usize,
        burst: &mut Burst,
        start: usize,
        interruptible: bool,
    ) -> Result<Stop, Error> {
        let Self { cpus, world, log, costs, .. } = self;
        let c = cpus.get_mut(cpu).ok_or_else(|| no_cpu(cpu))?;
        let running = c.running().ok_or_else(|| Error(format!("nothing runs on CPU {cpu}")))?;
        let Burst { ops, values } = burst;
        for (index, &op) in ops.iter().enumerate().skip(start) {
            if interruptible && (c.interrupt() || c.now >= c.deadline) {
                return Ok(Stop::Interrupt { index });
            }
            let (write, value) = match op.operation {
                Operation::Mrs => (false, 0),
                Operation::Msr => (true, op.operand),
                Operation::WriteBack => {
                    let source = values.get(op.slot as usize).copied().unwrap_or(0);
                    (true, source & op.operand | op.bits)
                }
                Operation::Isb => {
                    c.charge(cause::ISB, costs.isb);
                    continue;
                }
                Operation::Charge => {
                    c.charge(op.subject as usize, op.operand);
                    continue;
                }
                Operation::Clock => {
                    set(values, op.slot, c.now);
                    continue;
                }
                Operation::Truth => {
                    set(values, op.slot, truth(world, c, cpu, running, op.subject));
                    continue;
                }
                _ => return Ok(Stop::Operation { index, op }),
            };
            let encoding = op.subject as u16;
            let register = Register::decode(encoding);
            let own = if running.el == 0 && running.guest { 1 } else { running.el.max(1) };
            let outcome =
                register.map_or(Outcome::Undefined(own), |register| c.decide(register, running.el, write));
            c.accesses += 1;
            let mut record = Record {
                cpu: cpu as u16,
                el: running.el,
                code: u16::from(write),
                cycle: c.now,
                subject: u64::from(encoding),
                value,
            };
            if let Outcome::Trapped(el) | Outcome::Undefined(el) = outcome {
                let esr = outcome.esr(encoding, write);
                record.code = if write { code::WRITE_EXCEPTION } else { code::READ_EXCEPTION };
                record.value = esr;
                log.push(record);
                return Ok(if el == 2 && running.guest {
                    Stop::Trap { index, esr, value }
                } else {
                    Stop::Exception { index, esr }
                });
            }
            if write {
                c.charge(cause::MSR, costs.msr);
            } else {
                c.charge(cause::MRS, costs.mrs);
            }
            if let (Outcome::Executed, Some(register)) = (outcome, register) {
                if write {
                    c.write(world, register, running.el, value);
                } else {
                    record.value = c.read(register, running.el);
                }
            }
            if !write {
                set(values, op.slot, record.value);
            }
            record.cycle = c.now;
            log.push(record);
        }
        Ok(Stop::End)
    }

    /// Computes up to `cycles`, less if the interrupt line rises or the deadline comes; returns the
    /// cycles done.
    ///
    /// # Errors
    /// No such CPU.
    pub fn run(&mut self, cpu: usize, cycles: u64) -> Result<u64, Error> {
        let c = self.cpu_mut(cpu)?;
        let before = c.now;
        let to = before.saturating_add(cycles).min(c.deadline).max(before);
        c.advance_to_interrupt(to);
        Ok(c.now - before)
    }

    /// The time at which `run` would stop, or earlier if a counter overflows before it without an interrupt.
    ///
    /// # Errors
    /// No such CPU.
    pub fn next_stop(&mut self, cpu: usize, cycles: u64) -> Result<u64, Error> {
        let c = self.cpu_mut(cpu)?;
        let to = c.now.saturating_add(cycles).min(c.deadline).max(c.now);
        Ok(c.next_stop(to))
    }

    /// Charges software time to a cause, interrupts notwithstanding.
    ///
    /// # Errors
    /// No such CPU.
    pub fn charge(&mut self, cpu: usize, cause: usize, cycles: u64) -> Result<(), Error> {
        self.cpu_mut(cpu)?.charge(cause, cycles);
        Ok(())
    }

    /// From now on the host's cycles on `cpu` are charged to `account`; the one before.
    ///
    /// # Errors
    /// No such CPU.
    pub fn set_account(&mut self, cpu: usize, account: usize) -> Result<usize, Error> {
        Ok(self.cpu_mut(cpu)?.set_account(account))
    }

    /// Passes time up to `until` in which nothing happens.
    ///
    /// # Errors
    /// No such CPU.
    pub fn idle(&mut self, cpu: usize, until: u64) -> Result<(), Error> {
        self.cpu_mut(cpu)?.idle(until);
        Ok(())
    }

    // Registers as the simulation itself sees them.

    /// Reads a register as EL2 sees it: no time, no trap, no log.
    ///
    /// # Errors
    /// No such CPU or register.
    pub fn peek(&self, cpu: usize, encoding: u16) -> Result<u64, Error> {
        Ok(self.cpu(cpu)?.read(known(encoding)?, 2))
    }

    /// Writes a register as EL2 does: no time, no trap, no log.
    ///
    /// # Errors
    /// No such CPU or register.
    pub fn poke(&mut self, cpu: usize, encoding: u16, value: u64) -> Result<(), Error> {
        let register = known(encoding)?;
        let c = self.cpus.get_mut(cpu).ok_or_else(|| no_cpu(cpu))?;
        c.write(&self.world, register, 2, value);
        Ok(())
    }

    // Truth.

    /// Occurrences of an event in a context at an exception level, wherever it ran.
    ///
    /// # Errors
    /// No such context or level, or the event is not tallied.
    pub fn truth(&self, context: usize, el: u8, event: u16) -> Result<u64, Error> {
        let Context { guest, tallies } = self.context(context)?;
        if el > 2 {
            return Err(Error(format!("no EL{el}")));
        }
        let index = self.event(event)?;
        let copies = if guest { 1 } else { self.cpus.len() };
        let tally = |copy: usize| tallies + copy * LEVELS + usize::from(el);
        Ok((0..copies).map(|copy| self.occurred(tally(copy), index)).fold(0, u64::wrapping_add))
    }

    fn occurred(&self, tally: usize, index: usize) -> u64 {
        let runs = self.cpus.iter().find(|cpu| cpu.running().is_some_and(|r| r.tally == tally));
        let pending = runs.map_or(self.world.tallies[tally].pending, Cpu::pending);
        self.world.tallies[tally].occurrences(&self.world.profiles, index, pending)
    }

    /// Occurrences of an event on a CPU, in the classes of `scope` (bit `1 << class`).
    ///
    /// # Errors
    /// No such CPU, or the event is not tallied.
    pub fn cpu_truth(&self, cpu: usize, scope: u32, event: u16) -> Result<u64, Error> {
        let c = self.cpu(cpu)?;
        let index = self.event(event)?;
        Ok(self.world.on_cpu(cpu, scope, index, c.running().map(|r| (r.tally, c.pending()))))
    }

    fn event(&self, event: u16) -> Result<usize, Error> {
        self.world.events.index(event).ok_or_else(|| Error(format!("event {event:#x} is not tallied")))
    }

    /// Cycles passed on a CPU by class, and idle.
    ///
    /// # Errors
    /// No such CPU.
    pub fn cycles(&mut self, cpu: usize) -> Result<([u64; 4], u64), Error> {
        Ok(self.cpu_mut(cpu)?.cycles())
    }

    // The log.

    /// Something that happens in the simulation takes its place in the log.
    ///
    /// # Errors
    /// No such CPU.
    pub fn mark(&mut self, cpu: usize, mark: u16, a: u64, b: u64) -> Result<(), Error> {
        let c = self.cpu(cpu)?;
        let el = c.running().map_or(0, |running| running.el);
        let code = code::MARK.saturating_add(mark);
        let record = Record { cpu: cpu as u16, el, code, cycle: c.now, subject: a, value: b };
        self.log.push(record);
        Ok(())
    }

    /// Digest of all accesses and marks so far.
    #[must_use]
    pub fn digest(&self) -> u128 {
        self.log.digest()
    }

    /// Whether records are kept for [`Machine::take_observed`].
    pub fn observe(&mut self, on: bool) {
        self.log.observe(on);
    }

    /// The records since the last call.
    pub fn take_observed(&mut self) -> Vec<Record> {
        self.log.take_observed()
    }
}

fn no_cpu(cpu: usize) -> Error {
    Error(format!("no CPU {cpu}"))
}

fn known(encoding: u16) -> Result<Register, Error> {
    Register::decode(encoding).ok_or_else(|| Error(format!("no register {encoding:#x}")))
}

#[inline]
fn set(values: &mut [u64], slot: u32, value: u64) {
    if let Some(place) = values.get_mut(slot as usize) {
        *place = value;
    }
}

/// What TRUTH yields: a guest sees its own vCPU, the host all that ran on its CPU. An event that is
/// not tallied never happens.
fn truth(world: &World, c: &Cpu, cpu: usize, running: Running, subject: u32) -> u64 {
    let Some(index) = world.events.index(subject as u16) else { return 0 };
    let scope = subject >> 16;
    if !running.guest {
        return world.on_cpu(cpu, scope, index, Some((running.tally, c.pending())));
    }
    let first = running.tally - usize::from(running.el);
    let mut sum = 0u64;
    for (el, class) in [Class::GuestEl0, Class::GuestEl1].into_iter().enumerate() {
        if scope >> class as u32 & 1 != 0 {
            let tally = &world.tallies[first + el];
            let pending = if first + el == running.tally { c.pending() } else { tally.pending };
            sum = sum.wrapping_add(tally.occurrences(&world.profiles, index, pending));
        }
    }
    sum
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::register::Kind;

    const COSTS: Costs = Costs { mrs: 10, msr: 20, isb: 5 };
    const EVENT: u16 = 0x08;
    const PMCR: Register = Register::of(Kind::Pmcr);

    /// Two CPUs, a guest (context 0) and the host (context 1); `EVENT` twice per cycle.
    fn machine() -> Machine {
        let cpus = vec![Features::default(), Features::default()];
        let mut machine = Machine::new(cpus, &[EVENT], COSTS).expect("a possible machine");
        machine.add_profile(&[(EVENT, 2 * ONE)]).expect("a possible profile");
        machine.add_context(true);
        machine.add_context(false);
        machine
    }

    fn reading(register: Register) -> Burst {
        let mut burst = Burst::default();
        burst.post_read(Operation::Mrs, u32::from(register.encoding()));
        burst
    }

    #[test]
    fn an_access_takes_its_cost_and_then_has_its_effect() {
        let mut machine = machine();
        machine.set_running(0, 1, 2, 0).expect("they exist");
        let nsh = 1 << 27 | u64::from(EVENT);
        machine.poke(0, Register::pmevtyper(0).encoding(), nsh).expect("it exists");
        machine.poke(0, PMCR.encoding(), 1).expect("it exists");
        let mut burst = Burst::default();
        let cntenset = u32::from(Register::of(Kind::Pmcntenset).encoding());
        burst.post(Operation::Msr, cntenset, 1);
        burst.post_read(Operation::Mrs, u32::from(Register::pmevcntr(0).encoding()));
        burst.post(Operation::Isb, 0, 0);
        burst.post_read(Operation::Clock, 0);
        assert_eq!(machine.execute(0, &mut burst, 0, false), Ok(Stop::End));
        assert_eq!(burst.values, [20, 35]);
        assert_eq!(machine.cpu(0).expect("it exists").charged(1)[1..4], [10, 20, 5]);
    }

    #[test]
    fn a_trapped_access_takes_no_time_and_is_logged() {
        let mut machine = machine();
        machine.set_running(0, 0, 1, 0).expect("they exist");
        machine.poke(0, Register::of(Kind::MdcrEl2).encoding(), 6 | 1 << 6).expect("it exists");
        machine.observe(true);
        let esr = Outcome::Trapped(2).esr(PMCR.encoding(), false);
        let stop = machine.execute(0, &mut reading(PMCR), 0, true);
        assert_eq!(stop, Ok(Stop::Trap { index: 0, esr, value: 0 }));
        let records = machine.take_observed();
        assert_eq!(records.len(), 1);
        assert_eq!((records[0].code, records[0].cycle, records[0].value), (code::READ_EXCEPTION, 0, esr));
        assert_eq!(machine.cpu(0).expect("it exists").accesses, 1);
    }

    #[test]
    fn an_exception_to_the_own_level_is_not_a_trap() {
        let mut machine = machine();
        let mut burst = reading(Register::of(Kind::MdcrEl2));
        machine.set_running(0, 0, 1, 0).expect("they exist");
        let undefined = Ok(Stop::Exception { index: 0, esr: 1 << 25 });
        assert_eq!(machine.execute(0, &mut burst, 0, true), undefined);
        machine.set_running(0, 1, 2, 0).expect("they exist");
        assert_eq!(machine.execute(0, &mut burst, 0, true), Ok(Stop::End));
        let mut unknown = Burst::default();
        unknown.post(Operation::Msr, 0xffff, 0);
        assert_eq!(machine.execute(0, &mut unknown, 0, true), undefined);
    }

    #[test]
    fn an_interruptible_burst_stops_before_the_operation_that_finds_the_deadline_reached() {
        let mut machine = machine();
        machine.set_running(0, 0, 1, 0).expect("they exist");
        machine.set_deadline(0, 15).expect("it exists");
        let mut burst = reading(PMCR);
        burst.extend(&reading(PMCR));
        burst.extend(&reading(PMCR));
        assert_eq!(machine.execute(0, &mut burst, 0, true), Ok(Stop::Interrupt { index: 2 }));
        assert_eq!(machine.execute(0, &mut burst, 2, false), Ok(Stop::End));
        assert_eq!(machine.run(0, 100), Ok(0));
    }

    #[test]
    fn what_is_kvm_s_to_do_stops_a_burst() {
        let mut machine = machine();
        machine.set_running(0, 0, 1, 0).expect("they exist");
        let mut burst = Burst::default();
        burst.post(Operation::Timer, 1, 77);
        let op = burst.ops[0];
        assert_eq!(machine.execute(0, &mut burst, 0, true), Ok(Stop::Operation { index: 0, op }));
    }

    #[test]
    fn truth_is_a_guest_s_own_and_the_host_s_of_its_cpu() {
        let mut machine = machine();
        let truth = |machine: &mut Machine, cpu, scope: u32| {
            let mut burst = Burst::default();
            burst.post_read(Operation::Truth, scope << 16 | u32::from(EVENT));
            assert_eq!(machine.execute(cpu, &mut burst, 0, false), Ok(Stop::End));
            burst.values[0]
        };
        for (cpu, el, cycles) in [(0, 1, 10), (0, 0, 5), (1, 1, 7)] {
            machine.set_running(cpu, 0, el, 0).expect("they exist");
            machine.run(cpu, cycles).expect("it exists");
            if cpu == 1 {
                assert_eq!(truth(&mut machine, 1, 0b11), 2 * 22);
                assert_eq!(truth(&mut machine, 1, 0b10), 2 * 17);
                assert_eq!(truth(&mut machine, 1, 0b1100), 0);
            }
            machine.set_running(cpu, 1, 2, 0).expect("they exist");
            machine.run(cpu, 1).expect("it exists");
        }
        assert_eq!(truth(&mut machine, 0, 0b0011), 2 * 15);
        assert_eq!(truth(&mut machine, 1, 0b0011), 2 * 7);
        assert_eq!(truth(&mut machine, 0, 0b1000), 2 * 2);
        assert_eq!(machine.truth(0, 1, EVENT), Ok(2 * 17));
        assert_eq!(machine.cpu_truth(1, 0b1111, EVENT), Ok(2 * 8));
        assert_eq!(machine.cycles(0), Ok(([5, 10, 0, 2], 0)));
    }

    #[test]
    fn a_guest_runs_on_one_cpu_at_a_time_and_the_host_on_all() {
        let mut machine = machine();
        machine.set_running(0, 0, 1, 0).expect("they exist");
        assert!(machine.set_running(1, 0, 0, 0).is_err());
        machine.set_running(0, 1, 2, 0).expect("they exist");
        machine.set_running(1, 1, 0, 0).expect("they exist");
    }

    #[test]
    fn a_call_that_makes_no_sense_is_refused() {
        let mut machine = machine();
        assert!(machine.execute(0, &mut Burst::default(), 0, false).is_err(), "nothing runs");
        assert!(machine.set_running(2, 0, 1, 0).is_err());
        assert!(machine.set_running(0, 2, 1, 0).is_err());
        assert!(machine.set_running(0, 0, 2, 0).is_err());
        assert!(machine.set_running(0, 1, 1, 0).is_err());
        assert!(machine.set_running(0, 0, 1, 1).is_err());
        assert!(machine.peek(0, 0).is_err());
        assert!(machine.add_profile(&[(EVENT, RATE_LIMIT)]).is_err());
        assert!(machine.add_profile(&[(SW_INCR, ONE)]).is_err());
        assert!(machine.add_profile(&[(CPU_CYCLES, 2 * ONE)]).is_err());
        assert!(machine.truth(0, 1, 0x99).is_err());
        assert!(Machine::new(Vec::new(), &[], COSTS).is_err());
    }

    #[test]
    fn the_digest_holds_accesses_and_marks_in_order() {
        let digest = |marks: [u64; 2]| {
            let mut machine = machine();
            machine.set_running(0, 1, 2, 0).expect("they exist");
            machine.execute(0, &mut reading(PMCR), 0, false).expect("it runs");
            for mark in marks {
                machine.mark(0, 3, mark, 0).expect("it exists");
            }
            machine.digest()
        };
        assert_eq!(digest([1, 2]), digest([1, 2]));
        assert_ne!(digest([1, 2]), digest([2, 1]));
    }
}
