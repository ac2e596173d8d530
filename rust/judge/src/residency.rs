//! Which vCPU is loaded where, as KVM tells it: I9.

use crate::finding::Party;
use crate::guest::Trapped;
use crate::{At, Judge, note};

impl Judge {
    pub(crate) fn noted(&mut self, code: u32, a: u64, _b: u64, at: &At<'_>) {
        let guest = self.guest(a as usize);
        match code {
            note::VCPU_LOAD => {
                self.hosts[at.id].loaded = Some(a as usize);
                if let Some(guest) = guest {
                    self.guests[guest].loaded = Some(at.id);
                }
            }
            note::VCPU_IS_PUT => {
                self.events.vcpu_is_put(at.id);
                let host = &mut self.hosts[at.id];
                host.loaded = None;
                host.owners.lose_all(Party::Guest(a as usize), at.cpu.now());
                if let Some(guest) = guest {
                    self.guests[guest].loaded = None;
                }
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
}
