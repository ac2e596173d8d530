//! A CPU executes a burst.

use super::truth::posted;
use super::{Costs, Error, Machine, Traps, cause, on};
use crate::access::Outcome;
use crate::burst::{Burst, Op, Operation};
use crate::cpu::{Cpu, Running};
use crate::log::{Log, Record, code};
use crate::observer::{By, Observer, What};
use crate::register::Register;
use crate::tally::World;

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

/// Which interrupts a burst stops for, between two operations.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Interrupts {
    /// None.
    Masked,
    /// The PMU's, and timers by the deadline.
    Unmasked,
    /// The PMU's alone, as a pseudo-NMI.
    Nmi,
}

impl Interrupts {
    /// The one with this number.
    #[must_use]
    pub fn from_number(number: u8) -> Option<Self> {
        [Self::Masked, Self::Unmasked, Self::Nmi].get(usize::from(number)).copied()
    }

    #[inline]
    fn pending(self, on: &Cpu) -> bool {
        match self {
            Self::Masked => false,
            Self::Unmasked => on.pending_interrupt(),
            Self::Nmi => on.interrupt(),
        }
    }
}

impl From<bool> for Interrupts {
    /// All or none.
    fn from(unmasked: bool) -> Self {
        if unmasked { Self::Unmasked } else { Self::Masked }
    }
}

/// A CPU and what runs on it, as it executes accesses.
struct Executing<'a, O> {
    c: &'a mut Cpu,
    world: &'a mut World,
    log: &'a mut Log,
    traps: &'a mut Traps,
    costs: Costs,
    cpu: usize,
    running: Running,
    by: By,
    observer: &'a mut O,
}

/// An access that took an exception.
struct Taken {
    /// To this level.
    el: u8,
    esr: u64,
}

impl<O: Observer> Executing<'_, O> {
    /// One access: the value that it read or wrote.
    #[inline]
    fn access(&mut self, encoding: u16, write: bool, value: u64) -> Result<u64, Taken> {
        let Self { c, world, log, costs, cpu, running, by, observer, .. } = self;
        let register = Register::decode(encoding);
        let own = if running.el == 0 && running.guest { 1 } else { running.el.max(1) };
        let outcome =
            register.map_or(Outcome::Undefined(own), |register| c.decide(register, running.el, write));
        c.accesses += 1;
        let mut record = Record {
            cpu: *cpu as u16,
            el: running.el,
            code: u16::from(write),
            cycle: 0,
            subject: u64::from(encoding),
            value,
        };
        if write {
            c.charge(cause::MSR, costs.msr);
        } else {
            c.charge(cause::MRS, costs.mrs);
        }
        if let Outcome::Trapped(el) | Outcome::Undefined(el) = outcome {
            let esr = outcome.esr(encoding, write);
            record.code = if write { code::WRITE_EXCEPTION } else { code::READ_EXCEPTION };
            (record.cycle, record.value) = (c.now(), esr);
            log.push(record);
            observer.see(*by, What::Taken { register: encoding, write, value, to: el, esr }, c, world);
            return Err(Taken { el, esr });
        }
        if let (Outcome::Executed, Some(register)) = (outcome, register) {
            if write {
                c.write(world, register, running.el, value);
            } else {
                record.value = c.read(register, running.el);
            }
        }
        record.cycle = c.now();
        log.push(record);
        let what = if write {
            What::Wrote { register: encoding, value }
        } else {
            What::Read { register: encoding, value: record.value }
        };
        observer.see(*by, what, c, world);
        Ok(record.value)
    }
}

impl<O: Observer> Executing<'_, O> {
    /// An access of the program's, at EL0, between two operations of the software that runs it.
    fn user_access(&mut self, encoding: u16, write: bool, value: u64) -> Result<u64, Taken> {
        let software = self.running;
        let tally = software.tally - usize::from(software.el);
        let class = self.world.tallies[tally].class;
        self.run(Running { el: 0, tally, class, ..software });
        let done = self.access(encoding, write, value);
        self.run(software);
        done
    }

    fn run(&mut self, next: Running) {
        let profile = self.world.tallies[next.tally].profile;
        let last = Some(self.running);
        self.c.set_running(self.world, next, profile);
        self.running = next;
        self.observer.see(self.by, What::Runs { last }, self.c, self.world);
    }
}

impl<O: Observer> Machine<O> {
    fn executing(&mut self, cpu: usize, by: By) -> Result<Executing<'_, O>, Error> {
        let Self { cpus, world, log, costs, traps, observer, .. } = self;
        let c = on(cpus, cpu)?;
        let running = c.running().ok_or(Error::NothingRuns(cpu))?;
        Ok(Executing { c, world, log, traps, costs: *costs, cpu, running, by, observer })
    }

    /// One access of what runs: the value that it read or, if there is one to write, wrote; `None` if it took an
    /// exception.
    ///
    /// # Errors
    /// No such CPU, or nothing runs on it.
    pub fn access(&mut self, cpu: usize, encoding: u16, written: Option<u64>) -> Result<Option<u64>, Error> {
        Ok(self.executing(cpu, By::Kvm)?.access(encoding, written.is_some(), written.unwrap_or(0)).ok())
    }

    /// Executes operations from `start` on, until one needs KVM.
    ///
    /// An access takes its cost at its own exception level, and has its effect, or is taken as an exception, at the
    /// end of it. What a trap costs beyond that is the hypervisor's to charge.
    ///
    /// # Errors
    /// No such CPU, or nothing runs on it.
    pub fn execute(
        &mut self,
        cpu: usize,
        burst: &mut Burst,
        start: usize,
        interrupts: impl Into<Interrupts>,
    ) -> Result<Stop, Error> {
        self.execute_by(By::Kvm, cpu, burst, start, interrupts)
    }

    /// Likewise, `by` whom they are.
    ///
    /// # Errors
    /// As of [`Machine::execute`].
    pub fn execute_by(
        &mut self,
        by: By,
        cpu: usize,
        burst: &mut Burst,
        start: usize,
        interrupts: impl Into<Interrupts>,
    ) -> Result<Stop, Error> {
        let interrupts = interrupts.into();
        let mut on = self.executing(cpu, by)?;
        let Burst { ops, values } = burst;
        for (index, &op) in ops.iter().enumerate().skip(start) {
            if interrupts.pending(on.c) {
                return Ok(Stop::Interrupt { index });
            }
            let (write, value) = match op.operation {
                Operation::Mrs | Operation::UserMrs => (false, 0),
                Operation::Msr | Operation::UserMsr => (true, op.operand),
                Operation::WriteBack => {
                    let source = values.get(op.slot as usize).copied().unwrap_or(0);
                    (true, source & op.operand | op.bits)
                }
                Operation::Isb => {
                    on.c.charge(cause::ISB, on.costs.isb);
                    on.observer.see(on.by, What::Isb, on.c, on.world);
                    continue;
                }
                Operation::Charge => {
                    on.c.charge(op.subject as usize, op.operand);
                    continue;
                }
                Operation::Clock => {
                    set(values, op.slot, on.c.now());
                    continue;
                }
                Operation::Truth => {
                    set(values, op.slot, posted(on.world, on.c, on.running, op.subject));
                    continue;
                }
                Operation::Note => {
                    let note = What::Note { code: op.subject, a: op.operand, b: 0 };
                    on.observer.see(on.by, note, on.c, on.world);
                    continue;
                }
                Operation::Done if index + 1 == ops.len() => continue, // there is nothing for KVM to do
                _ => return Ok(Stop::Operation { index, op }),
            };
            let done = if op.operation.of_program() {
                on.user_access(op.subject as u16, write, value)
            } else {
                on.access(op.subject as u16, write, value)
            };
            match done {
                Ok(value) if !write => set(values, op.slot, value),
                Ok(_) => {}
                Err(Taken { el: 2, esr }) if on.running.guest => {
                    count(on.traps, on.running.context, op.subject as u16, write);
                    return Ok(Stop::Trap { index, esr, value });
                }
                Err(Taken { esr, .. }) => return Ok(Stop::Exception { index, esr }),
            }
        }
        Ok(Stop::End)
    }
}

/// Counts an access that trapped.
pub(super) fn count(traps: &mut Traps, context: usize, encoding: u16, write: bool) {
    let times = traps.entry((context, u32::from(encoding) << 1 | u32::from(write))).or_default();
    *times = times.saturating_add(1);
}

#[inline]
fn set(values: &mut [u64], slot: u32, value: u64) {
    if let Some(place) = values.get_mut(slot as usize) {
        *place = value;
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{EVENT, PMCR, machine, reading};
    use super::*;
    use crate::observer::Recorder;
    use crate::register::Kind;

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
    fn a_program_s_read_is_at_el0_and_the_software_goes_on_at_its_own_level() {
        let mut machine = machine().observed_by(Recorder::default());
        machine.set_running(0, 0, 1, 0).expect("they exist");
        let counter = u32::from(Register::pmevcntr(0).encoding());
        let userenr = Register::of(Kind::Pmuserenr).encoding();
        let mut burst = Burst::default();
        burst.post_read(Operation::UserMrs, counter);
        let stop = machine.execute(0, &mut burst, 0, false);
        assert!(matches!(stop, Ok(Stop::Exception { index: 0, .. })), "PMUSERENR_EL0 is 0");
        assert_eq!(machine.cpu(0).expect("it exists").running().map(|running| running.el), Some(1));
        machine.poke(0, userenr, 1).expect("it exists");
        burst.post_read(Operation::Mrs, counter);
        assert_eq!(machine.execute(0, &mut burst, 0, false), Ok(Stop::End));
        let seen: Vec<_> =
            machine.observer_mut().take().iter().map(|record| (record.el, record.cycle)).collect();
        assert_eq!(seen, [(0, 10), (0, 20), (1, 30)]);
        machine.poke(0, Register::of(Kind::MdcrEl2).encoding(), 6 | 1 << 6).expect("it exists");
        let stop = machine.execute(0, &mut burst, 0, false);
        assert!(matches!(stop, Ok(Stop::Trap { index: 0, value: 0, .. })), "TPM is of EL0, too");
        assert_eq!(machine.cpu(0).expect("it exists").running().map(|running| running.el), Some(1));
    }

    #[test]
    fn a_program_s_write_is_at_el0() {
        let mut machine = machine();
        machine.set_running(0, 0, 1, 0).expect("they exist");
        let cntenset = Register::of(Kind::Pmcntenset).encoding();
        let mut burst = Burst::default();
        burst.post(Operation::UserMsr, u32::from(cntenset), 1);
        let stop = machine.execute(0, &mut burst, 0, false);
        assert!(matches!(stop, Ok(Stop::Exception { index: 0, .. })), "PMUSERENR_EL0 is 0");
        assert_eq!(machine.peek(0, cntenset), Ok(0));
        machine.poke(0, Register::of(Kind::Pmuserenr).encoding(), 1).expect("it exists");
        assert_eq!(machine.execute(0, &mut burst, 0, false), Ok(Stop::End));
        assert_eq!(machine.peek(0, cntenset), Ok(1));
        machine.poke(0, Register::of(Kind::MdcrEl2).encoding(), 6 | 1 << 6).expect("it exists");
        let stop = machine.execute(0, &mut burst, 0, false);
        assert!(matches!(stop, Ok(Stop::Trap { index: 0, value: 1, .. })), "TPM is of EL0, too");
    }

    #[test]
    fn what_a_program_of_the_host_reads_is_on_no_account() {
        let mut machine = machine();
        machine.set_running(0, 1, 2, 0).expect("they exist");
        machine.poke(0, Register::of(Kind::Pmuserenr).encoding(), 1).expect("it exists");
        let mut burst = Burst::default();
        burst.post_read(Operation::UserMrs, u32::from(Register::pmevcntr(0).encoding()));
        assert_eq!(machine.execute(0, &mut burst, 0, false), Ok(Stop::End));
        let cpu = machine.cpu(0).expect("it exists");
        assert_eq!((cpu.now(), cpu.charged(1)[1], cpu.running().map(|running| running.el)), (10, 0, Some(2)));
    }

    #[test]
    fn a_trapped_access_takes_its_own_cost_before_the_trap_and_is_logged() {
        let mut machine = machine().observed_by(Recorder::default());
        machine.set_running(0, 0, 1, 0).expect("they exist");
        machine.poke(0, Register::of(Kind::MdcrEl2).encoding(), 6 | 1 << 6).expect("it exists");
        let esr = Outcome::Trapped(2).esr(PMCR.encoding(), false);
        let stop = machine.execute(0, &mut reading(PMCR), 0, true);
        assert_eq!(stop, Ok(Stop::Trap { index: 0, esr, value: 0 }));
        let records = machine.observer_mut().take();
        assert_eq!(records.len(), 1);
        assert_eq!((records[0].code, records[0].cycle, records[0].value), (code::READ_EXCEPTION, 10, esr));
        let cpu = machine.cpu(0).expect("it exists");
        assert_eq!((cpu.accesses, cpu.now()), (1, 10));
        assert_eq!(machine.truth(0, 1, EVENT), Ok(20), "its events are the guest's, at EL1");
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
    fn where_interrupts_are_masked_by_priority_a_burst_does_not_stop_for_a_timer() {
        let mut machine = machine();
        machine.set_running(0, 0, 1, 0).expect("they exist");
        machine.set_deadline(0, 0).expect("it exists");
        assert_eq!(machine.execute(0, &mut reading(PMCR), 0, Interrupts::Nmi), Ok(Stop::End));
        let stop = machine.execute(0, &mut reading(PMCR), 0, Interrupts::Unmasked);
        assert_eq!(stop, Ok(Stop::Interrupt { index: 0 }));
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
}
