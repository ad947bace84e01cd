//! What the file system gives: new files, long writes, a database's commits.

use std::fs::{self, File};
use std::io::Write as _;
use std::path::Path;

use anyhow::{Context, Result, anyhow};
use rusqlite::{Connection, params};

use super::{Done, Gauge, random, time};

/// Rows of one transaction.
const ROWS: usize = 1000;

pub(super) fn measure(folder: &Path, len: usize, files: usize) -> Result<Vec<Gauge>> {
    Ok(vec![
        time("new files of 4 KiB, not durable", || {
            create(&folder.join("plain"), files, 1, false)
        })?,
        time("the same, fsync each, one after another", || {
            create(&folder.join("one"), files / 5, 1, true)
        })?,
        time("the same, fsync each, 16 threads", || {
            create(&folder.join("many"), files, 16, true)
        })?,
        time("lstat of files in the cache", || {
            let mut count = 0;
            for entry in fs::read_dir(folder.join("plain"))? {
                entry?.metadata()?;
                count += 1;
            }
            Ok(Done::Things(count, "files"))
        })?,
        time("one long write, into the page cache", || {
            write(&folder.join("long"), len, false)
        })?,
        time("one long write, and fsync", || {
            write(&folder.join("long-durable"), len, true)
        })?,
        time("SQLite, durable inserts, 1,000 a transaction", || {
            insert(&folder.join("rows.db"), files.div_ceil(ROWS) * 10)
        })?,
    ])
}

/// Makes `count` files with `threads`, each in a folder of its own.
fn create(folder: &Path, count: usize, threads: usize, durable: bool) -> Result<Done> {
    fs::create_dir(folder).with_context(|| format!("cannot create {}", folder.display()))?;
    let each = count.div_ceil(threads);
    let make = |thread: usize| -> Result<()> {
        let folder = if threads == 1 {
            folder.to_owned()
        } else {
            let own = folder.join(thread.to_string());
            fs::create_dir(&own)?;
            own
        };
        let bytes = random(4096, thread as u8);
        for number in 0..each {
            let mut file = File::create_new(folder.join(format!("file-{number}")))?;
            file.write_all(&bytes)?;
            if durable {
                file.sync_all()?;
            }
        }
        Ok(())
    };
    let make = &make;
    std::thread::scope(|scope| {
        let all: Vec<_> = (0..threads)
            .map(|thread| scope.spawn(move || make(thread)))
            .collect();
        all.into_iter()
            .try_for_each(|it| it.join().map_err(|_| anyhow!("a thread died"))?)
    })?;
    Ok(Done::Things((each * threads) as u64, "files"))
}

fn write(path: &Path, len: usize, durable: bool) -> Result<Done> {
    let piece = random(1 << 20, 12);
    let mut file = File::create_new(path)?;
    let pieces = len.div_ceil(piece.len());
    for _ in 0..pieces {
        file.write_all(&piece)?;
    }
    if durable {
        file.sync_all()?;
    }
    Ok(Done::Bytes((pieces * piece.len()) as u64))
}

/// Rows as the index has them: a path and a blob. Settings as it has them too.
fn insert(path: &Path, transactions: usize) -> Result<Done> {
    let mut db = Connection::open(path)?;
    db.pragma_update(None, "journal_mode", "WAL")?;
    db.pragma_update(None, "synchronous", "FULL")?;
    db.execute(
        "CREATE TABLE entry(path BLOB PRIMARY KEY, what BLOB NOT NULL) WITHOUT ROWID",
        [],
    )?;
    let what = random(120, 14);
    for number in 0..transactions {
        let transaction = db.transaction()?;
        {
            let mut insert = transaction.prepare_cached("INSERT INTO entry VALUES (?, ?)")?;
            for row in 0..ROWS {
                let path = format!("folder-{number:05}/file-{row:05}");
                insert.execute(params![path.as_bytes(), what])?;
            }
        }
        transaction.commit()?;
    }
    Ok(Done::Things((transactions * ROWS) as u64, "rows"))
}
