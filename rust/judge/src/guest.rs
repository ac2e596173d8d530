//! A vCPU's PMU as it should be: an ideal one of its own, which runs when the vCPU does.
//!
//! It is a CPU of the core with as many counters as the guest has. It executes the accesses that the guest makes and
//! sees the events that really happen in the guest; nobody else ever touches it. What the guest reads on the machine is
//! what it reads there.

use pmu::access::Outcome;
use pmu::cpu::{Cpu, Running};
use pmu::feature::Features;
use pmu::field::pmcr;
use pmu::register::{Kind as Of, Register};
use pmu::registers::CYCLE;
use pmu::tally::World;
use serde::{Deserialize, Serialize};

/// A guest's access that has trapped and is not emulated yet.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub struct Trapped {
    /// Register encoding.
    pub register: u16,
    /// A write.
    pub write: bool,
    /// What is written.
    pub value: u64,
    /// Exception level that made it.
    pub el: u8,
}

/// What the guest, or whoever set its registers up, has determined, and what is UNKNOWN since the reset.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
struct Known {
    counters: u64,
    types: u64,
    enables: u64,
    interrupts: u64,
    flags: u64,
    select: bool,
}

/// A vCPU as the judge sees it.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Guest {
    /// Its context on the machine.
    pub context: usize,
    /// Its PMU as it should be.
    pub ideal: Cpu,
    /// Events that the VM's filter denies.
    denied: Vec<u16>,
    known: Known,
    /// What has trapped.
    pub trapped: Option<Trapped>,
    /// The machine's time up to which the ideal has got, while the guest runs.
    up_to: u64,
    /// Its interrupt condition has been ended by itself since its last exit to KVM's run loop.
    pub lowered: bool,
    /// It has been entered, and what it could read has not been compared since.
    pub fresh: bool,
    /// The pCPU on which it is loaded.
    pub loaded: Option<usize>,
    /// The machine's time at which its interrupt condition became true, while it is.
    pub since: Option<u64>,
    /// Its PMU interrupts in a row.
    pub(crate) in_a_row: u32,
}

/// How a read compares.
pub enum Compared {
    /// It is what it should be.
    Same,
    /// UNKNOWN up to now.
    Adopted,
    /// It should be this, in these bits.
    Differs {
        /// What the ideal reads.
        expected: u64,
        /// The bits that are compared.
        mask: u64,
    },
}

impl Guest {
    /// A vCPU after its reset.
    #[must_use]
    pub fn new(context: usize, features: &Features, counters: u8, pmuver: u8, denied: Vec<u16>) -> Self {
        let features = Features {
            counters,
            pmuver,
            fgt: 0,
            icntr: false,
            pmi_delay: 0,
            pmceid0: features.pmceid0,
            pmceid1: features.pmceid1,
            ..Features::default()
        };
        let ideal = Cpu::new(context, features);
        Self {
            context,
            ideal,
            denied,
            known: Known::default(),
            trapped: None,
            up_to: 0,
            lowered: false,
            fresh: false,
            loaded: None,
            since: None,
            in_a_row: 0,
        }
    }

    /// It runs on `cpu` from now on, or goes on there at another level or under another profile.
    pub fn runs(&mut self, running: Running, cpu: &Cpu, world: &World) {
        self.up_to = cpu.now();
        self.ideal.follow(world, running);
    }

    /// It has run on `cpu` up to now.
    #[inline]
    pub fn catch_up(&mut self, now: u64) {
        let passed = now.wrapping_sub(self.up_to);
        if passed > 0 {
            self.ideal.advance(self.ideal.now().saturating_add(passed));
            self.up_to = now;
            self.find_since();
        }
    }

    /// Takes down since when its interrupt condition is true.
    #[inline]
    fn find_since(&mut self) {
        if !self.interrupt() {
            self.since = None;
        } else if self.since.is_none() {
            self.since = Some(self.up_to.saturating_sub(self.interrupt_for()));
        }
    }

    /// It was in WFI up to `now`, on a CPU that has not been taken from it.
    pub fn idled(&mut self, from: u64, now: u64) {
        self.catch_up(from);
        self.ideal.idle(self.ideal.now().saturating_add(now.wrapping_sub(from)));
        self.up_to = now;
        self.find_since();
    }

    /// What becomes of an access on the ideal.
    #[must_use]
    pub fn outcome(&self, register: Register, el: u8, write: bool) -> Outcome {
        self.ideal.would(register, el, write)
    }

    /// Is the counter that an access concerns one that the guest has not? `None` of a register without one.
    #[must_use]
    pub fn counter(&self, register: Register) -> Option<usize> {
        match register.kind() {
            Of::Pmevcntr | Of::Pmevtyper => Some(usize::from(register.index())),
            Of::Pmccntr | Of::Pmccfiltr => Some(CYCLE),
            Of::Pmxevcntr | Of::Pmxevtyper => {
                Some(self.ideal.read(Register::of(Of::Pmselr), 1) as usize & 31)
            }
            _ => None,
        }
    }

    /// Has the guest no such counter?
    #[must_use]
    pub fn absent(&self, register: Register) -> bool {
        let implemented = self.ideal.registers().implemented();
        self.counter(register)
            .is_some_and(|n| implemented >> n & 1 == 0 || n == CYCLE && register.kind() == Of::Pmxevcntr)
    }

    /// Does the VM's filter deny what counter `n` is to count?
    fn denied(&self, n: usize) -> bool {
        !self.denied.is_empty() && self.denied.contains(&self.ideal.registers().event(n))
    }

    /// Compares what a read at `el` has given, or what is there to be read.
    pub fn compare(&mut self, world: &World, register: Register, el: u8, actual: u64) -> Compared {
        let expected = self.ideal.read(register, el);
        let all = self.ideal.registers().implemented();
        let (mask, unknown) = match register.kind() {
            // LC is RES1 where the guest has no AArch32; what KVM has for it is its own. IMP and IDCODE are the CPU's.
            Of::Pmcr => (pmcr::E | pmcr::N | pmcr::X | pmcr::DP | pmcr::LP, 0),
            Of::Pmcntenset | Of::Pmcntenclr => (!0, all & !self.known.enables),
            Of::Pmintenset | Of::Pmintenclr => (!0, all & !self.known.interrupts),
            Of::Pmovsset | Of::Pmovsclr => (!0, all & !self.known.flags),
            Of::Pmselr => (0x1f, if self.known.select { 0 } else { !0 }),
            Of::Pmuserenr => (!0, 0),
            Of::Pmevcntr | Of::Pmccntr | Of::Pmxevcntr | Of::Pmevtyper | Of::Pmccfiltr | Of::Pmxevtyper => {
                let n = self.counter(register).unwrap_or(0);
                let known = self.known.types >> n & 1 != 0 || n == CYCLE;
                let of_value = matches!(register.kind(), Of::Pmevcntr | Of::Pmccntr | Of::Pmxevcntr);
                let certain = if of_value {
                    known && (self.known.counters & self.known.enables) >> n & 1 != 0 && !self.denied(n)
                } else {
                    known
                };
                (!0, if certain { 0 } else { !0 })
            }
            _ => return Compared::Same,
        };
        let differing = (expected ^ actual) & mask;
        if differing & unknown != 0 {
            let adopted = expected & !unknown | actual & unknown;
            self.adopt(world, register, adopted);
        }
        match (differing & !unknown, differing & unknown) {
            (0, 0) => Compared::Same,
            (0, _) => Compared::Adopted,
            _ => Compared::Differs { expected, mask: mask & !unknown },
        }
    }

    /// What was UNKNOWN is this.
    fn adopt(&mut self, world: &World, register: Register, value: u64) {
        let all = self.ideal.registers().implemented();
        let (set, clear) = match register.kind() {
            Of::Pmcntenset | Of::Pmcntenclr => (Of::Pmcntenset, Of::Pmcntenclr),
            Of::Pmintenset | Of::Pmintenclr => (Of::Pmintenset, Of::Pmintenclr),
            Of::Pmovsset | Of::Pmovsclr => (Of::Pmovsset, Of::Pmovsclr),
            _ => {
                self.write(world, register, 1, value);
                return;
            }
        };
        self.write(world, Register::of(clear), 1, all & !value);
        self.write(world, Register::of(set), 1, value);
    }

    /// The guest writes.
    pub fn write(&mut self, world: &World, register: Register, el: u8, value: u64) {
        let before = self.ideal.registers().interrupt();
        let known = &mut self.known;
        let counter = match register.kind() {
            Of::Pmevcntr | Of::Pmevtyper => usize::from(register.index()),
            _ => self.ideal.read(Register::of(Of::Pmselr), 1) as usize & 31,
        };
        match register.kind() {
            Of::Pmcntenset | Of::Pmcntenclr => known.enables |= value,
            Of::Pmintenset | Of::Pmintenclr => known.interrupts |= value,
            Of::Pmovsset | Of::Pmovsclr => known.flags |= value,
            Of::Pmselr => known.select = true,
            Of::Pmevcntr | Of::Pmxevcntr => known.counters |= 1 << counter,
            Of::Pmevtyper | Of::Pmxevtyper => known.types |= 1 << counter,
            Of::Pmccntr => known.counters |= 1 << CYCLE,
            Of::Pmccfiltr => known.types |= 1 << CYCLE,
            Of::Pmcr => {
                if value & pmcr::P != 0 {
                    known.counters |= (1 << CYCLE) - 1;
                }
                if value & pmcr::C != 0 {
                    known.counters |= 1 << CYCLE;
                }
            }
            _ => {}
        }
        self.ideal.write(world, register, el, value);
        self.lowered |= before && !self.ideal.registers().interrupt();
        self.find_since();
    }

    /// Is its interrupt condition true, and known to be?
    #[must_use]
    pub fn interrupt(&self) -> bool {
        self.ideal.registers().interrupt()
    }

    /// For how many cycles of the guest's it has been.
    #[must_use]
    pub fn interrupt_for(&self) -> u64 {
        self.ideal.now().wrapping_sub(self.ideal.raised())
    }
}
