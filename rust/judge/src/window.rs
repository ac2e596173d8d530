//! Tolerances: what is not as the ideal has it, and allowed.
//!
//! Each is asked for at one place, [`crate::finding::Findings::allows`]. What is not judged at all, as nobody could lose
//! by it, is none, and has a comment where it is left out: registers that nobody has enabled, copies that nobody reads,
//! and what only its user knows.

use serde::{Deserialize, Serialize};

/// A tolerance, by its place in [`WINDOWS`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[repr(u8)]
pub enum Window {
    /// See [`WINDOWS`].
    UnknownAfterReset,
    /// See [`WINDOWS`].
    AbsentCounter,
    /// See [`WINDOWS`].
    InterruptOnItsWay,
    /// See [`WINDOWS`].
    Polled,
    /// See [`WINDOWS`].
    StoppedByDriver,
    /// See [`WINDOWS`].
    CountersLent,
    /// See [`WINDOWS`].
    InterruptsInARow,
    /// See [`WINDOWS`].
    UserView,
    /// See [`WINDOWS`].
    ReservedBits,
    /// See [`WINDOWS`].
    ShortCycles,
    /// See [`WINDOWS`].
    DeniedInMemory,
    /// See [`WINDOWS`].
    Identification,
    /// See [`WINDOWS`].
    TrappedWrite,
    /// See [`WINDOWS`].
    LaterPmu,
}

/// What a tolerance is.
#[derive(Clone, Copy, Debug)]
pub struct Allowed {
    /// Its name.
    pub name: &'static str,
    /// What opens it.
    pub opened: &'static str,
    /// What closes it.
    pub closed: &'static str,
    /// What is allowed meanwhile.
    pub allowed: &'static str,
    /// Where that is said.
    pub source: &'static str,
}

/// All tolerances.
pub const WINDOWS: [Allowed; 14] = [
    Allowed {
        name: "unknown after reset",
        opened: "reset of the vCPU",
        closed: "the first write or read of the register, or of the bit, by the guest, by KVM_GET_ONE_REG, or where an entry lets the guest read it",
        allowed: "any value that is nobody else's, which is its value from then on; an interrupt by it",
        source: "Arm ARM, the registers' reset values; Linux arch/arm64/kvm/sys_regs.c, reset_unknown()",
    },
    Allowed {
        name: "absent counter",
        opened: "an access to a counter at or above PMCR_EL0.N",
        closed: "its end",
        allowed: "CONSTRAINED UNPREDICTABLE: UNDEFINED, RAZ/WI, or an access to a counter that the guest has",
        source: "Arm ARM, PMEVCNTR<n>_EL0, accessing",
    },
    Allowed {
        name: "interrupt on its way",
        opened: "the interrupt condition of a guest or the host becomes true",
        closed: "the PMU's interrupt has reached the CPU",
        allowed: "who is to be interrupted goes on for as many cycles as the level takes (pmi_delay)",
        source: "Arm ARM, PMU overflow interrupts: in finite time",
    },
    Allowed {
        name: "polled flag",
        opened: "the guest itself ends its interrupt condition, without a trap",
        closed: "its next exit, or the interrupt",
        allowed: "one interrupt, which KVM had made pending before",
        source: "Arm GIC architecture specification, level-sensitive interrupts; Linux arch/arm64/kvm/pmu-emul.c",
    },
    Allowed {
        name: "stopped by the driver",
        opened: "the host's driver stops its counters, and one that an event is on runs on",
        closed: "it starts them, or has stopped that one",
        allowed: "the event counts, or does not, what its attributes admit",
        source: "Linux drivers/perf/arm_pmuv3.c, armv8pmu_stop() and armv8pmu_start()",
    },
    Allowed {
        name: "counters lent",
        opened: "vcpu_load",
        closed: "vcpu_put, and what the host's kernel does after it",
        allowed: "a pinned event of the host's that is enabled waits for a counter that the vCPU has",
        source: "the rule that a guest has its counters while it is loaded; Linux kernel/events/core.c, perf_load_guest_context()",
    },
    Allowed {
        name: "interrupts in a row",
        opened: "a PMU interrupt is taken",
        closed: "who was interrupted has worked, or waits",
        allowed: "as many further interrupts, one after the other, as IN_A_ROW says",
        source: "A tenth of the interrupts by which Linux judges a line to be stuck: kernel/irq/spurious.c, note_interrupt()",
    },
    Allowed {
        name: "view set by userspace",
        opened: "KVM_SET_ONE_REG of a set or clear view, or of PMCR_EL0 with P or C",
        closed: "the next read of the bit or counter, by the guest or by KVM_GET_ONE_REG",
        allowed: "the views set and clear (up to Linux 6.14), or assign (since 6.15); P and C read as set, and reset at the first run, or never: the counters have any value",
        source: "Linux arch/arm64/kvm/sys_regs.c, set_pmreg(), set_pmcr(); arch/arm64/kvm/pmu-emul.c, kvm_vcpu_reload_pmu()",
    },
    Allowed {
        name: "reserved bits",
        opened: "the guest writes bits that are RES0 or RES1 in PMCR_EL0, PMSELR_EL0 or an event type otherwise",
        closed: "its next write of them",
        allowed: "they read as written, too",
        source: "Arm ARM, Glossary, RES0 and RES1: software must not rely on either; Linux arch/arm64/kvm/sys_regs.c",
    },
    Allowed {
        name: "cycle counter of 32 bits",
        opened: "the guest writes PMCR_EL0.LC as 0, or has not written it",
        closed: "it has written it as 1, and writes or reads the overflow flag",
        allowed: "the cycle counter's overflow flag is set by bit 31, or by bit 63 alone",
        source: "Arm ARM, PMCR_EL0.LC, RES1 without AArch32; Linux arch/arm64/kvm/pmu-emul.c, kvm_pmc_has_64bit_overflow()",
    },
    Allowed {
        name: "denied event in memory",
        opened: "the guest has a counter count SW_INCR or CHAIN, and the VM's filter denies that",
        closed: "it counts another event, and is written or read",
        allowed: "it counts, or does not",
        source: "Linux arch/arm64/kvm/pmu-emul.c, kvm_pmu_counter_increment(), which does not ask the filter",
    },
    Allowed {
        name: "identification",
        opened: "a read of PMCEID0_EL0, PMCEID1_EL0 or PMMIR_EL1",
        closed: "its end",
        allowed: "what any CPU implements or what all do; CHAIN; none of bits 63 to 32, STALL_SLOT*, and PMMIR_EL1",
        source: "Linux arch/arm64/kvm/pmu-emul.c, kvm_pmu_get_pmceid(); sys_regs.c, pmmir is RAZ/WI",
    },
    Allowed {
        name: "trapped write",
        opened: "a guest's write traps",
        closed: "KVM has done it, and goes back to the guest",
        allowed: "an interrupt of a condition that is true after the write, and was not before it",
        source: "interrupts are unmasked in handle_exit(): Linux arch/arm64/kvm/arm.c, kvm_arch_vcpu_ioctl_run()",
    },
    Allowed {
        name: "bits of a later PMU",
        opened: "the guest sets bits that are RES0 in its PMU and mean something in a later one: PMCR_EL0.LP and FZO, PMUSERENR_EL0.UEN, IR and TID; or before PMUv3p5 accesses an event counter, and the CPU has done that",
        closed: "it has cleared them, and writes or reads the counter or its flag; the access's end",
        allowed: "the CPU does what they mean: counters are long or freeze, EL0 may do more or less, its counters read as zero; bits 63 to 32 of the event counter are the CPU's, but not in what KVM gives or writes",
        source: "KVM shows PMUv3p5 at most: Linux arch/arm64/kvm/sys_regs.c; Arm ARM, Glossary, RES0: software must not rely on it; PMEVCNTR<n>_EL0: no control narrows it",
    },
];

/// PMU interrupts that may follow one another before anything is got done.
pub const IN_A_ROW: u32 = 10_000;
