//! A CPU executes a burst.

use super::{Error, Machine, Stop, cause, no_cpu};
use crate::access::Outcome;
use crate::burst::{Burst, Operation};
use crate::cpu::{Cpu, Running};
use crate::log::{Record, code};
use crate::register::Register;
use crate::tally::{Class, World};

impl Machine {
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
    use crate::feature::Features;
    use crate::machine::Costs;
    use crate::register::Kind;
    use crate::tally::ONE;

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
}
