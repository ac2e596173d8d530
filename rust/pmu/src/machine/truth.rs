//! Truth: what really happened, whatever the counters say.

use super::{Context, Error, LEVELS, Machine};
use crate::cpu::{Cpu, Running};
use crate::observer::Observer;
use crate::tally::{Class, World};

impl<O: Observer> Machine<O> {
    /// Occurrences of an event in a context at an exception level, wherever it ran.
    ///
    /// # Errors
    /// No such context or level, or the event is not tallied.
    pub fn truth(&self, context: usize, el: u8, event: u16) -> Result<u64, Error> {
        let Context { guest, tallies } = self.context(context)?;
        if el > 2 {
            return Err(Error::NoLevel { el, guest });
        }
        let index = self.event(event)?;
        let copies = if guest { 1 } else { self.cpus.len() };
        let tally = |copy: usize| tallies + copy * LEVELS + usize::from(el);
        Ok((0..copies).map(|copy| self.occurred(tally(copy), index)).fold(0, u64::wrapping_add))
    }

    fn occurred(&self, tally: usize, index: usize) -> u64 {
        let runs = self.cpus.iter().find(|cpu| cpu.running().is_some_and(|r| r.tally == tally));
        self.world.occurred(tally, index, runs.map(Cpu::pending))
    }

    fn event(&self, event: u16) -> Result<usize, Error> {
        self.world.events.index(event).ok_or(Error::NotTallied(event))
    }

    /// Cycles passed on a CPU by class, and idle.
    ///
    /// # Errors
    /// No such CPU.
    pub fn cycles(&mut self, cpu: usize) -> Result<([u64; 4], u64), Error> {
        Ok(self.cpu_mut(cpu)?.cycles())
    }
}

impl World {
    /// Occurrences of an event on a CPU in the classes of `scope` (bit `1 << class`); `None` if it is not tallied.
    #[must_use]
    pub fn happened(&self, cpu: &Cpu, scope: u32, event: u16) -> Option<u64> {
        let index = self.events.index(event)?;
        Some(self.on_cpu(cpu.id(), scope, index, cpu.running().map(|running| (running.tally, cpu.pending()))))
    }

    /// Occurrences of an event on a vCPU, whose tally of EL0 is `first`, in the classes of `scope`; `None` if it is not
    /// tallied. `cpu` is that on which it runs, if it does.
    #[must_use]
    pub fn happened_to(&self, first: usize, cpu: &Cpu, scope: u32, event: u16) -> Option<u64> {
        let index = self.events.index(event)?;
        let mut sum = 0u64;
        for (el, class) in [Class::GuestEl0, Class::GuestEl1].into_iter().enumerate() {
            if scope >> class as u32 & 1 != 0 {
                let runs = cpu.running().is_some_and(|running| running.tally == first + el);
                sum = sum.wrapping_add(self.occurred(first + el, index, runs.then(|| cpu.pending())));
            }
        }
        Some(sum)
    }
}

/// What TRUTH yields: a guest sees its own vCPU, the host all that ran on its CPU. An event that is
/// not tallied never happens.
pub(super) fn posted(world: &World, c: &Cpu, running: Running, subject: u32) -> u64 {
    let (event, scope) = (subject as u16, subject >> 16);
    let happened = if running.guest {
        world.happened_to(running.tally - usize::from(running.el), c, scope, event)
    } else {
        world.happened(c, scope, event)
    };
    happened.unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::super::tests::{EVENT, machine};
    use super::super::{Error, Machine, Stop};
    use crate::burst::{Burst, Operation};

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
        assert_eq!(machine.truth(0, 1, EVENT), Ok(2 * 17), "on both CPUs");
        assert_eq!(machine.truth(1, 2, EVENT), Ok(2 * 3), "on both CPUs");
        assert_eq!(truth(&mut machine, 1, 0b1111), 2 * 8);
        assert_eq!(machine.cycles(0), Ok(([5, 10, 0, 2], 0)));
    }

    #[test]
    fn what_there_is_not_has_no_truth() {
        let mut machine = machine();
        assert_eq!(machine.truth(0, 1, 0x99), Err(Error::NotTallied(0x99)));
        assert_eq!(machine.truth(0, 3, EVENT), Err(Error::NoLevel { el: 3, guest: true }));
        assert_eq!(machine.truth(2, 1, EVENT), Err(Error::NoContext { context: 2, contexts: 2 }));
        machine.set_running(0, 0, 1, 0).expect("they exist");
        let mut burst = Burst::default();
        burst.post_read(Operation::Truth, 0b1111 << 16 | 0x99);
        assert_eq!(machine.execute(0, &mut burst, 0, false), Ok(Stop::End));
        assert_eq!(burst.values, [0], "it never happens");
    }
}
