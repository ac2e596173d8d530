//! The machine: CPUs, the contexts that run on them, and the log.

mod error;
mod execute;
mod implemented;
mod truth;

pub use error::Error;
pub use execute::{Interrupts, Stop};

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::burst::{CAUSES, PROFILES};
use crate::cpu::{Cpu, Running, Whose};
use crate::feature::Features;
use crate::log::{Log, Record, code};
use crate::observer::{By, Observer, What};
use crate::register::Register;
use crate::registers::{CHAIN, CPU_CYCLES, SW_INCR};
use crate::tally::{Class, Events, ONE, RATE_LIMIT, World};

use implemented::Implemented;

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

#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
struct Context {
    guest: bool,
    /// First of its tallies, one per exception level; the host has them for each CPU.
    tallies: usize,
}

/// All CPUs, what runs on them, what really happened, and the log; and who observes it.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Machine<O = ()> {
    cpus: Vec<Cpu>,
    implemented: Implemented,
    world: World,
    contexts: Vec<Context>,
    costs: Costs,
    log: Log,
    traps: Traps,
    /// By context, its software's bursts.
    bursts: Vec<u64>,
    observer: O,
}

/// How often guests' accesses have trapped to EL2: by context, and encoding << 1 | is it a write.
type Traps = BTreeMap<(usize, u32), u64>;

const LEVELS: usize = 3;
/// Events that can be tallied.
const EVENTS: usize = 4096;

impl Machine {
    /// A machine at time 0 on which nothing runs.
    ///
    /// # Errors
    /// No CPU, more than 65,536 of them, more than 4,096 events, or a feature set that no CPU can have.
    pub fn new(cpus: Vec<Features>, events: &[u16], costs: Costs) -> Result<Self, Error> {
        if cpus.is_empty() || cpus.len() > 1 << 16 {
            return Err(Error::Cpus(cpus.len()));
        }
        let events = Events::new(events);
        if events.count() > EVENTS {
            return Err(Error::Events(events.count()));
        }
        let world = World::new(events, cpus.len());
        let mut cpus = cpus;
        for (id, features) in cpus.iter_mut().enumerate() {
            features.check().map_err(|error| Error::Features { cpu: id, error })?;
            features.pmceid0.get_or_insert(world.events.pmceid(0));
            features.pmceid1.get_or_insert(world.events.pmceid(1));
        }
        Ok(Self {
            implemented: Implemented::new(&cpus, &world.events),
            cpus: cpus.into_iter().enumerate().map(|(id, features)| Cpu::new(id, features)).collect(),
            world,
            contexts: Vec::new(),
            costs,
            log: Log::default(),
            traps: Traps::new(),
            bursts: Vec::new(),
            observer: (),
        })
    }

    /// The same machine, observed from now on.
    pub fn observed_by<O: Observer>(self, observer: O) -> Machine<O> {
        let Self { cpus, implemented, world, contexts, costs, log, traps, bursts, observer: () } = self;
        Machine { cpus, implemented, world, contexts, costs, log, traps, bursts, observer }
    }
}

impl<O: Observer> Machine<O> {
    /// Who observes it.
    pub fn observer(&self) -> &O {
        &self.observer
    }

    /// Likewise, to tell it something.
    pub fn observer_mut(&mut self) -> &mut O {
        &mut self.observer
    }

    /// Likewise, with the CPUs as they are.
    pub fn observed(&mut self) -> (&mut O, &[Cpu]) {
        (&mut self.observer, &self.cpus)
    }

    /// Somebody tells the observer something of `cpu`.
    ///
    /// # Errors
    /// No such CPU.
    pub fn note(&mut self, cpu: usize, code: u32, a: u64, b: u64) -> Result<(), Error> {
        self.see(cpu, What::Note { code, a, b })
    }

    /// The access that has trapped last on `cpu` is emulated; `value` is what a read finds.
    ///
    /// # Errors
    /// No such CPU.
    pub fn emulated(&mut self, cpu: usize, value: u64) -> Result<(), Error> {
        self.see(cpu, What::Emulated { value })
    }

    #[inline]
    fn see(&mut self, cpu: usize, what: What) -> Result<(), Error> {
        let Self { cpus, world, observer, .. } = self;
        observer.see(By::Kvm, what, on(cpus, cpu)?, world);
        Ok(())
    }

    /// Adds a profile of (event, occurrences per cycle in Q32.32); events that are not tallied are left out,
    /// and those that a CPU lacks (`PMCEID<n>_EL0`) never happen on it.
    ///
    /// # Errors
    /// A rate of 65,536 per cycle or above, a rate for `SW_INCR` or `CHAIN`, or one other than 1.0 for
    /// `CPU_CYCLES`.
    pub fn add_profile(&mut self, rates: &[(u16, u64)]) -> Result<usize, Error> {
        let mut by_event = vec![0; self.world.events.count()];
        for &(event, rate) in rates.iter().chain(&[(CPU_CYCLES, ONE)]) {
            if rate >= RATE_LIMIT {
                return Err(Error::RateTooHigh { event, rate });
            }
            if event == SW_INCR || event == CHAIN {
                return Err(Error::NoRate(event));
            }
            if event == CPU_CYCLES && rate != ONE {
                return Err(Error::CycleRate(rate));
            }
            if let Some(index) = self.world.events.index(event) {
                by_event[index] = rate;
            }
        }
        let profile = self.profiles();
        if profile == PROFILES {
            return Err(Error::Profiles);
        }
        for rates in self.implemented.rates(&by_event) {
            self.world.add_profile(rates);
        }
        Ok(profile)
    }

    fn profiles(&self) -> usize {
        self.world.profiles.len() / self.implemented.sets()
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
        self.bursts.push(0);
        self.contexts.len() - 1
    }

    /// All CPUs.
    #[must_use]
    pub fn cpus(&self) -> &[Cpu] {
        &self.cpus
    }

    /// What all CPUs share.
    #[must_use]
    pub fn world(&self) -> &World {
        &self.world
    }

    /// The CPU with this number.
    ///
    /// # Errors
    /// There is none.
    pub fn cpu(&self, cpu: usize) -> Result<&Cpu, Error> {
        self.cpus.get(cpu).ok_or(Error::NoCpu { cpu, cpus: self.cpus.len() })
    }

    /// The CPU with this number, for what concerns it alone.
    ///
    /// # Errors
    /// There is none.
    pub fn cpu_mut(&mut self, cpu: usize) -> Result<&mut Cpu, Error> {
        on(&mut self.cpus, cpu)
    }

    fn context(&self, context: usize) -> Result<Context, Error> {
        self.contexts.get(context).copied().ok_or(Error::NoContext { context, contexts: self.contexts.len() })
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
        if profile >= self.profiles() {
            return Err(Error::NoProfile { profile, profiles: self.profiles() });
        }
        if el > 2 || el == if guest { 2 } else { 1 } {
            return Err(Error::NoLevel { el, guest });
        }
        if cpu >= self.cpus.len() {
            return Err(Error::NoCpu { cpu, cpus: self.cpus.len() });
        }
        let first = if guest { tallies } else { tallies + cpu * LEVELS };
        if guest {
            let runs_there =
                |other: &Cpu| other.running().is_some_and(|r| (first..first + LEVELS).contains(&r.tally));
            if let Some(other) =
                (0..self.cpus.len()).find(|&other| other != cpu && runs_there(&self.cpus[other]))
            {
                return Err(Error::Runs { context, cpu: other });
            }
        }
        let tally = first + usize::from(el);
        let class = self.world.tallies[tally].class;
        let next = Running { context, tally, el, guest, class };
        let profile = self.implemented.profile(profile, cpu);
        let Self { cpus, world, observer, .. } = self;
        let c = on(cpus, cpu)?;
        let last = c.running();
        c.set_running(world, next, profile);
        observer.see(By::Kvm, What::Runs { last }, c, world);
        Ok(())
    }

    /// A guest exits to the host's kernel, for an interrupt: from here on `context`, which is the host's, runs at EL2, and
    /// the exit takes its time. Is there an interrupt to be served? The time is the guest's until
    /// [`Machine::guest_timing_exit`].
    ///
    /// # Errors
    /// As of [`Machine::set_running`] and [`Machine::charge`].
    pub fn exit_guest(
        &mut self,
        cpu: usize,
        context: usize,
        profile: usize,
        cause: usize,
        cycles: u64,
    ) -> Result<bool, Error> {
        self.set_running(cpu, context, 2, profile)?;
        self.charge(cpu, cause, cycles)?;
        Ok(self.cpu(cpu)?.pending_interrupt())
    }

    /// Likewise, by a trap: interrupts stay masked up to [`Machine::guest_timing_exit`], which is part of it. `cycles`
    /// are those before and after it.
    ///
    /// # Errors
    /// As of [`Machine::exit_guest`].
    pub fn trap_guest(
        &mut self,
        cpu: usize,
        context: usize,
        profile: usize,
        cause: usize,
        cycles: (u64, u64),
    ) -> Result<bool, Error> {
        self.set_running(cpu, context, 2, profile)?;
        self.cpu_mut(cpu)?.mask_cputime();
        self.charge(cpu, cause, cycles.0)?;
        self.guest_timing_exit(cpu, cause, cycles.1)?;
        Ok(self.cpu(cpu)?.pending_interrupt())
    }

    /// `guest_timing_exit_irqoff`: from here on the time is the host's kernel's, and up to where it masks interrupts to
    /// enter the guest again the exit takes `cycles` more, what it is for aside.
    ///
    /// # Errors
    /// As of [`Machine::charge`].
    pub fn guest_timing_exit(&mut self, cpu: usize, cause: usize, cycles: u64) -> Result<(), Error> {
        self.cpu_mut(cpu)?.set_cputime(Whose::HostKernel);
        self.see(cpu, What::Exited)?;
        self.charge(cpu, cause, cycles)
    }

    /// `guest_timing_enter_irqoff`: from here on the time is the guest's, `cycles` of it the entry's.
    ///
    /// # Errors
    /// As of [`Machine::charge`].
    pub fn guest_timing_enter(&mut self, cpu: usize, cause: usize, cycles: u64) -> Result<(), Error> {
        self.cpu_mut(cpu)?.set_cputime(Whose::Guest);
        self.charge(cpu, cause, cycles)
    }

    /// [`Machine::guest_timing_enter`], and the guest is entered at EL1; not if its timer is `due`.
    ///
    /// # Errors
    /// As of [`Machine::set_running`] and [`Machine::charge`].
    pub fn enter_guest(
        &mut self,
        cpu: usize,
        context: usize,
        profile: usize,
        cause: usize,
        cycles: u64,
        due: u64,
    ) -> Result<bool, Error> {
        if self.cpu(cpu)?.now() >= due {
            return Ok(false);
        }
        self.guest_timing_enter(cpu, cause, cycles)?;
        self.set_running(cpu, context, 1, profile)?;
        Ok(true)
    }

    /// The PMU interrupt is taken, if its line is high: the entry takes its time, and after that the host's cycles are
    /// charged to `account`. When the line rose, the time after the entry, and the account before.
    ///
    /// # Errors
    /// As of [`Machine::charge`] and [`Machine::set_account`].
    pub fn take_interrupt(
        &mut self,
        cpu: usize,
        cause: usize,
        cycles: u64,
        account: usize,
    ) -> Result<Option<(u64, u64, usize)>, Error> {
        let c = self.cpu(cpu)?;
        if !c.interrupt() {
            return Ok(None);
        }
        let raised = c.raised();
        self.charge(cpu, cause, cycles)?;
        let before = self.set_account(cpu, account)?;
        Ok(Some((raised, self.cpu(cpu)?.now(), before)))
    }

    /// Sets the time at which [`Machine::execute`] and [`Machine::run`] stop for a timer.
    ///
    /// # Errors
    /// No such CPU.
    pub fn set_deadline(&mut self, cpu: usize, deadline: u64) -> Result<(), Error> {
        self.cpu_mut(cpu)?.deadline = deadline;
        Ok(())
    }

    /// Computes up to `cycles`, less if the interrupt line rises or the deadline comes; returns the
    /// cycles done.
    ///
    /// # Errors
    /// No such CPU.
    pub fn run(&mut self, cpu: usize, cycles: u64) -> Result<u64, Error> {
        let c = self.cpu_mut(cpu)?;
        let before = c.now();
        let to = before.saturating_add(cycles).min(c.deadline).max(before);
        c.advance_to_interrupt(to);
        Ok(c.now() - before)
    }

    /// A context works up to `cycles`: [`Machine::set_running`] and [`Machine::run`]. The cycles done, the time, and
    /// whether an interrupt is pending.
    ///
    /// # Errors
    /// As of [`Machine::set_running`].
    pub fn work(
        &mut self,
        cpu: usize,
        context: usize,
        el: u8,
        profile: usize,
        cycles: u64,
    ) -> Result<(u64, u64, bool), Error> {
        self.set_running(cpu, context, el, profile)?;
        let done = self.run(cpu, cycles)?;
        let from = self.cpu(cpu)?.now() - done;
        self.see(cpu, What::Worked { from })?;
        let c = self.cpu(cpu)?;
        Ok((done, c.now(), c.pending_interrupt()))
    }

    /// The time at which `run` would stop, or earlier if a counter overflows before it without an interrupt.
    ///
    /// # Errors
    /// No such CPU.
    pub fn next_stop(&mut self, cpu: usize, cycles: u64) -> Result<u64, Error> {
        let c = self.cpu_mut(cpu)?;
        let to = c.now().saturating_add(cycles).min(c.deadline).max(c.now());
        Ok(c.next_stop(to))
    }

    /// Charges software time to a cause, interrupts notwithstanding.
    ///
    /// # Errors
    /// No such CPU, or a cause of [`CAUSES`] or above.
    pub fn charge(&mut self, cpu: usize, cause: usize, cycles: u64) -> Result<(), Error> {
        if cause >= CAUSES {
            return Err(Error::NoCause(cause));
        }
        self.cpu_mut(cpu)?.charge(cause, cycles);
        Ok(())
    }

    /// From now on the host's cycles on `cpu` are charged to `account`; the one before.
    ///
    /// # Errors
    /// No such CPU, or no such account of the host: 0 is the guests'.
    pub fn set_account(&mut self, cpu: usize, account: usize) -> Result<usize, Error> {
        self.cpu_mut(cpu)?.set_account(account).ok_or(Error::NoAccount(account))
    }

    /// As of [`Cpu::idle`].
    ///
    /// # Errors
    /// No such CPU.
    pub fn idle(&mut self, cpu: usize, until: u64) -> Result<(), Error> {
        let c = self.cpu_mut(cpu)?;
        let from = c.now();
        c.idle(until);
        self.see(cpu, What::Idled { from })
    }

    /// As of [`Cpu::warm_reset`].
    ///
    /// # Errors
    /// There is no such CPU.
    pub fn warm_reset(&mut self, cpu: usize) -> Result<(), Error> {
        on(&mut self.cpus, cpu)?.warm_reset(&self.world);
        self.see(cpu, What::Reset)
    }

    /// As of [`Cpu::idle_stop`].
    ///
    /// # Errors
    /// There is no such CPU.
    pub fn idle_stop(&mut self, cpu: usize, until: u64) -> Result<u64, Error> {
        Ok(self.cpu_mut(cpu)?.idle_stop(until))
    }

    /// An access of a guest that is not in a burst traps: it is counted with the others.
    ///
    /// # Errors
    /// No such context.
    pub fn trap(&mut self, context: usize, encoding: u16, write: bool) -> Result<(), Error> {
        self.context(context)?;
        execute::count(&mut self.traps, context, encoding, write);
        Ok(())
    }

    /// How often accesses of a context have trapped to EL2, by encoding << 1 | is it a write.
    pub fn traps(&self, context: usize) -> impl Iterator<Item = (u32, u64)> {
        self.traps.range((context, 0)..=(context, u32::MAX)).map(|(&(_, access), &times)| (access, times))
    }

    /// A burst of a context's software begins.
    ///
    /// # Errors
    /// No such context.
    pub fn begin_burst(&mut self, context: usize) -> Result<(), Error> {
        let contexts = self.contexts.len();
        *self.bursts.get_mut(context).ok_or(Error::NoContext { context, contexts })? += 1;
        Ok(())
    }

    /// How many bursts of a context's software have begun: round trips, were it in a process of its own.
    ///
    /// # Errors
    /// No such context.
    pub fn bursts(&self, context: usize) -> Result<u64, Error> {
        let contexts = self.contexts.len();
        self.bursts.get(context).copied().ok_or(Error::NoContext { context, contexts })
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
        let Self { cpus, world, .. } = self;
        on(cpus, cpu)?.write(world, register, 2, value);
        Ok(())
    }

    // The log.

    /// Something that happens in the simulation takes its place in the log; the time of it.
    ///
    /// # Errors
    /// No such CPU.
    pub fn mark(&mut self, cpu: usize, mark: u16, a: u64, b: u64) -> Result<u64, Error> {
        let c = self.cpu(cpu)?;
        let el = c.running().map_or(0, |running| running.el);
        let code = code::MARK.saturating_add(mark);
        let now = c.now();
        self.log.push(Record { cpu: cpu as u16, el, code, cycle: now, subject: a, value: b });
        self.see(cpu, What::Mark { code: mark, a, b })?;
        Ok(now)
    }

    /// Digest of all accesses and marks so far.
    #[must_use]
    pub fn digest(&self) -> u128 {
        self.log.digest()
    }
}

/// The CPU with this number, while the rest of the machine is needed beside it.
#[inline]
fn on(cpus: &mut [Cpu], cpu: usize) -> Result<&mut Cpu, Error> {
    let count = cpus.len();
    cpus.get_mut(cpu).ok_or(Error::NoCpu { cpu, cpus: count })
}

fn known(encoding: u16) -> Result<Register, Error> {
    Register::decode(encoding).ok_or(Error::NoRegister(encoding))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::burst::{ACCOUNTS, Burst, Operation};
    use crate::register::Kind;

    const COSTS: Costs = Costs { mrs: 10, msr: 20, isb: 5 };
    pub(super) const EVENT: u16 = 0x08;
    pub(super) const PMCR: Register = Register::of(Kind::Pmcr);

    /// Two CPUs, a guest (context 0) and the host (context 1); `EVENT` twice per cycle.
    pub(super) fn machine() -> Machine {
        let cpus = vec![Features::default(), Features::default()];
        let mut machine = Machine::new(cpus, &[EVENT], COSTS).expect("a possible machine");
        machine.add_profile(&[(EVENT, 2 * ONE)]).expect("a possible profile");
        machine.add_context(true);
        machine.add_context(false);
        machine
    }

    pub(super) fn reading(register: Register) -> Burst {
        let mut burst = Burst::default();
        burst.post_read(Operation::Mrs, u32::from(register.encoding()));
        burst
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
    fn an_event_that_a_cpu_lacks_does_not_happen_there_whoever_counts_it() {
        let lacking = Features { pmceid0: Some(1 << 0x11), ..Features::default() };
        let mut machine =
            Machine::new(vec![Features::default(), lacking], &[EVENT], COSTS).expect("possible");
        assert_eq!(machine.add_profile(&[(EVENT, 2 * ONE)]), Ok(0));
        assert_eq!(machine.add_profile(&[(EVENT, 3 * ONE)]), Ok(1));
        machine.add_context(true);
        machine.add_context(false);
        for (cpu, profile) in [(0, 0), (1, 0), (1, 1), (0, 1)] {
            machine.set_running(cpu, 0, 1, profile).expect("they exist");
            machine.run(cpu, 10).expect("it exists");
            machine.set_running(cpu, 1, 2, profile).expect("they exist");
        }
        assert_eq!(machine.truth(0, 1, EVENT), Ok(2 * 10 + 3 * 10), "on the first CPU alone");
        assert_eq!(machine.truth(0, 1, CPU_CYCLES), Ok(40), "cycles are counted by all");
        assert_eq!(machine.set_running(0, 0, 1, 2), Err(Error::NoProfile { profile: 2, profiles: 2 }));
    }

    #[test]
    fn a_call_that_makes_no_sense_is_refused() {
        let mut machine = machine();
        assert_eq!(machine.execute(0, &mut Burst::default(), 0, false), Err(Error::NothingRuns(0)));
        assert_eq!(machine.set_running(2, 0, 1, 0), Err(Error::NoCpu { cpu: 2, cpus: 2 }));
        assert_eq!(machine.set_running(0, 2, 1, 0), Err(Error::NoContext { context: 2, contexts: 2 }));
        assert_eq!(machine.set_running(0, 0, 2, 0), Err(Error::NoLevel { el: 2, guest: true }));
        assert_eq!(machine.set_running(0, 1, 1, 0), Err(Error::NoLevel { el: 1, guest: false }));
        assert_eq!(machine.set_running(0, 0, 1, 1), Err(Error::NoProfile { profile: 1, profiles: 1 }));
        assert_eq!(machine.peek(0, 0), Err(Error::NoRegister(0)));
        assert_eq!(machine.charge(0, CAUSES, 1), Err(Error::NoCause(CAUSES)));
        for account in [0, ACCOUNTS] {
            assert_eq!(machine.set_account(0, account), Err(Error::NoAccount(account)));
        }
        let too_high = Error::RateTooHigh { event: EVENT, rate: RATE_LIMIT };
        assert_eq!(machine.add_profile(&[(EVENT, RATE_LIMIT)]), Err(too_high));
        assert_eq!(machine.add_profile(&[(SW_INCR, ONE)]), Err(Error::NoRate(SW_INCR)));
        assert_eq!(machine.add_profile(&[(CPU_CYCLES, 2 * ONE)]), Err(Error::CycleRate(2 * ONE)));
        assert_eq!(Machine::new(Vec::new(), &[], COSTS).map(|_| ()), Err(Error::Cpus(0)));
        let impossible = Features { counters: 32, ..Features::default() };
        let refused = Machine::new(vec![Features::default(), impossible], &[], COSTS).unwrap_err();
        assert_eq!(refused.to_string(), "CPU 1: counters = 32: 0 to 31");
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
