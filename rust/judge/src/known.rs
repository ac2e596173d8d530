//! What of a guest's registers is determined, by a write or by the first read, and what is UNKNOWN.

use pmu::register::Kind as Of;
use pmu::registers::CYCLE;
use serde::{Deserialize, Serialize};

use crate::window::Window;

/// Registers that have a bit each for the counters, or of which there is one for each counter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Field {
    Counters,
    Types,
    Enables,
    Interrupts,
    Flags,
    /// PMSELR_EL0, as one bit.
    Select,
}

impl Field {
    pub(crate) fn of(kind: Of) -> Option<Self> {
        Some(match kind {
            Of::Pmevcntr | Of::Pmccntr | Of::Pmxevcntr => Self::Counters,
            Of::Pmevtyper | Of::Pmccfiltr | Of::Pmxevtyper => Self::Types,
            Of::Pmcntenset | Of::Pmcntenclr => Self::Enables,
            Of::Pmintenset | Of::Pmintenclr => Self::Interrupts,
            Of::Pmovsset | Of::Pmovsclr => Self::Flags,
            Of::Pmselr => Self::Select,
            _ => return None,
        })
    }
}

type Bits = [u64; 6];

/// Why bits may be UNKNOWN, if not since the reset.
const REASONS: [Window; 4] =
    [Window::UserView, Window::DeniedInMemory, Window::ShortCycles, Window::LaterPmu];

/// By field and counter.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Known {
    sure: Bits,
    /// What is sure as it has been read, not written.
    adopted: Bits,
    reasons: [Bits; REASONS.len()],
    /// PMCR_EL0.LC as written: RES1 here, where software writes a 1 (SBOP), and KVM's emulation goes by what it wrote.
    pub(crate) long_cycles: bool,
}

impl Known {
    #[inline]
    pub(crate) fn sure(&self, field: Field) -> u64 {
        self.sure[field as usize]
    }

    pub(crate) fn adopted(&self, field: Field) -> u64 {
        self.adopted[field as usize]
    }

    /// By which tolerance bits are, or were, UNKNOWN.
    pub(crate) fn reason(&self, field: Field, bits: u64) -> Window {
        let of = REASONS.iter().zip(&self.reasons);
        let mut of = of.filter(|(_, reason)| reason[field as usize] & bits != 0);
        of.next().map_or(Window::UnknownAfterReset, |(&window, _)| window)
    }

    /// These bits are written.
    pub(crate) fn settle(&mut self, field: Field, bits: u64) {
        self.forget(field, bits);
        self.sure[field as usize] |= bits;
    }

    /// They were UNKNOWN, and have been read: since `before` they have been written as they were read.
    pub(crate) fn adopt(&mut self, before: &Self, field: Field, bits: u64) {
        let field = field as usize;
        self.sure[field] = before.sure[field] | bits;
        self.adopted[field] = before.adopted[field] | bits;
        for (reason, before) in self.reasons.iter_mut().zip(&before.reasons) {
            reason[field] = before[field];
        }
    }

    /// They are UNKNOWN from now on.
    pub(crate) fn forget(&mut self, field: Field, bits: u64) {
        let field = field as usize;
        self.sure[field] &= !bits;
        self.adopted[field] &= !bits;
        for reason in &mut self.reasons {
            reason[field] &= !bits;
        }
    }

    /// The flags of counters that may overflow at any time are UNKNOWN, for what the counters are.
    pub(crate) fn forget_flags(&mut self, counters: u64) {
        let (flags, of) = (Field::Flags as usize, Field::Counters as usize);
        self.sure[flags] &= !counters;
        self.adopted[flags] &= !counters;
        for reason in &mut self.reasons {
            reason[flags] = reason[flags] & !counters | reason[of] & counters;
        }
    }

    /// Likewise, by this tolerance.
    pub(crate) fn leave_open(&mut self, window: Window, field: Field, bits: u64) {
        self.forget(field, bits);
        for (_, reason) in REASONS.iter().zip(&mut self.reasons).filter(|(of, _)| **of == window) {
            reason[field as usize] |= bits;
        }
    }

    /// Counters that count for sure if they are enabled, or do not for sure.
    #[inline]
    pub(crate) fn counting(&self) -> u64 {
        self.sure(Field::Enables) & (self.sure(Field::Types) | 1 << CYCLE)
    }
}
