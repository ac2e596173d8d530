//! A CPU with the host's kernel and two vCPUs, for the smallest runs that show something.

use judge::finding::{Invariant, Kind, Mutant};
use judge::window::{WINDOWS, Window};
use judge::{Judge, VcpuSetup, note};
use pmu::burst::{Burst, Operation};
use pmu::feature::Features;
use pmu::field::{mdcr_el2, pmcr, pmevtyper};
use pmu::machine::{Costs, Machine};
use pmu::observer::By;
use pmu::register::{Kind as Of, Register};
use pmu::registers::{CPU_CYCLES, SW_INCR};
use pmu::tally::ONE;

pub const EVENT: u16 = 0x08;
/// Of a guest. The CPU has two more, which are the host's.
pub const COUNTERS: u8 = 4;
pub const HOST: usize = 0;
pub const GUEST: usize = 1;
pub const OTHER: usize = 2;
pub const DELAY: u64 = 7;
/// Cycles up to an overflow.
pub const LEFT: u64 = 100;
pub const CYCLE: u64 = 1 << 31;
pub const HOST_PMU_IRQ: u16 = 1;
pub const GUEST_PMU_IRQ: u16 = 17;
/// The guest has its range to itself.
pub const DIVIDED: u64 = COUNTERS as u64 | mdcr_el2::HPME;
/// And all of its accesses trap.
pub const TRAPPED: u64 = DIVIDED | mdcr_el2::TPM;

/// What is found, and the tolerance that it exceeds.
pub type Found = Vec<(Invariant, Kind, Option<Window>)>;

pub fn of(kind: Of) -> Register {
    Register::of(kind)
}

/// What the host's driver executes.
#[derive(Clone, Copy)]
pub enum Drive {
    Msr(Register, u64),
    Isb,
}

/// Accesses take no time; `EVENT` happens twice a cycle.
pub struct Board(pub Machine<Judge>);

impl Board {
    pub fn new(mutant: Option<Mutant>) -> Self {
        let implemented = [SW_INCR, EVENT, CPU_CYCLES].iter().fold(0, |events, event| events | 1 << event);
        let features = Features {
            counters: COUNTERS + 2,
            pmi_delay: DELAY,
            pmceid0: Some(implemented),
            ..Features::default()
        };
        let costs = Costs { mrs: 0, msr: 0, isb: 0 };
        let mut machine = Machine::new(vec![features.clone()], &[EVENT], costs).expect("possible");
        machine.add_profile(&[(EVENT, 2 * ONE)]).expect("possible");
        for guest in [false, true, true] {
            machine.add_context(guest);
        }
        let vcpu = |context, pmuver| VcpuSetup { context, counters: COUNTERS, pmuver, denied: Vec::new() };
        let mut judge = Judge::new(&[features], vec![vcpu(GUEST, 6), vcpu(OTHER, 5)]);
        if let Some(mutant) = mutant {
            judge = judge.mutated(mutant);
        }
        let mut board = Self(machine.observed_by(judge));
        board.runs(HOST, 2);
        board
    }

    pub fn runs(&mut self, context: usize, el: u8) {
        let running = self.0.cpu(0).expect("it exists").running();
        if running.is_none_or(|running| (running.context, running.el) != (context, el)) {
            self.0.set_running(0, context, el, 0).expect("they exist");
        }
    }

    fn executed(&mut self, context: usize, el: u8, by: By, register: Register, write: Option<u64>) -> u64 {
        self.runs(context, el);
        let mut burst = Burst::default();
        let subject = u32::from(register.encoding());
        match write {
            Some(value) => burst.post(Operation::Msr, subject, value),
            None => {
                burst.post_read(Operation::Mrs, subject);
            }
        }
        self.0.execute_by(by, 0, &mut burst, 0, false).expect("it runs");
        burst.values().first().copied().unwrap_or(0)
    }

    pub fn guest_writes(&mut self, register: Register, value: u64) {
        self.executed(GUEST, 1, By::Software, register, Some(value));
    }

    pub fn guest_reads(&mut self, register: Register) -> u64 {
        self.executed(GUEST, 1, By::Software, register, None)
    }

    /// A write of the guest's that has trapped is emulated.
    pub fn sets(&mut self, register: Register, value: u64) {
        self.guest_writes(register, value);
        self.0.emulated(0, 0).expect("it exists");
    }

    /// A read of the guest's that has trapped is emulated, and finds `value`.
    pub fn gets(&mut self, register: Register, value: u64) {
        self.guest_reads(register);
        self.0.emulated(0, value).expect("it exists");
    }

    /// An access of the guest's that has trapped is UNDEFINED for it.
    pub fn undefined(&mut self, register: Register) {
        self.guest_reads(register);
        self.note(note::INJECT_UNDEF, GUEST as u64, 0);
    }

    /// The other guest's own, whose event counters have 32 bits, the CPU's 64.
    pub fn other_writes(&mut self, register: Register, value: u64) {
        self.executed(OTHER, 1, By::Software, register, Some(value));
    }

    pub fn other_reads(&mut self, register: Register) -> u64 {
        self.executed(OTHER, 1, By::Software, register, None)
    }

    pub fn host_writes(&mut self, register: Register, value: u64) {
        self.drives(&[Drive::Msr(register, value), Drive::Isb]);
    }

    /// The host's driver does.
    pub fn drives(&mut self, each: &[Drive]) {
        self.runs(HOST, 2);
        let mut burst = Burst::default();
        for drive in each {
            match *drive {
                Drive::Msr(register, value) => {
                    burst.post(Operation::Msr, u32::from(register.encoding()), value);
                }
                Drive::Isb => burst.post(Operation::Isb, 0, 0),
            }
        }
        self.0.execute_by(By::Software, 0, &mut burst, 0, false).expect("it runs");
    }

    pub fn host_reads(&mut self, register: Register) -> u64 {
        self.executed(HOST, 2, By::Software, register, None)
    }

    pub fn kvm_writes(&mut self, register: Register, value: u64) {
        self.executed(HOST, 2, By::Kvm, register, Some(value));
    }

    pub fn pokes(&mut self, register: Register, value: u64) {
        self.0.poke(0, register.encoding(), value).expect("it exists");
    }

    pub fn note(&mut self, code: u32, a: u64, b: u64) {
        self.0.note(0, code, a, b).expect("it exists");
    }

    pub fn mark(&mut self, code: u16) {
        self.0.mark(0, code, 0, 0).expect("it exists");
    }

    pub fn passes(&mut self, cycles: u64) {
        self.0.charge(0, 0, cycles).expect("it exists");
    }

    pub fn works(&mut self, context: usize, el: u8, cycles: u64) {
        let (done, ..) = self.0.work(0, context, el, 0, cycles).expect("it exists");
        assert_eq!(done, cycles, "nothing on the CPU interrupts it");
        self.exits();
    }

    pub fn exits(&mut self) {
        self.runs(HOST, 2);
        self.0.guest_timing_exit(0, 0, 0).expect("it exists");
    }

    pub fn loads(&mut self, context: usize, mdcr: u64) {
        self.runs(HOST, 2);
        self.note(note::VCPU_LOAD, context as u64, 0);
        self.kvm_writes(of(Of::MdcrEl2), mdcr);
        self.note(note::VCPU_LOADED, context as u64, 0);
    }

    pub fn puts(&mut self, context: usize) {
        self.runs(HOST, 2);
        self.note(note::VCPU_PUT, context as u64, 0);
        self.kvm_writes(of(Of::MdcrEl2), u64::from(COUNTERS) + 2);
        self.note(note::VCPU_IS_PUT, context as u64, 0);
    }

    /// The guest, whose accesses trap, has written all that is UNKNOWN; `value` to PMCR_EL0.
    pub fn settles(&mut self, value: u64) {
        let all = u64::from(u32::MAX);
        self.sets(of(Of::Pmcr), value & !pmcr::E);
        for kind in [Of::Pmcntenclr, Of::Pmintenclr, Of::Pmovsclr] {
            self.sets(of(kind), all);
        }
        for n in 0..COUNTERS {
            self.sets(Register::pmevtyper(n), u64::from(EVENT));
            self.sets(Register::pmevcntr(n), 0);
        }
        for kind in [Of::Pmccntr, Of::Pmccfiltr, Of::Pmselr, Of::Pmuserenr] {
            self.sets(of(kind), 0);
        }
        self.sets(of(Of::Pmcr), value);
    }

    /// Its cycle counter overflows after `LEFT` cycles, with an interrupt.
    pub fn will_overflow(&mut self) {
        self.loads(GUEST, TRAPPED);
        self.settles(pmcr::LC | pmcr::E);
        self.sets(of(Of::Pmccntr), 0_u64.wrapping_sub(LEFT));
        self.sets(of(Of::Pmintenset), CYCLE);
        self.sets(of(Of::Pmcntenset), CYCLE);
    }

    /// The guest's accesses trap, its counter `n` is on the CPU and counts `EVENT` there.
    pub fn has_on_cpu(&mut self, n: u8) {
        self.loads(GUEST, TRAPPED);
        self.settles(pmcr::LC | pmcr::E);
        self.sets(of(Of::Pmcntenset), 1 << n);
        self.exits();
        self.kvm_writes(Register::pmevcntr(n), 0);
        self.kvm_writes(Register::pmevtyper(n), u64::from(EVENT));
        self.kvm_writes(of(Of::Pmcntenset), 1 << n);
        self.kvm_writes(of(Of::Pmcr), pmcr::LC | pmcr::E);
    }

    /// Its interrupt condition is true.
    pub fn overflows(&mut self) {
        self.will_overflow();
        self.passes(LEFT);
    }

    /// The host's is, of its own cycle counter.
    pub fn host_overflows(&mut self) {
        self.host_writes(of(Of::Pmccfiltr), pmevtyper::NSH);
        self.host_writes(of(Of::Pmccntr), 0_u64.wrapping_sub(LEFT));
        self.host_writes(of(Of::Pmintenset), CYCLE);
        self.host_writes(of(Of::Pmcntenset), CYCLE);
        self.host_writes(of(Of::Pmcr), pmcr::LC | pmcr::E);
        self.passes(LEFT);
    }

    pub fn opens(&mut self, id: u64, attributes: u16) {
        let attributes = attributes | note::attribute::ENABLED;
        self.tells(note::EVENT_OPEN, id << 32 | u64::from(attributes) << 16 | u64::from(EVENT));
    }

    /// What the host's perf tells.
    pub fn tells(&mut self, code: u32, value: u64) {
        self.runs(HOST, 2);
        let mut burst = Burst::default();
        burst.post(Operation::Note, code, value);
        self.0.execute_by(By::Software, 0, &mut burst, 0, false).expect("it runs");
    }

    /// The driver puts an event on counter `n`, and starts that.
    pub fn starts(&mut self, id: u64, n: u8, filter: u64) {
        self.host_writes(of(Of::Pmcr), 0);
        self.tells(note::EVENT_ON, id << 8 | u64::from(n));
        self.host_writes(Register::pmevcntr(n), 0);
        self.host_writes(Register::pmevtyper(n), u64::from(EVENT) | filter);
        self.host_writes(of(Of::Pmcntenset), 1 << n);
        self.host_writes(of(Of::Pmcr), pmcr::E);
    }

    /// An event of the host's counts on a counter of its own.
    pub fn counts(&mut self) {
        self.opens(1, 0);
        self.starts(1, COUNTERS, pmevtyper::NSH);
    }

    pub fn finds(&mut self, id: u64, count: u64, enabled: u64, running: u64) {
        for (code, value) in [
            (note::EVENT_READ, id),
            (note::EVENT_TIME_ENABLED, enabled),
            (note::EVENT_TIME_RUNNING, running),
            (note::EVENT_COUNT, count),
        ] {
            self.tells(code, value);
        }
    }

    pub fn found(&self) -> Found {
        let each = self.0.observer().findings().violations();
        each.iter().map(|found| (found.invariant, found.kind, found.window)).collect()
    }

    /// How often a tolerance was used up to its edge.
    pub fn edges(&self, window: Window) -> u64 {
        let name = WINDOWS[window as usize].name;
        let mut each = self.0.observer().findings().windows();
        each.find(|(of, ..)| *of == name).expect("there is one").2
    }
}
