//! Fields of the registers, by the names that the registers' pages give them.
//!
//! Each is a constant with the field's mask, and a row of [`FIELDS`].

/// One field.
#[derive(Clone, Copy, Debug)]
pub struct Field {
    /// Its registers, as `KINDS` names them; several that share a layout.
    pub registers: &'static [&'static str],
    /// Its name on their pages.
    pub name: &'static str,
    /// Its bits.
    pub mask: u64,
    /// What it does.
    pub text: &'static str,
}

macro_rules! fields {
    ($($(#[doc = $about:literal])* $module:ident of $registers:tt {
        $(#[doc = $text:literal] $constant:ident $name:literal = $mask:expr;)*
    })*) => {
        $($(#[doc = $about])* pub mod $module {
            $(#[doc = $text] pub const $constant: u64 = $mask;)*
        })*

        /// All fields.
        pub const FIELDS: &[Field] = &[$($(Field {
            registers: &$registers,
            name: $name,
            mask: $module::$constant,
            text: $text,
        },)*)*];
    };
}

fields! {
    /// `PMCR_EL0`, Performance Monitors Control Register.
    pmcr of ["PMCR_EL0"] {
        /// Enable: counters of the first range, the cycle and the instruction counter.
        E "E" = 1 << 0;
        /// Event counter reset; write-only.
        P "P" = 1 << 1;
        /// Cycle counter reset; write-only.
        C "C" = 1 << 2;
        /// Clock divider: the cycle counter counts every 64th cycle. RES0 without AArch32.
        D "D" = 1 << 3;
        /// Export of events.
        X "X" = 1 << 4;
        /// Disable the cycle counter when event counting is prohibited.
        DP "DP" = 1 << 5;
        /// Long cycle counter: overflow from bit 63.
        LC "LC" = 1 << 6;
        /// Long event counters: overflow from bit 63 (`FEAT_PMUv3p5`).
        LP "LP" = 1 << 7;
        /// Freeze on overflow (`FEAT_PMUv3p7`).
        FZO "FZO" = 1 << 9;
        /// Number of event counters accessible at this exception level; read-only.
        N "N" = 0b1_1111 << 11;
        /// Identification code; read-only.
        IDCODE "IDCODE" = 0xff << 16;
        /// Implementer; read-only.
        IMP "IMP" = 0xff << 24;
    }
    /// `PMEVTYPER<n>_EL0`, `PMCCFILTR_EL0` and `PMICFILTR_EL0`.
    pmevtyper of ["PMEVTYPER<n>_EL0", "PMCCFILTR_EL0", "PMICFILTR_EL0"] {
        /// Event number, 16 bits with `FEAT_PMUv3p1`, else 10.
        EVT_COUNT "evtCount" = 0xffff;
        /// Realm EL2 filtering.
        RLH "RLH" = 1 << 20;
        /// Realm EL0 filtering.
        RLU "RLU" = 1 << 21;
        /// Realm EL1 filtering.
        RLK "RLK" = 1 << 22;
        /// Secure EL2 filtering.
        SH "SH" = 1 << 24;
        /// Multithreading: count events of all PEs of the core (`FEAT_MTPMU`).
        MT "MT" = 1 << 25;
        /// EL3 filtering: counts in EL3 if equal to `P`.
        M "M" = 1 << 26;
        /// Non-secure EL2: counts there if set.
        NSH "NSH" = 1 << 27;
        /// Non-secure EL0: counts there if equal to `U`.
        NSU "NSU" = 1 << 28;
        /// Non-secure EL1: counts there if equal to `P`.
        NSK "NSK" = 1 << 29;
        /// EL0 filtering.
        U "U" = 1 << 30;
        /// EL1 filtering.
        P "P" = 1 << 31;
        /// Threshold value (`FEAT_PMUv3_TH`).
        TH "TH" = 0xfff << 32;
        /// Threshold control (`FEAT_PMUv3_TH`).
        TC "TC" = 0b111 << 61;
    }
    /// `PMUSERENR_EL0`, Performance Monitors User Enable Register.
    pmuserenr of ["PMUSERENR_EL0"] {
        /// Access at EL0.
        EN "EN" = 1 << 0;
        /// Writes of `PMSWINC_EL0` at EL0.
        SW "SW" = 1 << 1;
        /// Reads of the cycle counter at EL0.
        CR "CR" = 1 << 2;
        /// Reads of the event counters, and `PMSELR_EL0`, at EL0.
        ER "ER" = 1 << 3;
        /// EL0 access as `PMUACR_EL1` grants it (`FEAT_PMUv3p9`).
        UEN "UEN" = 1 << 4;
        /// Instruction counter at EL0 (`FEAT_PMUv3p9` and `FEAT_PMUv3_ICNTR`).
        IR "IR" = 1 << 5;
        /// Trap of the identification registers at EL0 (`FEAT_PMUv3p9`).
        TID "TID" = 1 << 6;
    }
    /// `PMECR_EL1`, Performance Monitors Extended Control Register.
    pmecr of ["PMECR_EL1"] {
        /// Snapshot enable (`FEAT_PMUv3_SS`).
        SSE "SSE" = 0b11 << 3;
    }
    /// `PMMIR_EL1`, Performance Monitors Machine Identification Register.
    pmmir of ["PMMIR_EL1"] {
        /// Bits of PMEVTYPER<n>_EL0.TH (`FEAT_PMUv3_TH`).
        THWIDTH "THWIDTH" = 0b1111 << 20;
    }
    /// `MDCR_EL2`, Monitor Debug Configuration Register.
    mdcr_el2 of ["MDCR_EL2"] {
        /// Number of counters of the first range.
        HPMN "HPMN" = 0b1_1111;
        /// Trap `PMCR_EL0`.
        TPMCR "TPMCR" = 1 << 5;
        /// Trap all Performance Monitors registers.
        TPM "TPM" = 1 << 6;
        /// Enable of the second range.
        HPME "HPME" = 1 << 7;
        /// The first range does not count at EL2 (`FEAT_PMUv3p1`).
        HPMD "HPMD" = 1 << 17;
        /// The cycle counter does not count at EL2 (`FEAT_PMUv3p5`).
        HCCD "HCCD" = 1 << 23;
        /// Long counters in the second range (`FEAT_PMUv3p5`).
        HLP "HLP" = 1 << 26;
        /// Multithreaded counting (`FEAT_MTPMU`, no EL3).
        MTPME "MTPME" = 1 << 28;
        /// Freeze the second range on overflow (`FEAT_PMUv3p7`).
        HPMFZO "HPMFZO" = 1 << 29;
    }
    /// `MDCR_EL3`: nothing in the model runs there, its controls can be set from outside.
    mdcr_el3 of ["MDCR_EL3"] {
        /// Trap all Performance Monitors registers to EL3.
        TPM "TPM" = 1 << 6;
        /// With 0, `FEAT_PMUv3_ICNTR` and `FEAT_PMUv3p9` registers trap to EL3.
        EN_PM2 "EnPM2" = 1 << 7;
        /// Multithreaded counting (`FEAT_MTPMU`).
        MTPME "MTPME" = 1 << 28;
    }
    /// `HCR_EL2`, Hypervisor Configuration Register: what concerns the PMU.
    hcr_el2 of ["HCR_EL2"] {
        /// Trap general exceptions: EL0 is the host's.
        TGE "TGE" = 1 << 27;
        /// EL1 is AArch64.
        RW "RW" = 1 << 31;
        /// The host runs at EL2 (`FEAT_VHE`).
        E2H "E2H" = 1 << 34;
    }
    /// `HDFGRTR_EL2` and `HDFGWTR_EL2`: a 1 traps (`FEAT_FGT`).
    hdfgtr of ["HDFGRTR_EL2", "HDFGWTR_EL2"] {
        /// `PMEVCNTR<n>_EL0`, `PMXEVCNTR_EL0`.
        PMEVCNTRN "PMEVCNTRn_EL0" = 1 << 12;
        /// `PMEVTYPER<n>_EL0`, `PMXEVTYPER_EL0`.
        PMEVTYPERN "PMEVTYPERn_EL0" = 1 << 13;
        /// `PMCCFILTR_EL0`.
        PMCCFILTR "PMCCFILTR_EL0" = 1 << 14;
        /// `PMCCNTR_EL0`.
        PMCCNTR "PMCCNTR_EL0" = 1 << 15;
        /// `PMCNTENSET_EL0`, `PMCNTENCLR_EL0`.
        PMCNTEN "PMCNTEN" = 1 << 16;
        /// `PMINTENSET_EL1`, `PMINTENCLR_EL1`.
        PMINTEN "PMINTEN" = 1 << 17;
        /// `PMOVSSET_EL0`, `PMOVSCLR_EL0`.
        PMOVS "PMOVS" = 1 << 18;
        /// `PMSELR_EL0`.
        PMSELR "PMSELR_EL0" = 1 << 19;
        /// `PMSWINC_EL0`; `HDFGWTR_EL2` only.
        PMSWINC "PMSWINC_EL0" = 1 << 20;
        /// `PMCR_EL0`; `HDFGWTR_EL2` only: there is no fine-grained trap of its reads.
        PMCR "PMCR" = 1 << 21;
        /// `PMMIR_EL1`; `HDFGRTR_EL2` only.
        PMMIR "PMMIR_EL1" = 1 << 22;
        /// `PMUSERENR_EL0`.
        PMUSERENR "PMUSERENR_EL0" = 1 << 57;
        /// `PMCEID0_EL0`, `PMCEID1_EL0`; `HDFGRTR_EL2` only.
        PMCEIDN "PMCEIDn_EL0" = 1 << 58;
    }
    /// `HDFGRTR2_EL2` and `HDFGWTR2_EL2`: a 0 traps (`FEAT_FGT2`).
    hdfgtr2 of ["HDFGRTR2_EL2", "HDFGWTR2_EL2"] {
        /// `PMECR_EL1`.
        N_PMECR "nPMECR_EL1" = 1 << 0;
        /// `PMICNTR_EL0`.
        N_PMICNTR "nPMICNTR_EL0" = 1 << 2;
        /// `PMICFILTR_EL0`.
        N_PMICFILTR "nPMICFILTR_EL0" = 1 << 3;
        /// `PMUACR_EL1`.
        N_PMUACR "nPMUACR_EL1" = 1 << 4;
        /// `PMZR_EL0`; `HDFGWTR2_EL2` only.
        N_PMZR "nPMZR_EL0" = 1 << 21;
    }
}

/// The event number that `FEAT_PMUv3` has before `FEAT_PMUv3p1`.
pub const EVT_COUNT_PMUV3: u64 = 0x3ff;

/// The fields of a register, by its name.
pub fn of(register: &str) -> impl Iterator<Item = &'static Field> {
    let name = match register.strip_prefix("PMEVTYPER") {
        Some(_) => "PMEVTYPER<n>_EL0",
        None => register,
    };
    FIELDS.iter().filter(move |field| field.registers.contains(&name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_of_one_register_do_not_overlap() {
        for register in FIELDS.iter().flat_map(|field| field.registers) {
            let mut seen = 0;
            for field in of(register) {
                assert_eq!(seen & field.mask, 0, "{register}.{}", field.name);
                seen |= field.mask;
            }
        }
    }

    #[test]
    fn a_field_is_found_by_its_register() {
        let hpmn = of("MDCR_EL2").find(|field| field.name == "HPMN").map(|field| field.mask);
        assert_eq!(hpmn, Some(0b1_1111));
        assert!(of("PMEVTYPER12_EL0").any(|field| field.name == "NSH"));
    }
}
