//! The ordered log of a machine: every register access and every mark, folded into a digest.
//!
//! The digest is a chain over blocks: `chain = xxh3_128(chain ‖ block)`. A plain streaming hash would
//! do as well, but its state could not be part of a snapshot.

use serde::de::{Error, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
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
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Log {
    block: Block,
}

/// The chain value so far, then the records since.
#[derive(Clone, Debug)]
struct Block {
    bytes: [u8; BLOCK],
    filled: usize,
}

impl Default for Block {
    fn default() -> Self {
        Self { bytes: [0; BLOCK], filled: CHAIN }
    }
}

impl Block {
    #[inline]
    fn push(&mut self, words: [u64; 4]) {
        if self.filled == BLOCK {
            self.chain();
        }
        let Some(slot) = self.bytes.get_mut(self.filled..self.filled + RECORD) else { return };
        for (bytes, word) in slot.chunks_exact_mut(8).zip(words) {
            bytes.copy_from_slice(&word.to_le_bytes());
        }
        self.filled += RECORD;
    }

    #[cold]
    fn chain(&mut self) {
        let chain = xxh3_128(&self.bytes);
        self.bytes[..CHAIN].copy_from_slice(&chain.to_le_bytes());
        self.filled = CHAIN;
    }

    fn held(&self) -> &[u8] {
        &self.bytes[..self.filled]
    }
}

impl Serialize for Block {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_bytes(self.held())
    }
}

impl<'de> Deserialize<'de> for Block {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_bytes(Held)
    }
}

/// Reads what [`Block::held`] gave.
struct Held;

impl Visitor<'_> for Held {
    type Value = Block;

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{CHAIN} bytes of a chain and up to 128 records of {RECORD}")
    }

    fn visit_bytes<E: Error>(self, held: &[u8]) -> Result<Block, E> {
        let whole = held.len().checked_sub(CHAIN).is_some_and(|records| records % RECORD == 0);
        let mut block = Block { filled: held.len(), ..Block::default() };
        let place = block.bytes.get_mut(..held.len()).filter(|_| whole);
        place.ok_or_else(|| E::invalid_length(held.len(), &self))?.copy_from_slice(held);
        Ok(block)
    }
}

impl Log {
    /// Adds a record.
    #[inline]
    pub fn push(&mut self, record: Record) {
        let place = u64::from(record.cpu) << 48 | u64::from(record.el) << 32 | u64::from(record.code);
        self.block.push([record.cycle, place, record.subject, record.value]);
    }

    /// Digest of all records so far.
    #[must_use]
    pub fn digest(&self) -> u128 {
        xxh3_128(self.block.held())
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
}
