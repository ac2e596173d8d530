//! What a VMM reads, sets and configures of a vCPU's PMU: I11.

use pmu::field::pmcr;
use pmu::register::{Kind as Of, Register};

use crate::finding::{Invariant, Kind};
use crate::views::Difference;
use crate::window::Window;
use crate::{At, Broken, Judge, Party};

impl Judge {
    /// KVM_GET_ONE_REG has given `value`: what the guest has.
    pub(crate) fn got_one_reg(&mut self, guest: usize, encoding: u16, value: u64, at: &At<'_>) {
        let Some(register) = Register::decode(encoding) else { return };
        // A counter that the guest has not is nothing that it could go on with.
        if register.kind() == Of::Pmswinc || self.guests[guest].absent(register) {
            return;
        }
        self.findings.premise(Invariant::I11);
        let resets = value & (pmcr::P | pmcr::C);
        let (mut value, mut set) = (value, None);
        if register.kind() == Of::Pmcr && resets != 0 {
            let within = resets & !self.guests[guest].user_pmcr() == 0;
            if self.findings.allows(Window::UserView, within, true) {
                value &= !resets;
            }
            set = Some(Window::UserView);
        }
        if let Some(Difference { expected, mask, window }) = self.difference(guest, register, 1, value, 0, at)
        {
            let victim = Party::Guest(self.guests[guest].context);
            let (expected, actual) = (expected & mask, value & mask);
            let broken = Broken { window: window.or(set), ..Broken::new(Invariant::I11, Kind::OneReg) };
            self.violated(Broken { register: Some(register), victim, expected, actual, ..broken }, at);
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
        }
        self.guest_counts(guest, at);
    }
}
