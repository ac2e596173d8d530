//! What KVM itself writes into a guest's registers on the CPU, and how it gets there: I6 and I7.

use pmu::register::{Kind as Of, Register};
use pmu::registers::CYCLE;

use crate::finding::{Invariant, Kind};
use crate::guest::Compared;
use crate::host::Host;
use crate::window::Window;
use crate::{At, Broken, Judge, Party};

impl Judge {
    /// KVM accesses a register at EL2 while a vCPU is loaded, or is being loaded or put.
    pub(crate) fn kvm_access(&mut self, register: Register, written: Option<u64>, at: &At<'_>) {
        let host = &mut self.hosts[at.id];
        let Some(context) = host.loaded else { return };
        let victim = Party::Guest(context);
        match register.kind() {
            Of::Pmselr if written.is_some() => host.selected = Some(at.cpu.now()),
            Of::Pmxevcntr | Of::Pmxevtyper => {
                let since = host.selected;
                self.findings.premise(Invariant::I6);
                if since.is_some() {
                    let broken = Broken::new(Invariant::I6, Kind::Unsynchronised);
                    self.violated(Broken { register: Some(register), victim, since, ..broken }, at);
                }
            }
            _ => {}
        }
        match (written, self.guest(context)) {
            (None, Some(guest)) => self.guests[guest].from_cpu = true,
            (Some(value), Some(guest)) if !self.guests[guest].leaving => {
                self.restored(guest, register, value, at);
            }
            _ => {}
        }
    }

    /// A counter that KVM writes for a guest has what the guest's has: what it last wrote and what has been counted since.
    fn restored(&mut self, guest: usize, register: Register, value: u64, at: &At<'_>) {
        if !matches!(register.kind(), Of::Pmevcntr | Of::Pmccntr) || self.guests[guest].absent(register) {
            return;
        }
        if self.guests[guest].is_writing(register) {
            return;
        }
        self.findings.premise(Invariant::I7);
        let n = Host::counter(at.cpu, register).unwrap_or(CYCLE);
        let value = value & at.cpu.registers().counter_mask(n); // what it keeps of it
        match self.guests[guest].compare(at.world, register, 1, value) {
            Compared::Same => {}
            Compared::Adopted => self.findings.window(Window::UnknownAfterReset, false),
            Compared::Differs { expected, mask } => {
                let victim = Party::Guest(self.guests[guest].context);
                let (expected, actual) = (expected & mask, value & mask);
                let broken = Broken::new(Invariant::I7, Kind::Restored);
                self.violated(Broken { register: Some(register), victim, expected, actual, ..broken }, at);
            }
        }
    }
}
