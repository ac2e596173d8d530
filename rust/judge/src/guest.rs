//! A vCPU's PMU as it should be: an ideal one of its own, which runs when the vCPU does.
//!
//! It is a CPU of the core with as many counters as the guest has. It executes the accesses that the guest makes and
//! sees the events that really happen in the guest; nobody else ever touches it. What the guest reads on the machine is
//! what it reads there.

use pmu::access::Outcome;
use pmu::cpu::{Cpu, Running};
use pmu::feature::{Features, PMUV3P5, PMUV3P7, PMUV3P9};
use pmu::field::{pmcr, pmevtyper};
use pmu::register::{Kind as Of, Register};
use pmu::registers::{CHAIN, COUNTERS, CPU_CYCLES, CYCLE, SW_INCR};
use pmu::tally::World;
use serde::{Deserialize, Serialize};

use crate::counted::{self, Counted};
use crate::effects::Effects;
use crate::events::Events;
use crate::known::{Field, Known};
use crate::raised::Raised;
use crate::traffic::{type_of, value_of};
use crate::window::Window;
use crate::{EVENT_COUNTERS, resets};

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
    /// KVM has read on the CPU what is read.
    pub on_cpu: bool,
}

/// Counters that count with the one below where they count CHAIN.
const ODD: u64 = 0x2aaa_aaaa;

/// An interrupt that KVM has made pending for a condition which the guest then ends itself.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Polled {
    /// There is none.
    #[default]
    Not,
    /// It may come still.
    Open,
    /// It has not come, and the guest has exited since.
    Late,
    /// It has come.
    Come,
}

/// The value of a register in which the ideal does not keep all that is written.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
struct Written {
    types: [u64; CYCLE + 1],
    pmcr: u64,
    select: u64,
    userenr: u64,
    /// Bits are set that are RES0 in its PMU, and mean something in a later one.
    beyond: bool,
    /// PMCR_EL0.P and C as userspace has set them, which KVM may keep until it resets by them.
    user_pmcr: u64,
}

/// PMUSERENR_EL0 up to PMUv3p8: EN, SW, CR and ER; and what PMUv3p9 has besides: UEN, IR and TID.
const USERENR: u64 = 0xf;
const LATER_USERENR: u64 = 0x70;

/// A vCPU as the judge sees it.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Guest {
    /// Its context on the machine.
    pub context: usize,
    /// Its PMU as it should be.
    pub ideal: Cpu,
    /// Events that the VM's filter denies.
    pub(crate) denied: Vec<u16>,
    /// Its tally of EL0.
    pub(crate) tally: usize,
    /// What its kernel's perf says of its events.
    pub(crate) events: Events,
    /// By counter, who else was counted in what was read out for it since it wrote it.
    pub(crate) counted: Vec<Vec<Counted>>,
    /// Of that, what was in it when KVM wrote it into the CPU's counter.
    pub(crate) counted_before: Vec<Vec<Counted>>,
    /// What its last writes change.
    pub(crate) effects: Effects,
    known: Known,
    written: Written,
    /// The filter is new to the ideal.
    refilter: bool,
    /// What has trapped.
    pub trapped: Option<Trapped>,
    /// The machine's time up to which the ideal has got, while the guest runs.
    up_to: u64,
    pub(crate) polled: Polled,
    /// It has been entered, and what it could read has not been compared since.
    pub fresh: bool,
    /// It is being put.
    pub leaving: bool,
    /// The pCPU on which it is loaded.
    pub loaded: Option<usize>,
    /// The pCPU on which its registers were last, when it was put there.
    pub(crate) last_on: Option<usize>,
    /// The machine's time since which one of its flags interrupts, while any does.
    pub since: Option<u64>,
    pub(crate) raised: Raised,
    /// Its PMU interrupts in a row.
    pub(crate) in_a_row: u32,
    /// It has interrupts masked, whatever it works.
    pub(crate) masked: bool,
}

/// How a read compares.
pub(crate) enum Compared {
    /// It is what it should be.
    Same,
    /// But for reserved bits, which are as the guest has written them.
    AsWritten,
    /// UNKNOWN up to now.
    Adopted {
        /// By this tolerance.
        window: Window,
        /// It is known from now on.
        closes: bool,
    },
    /// It should be this, in these bits.
    Differs {
        /// What the ideal reads.
        expected: u64,
        /// The bits that are compared.
        mask: u64,
        /// The tolerance that is exceeded: what differs could have been read once, or in other bits.
        window: Option<Window>,
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
            tally: 0,
            events: Events::new(1),
            counted: vec![Vec::new(); COUNTERS],
            counted_before: vec![Vec::new(); COUNTERS],
            effects: Effects::default(),
            known: Known::default(),
            written: Written::default(),
            trapped: None,
            up_to: 0,
            polled: Polled::Not,
            fresh: false,
            leaving: false,
            loaded: None,
            last_on: None,
            since: None,
            raised: Raised::default(),
            in_a_row: 0,
            masked: false,
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
                self.written.user_pmcr = value & (pmcr::P | pmcr::C);
                self.known.leave_open(Window::UserView, Field::Counters, resets(value));
                return resets(value) != 0;
            }
            _ => {
                self.write(world, register, 1, value);
                return false;
            }
        };
        let before = self.ideal.read(Register::of(set), 1);
        let Some(field) = Field::of(set) else { return false };
        // As the view that it is, and assigned.
        let (as_view, assigned) = if sets { (before | value, value) } else { (before & !value, value) };
        let old = !value;
        let same = !(as_view ^ assigned) & (!old | self.known.sure(field)) & all;
        self.known.settle(field, same);
        self.known.leave_open(Window::UserView, field, all & !same);
        self.ideal.write(world, Register::of(clear), 1, all & !(assigned & same));
        self.ideal.write(world, Register::of(set), 1, assigned & same);
        self.find_since();
        all & !same != 0
    }

    /// What its filter denies does not count, whatever its type says.
    fn apply_filter(&mut self, world: &World) {
        self.refilter = false;
        let implemented = self.ideal.registers().implemented();
        for n in (0..=CYCLE).filter(|&n| implemented >> n & 1 != 0) {
            let effective = self.effective(n, self.written.types[n]);
            self.ideal.write(world, type_of(n), 1, effective);
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
        self.tally = running.tally - usize::from(running.el);
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
            let unsure = self.known.sure(Field::Counters) & !self.known.counting();
            if unsure != 0 {
                self.forget(unsure & !self.off());
            }
            self.ideal.advance(self.ideal.now().saturating_add(passed));
            self.up_to = now;
            self.find_since();
        }
    }

    /// Takes down since when its interrupt condition is true.
    #[inline]
    fn find_since(&mut self) {
        let before = self.raised.first();
        self.raised.follow(self.interrupting(), &self.ideal);
        let first = self.raised.first();
        if first.is_none() {
            self.since = None;
        } else if first != before {
            if before.is_none() {
                self.polled = Polled::Not;
            }
            self.since = Some(self.up_to.saturating_sub(self.interrupt_for()));
        }
    }

    /// KVM's run loop has the CPU: what was pending is asked for again.
    pub(crate) fn exits(&mut self) {
        if self.polled == Polled::Open {
            self.polled = Polled::Late;
        }
    }

    /// It was in WFI up to now on `cpu`, which has not been taken from it.
    pub fn idled(&mut self, from: u64, cpu: &Cpu) {
        let now = cpu.now();
        self.catch_up(from);
        self.ideal.count_in_wfi(cpu.registers().features().pmccntr_in_wfi);
        let before = self.ideal.counter(CYCLE);
        self.ideal.idle(self.ideal.now().saturating_add(now.wrapping_sub(from)));
        self.events.idled(self.ideal.counter(CYCLE).wrapping_sub(before));
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

    /// The counter's own register that PMXEVCNTR_EL0 or PMXEVTYPER_EL0 is of by the guest's PMSELR_EL0 (by SEL = 31 the
    /// cycle counter's, as KVM takes it); any other is its own.
    #[must_use]
    pub fn named(&self, register: Register) -> Register {
        match (register.kind(), self.counter(register)) {
            (Of::Pmxevcntr, Some(n)) => value_of(n),
            (Of::Pmxevtyper, Some(n)) => type_of(n),
            _ => register,
        }
    }

    /// Has the guest no such counter?
    #[must_use]
    pub fn absent(&self, register: Register) -> bool {
        let implemented = self.ideal.registers().implemented();
        self.counter(register)
            .is_some_and(|n| implemented >> n & 1 == 0 || n == CYCLE && register.kind() == Of::Pmxevcntr)
    }

    /// Is it the first that it has not?
    #[must_use]
    pub fn lowest_absent(&self, register: Register) -> bool {
        self.counter(register) == Some(usize::from(self.ideal.registers().features().counters))
    }

    /// Has one of its counters or their types this value, or is one UNKNOWN?
    #[must_use]
    pub fn reads(&self, value: u64) -> bool {
        let implemented = self.ideal.registers().implemented();
        (0..=CYCLE)
            .filter(|&n| implemented >> n & 1 != 0)
            .any(|n| !self.certain(n) || self.ideal.counter(n) == value || self.written.types[n] == value)
    }

    /// It has written a counter that it has not, by PMSELR_EL0.SEL = 31 perhaps.
    pub fn absent_written(&mut self) {
        if self.ideal.read(Register::of(Of::Pmselr), 1) == CYCLE as u64 {
            self.known.forget(Field::Counters, 1 << CYCLE);
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

    /// Likewise, of an event that KVM counts itself, in memory, where it may not ask the filter.
    fn denied_in_memory(&self, n: usize) -> bool {
        n != CYCLE && matches!(self.ideal.registers().event(n), SW_INCR | CHAIN) && self.denied(n)
    }

    /// Counters of which it is known what they count, or that they do not.
    pub(crate) fn determined(&self) -> u64 {
        if self.written.beyond { 0 } else { self.known.counting() }
    }

    /// Has it counter `n`?
    pub(crate) fn implements(&self, n: usize) -> bool {
        self.ideal.registers().implemented() >> n & 1 != 0
    }

    /// The bits that its counter `n` has.
    pub(crate) fn mask(&self, n: usize) -> u64 {
        self.ideal.registers().counter_mask(n)
    }

    /// The bits of an event counter that a later PMU than its own has.
    #[inline]
    pub(crate) fn above(&self, register: Register) -> u64 {
        match register.kind() {
            Of::Pmevcntr | Of::Pmxevcntr => self.counter(register).map_or(0, |n| !self.mask(n)),
            _ => 0,
        }
    }

    /// Is it known what counter `n` reads?
    pub(crate) fn certain(&self, n: usize) -> bool {
        self.certain_counters() >> n & 1 != 0
    }

    /// Those of which it is known what they read.
    fn certain_counters(&self) -> u64 {
        if self.written.beyond {
            return 0;
        }
        let chains = self.ideal.registers().chain_events();
        let mut certain = self.known.sure(Field::Counters);
        if !self.denied.is_empty() {
            certain &= !(0..CYCLE).filter(|&n| self.denied_in_memory(n)).fold(0, |denied, n| denied | 1 << n);
        }
        certain & !(chains & ODD & !(certain << 1))
    }

    /// Who else was counted in counter `n` since the guest wrote it, with those that were since KVM did.
    pub(crate) fn counted_with(&self, n: usize, since: Vec<Counted>) -> Vec<Counted> {
        let mut all = self.counted_before[n].clone();
        for one in since {
            counted::add(&mut all, one);
        }
        all
    }

    /// What the counters of `mask` have counted up to now is not known, nor then what those above have that chain.
    fn forget(&mut self, mask: u64) {
        let mask = mask | mask << 1 & EVENT_COUNTERS;
        self.known.forget(Field::Counters, mask);
        self.known.forget(Field::Flags, mask);
    }

    /// What counters have counted by those below that are not known is not known, once these are, or chain no more, as
    /// the register is given a value.
    fn forget_chained_by(&mut self, register: Register) {
        let of = register.kind();
        let ends = matches!(of, Of::Pmevcntr | Of::Pmxevcntr | Of::Pmevtyper | Of::Pmxevtyper | Of::Pmcr);
        if ends {
            let above = self.known.sure(Field::Counters) & !self.certain_counters() & !self.off() & ODD;
            let chained = above & self.ideal.registers().chain_events();
            self.known.forget(Field::Counters, chained);
            self.known.forget(Field::Flags, chained);
        }
    }

    /// Counters that do not count for sure: all without PMCR_EL0.E, which a reset clears.
    fn off(&self) -> u64 {
        if self.ideal.read(Register::of(Of::Pmcr), 1) & pmcr::E == 0 {
            return !0;
        }
        self.known.sure(Field::Enables) & !self.ideal.read(Register::of(Of::Pmcntenset), 1)
    }

    /// Overflow flags that are known: without LC that of the cycle counter may come from bit 31, too.
    fn certain_flags(&self) -> u64 {
        self.known.sure(Field::Flags)
            & (self.off() | self.certain_counters())
            & if self.known.long_cycles { !0 } else { !(1 << CYCLE) }
    }

    /// Counters that may count, and of which it is not known what they read: each may overflow at any time.
    fn adrift(&self) -> u64 {
        !self.off() & !self.certain_counters()
    }

    /// What a flag was says nothing of what it is, once its counter has been running adrift.
    fn forget_flags_adrift(&mut self) {
        if self.known.sure(Field::Flags) != 0 {
            let adrift = self.adrift();
            self.known.forget_flags(adrift);
        }
    }

    /// By which tolerance these bits of a field, those of one counter or of several, are not known; and whether they are
    /// once they are read.
    fn unknown_by(&self, field: Field, bits: u64) -> (Window, bool) {
        let n = bits.trailing_zeros() as usize;
        match field {
            Field::Counters if self.written.beyond => (Window::LaterPmu, false),
            Field::Counters if self.known.sure(field) & bits != 0 => {
                if self.denied_in_memory(n) {
                    (Window::DeniedInMemory, false)
                } else {
                    (self.unknown_by(field, 1 << (n - 1)).0, false) // by which it chains
                }
            }
            Field::Flags if self.adrift() >> n & 1 != 0 => {
                (self.unknown_by(Field::Counters, 1 << n).0, false)
            }
            Field::Flags if self.known.sure(field) & bits != 0 => (Window::ShortCycles, false),
            _ => (self.known.reason(field, bits), true),
        }
    }

    /// Compares what a read at `el` has given, or what is there to be read.
    pub(crate) fn compare(&mut self, world: &World, register: Register, el: u8, actual: u64) -> Compared {
        let expected = self.expected(register, el);
        let field = Field::of(register.kind());
        let mask = match register.kind() {
            // IMP and IDCODE are the CPU's, and the VM's to choose.
            Of::Pmcr => !(pmcr::IMP | pmcr::IDCODE),
            Of::Pmuserenr => !0,
            // What is constant is compared where it is read (`identified`).
            _ if field.is_none() => return Compared::Same,
            _ => !0,
        };
        let differing = (expected ^ actual) & mask;
        let all = self.ideal.registers().implemented();
        let n = self.counter(register);
        // The bits of the field that a register of one counter, or PMSELR_EL0, stands for.
        let bits = |bits: u64| match n {
            Some(n) => 1 << n,
            None if field == Some(Field::Select) => 1,
            None => bits,
        };
        if differing == 0 {
            // What was UNKNOWN is as the ideal happens to have it.
            if let Some(field) = field.filter(|_| self.selected(register)) {
                self.settles_as_read(register, field, bits(all));
            }
            return Compared::Same;
        }
        let sure = |field| self.known.sure(field);
        let unknown = match field {
            _ if !self.selected(register) => !0,
            Some(Field::Counters) if !n.is_some_and(|n| self.certain(n)) => !0,
            Some(Field::Types) if !n.is_some_and(|n| n == CYCLE || sure(Field::Types) >> n & 1 != 0) => !0,
            Some(Field::Select) if sure(Field::Select) == 0 => !0,
            Some(Field::Counters | Field::Types | Field::Select) | None => 0,
            Some(Field::Flags) => all & !self.certain_flags(),
            Some(field) => all & !sure(field),
        };
        let differing = differing & !self.as_written(register, actual);
        if differing == 0 {
            return Compared::AsWritten;
        }
        let mut adopted = Window::UnknownAfterReset;
        let mut closes = true;
        if let Some(field) = field.filter(|_| differing & unknown != 0 && self.selected(register)) {
            (adopted, closes) = self.unknown_by(field, bits(differing & unknown));
            self.forget_chained_by(register); // which what is adopted does not undo
            let before = self.known;
            self.adopt(world, register, expected & !unknown | actual & unknown);
            self.known.adopt(&before, field, bits(unknown & all));
            self.forget_flags_adrift();
        }
        let surely = differing & !unknown;
        if surely == 0 {
            return Compared::Adopted { window: adopted, closes };
        }
        let read = field.filter(|&field| self.known.adopted(field) & bits(surely) != 0);
        let window = if surely & !self.reserved(register) == 0 {
            Some(Window::ReservedBits)
        } else if surely & !self.above(register) == 0 {
            Some(Window::LaterPmu)
        } else {
            read.map(|field| self.known.reason(field, bits(surely)))
        };
        Compared::Differs { expected, mask: mask & !unknown, window }
    }

    /// Bits of the register's field have been read, and are what the ideal has.
    fn settles_as_read(&mut self, register: Register, field: Field, bits: u64) {
        let unknown = bits & !self.known.sure(field);
        if unknown == 0 {
            return;
        }
        self.forget_chained_by(register);
        let before = self.known;
        self.known.adopt(&before, field, unknown);
        self.forget_flags_adrift();
        self.find_since();
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

    /// Bits that are RES0 or RES1 for the guest.
    fn reserved(&self, register: Register) -> u64 {
        match register.kind() {
            Of::Pmevtyper | Of::Pmccfiltr | Of::Pmxevtyper => {
                !self.ideal.registers().filter_mask(self.counter(register).unwrap_or(CYCLE))
            }
            Of::Pmcr => {
                let long = self.ideal.registers().features().has(PMUV3P5);
                let kept = pmcr::E | pmcr::X | pmcr::DP | if long { pmcr::LP } else { 0 };
                !(kept | pmcr::N | pmcr::P | pmcr::C)
            }
            Of::Pmselr => !0x1f,
            Of::Pmuserenr => !USERENR,
            _ => 0,
        }
    }

    /// Those of them that read as what it last wrote.
    fn as_written(&self, register: Register, actual: u64) -> u64 {
        let written = match register.kind() {
            Of::Pmcr => self.written.pmcr,
            Of::Pmselr => self.written.select,
            Of::Pmuserenr => self.written.userenr,
            _ => self.written.types[self.counter(register).unwrap_or(CYCLE)],
        };
        self.reserved(register) & !(actual ^ written)
    }

    /// What KVM_GET_ONE_REG may give of PMCR_EL0.P and C.
    #[must_use]
    pub fn user_pmcr(&self) -> u64 {
        self.written.user_pmcr
    }

    /// Does the access not go by PMSELR_EL0, or by one that is known?
    #[must_use]
    pub fn selected(&self, register: Register) -> bool {
        self.known.sure(Field::Select) != 0 || !matches!(register.kind(), Of::Pmxevcntr | Of::Pmxevtyper)
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
            let field = if register.kind() == Of::Pmxevcntr { Field::Counters } else { Field::Types };
            self.known.forget(field, !0);
            return;
        }
        self.forget_chained_by(register);
        if register.kind() == Of::Pmcr {
            self.forget_flags_adrift(); // before it stops them
        }
        let counter = self.counter(register).unwrap_or(0);
        let mut effective = value;
        if matches!(register.kind(), Of::Pmevtyper | Of::Pmxevtyper | Of::Pmccfiltr) {
            self.retype(counter, value);
            effective = self.effective(counter, value);
        }
        if register.kind() == Of::Pmswinc {
            self.forget(value & !self.known.counting() & EVENT_COUNTERS);
        }
        let known = &mut self.known;
        match (register.kind(), Field::of(register.kind())) {
            (Of::Pmselr, _) => {
                self.written.select = value;
                known.settle(Field::Select, 1);
            }
            (Of::Pmcr, _) => {
                self.written.pmcr = value;
                self.written.user_pmcr = 0;
                if value & pmcr::LC != 0 && !known.long_cycles {
                    known.leave_open(Window::ShortCycles, Field::Flags, 1 << CYCLE);
                }
                known.long_cycles = value & pmcr::LC != 0;
                known.settle(Field::Counters, resets(value));
                self.look_beyond();
            }
            (Of::Pmuserenr, _) => {
                self.written.userenr = value;
                self.look_beyond();
            }
            (_, Some(field @ (Field::Counters | Field::Types))) => known.settle(field, 1 << counter),
            (_, Some(field)) => known.settle(field, value),
            _ => {}
        }
        self.ideal.write(world, register, el, effective);
        self.forget_flags_adrift();
        if before && !self.may_interrupt() {
            self.polled = Polled::Open;
        }
        self.find_since();
    }

    /// Does the CPU do something by bits that its PMU has not? What its counters come to then, it alone knows.
    fn look_beyond(&mut self) {
        let features = self.ideal.registers().features();
        let freezes = if features.has(PMUV3P7) { 0 } else { pmcr::FZO };
        let long = if features.has(PMUV3P5) { 0 } else { pmcr::LP };
        let pmcr = self.written.pmcr & (freezes | long);
        let userenr = if features.has(PMUV3P9) { 0 } else { self.written.userenr & LATER_USERENR };
        let beyond = pmcr | userenr != 0;
        if beyond || self.written.beyond {
            for field in [Field::Counters, Field::Flags] {
                self.known.leave_open(Window::LaterPmu, field, !0);
            }
        }
        self.written.beyond = beyond;
    }

    /// May the CPU let EL0 do more or less than its PMU should, by such bits?
    pub(crate) fn el0_is_beyond(&self) -> bool {
        self.written.beyond && self.written.userenr & LATER_USERENR != 0
    }

    /// EL0 has accessed it then: of the counters that PMUACR_EL1 has, or of none.
    pub(crate) fn accessed_beyond(&mut self, world: &World, register: Register, written: Option<u64>) {
        let Some(value) = written else { return };
        self.write(world, register, 0, value);
        for field in [Field::Counters, Field::Enables, Field::Flags] {
            self.known.leave_open(Window::LaterPmu, field, !0);
        }
    }

    /// Counter `n` is given another type.
    fn retype(&mut self, n: usize, value: u64) {
        if self.denied_in_memory(n) {
            self.forget(1 << n);
            for field in [Field::Counters, Field::Flags] {
                self.known.leave_open(Window::DeniedInMemory, field, 1 << n);
            }
        }
        self.written.types[n] = value;
    }

    /// Is its interrupt condition true, and known to be?
    #[must_use]
    pub fn interrupt(&self) -> bool {
        self.interrupting() != 0
    }

    /// Its flags that interrupt, and are known to.
    #[inline]
    fn interrupting(&self) -> u64 {
        if !self.ideal.registers().interrupt() {
            return 0;
        }
        let read = |of| self.ideal.read(Register::of(of), 1);
        read(Of::Pmintenset) & self.known.sure(Field::Interrupts) & read(Of::Pmovsset) & self.certain_flags()
    }

    /// May its interrupt condition be true, for what is known?
    #[must_use]
    pub fn may_interrupt(&self) -> bool {
        let read = |of| self.ideal.read(Register::of(of), 1);
        let all = self.ideal.registers().implemented();
        let enabled = read(Of::Pmintenset) | all & !self.known.sure(Field::Interrupts);
        let flags = || read(Of::Pmovsset) | all & !self.certain_flags();
        enabled != 0 && read(Of::Pmcr) & pmcr::E != 0 && flags() & enabled != 0
    }

    /// The counters that it has enabled and started.
    #[must_use]
    pub fn started(&self) -> u64 {
        let read = |of| self.ideal.read(Register::of(of), 1);
        if read(Of::Pmcr) & pmcr::E == 0 { 0 } else { read(Of::Pmcntenset) }
    }

    /// For how many cycles of the guest's one of its flags interrupts it.
    #[must_use]
    pub fn interrupt_for(&self) -> u64 {
        self.raised.first().map_or(0, |first| self.ideal.now().wrapping_sub(first))
    }
}
