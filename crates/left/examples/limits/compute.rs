//! Hashing, cutting, encrypting: what one core does to bytes in memory.

use anyhow::{Result, anyhow, ensure};
use aws_lc_rs::aead::{AES_128_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use left_core::chunker;

use super::{Done, Gauge, random, time};

/// As much as a full TLS record holds.
pub(super) const RECORD: usize = 1 << 14;
/// Bytes behind each sealed record.
pub(super) const TAG: usize = 16;

pub(super) fn measure(len: usize) -> Result<Vec<Gauge>> {
    let bytes = random(len, 11);
    let done = Done::Bytes(len as u64);
    let all = [
        time("BLAKE3, pieces of 1 MiB", || {
            for piece in bytes.chunks(1 << 20) {
                std::hint::black_box(blake3::hash(piece));
            }
            Ok(Done::Bytes(len as u64))
        })?,
        time("BLAKE3, chunks of 11 KiB", || {
            for piece in bytes.chunks(11 << 10) {
                std::hint::black_box(blake3::hash(piece));
            }
            Ok(Done::Bytes(len as u64))
        })?,
        time("the same, those of 1 MiB at once", || {
            for piece in bytes.chunks(1 << 20) {
                let lens: Vec<_> = piece.chunks(11 << 10).map(<[u8]>::len).collect();
                std::hint::black_box(chunker::chunk_refs(piece, &lens));
            }
            Ok(Done::Bytes(len as u64))
        })?,
        time("chunking", || {
            let mut at = 0;
            while let Some(cut) = chunker::next_cut(&bytes[at..], true) {
                at += cut;
            }
            ensure!(at == len, "the chunker left something over");
            Ok(Done::Bytes(len as u64))
        })?,
        time("chunking and BLAKE3 of the chunks of 1 MiB at once", || {
            for piece in bytes.chunks(1 << 20) {
                let mut lens = Vec::new();
                let mut rest = piece;
                while let Some(cut) = chunker::next_cut(rest, true) {
                    lens.push(cut);
                    rest = &rest[cut..];
                }
                std::hint::black_box(chunker::chunk_refs(piece, &lens));
            }
            Ok(done)
        })?,
    ];
    let mut all = Vec::from(all);
    all.extend(sealing(bytes)?);
    Ok(all)
}

/// Records as the data lanes have them, sealed in place and opened again.
fn sealing(mut bytes: Vec<u8>) -> Result<Vec<Gauge>> {
    let mut sealer = Sealer::new()?;
    let records = bytes.len() / RECORD;
    let mut tags = vec![[0; TAG]; records];
    let sealed = time("AES-128-GCM, sealing records of 16 KiB", || {
        for (record, tag) in bytes.chunks_exact_mut(RECORD).zip(&mut tags) {
            *tag = sealer.seal(record)?;
        }
        Ok(Done::Bytes((records * RECORD) as u64))
    })?;
    let mut opener = Sealer::new()?;
    let mut record = vec![0; RECORD + TAG];
    let opened = time("AES-128-GCM, opening records of 16 KiB", || {
        for (sealed, tag) in bytes.chunks_exact(RECORD).zip(&tags) {
            record[..RECORD].copy_from_slice(sealed);
            record[RECORD..].copy_from_slice(tag);
            opener.open(&mut record)?;
        }
        Ok(Done::Bytes((records * RECORD) as u64))
    })?;
    Ok(vec![sealed, opened])
}

/// One direction's key and counter.
pub(super) struct Sealer {
    key: LessSafeKey,
    count: u64,
}

impl Sealer {
    /// Always the same key: it is the time that counts.
    pub(super) fn new() -> Result<Self> {
        let key = UnboundKey::new(&AES_128_GCM, &[7; 16]).map_err(|_| anyhow!("no AES"))?;
        Ok(Self {
            key: LessSafeKey::new(key),
            count: 0,
        })
    }

    fn nonce(&mut self) -> Nonce {
        self.count += 1;
        let mut nonce = [0; NONCE_LEN];
        nonce[4..].copy_from_slice(&self.count.to_be_bytes());
        Nonce::assume_unique_for_key(nonce)
    }

    /// Seals a record in place.
    pub(super) fn seal(&mut self, record: &mut [u8]) -> Result<[u8; TAG]> {
        let nonce = self.nonce();
        let tag = self
            .key
            .seal_in_place_separate_tag(nonce, Aad::empty(), record)
            .map_err(|_| anyhow!("a record was not sealed"))?;
        Ok(tag.as_ref().try_into()?)
    }

    /// Opens a record with its tag in place.
    pub(super) fn open(&mut self, record: &mut [u8]) -> Result<()> {
        let nonce = self.nonce();
        self.key
            .open_in_place(nonce, Aad::empty(), record)
            .map(drop)
            .map_err(|_| anyhow!("a record was not opened"))
    }
}
