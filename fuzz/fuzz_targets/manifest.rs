//! Data lanes: frames, segment lists and chunk lists as a peer may send them.
#![no_main]
#![allow(dead_code, reason = "the modules have more than is looked at here")]

use left_core::content::{SegmentId, SegmentRef};
use libfuzzer_sys::fuzz_target;

#[path = "../../crates/left/src/transfer/frame.rs"]
mod frame;
#[path = "../../crates/left/src/transfer/lane.rs"]
mod lane;

use frame::{FrameReader, MAX_PAYLOAD, parse_list, parse_refs};

fuzz_target!(|data: &[u8]| {
    // As a stream of frames, with payloads no longer than a small answer.
    let mut stream = data;
    let mut reader = FrameReader::new();
    while let Ok(header) = reader.header(&mut stream) {
        assert!(header.raw as usize <= MAX_PAYLOAD);
        if header.raw > 1 << 16 {
            break;
        }
        match reader.payload(&mut stream, &header) {
            Ok(payload) => assert_eq!(payload.len(), header.raw as usize),
            Err(_) => break,
        }
    }
    // As lists.
    assert_eq!(
        parse_refs(data).count(),
        data.len() / frame::SEGMENT_REF_LEN
    );
    let Some((id, list)) = data.split_first_chunk::<32>() else {
        return;
    };
    let len = list
        .chunks_exact(36)
        .map(|c| u64::from(u32::from_be_bytes([c[0], c[1], c[2], c[3]])));
    let sref = SegmentRef {
        len: len.fold(0, u64::saturating_add),
        id: SegmentId(*id),
    };
    if let Some(chunks) = parse_list(list, &sref) {
        assert_eq!(SegmentId::of(&chunks), sref.id);
    }
});
