//! Which vCPU is loaded where, as KVM tells it: I9.

use pmu::feature::PMUV3P1;

use crate::guest::Trapped;
use crate::{At, Judge, note};

impl Judge {
    pub(crate) fn noted(&mut self, code: u32, a: u64, b: u64, at: &At<'_>) {
        let guest = self.guest(a as usize);
        match code {
            note::VCPU_LOAD => {
                self.hosts[at.id].loaded = Some(a as usize);
                if let Some(guest) = guest {
                    self.guests[guest].loaded = Some(at.id);
                    self.guests[guest].leaving = false;
                }
            }
            note::VCPU_PUT => {
                if let Some(guest) = guest {
                    self.guests[guest].leaving = true;
                }
            }
            note::VCPU_IS_PUT => {
                self.hosts[at.id].loaded = None;
                if let Some(guest) = guest {
                    self.guests[guest].loaded = None;
                }
            }
            note::GET_ONE_REG | note::SET_ONE_REG => {
                let Some(guest) = self.guest((a >> 16) as usize) else { return };
                if code == note::GET_ONE_REG {
                    self.got_one_reg(guest, a as u16, b, at);
                } else {
                    self.set_one_reg(guest, a as u16, b, at);
                }
            }
            note::SET_NR_COUNTERS => {
                if let Some(guest) = guest {
                    self.guests[guest].set_counters(at.world, b as u8);
                }
            }
            note::SET_FILTER => {
                let narrow = self.hosts.iter().any(|host| !host.ideal.registers().features().has(PMUV3P1));
                if let Some(guest) = self.guest((a >> 16) as usize) {
                    let events = u32::from(a as u16)..u32::from(a as u16) + (b >> 1) as u32;
                    self.guests[guest].filter(if narrow { 1 << 10 } else { 1 << 16 }, events, b & 1 != 0);
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
