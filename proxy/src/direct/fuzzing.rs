//! The fuzz target of what reads bytes from backends. See [`crate::fuzzing`].

use bytes::{Bytes, BytesMut};
use http::HeaderMap;

use super::framing::{self, Body, Malformed};

/// A request without a body, as a backend gets it.
pub(crate) fn sent(method: &str, target: &[u8], headers: &HeaderMap) -> Bytes {
    framing::request(method, target, headers)
}

/// What became of an answer.
#[derive(Debug, PartialEq, Eq)]
struct Read {
    status: u16,
    body: Vec<u8>,
    done: bool,
    keep: bool,
    /// Bytes that follow it.
    left: usize,
}

/// An answer as bytes: however it is cut it is read alike, and nothing that follows it is taken for its body.
pub fn answer(input: &[u8]) {
    for is_head in [false, true] {
        let whole = read(input, input.len(), is_head);
        for step in [1, 4, 50] {
            match (&read(input, step, is_head), &whole) {
                (Ok(cut), Ok(whole)) => assert_eq!(cut, whole, "in steps of {step}"),
                (cut, whole) => assert_eq!(cut.is_err(), whole.is_err(), "in steps of {step}: {cut:?}, {whole:?}"),
            }
        }
        if let Ok(Some(Read { body, left, .. })) = whole {
            assert!(body.len() + left < input.len(), "more came out than went in");
            assert!(!is_head || body.is_empty(), "an answer to HEAD has a body");
        }
    }
}

fn read(bytes: &[u8], step: usize, is_head: bool) -> Result<Option<Read>, Malformed> {
    let (mut arrived, mut open, mut out) = (BytesMut::new(), None::<(u16, bool, Body)>, Vec::new());
    for part in bytes.chunks(step.max(1)) {
        arrived.extend_from_slice(part);
        if open.is_none()
            && let Some(head) = framing::head(&mut arrived)?
        {
            open = Some((head.status.as_u16(), head.keep, Body::after(&head, is_head)?));
        }
        let Some((_, _, body)) = &mut open else { continue };
        while let Some(piece) = body.piece(&mut arrived)? {
            out.extend_from_slice(&piece);
        }
    }
    Ok(open.map(|(status, keep, body)| {
        let left = if body.is_done() { arrived.len() } else { 0 };
        Read { status, keep, body: out, done: body.is_done(), left }
    }))
}
