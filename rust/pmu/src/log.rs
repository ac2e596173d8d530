//! The ordered log of a machine: every register access and every mark, folded into a digest.
//!
//! The digest is a chain over blocks: `chain = xxh3_128(chain ‖ block)`. A plain streaming hash would
//! do as well, but its state could not be part of a snapshot.

use serde::{Deserialize, Serialize};
use serde_big_array::BigArray;
use xxhash_rust::xxh3::xxh3_128;

/// Code of a record. Marks follow from [`MARK`] on.
pub mod code {
    /// An `MRS` that was executed; the value is what it read.
    pub const READ: u16 = 0;
    /// An `MSR` that was executed; the value is what it wrote.
    pub const WRITE: u16 = 1;
    /// An `MRS` that took an exception; the value is the syndrome.
    pub const READ_EXCEPTION: u16 = 2;
    /// An `MSR` that took an exception; the value is the syndrome.
    pub const WRITE_EXCEPTION: u16 = 3;
    /// First code of a mark.
    pub const MARK: u16 = 256;
}

/// One record.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    /// CPU.
    pub cpu: u16,
    /// Exception level.
    pub el: u8,
    /// What it is.
    pub code: u16,
    /// Time in cycles.
    pub cycle: u64,
    /// Register encoding, or a mark's first operand.
    pub subject: u64,
    /// Value, or a mark's second operand.
    pub value: u64,
}

const RECORD: usize = 32;
const CHAIN: usize = 16;
const BLOCK: usize = CHAIN + 128 * RECORD;

/// The log.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Log {
    /// The chain value so far, then the block that is being filled.
    #[serde(with = "BigArray")]
    block: [u8; BLOCK],
    filled: usize,
    observing: bool,
    observed: Vec<Record>,
}

impl Default for Log {
    fn default() -> Self {
        Self { block: [0; BLOCK], filled: CHAIN, observing: false, observed: Vec::new() }
    }
}

impl Log {
    /// Adds a record.
    #[inline]
    pub fn push(&mut self, record: Record) {
        if self.filled == BLOCK {
            self.chain();
        }
        let place = u64::from(record.cpu) << 48 | u64::from(record.el) << 32 | u64::from(record.code);
        let Some(slot) = self.block.get_mut(self.filled..self.filled + RECORD) else { return };
        for (bytes, word) in slot.chunks_exact_mut(8).zip([record.cycle, place, record.subject, record.value])
        {
            bytes.copy_from_slice(&word.to_le_bytes());
        }
        self.filled += RECORD;
        if self.observing {
            self.observed.push(record);
        }
    }

    #[cold]
    fn chain(&mut self) {
        let chain = xxh3_128(&self.block);
        self.block[..CHAIN].copy_from_slice(&chain.to_le_bytes());
        self.filled = CHAIN;
    }

    /// Digest of all records so far.
    #[must_use]
    pub fn digest(&self) -> u128 {
        xxh3_128(&self.block[..self.filled])
    }

    /// Whether records are kept for [`Log::take_observed`].
    pub fn observe(&mut self, on: bool) {
        self.observing = on;
    }

    /// The records since the last call.
    pub fn take_observed(&mut self) -> Vec<Record> {
        std::mem::take(&mut self.observed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(cycle: u64) -> Record {
        Record { cpu: 1, el: 2, code: code::READ, cycle, subject: 3, value: 4 }
    }

    #[test]
    fn the_digest_depends_on_every_record_and_their_order() {
        let digest = |cycles: &mut dyn Iterator<Item = u64>| {
            let mut log = Log::default();
            cycles.for_each(|cycle| log.push(record(cycle)));
            log.digest()
        };
        let straight = digest(&mut (0..1000));
        assert_eq!(straight, digest(&mut (0..1000)));
        assert_ne!(straight, digest(&mut (0..999)));
        assert_ne!(straight, digest(&mut (0..1000).rev()));
    }

    #[test]
    fn only_an_observed_log_keeps_records() {
        let mut log = Log::default();
        log.push(record(1));
        log.observe(true);
        log.push(record(2));
        assert_eq!(log.take_observed(), [record(2)]);
        assert_eq!(log.take_observed(), []);
    }
}
