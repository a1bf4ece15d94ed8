use crate::feed::FeedAnswer;
use crate::snapshot::{SCHEMA, decode_delta, decode_snapshot, encode_delta, encode_snapshot};
use crate::table::{NoLive, RoutingTable};

/// Snapshots, deltas and answers of the feed: what is read is what would be written, and a table is made of it or
/// refused.
///
/// The checksum would stop a fuzzer, so the input is also tried as the payload behind a good header.
pub fn wire(input: &[u8]) {
    read(input);
    let _ = FeedAnswer::decode(input);
    for magic in [b"SGs", b"SGd"] {
        let mut framed = magic.to_vec();
        framed.push(SCHEMA);
        framed.extend_from_slice(&crc32fast::hash(input).to_le_bytes());
        framed.extend_from_slice(input);
        read(&framed);
    }
}

fn read(bytes: &[u8]) {
    if let Ok(snapshot) = decode_snapshot(bytes) {
        let again = encode_snapshot(&snapshot);
        // By their bytes: a number that is not one equals nothing, itself included.
        assert_eq!(encode_snapshot(&decode_snapshot(&again).expect("our own")), again);
        let _ = RoutingTable::from_snapshot(&snapshot, &NoLive, None);
    }
    if let Ok(delta) = decode_delta(bytes) {
        let again = encode_delta(&delta);
        assert_eq!(encode_delta(&decode_delta(&again).expect("our own")), again);
        let _ = RoutingTable::default().apply(&delta, &NoLive);
    }
}
