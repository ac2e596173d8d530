//! Snapshot and restore.

use serde::Serialize;
use serde::de::DeserializeOwned;
use xxhash_rust::xxh3::xxh3_64;

use crate::machine::Machine;

/// First bytes of a snapshot: name and version of its format.
const MAGIC: &[u8; 8] = b"pmulab/6";
const HEADER: usize = MAGIC.len() + 8;

/// Bytes that are no snapshot of this version.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Error {
    /// There are too few.
    TooShort,
    /// They begin with something else.
    Header,
    /// They are not what was written.
    Checksum,
    /// The fields are not a machine's.
    Fields(postcard::Error),
}

impl std::fmt::Display for Error {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("not a snapshot of this version: ")?;
        match self {
            Self::TooShort => f.write_str("too short"),
            Self::Header => f.write_str("wrong header"),
            Self::Checksum => f.write_str("wrong checksum"),
            Self::Fields(error) => error.fmt(f),
        }
    }
}

impl std::error::Error for Error {}

impl<O: Serialize + DeserializeOwned> Machine<O> {
    /// The whole machine as bytes: a header, a checksum, and the fields.
    ///
    /// # Errors
    /// None is known; the encoder's are passed on.
    pub fn state(&self) -> Result<Vec<u8>, Error> {
        let fields = postcard::to_allocvec(self).map_err(Error::Fields)?;
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
        let (header, fields) = state.split_at_checked(HEADER).ok_or(Error::TooShort)?;
        let (magic, checksum) = header.split_at(MAGIC.len());
        if magic != MAGIC {
            return Err(Error::Header);
        }
        if checksum != xxh3_64(fields).to_le_bytes() {
            return Err(Error::Checksum);
        }
        postcard::from_bytes(fields).map_err(Error::Fields)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::feature::Features;
    use crate::machine::Costs;

    fn machine() -> Machine {
        let costs = Costs { mrs: 1, msr: 2, isb: 3 };
        Machine::new(vec![Features::default()], &[0x08], costs).expect("a possible machine")
    }

    #[test]
    fn a_machine_is_what_its_state_says() {
        let state = machine().state().expect("it can be written");
        let restored = Machine::<()>::from_state(&state).expect("it can be read");
        assert_eq!(restored.state().expect("it can be written"), state);
        assert_eq!(restored.digest(), machine().digest());
    }

    #[test]
    fn a_state_has_the_records_of_the_open_block_and_what_was_charged() {
        let mut machine = machine();
        machine.add_profile(&[]).expect("a possible profile");
        machine.add_context(false);
        machine.set_running(0, 0, 2, 0).expect("they exist");
        machine.set_account(0, 9).expect("it exists");
        machine.charge(0, 200, 12_345).expect("it exists");
        let empty = machine.state().expect("it can be written").len();
        for n in 0..1000 {
            machine.mark(0, 1, n, n).expect("it exists");
            let state = machine.state().expect("it can be written");
            assert!(state.len() < empty + 128 * 32 + 100);
            let restored = Machine::<()>::from_state(&state).expect("it can be read");
            assert_eq!(restored.digest(), machine.digest());
            assert_eq!(restored.cpu(0).expect("it exists").charged(9)[200], 12_345);
            assert_eq!(restored.state().expect("it can be written"), state);
        }
    }

    #[test]
    fn what_is_no_state_is_refused() {
        let state = machine().state().expect("it can be written");
        let refused = |bytes: &[u8]| Machine::<()>::from_state(bytes).map(|_| ()).unwrap_err();
        assert_eq!(refused(b""), Error::TooShort);
        assert_eq!(refused(&[0; 64]), Error::Header);
        assert_eq!(refused(&state[..state.len() - 1]), Error::Checksum);
        for at in [20, state.len() / 2, state.len() - 1] {
            let mut bent = state.clone();
            bent[at] ^= 1;
            assert_eq!(refused(&bent), Error::Checksum);
        }
    }
}
