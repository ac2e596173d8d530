//! What the host's perf reads is what its ideal PMU reads: I2 and I3.

use pmu::register::Register;

use crate::finding::{Invariant, Kind};
use crate::host::Host;
use crate::{At, Broken, Judge};

impl Judge {
    pub(crate) fn host_access(&mut self, register: Register, written: Option<u64>, value: u64, at: &At<'_>) {
        if written.is_some() {
            self.hosts[at.id].ideal.write(at.world, register, at.running.el, value);
            return;
        }
        let Some(n) = Host::counter(at.cpu, register) else { return };
        if self.hosts[at.id].enabled() >> n & 1 == 0 {
            return;
        }
        self.findings.premise(Invariant::I3);
        let expected = self.hosts[at.id].ideal.read(register, 2);
        if expected != value {
            let broken = Broken::new(Invariant::I3, Kind::HostRead);
            self.violated(Broken { register: Some(register), expected, actual: value, ..broken }, at);
        }
    }
}
