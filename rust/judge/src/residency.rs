//! Which vCPU is loaded where, as KVM tells it: I9.

use crate::finding::{Invariant, Kind, Party};
use crate::guest::Trapped;
use crate::{At, Broken, Judge, note};

impl Judge {
    pub(crate) fn noted(&mut self, code: u32, a: u64, _b: u64, at: &At<'_>) {
        let guest = self.guest(a as usize);
        match code {
            note::VCPU_LOAD => self.loads(a as usize, guest, at),
            note::VCPU_PUT => self.swap_begins(at),
            note::VCPU_LOADED => self.swap_ends(a as usize, at),
            note::VCPU_IS_PUT => {
                self.swap_ends(a as usize, at);
                self.events.vcpu_is_put(at.id);
                let host = &mut self.hosts[at.id];
                host.loaded = None;
                host.owners.lose_all(Party::Guest(a as usize), at.cpu.now());
                if let Some(guest) = guest {
                    self.guests[guest].loaded = None;
                }
            }
            note::VCPU_BLOCKS => {
                if let Some(guest) = guest {
                    self.blocks(guest, at);
                }
            }
            note::LIVELOCK => {
                let victim = guest.map_or(Party::Host, |guest| Party::Guest(self.guests[guest].context));
                self.findings.premise(Invariant::I12);
                self.livelock(victim, 0, at);
            }
            note::INJECT_UNDEF => {
                let Some(guest) = guest else { return };
                if let Some(Trapped { register, write, el, .. }) = self.guests[guest].trapped.take() {
                    self.undefined(guest, register, el, write, at);
                }
            }
            _ => {}
        }
    }

    fn loads(&mut self, context: usize, guest: Option<usize>, at: &At<'_>) {
        self.findings.premise(Invariant::I9);
        let elsewhere = guest.is_some_and(|guest| self.guests[guest].loaded.is_some());
        if elsewhere || self.hosts[at.id].loaded.is_some() {
            let victim = Party::Guest(context);
            self.violated(Broken { victim, ..Broken::new(Invariant::I9, Kind::LoadedTwice) }, at);
        }
        self.hosts[at.id].loaded = Some(context);
        self.swap_begins(at);
        if let Some(guest) = guest {
            self.guests[guest].loaded = Some(at.id);
        }
    }
}
