//! Reading packs, whatever they hold by now.

use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::FileExt;

use left_core::chunker::content_id;
use rustix::fs::{self, Mode, OFlags};

use super::block::{ALIGN, Head, Item, Items};

/// What the packs tell, oldest first.
pub(crate) struct Packs {
    files: Vec<File>,
    pub(crate) items: Vec<Told>,
}

/// An item, and where its content lies.
pub(crate) struct Told {
    pub(crate) item: Item,
    file: usize,
    at: u64,
}

impl Packs {
    /// Reads the tables of these packs. What is damaged or not whole is passed over.
    pub(super) fn read(dir: &OwnedFd, names: &[String]) -> Packs {
        let mut packs = Packs {
            files: Vec::new(),
            items: Vec::new(),
        };
        for name in names {
            let read = open(dir, name).and_then(|file| {
                let len = file.metadata()?.len();
                packs.take_in(file, len)
            });
            if let Err(error) = read {
                tracing::warn!(%error, name, "a pack can not be read: peers are asked instead");
            }
        }
        packs
    }

    fn take_in(&mut self, file: File, len: u64) -> io::Result<()> {
        let at_file = self.files.len();
        let mut at = 0;
        while at + Head::LEN as u64 <= len {
            let Some((head, items)) = block(&file, at, len)? else {
                at += ALIGN;
                continue;
            };
            self.items
                .extend(items.into_iter().map(|(item, from)| Told {
                    item,
                    file: at_file,
                    at: at + from,
                }));
            at += head.next();
        }
        self.files.push(file);
        Ok(())
    }

    /// The bytes of a file that the packs tell of; `None` where they are damaged.
    pub(crate) fn content(&self, told: &Told) -> Option<Vec<u8>> {
        let wanted = told.item.node.content()?;
        let mut bytes = vec![0; usize::try_from(told.item.node.size()).ok()?];
        let file = self.files.get(told.file)?;
        file.read_exact_at(&mut bytes, told.at).ok()?;
        (content_id(&bytes) == wanted).then_some(bytes)
    }
}

fn open(dir: &OwnedFd, name: &str) -> io::Result<File> {
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let fd = fs::openat(dir, name, flags, Mode::empty())?;
    let file = File::from(fd);
    match file.metadata()?.is_file() {
        true => Ok(file),
        false => Err(io::Error::other("no regular file")),
    }
}

/// The block that begins here, if one does.
fn block(file: &File, at: u64, len: u64) -> io::Result<Option<(Head, Items)>> {
    let mut head = [0; Head::LEN];
    file.read_exact_at(&mut head, at)?;
    let Some(head) = Head::parse(head) else {
        return Ok(None);
    };
    // The last one may be there in part.
    if at + Head::LEN as u64 + head.table as u64 > len {
        return Ok(None);
    }
    let mut table = vec![0; head.table];
    file.read_exact_at(&mut table, at + Head::LEN as u64)?;
    Ok(head.items(&table).map(|items| (head, items)))
}
