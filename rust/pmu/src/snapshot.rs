//! Snapshot and restore.

use xxhash_rust::xxh3::xxh3_64;

use crate::machine::{Error, Machine};

/// First bytes of a snapshot: name and version of its format.
const MAGIC: &[u8; 8] = b"pmulab/1";
const HEADER: usize = MAGIC.len() + 8;

impl Machine {
    /// The whole machine as bytes: a header, a checksum, and the fields.
    ///
    /// # Errors
    /// None is known; the encoder's are passed on.
    pub fn state(&self) -> Result<Vec<u8>, Error> {
        let fields = postcard::to_allocvec(self).map_err(|error| Error(error.to_string()))?;
        let mut state = MAGIC.to_vec();
        state.extend(xxh3_64(&fields).to_le_bytes());
        state.extend(fields);
        Ok(state)
    }

    /// The machine that [`Machine::state`] wrote down.
    ///
    /// # Errors
    /// The bytes are not what `state` made.
    pub fn from_state(state: &[u8]) -> Result<Self, Error> {
        let refuse = |reason: &str| Error(format!("not a snapshot of this version: {reason}"));
        let (header, fields) = state.split_at_checked(HEADER).ok_or_else(|| refuse("too short"))?;
        let (magic, checksum) = header.split_at(MAGIC.len());
        if magic != MAGIC {
            return Err(refuse("wrong header"));
        }
        if checksum != xxh3_64(fields).to_le_bytes() {
            return Err(refuse("wrong checksum"));
        }
        postcard::from_bytes(fields).map_err(|error| refuse(&error.to_string()))
    }
}
