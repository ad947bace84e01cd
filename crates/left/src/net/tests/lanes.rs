//! Control lanes: order, back pressure, life and death.

use left_core::message::{Control, MAX_MESSAGE};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::*;
use crate::net::frame::{framed, read_body, read_len};
use crate::net::settle::{Keep, keep};
use crate::net::{MAX_UNTAKEN, SendError};

async fn pair_of_lanes(a: &Node, b: &mut Node) -> (Running, Running) {
    let dialed = run(a.dial(b).await.unwrap());
    (dialed, run(b.next_control().await))
}

async fn message(stream: &mut client::TlsStream<TcpStream>) -> Control {
    let len = read_len(stream, MAX_MESSAGE, LONG).await.unwrap();
    let body = read_body(stream, len, LONG).await.unwrap();
    Control::decode(&body).unwrap()
}

fn taken(event: LaneEvent) -> Control {
    match event {
        LaneEvent::Message(incoming) => incoming.take(),
        other => panic!("not a message: {other:?}"),
    }
}

#[tokio::test]
async fn messages_go_both_ways_in_order_and_the_end_is_told_once() {
    let (a, mut b) = friends(Setup::default);
    let (mut ours, mut theirs) = pair_of_lanes(&a, &mut b).await;
    for token in 0..100 {
        ours.tx.try_send(Control::Barrier(token)).unwrap();
        theirs.tx.try_send(Control::BarrierDone(token)).unwrap();
    }
    for token in 0..100 {
        assert_eq!(taken(theirs.next().await), Control::Barrier(token));
        assert_eq!(taken(ours.next().await), Control::BarrierDone(token));
    }
    // What was queued before closing still arrives.
    ours.tx.try_send(Control::Barrier(100)).unwrap();
    ours.tx.close("enough");
    assert_eq!(ours.tx.try_send(Control::Ping), Err(SendError::Closed));
    assert_eq!(taken(theirs.next().await), Control::Barrier(100));
    assert_eq!(theirs.end().await, LaneEnd::Bye("enough".into()));
    assert_eq!(ours.end().await, LaneEnd::Closed);
    assert_eq!(theirs.tx.try_send(Control::Ping), Err(SendError::Closed));
}

#[tokio::test]
async fn a_lane_nobody_wants_says_why() {
    let (a, mut b) = friends(Setup::default);
    a.dial(&b).await.unwrap().close("duplicate");
    let mut theirs = run(b.next_control().await);
    assert_eq!(theirs.end().await, LaneEnd::Bye("duplicate".into()));
    // Dropping the last sender closes too.
    let (ours, mut theirs) = pair_of_lanes(&a, &mut b).await;
    drop(ours.tx);
    assert!(matches!(theirs.end().await, LaneEnd::Bye(_)));
}

#[tokio::test]
async fn an_owner_that_takes_nothing_holds_the_sender_back() {
    let (a, mut b) = friends(Setup::default);
    let (mut ours, mut theirs) = pair_of_lanes(&a, &mut b).await;
    let mut sent = 0;
    // Everything between is finite: outbox, TLS, sockets, and 16 untaken messages.
    let mut held = Vec::new();
    for _ in 0..MAX_UNTAKEN {
        ours.tx.try_send(Control::Barrier(sent)).unwrap();
        sent += 1;
        held.push(theirs.next().await);
    }
    loop {
        match ours.tx.try_send(Control::Members(members(sent))) {
            Ok(()) => sent += 1,
            Err(SendError::Full(_)) => break,
            Err(other) => panic!("{other}"),
        }
        tokio::task::yield_now().await;
    }
    assert!(
        theirs.events.try_recv().is_err(),
        "only 16 untaken messages"
    );
    for (token, event) in held.into_iter().enumerate() {
        assert_eq!(taken(event), Control::Barrier(token as u64));
    }
    for number in MAX_UNTAKEN as u64..sent {
        assert_eq!(
            taken(theirs.next().await),
            Control::Members(members(number))
        );
    }
    assert!(matches!(ours.next().await, LaneEvent::SendReady));
    ours.tx.try_send(Control::Barrier(7)).unwrap();
    assert_eq!(taken(theirs.next().await), Control::Barrier(7));
}

/// A message of some 20 KiB that says its number.
fn members(number: u64) -> Vec<left_core::message::Member> {
    let member = |at: u64| left_core::message::Member {
        device: DeviceId([at as u8; 32]),
        name: format!("{number} {}", "n".repeat(100)),
        addresses: Vec::new(),
    };
    (0..100).map(member).collect()
}

#[tokio::test]
async fn a_peer_that_stops_reading_is_dropped() {
    let (a, mut b) = friends(|| Setup {
        timeouts: Timeouts {
            stalled: Duration::from_millis(300),
            ..Timeouts::default()
        },
        ..Setup::default()
    });
    // Never started, so never read.
    let _deaf = a.dial(&b).await.unwrap();
    let mut lane = run(b.next_control().await);
    let mut number = 0;
    let end = loop {
        let event = match lane.tx.try_send(Control::Members(members(number))) {
            Ok(()) => {
                number += 1;
                tokio::task::yield_now().await;
                continue;
            }
            Err(_) => lane.next().await,
        };
        if let LaneEvent::Closed(end) = event {
            break end;
        }
    };
    // Which one depends on who notices first, this lane or the kernel.
    assert!(matches!(end, LaneEnd::Stalled | LaneEnd::Lost(_)), "{end}");
}

#[tokio::test]
async fn idle_lanes_are_pinged_and_silent_ones_die() {
    let (a, mut b) = friends(|| Setup {
        timeouts: Timeouts {
            ping: Duration::from_millis(20),
            silence: Duration::from_millis(400),
            ..Timeouts::default()
        },
        ..Setup::default()
    });
    let (mut raw, lane) = a.raw_lane(&mut b).await;
    let mut lane = run(lane);
    assert_eq!(message(&mut raw).await, Control::Ping);
    raw.write_all(&framed(&Control::Ping.encode()))
        .await
        .unwrap();
    raw.flush().await.unwrap();
    // Its own pings may come in between.
    while message(&mut raw).await != Control::Pong {}
    // No word from now on.
    assert!(matches!(lane.end().await, LaneEnd::Silent(_)));
}

#[tokio::test]
async fn a_doubted_lane_ends_when_its_peer_is_silent() {
    let (a, mut b) = friends(|| Setup {
        timeouts: Timeouts {
            probe: Duration::from_millis(200),
            ..Timeouts::default()
        },
        ..Setup::default()
    });
    let (mut raw, lane) = a.raw_lane(&mut b).await;
    let mut lane = run(lane);
    lane.tx.probe();
    assert_eq!(message(&mut raw).await, Control::Ping);
    raw.write_all(&framed(&Control::Pong.encode()))
        .await
        .unwrap();
    raw.flush().await.unwrap();
    // It lives, and can be doubted again.
    lane.tx.try_send(Control::Barrier(1)).unwrap();
    assert_eq!(message(&mut raw).await, Control::Barrier(1));
    lane.tx.probe();
    assert_eq!(message(&mut raw).await, Control::Ping);
    assert!(matches!(lane.end().await, LaneEnd::Silent(_)));
}

#[tokio::test]
async fn an_idle_lane_between_two_of_us_stays_up() {
    let (a, mut b) = friends(|| Setup {
        timeouts: Timeouts {
            ping: Duration::from_millis(20),
            silence: Duration::from_millis(1500),
            ..Timeouts::default()
        },
        ..Setup::default()
    });
    let (mut ours, mut theirs) = pair_of_lanes(&a, &mut b).await;
    // Here time itself is what is tested.
    tokio::time::sleep(Duration::from_millis(2500)).await;
    assert!(ours.events.try_recv().is_err() && theirs.events.try_recv().is_err());
    ours.tx.try_send(Control::Barrier(1)).unwrap();
    assert_eq!(taken(theirs.next().await), Control::Barrier(1));
    theirs.tx.close("done");
    ours.end().await;
}

#[tokio::test]
async fn broken_messages_end_the_lane() {
    let (a, mut b) = friends(Setup::default);
    let too_long = u32::try_from(MAX_MESSAGE + 1)
        .unwrap()
        .to_be_bytes()
        .to_vec();
    for (bytes, malformed) in [
        (too_long, true),
        (framed(&[0xff; 20]), true),
        (vec![0, 0, 0, 9, 1, 2], false),
        (Vec::new(), false),
    ] {
        let (mut raw, lane) = a.raw_lane(&mut b).await;
        let mut lane = run(lane);
        raw.write_all(&bytes).await.unwrap();
        raw.shutdown().await.unwrap();
        let end = lane.end().await;
        assert_eq!(matches!(end, LaneEnd::Malformed(_)), malformed, "{end}");
        assert_eq!(matches!(end, LaneEnd::Lost(_)), !malformed, "{end}");
        let _ = raw.read_to_end(&mut Vec::new()).await;
    }
}

#[tokio::test]
async fn two_that_dial_at_the_same_instant_settle_on_one_lane() {
    for _ in 0..10 {
        let (mut a, mut b) = friends(Setup::default);
        let (from_a, from_b) = tokio::join!(a.dial(&b), b.dial(&a));
        let at_a = vec![from_a.unwrap(), a.next_control().await];
        let mut at_b = vec![from_b.unwrap(), b.next_control().await];
        // Worst case: the two see the lanes in opposite orders, or the same.
        at_b.rotate_left(usize::from(random::<1>()[0] & 1));
        let (kept_a, kept_b) = (settled(at_a, a.id()), settled(at_b, b.id()));
        assert_eq!(kept_a.info.dialed_by_us, a.id() < b.id());
        assert_eq!(kept_b.info.dialed_by_us, b.id() < a.id());
        let (mut a, mut b) = (run(kept_a), run(kept_b));
        a.tx.try_send(Control::Barrier(3)).unwrap();
        assert_eq!(taken(b.next().await), Control::Barrier(3));
        b.tx.close("done");
        assert_eq!(a.end().await, LaneEnd::Bye("done".into()));
    }
}

fn settled(mut lanes: Vec<ControlLane>, me: DeviceId) -> ControlLane {
    let new = lanes.pop().unwrap();
    let existing = lanes.pop().unwrap();
    let verdict = keep(&existing.info.facts(), &new.info.facts(), me, new.info.peer);
    let (kept, other) = match verdict {
        Keep::Existing => (existing, new),
        Keep::New => (new, existing),
    };
    other.close("duplicate");
    kept
}

#[test]
fn the_end_is_told_also_when_the_runtime_goes() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let (tx, rx) = crossbeam_channel::unbounded();
    let sender = runtime.block_on(async {
        let (a, mut b) = friends(Setup::default);
        let _peer = run(a.dial(&b).await.unwrap());
        b.next_control()
            .await
            .start(move |event| drop(tx.send(event)))
    });
    runtime.shutdown_background();
    let end = rx.recv_timeout(LONG).unwrap();
    assert!(matches!(end, LaneEvent::Closed(_)), "{end:?}");
    assert_eq!(sender.try_send(Control::Ping), Err(SendError::Closed));
}
