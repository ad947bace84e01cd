//! Slow links: what yields is compressed, and nothing else.

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
fn wire(bytes: &[u8], rate: u32, zstd: bool, rate_after: Duration) -> u64 {
    let (server, client) = (Node::new(1), Node::new(2));
    let content = server.add("f", bytes);
    let config = FetchConfig {
        rate_after,
        // Small, so that the first bytes are a small part of all.
        lane_window: 512 * 1024,
        file_window: 512 * 1024,
        ..FetchConfig::default()
    };
    let asker = Asker::with(&client, config);
    let lane = server.lane_with(|s| Box::new(Slow(s, rate)), ServeConfig { zstd });
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

const SOON: Duration = Duration::from_millis(10);
const NEVER: Duration = Duration::from_secs(3600);

#[test]
fn text_is_compressed_where_the_asker_waits_for_it() {
    let bytes = text(6_000_000);
    let len = bytes.len() as u64;
    let slow = wire(&bytes, 10_000_000, true, SOON);
    assert!(slow < len / 2, "{slow}");
    assert!(wire(&bytes, 40_000_000, true, NEVER) > len, "no rate told");
    assert!(wire(&bytes, 40_000_000, false, SOON) > len, "not announced");
}

#[test]
fn noise_is_not() {
    let bytes = noise(1, 4_000_000);
    assert!(wire(&bytes, 20_000_000, true, SOON) > bytes.len() as u64);
}
