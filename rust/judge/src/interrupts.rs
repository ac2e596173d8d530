//! A guest is interrupted when its overflow condition is true, and only then: I5.

use crate::finding::{Invariant, Kind, Party};
use crate::window::Window;
use crate::{At, Broken, Judge};

impl Judge {
    pub(crate) fn works(&mut self, at: &At<'_>) {
        let Some(guest) = self.running(at.cpu) else { return };
        if !self.guests[guest].interrupt() {
            return;
        }
        self.findings.premise(Invariant::I5);
        let delay = at.cpu.registers().features().pmi_delay;
        let passed = self.guests[guest].interrupt_for();
        if passed <= delay {
            self.findings.window(Window::InterruptOnItsWay, passed == delay);
        } else {
            self.violated(
                Broken {
                    victim: Party::Guest(at.running.context),
                    expected: delay,
                    actual: passed,
                    ..Broken::new(Invariant::I5, Kind::LateInterrupt)
                },
                at,
            );
        }
    }

    pub(crate) fn interrupted(&mut self, at: &At<'_>) {
        let Some(guest) = self.hosts[at.id].loaded.and_then(|context| self.guest(context)) else { return };
        self.findings.premise(Invariant::I5);
        if self.guests[guest].interrupt() {
            return;
        }
        if self.guests[guest].may_interrupt() {
            self.findings.window(Window::UnknownAfterReset, false);
        } else if self.guests[guest].lowered {
            self.findings.window(Window::Polled, false);
        } else {
            let context = self.guests[guest].context;
            self.violated(
                Broken {
                    victim: Party::Guest(context),
                    expected: 0,
                    actual: 1,
                    ..Broken::new(Invariant::I5, Kind::SpuriousInterrupt)
                },
                at,
            );
        }
    }
}
