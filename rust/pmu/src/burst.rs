//! Bursts: operations that software posts and a CPU executes in order.

/// What an operation does; also the high byte of its code on the wire.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Operation {
    /// Read a register into a value slot. Subject: register.
    Mrs = 1,
    /// Write a register. Subject: register; operand: value.
    Msr = 2,
    /// Write (value in a slot & mask) | bits. Subject: register; operands: slot, mask, bits.
    WriteBack = 3,
    /// Context synchronisation.
    Isb = 4,
    /// Software time. Subject: cause; operand: cycles.
    Charge = 5,
    /// The CPU's time into a value slot.
    Clock = 6,
    /// Occurrences into a value slot. Subject: scope << 16 | event.
    Truth = 7,
    /// Work. Subject: el << `COMPUTE_EL_SHIFT` | profile; operand: cycles.
    Compute = 8,
    /// Wait for interrupt.
    Wfi = 9,
    /// Hypervisor call. Subject: immediate.
    Hvc = 10,
    /// Set a timer. Subject: timer; operand: deadline in cycles.
    Timer = 11,
    /// Interrupt another CPU. Subject: target.
    Ipi = 12,
    /// Interrupts are unmasked for an instant.
    Window = 13,
    /// Tell KVM. Subject: code; operand: value.
    Notify = 14,
    /// The entry has ended.
    Done = 15,
    /// Read a register at EL0 into a value slot: the software's program does it. Subject: register.
    UserMrs = 16,
    /// Tell whoever observes: it takes no time and changes nothing. Subject: code; operand: value.
    Note = 17,
    /// Write a register at EL0: the software's program does it. Subject: register; operand: value.
    UserMsr = 18,
}

impl Operation {
    const ALL: [Self; 18] = [
        Self::Mrs,
        Self::Msr,
        Self::WriteBack,
        Self::Isb,
        Self::Charge,
        Self::Clock,
        Self::Truth,
        Self::Compute,
        Self::Wfi,
        Self::Hvc,
        Self::Timer,
        Self::Ipi,
        Self::Window,
        Self::Notify,
        Self::Done,
        Self::UserMrs,
        Self::Note,
        Self::UserMsr,
    ];

    /// The operation with this code.
    #[must_use]
    pub fn from_code(code: u8) -> Option<Self> {
        Self::ALL.get(usize::from(code).checked_sub(1)?).copied()
    }

    /// Operands on the wire.
    #[must_use]
    pub fn operands(self) -> usize {
        match self {
            Self::WriteBack => 3,
            Self::Msr
            | Self::UserMsr
            | Self::Charge
            | Self::Compute
            | Self::Timer
            | Self::Notify
            | Self::Note => 1,
            _ => 0,
        }
    }

    /// It yields a value.
    #[must_use]
    pub fn yields(self) -> bool {
        matches!(self, Self::Mrs | Self::UserMrs | Self::Clock | Self::Truth)
    }

    /// The software's program does it, at EL0.
    #[must_use]
    pub fn of_program(self) -> bool {
        matches!(self, Self::UserMrs | Self::UserMsr)
    }

    /// First subject that is too large.
    #[must_use]
    pub fn subject_limit(self) -> u32 {
        match self {
            Self::Mrs | Self::UserMrs | Self::Msr | Self::UserMsr | Self::WriteBack | Self::Hvc => 1 << 16,
            Self::Charge => CAUSES as u32,
            Self::Truth => 1 << 20,
            Self::Compute => 3 << COMPUTE_EL_SHIFT,
            Self::Timer | Self::Ipi | Self::Notify | Self::Note => 1 << 24,
            _ => 1,
        }
    }
}

/// Software time in one operation is below this: a day at 3 GHz. More is a mistake, or meant to keep the
/// core busy with overflows.
pub const CHARGE_LIMIT: u64 = 1 << 48;
/// Causes that cycles can be charged to.
pub const CAUSES: usize = 256;

/// Accounts that a CPU bills to: 0 is the guests', the others are the host's.
pub const ACCOUNTS: usize = 16;
/// A COMPUTE's subject has the profile below this bit, the exception level above.
pub const COMPUTE_EL_SHIFT: u32 = 20;
/// Profiles that a COMPUTE can name.
pub const PROFILES: usize = 1 << COMPUTE_EL_SHIFT;

/// One operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Op {
    /// What it does.
    pub operation: Operation,
    /// Register, cause, ...: below 2^24.
    pub subject: u32,
    /// The slot that it fills or, for a write back, takes its value from.
    pub slot: u32,
    /// First operand: value, cycles, deadline; of a write back the mask.
    pub operand: u64,
    /// The bits of a write back.
    pub bits: u64,
}

/// A wire burst that is malformed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Malformed {
    /// Index of the operation.
    pub index: usize,
    /// What is wrong with it.
    pub reason: &'static str,
}

impl std::fmt::Display for Malformed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "operation {}: {}", self.index, self.reason)
    }
}

impl std::error::Error for Malformed {}

/// Operations in order, and the values that they read.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Burst {
    /// Operations. Their slots are below `values.len()`.
    pub(crate) ops: Vec<Op>,
    /// Values, in order of the operations that yield them.
    pub(crate) values: Vec<u64>,
}

impl Burst {
    /// The operations.
    #[must_use]
    pub fn ops(&self) -> &[Op] {
        &self.ops
    }

    /// The values read, in order of the operations that yield them; 0 before they are executed.
    #[must_use]
    pub fn values(&self) -> &[u64] {
        &self.values
    }

    /// All values at once; false, and nothing changes, if they are not as many as the burst reads.
    #[must_use]
    pub fn set_values(&mut self, values: &[u64]) -> bool {
        let fit = values.len() == self.values.len();
        if fit {
            self.values.copy_from_slice(values);
        }
        fit
    }

    /// The value that the operation at `index` yields, to be set; `None` if it yields none.
    #[must_use]
    pub fn value_mut(&mut self, index: usize) -> Option<&mut u64> {
        let op = self.ops.get(index).filter(|op| op.operation.yields())?;
        self.values.get_mut(op.slot as usize)
    }

    /// Posts an operation that yields no value.
    #[inline]
    pub fn post(&mut self, operation: Operation, subject: u32, operand: u64) {
        self.ops.push(Op { operation, subject, slot: 0, operand, bits: 0 });
    }

    /// Posts an operation that yields a value; returns its slot.
    #[inline]
    pub fn post_read(&mut self, operation: Operation, subject: u32) -> u32 {
        let slot = self.values.len() as u32;
        self.values.push(0);
        self.ops.push(Op { operation, subject, slot, operand: 0, bits: 0 });
        slot
    }

    /// Posts the write of (value in `slot` & mask) | bits; false if there is no such slot.
    #[inline]
    #[must_use]
    pub fn post_write_back(&mut self, register: u16, slot: u32, mask: u64, bits: u64) -> bool {
        let known = (slot as usize) < self.values.len();
        if known {
            let subject = u32::from(register);
            self.ops.push(Op { operation: Operation::WriteBack, subject, slot, operand: mask, bits });
        }
        known
    }

    /// An empty burst with room for what a handler posts at a time.
    #[must_use]
    pub fn with_room() -> Self {
        Self { ops: Vec::with_capacity(16), values: Vec::with_capacity(8) }
    }

    /// Appends another burst; returns the slot of its first value.
    #[inline]
    pub fn extend(&mut self, other: &Self) -> u32 {
        let base = self.values.len() as u32;
        if base == 0 || other.values.is_empty() {
            self.ops.extend_from_slice(&other.ops);
        } else {
            self.ops.extend(other.ops.iter().map(|op| Op { slot: op.slot.wrapping_add(base), ..*op }));
        }
        self.values.extend_from_slice(&other.values);
        base
    }

    /// Takes back all that was posted since it had so many operations and values.
    pub fn truncate(&mut self, ops: usize, values: usize) {
        self.ops.truncate(ops);
        self.values.truncate(values);
    }

    /// The columns of the wire: a code per operation, and the operands of all in order.
    #[must_use]
    pub fn arrays(&self) -> (Vec<u32>, Vec<u64>) {
        let mut operands = Vec::with_capacity(self.ops.len());
        let code = |op: &Op| {
            match op.operation.operands() {
                3 => operands.extend([u64::from(op.slot), op.operand, op.bits]),
                1 => operands.push(op.operand),
                _ => {}
            }
            (op.operation as u32) << 24 | op.subject
        };
        (self.ops.iter().map(code).collect(), operands)
    }

    /// A burst from the wire.
    ///
    /// # Errors
    /// Names the first operation that is malformed.
    pub fn from_arrays(codes: &[u32], operands: &[u64]) -> Result<Self, Malformed> {
        let mut burst = Self::default();
        burst.ops.reserve(codes.len());
        let mut operands = operands.iter().copied();
        for (index, &code) in codes.iter().enumerate() {
            let bad = |reason| Malformed { index, reason };
            let operation = Operation::from_code((code >> 24) as u8).ok_or(bad("unknown operation"))?;
            let subject = code & 0xff_ffff;
            if subject >= operation.subject_limit() {
                return Err(bad("register, cause, profile or other subject out of range"));
            }
            let mut operand = || operands.next().ok_or(bad("operand missing"));
            match operation.operands() {
                3 => {
                    let (slot, mask, bits) = (operand()?, operand()?, operand()?);
                    let slot = u32::try_from(slot).map_err(|_| bad("slot out of range"))?;
                    if !burst.post_write_back(subject as u16, slot, mask, bits) {
                        return Err(bad("slot of no earlier read"));
                    }
                }
                1 => {
                    let operand = operand()?;
                    if operation == Operation::Charge && operand >= CHARGE_LIMIT {
                        return Err(bad("cycles out of range"));
                    }
                    burst.post(operation, subject, operand);
                }
                _ if operation.yields() => {
                    burst.post_read(operation, subject);
                }
                _ => burst.post(operation, subject, 0),
            }
        }
        if operands.next().is_some() {
            return Err(Malformed { index: codes.len(), reason: "operands left over" });
        }
        Ok(burst)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn burst() -> Burst {
        let mut burst = Burst::default();
        let slot = burst.post_read(Operation::Mrs, 0xdce0);
        assert!(burst.post_write_back(0xdce0, slot, !1, 1));
        burst.post(Operation::Charge, 4, 250);
        burst.post_read(Operation::Truth, 3 << 16 | 8);
        burst.post(Operation::Done, 0, 0);
        burst
    }

    #[test]
    fn the_wire_keeps_everything() {
        let burst = burst();
        let (codes, operands) = burst.arrays();
        assert_eq!(operands.len(), 4);
        assert_eq!(Burst::from_arrays(&codes, &operands), Ok(burst));
    }

    #[test]
    fn extend_relocates_slots() {
        let mut twice = burst();
        assert_eq!(twice.extend(&burst()), 2);
        assert_eq!(twice.ops[5].slot, 2);
        assert_eq!(twice.ops[6].slot, 2);
        assert_eq!(twice.values.len(), 4);
    }

    #[test]
    fn values_are_set_where_they_are_read() {
        let mut burst = burst();
        *burst.value_mut(3).expect("it reads") = 7;
        assert_eq!(burst.values(), [0, 7]);
        assert_eq!(burst.value_mut(2), None, "it yields none");
        assert_eq!(burst.value_mut(5), None, "there is none");
        assert!(burst.set_values(&[1, 2]) && !burst.set_values(&[3]));
        assert_eq!(burst.values(), [1, 2]);
    }

    #[test]
    fn malformed_operations_are_named() {
        let bad = |codes: &[u32], operands: &[u64]| Burst::from_arrays(codes, operands).unwrap_err().index;
        assert_eq!(bad(&[4 << 24, 99 << 24], &[]), 1);
        assert_eq!(bad(&[1 << 24 | 0x1_0000], &[]), 0);
        assert_eq!(bad(&[2 << 24 | 0xdce0], &[]), 0);
        assert_eq!(bad(&[3 << 24 | 0xdce0], &[0, 0, 0]), 0);
        assert_eq!(bad(&[4 << 24], &[1]), 1);
        assert_eq!(bad(&[5 << 24], &[CHARGE_LIMIT]), 0);
    }
}
