//! Offers between core types and the wire.

use super::proto;
use super::{DecodeError, MAX_OFFER_SEGMENTS, Offer};
use crate::content::{ContentId, MAX_FILE_SIZE, SegmentId, SegmentRef};
use crate::path::RelPath;

/// A segment on the wire: its length and its id.
const SEGMENT_LEN: usize = 8 + 32;

pub(super) fn to_wire(offer: &Offer) -> proto::Offer {
    let mut segments = Vec::with_capacity(offer.segments.len() * SEGMENT_LEN);
    for s in &offer.segments {
        segments.extend_from_slice(&s.len.to_be_bytes());
        segments.extend_from_slice(&s.id.0);
    }
    proto::Offer {
        id: offer.id.0.to_vec(),
        path: offer.path.as_bytes().to_vec(),
        from: offer.from,
        segments,
        size: offer.size,
    }
}

pub(super) fn from_wire(wire: proto::Offer) -> Result<Offer, DecodeError> {
    let bad = |what: &str| DecodeError(format!("offer: {what}"));
    let id = |bytes: Vec<u8>| <[u8; 32]>::try_from(bytes).map(ContentId).ok();
    if !wire.segments.len().is_multiple_of(SEGMENT_LEN)
        || wire.segments.len() / SEGMENT_LEN > MAX_OFFER_SEGMENTS
    {
        return Err(bad("the list of segments has a wrong length"));
    }
    if wire.size > MAX_FILE_SIZE {
        return Err(bad("an impossible size"));
    }
    let mut segments = Vec::with_capacity(wire.segments.len() / SEGMENT_LEN);
    for raw in wire.segments.chunks_exact(SEGMENT_LEN) {
        let (len, id) = raw.split_at(8);
        let len = len.iter().fold(0, |n, b| n << 8 | u64::from(*b));
        if len == 0 || len > MAX_FILE_SIZE {
            return Err(bad("a segment has an impossible length"));
        }
        let mut bytes = [0; 32];
        bytes.copy_from_slice(id);
        let id = SegmentId(bytes);
        segments.push(SegmentRef { len, id });
    }
    Ok(Offer {
        id: id(wire.id).ok_or_else(|| bad("its id has a wrong length"))?,
        path: RelPath::new(wire.path).map_err(|e| bad(&e.to_string()))?,
        from: wire.from,
        segments,
        size: wire.size,
    })
}
