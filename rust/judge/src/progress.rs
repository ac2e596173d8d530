//! Who works, and whether anybody gets anywhere: I12.

use crate::finding::{Invariant, Kind, Party};
use crate::window::{IN_A_ROW, Window};
use crate::{At, Broken, Judge};

impl Judge {
    /// Work begins with interrupts unmasked.
    pub(crate) fn works(&mut self, at: &At<'_>) {
        self.hosts[at.id].works = Some((at.cpu.now(), at.running));
    }

    /// If somebody has worked, the work is over now.
    #[inline]
    pub(crate) fn worked(&mut self, at: &At<'_>) {
        if let Some((from, running)) = self.hosts[at.id].works.take() {
            self.got_on(from, false, &At { running, ..*at });
        }
    }

    /// The CPU was in WFI up to now.
    pub(crate) fn waited(&mut self, from: u64, at: &At<'_>) {
        self.got_on(from, true, at);
    }

    fn got_on(&mut self, from: u64, waits: bool, at: &At<'_>) {
        let stretch = at.cpu.now().wrapping_sub(from);
        if stretch > 0 || waits {
            self.hosts[at.id].in_a_row = 0;
            if let Some(guest) = self.guest(at.running.context).filter(|_| at.running.guest) {
                self.guests[guest].in_a_row = 0;
            }
        }
        self.unmasked(stretch, waits, at);
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
            let window = Some(Window::InterruptsInARow);
            self.livelock(victim, IN_A_ROW.into(), further.into(), window, at);
        }
    }

    /// `victim` gets nowhere, for so many interrupts.
    pub(crate) fn livelock(
        &mut self,
        victim: Party,
        expected: u64,
        actual: u64,
        window: Option<Window>,
        at: &At<'_>,
    ) {
        let broken = Broken::new(Invariant::I12, Kind::Livelock);
        self.violated(Broken { victim, expected, actual, window, ..broken }, at);
    }
}
