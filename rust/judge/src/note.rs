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
/// An access of the guest's that has trapped is UNDEFINED for it.
pub const INJECT_UNDEF: u32 = 7;
/// kvm_vcpu_block: nothing is pending for the vCPU, which sleeps. First operand: its context.
pub const VCPU_BLOCKS: u32 = 32;
/// The simulation cannot go on: virtual time passes, and nobody gets anywhere. First operand: the vCPU's context, or
/// the host's.
pub const LIVELOCK: u32 = 33;
