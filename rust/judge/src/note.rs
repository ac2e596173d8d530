//! What KVM and software tell an observer: codes of `pmu::observer::What::Note`.

/// vcpu_load begins. First operand: the vCPU's context.
pub const VCPU_LOAD: u32 = 1;
/// And has ended.
pub const VCPU_LOADED: u32 = 2;
/// vcpu_put begins. First operand: the vCPU's context.
pub const VCPU_PUT: u32 = 3;
/// And has ended.
pub const VCPU_IS_PUT: u32 = 4;
/// KVM_GET_ONE_REG. First operand: the vCPU's context << 16 | register; second: what it gave.
pub const GET_ONE_REG: u32 = 5;
/// KVM_SET_ONE_REG, which was accepted. First operand likewise; second: what was to be set.
pub const SET_ONE_REG: u32 = 6;
/// KVM_ARM_VCPU_PMU_V3_SET_NR_COUNTERS, or PMCR_EL0.N by KVM_SET_ONE_REG where that sets it. First operand: the vCPU's
/// context; second: the number of event counters.
pub const SET_NR_COUNTERS: u32 = 8;
/// KVM_ARM_VCPU_PMU_V3_FILTER. First operand: the vCPU's context << 16 | first event; second: how many events << 1 | are
/// they denied.
pub const SET_FILTER: u32 = 9;
/// An access of the guest's that has trapped is UNDEFINED for it.
pub const INJECT_UNDEF: u32 = 7;

/// A kernel's perf has an event in a context from now on. Operand: its number << 32 | attributes (`attribute`) << 16 |
/// event number.
pub const EVENT_OPEN: u32 = 16;
/// An event is in a group. Operand: its number << 32 | the leader's.
pub const EVENT_GROUP: u32 = 17;
/// An event is enabled, and may have a counter. Operand: its number.
pub const EVENT_ENABLED: u32 = 18;
/// It is not any more. Operand: its number.
pub const EVENT_DISABLED: u32 = 19;
/// An event has a counter, which is about to be written. Operand: its number << 8 | the counter, of a pair the upper.
pub const EVENT_ON: u32 = 20;
/// And has it no more; the counter has been read. Operand likewise.
pub const EVENT_OFF: u32 = 21;
/// A pinned event is in ERROR. Operand: its number.
pub const EVENT_ERROR: u32 = 22;
/// An event is closed. Operand: its number.
pub const EVENT_CLOSED: u32 = 23;
/// An event is read; what is found follows. Operand: its number.
pub const EVENT_READ: u32 = 24;
/// `time_enabled` of the event that is read, in ns.
pub const EVENT_TIME_ENABLED: u32 = 25;
/// `time_running` of the event that is read, in ns.
pub const EVENT_TIME_RUNNING: u32 = 26;
/// The count of the event that is read.
pub const EVENT_COUNT: u32 = 27;

/// Attributes of an event, as `EVENT_OPEN` has them.
pub mod attribute {
    /// `exclude_user`
    pub const EXCLUDE_USER: u16 = 1;
    /// `exclude_kernel`
    pub const EXCLUDE_KERNEL: u16 = 1 << 1;
    /// `exclude_host`
    pub const EXCLUDE_HOST: u16 = 1 << 2;
    /// `exclude_guest`
    pub const EXCLUDE_GUEST: u16 = 1 << 3;
    /// `pinned`
    pub const PINNED: u16 = 1 << 4;
    /// It counts 64 bits.
    pub const LONG: u16 = 1 << 5;
    /// It has a period, or a frequency.
    pub const SAMPLING: u16 = 1 << 6;
    /// It is a task's, not a CPU's.
    pub const OF_TASK: u16 = 1 << 7;
    /// It is KVM's, for a guest's counter.
    pub const OF_KVM: u16 = 1 << 8;
    /// It is enabled.
    pub const ENABLED: u16 = 1 << 9;
}
/// A guest has its interrupts masked (PSTATE.I) from now on, whatever it works.
pub const MASKED: u32 = 28;
/// And lets them in for an instant: none is pending.
pub const UNMASKED: u32 = 29;

/// The host's driver has PMUSERENR_EL0 as the operand from now on; a guest's is in the register, and KVM keeps it
/// (kvm_set_pmuserenr).
pub const HOST_PMUSERENR: u32 = 30;

/// kvm_vcpu_block: nothing is pending for the vCPU, which sleeps. First operand: its context.
pub const VCPU_BLOCKS: u32 = 32;
/// The simulation cannot go on: interrupts take all. First operand: the context of the vCPU that they interrupt, or of
/// the host.
pub const LIVELOCK: u32 = 33;
/// Likewise: the host's perf waits on a CPU for a lock that the same CPU holds. Second operand: where it waits.
pub const DEADLOCK: u32 = 34;
/// Likewise: every CPU idles, without a timer, although work is left.
pub const ALL_IDLE: u32 = 35;
/// A vCPU that has blocked is runnable again: by kvm_vcpu_kick, a timer or its VMM. First operand: its context.
pub const VCPU_WAKES: u32 = 36;
