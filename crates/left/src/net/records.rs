//! TLS 1.3 records (RFC 8446 section 5) for data lanes.
//!
//! rustls does the handshake and everything else; only the bulk bytes of data lanes, once all
//! keys are agreed, are sealed and opened here. Its buffered interface reads 4 KiB at a time and
//! copies every byte four times, which costs more than the encryption; here records are opened
//! from a large receive buffer straight into the reader's and sealed straight from the writer's.
//!
//! Not supported, because the exported keys do not allow it: key updates. A lane ends instead
//! when its keys have sealed as many records as is safe (256 GiB with AES-GCM).

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use aws_lc_rs::aead::{
    AES_128_GCM, AES_256_GCM, Aad, CHACHA20_POLY1305, LessSafeKey, Nonce, UnboundKey,
};
use rustls::ConnectionTrafficSecrets;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

/// Bytes in front of a record.
pub(super) const HEADER: usize = 5;
/// Most plain bytes in a record.
pub(super) const MAX_PLAIN: usize = 1 << 14;
/// Most encrypted bytes in a record.
const MAX_SEALED: usize = MAX_PLAIN + 256;
/// The longest record.
pub(super) const MAX_RECORD: usize = HEADER + MAX_SEALED;
const TAG: usize = 16;
/// What sealing adds to a record: header, inner type, tag.
pub(super) const OVERHEAD: usize = HEADER + 1 + TAG;

const ALERT: u8 = 21;
const HANDSHAKE: u8 = 22;
const DATA: u8 = 23;
const CLOSE_NOTIFY: u8 = 0;
const NEW_SESSION_TICKET: u8 = 4;

/// One direction's key and count of records.
struct Direction {
    key: LessSafeKey,
    iv: [u8; 12],
    sequence: u64,
}

impl Direction {
    fn new((sequence, secrets): (u64, ConnectionTrafficSecrets)) -> io::Result<Self> {
        let (algorithm, key, iv) = match &secrets {
            ConnectionTrafficSecrets::Aes128Gcm { key, iv } => (&AES_128_GCM, key, iv),
            ConnectionTrafficSecrets::Aes256Gcm { key, iv } => (&AES_256_GCM, key, iv),
            ConnectionTrafficSecrets::Chacha20Poly1305 { key, iv } => (&CHACHA20_POLY1305, key, iv),
            _ => return Err(io::Error::other("unknown cipher suite")),
        };
        let unusable = || io::Error::other("unusable TLS keys");
        let key = UnboundKey::new(algorithm, key.as_ref()).map_err(|_| unusable())?;
        Ok(Self {
            key: LessSafeKey::new(key),
            iv: iv.as_ref().try_into().map_err(|_| unusable())?,
            sequence,
        })
    }

    /// The nonce of the next record; each is given out once.
    fn nonce(&mut self) -> io::Result<Nonce> {
        let mut nonce = self.iv;
        for (byte, count) in nonce[4..].iter_mut().zip(self.sequence.to_be_bytes()) {
            *byte ^= count;
        }
        self.sequence = self.sequence.checked_add(1).ok_or_else(used_up)?;
        Ok(Nonce::assume_unique_for_key(nonce))
    }
}

fn used_up() -> io::Error {
    io::Error::other("the keys of this lane are used up; a new lane is needed")
}

/// Encrypts.
pub(super) struct Sealer {
    direction: Direction,
    limit: u64,
}

impl Sealer {
    /// `limit`: the number of records that may be sealed safely.
    pub(super) fn new(secrets: (u64, ConnectionTrafficSecrets), limit: u64) -> io::Result<Self> {
        let direction = Direction::new(secrets)?;
        Ok(Self { direction, limit })
    }

    /// Writes a record of `plain` (at most [`MAX_PLAIN`]) into `out`, which has room for
    /// [`OVERHEAD`] more; returns its length.
    pub(super) fn data(&mut self, plain: &[u8], out: &mut [u8]) -> io::Result<usize> {
        // The last one is for the alert that closes.
        if self.direction.sequence >= self.limit {
            return Err(used_up());
        }
        self.seal(plain, DATA, out)
    }

    /// Writes the record that says: this end sends no more.
    pub(super) fn close(&mut self, out: &mut [u8]) -> io::Result<usize> {
        const WARNING: u8 = 1;
        self.seal(&[WARNING, CLOSE_NOTIFY], ALERT, out)
    }

    fn seal(&mut self, plain: &[u8], kind: u8, out: &mut [u8]) -> io::Result<usize> {
        let len = plain.len() + OVERHEAD;
        let length = u16::try_from(len - HEADER).map_err(io::Error::other)?;
        let [high, low] = length.to_be_bytes();
        let header = [DATA, 3, 3, high, low];
        out[..HEADER].copy_from_slice(&header);
        let (sealed, tail) = out[HEADER..len].split_at_mut(plain.len());
        let nonce = self.direction.nonce()?;
        let key = &self.direction.key;
        key.seal_out_of_place_scatter(nonce, Aad::from(header), plain, sealed, &[kind], tail)
            .map_err(|_| io::Error::other("encryption failed"))?;
        Ok(len)
    }
}

/// What a record was.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Opened {
    /// So many plain bytes.
    Data(usize),
    /// The other end sends no more.
    End,
}

/// Decrypts.
pub(super) struct Opener(Direction);

impl Opener {
    pub(super) fn new(secrets: (u64, ConnectionTrafficSecrets)) -> io::Result<Self> {
        Direction::new(secrets).map(Self)
    }

    /// The length of the record that starts with `bytes`, once its header is there.
    pub(super) fn record_len(bytes: &[u8]) -> io::Result<Option<usize>> {
        let Some(header) = bytes.first_chunk::<HEADER>() else {
            return Ok(None);
        };
        let sealed = usize::from(u16::from_be_bytes([header[3], header[4]]));
        match header[0] == DATA && sealed > TAG && sealed <= MAX_SEALED {
            true => Ok(Some(HEADER + sealed)),
            false => Err(broken("malformed TLS record")),
        }
    }

    /// Opens a record into `out`, which must be [`plain_room`] long. On an error `out` holds
    /// nothing of worth.
    pub(super) fn apart(&mut self, record: &[u8], out: &mut [u8]) -> io::Result<Opened> {
        let (header, sealed) = record.split_at(HEADER);
        let (sealed, tag) = sealed.split_at(sealed.len() - TAG);
        let nonce = self.0.nonce()?;
        let key = &self.0.key;
        key.open_separate_gather(nonce, Aad::from(header), sealed, tag, out)
            .map_err(|_| forged())?;
        inner(out)
    }

    /// Opens a record where it lies; the plain bytes start behind the header.
    pub(super) fn in_place(&mut self, record: &mut [u8]) -> io::Result<Opened> {
        let (header, sealed) = record.split_at_mut(HEADER);
        let nonce = self.0.nonce()?;
        let key = &self.0.key;
        let plain = key
            .open_in_place(nonce, Aad::from(header), sealed)
            .map_err(|_| forged())?;
        inner(plain)
    }
}

/// The room [`Opener::apart`] needs for a record.
pub(super) fn plain_room(record_len: usize) -> usize {
    record_len - HEADER - TAG
}

/// Looks behind the padding for what kind of record it was.
fn inner(plain: &[u8]) -> io::Result<Opened> {
    let end = plain.iter().rposition(|b| *b != 0);
    let (kind, content) = match end {
        Some(end) => (plain[end], &plain[..end]),
        None => return Err(broken("TLS record without a type")),
    };
    match (kind, content) {
        (DATA, _) if content.len() <= MAX_PLAIN => Ok(Opened::Data(content.len())),
        (ALERT, [_, CLOSE_NOTIFY]) => Ok(Opened::End),
        (ALERT, _) => Err(broken("the peer ended the lane with a TLS alert")),
        // Never sent by LEFT; harmless from another program.
        (HANDSHAKE, [NEW_SESSION_TICKET, ..]) => Ok(Opened::Data(0)),
        (HANDSHAKE, _) => Err(broken("TLS key updates are not supported on data lanes")),
        _ => Err(broken("unexpected TLS record")),
    }
}

fn broken(what: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what)
}

fn forged() -> io::Error {
    broken("a TLS record was damaged or forged")
}

/// A TCP stream that never hands out bytes beyond the current TLS record, so that rustls holds
/// nothing unread when a data lane's keys are taken over from it.
#[derive(Debug)]
pub(super) struct RecordStream {
    tcp: TcpStream,
    header: [u8; HEADER],
    /// Bytes of the header that have come.
    have: usize,
    /// Bytes of the body that have not.
    missing: usize,
    limited: bool,
}

impl RecordStream {
    pub(super) fn new(tcp: TcpStream) -> Self {
        Self {
            tcp,
            header: [0; HEADER],
            have: 0,
            missing: 0,
            limited: true,
        }
    }

    /// From now on reads take what there is.
    pub(super) fn unlimited(&mut self) {
        self.limited = false;
    }

    /// The connection, if no record is half read.
    pub(super) fn into_tcp(self) -> io::Result<TcpStream> {
        match self.limited && self.have == 0 {
            true => Ok(self.tcp),
            false => Err(io::Error::other("a TLS record is half read")),
        }
    }

    fn read(&mut self, n: usize, bytes: &[u8]) {
        if self.have < HEADER {
            self.header[self.have..self.have + n].copy_from_slice(bytes);
            self.have += n;
            self.missing = usize::from(u16::from_be_bytes([self.header[3], self.header[4]]));
        } else {
            self.missing -= n;
        }
        if self.have == HEADER && self.missing == 0 {
            self.have = 0;
        }
    }
}

impl AsyncRead for RecordStream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if !self.limited {
            return Pin::new(&mut self.tcp).poll_read(cx, buf);
        }
        let next = match HEADER - self.have {
            0 => self.missing,
            header => header,
        };
        let room = next.min(buf.remaining());
        let mut part = ReadBuf::new(buf.initialize_unfilled_to(room));
        ready!(Pin::new(&mut self.tcp).poll_read(cx, &mut part))?;
        let n = part.filled().len();
        self.read(n, part.filled());
        buf.advance(n);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for RecordStream {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.tcp).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.tcp).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.tcp).poll_shutdown(cx)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.tcp).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.tcp.is_write_vectored()
    }
}

#[cfg(test)]
mod tests {
    use rustls::crypto::cipher::{AeadKey, Iv};

    use super::*;

    fn secrets(sequence: u64) -> (u64, ConnectionTrafficSecrets) {
        let (key, iv) = (AeadKey::from([7; 32]), Iv::new([9; 12]));
        let secrets = ConnectionTrafficSecrets::Chacha20Poly1305 { key, iv };
        (sequence, secrets)
    }

    fn ends(sequence: u64) -> (Sealer, Opener) {
        let sealer = Sealer::new(secrets(sequence), u64::MAX).unwrap();
        (sealer, Opener::new(secrets(sequence)).unwrap())
    }

    fn sealed(sealer: &mut Sealer, plain: &[u8]) -> Vec<u8> {
        let mut record = vec![0; plain.len() + OVERHEAD];
        assert_eq!(sealer.data(plain, &mut record).unwrap(), record.len());
        record
    }

    #[test]
    fn opens_what_was_sealed_in_order() {
        let (mut sealer, mut opener) = ends(41);
        for len in [0, 1, 1000, MAX_PLAIN] {
            let plain = vec![3; len];
            let mut record = sealed(&mut sealer, &plain);
            assert_eq!(Opener::record_len(&record).unwrap(), Some(record.len()));
            let mut out = vec![0; plain_room(record.len())];
            assert_eq!(opener.apart(&record, &mut out).unwrap(), Opened::Data(len));
            assert_eq!(out[..len], plain);
            record = sealed(&mut sealer, &plain);
            assert_eq!(opener.in_place(&mut record).unwrap(), Opened::Data(len));
            assert_eq!(record[HEADER..HEADER + len], plain);
        }
        let mut record = vec![0; 2 + OVERHEAD];
        sealer.close(&mut record).unwrap();
        assert_eq!(opener.in_place(&mut record).unwrap(), Opened::End);
    }

    #[test]
    fn damage_replay_and_loss_are_noticed() {
        let (mut sealer, _) = ends(0);
        let (first, second) = (sealed(&mut sealer, b"one"), sealed(&mut sealer, b"two"));
        for at in 0..first.len() {
            let mut bad = first.clone();
            bad[at] ^= 1;
            let mut opener = ends(0).1;
            assert!(opener.in_place(&mut bad).is_err(), "byte {at}");
        }
        assert!(
            ends(0).1.in_place(&mut second.clone()).is_err(),
            "a lost record"
        );
        let mut opener = ends(0).1;
        opener.in_place(&mut first.clone()).unwrap();
        assert!(
            opener.in_place(&mut first.clone()).is_err(),
            "a replayed record"
        );
    }

    #[test]
    fn headers_are_checked() {
        assert_eq!(Opener::record_len(&[23, 3, 3, 0]).unwrap(), None);
        assert_eq!(Opener::record_len(&[23, 3, 3, 0, 17]).unwrap(), Some(22));
        for bad in [
            [22, 3, 3, 0, 17],
            [23, 3, 3, 0, 16],
            [23, 3, 3, 0x41, 1],
            *b"HTTP/",
        ] {
            assert!(Opener::record_len(&bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn keys_are_not_used_beyond_their_limit() {
        let mut sealer = Sealer::new(secrets(0), 2).unwrap();
        let mut out = [0; OVERHEAD + 2];
        sealer.data(b"a", &mut out).unwrap();
        sealer.data(b"b", &mut out).unwrap();
        assert!(sealer.data(b"c", &mut out).is_err());
        sealer.close(&mut out).unwrap();
    }
}
