//! The bytes of a pack: blocks of a table and the contents it tells of, each block by itself.
//!
//! A block begins at a multiple of [`ALIGN`]: after one that is damaged the next is found. All numbers
//! are little-endian.
//!
//! | bytes | what |
//! | --- | --- |
//! | 8 | [`MAGIC`] |
//! | 4 | items |
//! | 4 | length of the table |
//! | 8 | length of the contents |
//! | 32 | BLAKE3 of the 24 bytes before and of the table |
//! | … | the table: an [`Item`] after the other |
//! | … | the contents of its files, in order |
//!
//! A content is verified by its id.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

use left_core::content::{ContentId, WHOLE_MAX};
use left_core::entry::{MAX_TARGET, Mtime, Node};
use left_core::path::RelPath;

const MAGIC: &[u8; 8] = b"LEFTPAK1";
const HEAD: usize = 8 + 4 + 4 + 8 + 32;
/// Where blocks begin.
pub(super) const ALIGN: u64 = 4096;
/// Longest table that is read.
const MAX_TABLE: usize = 64 << 20;

/// Something that was placed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Item {
    pub(crate) path: RelPath,
    pub(crate) node: Node,
    /// Of a file: the inode with its bytes.
    pub(crate) inode: Inode,
}

/// Items, each with where its content begins after the block's start.
pub(super) type Items = Vec<(Item, u64)>;

/// Tells one file from all that ever had its number.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Inode {
    pub(crate) ino: u64,
    /// When it was made, where the file system says.
    pub(crate) born: Option<Mtime>,
    /// Its ctime when it lay in the stage.
    pub(crate) ctime: Mtime,
}

/// Bytes of a block that are gathered before they are written.
const BUFFER: usize = 256 << 10;

/// Writes a block of these items and of their contents (empty ones for what is no file) at `at`; how far
/// it is to the next one.
pub(super) fn write(file: &File, at: u64, items: &[(Item, Vec<u8>)]) -> io::Result<u64> {
    let mut buffer = head_and_table(items);
    let mut len = 0;
    for (_, bytes) in items {
        if buffer.len() + bytes.len() > BUFFER {
            file.write_all_at(&buffer, at + len)?;
            len += buffer.len() as u64;
            buffer.clear();
        }
        buffer.extend_from_slice(bytes);
    }
    file.write_all_at(&buffer, at + len)?;
    len += buffer.len() as u64;
    Ok(len.next_multiple_of(ALIGN))
}

fn head_and_table(items: &[(Item, Vec<u8>)]) -> Vec<u8> {
    let mut block = Vec::with_capacity(BUFFER);
    let data: usize = items.iter().map(|(_, bytes)| bytes.len()).sum();
    block.resize(HEAD, 0);
    for (item, _) in items {
        put(&mut block, item);
    }
    let (head, table) = block.split_at_mut(HEAD);
    head[..8].copy_from_slice(MAGIC);
    head[8..12].copy_from_slice(&(items.len() as u32).to_le_bytes());
    head[12..16].copy_from_slice(&(table.len() as u32).to_le_bytes());
    head[16..24].copy_from_slice(&(data as u64).to_le_bytes());
    let sum = sum(&head[..24], table);
    head[24..].copy_from_slice(&sum);
    block
}

fn sum(head: &[u8], table: &[u8]) -> [u8; 32] {
    let mut hasher = blake3::Hasher::new();
    hasher.update(head).update(table);
    hasher.finalize().into()
}

fn put(out: &mut Vec<u8>, item: &Item) {
    let (kind, mode, mtime, size, content, target): (u8, _, _, _, _, &[u8]) = match &item.node {
        Node::File {
            mode,
            mtime,
            size,
            content,
        } => (1, *mode, *mtime, *size, content.0, &[]),
        Node::Dir { mode } => (2, *mode, Mtime::default(), 0, [0; 32], &[]),
        Node::Symlink { mtime, target } => (3, 0, *mtime, 0, [0; 32], target),
        Node::Tombstone => (0, 0, Mtime::default(), 0, [0; 32], &[]),
    };
    out.push(kind);
    out.extend_from_slice(&mode.to_le_bytes());
    put_time(out, mtime);
    out.extend_from_slice(&size.to_le_bytes());
    out.extend_from_slice(&content);
    out.extend_from_slice(&item.inode.ino.to_le_bytes());
    out.push(u8::from(item.inode.born.is_some()));
    put_time(out, item.inode.born.unwrap_or_default());
    put_time(out, item.inode.ctime);
    for bytes in [item.path.as_bytes(), target] {
        out.extend_from_slice(&(bytes.len() as u16).to_le_bytes());
        out.extend_from_slice(bytes);
    }
}

fn put_time(out: &mut Vec<u8>, t: Mtime) {
    out.extend_from_slice(&t.secs.to_le_bytes());
    out.extend_from_slice(&t.nanos.to_le_bytes());
}

/// The head of a block that begins here: the lengths of its table and of its contents.
pub(super) struct Head {
    bytes: [u8; HEAD],
    pub(super) table: usize,
    pub(super) data: u64,
}

impl Head {
    pub(super) const LEN: usize = HEAD;

    /// `None` for what is no head.
    pub(super) fn parse(bytes: [u8; HEAD]) -> Option<Head> {
        let mut rest = bytes.as_slice();
        let magic: [u8; 8] = take(&mut rest)?;
        let items = u32::from_le_bytes(take(&mut rest)?) as usize;
        let table = u32::from_le_bytes(take(&mut rest)?) as usize;
        let data = u64::from_le_bytes(take(&mut rest)?);
        let possible = table <= MAX_TABLE && items <= table && data <= items as u64 * WHOLE_MAX;
        (magic == *MAGIC && possible).then_some(Head { bytes, table, data })
    }

    /// Where the next block begins, after this one's start.
    pub(super) fn next(&self) -> u64 {
        (HEAD as u64 + self.table as u64 + self.data).next_multiple_of(ALIGN)
    }

    /// The items of the table, each with where its content begins after the block's start. `None` for
    /// a table that is not this head's.
    pub(super) fn items(&self, table: &[u8]) -> Option<Items> {
        let (head, said) = self.bytes.split_at(HEAD - 32);
        if sum(head, table) != said {
            return None;
        }
        let mut rest = table;
        let mut at = (HEAD + self.table) as u64;
        let mut items = Vec::new();
        while !rest.is_empty() {
            let item = get(&mut rest)?;
            let size = item.node.size();
            items.push((item, at));
            at += size;
        }
        (at == (HEAD + self.table) as u64 + self.data).then_some(items)
    }
}

fn get(rest: &mut &[u8]) -> Option<Item> {
    let [kind] = take(rest)?;
    let mode = u32::from_le_bytes(take(rest)?);
    let mtime = get_time(rest)?;
    let size = u64::from_le_bytes(take(rest)?);
    let content = ContentId(take(rest)?);
    let ino = u64::from_le_bytes(take(rest)?);
    let [has_birth] = take(rest)?;
    let born = get_time(rest)?;
    let ctime = get_time(rest)?;
    let path = RelPath::new(get_bytes(rest)?).ok()?;
    let target = get_bytes(rest)?;
    let node = match kind {
        1 if size <= WHOLE_MAX => Node::File {
            mode,
            mtime,
            size,
            content,
        },
        2 => Node::Dir { mode },
        3 if target.len() <= MAX_TARGET => Node::Symlink {
            mtime,
            target: target.to_vec(),
        },
        _ => return None,
    };
    let inode = Inode {
        ino,
        born: (has_birth == 1).then_some(born),
        ctime,
    };
    Some(Item { path, node, inode })
}

fn get_time(rest: &mut &[u8]) -> Option<Mtime> {
    Some(Mtime {
        secs: i64::from_le_bytes(take(rest)?),
        nanos: u32::from_le_bytes(take(rest)?),
    })
}

fn get_bytes<'a>(rest: &mut &'a [u8]) -> Option<&'a [u8]> {
    let len = usize::from(u16::from_le_bytes(take(rest)?));
    let (bytes, after) = rest.split_at_checked(len)?;
    *rest = after;
    Some(bytes)
}

fn take<const N: usize>(rest: &mut &[u8]) -> Option<[u8; N]> {
    let (bytes, after) = rest.split_first_chunk::<N>()?;
    *rest = after;
    Some(*bytes)
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use left_core::chunker::content_id;
    use proptest::prelude::*;

    use super::*;

    fn item(n: u8, bytes: &[u8]) -> Item {
        let node = match n % 3 {
            0 => Node::Dir { mode: 0o755 },
            1 => Node::Symlink {
                mtime: Mtime { secs: -5, nanos: 7 },
                target: b"over/there".to_vec(),
            },
            _ => Node::File {
                mode: 0o640,
                mtime: Mtime { secs: 9, nanos: 1 },
                size: bytes.len() as u64,
                content: content_id(bytes),
            },
        };
        Item {
            path: RelPath::new(format!("dir/{n}")).unwrap(),
            node,
            inode: Inode {
                ino: u64::from(n),
                born: (n > 100).then_some(Mtime { secs: 3, nanos: 4 }),
                ctime: Mtime { secs: 5, nanos: 6 },
            },
        }
    }

    fn parse(block: &[u8]) -> Option<Vec<(Item, u64)>> {
        let head = Head::parse(*block.first_chunk()?)?;
        let table = block.get(HEAD..HEAD.checked_add(head.table)?)?;
        head.items(table)
    }

    /// As it stands in a file.
    fn encode(items: &[(Item, Vec<u8>)]) -> Vec<u8> {
        let mut file = tempfile::tempfile().unwrap();
        let next = write(&file, 0, items).unwrap();
        let mut block = Vec::new();
        file.read_to_end(&mut block).unwrap();
        assert_eq!((block.len() as u64).next_multiple_of(ALIGN), next);
        block
    }

    /// Written in several pieces, of contents of all lengths.
    #[test]
    fn a_block_is_longer_than_its_buffer() {
        const LARGE: usize = WHOLE_MAX as usize;
        let bytes = |n: u8, len: usize| vec![n; len];
        let items: Vec<_> = [LARGE - HEAD, 3, LARGE, 0, LARGE, LARGE, 1]
            .iter()
            .enumerate()
            .map(|(n, len)| {
                let bytes = bytes(n as u8 + 1, *len);
                (item(2, &bytes), bytes)
            })
            .collect();
        let block = encode(&items);
        assert!(block.len() > 2 * BUFFER);
        let head = Head::parse(*block.first_chunk().unwrap()).unwrap();
        let mut at = HEAD + head.table;
        for (_, bytes) in &items {
            assert_eq!(&block[at..at + bytes.len()], bytes);
            at += bytes.len();
        }
        assert_eq!(at, block.len());
    }

    proptest! {
        #[test]
        fn what_is_packed_is_found(all in prop::collection::vec((any::<u8>(), prop::collection::vec(any::<u8>(), 0..300)), 1..20)) {
            let items: Vec<(Item, Vec<u8>)> = all
                .into_iter()
                .map(|(n, bytes)| {
                    let item = item(n, &bytes);
                    let bytes = if n % 3 == 2 { bytes } else { Vec::new() };
                    (item, bytes)
                })
                .collect();
            let block = encode(&items);
            let head = Head::parse(*block.first_chunk().unwrap()).unwrap();
            prop_assert_eq!(head.next(), (block.len() as u64).next_multiple_of(ALIGN));
            let found = parse(&block).unwrap();
            prop_assert_eq!(found.len(), items.len());
            for ((item, at), (wanted, bytes)) in found.into_iter().zip(items) {
                prop_assert_eq!(&item, &wanted);
                prop_assert_eq!(&block[at as usize..][..bytes.len()], bytes);
            }
        }

        /// A flipped bit in head or table is noticed, whatever it is.
        #[test]
        fn damage_is_noticed(at in 0usize..HEAD + 200, bit in 0u8..8) {
            let mut block = encode(&[(item(2, b"some bytes"), b"some bytes".to_vec()), (item(3, b""), vec![])]);
            let table = parse(&block).map(|_| Head::parse(*block.first_chunk().unwrap()).unwrap().table).unwrap();
            prop_assume!(at < HEAD + table);
            block[at] ^= 1 << bit;
            prop_assert_eq!(parse(&block), None);
        }

        #[test]
        fn random_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), HEAD..400), lengths in any::<bool>()) {
            let mut bytes = bytes;
            if lengths {
                bytes[..8].copy_from_slice(MAGIC);
                bytes[9..12].fill(0);
                bytes[13..16].fill(0);
            }
            let _ = parse(&bytes);
        }
    }
}
