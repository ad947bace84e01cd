use std::fs::{self, File};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::sync::atomic::Ordering;

use left_core::plan::FetchError;

use super::node::{Asker, Cut, Node, manifest, noise};
use crate::transfer::ServeConfig;

const MIB: usize = 1 << 20;

#[test]
fn a_big_file_arrives_with_its_manifest() {
    let (server, client) = (Node::new(1), Node::new(2));
    let bytes = noise(1, 40 * MIB + 123);
    let content = server.add("f", &bytes);
    let asker = Asker::new(&client);
    asker.connect(&server);
    let item = asker.item(content, bytes.len(), &[&server]);
    assert!(asker.fetch(item) == bytes);
    assert_eq!(
        client.manifests.get(&content),
        server.manifests.get(&content)
    );
    assert!(server.wire() < bytes.len() as u64 * 101 / 100);
}

#[test]
fn several_lanes_and_files_at_once() {
    let (server, client) = (Node::new(1), Node::new(2));
    let asker = Asker::new(&client);
    for _ in 0..3 {
        asker.connect(&server);
    }
    asker.add_lane(server.id, server.lane(), true);
    let files: Vec<_> = (0..30)
        .map(|i| noise(i, 200_000 + 300_000 * i as usize))
        .chain((100..200).map(|i| noise(i, 3000)))
        .collect();
    let items = asker.submit_all(&server, &files);
    asker.all_come(&items, &files);
    assert_eq!(asker.fetcher.progress().big, []);
}

/// A file with holes, and how many of its bytes are data.
fn sparse(server: &Node, name: &str) -> (Vec<u8>, usize) {
    let mut bytes = vec![0; 48 * MIB];
    let file = File::create(server.path(name)).unwrap();
    file.set_len(bytes.len() as u64).unwrap();
    for (i, at) in [0, 20 * MIB, 33 * MIB + 4096].into_iter().enumerate() {
        let data = noise(i as u64, 300_000);
        file.write_all_at(&data, at as u64).unwrap();
        bytes[at..at + data.len()].copy_from_slice(&data);
    }
    (bytes, 900_000)
}

#[test]
fn holes_are_neither_sent_nor_allocated() {
    let (server, client) = (Node::new(1), Node::new(2));
    let (bytes, data) = sparse(&server, "f");
    let content = server.index("f", &bytes);
    let asker = Asker::new(&client);
    asker.connect(&server);
    let item = asker.item(content, bytes.len(), &[&server]);
    assert!(asker.fetch(item) == bytes);
    let allocated = |path| fs::metadata(path).unwrap().blocks() as usize * 512;
    assert!(allocated(client.stage(&content.to_string())) < data + MIB);
    assert!((server.wire() as usize) < data + MIB);

    // The same as a local copy.
    File::create(client.path("copy")).unwrap();
    fs::copy(server.path("f"), client.path("copy")).unwrap();
    let mut item = asker.item(content, bytes.len(), &[&server]);
    item.copies = vec![left_core::path::RelPath::new("copy").unwrap()];
    asker.submit(item);
    let name = asker.one().unwrap();
    assert!(asker.read(&name) == bytes);
    assert!(allocated(client.stage(&name.0)) < data + MIB);
}

#[test]
fn a_file_of_zeros_travels_as_its_segment_list() {
    let (server, client) = (Node::new(1), Node::new(2));
    let bytes = vec![0; 10 * MIB];
    let content = server.add("f", &bytes);
    let asker = Asker::new(&client);
    asker.connect(&server);
    let item = asker.item(content, bytes.len(), &[&server]);
    assert!(asker.fetch(item) == bytes);
    assert!(server.wire() < 1000, "{}", server.wire());
}

#[test]
fn after_a_kill_at_most_8_mib_travel_twice() {
    for stop_at in [3, 17, 31] {
        let (server, client) = (Node::new(1), Node::new(2));
        let bytes = noise(5, 40 * MIB);
        let content = server.add("f", &bytes);
        {
            let asker = Asker::new(&client);
            let left = (stop_at * MIB) as u64;
            let cut = |stream| Box::new(Cut { stream, left }) as _;
            let lane = server.lane_with(cut, ServeConfig::default());
            asker.add_lane(server.id, lane, false);
            asker.submit(asker.item(content, bytes.len(), &[&server]));
            assert_eq!(asker.one(), Err(FetchError::Gone));
        }
        let asker = Asker::new(&client);
        asker.connect(&server);
        let before = server.wire();
        let item = asker.item(content, bytes.len(), &[&server]);
        assert!(asker.fetch(item) == bytes);
        let again = server.wire() - before;
        let left = (bytes.len() - stop_at * MIB) as u64;
        assert!(again <= left + (8 * MIB) as u64, "{again} for {left}");
        assert!(client.manifests.get(&content).is_some());
    }
}

#[test]
fn leftovers_in_the_stage_are_checked() {
    let (server, client) = (Node::new(1), Node::new(2));
    let (mut bytes, _) = sparse(&server, "f");
    bytes[5 * MIB..6 * MIB].copy_from_slice(&noise(9, MIB));
    fs::write(server.path("f"), &bytes).unwrap();
    let content = server.index("f", &bytes);
    // Longer, with garbage where zeros belong, and one segment right but for a bit.
    let mut left = noise(10, 50 * MIB);
    left[..300_000].copy_from_slice(&bytes[..300_000]);
    left[5 * MIB..6 * MIB].copy_from_slice(&bytes[5 * MIB..6 * MIB]);
    left[5 * MIB + 5] ^= 1;
    fs::write(client.stage(&content.to_string()), &left).unwrap();
    let asker = Asker::new(&client);
    asker.connect(&server);
    let item = asker.item(content, bytes.len(), &[&server]);
    assert!(asker.fetch(item) == bytes);
}

#[test]
fn a_missing_manifest_is_asked_for() {
    let (server, client) = (Node::new(1), Node::new(2));
    let bytes = noise(6, 2 * MIB);
    let content = server.add("f", &bytes);
    server.manifests.remove(&content);
    let asker = Asker::new(&client);
    asker.connect(&server);
    asker.submit(asker.item(content, bytes.len(), &[&server]));
    assert_eq!(asker.one(), Err(FetchError::Gone));
    assert_eq!(*server.missing.lock().unwrap(), [content]);
    server.manifests.put(content, manifest(&bytes).1);
    let item = asker.item(content, bytes.len(), &[&server]);
    assert!(asker.fetch(item) == bytes);
}

#[test]
fn a_file_that_changes_half_way_is_gone() {
    let (server, client) = (Node::new(1), Node::new(2));
    let bytes = noise(7, 30 * MIB);
    let content = server.add("f", &bytes);
    let asker = Asker::new(&client);
    let path = server.path("f");
    // Changes the file when half of it was sent.
    let wrap = |stream| {
        Box::new(Hook {
            inner: Cut {
                stream,
                left: u64::MAX,
            },
            after: 15 * MIB as u64,
            hook: Some(Box::new(move || {
                let file = File::options().write(true).open(&path).unwrap();
                file.set_len(1000).unwrap();
            })),
        }) as _
    };
    asker.add_lane(
        server.id,
        server.lane_with(wrap, ServeConfig::default()),
        false,
    );
    asker.submit(asker.item(content, bytes.len(), &[&server]));
    assert_eq!(asker.one(), Err(FetchError::Gone));
    assert_eq!(asker.fetcher.suspects(), []);
}

/// Calls something once this many bytes were written.
struct Hook {
    inner: Cut,
    after: u64,
    hook: Option<Box<dyn FnOnce() + Send>>,
}

impl std::io::Read for Hook {
    fn read(&mut self, buf: &mut [u8]) -> std::io::Result<usize> {
        self.inner.read(buf)
    }
}

impl std::io::Write for Hook {
    fn write(&mut self, buf: &[u8]) -> std::io::Result<usize> {
        let n = self.inner.write(buf)?;
        self.after = self.after.saturating_sub(n as u64);
        if self.after == 0
            && let Some(hook) = self.hook.take()
        {
            hook();
        }
        Ok(n)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

#[test]
fn cancelled_half_way_it_goes_on_later() {
    let (server, client) = (Node::new(1), Node::new(2));
    let bytes = noise(8, 30 * MIB);
    let content = server.add("f", &bytes);
    let asker = Asker::new(&client);
    // The lane falls silent half-way, so that there is something to cancel.
    let (go, wait) = crossbeam_channel::bounded::<()>(0);
    let (at, reached) = crossbeam_channel::bounded::<()>(1);
    let wrap = |stream| {
        Box::new(Hook {
            inner: Cut {
                stream,
                left: u64::MAX,
            },
            after: 15 * MIB as u64,
            hook: Some(Box::new(move || {
                at.send(()).unwrap();
                let _ = wait.recv();
            })),
        }) as _
    };
    asker.add_lane(
        server.id,
        server.lane_with(wrap, ServeConfig::default()),
        false,
    );
    let id = asker.submit(asker.item(content, bytes.len(), &[&server]));
    reached.recv().unwrap();
    let progress = asker.fetcher.progress();
    assert_eq!(progress.big[0].id, id);
    assert_eq!(progress.big[0].total, bytes.len() as u64);
    asker.fetcher.cancel(&[id]);
    asker.fetcher.cancel(&[id]);
    assert_eq!(asker.one(), Err(FetchError::Cancelled));
    drop(go);
    let before = server.wire();
    let item = asker.item(content, bytes.len(), &[&server]);
    assert!(asker.fetch(item) == bytes);
    assert!(server.wire() - before < (24 * MIB) as u64);
    let fetched = asker.fetcher.stats().fetched.load(Ordering::SeqCst);
    assert!(fetched >= 10 * MIB as u64);
}
