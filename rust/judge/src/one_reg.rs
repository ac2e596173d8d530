//! What a VMM reads, sets and configures of a vCPU's PMU: I11.

use pmu::field::pmcr;
use pmu::register::{Kind as Of, Register};

use crate::finding::{Invariant, Kind};
use crate::guest::Compared;
use crate::window::Window;
use crate::{At, Broken, Judge, Party};

impl Judge {
    /// KVM_GET_ONE_REG has given `value`: what the guest has, P and C aside, which KVM may keep as a VMM has set them.
    pub(crate) fn got_one_reg(&mut self, guest: usize, encoding: u16, value: u64, at: &At<'_>) {
        let Some(register) = Register::decode(encoding) else { return };
        if register.kind() == Of::Pmswinc || self.guests[guest].absent(register) {
            return;
        }
        self.findings.premise(Invariant::I11);
        let value = if register.kind() == Of::Pmcr { value & !(pmcr::P | pmcr::C) } else { value };
        match self.guests[guest].compare(at.world, register, 1, value) {
            Compared::Same => {}
            Compared::Adopted => self.findings.window(Window::UnknownAfterReset, false),
            Compared::Differs { expected, mask } => {
                let victim = Party::Guest(self.guests[guest].context);
                let broken = Broken::new(Invariant::I11, Kind::OneReg);
                let (expected, actual) = (expected & mask, value & mask);
                self.violated(Broken { register: Some(register), victim, expected, actual, ..broken }, at);
            }
        }
    }

    /// KVM_SET_ONE_REG of `value`: it is the guest's from now on.
    pub(crate) fn set_one_reg(&mut self, guest: usize, encoding: u16, value: u64, at: &At<'_>) {
        let Some(register) = Register::decode(encoding) else { return };
        if register.kind() == Of::Pmswinc || self.guests[guest].absent(register) {
            return;
        }
        if self.guests[guest].user_writes(at.world, register, value) {
            self.guests[guest].events.unclear();
            self.findings.window(Window::UserView, false);
        }
        self.guest_counts(guest, at);
    }
}
