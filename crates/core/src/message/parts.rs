//! Parts between core types and the wire.

use super::proto;
use super::{DecodeError, MAX_PARTS_BITMAP, Parts};
use crate::content::{ContentId, MAX_FILE_SIZE};

pub(super) fn to_wire(parts: &Parts) -> proto::Parts {
    proto::Parts {
        content: parts.content.0.to_vec(),
        from: parts.from,
        bitmap: parts.bitmap.clone(),
        hello: parts.hello,
    }
}

pub(super) fn from_wire(wire: proto::Parts) -> Result<Parts, DecodeError> {
    let bad = |what: &str| DecodeError(format!("parts: {what}"));
    let content = <[u8; 32]>::try_from(wire.content);
    if wire.bitmap.len() > MAX_PARTS_BITMAP {
        return Err(bad("the bitmap is too long"));
    }
    if wire.from > MAX_FILE_SIZE {
        return Err(bad("an impossible position"));
    }
    Ok(Parts {
        content: ContentId(content.map_err(|_| bad("the content id has a wrong length"))?),
        from: wire.from,
        bitmap: wire.bitmap,
        hello: wire.hello,
    })
}
