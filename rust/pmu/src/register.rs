//! The registers and their encodings.
//!
//! An encoding is (op0, op1, CRn, CRm, op2) packed into 16 bits as KVM's `ONE_REG` ids pack it.

/// Packs an encoding.
#[must_use]
pub const fn encoding(op0: u16, op1: u16, crn: u16, crm: u16, op2: u16) -> u16 {
    op0 << 14 | op1 << 11 | crn << 7 | crm << 3 | op2
}

/// ISS of an exception from a trapped `MSR`, `MRS` of this register (ESR_EL2, EC 0x18), with `Rt` 0:
/// software does not say which general register it uses.
#[must_use]
pub const fn iss(encoding: u16, write: bool) -> u64 {
    let e = encoding as u64;
    let (op0, op1, crn, crm, op2) = (e >> 14, e >> 11 & 7, e >> 7 & 15, e >> 3 & 15, e & 7);
    op0 << 20 | op2 << 17 | op1 << 14 | crn << 10 | crm << 1 | if write { 0 } else { 1 }
}

macro_rules! registers {
    ($($kind:ident $name:literal ($op0:literal, $op1:literal, $crn:literal, $crm:literal, $op2:literal);)*) => {
        /// What a register is; of the event counters there are several of a kind.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        #[repr(u8)]
        pub enum Kind {
            $(#[doc = concat!("`", $name, "`")] $kind,)*
        }

        /// Every kind with the name and the encoding of its first register.
        pub const KINDS: &[(Kind, &str, u16)] = &[
            $((Kind::$kind, $name, encoding($op0, $op1, $crn, $crm, $op2)),)*
        ];
    };
}

registers! {
    Pmcr "PMCR_EL0" (3, 3, 9, 12, 0);
    Pmcntenset "PMCNTENSET_EL0" (3, 3, 9, 12, 1);
    Pmcntenclr "PMCNTENCLR_EL0" (3, 3, 9, 12, 2);
    Pmovsclr "PMOVSCLR_EL0" (3, 3, 9, 12, 3);
    Pmswinc "PMSWINC_EL0" (3, 3, 9, 12, 4);
    Pmselr "PMSELR_EL0" (3, 3, 9, 12, 5);
    Pmceid0 "PMCEID0_EL0" (3, 3, 9, 12, 6);
    Pmceid1 "PMCEID1_EL0" (3, 3, 9, 12, 7);
    Pmccntr "PMCCNTR_EL0" (3, 3, 9, 13, 0);
    Pmxevtyper "PMXEVTYPER_EL0" (3, 3, 9, 13, 1);
    Pmxevcntr "PMXEVCNTR_EL0" (3, 3, 9, 13, 2);
    Pmzr "PMZR_EL0" (3, 3, 9, 13, 4);
    Pmuserenr "PMUSERENR_EL0" (3, 3, 9, 14, 0);
    Pmovsset "PMOVSSET_EL0" (3, 3, 9, 14, 3);
    Pmicntr "PMICNTR_EL0" (3, 3, 9, 4, 0);
    Pmicfiltr "PMICFILTR_EL0" (3, 3, 9, 6, 0);
    Pmintenset "PMINTENSET_EL1" (3, 0, 9, 14, 1);
    Pmintenclr "PMINTENCLR_EL1" (3, 0, 9, 14, 2);
    Pmuacr "PMUACR_EL1" (3, 0, 9, 14, 4);
    Pmecr "PMECR_EL1" (3, 0, 9, 14, 5);
    Pmmir "PMMIR_EL1" (3, 0, 9, 14, 6);
    Pmccfiltr "PMCCFILTR_EL0" (3, 3, 14, 15, 7);
    MdcrEl2 "MDCR_EL2" (3, 4, 1, 1, 1);
    HcrEl2 "HCR_EL2" (3, 4, 1, 1, 0);
    Hdfgrtr "HDFGRTR_EL2" (3, 4, 3, 1, 4);
    Hdfgwtr "HDFGWTR_EL2" (3, 4, 3, 1, 5);
    Hdfgrtr2 "HDFGRTR2_EL2" (3, 4, 3, 1, 0);
    Hdfgwtr2 "HDFGWTR2_EL2" (3, 4, 3, 1, 1);
    MdcrEl3 "MDCR_EL3" (3, 6, 1, 3, 1);
    IccSgi1r "ICC_SGI1R_EL1" (3, 0, 12, 11, 5);
    IdAa64dfr0 "ID_AA64DFR0_EL1" (3, 0, 0, 5, 0);
    IdAa64dfr1 "ID_AA64DFR1_EL1" (3, 0, 0, 5, 1);
    Pmevcntr "PMEVCNTR<n>_EL0" (3, 3, 14, 8, 0);
    Pmevtyper "PMEVTYPER<n>_EL0" (3, 3, 14, 12, 0);
}

/// Event counters that the architecture has room for.
pub const EVENT_COUNTERS: u8 = 31;

/// Registers in all: the two kinds with an index come last.
pub const REGISTERS: usize = KINDS.len() - 2 + 2 * EVENT_COUNTERS as usize;

const FIRST_PMEVCNTR: u8 = Kind::Pmevcntr as u8;
const FIRST_PMEVTYPER: u8 = FIRST_PMEVCNTR + EVENT_COUNTERS;
const NO_REGISTER: u8 = u8::MAX;

/// A register of the model, numbered densely.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Register(u8);

/// Encoding to register: 64 KiB of which software touches a few cache lines.
static DECODED: [u8; 1 << 16] = decoded();

#[expect(clippy::large_stack_arrays, reason = "evaluated by the compiler")]
const fn decoded() -> [u8; 1 << 16] {
    let mut table = [NO_REGISTER; 1 << 16];
    let mut id = 0;
    while id < REGISTERS {
        table[Register(id as u8).encoding() as usize] = id as u8;
        id += 1;
    }
    table
}

impl Register {
    /// The register with this encoding, if the model has it.
    #[inline]
    #[must_use]
    pub fn decode(encoding: u16) -> Option<Self> {
        let id = DECODED[usize::from(encoding)];
        (id != NO_REGISTER).then_some(Self(id))
    }

    /// A register by its architectural name, `PMEVCNTR3_EL0` for instance.
    #[must_use]
    pub fn by_name(name: &str) -> Option<Self> {
        Self::all().find(|register| register.name() == name)
    }

    /// All registers.
    pub fn all() -> impl Iterator<Item = Self> {
        (0..REGISTERS as u8).map(Self)
    }

    /// The only register of its kind, or the first.
    #[must_use]
    pub const fn of(kind: Kind) -> Self {
        match kind {
            Kind::Pmevtyper => Self(FIRST_PMEVTYPER),
            _ => Self(kind as u8),
        }
    }

    /// `PMEVCNTR<n>_EL0`.
    ///
    /// # Panics
    /// `n` is not below [`EVENT_COUNTERS`].
    #[must_use]
    pub const fn pmevcntr(n: u8) -> Self {
        assert!(n < EVENT_COUNTERS);
        Self(FIRST_PMEVCNTR + n)
    }

    /// `PMEVTYPER<n>_EL0`.
    ///
    /// # Panics
    /// `n` is not below [`EVENT_COUNTERS`].
    #[must_use]
    pub const fn pmevtyper(n: u8) -> Self {
        assert!(n < EVENT_COUNTERS);
        Self(FIRST_PMEVTYPER + n)
    }

    /// Dense number, below [`REGISTERS`].
    #[inline]
    #[must_use]
    pub const fn id(self) -> usize {
        self.0 as usize
    }

    /// What it is.
    #[inline]
    #[must_use]
    pub const fn kind(self) -> Kind {
        if self.0 >= FIRST_PMEVTYPER {
            Kind::Pmevtyper
        } else if self.0 >= FIRST_PMEVCNTR {
            Kind::Pmevcntr
        } else {
            KINDS[self.0 as usize].0
        }
    }

    /// `n` of `PMEVCNTR<n>_EL0` and `PMEVTYPER<n>_EL0`, else 0.
    #[inline]
    #[must_use]
    pub const fn index(self) -> u8 {
        if self.0 >= FIRST_PMEVTYPER {
            self.0 - FIRST_PMEVTYPER
        } else {
            self.0.saturating_sub(FIRST_PMEVCNTR)
        }
    }

    /// The encoding.
    #[must_use]
    pub const fn encoding(self) -> u16 {
        // The index extends (CRm[1:0], op2).
        KINDS[self.kind() as usize].2 + self.index() as u16
    }

    /// The architectural name.
    #[must_use]
    pub fn name(self) -> String {
        let name = KINDS[self.kind() as usize].1;
        name.replace("<n>", &self.index().to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn encodings_are_those_of_the_register_pages() {
        assert_eq!(Register::of(Kind::Pmcr).encoding(), 0xdce0);
        assert_eq!(Register::pmevcntr(30).encoding(), encoding(3, 3, 14, 11, 6));
        assert_eq!(Register::pmevtyper(8).encoding(), encoding(3, 3, 14, 13, 0));
    }

    #[test]
    fn every_register_decodes_to_itself() {
        for register in Register::all() {
            assert_eq!(Register::decode(register.encoding()), Some(register));
            assert_eq!(Register::by_name(&register.name()), Some(register));
        }
        assert_eq!(Register::decode(0), None);
    }

    #[test]
    fn iss_has_the_fields_where_esr_el2_has_them() {
        assert_eq!(iss(Register::of(Kind::Pmcr).encoding(), false), 0x30_e419);
        assert_eq!(iss(Register::of(Kind::Pmcr).encoding(), true), 0x30_e418);
    }
}
