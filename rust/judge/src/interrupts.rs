//! Guests and the host are interrupted when their overflow condition is true, and only then: I5.

use pmu::register::{Kind as Of, Register};

use crate::finding::{Invariant, Kind, Party};
use crate::guest::Polled;
use crate::traffic::bits;
use crate::window::Window;
use crate::{At, Broken, Judge, note};

impl Judge {
    /// Interrupts have been unmasked for `stretch` cycles up to now, and who worked or waited in them is done with them.
    pub(crate) fn unmasked(&mut self, stretch: u64, waits: bool, at: &At<'_>) {
        let host = &self.hosts[at.id].ideal;
        if host.registers().interrupt() {
            let raised = host.raised();
            let passed = at.cpu.now().wrapping_sub(raised);
            let kind = if at.cpu.interrupt() { Kind::LateInterrupt } else { Kind::LostInterrupt };
            self.in_time(kind, Party::Host, passed, stretch, Some(raised), at);
        }
        if !at.running.guest {
            return;
        }
        let Some(guest) = self.guest(at.running.context) else { return };
        let guest = &self.guests[guest];
        if guest.interrupt() && !guest.masked {
            let kind = if waits { Kind::LostInterrupt } else { Kind::LateInterrupt };
            let (passed, since) = (guest.interrupt_for(), guest.since);
            self.in_time(kind, Party::Guest(at.running.context), passed, stretch, since, at);
        }
    }

    /// A guest masks its interrupts for good, or lets them in for an instant in which none is pending.
    pub(crate) fn masks(&mut self, code: u32, at: &At<'_>) {
        let Some(guest) = self.guest(at.running.context).filter(|_| at.running.guest) else { return };
        let guest = &mut self.guests[guest];
        guest.masked |= code == note::MASKED;
        if code == note::UNMASKED && guest.interrupt() {
            let (passed, since) = (guest.interrupt_for(), guest.since);
            let victim = Party::Guest(at.running.context);
            self.in_time(Kind::LateInterrupt, victim, passed, 1, since, at);
        }
    }

    /// `victim`'s condition has been true for `passed` cycles, the last `stretch` of which it could be interrupted in. May
    /// it be on its way still?
    fn in_time(
        &mut self,
        kind: Kind,
        victim: Party,
        passed: u64,
        stretch: u64,
        since: Option<u64>,
        at: &At<'_>,
    ) -> bool {
        if stretch == 0 {
            return true; // it could not be interrupted yet
        }
        self.findings.premise(Invariant::I5);
        let delay = at.cpu.registers().features().pmi_delay;
        if self.findings.allows(Window::InterruptOnItsWay, passed <= delay, passed == delay) {
            return true;
        }
        let window = Some(Window::InterruptOnItsWay);
        let broken = Broken::new(Invariant::I5, kind);
        self.violated(Broken { victim, expected: delay, actual: passed, window, since, ..broken }, at);
        false
    }

    /// A guest is entered by its PMU's interrupt.
    pub(crate) fn interrupted(&mut self, at: &At<'_>) {
        let Some(guest) = self.hosts[at.id].loaded.and_then(|context| self.guest(context)) else { return };
        self.findings.premise(Invariant::I5);
        self.interrupted_in_a_row(Some(guest), at);
        if self.guests[guest].interrupt() {
            return;
        }
        if self.guests[guest].may_interrupt() {
            self.findings.allows(Window::UnknownAfterReset, true, false);
            return;
        }
        let polled = std::mem::replace(&mut self.guests[guest].polled, Polled::Come);
        if polled != Polled::Not && self.findings.allows(Window::Polled, polled == Polled::Open, true) {
            return;
        }
        let victim = Party::Guest(self.guests[guest].context);
        let window = (polled != Polled::Not).then_some(Window::Polled);
        // What was its own and comes too late, or is of a counter of its own that should not have overflowed, is nobody
        // else's, whatever another has pending.
        let own = polled == Polled::Late || self.has_flag_on_cpu(victim, at);
        let other = if own { None } else { self.whose_interrupt(victim, at) };
        self.unfounded(victim, other, window, at);
    }

    /// Is there a flag on the CPU that interrupts, of a counter of this party's?
    fn has_flag_on_cpu(&self, party: Party, at: &At<'_>) -> bool {
        let read = |of| at.cpu.read(Register::of(of), 2);
        let flags = read(Of::Pmovsset) & read(Of::Pmintenset);
        bits(flags).any(|n| self.hosts[at.id].owners[n] == party)
    }

    /// The host's perf is entered by the PMU's interrupt: for its own counters, or for those of the vCPU that is loaded.
    pub(crate) fn host_interrupted(&mut self, at: &At<'_>) {
        self.findings.premise(Invariant::I5);
        self.interrupted_in_a_row(None, at);
        let host = &self.hosts[at.id];
        let guest = host.loaded.and_then(|context| self.guest(context));
        if host.ideal.registers().interrupt() || guest.is_some_and(|guest| self.guests[guest].interrupt()) {
            return;
        }
        if guest.is_some_and(|guest| self.guests[guest].may_interrupt()) {
            self.findings.allows(Window::UnknownAfterReset, true, false);
            return;
        }
        let mut window = None;
        if let Some(guest) = guest.filter(|&guest| self.guests[guest].trapped.is_some_and(|one| one.write)) {
            let by_write = self.guests[guest].interrupts_by_write(at.world);
            if self.findings.allows(Window::TrappedWrite, by_write, true) {
                return;
            }
            window = Some(Window::TrappedWrite);
        }
        let other = self.whose_interrupt(Party::Host, at);
        self.unfounded(Party::Host, other, window, at);
    }

    /// Whose interrupt one is that is not the victim's: of the host if its condition is true, of another vCPU if that
    /// one's is, and its registers have been on this pCPU last: elsewhere nobody here could have found its flag.
    fn whose_interrupt(&self, victim: Party, at: &At<'_>) -> Option<Party> {
        if victim != Party::Host && self.hosts[at.id].ideal.registers().interrupt() {
            return Some(Party::Host);
        }
        let here = self.guests.iter().filter(|guest| guest.last_on == Some(at.id) && guest.interrupt());
        here.map(|guest| Party::Guest(guest.context)).find(|&other| other != victim)
    }

    /// `victim` is interrupted, by another's condition or none.
    fn unfounded(&mut self, victim: Party, other: Option<Party>, window: Option<Window>, at: &At<'_>) {
        let (kind, other) = match other {
            Some(other) => (Kind::MisattributedInterrupt, other),
            None => (Kind::SpuriousInterrupt, Party::Kvm),
        };
        self.violated(Broken { victim, other, actual: 1, window, ..Broken::new(Invariant::I5, kind) }, at);
    }

    /// KVM has found nothing pending for a vCPU in WFI, which sleeps.
    pub(crate) fn blocks(&mut self, guest: usize, at: &At<'_>) {
        let guest = &self.guests[guest];
        if let Some(since) = guest.since {
            let (context, passed) = (guest.context, at.cpu.now().saturating_sub(since));
            if self.in_time(Kind::LostInterrupt, Party::Guest(context), passed, passed, Some(since), at) {
                self.hosts[at.id].asleep.push(context);
            }
        }
    }

    /// It is runnable again, or loaded.
    pub(crate) fn wakes(&mut self, context: usize) {
        for host in &mut self.hosts {
            host.asleep.retain(|&one| one != context);
        }
    }

    /// The CPU has worked or idled for `stretch` cycles up to now with interrupts unmasked. What was on its way as a vCPU
    /// blocked there has come, or vcpu_put has found its flag: the vCPU is woken by now.
    #[cold]
    pub(crate) fn sleeps_over_it(&mut self, stretch: u64, at: &At<'_>) {
        for context in std::mem::take(&mut self.hosts[at.id].asleep) {
            let Some(guest) = self.guest(context) else { continue };
            let Some(since) = self.guests[guest].since else { continue };
            let passed = at.cpu.now().saturating_sub(since);
            if self.in_time(Kind::LostInterrupt, Party::Guest(context), passed, stretch, Some(since), at) {
                self.hosts[at.id].asleep.push(context);
            }
        }
    }
}
