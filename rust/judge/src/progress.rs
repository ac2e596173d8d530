//! Who works, and whether anybody gets anywhere: I12.

use crate::finding::{Invariant, Kind, Party};
use crate::window::{IN_A_ROW, Window};
use crate::{At, Broken, Judge};

impl Judge {
    /// Who runs on the CPU has worked there from `from` on with interrupts unmasked, or has waited in WFI.
    pub(crate) fn got_on(&mut self, from: u64, waits: bool, at: &At<'_>) {
        let stretch = at.cpu.now().wrapping_sub(from);
        if stretch > 0 || waits {
            self.hosts[at.id].in_a_row = 0;
            if let Some(guest) = self.guest(at.running.context).filter(|_| at.running.guest) {
                self.guests[guest].in_a_row = 0;
            }
        }
        self.unmasked(stretch, waits, at);
        if !self.hosts[at.id].asleep.is_empty() {
            self.sleeps_over_it(stretch, at);
        }
    }

    /// The guest, or the host where there is none, takes a PMU interrupt.
    pub(crate) fn interrupted_in_a_row(&mut self, guest: Option<usize>, at: &At<'_>) {
        self.findings.premise(Invariant::I12);
        let (count, victim) = match guest {
            Some(guest) => {
                let guest = &mut self.guests[guest];
                (&mut guest.in_a_row, Party::Guest(guest.context))
            }
            None => (&mut self.hosts[at.id].in_a_row, Party::Host),
        };
        *count = count.saturating_add(1);
        let further = *count - 1;
        let within = further <= IN_A_ROW;
        if further > 0 && !self.findings.allows(Window::InterruptsInARow, within, further == IN_A_ROW) {
            self.livelock(victim, further.into(), at);
        }
    }

    /// `victim` gets nowhere, for so many interrupts. A guest whose condition may still be true has not ended it, and is
    /// the cause of that itself.
    fn livelock(&mut self, victim: Party, further: u64, at: &At<'_>) {
        if let Party::Guest(context) = victim
            && self.guest(context).is_some_and(|guest| self.guests[guest].may_interrupt())
        {
            return;
        }
        let window = Some(Window::InterruptsInARow);
        let broken = Broken::new(Invariant::I12, Kind::Livelock);
        self.violated(Broken { victim, expected: IN_A_ROW.into(), actual: further, window, ..broken }, at);
    }

    /// Interrupts of all kinds take all, on the vCPU or else the CPU. Those of the PMU must have had a part in it: of
    /// timers alone it is no PMU's doing.
    pub(crate) fn interrupts_take_all(&mut self, guest: Option<usize>, at: &At<'_>) {
        self.findings.premise(Invariant::I12);
        let guest =
            guest.map(|guest| (Party::Guest(self.guests[guest].context), self.guests[guest].in_a_row));
        for (victim, count) in guest.into_iter().chain([(Party::Host, self.hosts[at.id].in_a_row)]) {
            let further = count.saturating_sub(1);
            if further > IN_A_ROW && !self.findings.allows(Window::InterruptsInARow, false, false) {
                self.livelock(victim, further.into(), at);
            }
        }
    }

    /// The host waits on its CPU for a lock that this CPU holds; `place` says where.
    pub(crate) fn deadlock(&mut self, place: u64, at: &At<'_>) {
        self.findings.premise(Invariant::I12);
        let broken = Broken::new(Invariant::I12, Kind::Deadlock);
        self.violated(Broken { victim: Party::Host, actual: place, ..broken }, at);
    }

    /// Nothing will happen any more. It is nobody's doing where nobody has an interrupt due.
    pub(crate) fn all_idle(&mut self, at: &At<'_>) {
        self.findings.premise(Invariant::I12);
        let delay = at.cpu.registers().features().pmi_delay;
        let guests = self.guests.iter().filter(|guest| guest.interrupt());
        let guests = guests.map(|guest| (Party::Guest(guest.context), guest.interrupt_for(), guest.since));
        let host = &self.hosts[at.id].ideal;
        let due = host
            .registers()
            .interrupt()
            .then(|| (Party::Host, at.cpu.now().wrapping_sub(host.raised()), Some(host.raised())));
        for (victim, passed, since) in guests.chain(due).collect::<Vec<_>>() {
            let broken = Broken::new(Invariant::I12, Kind::NeverWoken);
            self.violated(Broken { victim, expected: delay, actual: passed, since, ..broken }, at);
        }
    }
}
