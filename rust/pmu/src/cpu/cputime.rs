//! Whose time it is, as the host kernel's own bookkeeping has it (Linux `kernel/sched/cputime.c`).

use serde::{Deserialize, Serialize};

/// Whose a CPU's time is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Whose {
    /// The guest's.
    Guest,
    /// The host's kernel's.
    HostKernel,
    /// A task's of the host, at EL0.
    HostUser,
    /// Nobody's.
    Idle,
}

impl Whose {
    /// All with their names.
    pub const ALL: [(Self, &str); 4] = [
        (Self::Guest, "guest"),
        (Self::HostKernel, "host_kernel"),
        (Self::HostUser, "host_user"),
        (Self::Idle, "idle"),
    ];
}

/// Of one CPU, in cycles.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct CpuTime {
    spent: [u64; Whose::ALL.len()],
    whose: Whose,
    since: u64,
}

impl Default for CpuTime {
    fn default() -> Self {
        Self { spent: [0; Whose::ALL.len()], whose: Whose::Idle, since: 0 }
    }
}

impl CpuTime {
    /// From `now` on the time is `whose`.
    #[inline]
    pub(super) fn switch(&mut self, whose: Whose, now: u64) {
        let sum = &mut self.spent[self.whose as usize];
        *sum = sum.wrapping_add(now.wrapping_sub(self.since));
        (self.whose, self.since) = (whose, now);
    }

    /// By whose it was, up to `now`.
    pub(super) fn spent(&self, now: u64) -> [u64; Whose::ALL.len()] {
        let mut up_to_now = self.clone();
        up_to_now.switch(self.whose, now);
        up_to_now.spent
    }
}
