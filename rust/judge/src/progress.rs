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
        if further > 0 && further <= IN_A_ROW {
            self.findings.window(Window::InterruptsInARow, further == IN_A_ROW);
        } else if further > IN_A_ROW {
            self.livelock(victim, further.into(), at);
        }
    }

    /// `victim` gets nowhere, for so many interrupts.
    pub(crate) fn livelock(&mut self, victim: Party, further: u64, at: &At<'_>) {
        let window = Some(Window::InterruptsInARow);
        let broken = Broken::new(Invariant::I12, Kind::Livelock);
        self.violated(Broken { victim, expected: IN_A_ROW.into(), actual: further, window, ..broken }, at);
    }
}
