//! Slow links: what yields is compressed, nothing else, and nothing on fast ones.

use std::io::{self, Read, Write};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use super::node::{Asker, Node, noise};
use crate::transfer::{FetchConfig, ServeConfig};

/// A stream that takes only so many bytes a second.
struct Slow(UnixStream, u32);

impl Read for Slow {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        self.0.read(buf)
    }
}

impl Write for Slow {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        let n = buf.len().min(16 * 1024);
        self.0.write_all(&buf[..n])?;
        std::thread::sleep(Duration::from_secs(1) * n as u32 / self.1);
        Ok(n)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush()
    }
}

/// Bytes on the wire for a file of these bytes.
fn wire(bytes: &[u8], rate: Option<u32>, zstd: bool) -> u64 {
    let (server, client) = (Node::new(1), Node::new(2));
    let content = server.add("f", bytes);
    let config = FetchConfig {
        rate_after: Duration::from_millis(10),
        // Small, so that the first bytes are a small part of all.
        lane_window: 512 * 1024,
        file_window: 512 * 1024,
        ..FetchConfig::default()
    };
    let asker = Asker::with(&client, config);
    let wrap = |s| match rate {
        Some(rate) => Box::new(Slow(s, rate)) as _,
        None => Box::new(s) as _,
    };
    let lane = server.lane_with(wrap, ServeConfig { zstd });
    asker.add_lane(server.id, lane, false);
    let item = asker.item(content, bytes.len(), &[&server]);
    assert!(asker.fetch(item) == bytes);
    server.wire()
}

fn text(len: usize) -> Vec<u8> {
    let line = |i: usize| format!("{i}: {}\n", (i * i) % 1009);
    let mut text: Vec<u8> = (0..).flat_map(|i| line(i).into_bytes()).take(len).collect();
    text.truncate(len);
    text
}

#[test]
fn text_is_compressed_on_a_slow_link_only() {
    let bytes = text(6_000_000);
    let len = bytes.len() as u64;
    let slow = wire(&bytes, Some(10_000_000), true);
    assert!(slow < len / 2, "{slow}");
    assert!(wire(&bytes, None, true) > len);
    assert!(wire(&bytes, Some(40_000_000), false) > len, "not announced");
}

#[test]
fn noise_is_not() {
    let bytes = noise(1, 4_000_000);
    assert!(wire(&bytes, Some(20_000_000), true) > bytes.len() as u64);
}
