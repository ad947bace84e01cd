//! Figures, not judged: `cargo test --release -p left --lib transfer -- --ignored --nocapture`.

use std::os::unix::fs::FileExt;
use std::time::Instant;

use left_core::chunker::{self, ManifestBuilder};
use left_core::content::{ChunkId, ChunkRef};

use crate::transfer::FetchConfig;

use super::node::{Asker, Node, noise};

const MIB: usize = 1 << 20;

/// CPU seconds of this process so far, both sides of all lanes.
fn cpu() -> f64 {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap();
    let fields: Vec<_> = stat
        .rsplit(')')
        .next()
        .unwrap()
        .split_whitespace()
        .collect();
    let ticks = |i: usize| fields[i].parse::<f64>().unwrap();
    (ticks(11) + ticks(12)) / 100.0
}

#[test]
#[ignore = "prints figures"]
fn throughput() {
    let (server, client) = (Node::new(1), Node::new(2));
    let bytes = noise(1, 512 * MIB);
    let content = server.add("f", &bytes);
    for (lanes, early_writeback) in [
        (1, true),
        (1, false),
        (1, true),
        (1, false),
        (2, true),
        (2, false),
    ] {
        let config = FetchConfig {
            early_writeback,
            ..FetchConfig::default()
        };
        let asker = Asker::with(&client, config);
        (0..lanes).for_each(|_| asker.connect(&server));
        let (start, before) = (Instant::now(), cpu());
        asker.submit(asker.item(content, bytes.len(), &[&server]));
        let name = asker.one().unwrap();
        let rate = bytes.len() as f64 / 1e6 / start.elapsed().as_secs_f64();
        let per_gib = (cpu() - before) * 1024.0 / 512.0;
        println!("{lanes} lanes: {rate:.0} MB/s, {per_gib:.2} CPU s/GiB both ends");
        let file = std::fs::File::open(client.stage(&name.0)).unwrap();
        file.sync_all().unwrap();
        let rate = bytes.len() as f64 / 1e6 / start.elapsed().as_secs_f64();
        println!("    early writeback {early_writeback}: with fsync {rate:.0} MB/s");
        std::fs::remove_file(client.stage(&name.0)).unwrap();
    }
    let asker = Asker::new(&client);
    asker.connect(&server);
    let items: Vec<_> = (0..20_000)
        .map(|i| {
            let bytes = noise(i, 4096);
            let content = server.add(&format!("f{i}"), &bytes);
            asker.item(content, 4096, &[&server])
        })
        .collect();
    let (start, before) = (Instant::now(), cpu());
    let count = items.len();
    asker.fetcher.submit(items);
    asker.collect(count);
    let rate = count as f64 / start.elapsed().as_secs_f64();
    let each = (cpu() - before) * 1e6 / count as f64;
    println!("small: {rate:.0} files/s, {each:.0} CPU µs a file both ends");
}

#[test]
#[ignore = "prints figures"]
fn memory() {
    let (server, client) = (Node::new(1), Node::new(2));
    let file = std::fs::File::create(server.path("f")).unwrap();
    let mut builder = ManifestBuilder::new();
    let mut segments = Vec::new();
    let (mut tail, mut written) = (Vec::new(), 0);
    for i in 0..1024 {
        let piece = noise(i, MIB);
        file.write_all_at(&piece, written).unwrap();
        written += piece.len() as u64;
        tail.extend_from_slice(&piece);
        let mut at = 0;
        while let Some(len) = chunker::next_cut(&tail[at..], i == 1023) {
            let id = ChunkId::of(&tail[at..at + len]);
            let len32 = len as u32;
            segments.extend(builder.push(ChunkRef { len: len32, id }));
            at += len;
        }
        tail.drain(..at);
    }
    let (last, content) = builder.finish();
    segments.extend(last);
    server.manifests.put(content, segments);
    server.claim("f", content);
    let asker = Asker::new(&client);
    asker.connect(&server);
    asker.connect(&server);
    asker.submit(asker.item(content, written as usize, &[&server]));
    asker.one().unwrap();
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let peak = status.lines().find(|l| l.starts_with("VmHWM")).unwrap();
    println!("1 GiB, both ends and their manifests in memory: {peak}");
}
