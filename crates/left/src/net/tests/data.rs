//! Data lanes: bulk bytes between plain threads.

use std::io::{ErrorKind, IoSlice, Read, Write};
use std::sync::atomic::Ordering;
use std::thread;
use std::time::Instant;

use left_core::message::LaneHello;

use super::*;
use crate::net::BlockingTls;
use crate::net::frame::{framed, read_body, read_len};

/// A lane as both ends have it: dialed, accepted.
async fn lane(a: &Node, b: &mut Node, serves: bool) -> (DataLane, DataLane) {
    let dialed = a.dial_data(b, SESSION, serves).await.unwrap();
    (dialed, b.next_data().await)
}

/// Bytes that differ everywhere.
fn pattern(len: usize, seed: u8) -> Vec<u8> {
    let mut bytes = vec![0; len];
    let mut reader = blake3::Hasher::new_keyed(&[seed; 32]).finalize_xof();
    reader.fill(&mut bytes);
    bytes
}

fn send(mut stream: BlockingTls, bytes: Vec<u8>) -> thread::JoinHandle<BlockingTls> {
    thread::spawn(move || {
        // In frames of an odd length, header and body in one vectored write.
        for part in bytes.chunks(777_777) {
            let head = (part.len() as u32).to_be_bytes();
            let parts = [IoSlice::new(&head), IoSlice::new(part)];
            let n = stream.write_vectored(&parts).unwrap();
            let rest = [&head[..], part].concat();
            stream.write_all(&rest[n..]).unwrap();
        }
        stream.flush().unwrap();
        stream
    })
}

fn receive(mut stream: BlockingTls, len: usize) -> thread::JoinHandle<(BlockingTls, Vec<u8>)> {
    thread::spawn(move || {
        let mut bytes = Vec::with_capacity(len);
        while bytes.len() < len {
            let mut head = [0; 4];
            stream.read_exact(&mut head).unwrap();
            let start = bytes.len();
            bytes.resize(start + u32::from_be_bytes(head) as usize, 0);
            stream.read_exact(&mut bytes[start..]).unwrap();
        }
        (stream, bytes)
    })
}

#[tokio::test]
async fn bulk_arrives_intact_both_ways_at_once() {
    const LEN: usize = 64 << 20;
    let (a, mut b) = friends(Setup::default);
    let (out, at_b) = lane(&a, &mut b, true).await;
    let (back, from_b) = lane(&a, &mut b, false).await;
    assert_eq!((out.we_serve, at_b.we_serve), (true, false));
    assert_eq!((back.we_serve, from_b.we_serve), (false, true));
    assert_eq!(
        (at_b.peer, at_b.share, at_b.session),
        (a.id(), SHARE, SESSION)
    );
    let (there, back_again) = (pattern(LEN, 1), pattern(LEN, 2));
    let sent = out.stream.counters();
    let senders = [
        send(out.stream, there.clone()),
        send(from_b.stream, back_again.clone()),
    ];
    let receivers = [receive(at_b.stream, LEN), receive(back.stream, LEN)];
    let _open = senders.map(|s| s.join().unwrap());
    let [at_b, at_a] = receivers.map(|r| r.join().unwrap());
    assert!(at_b.1 == there && at_a.1 == back_again);
    let (sent, received) = (
        sent.sent.load(Ordering::Relaxed),
        at_b.0.counters().received.load(Ordering::Relaxed),
    );
    assert_eq!(sent, received);
    assert!(
        sent > LEN as u64 && sent < LEN as u64 * 101 / 100,
        "{sent} on the wire"
    );
}

#[tokio::test]
async fn one_lane_carries_both_directions_at_once_on_two_threads() {
    const LEN: usize = 8 << 20;
    let (a, mut b) = friends(Setup::default);
    let (ours, theirs) = lane(&a, &mut b, true).await;
    let there = pattern(LEN, 5);
    let ends = [ours, theirs].map(|lane| {
        let (mut reader, mut writer) = lane.stream.split();
        let bytes = there.clone();
        let writing = thread::spawn(move || {
            writer.write_all(&bytes).unwrap();
            writer.flush().unwrap();
            // Dropped here: the other end's reader comes to its end, this one's goes on.
        });
        let reading = thread::spawn(move || {
            let mut got = Vec::new();
            reader.read_to_end(&mut got).unwrap();
            got
        });
        (writing, reading)
    });
    for (writing, reading) in ends {
        writing.join().unwrap();
        assert!(reading.join().unwrap() == there);
    }
}

#[tokio::test]
async fn bytes_right_behind_the_hello_are_not_lost_whatever_the_cipher() {
    let (a, mut b) = friends(Setup::default);
    let mut suites = 0;
    while let Some(config) = tls::one_suite(&a.key, suites) {
        let dialed = raw(config, &b).await;
        early_bytes(dialed, &mut b).await;
        suites += 1;
    }
    assert_eq!(suites, 3);
}

/// The dialer is rustls itself, to compare our records with its.
async fn early_bytes(mut raw: client::TlsStream<TcpStream>, b: &mut Node) {
    let hello = left_core::message::Hello {
        protocol: left_core::message::PROTOCOL,
        agent: String::new(),
        features: Vec::new(),
        lane: LaneHello::Data {
            session: SESSION,
            dialer_serves: true,
            express: true,
        },
    };
    // The first of them in the same TLS record.
    let early = pattern(1_000_000, 3);
    let all = [framed(&hello.encode()), early.clone()].concat();
    let (mut from_b, mut to_b) = tokio::io::split(&mut raw);
    let writing = async {
        to_b.write_all(&all).await.unwrap();
        to_b.flush().await.unwrap();
    };
    let reading = async {
        let mut lane = b.next_data().await;
        assert!(lane.express && !lane.we_serve);
        let mut got = vec![0; early.len()];
        tokio::task::spawn_blocking(move || {
            lane.stream.read_exact(&mut got).unwrap();
            (lane, got)
        })
        .await
        .unwrap()
    };
    let ((), (mut lane, got)) = tokio::join!(writing, reading);
    assert!(got == early);
    let len = read_len(&mut from_b, 4096, LONG).await.unwrap();
    read_body(&mut from_b, len, LONG).await.unwrap();
    let late = pattern(50_000, 4);
    lane.stream.write_all(&late).unwrap();
    drop(lane);
    let mut got = Vec::new();
    // Clean: rustls would complain of an end without the closing alert.
    tokio::io::AsyncReadExt::read_to_end(&mut from_b, &mut got)
        .await
        .unwrap();
    assert!(got == late);
}

#[tokio::test]
async fn an_end_that_was_meant_is_told_from_a_cut() {
    let (a, mut b) = friends(Setup::default);
    let (mut ours, mut theirs) = lane(&a, &mut b, true).await;
    ours.stream.write_all(b"last").unwrap();
    drop(ours);
    let mut rest = Vec::new();
    theirs.stream.read_to_end(&mut rest).unwrap();
    assert_eq!(
        rest, b"last",
        "what was written is sent also without a flush"
    );

    let (ours, mut theirs) = lane(&a, &mut b, true).await;
    ours.stream.shutdown_handle().shutdown();
    let error = theirs.stream.read(&mut [0]).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::UnexpectedEof);
}

#[tokio::test]
async fn another_thread_can_end_a_lane() {
    let (a, mut b) = friends(Setup::default);
    let (mut ours, _theirs) = lane(&a, &mut b, true).await;
    let handle = ours.stream.shutdown_handle();
    let reader = thread::spawn(move || ours.stream.read(&mut [0]));
    handle.shutdown();
    assert!(reader.join().unwrap().is_err());
}

#[tokio::test]
async fn a_deaf_peer_is_given_up_and_a_quiet_one_only_on_demand() {
    let (a, mut b) = friends(|| Setup {
        timeouts: Timeouts {
            stalled: Duration::from_millis(200),
            ..Timeouts::default()
        },
        ..Setup::default()
    });
    let (mut ours, _deaf) = lane(&a, &mut b, true).await;
    ours.stream
        .set_read_timeout(Some(Duration::from_millis(10)))
        .unwrap();
    assert_eq!(
        ours.stream.read(&mut [0]).unwrap_err().kind(),
        ErrorKind::TimedOut
    );
    let block = vec![0; 1 << 20];
    let started = Instant::now();
    let error = loop {
        if let Err(error) = ours.stream.write_all(&block) {
            break error;
        }
        assert!(started.elapsed() < LONG, "the peer reads nothing");
    };
    assert_eq!(error.kind(), ErrorKind::TimedOut);
}

/// `cargo test --release -p left --lib cpu_per_gib -- --ignored --nocapture`
#[tokio::test]
#[ignore = "a measurement"]
async fn cpu_per_gib() {
    const GIB: usize = 1 << 30;
    let (a, mut b) = friends(Setup::default);
    let (mut ours, mut theirs) = lane(&a, &mut b, true).await;
    let cpu = || {
        let time = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
        time.tv_sec as f64 + time.tv_nsec as f64 / 1e9
    };
    let started = Instant::now();
    let sender = thread::spawn(move || {
        let block = pattern(1 << 20, 4);
        let before = cpu();
        for _ in 0..GIB / block.len() {
            ours.stream.write_all(&block).unwrap();
        }
        ours.stream.flush().unwrap();
        (cpu() - before, ours)
    });
    let mut block = vec![0; 1 << 20];
    let before = cpu();
    for _ in 0..GIB / block.len() {
        theirs.stream.read_exact(&mut block).unwrap();
    }
    let receiving = cpu() - before;
    let wall = started.elapsed().as_secs_f64();
    let sending = sender.join().unwrap().0;
    println!("1 GiB: sending {sending:.3} CPU s, receiving {receiving:.3} CPU s, {wall:.3} s");
}
