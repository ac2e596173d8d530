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
//! | [`key`] | what of a state its future depends on |
//! | `known` | what of a guest's registers is determined |
//! | [`owner`] | whose each counter is, and since when |
//! | [`counted`] | who ran while a counter counted |
//! | `residency` | who is loaded where: I9 |
//! | [`swap`] | what is seen amid vcpu_load and vcpu_put: I9 |
//! | `event` | a perf event, and its truth |
//! | `events` | what the host's and guests' perf events count, and when: I3, I4, I10 |
//! | `one_reg` | what a VMM reads and sets: I11 |
//! | `restores` | what KVM writes for a guest: I6, I7 |
//! | `effects` | when a guest's writes have their effect: I6 |
//! | [`order`] | what the host's driver synchronises before it goes on: I6 |
//! | `views` | what a guest reads: I1, I4, I7, I8 |
//! | `interrupts` | when a guest and the host are interrupted: I5 |
//! | `raised` | since when a guest's flags interrupt it |
//! | `progress` | whether somebody gets anywhere: I12 |
//! | `traffic` | what others write and the host's perf reads: I2, I3, I8, I10 |

#![forbid(unsafe_code)]
#![deny(missing_docs)]

pub mod counted;
mod effects;
mod event;
mod events;
pub mod finding;
pub mod guest;
pub mod host;
mod interrupts;
pub mod key;
mod known;
pub mod note;
mod one_reg;
pub mod order;
pub mod owner;
mod progress;
mod raised;
mod residency;
mod restores;
pub mod swap;
mod traffic;
mod views;
pub mod window;

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};

use pmu::access::Outcome;
use pmu::cpu::{Cpu, Overflow, Running};
use pmu::feature::Features;
use pmu::field::{mdcr_el2, pmcr};
use pmu::observer::{By, Observer, What};
use pmu::register::{Kind as Of, Register};
use pmu::registers::{COUNTERS, CYCLE};
use pmu::tally::{Class, World};
use serde::{Deserialize, Serialize};

use counted::{Counted, changes_counting};
use events::Events;
use finding::{Did, Findings, Invariant, Kind, Mutant, Party, Seen, Violation};
use guest::Guest;
use host::Host;
use traffic::{bits, value_of};
use window::Window;

/// Codes of the marks of entries of the host's software by the PMU's interrupt, and of guests' by theirs and for a report.
const HOST_PMU_IRQ: u16 = 1;
const GUEST_ENTRY: u16 = 16;
const PMU_IRQ: u16 = GUEST_ENTRY + HOST_PMU_IRQ;
/// Code of the marks of the host's entries by a timer's interrupt.
const TIMER: u16 = 2;
/// Codes of the marks of the host's entries when a thread is switched in, and out.
const TASK_IN: u16 = 6;
const TASK_OUT: u16 = 7;

/// All but PMCCNTR_EL0 and PMICNTR_EL0.
const EVENT_COUNTERS: u64 = (1 << CYCLE) - 1;

/// The counters that a write of PMCR_EL0 resets, of those that it reaches.
fn resets(pmcr: u64) -> u64 {
    (if pmcr & pmcr::P != 0 { EVENT_COUNTERS } else { 0 })
        | (if pmcr & pmcr::C != 0 { 1 << CYCLE } else { 0 })
}

/// What a VMM does before anything runs on a CPU is seen there.
const BEFORE_BOOT: Running = Running { context: 0, tally: 0, el: 2, guest: false, class: Class::HostEl2 };

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
    events: Events,
    findings: Findings,
    fault: Option<String>,
    /// What a guest reads is what is on the CPU, not what KVM has in memory.
    from_cpu: bool,
}

impl Judge {
    /// Of a machine with these CPUs and vCPUs, on which nothing has happened yet.
    #[must_use]
    pub fn new(cpus: &[Features], vcpus: Vec<VcpuSetup>) -> Self {
        let hosts = cpus.iter().enumerate().map(|(id, features)| Host::new(id, features.clone())).collect();
        let events = Events::new(cpus.len());
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
        let findings = Findings::default();
        Self { hosts, guests, by_context, events, findings, fault: None, from_cpu: true }
    }

    /// With a fault, which tests must notice.
    #[must_use]
    pub fn mutated(mut self, mutant: Mutant) -> Self {
        self.findings.mutant = Some(mutant);
        self
    }

    /// What has been found.
    #[must_use]
    pub fn findings(&self) -> &Findings {
        &self.findings
    }

    /// By what it has failed itself, if it has: what it has found is nothing then.
    #[must_use]
    pub fn fault(&self) -> Option<&str> {
        self.fault.as_deref()
    }

    /// What it has not seen anything of, it has seen pass by now: nothing is judged by that.
    pub(crate) fn catch_up(&mut self, cpus: &[Cpu]) {
        for (id, cpu) in cpus.iter().enumerate() {
            self.hosts[id].ideal.advance(cpu.now());
            if let Some(guest) = self.running(cpu) {
                self.guests[guest].catch_up(cpu.now());
            }
        }
    }

    pub(crate) fn guest(&self, context: usize) -> Option<usize> {
        self.by_context.get(context).copied().flatten()
    }

    pub(crate) fn running(&self, cpu: &Cpu) -> Option<usize> {
        cpu.running().filter(|running| running.guest).and_then(|running| self.guest(running.context))
    }
}

/// Where and when.
pub(crate) struct At<'a> {
    pub(crate) cpu: &'a Cpu,
    pub(crate) id: usize,
    pub(crate) world: &'a World,
    pub(crate) running: Running,
}

impl At<'_> {
    /// MDCR_EL2.TPM: every access of a guest to a Performance Monitors register traps, and executes nowhere else.
    pub(crate) fn guest_always_traps(&self) -> bool {
        self.cpu.read(Register::of(Of::MdcrEl2), 2) & mdcr_el2::TPM != 0
    }
}

/// What is broken, by whom, and how it should be.
#[derive(Clone, Copy)]
pub(crate) struct Broken {
    pub(crate) invariant: Invariant,
    pub(crate) kind: Kind,
    pub(crate) register: Option<Register>,
    pub(crate) victim: Party,
    pub(crate) other: Party,
    pub(crate) expected: u64,
    pub(crate) actual: u64,
    pub(crate) window: Option<Window>,
    pub(crate) since: Option<u64>,
}

impl Broken {
    /// To the host's loss, by KVM, if nothing else is said.
    pub(crate) fn new(invariant: Invariant, kind: Kind) -> Self {
        Self {
            invariant,
            kind,
            register: None,
            victim: Party::Host,
            other: Party::Kvm,
            expected: 0,
            actual: 0,
            window: None,
            since: None,
        }
    }
}

impl Observer for Judge {
    #[inline]
    fn see(&mut self, by: By, what: What, cpu: &Cpu, world: &World) {
        if self.fault.is_none() && !self.passes_by(by, what, cpu) {
            self.look(by, what, cpu, world);
        }
    }
}

/// Is it a register that has the value of a counter, or is one of the counter that PMSELR_EL0 selects?
#[inline]
fn of_counter(encoding: u16) -> bool {
    Register::decode(encoding).is_some_and(|register| {
        matches!(register.kind(), Of::Pmevcntr | Of::Pmccntr | Of::Pmicntr | Of::Pmxevcntr | Of::Pmxevtyper)
    })
}

/// What a panic says.
#[cold]
fn said(panic: &(dyn Any + Send)) -> &str {
    let of_string = panic.downcast_ref::<String>().map(String::as_str);
    of_string.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("a panic")
}

impl Judge {
    /// What the host executes by the million, and nothing is judged by, or changed: an ISB, and a read of what is no
    /// counter's. Not where anything else is to be looked at, too.
    #[inline]
    fn passes_by(&mut self, by: By, what: What, cpu: &Cpu) -> bool {
        let host = &mut self.hosts[cpu.id()];
        let Some(running) = cpu.running() else { return false };
        if running.guest || cpu.overflows().times() != host.overflows {
            return false;
        }
        let (did, a, b) = match what {
            What::Isb => {
                host.synchronised();
                (Did::Isb, 0, 0)
            }
            What::Read { register, value } => {
                // What KVM reads may be for an access that has trapped.
                if of_counter(register) || (by == By::Kvm && host.loaded.is_some()) {
                    return false;
                }
                (Did::Mrs, u64::from(register), value)
            }
            _ => return false,
        };
        self.saw(did, a, b, Self::party(by, running), running.el, cpu);
        true
    }

    /// What it leaves half done is not looked at any more.
    #[inline(never)]
    fn look(&mut self, by: By, what: What, cpu: &Cpu, world: &World) {
        let judged = catch_unwind(AssertUnwindSafe(|| self.judges(by, what, cpu, world)));
        if let Err(panic) = judged {
            self.fault = Some(format!("{what:?}: {}", said(&*panic)));
        }
    }

    fn judges(&mut self, by: By, what: What, cpu: &Cpu, world: &World) {
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
                self.hosts[id].counted.account(from);
                self.hosts[id].counted.idled(now);
                if let Some(guest) = self.running(cpu) {
                    self.guests[guest].idled(from, cpu);
                }
            }
            _ => {
                self.hosts[id].ideal.advance(now);
                if let Some(guest) = self.running(cpu) {
                    self.guests[guest].catch_up(now);
                }
            }
        }
        let reset = matches!(what, What::Reset);
        if reset {
            self.hosts[id].ideal.warm_reset(world);
        }
        let running = match (cpu.running(), what) {
            (Some(running), _) => running,
            (None, What::Note { .. }) => BEFORE_BOOT,
            _ => return,
        };
        let at = At { cpu, id, world, running };
        if cpu.overflows().times() != self.hosts[id].overflows {
            self.overflowed(&at);
        }
        if !matches!(what, What::Isb | What::Read { .. }) {
            self.goes_on(&at);
        }
        self.seen(by, what, &at);
        if reset {
            self.events.reset(&self.hosts[id], &at);
            self.hosts[id].counted.runs(Self::party(By::Software, running), cpu);
        }
        match what {
            What::Runs { last } => self.runs(last, &at),
            What::Read { register, value } => self.accessed(by, register, None, value, &at),
            What::Wrote { register, value } => self.accessed(by, register, Some(value), value, &at),
            What::Taken { register, write, value, to, .. } => {
                self.taken(by, (register, write, value), to, &at);
            }
            What::Emulated { value } => self.emulated(value, &at),
            What::Exited => {
                if let Some(guest) = self.hosts[id].loaded.and_then(|context| self.guest(context)) {
                    self.guests[guest].exits();
                }
            }
            What::Mark { code: PMU_IRQ, .. } => self.interrupted(&at),
            What::Mark { code, .. } if code < GUEST_ENTRY => {
                if matches!(code, HOST_PMU_IRQ | TIMER) {
                    self.hosts[id].synchronised();
                }
                if matches!(code, TASK_IN | TASK_OUT) {
                    self.handed_over(&at);
                }
                self.host_entered(code, &at);
            }
            What::Worked { from } => self.got_on(from, false, &at),
            What::Idled { from } => self.got_on(from, true, &at),
            // Software has nothing to say for KVM.
            What::Note { code, a, b } => match by {
                By::Software if matches!(code, note::MASKED | note::UNMASKED) => self.masks(code, &at),
                By::Software if code == note::HOST_PMUSERENR => self.hosts[id].has_userenr(a, world),
                By::Software => self.event_noted(code, a, &at),
                By::Kvm => self.noted(code, a, b, &at),
            },
            What::Isb => {
                self.hosts[id].synchronised();
                if let Some(guest) = self.running(cpu) {
                    self.context_synchronised(guest, &at);
                }
            }
            What::Reset | What::Mark { .. } => {}
        }
        // What it is entered with is compared once the access for which it left is emulated.
        if let Some(guest) = self.running(cpu)
            && self.guests[guest].fresh
            && !matches!(what, What::Runs { .. })
        {
            self.guests[guest].fresh = false;
            self.entered(guest, &at);
            self.context_synchronised(guest, &at);
            self.shared_with(running.context, &at);
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

    #[cold]
    fn overflowed(&mut self, at: &At<'_>) {
        let host = &mut self.hosts[at.id];
        for Overflow { counter, cycle } in at.cpu.overflows().since(host.overflows) {
            let party = host.owners[usize::from(counter)];
            let (el, did, a) = (at.running.el, Did::Overflow, u64::from(counter));
            self.findings.see(Seen { cpu: at.id, cycle, el, party, did, a, b: 0 });
        }
        host.overflows = at.cpu.overflows().times();
    }

    fn seen(&mut self, by: By, what: What, at: &At<'_>) {
        let (did, a, b) = match what {
            What::Read { register, value } => (Did::Mrs, u64::from(register), value),
            What::Wrote { register, value } => (Did::Msr, u64::from(register), value),
            What::Taken { register, write, value, to, .. } => {
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
            What::Note { code: note::GET_ONE_REG, a, b } => (Did::GetOneReg, a, b),
            What::Note { code: note::SET_ONE_REG, a, b } => (Did::SetOneReg, a, b),
            What::Note { code, a, .. } => (Did::Note, u64::from(code), a),
            What::Worked { .. } | What::Exited | What::Idled { .. } | What::Reset => return,
        };
        self.saw(did, a, b, Self::party(by, at.running), at.running.el, at.cpu);
    }

    #[inline]
    fn saw(&mut self, did: Did, a: u64, b: u64, party: Party, el: u8, cpu: &Cpu) {
        self.findings.see(Seen { cpu: cpu.id(), cycle: cpu.now(), el, party, did, a, b });
    }

    fn runs(&mut self, last: Option<Running>, at: &At<'_>) {
        self.hosts[at.id].runs(at.running, at.world);
        let party = Self::party(By::Software, at.running);
        self.hosts[at.id].counted.runs(party, at.cpu);
        self.hosts[at.id].synchronised(); // an exception, or the return from one
        if let Some(last) = last.filter(|last| last.el > at.running.el) {
            self.left_kernel(&At { running: last, ..*at });
        }
        if !at.running.guest {
            if at.running.el == 0 {
                self.program_runs(at);
            }
            return;
        }
        let Some(guest) = self.guest(at.running.context) else { return };
        self.guests[guest].runs(at.running, at.cpu, at.world);
        if last.is_some_and(|last| last.context == at.running.context) {
            self.context_synchronised(guest, at);
            return;
        }
        self.guests[guest].fresh = true;
        self.findings.premise(Invariant::I9);
        if self.guests[guest].loaded != Some(at.id) {
            let victim = Party::Guest(at.running.context);
            self.violated(Broken { victim, ..Broken::new(Invariant::I9, Kind::NotLoaded) }, at);
        }
    }

    /// An invariant is broken here and now.
    pub(crate) fn violated(&mut self, broken: Broken, at: &At<'_>) {
        let Broken { invariant, kind, register, victim, other, expected, actual, window, since } = broken;
        let n = register.and_then(|register| Host::counter(at.cpu, register));
        let n = n.filter(|&n| n < COUNTERS);
        // What is no counter's on the CPU is the controls', which go with the counters below MDCR_EL2.HPMN.
        let (of, counted) = match n {
            Some(n) if self.is_on_cpu(victim, n, at) => {
                let more = actual.wrapping_sub(expected) as i64 > 0 || !matches!(other, Party::Kvm);
                let counted =
                    if more && kind.of_value() { self.counted(victim, kind, n, at) } else { Vec::new() };
                (Some(n as u8), counted)
            }
            _ => (None, Vec::new()),
        };
        let owned = self.hosts[at.id].owners.last(of);
        let of = |party| counted.iter().filter(|one| one.party == party).map(|one| one.cycles).sum::<u64>();
        let most = counted.iter().max_by_key(|one| of(one.party)).filter(|_| other == Party::Nobody);
        let other = most.map_or(other, |counted| counted.party);
        let violation = Violation {
            invariant,
            kind,
            cpu: at.id,
            cycle: at.cpu.now(),
            register: register.map(Register::encoding),
            counter: n.map(|n| n as u8),
            victim,
            other,
            expected,
            actual,
            window,
            since,
            owned,
            counted,
            times: 1,
            before: Vec::new(),
        };
        self.findings.violated(violation);
    }

    /// Is counter `n` of the victim's that of the CPU, and not one that KVM keeps for it elsewhere?
    fn is_on_cpu(&self, victim: Party, n: usize, at: &At<'_>) -> bool {
        let direct = || at.cpu.would(value_of(n), 1, false) == Outcome::Executed;
        !matches!(victim, Party::Guest(_)) || self.hosts[at.id].owners[n] == victim || direct()
    }

    /// Who was counted in counter `n` of the victim's, and should not have been.
    fn counted(&mut self, victim: Party, kind: Kind, n: usize, at: &At<'_>) -> Vec<Counted> {
        let host = &mut self.hosts[at.id];
        host.counted.account(at.cpu.now());
        let Party::Guest(context) = victim else {
            let guests = self.events.admits_guests(n, at.id);
            return host.counted.others(n, |party| guests || !matches!(party, Party::Guest(_)));
        };
        let here = host.counted.others(n, |party| party == victim);
        // What is read out of memory, or about to be written, has been saved before.
        let saved = here.is_empty() || matches!(kind, Kind::Restored | Kind::OneReg);
        match self.guest(context) {
            Some(guest) if saved => self.guests[guest].counted[n].clone(),
            Some(guest) => self.guests[guest].counted_with(n, here),
            None => here,
        }
    }

    /// What KVM reads or writes of a counter is for the vCPU that is loaded.
    fn for_nobody(&mut self, register: Register, value: u64, at: &At<'_>) {
        if self.hosts[at.id].loaded.is_none() && Host::counter(at.cpu, register).is_some() {
            let broken = Broken::new(Invariant::I9, Kind::NotLoaded);
            self.violated(Broken { register: Some(register), actual: value, ..broken }, at);
        }
    }

    fn accessed(&mut self, by: By, encoding: u16, written: Option<u64>, value: u64, at: &At<'_>) {
        let Some(register) = Register::decode(encoding) else { return };
        if at.running.guest {
            if let Some(guest) = self.guest(at.running.context) {
                self.guests[guest].trapped = None;
                let value = if written.is_none() { self.as_wide(guest, register, value) } else { value };
                self.guest_access(guest, register, at.running.el, written, value, at);
            }
        } else if by == By::Software {
            self.host_access(register, written, value, at);
            if written.is_some() {
                self.rewritten(register, at);
            }
        } else {
            if written.is_some() && register.kind() == Of::MdcrEl2 {
                self.mdcr_written(value, at);
                self.hpmn_written(value, at);
                self.range_passes(at);
            }
            if written.is_none() {
                self.kvm_read(register, at);
            }
            self.kvm_access(register, written, at);
            self.for_nobody(register, value, at);
        }
        if written.is_none() {
            return;
        }
        let party = Self::party(by, at.running);
        if party != Party::Host {
            self.others_wrote(party, register, value, at);
        }
        let host = &mut self.hosts[at.id];
        let owner = match party {
            Party::Kvm => host.loaded.map_or(Party::Host, Party::Guest),
            party => party,
        };
        host.of_registers[register.id()] = owner;
        if changes_counting(register.kind()) {
            host.counted.runs(Self::party(By::Software, at.running), at.cpu);
            if register.kind() == Of::Pmcr {
                for n in bits(resets(value) & at.cpu.registers().access_mask(at.running.el)) {
                    host.counted.written(n, at.cpu.now());
                }
            }
        }
        if let Some(n) = Host::counter(at.cpu, register) {
            host.owners.pass(n, owner, at.cpu.now());
            host.counted.written(n, at.cpu.now());
        }
    }
}
