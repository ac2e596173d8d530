//! What KVM itself writes into a guest's registers on the CPU, and how it gets there: I6 and I7.

use pmu::register::{Kind as Of, Register};
use pmu::registers::CYCLE;

use crate::finding::{Invariant, Kind};
use crate::host::Host;
use crate::views::Difference;
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
        if let (None, Some(n), Some(guest)) = (written, Host::counter(at.cpu, register), self.guest(context))
        {
            let counted = &mut self.hosts[at.id].counted;
            counted.account(at.cpu.now());
            let others = counted.others(n, |party| party == victim);
            if !others.is_empty() {
                self.guests[guest].counted[n] = self.guests[guest].counted_with(n, others);
            }
        }
        // What is written amid vcpu_put is the host's.
        if let (Some(value), Some(guest)) = (written, self.guest(context))
            && !self.guests[guest].leaving
        {
            self.restored(guest, register, value, at);
            if let Some(n) = Host::counter(at.cpu, register) {
                let guest = &mut self.guests[guest];
                guest.counted_before[n].clone_from(&guest.counted[n]);
            }
        }
    }

    /// A counter that KVM writes for a guest has what the guest's has: what it last wrote and what has been counted since.
    fn restored(&mut self, guest: usize, register: Register, value: u64, at: &At<'_>) {
        // Its other registers are compared when it is entered. A counter that it has not is none of its copies.
        if !matches!(register.kind(), Of::Pmevcntr | Of::Pmccntr) || self.guests[guest].absent(register) {
            return;
        }
        // What its own write makes of the counter is compared when it is read, or entered.
        if self.guests[guest].is_writing(register) {
            return;
        }
        self.findings.premise(Invariant::I7);
        let n = Host::counter(at.cpu, register).unwrap_or(CYCLE);
        let value = value & at.cpu.registers().counter_mask(n); // what it keeps of it
        if let Some(Difference { expected, mask, window }) = self.difference(guest, register, 1, value, 0, at)
        {
            let victim = Party::Guest(self.guests[guest].context);
            let (expected, actual) = (expected & mask, value & mask);
            let broken = Broken { window, ..Broken::new(Invariant::I7, Kind::Restored) };
            self.violated(Broken { register: Some(register), victim, expected, actual, ..broken }, at);
        }
    }
}
