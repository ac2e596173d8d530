//! Fields of the registers, by the names that the registers' pages give them.
//!
//! A constant is the field's mask, except those that end in `_SHIFT`.

/// `PMCR_EL0`, Performance Monitors Control Register.
pub mod pmcr {
    /// Enable: counters of the first range, the cycle and the instruction counter.
    pub const E: u64 = 1 << 0;
    /// Event counter reset; write-only.
    pub const P: u64 = 1 << 1;
    /// Cycle counter reset; write-only.
    pub const C: u64 = 1 << 2;
    /// Clock divider: the cycle counter counts every 64th cycle. RES0 without AArch32.
    pub const D: u64 = 1 << 3;
    /// Export of events.
    pub const X: u64 = 1 << 4;
    /// Disable the cycle counter when event counting is prohibited.
    pub const DP: u64 = 1 << 5;
    /// Long cycle counter: overflow from bit 63.
    pub const LC: u64 = 1 << 6;
    /// Long event counters: overflow from bit 63 (`FEAT_PMUv3p5`).
    pub const LP: u64 = 1 << 7;
    /// Freeze on overflow (`FEAT_PMUv3p7`).
    pub const FZO: u64 = 1 << 9;
    /// Number of event counters accessible at this exception level; read-only.
    pub const N: u64 = 0b1_1111 << N_SHIFT;
    /// First bit of `N`.
    pub const N_SHIFT: u32 = 11;
    /// Identification code; read-only.
    pub const IDCODE: u64 = 0xff << 16;
    /// Implementer; read-only.
    pub const IMP: u64 = 0xff << 24;
}

/// `PMEVTYPER<n>_EL0`, `PMCCFILTR_EL0` and `PMICFILTR_EL0`.
pub mod pmevtyper {
    /// Event number, 16 bits with `FEAT_PMUv3p1`, else 10.
    pub const EVT_COUNT: u64 = 0xffff;
    /// Event number before `FEAT_PMUv3p1`.
    pub const EVT_COUNT_PMUV3: u64 = 0x3ff;
    /// Realm EL2 filtering.
    pub const RLH: u64 = 1 << 20;
    /// Realm EL0 filtering.
    pub const RLU: u64 = 1 << 21;
    /// Realm EL1 filtering.
    pub const RLK: u64 = 1 << 22;
    /// Secure EL2 filtering.
    pub const SH: u64 = 1 << 24;
    /// Multithreading: count events of all PEs of the core (`FEAT_MTPMU`).
    pub const MT: u64 = 1 << 25;
    /// EL3 filtering: counts in EL3 if equal to `P`.
    pub const M: u64 = 1 << 26;
    /// Non-secure EL2: counts there if set.
    pub const NSH: u64 = 1 << 27;
    /// Non-secure EL0: counts there if equal to `U`.
    pub const NSU: u64 = 1 << 28;
    /// Non-secure EL1: counts there if equal to `P`.
    pub const NSK: u64 = 1 << 29;
    /// EL0 filtering.
    pub const U: u64 = 1 << 30;
    /// EL1 filtering.
    pub const P: u64 = 1 << 31;
    /// Threshold value (`FEAT_PMUv3_TH`).
    pub const TH: u64 = 0xfff << TH_SHIFT;
    /// First bit of `TH`.
    pub const TH_SHIFT: u32 = 32;
    /// Threshold control (`FEAT_PMUv3_TH`).
    pub const TC: u64 = 0b111 << TC_SHIFT;
    /// First bit of `TC`.
    pub const TC_SHIFT: u32 = 61;
}

/// `PMUSERENR_EL0`, Performance Monitors User Enable Register.
pub mod pmuserenr {
    /// Access at EL0.
    pub const EN: u64 = 1 << 0;
    /// Writes of `PMSWINC_EL0` at EL0.
    pub const SW: u64 = 1 << 1;
    /// Reads of the cycle counter at EL0.
    pub const CR: u64 = 1 << 2;
    /// Reads of the event counters, and `PMSELR_EL0`, at EL0.
    pub const ER: u64 = 1 << 3;
    /// EL0 access as `PMUACR_EL1` grants it (`FEAT_PMUv3p9`).
    pub const UEN: u64 = 1 << 4;
    /// Instruction counter at EL0 (`FEAT_PMUv3p9` and `FEAT_PMUv3_ICNTR`).
    pub const IR: u64 = 1 << 5;
    /// Trap of the identification registers at EL0 (`FEAT_PMUv3p9`).
    pub const TID: u64 = 1 << 6;
}

/// `PMECR_EL1`, Performance Monitors Extended Control Register.
pub mod pmecr {
    /// Snapshot enable (`FEAT_PMUv3_SS`).
    pub const SSE: u64 = 0b11 << 3;
}

/// `PMMIR_EL1`, Performance Monitors Machine Identification Register.
pub mod pmmir {
    /// Bits of PMEVTYPER<n>_EL0.TH (`FEAT_PMUv3_TH`).
    pub const THWIDTH: u64 = 0b1111 << THWIDTH_SHIFT;
    /// First bit of `THWIDTH`.
    pub const THWIDTH_SHIFT: u32 = 20;
}

/// `MDCR_EL2`, Monitor Debug Configuration Register.
pub mod mdcr_el2 {
    /// Number of counters of the first range.
    pub const HPMN: u64 = 0b1_1111;
    /// Trap `PMCR_EL0`.
    pub const TPMCR: u64 = 1 << 5;
    /// Trap all Performance Monitors registers.
    pub const TPM: u64 = 1 << 6;
    /// Enable of the second range.
    pub const HPME: u64 = 1 << 7;
    /// The first range does not count at EL2 (`FEAT_PMUv3p1`).
    pub const HPMD: u64 = 1 << 17;
    /// The cycle counter does not count at EL2 (`FEAT_PMUv3p5`).
    pub const HCCD: u64 = 1 << 23;
    /// Long counters in the second range (`FEAT_PMUv3p5`).
    pub const HLP: u64 = 1 << 26;
    /// Multithreaded counting (`FEAT_MTPMU`, no EL3).
    pub const MTPME: u64 = 1 << 28;
    /// Freeze the second range on overflow (`FEAT_PMUv3p7`).
    pub const HPMFZO: u64 = 1 << 29;
}

/// `MDCR_EL3`: nothing in the model runs there, its controls can be set from outside.
pub mod mdcr_el3 {
    /// Trap all Performance Monitors registers to EL3.
    pub const TPM: u64 = 1 << 6;
    /// With 0, `FEAT_PMUv3_ICNTR` and `FEAT_PMUv3p9` registers trap to EL3.
    pub const EN_PM2: u64 = 1 << 7;
    /// Multithreaded counting (`FEAT_MTPMU`).
    pub const MTPME: u64 = 1 << 28;
}

/// `HCR_EL2`, Hypervisor Configuration Register: what concerns the PMU.
pub mod hcr_el2 {
    /// Trap general exceptions: EL0 is the host's.
    pub const TGE: u64 = 1 << 27;
    /// EL1 is AArch64.
    pub const RW: u64 = 1 << 31;
    /// The host runs at EL2 (`FEAT_VHE`).
    pub const E2H: u64 = 1 << 34;
}

/// `HDFGRTR_EL2` and `HDFGWTR_EL2`: a 1 traps (`FEAT_FGT`).
pub mod hdfgtr {
    /// `PMEVCNTR<n>_EL0`, `PMXEVCNTR_EL0`.
    pub const PMEVCNTRN: u64 = 1 << 12;
    /// `PMEVTYPER<n>_EL0`, `PMXEVTYPER_EL0`.
    pub const PMEVTYPERN: u64 = 1 << 13;
    /// `PMCCFILTR_EL0`.
    pub const PMCCFILTR: u64 = 1 << 14;
    /// `PMCCNTR_EL0`.
    pub const PMCCNTR: u64 = 1 << 15;
    /// `PMCNTENSET_EL0`, `PMCNTENCLR_EL0`.
    pub const PMCNTEN: u64 = 1 << 16;
    /// `PMINTENSET_EL1`, `PMINTENCLR_EL1`.
    pub const PMINTEN: u64 = 1 << 17;
    /// `PMOVSSET_EL0`, `PMOVSCLR_EL0`.
    pub const PMOVS: u64 = 1 << 18;
    /// `PMSELR_EL0`.
    pub const PMSELR: u64 = 1 << 19;
    /// `PMSWINC_EL0`; `HDFGWTR_EL2` only.
    pub const PMSWINC: u64 = 1 << 20;
    /// `PMCR_EL0`; `HDFGWTR_EL2` only: there is no fine-grained trap of its reads.
    pub const PMCR: u64 = 1 << 21;
    /// `PMMIR_EL1`; `HDFGRTR_EL2` only.
    pub const PMMIR: u64 = 1 << 22;
    /// `PMUSERENR_EL0`.
    pub const PMUSERENR: u64 = 1 << 57;
    /// `PMCEID0_EL0`, `PMCEID1_EL0`; `HDFGRTR_EL2` only.
    pub const PMCEIDN: u64 = 1 << 58;
}

/// `HDFGRTR2_EL2` and `HDFGWTR2_EL2`: a 0 traps (`FEAT_FGT2`).
pub mod hdfgtr2 {
    /// `PMECR_EL1`.
    pub const N_PMECR: u64 = 1 << 0;
    /// `PMICNTR_EL0`.
    pub const N_PMICNTR: u64 = 1 << 2;
    /// `PMICFILTR_EL0`.
    pub const N_PMICFILTR: u64 = 1 << 3;
    /// `PMUACR_EL1`.
    pub const N_PMUACR: u64 = 1 << 4;
    /// `PMZR_EL0`; `HDFGWTR2_EL2` only.
    pub const N_PMZR: u64 = 1 << 21;
}
