//! How a record lies in its row: one packed blob with a checksum.
//!
//! Devices are numbers into the `device` table, integers are LEB128, and what `lstat` said is
//! stored only where it differs from the node. A plain file's record takes about 75 bytes.

use left_core::content::ContentId;
use left_core::entry::{Entry, FileStat, Kind, MAX_TARGET, Mtime, Node, Record, Stamp};
use left_core::version::{DeviceId, MAX_DEVICES, Version};

use super::StoreError;

/// Length of a row's checksum in bytes.
pub(super) const SUM_LEN: usize = 4;

/// A row's checksum: ties its values to each other and to the place (`table`, key) they belong to.
/// Against decay, not against an attacker: who writes to the file can write anything.
pub(super) fn sum(table: u8, parts: &[&[u8]]) -> [u8; SUM_LEN] {
    // One small buffer instead of incremental updates: twice as fast for such short input.
    let mut buf = Vec::with_capacity(16 + parts.iter().map(|p| p.len() + 4).sum::<usize>());
    buf.push(table);
    for p in parts {
        buf.extend_from_slice(&u32::try_from(p.len()).unwrap_or(u32::MAX).to_le_bytes());
        buf.extend_from_slice(p);
    }
    let hash = blake3::hash(&buf);
    let mut out = [0; SUM_LEN];
    out.copy_from_slice(&hash.as_bytes()[..SUM_LEN]);
    out
}

const KIND_BITS: u8 = 0b11;
const HAS_STAT: u8 = 1 << 2;
/// The stat's size, mtime and mode equal the node's.
const STAT_AS_NODE: u8 = 1 << 3;

/// Packs a record. `number` gives a device's number and learns of the counter.
pub(super) fn encode(
    entry: &Entry,
    stat: Option<&FileStat>,
    mut number: impl FnMut(DeviceId, u64) -> Result<u32, StoreError>,
) -> Result<Vec<u8>, StoreError> {
    let as_node = stat.is_some_and(|s| agrees(&entry.node, s));
    let mut head = kind_code(entry.node.kind());
    if stat.is_some() {
        head |= HAS_STAT;
    }
    if as_node {
        head |= STAT_AS_NODE;
    }
    let mut out = Vec::with_capacity(128);
    out.push(head);
    match &entry.node {
        Node::Dir { mode } => put(&mut out, u64::from(*mode)),
        Node::File {
            mode,
            mtime,
            size,
            content,
        } => {
            put(&mut out, *size);
            put(&mut out, u64::from(*mode));
            put_time(&mut out, *mtime);
            out.extend_from_slice(&content.0);
        }
        Node::Symlink { mtime, target } => {
            put_time(&mut out, *mtime);
            put(&mut out, target.len() as u64);
            out.extend_from_slice(target);
        }
        Node::Tombstone => {}
    }
    put(
        &mut out,
        u64::from(number(entry.stamp.device, entry.stamp.counter)?),
    );
    put(&mut out, entry.stamp.counter);
    put(&mut out, entry.version.pairs().len() as u64);
    for (device, counter) in entry.version.pairs() {
        put(&mut out, u64::from(number(*device, *counter)?));
        put(&mut out, *counter);
    }
    if let Some(s) = stat {
        put(&mut out, s.ino);
        put_time(&mut out, s.ctime);
        if !as_node {
            put(&mut out, s.size);
            put(&mut out, u64::from(s.mode));
            put_time(&mut out, s.mtime);
        }
    }
    Ok(out)
}

/// The inverse of [`encode`]; `device` is the inverse of `number`.
pub(super) fn decode(
    bytes: &[u8],
    device: impl Fn(u32) -> Result<DeviceId, StoreError>,
) -> Result<Record, StoreError> {
    let mut r = Reader(bytes);
    let head = r.byte()?;
    let node = match code_kind(head) {
        Kind::Tombstone => Node::Tombstone,
        Kind::Dir => Node::Dir { mode: r.small()? },
        Kind::File => Node::File {
            size: r.int()?,
            mode: r.small()?,
            mtime: r.time()?,
            content: ContentId(r.array()?),
        },
        Kind::Symlink => {
            let mtime = r.time()?;
            let len = r.int()?;
            if len > MAX_TARGET as u64 {
                return Err(bad("a link's target is too long"));
            }
            let target = r.take(len as usize)?.to_vec();
            Node::Symlink { mtime, target }
        }
    };
    let stamp_device = device(r.small()?)?;
    let stamp = Stamp {
        counter: r.int()?,
        device: stamp_device,
    };
    let count = r.int()?;
    if count > MAX_DEVICES as u64 {
        return Err(bad("a version names too many devices"));
    }
    let mut pairs = Vec::with_capacity(count as usize);
    for _ in 0..count {
        let d = device(r.small()?)?;
        pairs.push((d, r.int()?));
    }
    let stat = if head & HAS_STAT != 0 {
        Some(decode_stat(&mut r, head, &node)?)
    } else {
        None
    };
    if !r.0.is_empty() {
        return Err(bad("bytes are left over"));
    }
    Ok(Record {
        entry: Entry {
            node,
            version: Version::from_pairs(pairs),
            stamp,
        },
        stat,
    })
}

fn decode_stat(r: &mut Reader<'_>, head: u8, node: &Node) -> Result<FileStat, StoreError> {
    let ino = r.int()?;
    let ctime = r.time()?;
    if head & STAT_AS_NODE == 0 {
        return Ok(FileStat {
            ino,
            size: r.int()?,
            mode: r.small()?,
            mtime: r.time()?,
            ctime,
        });
    }
    let Node::File {
        mode, mtime, size, ..
    } = node
    else {
        return Err(bad("only a file's stat can follow from its node"));
    };
    Ok(FileStat {
        ino,
        size: *size,
        mtime: *mtime,
        ctime,
        mode: *mode,
    })
}

/// Kind and size of a packed record, without unpacking it.
pub(super) fn peek(bytes: &[u8]) -> Result<(Kind, u64), StoreError> {
    let mut r = Reader(bytes);
    let kind = code_kind(r.byte()?);
    let size = if kind == Kind::File { r.int()? } else { 0 };
    Ok((kind, size))
}

fn agrees(node: &Node, s: &FileStat) -> bool {
    matches!(node, Node::File { mode, mtime, size, .. }
        if *mode == s.mode && *mtime == s.mtime && *size == s.size)
}

fn kind_code(kind: Kind) -> u8 {
    match kind {
        Kind::Tombstone => 0,
        Kind::Symlink => 1,
        Kind::File => 2,
        Kind::Dir => 3,
    }
}

fn code_kind(head: u8) -> Kind {
    match head & KIND_BITS {
        0 => Kind::Tombstone,
        1 => Kind::Symlink,
        2 => Kind::File,
        _ => Kind::Dir,
    }
}

fn put(out: &mut Vec<u8>, mut v: u64) {
    while v >= 0x80 {
        out.push((v as u8 & 0x7f) | 0x80);
        v >>= 7;
    }
    out.push(v as u8);
}

fn put_time(out: &mut Vec<u8>, t: Mtime) {
    // Zigzag: times shortly before 1970 stay short too.
    put(out, ((t.secs << 1) ^ (t.secs >> 63)).cast_unsigned());
    put(out, u64::from(t.nanos));
}

fn bad(why: &str) -> StoreError {
    StoreError::Corrupt(format!("a record can not be read: {why}"))
}

struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn take(&mut self, n: usize) -> Result<&'a [u8], StoreError> {
        let (head, rest) = self
            .0
            .split_at_checked(n)
            .ok_or_else(|| bad("it ends early"))?;
        self.0 = rest;
        Ok(head)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], StoreError> {
        let mut out = [0; N];
        out.copy_from_slice(self.take(N)?);
        Ok(out)
    }

    fn byte(&mut self) -> Result<u8, StoreError> {
        Ok(self.array::<1>()?[0])
    }

    fn int(&mut self) -> Result<u64, StoreError> {
        let mut v = 0u64;
        for shift in (0..70).step_by(7) {
            let b = self.byte()?;
            let part = u64::from(b & 0x7f);
            if shift == 63 && part > 1 {
                break;
            }
            v |= part << shift;
            if b < 0x80 {
                return Ok(v);
            }
        }
        Err(bad("a number is too large"))
    }

    fn small(&mut self) -> Result<u32, StoreError> {
        u32::try_from(self.int()?).map_err(|_| bad("a number is too large"))
    }

    fn time(&mut self) -> Result<Mtime, StoreError> {
        let z = self.int()?;
        let nanos = self.small()?;
        if nanos > 999_999_999 {
            return Err(bad("a time has too many nanoseconds"));
        }
        let secs = (z >> 1).cast_signed() ^ -((z & 1).cast_signed());
        Ok(Mtime { secs, nanos })
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use proptest::prelude::{any, prop, prop_assert_eq, proptest};

    use super::*;
    use crate::store::model::{arb_record, device};

    proptest! {
        #[test]
        fn a_record_survives_packing(record in arb_record()) {
            let bytes = encode(&record.entry, record.stat.as_ref(), |d, _| Ok(u32::from(d.0[0])))
                .unwrap();
            let back = decode(&bytes, |n| Ok(device(n as u8))).unwrap();
            prop_assert_eq!(&back, &record);
            let (kind, size) = peek(&bytes).unwrap();
            prop_assert_eq!(kind, record.entry.node.kind());
            prop_assert_eq!(size, record.entry.node.size());
        }

        #[test]
        fn no_bytes_make_it_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = decode(&bytes, |n| Ok(device(n as u8)));
            let _ = peek(&bytes);
        }
    }
}
