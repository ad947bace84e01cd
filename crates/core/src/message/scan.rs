//! A look over protobuf bytes before they are decoded.
//!
//! An empty element of a repeated field is two bytes on the wire and a hundred times that in
//! memory, so elements are counted before anything is built of them.

use super::{
    DecodeError, MAX_ADDRESSES, MAX_FEATURES, MAX_INDEX_DEVICES, MAX_INDEX_ENTRIES, MAX_MEMBERS,
    MAX_WANT_CONTENTS,
};
use crate::index::MAX_FORMER;
use crate::membership::MAX_STATEMENTS;

/// How often the fields of a message may stand in it. Fields not listed are not counted.
pub(super) struct Shape(&'static [Field]);

struct Field {
    tag: u64,
    name: &'static str,
    most: usize,
    /// The fields of the field's own message.
    inner: Option<&'static Shape>,
}

const fn field(tag: u64, name: &'static str, most: usize) -> Field {
    Field {
        tag,
        name,
        most,
        inner: None,
    }
}

const fn message(tag: u64, name: &'static str, most: usize, inner: &'static Shape) -> Field {
    Field {
        tag,
        name,
        most,
        inner: Some(inner),
    }
}

// A message that may stand once is listed too: protobuf joins repeated ones, so that its own
// lists would get longer than counted here.

pub(super) static HELLO: Shape = Shape(&[
    field(3, "features", MAX_FEATURES),
    message(
        4,
        "control hello",
        1,
        &Shape(&[field(4, "addresses", MAX_ADDRESSES)]),
    ),
    field(5, "data hello", 1),
    message(
        6,
        "pair hello",
        1,
        &Shape(&[field(5, "addresses", MAX_ADDRESSES)]),
    ),
]);

pub(super) static HELLO_REPLY: Shape = Shape(&[
    field(3, "features", MAX_FEATURES),
    message(
        4,
        "welcome",
        1,
        &Shape(&[field(4, "addresses", MAX_ADDRESSES)]),
    ),
    field(5, "refused", 1),
]);

static INDEX: Shape = Shape(&[
    field(1, "devices", MAX_INDEX_DEVICES),
    field(2, "entries", MAX_INDEX_ENTRIES),
    field(5, "dropped", MAX_INDEX_ENTRIES),
]);

pub(super) static CONTROL: Shape = Shape(&[
    message(
        1,
        "start",
        1,
        &Shape(&[field(6, "former lives", MAX_FORMER)]),
    ),
    message(2, "index", 1, &INDEX),
    message(
        4,
        "members",
        1,
        &Shape(&[message(
            1,
            "members",
            MAX_MEMBERS,
            &Shape(&[field(3, "addresses", MAX_ADDRESSES)]),
        )]),
    ),
    message(7, "barrier", 1, &Shape(&[message(2, "asked", 1, &INDEX)])),
    message(
        11,
        "roll",
        1,
        &Shape(&[field(3, "statements", MAX_STATEMENTS)]),
    ),
]);

pub(super) static WANT: Shape = Shape(&[
    message(
        2,
        "whole",
        1,
        &Shape(&[field(1, "contents", MAX_WANT_CONTENTS)]),
    ),
    field(4, "lists", 1),
    field(5, "segments", 1),
]);

/// Most fields that [`Shape`] lists for one message.
const MOST_FIELDS: usize = 5;

/// Walks over `bytes` without taking memory; an error when a field stands too often or the bytes
/// are no protobuf.
pub(super) fn check(bytes: &[u8], shape: &Shape) -> Result<(), DecodeError> {
    let mut counts = [0usize; MOST_FIELDS];
    let mut rest = bytes;
    while !rest.is_empty() {
        let key = varint(&mut rest)?;
        let body = match key & 7 {
            0 => {
                varint(&mut rest)?;
                None
            }
            1 => {
                skip(&mut rest, 8)?;
                None
            }
            2 => {
                let len = varint(&mut rest)?;
                Some(skip(&mut rest, usize::try_from(len).unwrap_or(usize::MAX))?)
            }
            5 => {
                skip(&mut rest, 4)?;
                None
            }
            // Groups left protobuf with version 3; nobody speaking this protocol sends them.
            _ => return Err(DecodeError("unknown wire type".into())),
        };
        let Some(at) = shape.0.iter().position(|f| f.tag == key >> 3) else {
            continue;
        };
        let field = &shape.0[at];
        counts[at] += 1;
        if counts[at] > field.most {
            let (name, most) = (field.name, field.most);
            return Err(DecodeError(format!("more than {most} {name}")));
        }
        if let (Some(inner), Some(body)) = (field.inner, body) {
            check(body, inner)?;
        }
    }
    Ok(())
}

fn skip<'a>(rest: &mut &'a [u8], len: usize) -> Result<&'a [u8], DecodeError> {
    let (head, after) = rest.split_at_checked(len).ok_or_else(cut_off)?;
    *rest = after;
    Ok(head)
}

fn varint(rest: &mut &[u8]) -> Result<u64, DecodeError> {
    let mut value = 0u64;
    for at in 0..10 {
        let (byte, after) = rest.split_first().ok_or_else(cut_off)?;
        *rest = after;
        value |= u64::from(byte & 0x7f) << (7 * at);
        if byte & 0x80 == 0 {
            return Ok(value);
        }
    }
    Err(DecodeError("a number of more than 10 bytes".into()))
}

fn cut_off() -> DecodeError {
    DecodeError("cut off".into())
}
