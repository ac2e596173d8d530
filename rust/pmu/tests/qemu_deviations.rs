//! Where QEMU 10.0.2 deviates from the architecture, the model does not. One test per deviation.

use pmu::access::Outcome;
use pmu::burst::{Burst, Operation};
use pmu::feature::Features;
use pmu::machine::{Costs, Machine, Stop};
use pmu::register::{Kind, Register};

const HPMN: u64 = 4;
const COUNTERS: u8 = 6;
const FREE: Costs = Costs { mrs: 0, msr: 0, isb: 0 };

/// A guest on a CPU with six counters of which two are the host's.
struct Guest(Machine);

impl Guest {
    fn new(fgt: u8) -> Self {
        let features = Features { counters: COUNTERS, fgt, ..Features::default() };
        let mut machine = Machine::new(vec![features], &[], FREE).expect("a possible CPU");
        machine.add_profile(&[]).expect("a possible profile");
        let guest = machine.add_context(true);
        machine.set_running(0, guest, 1, 0).expect("they exist");
        let mut guest = Self(machine);
        guest.host_writes(Kind::MdcrEl2, HPMN | 1 << 7);
        guest
    }

    fn at_el0(mut self) -> Self {
        self.0.set_running(0, 0, 0, 0).expect("they exist");
        self
    }

    fn host_writes(&mut self, kind: Kind, value: u64) {
        self.0.poke(0, Register::of(kind).encoding(), value).expect("it exists");
    }

    fn host_reads(&self, kind: Kind) -> u64 {
        self.0.peek(0, Register::of(kind).encoding()).expect("it exists")
    }

    fn set_counter(&mut self, n: u8, value: u64) {
        self.0.poke(0, Register::pmevcntr(n).encoding(), value).expect("it exists");
    }

    fn counter(&self, n: u8) -> u64 {
        self.0.peek(0, Register::pmevcntr(n).encoding()).expect("it exists")
    }

    fn reads(&mut self, register: Register) -> Result<u64, Stop> {
        let mut burst = Burst::default();
        burst.post_read(Operation::Mrs, u32::from(register.encoding()));
        match self.0.execute(0, &mut burst, 0, false).expect("something runs") {
            Stop::End => Ok(burst.values()[0]),
            stop => Err(stop),
        }
    }

    fn writes(&mut self, register: Register, value: u64) -> Result<(), Stop> {
        let mut burst = Burst::default();
        burst.post(Operation::Msr, u32::from(register.encoding()), value);
        match self.0.execute(0, &mut burst, 0, false).expect("something runs") {
            Stop::End => Ok(()),
            stop => Err(stop),
        }
    }
}

fn trapped<T>(result: &Result<T, Stop>, register: Register, write: bool) -> bool {
    let syndrome = Outcome::Trapped(2).esr(register.encoding(), write);
    matches!(result, Err(Stop::Trap { esr, .. }) if *esr == syndrome)
}

#[test]
fn hpmn_limits_access_to_counters() {
    let mut guest = Guest::new(1);
    for register in [Register::pmevcntr(4), Register::pmevtyper(5)] {
        assert!(trapped(&guest.reads(register), register, false));
        assert!(trapped(&guest.writes(register, 1), register, true));
    }
}

#[test]
fn hpmn_limits_the_bits_of_enables_and_flags() {
    for (set, clear) in [
        (Kind::Pmcntenset, Kind::Pmcntenclr),
        (Kind::Pmintenset, Kind::Pmintenclr),
        (Kind::Pmovsset, Kind::Pmovsclr),
    ] {
        let mut guest = Guest::new(1);
        guest.host_writes(set, 0b11_0000);
        assert_eq!(guest.reads(Register::of(set)), Ok(0));
        guest.writes(Register::of(set), 0b11_1111).expect("executed");
        assert_eq!(guest.host_reads(set), 0b11_1111);
        guest.writes(Register::of(clear), u64::MAX).expect("executed");
        assert_eq!(guest.host_reads(set), 0b11_0000);
    }
}

#[test]
fn pmswinc_does_not_reach_counters_beyond_hpmn() {
    let mut guest = Guest::new(1);
    guest.host_writes(Kind::Pmcr, 1);
    guest.host_writes(Kind::Pmcntenset, 0b11_1111);
    guest.writes(Register::of(Kind::Pmswinc), u64::MAX).expect("executed");
    let counters: Vec<u64> = (0..COUNTERS).map(|n| guest.counter(n)).collect();
    assert_eq!(counters, [1, 1, 1, 1, 0, 0]);
}

#[test]
fn pmcr_p_does_not_reset_counters_beyond_hpmn() {
    let mut guest = Guest::new(1);
    (0..COUNTERS).for_each(|n| guest.set_counter(n, 9));
    guest.writes(Register::of(Kind::Pmcr), 1 << 1).expect("executed");
    let counters: Vec<u64> = (0..COUNTERS).map(|n| guest.counter(n)).collect();
    assert_eq!(counters, [0, 0, 0, 0, 9, 9]);
}

#[test]
fn tpmcr_traps() {
    let mut guest = Guest::new(0);
    guest.host_writes(Kind::MdcrEl2, HPMN | 1 << 5);
    let pmcr = Register::of(Kind::Pmcr);
    assert!(trapped(&guest.reads(pmcr), pmcr, false));
    assert!(trapped(&guest.writes(pmcr, 0), pmcr, true));
    assert_eq!(guest.reads(Register::of(Kind::Pmcntenset)), Ok(0), "PMCR_EL0 only");
}

#[test]
fn tpm_traps_what_user_enables_allow() {
    let cases = [
        (1 << 1, Register::of(Kind::Pmswinc), true),
        (1 << 2, Register::of(Kind::Pmccntr), false),
        (1 << 3, Register::pmevcntr(0), false),
    ];
    for (enable, register, write) in cases {
        let mut guest = Guest::new(1).at_el0();
        guest.host_writes(Kind::Pmuserenr, enable);
        guest.host_writes(Kind::MdcrEl2, HPMN | 1 << 6);
        let trapped = if write {
            trapped(&guest.writes(register, 1), register, true)
        } else {
            trapped(&guest.reads(register), register, false)
        };
        assert!(trapped, "{}", register.name());
    }
}

#[test]
fn pmuserenr_has_a_fine_grained_trap() {
    let pmuserenr = Register::of(Kind::Pmuserenr);
    let mut guest = Guest::new(1);
    guest.host_writes(Kind::Hdfgrtr, 1 << 57);
    assert!(trapped(&guest.reads(pmuserenr), pmuserenr, false));
    let mut guest = Guest::new(1).at_el0();
    guest.host_writes(Kind::Hdfgrtr, 1 << 57);
    assert!(trapped(&guest.reads(pmuserenr), pmuserenr, false));
}

#[test]
fn a_selector_beyond_the_counters_is_undefined() {
    let mut guest = Guest::new(1);
    guest.writes(Register::of(Kind::Pmselr), u64::from(COUNTERS)).expect("executed");
    for kind in [Kind::Pmxevcntr, Kind::Pmxevtyper] {
        let esr = Outcome::Undefined(1).esr(0, false);
        assert_eq!(guest.reads(Register::of(kind)), Err(Stop::Exception { index: 0, esr }));
    }
}

#[test]
fn the_interrupt_follows_pmcr_e_hpme_and_hpmn() {
    let mut guest = Guest::new(1);
    guest.host_writes(Kind::Pmintenset, 0b10_0001);
    let level = |guest: &Guest| guest.0.cpu(0).expect("there is one").interrupt();

    guest.host_writes(Kind::Pmovsset, 0b00_0001);
    assert!(!level(&guest), "PMCR_EL0.E is 0");
    guest.host_writes(Kind::Pmcr, 1);
    assert!(level(&guest));
    guest.host_writes(Kind::Pmcr, 0);
    assert!(!level(&guest));

    guest.host_writes(Kind::Pmovsset, 0b10_0000);
    assert!(level(&guest), "the host's counter, with HPME");
    guest.host_writes(Kind::MdcrEl2, HPMN);
    assert!(!level(&guest), "without HPME");
    guest.host_writes(Kind::MdcrEl2, u64::from(COUNTERS) | 1 << 7);
    assert!(!level(&guest), "all counters in the first range, which PMCR_EL0.E gates");
    guest.host_writes(Kind::Pmcr, 1);
    assert!(level(&guest));
}
