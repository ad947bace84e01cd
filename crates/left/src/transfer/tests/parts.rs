//! What a Want for parts costs who serves them.

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use left_core::content::{ChunkRef, ContentId, Segment};
use left_core::entry::FileStat;
use left_core::message::{Want, What};
use left_core::path::RelPath;

use super::node::{MemManifests, manifest, noise};
use crate::transfer::frame::{CHUNK_REF_LEN, FrameKind, HEADER_LEN, Header};
use crate::transfer::{ContentSource, ManifestRead, ServeConfig, ServeStats, serve};

/// Has one content in its stage, and the chunk list of its first segment at hand.
struct Staged {
    bytes: Vec<u8>,
    segments: Vec<Segment>,
    none: MemManifests,
    read: Arc<AtomicU64>,
}

impl ContentSource for Staged {
    fn locate(&self, _: &ContentId) -> Vec<(RelPath, FileStat)> {
        Vec::new()
    }

    fn open(&self, _: &RelPath, _: &FileStat) -> io::Result<File> {
        Err(io::Error::other("nothing is here"))
    }

    fn part(&self, _: &ContentId, n: u64, buf: &mut Vec<u8>) -> Option<Segment> {
        self.read.fetch_add(1, Ordering::SeqCst);
        let n = n as usize;
        let from: u64 = self.segments[..n].iter().map(|s| s.sref.len).sum();
        let len = self.segments[n].sref.len as usize;
        buf.clear();
        buf.extend_from_slice(&self.bytes[from as usize..][..len]);
        Some(self.segments[n].clone())
    }

    fn part_list(&self, _: &ContentId, n: u64) -> Option<Vec<ChunkRef>> {
        let first = self.segments.first().filter(|_| n == 0);
        first.map(|s| s.chunks.clone())
    }

    fn manifest(&self) -> &dyn ManifestRead {
        &self.none
    }

    fn missing_manifest(&self, _: &ContentId) {}
}

#[test]
fn little_is_read_for_little() {
    let bytes = noise(1, 8 << 20);
    let (content, segments) = manifest(&bytes);
    let first = segments[0].clone();
    let read = Arc::new(AtomicU64::new(0));
    let (ours, mut theirs) = UnixStream::pair().unwrap();
    let source = Staged {
        bytes: bytes.clone(),
        segments,
        none: MemManifests::default(),
        read: Arc::clone(&read),
    };
    std::thread::spawn(move || {
        let stats = ServeStats::default();
        let _ = serve(
            Box::new(ours),
            Arc::new(source),
            ServeConfig::default(),
            &stats,
        );
    });
    let mut ask = |what: What| -> (FrameKind, Vec<u8>) {
        let want = Want {
            id: 1,
            what,
            rate: 0,
        };
        let want = want.encode();
        let len = (want.len() as u32).to_be_bytes();
        theirs.write_all(&[&len[..], &want].concat()).unwrap();
        let mut head = [0; HEADER_LEN];
        theirs.read_exact(&mut head).unwrap();
        let header = Header::decode(&head).unwrap();
        let mut payload = vec![0; header.wire as usize];
        theirs.read_exact(&mut payload).unwrap();
        (header.kind, payload)
    };
    let lists = |n| What::Lists {
        content,
        segments: vec![n],
    };
    let (kind, list) = ask(lists(0));
    assert_eq!(kind, FrameKind::List);
    assert_eq!(list.len(), first.chunks.len() * CHUNK_REF_LEN);
    assert_eq!(ask(lists(1)).0, FrameKind::Gone);
    assert_eq!(read.load(Ordering::SeqCst), 0);
    // Chunk by chunk it is read once.
    let mut at = 0;
    for (i, chunk) in first.chunks.iter().enumerate() {
        let mut bitmap = vec![0; i / 8 + 1];
        bitmap[i / 8] = 1 << (i % 8);
        let (kind, got) = ask(What::Chunks {
            content,
            segment: 0,
            bitmap,
        });
        let len = chunk.len as usize;
        assert!(kind == FrameKind::Chunks && got == bytes[at..at + len]);
        at += len;
    }
    assert_eq!(read.load(Ordering::SeqCst), 1);
}
