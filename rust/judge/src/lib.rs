//! The invariants of a PMU that host and guests share, judged from outside: from register traffic, from who runs, and
//! from what really happened. No design is known here.
//!
//! | module | what it knows |
//! |---|---|
//! | [`finding`] | invariants, violations, premises |
//! | [`window`] | every tolerance |
//! | [`note`] | what KVM and software tell |
//! | [`guest`] | a vCPU's PMU as it should be |
//! | [`host`] | the host's PMU on a CPU as it should be |

#![forbid(unsafe_code)]
#![deny(missing_docs)]

pub mod finding;
pub mod guest;
pub mod host;
pub mod note;
pub mod window;

use pmu::access::Outcome;
use pmu::cpu::{Cpu, Running};
use pmu::feature::Features;
use pmu::observer::{By, Observer, What};
use pmu::register::{Kind as Of, Register};
use pmu::tally::World;
use serde::{Deserialize, Serialize};

use finding::{Did, Findings, Invariant, Kind, Party, Step, Violation};
use guest::{Compared, Guest, Trapped};
use host::Host;
use window::Window;

/// First code of the marks of entries of guests' software, and of its PMU interrupt's.
const GUEST_ENTRY: u16 = 16;
const PMU_IRQ: u16 = GUEST_ENTRY + 1;

/// What the judge is told of a vCPU: what its VMM knows.
#[derive(Clone, Debug)]
pub struct VcpuSetup {
    /// Its context on the machine.
    pub context: usize,
    /// PMCR_EL0.N as userspace has it.
    pub counters: u8,
    /// ID_AA64DFR0_EL1.PMUVer; 0: it has no PMU.
    pub pmuver: u8,
    /// Events that the VM's filter denies.
    pub denied: Vec<u16>,
}

/// Sees every access, and says what is wrong.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Judge {
    hosts: Vec<Host>,
    guests: Vec<Guest>,
    /// By context, its place in `guests`.
    by_context: Vec<Option<usize>>,
    findings: Findings,
}

impl Judge {
    /// Of a machine with these CPUs and vCPUs, on which nothing has happened yet.
    #[must_use]
    pub fn new(cpus: &[Features], vcpus: Vec<VcpuSetup>) -> Self {
        let hosts = cpus.iter().enumerate().map(|(id, features)| Host::new(id, features.clone())).collect();
        let contexts = vcpus.iter().map(|vcpu| vcpu.context + 1).max().unwrap_or(0);
        let mut by_context = vec![None; contexts];
        let mut guests = Vec::new();
        for vcpu in vcpus {
            if vcpu.pmuver > 0 {
                by_context[vcpu.context] = Some(guests.len());
                let VcpuSetup { context, counters, pmuver, denied } = vcpu;
                guests.push(Guest::new(context, &cpus[0], counters, pmuver, denied));
            }
        }
        Self { hosts, guests, by_context, findings: Findings::default() }
    }

    /// What has been found.
    #[must_use]
    pub fn findings(&self) -> &Findings {
        &self.findings
    }

    fn guest(&self, context: usize) -> Option<usize> {
        self.by_context.get(context).copied().flatten()
    }

    fn running(&self, cpu: &Cpu) -> Option<usize> {
        cpu.running().filter(|running| running.guest).and_then(|running| self.guest(running.context))
    }
}

/// Where and when.
struct At<'a> {
    cpu: &'a Cpu,
    id: usize,
    world: &'a World,
    running: Running,
}

impl Observer for Judge {
    fn see(&mut self, by: By, what: What, cpu: &Cpu, world: &World) {
        let id = cpu.id();
        let now = cpu.now();
        match what {
            What::Runs { last } => {
                let last = last.filter(|last| last.guest).and_then(|last| self.guest(last.context));
                if let Some(last) = last {
                    self.guests[last].catch_up(now);
                }
                self.hosts[id].ideal.advance(now);
            }
            What::Idled { from } => {
                self.hosts[id].ideal.advance(from);
                self.hosts[id].ideal.idle(now);
                if let Some(guest) = self.running(cpu) {
                    self.guests[guest].idled(from, now);
                }
            }
            _ => {
                self.hosts[id].ideal.advance(now);
                if let Some(guest) = self.running(cpu) {
                    self.guests[guest].catch_up(now);
                }
            }
        }
        if what == What::Reset {
            self.hosts[id].ideal.warm_reset(world);
        }
        let Some(running) = cpu.running() else { return };
        let at = At { cpu, id, world, running };
        self.step(by, what, &at);
        match what {
            What::Runs { last } => self.runs(last, &at),
            What::Read { register, value } => self.accessed(by, register, None, value, &at),
            What::Wrote { register, value } => self.accessed(by, register, Some(value), value, &at),
            What::Taken { register, write, value, to } => self.taken(register, write, value, to, &at),
            What::Emulated { value } => self.emulated(value, &at),
            What::Works => self.works(&at),
            What::Exited => {
                if let Some(guest) = self.hosts[id].loaded.and_then(|context| self.guest(context)) {
                    self.guests[guest].lowered = false;
                }
            }
            What::Mark { code: PMU_IRQ, .. } => self.interrupted(&at),
            What::Note { code, a, b } => self.noted(code, a, b, &at),
            What::Isb | What::Idled { .. } | What::Reset | What::Mark { .. } => {}
        }
        // What it is entered with is compared once the access for which it left is emulated.
        if let Some(guest) = self.running(cpu)
            && self.guests[guest].fresh
            && !matches!(what, What::Runs { .. })
        {
            self.guests[guest].fresh = false;
            self.entered(guest, &at);
        }
    }
}

impl Judge {
    fn party(by: By, running: Running) -> Party {
        match by {
            _ if running.guest => Party::Guest(running.context),
            By::Software => Party::Host,
            By::Kvm => Party::Kvm,
        }
    }

    fn step(&mut self, by: By, what: What, at: &At<'_>) {
        let (did, a, b) = match what {
            What::Read { register, value } => (Did::Mrs, u64::from(register), value),
            What::Wrote { register, value } => (Did::Msr, u64::from(register), value),
            What::Taken { register, write, value, to } => {
                let did = match (write, to) {
                    (false, 2) => Did::MrsTraps,
                    (true, 2) => Did::MsrTraps,
                    (false, _) => Did::MrsTaken,
                    (true, _) => Did::MsrTaken,
                };
                (did, u64::from(register), value)
            }
            What::Emulated { value } => (Did::Emulated, 0, value),
            What::Isb => (Did::Isb, 0, 0),
            What::Runs { last } if last.is_some_and(|last| last.context == at.running.context) => return,
            What::Runs { .. } => (Did::Runs, at.running.context as u64, u64::from(at.running.el)),
            What::Mark { code, a, .. } => (Did::Entry, u64::from(code), a),
            What::Note { code, a, .. } => (Did::Note, u64::from(code), a),
            What::Works | What::Exited | What::Idled { .. } | What::Reset => return,
        };
        let party = Self::party(by, at.running);
        self.findings.step(Step { cpu: at.id, cycle: at.cpu.now(), el: at.running.el, party, did, a, b });
    }

    fn runs(&mut self, last: Option<Running>, at: &At<'_>) {
        self.hosts[at.id].runs(at.running, at.world);
        if !at.running.guest {
            return;
        }
        let Some(guest) = self.guest(at.running.context) else { return };
        self.guests[guest].runs(at.running, at.cpu, at.world);
        if last.is_some_and(|last| last.context == at.running.context) {
            return;
        }
        self.guests[guest].fresh = true;
        self.findings.premise(Invariant::I9);
        if self.guests[guest].loaded != Some(at.id) {
            self.violated(Invariant::I9, Kind::NotLoaded, None, at.running.context, Party::Kvm, (0, 0), at);
        }
    }

    /// What a guest that is entered could read without a trap is what it should read.
    fn entered(&mut self, guest: usize, at: &At<'_>) {
        let registers = at.cpu.registers();
        let counters = self.guests[guest].ideal.registers().accessible(1).min(registers.accessible(1));
        let each = [
            Of::Pmcr,
            Of::Pmcntenset,
            Of::Pmintenset,
            Of::Pmovsset,
            Of::Pmselr,
            Of::Pmuserenr,
            Of::Pmccntr,
            Of::Pmccfiltr,
        ];
        let of_counters = (0..counters).flat_map(|n| [Register::pmevcntr(n), Register::pmevtyper(n)]);
        for register in each.into_iter().map(Register::of).chain(of_counters) {
            if at.cpu.would(register, 1, false) == Outcome::Executed {
                let actual = at.cpu.read(register, 1);
                self.compare(guest, register, 1, actual, Kind::GuestEntry, at);
            }
        }
    }

    fn compare(&mut self, guest: usize, register: Register, el: u8, actual: u64, kind: Kind, at: &At<'_>) {
        let compared = self.guests[guest].compare(at.world, register, el, actual);
        let (invariant, of_host) = match register.kind() {
            Of::Pmevcntr | Of::Pmccntr | Of::Pmxevcntr => (Invariant::I4, 0),
            Of::Pmcr => (Invariant::I8, 0),
            of @ (Of::Pmcntenset
            | Of::Pmcntenclr
            | Of::Pmintenset
            | Of::Pmintenclr
            | Of::Pmovsset
            | Of::Pmovsclr) => (Invariant::I7, self.hosts[at.id].ideal.read(Register::of(of), 2)),
            _ => (Invariant::I7, 0),
        };
        self.findings.premise(invariant);
        self.findings.premise(Invariant::I1);
        match compared {
            Compared::Same => {}
            Compared::Adopted => self.findings.window(Window::UnknownAfterReset, false),
            Compared::Differs { expected, mask } => {
                let extra = actual & !expected & mask;
                let owner = Host::counter(at.cpu, register).map(|n| self.hosts[at.id].owners[n]);
                let context = at.running.context;
                let (invariant, other) = match owner {
                    _ if extra & of_host != 0 => (Invariant::I1, Party::Host),
                    Some(owner) if kind == Kind::GuestEntry && owner != Party::Guest(context) => {
                        (Invariant::I1, owner)
                    }
                    _ => (invariant, Party::Kvm),
                };
                self.violated(
                    invariant,
                    kind,
                    Some(register),
                    context,
                    other,
                    (expected & mask, actual & mask),
                    at,
                );
            }
        }
    }

    #[expect(clippy::too_many_arguments, reason = "a violation has so many parts")]
    fn violated(
        &mut self,
        invariant: Invariant,
        kind: Kind,
        register: Option<Register>,
        victim: usize,
        other: Party,
        values: (u64, u64),
        at: &At<'_>,
    ) {
        let counter = register.and_then(|register| Host::counter(at.cpu, register)).map(|n| n as u8);
        self.findings.violated(Violation {
            invariant,
            kind,
            cpu: at.id,
            cycle: at.cpu.now(),
            register: register.map(Register::encoding),
            counter,
            victim: if self.guest(victim).is_some() { Party::Guest(victim) } else { Party::Host },
            other,
            expected: values.0,
            actual: values.1,
            window: None,
            since: None,
            times: 1,
            steps: Vec::new(),
        });
    }

    fn accessed(&mut self, by: By, encoding: u16, written: Option<u64>, value: u64, at: &At<'_>) {
        let Some(register) = Register::decode(encoding) else { return };
        if at.running.guest {
            if let Some(guest) = self.guest(at.running.context) {
                self.guests[guest].trapped = None;
                self.guest_access(guest, register, at.running.el, written, value, at);
            }
        } else if by == By::Software {
            self.host_access(register, written, value, at);
        } else if written.is_some() && register.kind() == Of::MdcrEl2 {
            self.hosts[at.id].ideal.write(at.world, register, 2, value);
        }
        if written.is_some()
            && let Some(n) = Host::counter(at.cpu, register)
        {
            let owner = match by {
                _ if at.running.guest => Party::Guest(at.running.context),
                By::Kvm => self.hosts[at.id].loaded.map_or(Party::Host, Party::Guest),
                By::Software => Party::Host,
            };
            self.hosts[at.id].owners[n] = owner;
        }
    }

    /// The guest's access is done, by the CPU or by KVM.
    fn guest_access(
        &mut self,
        guest: usize,
        register: Register,
        el: u8,
        written: Option<u64>,
        value: u64,
        at: &At<'_>,
    ) {
        self.findings.premise(Invariant::I8);
        if self.guests[guest].absent(register) {
            self.findings.window(Window::AbsentCounter, false);
            return;
        }
        if let Outcome::Undefined(_) | Outcome::Trapped(_) =
            self.guests[guest].outcome(register, el, written.is_some())
        {
            self.violated(
                Invariant::I8,
                Kind::Undefined,
                Some(register),
                at.running.context,
                Party::Kvm,
                (1, 0),
                at,
            );
            return;
        }
        match written {
            Some(value) => self.guests[guest].write(at.world, register, el, value),
            None => self.compare(guest, register, el, value, Kind::GuestRead, at),
        }
    }

    fn host_access(&mut self, register: Register, written: Option<u64>, value: u64, at: &At<'_>) {
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
            self.violated(
                Invariant::I3,
                Kind::HostRead,
                Some(register),
                usize::MAX,
                Party::Kvm,
                (expected, value),
                at,
            );
        }
    }

    fn taken(&mut self, encoding: u16, write: bool, value: u64, to: u8, at: &At<'_>) {
        let Some(guest) = self.running(at.cpu) else { return };
        let el = at.running.el;
        if to == 2 {
            self.guests[guest].trapped = Some(Trapped { register: encoding, write, value, el });
            return;
        }
        self.undefined(guest, encoding, el, write, at);
    }

    /// The guest's access is UNDEFINED for it.
    fn undefined(&mut self, guest: usize, encoding: u16, el: u8, write: bool, at: &At<'_>) {
        let Some(register) = Register::decode(encoding) else { return };
        self.findings.premise(Invariant::I8);
        if self.guests[guest].absent(register) {
            self.findings.window(Window::AbsentCounter, false);
        } else if self.guests[guest].outcome(register, el, write) == Outcome::Executed {
            let context = self.guests[guest].context;
            self.violated(Invariant::I8, Kind::Undefined, Some(register), context, Party::Kvm, (0, 1), at);
        }
    }

    fn emulated(&mut self, value: u64, at: &At<'_>) {
        // KVM has run, and perhaps not come back to the guest yet.
        let Some(guest) = self.hosts[at.id].loaded.and_then(|context| self.guest(context)) else { return };
        let Some(Trapped { register, write, value: written, el }) = self.guests[guest].trapped.take() else {
            return;
        };
        let Some(register) = Register::decode(register) else { return };
        let running = Running { context: self.guests[guest].context, ..at.running };
        let at = At { running, ..*at };
        self.guest_access(guest, register, el, write.then_some(written), value, &at);
    }

    fn works(&mut self, at: &At<'_>) {
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
                Invariant::I5,
                Kind::LateInterrupt,
                None,
                at.running.context,
                Party::Kvm,
                (delay, passed),
                at,
            );
        }
    }

    fn interrupted(&mut self, at: &At<'_>) {
        let Some(guest) = self.hosts[at.id].loaded.and_then(|context| self.guest(context)) else { return };
        self.findings.premise(Invariant::I5);
        if self.guests[guest].interrupt() {
            return;
        }
        if self.guests[guest].lowered {
            self.findings.window(Window::Polled, false);
        } else {
            let context = self.guests[guest].context;
            self.violated(Invariant::I5, Kind::SpuriousInterrupt, None, context, Party::Kvm, (0, 1), at);
        }
    }

    fn noted(&mut self, code: u32, a: u64, _b: u64, at: &At<'_>) {
        let guest = self.guest(a as usize);
        match code {
            note::VCPU_LOAD => {
                self.hosts[at.id].loaded = Some(a as usize);
                if let Some(guest) = guest {
                    self.guests[guest].loaded = Some(at.id);
                }
            }
            note::VCPU_IS_PUT => {
                self.hosts[at.id].loaded = None;
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
