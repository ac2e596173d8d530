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
