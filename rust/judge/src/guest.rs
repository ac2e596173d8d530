//! A vCPU's PMU as it should be: an ideal one of its own, which runs when the vCPU does.
//!
//! It is a CPU of the core with as many counters as the guest has. It executes the accesses that the guest makes and
//! sees the events that really happen in the guest; nobody else ever touches it. What the guest reads on the machine is
//! what it reads there.

use pmu::access::Outcome;
use pmu::cpu::{Cpu, Running};
use pmu::feature::{Features, PMUV3P5};
use pmu::field::{pmcr, pmevtyper};
use pmu::register::{Kind as Of, Register};
use pmu::registers::{CHAIN, CPU_CYCLES, CYCLE, SW_INCR};
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
    /// PMCR_EL0.LC as written: RES1 here, where software writes a 1 (SBOP), and KVM's emulation goes by what it wrote.
    long_cycles: bool,
}

/// The value of a register in which the ideal does not keep all that is written.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
struct Written {
    types: [u64; CYCLE + 1],
    pmcr: u64,
}

/// A vCPU as the judge sees it.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Guest {
    /// Its context on the machine.
    pub context: usize,
    /// Its PMU as it should be.
    pub ideal: Cpu,
    /// Events that the VM's filter denies.
    pub(crate) denied: Vec<u16>,
    known: Known,
    written: Written,
    /// The filter is new to the ideal.
    refilter: bool,
    /// What has trapped.
    pub trapped: Option<Trapped>,
    /// What it reads has been read from the CPU: by itself, or by KVM for the access that has trapped.
    pub(crate) from_cpu: bool,
    /// The machine's time up to which the ideal has got, while the guest runs.
    up_to: u64,
    /// Its interrupt condition has been ended by itself since its last exit to KVM's run loop.
    pub lowered: bool,
    /// It has been entered, and what it could read has not been compared since.
    pub fresh: bool,
    /// It is being put.
    pub leaving: bool,
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
            refilter: !denied.is_empty(),
            denied,
            known: Known::default(),
            written: Written::default(),
            trapped: None,
            from_cpu: true,
            up_to: 0,
            lowered: false,
            fresh: false,
            leaving: false,
            loaded: None,
            since: None,
            in_a_row: 0,
        }
    }

    /// Userspace sets its number of counters, before it runs.
    pub fn set_counters(&mut self, world: &World, counters: u8) {
        let features = Features { counters, ..self.ideal.registers().features().clone() };
        let before = std::mem::replace(&mut self.ideal, Cpu::new(self.context, features));
        let of = |kind| Register::of(kind);
        let counters = (0..counters).flat_map(|n| [Register::pmevcntr(n), Register::pmevtyper(n)]);
        let others = [Of::Pmccntr, Of::Pmccfiltr, Of::Pmcntenset, Of::Pmintenset, Of::Pmovsset].map(of);
        let last = [Of::Pmselr, Of::Pmuserenr, Of::Pmcr].map(of);
        for register in counters.chain(others).chain(last) {
            self.ideal.write(world, register, 1, before.read(register, 1));
        }
    }

    /// Userspace denies or allows events, of so many that there are; what the first filter does not name is as it says
    /// not.
    pub fn filter(&mut self, all: u32, events: std::ops::Range<u32>, deny: bool) {
        let denied = &mut self.denied;
        if !deny && denied.is_empty() {
            denied.extend((0..all).map(|event| event as u16));
        }
        denied.retain(|&event| !events.contains(&u32::from(event)));
        if deny {
            denied.extend(events.map(|event| event as u16));
        }
        self.refilter = true;
    }

    /// Userspace writes a register by KVM_SET_ONE_REG. Does it depend on the kernel what comes of it? That is UNKNOWN
    /// then.
    pub fn user_writes(&mut self, world: &World, register: Register, value: u64) -> bool {
        let all = self.ideal.registers().implemented();
        let (set, clear, sets) = match register.kind() {
            Of::Pmcntenset => (Of::Pmcntenset, Of::Pmcntenclr, true),
            Of::Pmcntenclr => (Of::Pmcntenset, Of::Pmcntenclr, false),
            Of::Pmintenset => (Of::Pmintenset, Of::Pmintenclr, true),
            Of::Pmintenclr => (Of::Pmintenset, Of::Pmintenclr, false),
            Of::Pmovsset => (Of::Pmovsset, Of::Pmovsclr, true),
            Of::Pmovsclr => (Of::Pmovsset, Of::Pmovsclr, false),
            Of::Pmcr => {
                self.write(world, register, 1, value & !(pmcr::P | pmcr::C | pmcr::N));
                let events = if value & pmcr::P != 0 { (1 << CYCLE) - 1 } else { 0 };
                let cycles = if value & pmcr::C != 0 { 1 << CYCLE } else { 0 };
                self.known.counters &= !(events | cycles);
                return events | cycles != 0;
            }
            _ => {
                self.write(world, register, 1, value);
                return false;
            }
        };
        let before = self.ideal.read(Register::of(set), 1);
        let known = match set {
            Of::Pmcntenset => &mut self.known.enables,
            Of::Pmintenset => &mut self.known.interrupts,
            _ => &mut self.known.flags,
        };
        // As the view that it is, and assigned.
        let (as_view, assigned) = if sets { (before | value, value) } else { (before & !value, value) };
        let old = !value;
        let same = !(as_view ^ assigned) & (!old | *known);
        *known = same & all;
        let unclear = all & !*known != 0;
        let known = *known;
        self.ideal.write(world, Register::of(clear), 1, all & !(assigned & known));
        self.ideal.write(world, Register::of(set), 1, assigned & known);
        unclear
    }

    /// What its filter denies does not count, whatever its type says.
    fn apply_filter(&mut self, world: &World) {
        self.refilter = false;
        let implemented = self.ideal.registers().implemented();
        for n in (0..=CYCLE).filter(|&n| implemented >> n & 1 != 0) {
            let register =
                if n == CYCLE { Register::of(Of::Pmccfiltr) } else { Register::pmevtyper(n as u8) };
            let effective = self.effective(n, self.written.types[n]);
            self.ideal.write(world, register, 1, effective);
        }
    }

    /// The type that counts where this one is written.
    fn effective(&self, n: usize, value: u64) -> u64 {
        let mask = self.ideal.registers().filter_mask(n);
        let event = if n == CYCLE { CPU_CYCLES } else { (value & mask & pmevtyper::EVT_COUNT) as u16 };
        if self.denied.contains(&event) {
            value & !(pmevtyper::NSK | pmevtyper::NSU) | pmevtyper::P | pmevtyper::U
        } else {
            value
        }
    }

    /// It runs on `cpu` from now on, or goes on there at another level or under another profile.
    pub fn runs(&mut self, running: Running, cpu: &Cpu, world: &World) {
        self.up_to = cpu.now();
        self.ideal.follow(world, running);
        if self.refilter {
            self.apply_filter(world);
        }
    }

    /// It has run on `cpu` up to now.
    #[inline]
    pub fn catch_up(&mut self, now: u64) {
        let passed = now.wrapping_sub(self.up_to);
        if passed > 0 {
            // What may have counted, or not, or something else.
            let Known { counters, types, enables, .. } = self.known;
            if counters & !(enables & (types | 1 << CYCLE)) != 0 {
                self.forget(counters & !(enables & (types | 1 << CYCLE)));
            }
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

    /// Does an access of its own that has trapped, and is not done yet, write this counter?
    #[must_use]
    pub fn is_writing(&self, counter: Register) -> bool {
        let trapped = self.trapped.filter(|trapped| trapped.write);
        trapped.and_then(|trapped| Register::decode(trapped.register)).is_some_and(|register| {
            matches!(register.kind(), Of::Pmcr | Of::Pmswinc)
                || self.counter(register) == self.counter(counter)
        })
    }

    /// Does an access of its own that has trapped, and is not done yet, write what makes its interrupt condition true?
    #[must_use]
    pub fn interrupts_by_write(&self, world: &World) -> bool {
        let Some(Trapped { register, value, el, .. }) = self.trapped.filter(|trapped| trapped.write) else {
            return false;
        };
        let Some(register) = Register::decode(register) else { return false };
        let mut done = self.clone();
        if !done.absent(register) && done.outcome(register, el, true) == Outcome::Executed {
            done.write(world, register, el, value);
        }
        done.may_interrupt()
    }

    /// Has the guest no such counter?
    #[must_use]
    pub fn absent(&self, register: Register) -> bool {
        let implemented = self.ideal.registers().implemented();
        self.counter(register)
            .is_some_and(|n| implemented >> n & 1 == 0 || n == CYCLE && register.kind() == Of::Pmxevcntr)
    }

    /// Has one of its counters or their types this value, or is one UNKNOWN?
    #[must_use]
    pub fn reads(&self, value: u64) -> bool {
        let implemented = self.ideal.registers().implemented();
        (0..=CYCLE)
            .filter(|&n| implemented >> n & 1 != 0)
            .any(|n| !self.certain(n) || self.ideal.counter(n) == value || self.written.types[n] == value)
    }

    /// Is it PMXEVCNTR_EL0 by PMSELR_EL0.SEL = 31, which KVM takes for the cycle counter?
    #[must_use]
    pub fn selects_cycles(&self, register: Register) -> bool {
        register.kind() == Of::Pmxevcntr && self.counter(register) == Some(CYCLE)
    }

    /// It has written a counter that it has not.
    pub fn absent_written(&mut self, register: Register) {
        if self.selects_cycles(register) {
            self.known.counters &= !(1 << CYCLE);
        }
    }

    /// Does the VM's filter deny what counter `n` is to count?
    #[must_use]
    pub fn denied(&self, n: usize) -> bool {
        !self.denied.is_empty() && self.denied.contains(&self.ideal.registers().event(n))
    }

    /// Is it a counter of an event that is denied, which does not count?
    #[must_use]
    pub fn counts_denied(&self, register: Register) -> bool {
        matches!(register.kind(), Of::Pmevcntr | Of::Pmccntr | Of::Pmxevcntr)
            && self.counter(register).is_some_and(|n| self.denied(n))
    }

    /// The events that the VM's filter denies, as PMCEID0_EL0 (`half` 0) or PMCEID1_EL0 has them.
    #[must_use]
    pub fn denied_in(&self, half: u16) -> u64 {
        let bit = |event: u16| match event & !0x3f {
            0 => 1 << (event & 31),
            0x4000 => 1 << (32 + (event & 31)),
            _ => 0_u64,
        };
        let of_half = self.denied.iter().filter(|&&event| event >> 5 & 1 == half);
        of_half.fold(0, |bits, &event| bits | bit(event))
    }

    /// Likewise, of an event that KVM may count itself, in memory, where the filter is not asked.
    fn denied_in_memory(&self, n: usize) -> bool {
        n != CYCLE && matches!(self.ideal.registers().event(n), SW_INCR | CHAIN) && self.denied(n)
    }

    /// Is it known what counter `n` reads?
    fn certain(&self, n: usize) -> bool {
        let chains = n % 2 == 1 && n < CYCLE && self.ideal.registers().event(n) == CHAIN;
        self.known.counters >> n & 1 != 0 && !self.denied_in_memory(n) && (!chains || self.certain(n - 1))
    }

    /// What the counters of `mask` have counted up to now is not known, nor then what those above have that chain.
    fn forget(&mut self, mask: u64) {
        let mask = mask | mask << 1 & ((1 << CYCLE) - 1);
        self.known.counters &= !mask;
        self.known.flags &= !mask;
    }

    /// Overflow flags that are known: without LC that of the cycle counter may come from bit 31, too.
    fn certain_flags(&self) -> u64 {
        let Known { flags, long_cycles, enables, .. } = self.known;
        let off = enables & !self.ideal.read(Register::of(Of::Pmcntenset), 1);
        let sure = (0..=CYCLE).filter(|&n| self.certain(n)).fold(off, |sure, n| sure | 1 << n);
        flags & sure & if long_cycles { !0 } else { !(1 << CYCLE) }
    }

    /// Compares what a read at `el` has given, or what is there to be read.
    pub fn compare(&mut self, world: &World, register: Register, el: u8, actual: u64) -> Compared {
        let expected = self.expected(register, el);
        let all = self.ideal.registers().implemented();
        let (mask, unknown) = match register.kind() {
            // IMP and IDCODE are the CPU's.
            Of::Pmcr => (!(pmcr::IMP | pmcr::IDCODE), 0),
            Of::Pmcntenset | Of::Pmcntenclr => (!0, all & !self.known.enables),
            Of::Pmintenset | Of::Pmintenclr => (!0, all & !self.known.interrupts),
            Of::Pmovsset | Of::Pmovsclr => (!0, all & !self.certain_flags()),
            Of::Pmselr => (0x1f, if self.known.select { 0 } else { !0 }),
            Of::Pmuserenr => (!0, 0),
            Of::Pmevcntr | Of::Pmccntr | Of::Pmxevcntr | Of::Pmevtyper | Of::Pmccfiltr | Of::Pmxevtyper => {
                let n = self.counter(register).unwrap_or(0);
                let of_value = matches!(register.kind(), Of::Pmevcntr | Of::Pmccntr | Of::Pmxevcntr);
                let certain =
                    if of_value { self.certain(n) } else { n == CYCLE || self.known.types >> n & 1 != 0 };
                let selected =
                    self.known.select || !matches!(register.kind(), Of::Pmxevcntr | Of::Pmxevtyper);
                (!0, if certain && selected { 0 } else { !0 })
            }
            _ => return Compared::Same,
        };
        let differing = (expected ^ actual) & mask & !self.reserved(register, actual);
        if differing & unknown != 0 && self.selected(register) {
            let adopted = expected & !unknown | actual & unknown;
            self.adopt(world, register, adopted);
        }
        match (differing & !unknown, differing & unknown) {
            (0, 0) => Compared::Same,
            (0, _) => Compared::Adopted,
            _ => Compared::Differs { expected, mask: mask & !unknown },
        }
    }

    /// What the guest should read: of a type, what it wrote, which is not what counts where its event is denied.
    #[must_use]
    pub fn expected(&self, register: Register, el: u8) -> u64 {
        match register.kind() {
            Of::Pmevtyper | Of::Pmccfiltr | Of::Pmxevtyper => {
                let n = self.counter(register).unwrap_or(CYCLE);
                self.written.types[n] & self.ideal.registers().filter_mask(n)
            }
            _ => self.ideal.read(register, el),
        }
    }

    /// Bits that are RES0 or RES1 for the guest, and read as what it last wrote.
    fn reserved(&self, register: Register, actual: u64) -> u64 {
        match register.kind() {
            Of::Pmevtyper | Of::Pmccfiltr | Of::Pmxevtyper => {
                let n = self.counter(register).unwrap_or(CYCLE);
                !self.ideal.registers().filter_mask(n) & !(actual ^ self.written.types[n])
            }
            Of::Pmcr => {
                let long = self.ideal.registers().features().has(PMUV3P5);
                let kept = pmcr::E | pmcr::X | pmcr::DP | if long { pmcr::LP } else { 0 };
                !(kept | pmcr::N) & !(actual ^ self.written.pmcr)
            }
            _ => 0,
        }
    }

    /// Does the access not go by PMSELR_EL0, or by one that is known?
    #[must_use]
    pub fn selected(&self, register: Register) -> bool {
        self.known.select || !matches!(register.kind(), Of::Pmxevcntr | Of::Pmxevtyper)
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
        let before = self.may_interrupt();
        if !self.selected(register) {
            // Whichever counter it was.
            let known = &mut self.known;
            if register.kind() == Of::Pmxevcntr {
                known.counters = 0;
            } else {
                known.types = 0;
            }
            return;
        }
        let counter = self.counter(register).unwrap_or(0);
        let mut effective = value;
        if matches!(register.kind(), Of::Pmevtyper | Of::Pmxevtyper | Of::Pmccfiltr) {
            self.retype(counter, value);
            effective = self.effective(counter, value);
        }
        if register.kind() == Of::Pmswinc {
            self.forget(value & !(self.known.enables & self.known.types) & ((1 << CYCLE) - 1));
        }
        let known = &mut self.known;
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
                self.written.pmcr = value;
                if value & pmcr::LC != 0 && !known.long_cycles {
                    known.flags &= !(1 << CYCLE);
                }
                known.long_cycles = value & pmcr::LC != 0;
                if value & pmcr::P != 0 {
                    known.counters |= (1 << CYCLE) - 1;
                }
                if value & pmcr::C != 0 {
                    known.counters |= 1 << CYCLE;
                }
            }
            _ => {}
        }
        self.ideal.write(world, register, el, effective);
        self.lowered |= before && !self.may_interrupt();
        self.find_since();
    }

    /// Counter `n` is given another type.
    fn retype(&mut self, n: usize, value: u64) {
        if self.denied_in_memory(n) {
            self.forget(1 << n);
        }
        self.written.types[n] = value;
    }

    /// Is its interrupt condition true, and known to be?
    #[must_use]
    pub fn interrupt(&self) -> bool {
        self.condition(self.certain_flags(), self.known.interrupts)
    }

    /// May its interrupt condition be true, for what is known?
    #[must_use]
    pub fn may_interrupt(&self) -> bool {
        let all = self.ideal.registers().implemented();
        let flags = self.ideal.read(Register::of(Of::Pmovsset), 1) | all & !self.certain_flags();
        let enabled = self.ideal.read(Register::of(Of::Pmintenset), 1) | all & !self.known.interrupts;
        self.ideal.read(Register::of(Of::Pmcr), 1) & pmcr::E != 0 && flags & enabled != 0
    }

    fn condition(&self, flags: u64, interrupts: u64) -> bool {
        let read = |of| self.ideal.read(Register::of(of), 1);
        self.ideal.registers().interrupt()
            && read(Of::Pmovsset) & flags & read(Of::Pmintenset) & interrupts != 0
    }

    /// For how many cycles of the guest's it has been.
    #[must_use]
    pub fn interrupt_for(&self) -> u64 {
        self.ideal.now().wrapping_sub(self.ideal.raised())
    }
}
