//! Figures, not judged: `cargo test --release -p left --lib transfer -- --ignored --nocapture`.

use std::time::Instant;

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
    for lanes in [1, 1, 1, 2, 2] {
        let asker = Asker::new(&client);
        (0..lanes).for_each(|_| asker.connect(&server));
        let (start, before) = (Instant::now(), cpu());
        asker.submit(asker.item(content, bytes.len(), &[&server]));
        let name = asker.one().unwrap();
        let rate = bytes.len() as f64 / 1e6 / start.elapsed().as_secs_f64();
        let per_gib = (cpu() - before) * 1024.0 / 512.0;
        println!("{lanes} lanes: {rate:.0} MB/s, {per_gib:.2} CPU s/GiB both ends");
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
