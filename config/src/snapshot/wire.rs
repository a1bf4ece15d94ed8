//! The serialised form of snapshots and deltas, on the wire and on disk.
//!
//! ```text
//! "SGs" or "SGd"   3 bytes   a snapshot or a delta
//! schema           1 byte    [`SCHEMA`]
//! CRC-32 (IEEE)    4 bytes   of the payload, little endian
//! payload                    MessagePack with field names
//! ```
//!
//! Fields are named, so a reader of one schema reads the next one's optional fields as absent. A change that an older
//! reader would misread raises [`SCHEMA`]; a release reads its own and the one before.

use serde::Serialize;
use serde::de::DeserializeOwned;

use super::{Delta, Snapshot, share_chains};

/// The schema written.
pub const SCHEMA: u8 = 1;
/// The oldest schema read.
pub const SCHEMA_OLDEST: u8 = 1;

const SNAPSHOT: &[u8; 3] = b"SGs";
const DELTA: &[u8; 3] = b"SGd";
const HEADER: usize = 8;

/// Why bytes are not a snapshot or a delta.
#[derive(Debug, thiserror::Error)]
pub enum WireError {
    /// The first bytes are not ours.
    #[error("not a {expected} of Schoolgate")]
    NotOurs {
        /// `snapshot` or `delta`.
        expected: &'static str,
    },
    /// Written by another release.
    #[error("written with schema {found}; this release reads {SCHEMA_OLDEST} to {SCHEMA}")]
    Schema {
        /// The schema found.
        found: u8,
    },
    /// The checksum does not match.
    #[error("damaged: the checksum does not match")]
    Checksum,
    /// The payload cannot be read though its checksum matches.
    #[error("cannot be read")]
    Payload(#[from] rmp_serde::decode::Error),
}

/// The bytes of a snapshot.
pub fn encode_snapshot(snapshot: &Snapshot) -> Vec<u8> {
    encode(SNAPSHOT, snapshot)
}

/// The bytes of a delta.
pub fn encode_delta(delta: &Delta) -> Vec<u8> {
    encode(DELTA, delta)
}

/// Reads a snapshot.
///
/// # Errors
/// [`WireError`]; nothing is half-read.
pub fn decode_snapshot(bytes: &[u8]) -> Result<Snapshot, WireError> {
    let mut snapshot: Snapshot = decode(SNAPSHOT, "snapshot", bytes)?;
    share_chains(&mut snapshot.objects);
    Ok(snapshot)
}

/// Reads a delta.
///
/// # Errors
/// [`WireError`]; nothing is half-read.
pub fn decode_delta(bytes: &[u8]) -> Result<Delta, WireError> {
    decode(DELTA, "delta", bytes)
}

fn encode<T: Serialize>(magic: &[u8; 3], value: &T) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(256);
    bytes.extend_from_slice(magic);
    bytes.push(SCHEMA);
    bytes.extend_from_slice(&[0; 4]);
    value
        .serialize(&mut rmp_serde::Serializer::new(&mut bytes).with_struct_map())
        .expect("our types serialise into memory");
    let checksum = crc32fast::hash(&bytes[HEADER..]);
    bytes[4..HEADER].copy_from_slice(&checksum.to_le_bytes());
    bytes
}

fn decode<T: DeserializeOwned>(magic: &[u8; 3], expected: &'static str, bytes: &[u8]) -> Result<T, WireError> {
    let (header, payload) = bytes.split_first_chunk::<HEADER>().ok_or(WireError::NotOurs { expected })?;
    if &header[..3] != magic {
        return Err(WireError::NotOurs { expected });
    }
    if !(SCHEMA_OLDEST..=SCHEMA).contains(&header[3]) {
        return Err(WireError::Schema { found: header[3] });
    }
    if crc32fast::hash(payload).to_le_bytes() != header[4..] {
        return Err(WireError::Checksum);
    }
    Ok(rmp_serde::from_slice(payload)?)
}
