//! Connections that are opened wrongly, half, or a thousand at a time.

use std::io::{ErrorKind, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use left_core::message::{Hello, LaneHello, RefusedCode, TicketProof};
use socket2::{Domain, Socket, Type};

use crate::common::until;
use crate::liar::{Liar, framed};
use crate::scene::Scene;

/// A connection from an address of its own, so that limits for one address meet only it.
fn stranger(scene: &Scene) -> TcpStream {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    let from = SocketAddr::from((Ipv4Addr::new(127, 0, 0, 2), 0));
    socket.bind(&from.into()).unwrap();
    let to: SocketAddr = scene.a.address().parse().unwrap();
    socket.connect(&to.into()).unwrap();
    socket.into()
}

/// Whether the far end has closed, one way or the other.
fn closed(stream: &mut TcpStream, within: Duration) -> bool {
    stream.set_read_timeout(Some(within)).unwrap();
    let mut sink = [0; 4096];
    loop {
        match stream.read(&mut sink) {
            Ok(0) => return true,
            Ok(_) => {}
            Err(e) => return !matches!(e.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut),
        }
    }
}

#[test]
fn a_thousand_connections_leave_room_for_others() {
    let mut scene = Scene::new();
    let before = scene.memory();
    let all: Vec<TcpStream> = (0..1000).map(|_| stranger(&scene)).collect();
    // One address has 32 places; the others are closed at once. (The kernel may hold some that
    // were not looked at yet.)
    until("most are closed", || {
        let open = all.iter().filter(|s| !is_closed_now(s)).count();
        open <= 32
    });
    assert!(scene.memory() < before + 64 * 1024);
    scene.logged("too many connections");
    scene.undisturbed();
    // A device can still come in while they hang there.
    let (liar, _) = Liar::joined(&scene.ticket(&[]));
    assert!(liar.control().0.settled());
}

/// Whoever dials data lanes decides how many it needs; but not without end.
#[test]
fn a_member_holds_only_so_many_data_lanes() {
    const MOST: usize = 32;
    let mut scene = Scene::new();
    let (liar, _) = Liar::joined(&scene.ticket(&[]));
    let (mut raw, session) = liar.control();
    assert!(raw.settled());
    let mut lanes: Vec<_> = (0..MOST + 8)
        .map(|n| liar.data(session, true, n % 2 == 0).unwrap())
        .collect();
    let mut open = || {
        lanes
            .iter_mut()
            .map(|lane| usize::from(lane.is_open()))
            .sum::<usize>()
    };
    until("the rest is closed", || open() <= MOST);
    scene.logged("too many data lanes");
    assert_eq!(scene.a.log().matches("too many data lanes").count(), 1);
    assert!(raw.settled());
    scene.undisturbed();
    assert_eq!(open(), MOST);
}

fn is_closed_now(mut stream: &TcpStream) -> bool {
    stream.set_nonblocking(true).unwrap();
    let mut sink = [0; 64];
    match stream.read(&mut sink) {
        Ok(0) => true,
        Ok(_) => false,
        Err(e) => e.kind() != ErrorKind::WouldBlock,
    }
}

#[test]
fn half_an_opening_is_not_waited_for() {
    let mut scene = Scene::new();
    let liar = Liar::new(&scene.ticket(&[]));
    let begin = Instant::now();
    // Silence, half a TLS handshake, one byte now and then.
    let mut silent = stranger(&scene);
    let mut half = stranger(&scene);
    half.write_all(&[0x16, 3, 1, 2, 0, 1]).unwrap();
    let mut slow = stranger(&scene);
    let slowly = std::thread::spawn(move || {
        for byte in std::iter::repeat_n(0x16, 600) {
            if slow.write_all(&[byte]).is_err() {
                break;
            }
            std::thread::sleep(Duration::from_millis(100));
        }
    });
    // TLS, then half a Hello, or one that never ends.
    let mut hello = liar.connect();
    hello.send(&[0, 0, 0x20, 0, 8, 1]);
    let mut long = liar.connect();
    long.send(&(1_u32 << 20).to_be_bytes());
    assert!(long.read(1).is_none());
    scene.undisturbed();
    let limit = Duration::from_secs(30);
    assert!(closed(&mut silent, limit) && closed(&mut half, limit));
    assert!(hello.read(1).is_none());
    slowly.join().unwrap();
    assert!(begin.elapsed() < limit, "{:?}", begin.elapsed());
    scene.logged("dropped a connection");
    scene.undisturbed();
}

#[test]
fn proofs_are_worth_nothing_elsewhere() {
    let mut scene = Scene::new();
    let ticket = scene.ticket(&[]);
    let liar = Liar::new(&ticket);
    // A Hello with a right proof, overheard on one connection and replayed on another.
    let first = liar.connect();
    let hello = liar.hello(Some(liar.proof(&ticket, &first.exporter)));
    let refused = liar.connect().open(&hello).unwrap_err();
    assert_eq!(refused.code, RefusedCode::NotAdmitted);
    scene.logged("the ticket's secret is wrong");
    // A proof made up, a ticket that nobody made, no ticket, another share: all look the same.
    let made_up = |id| TicketProof { id, mac: [1; 32] };
    let known = liar.proof(&ticket, &first.exporter).id;
    for proof in [Some(made_up(known)), Some(made_up([9; 16])), None] {
        assert_eq!(
            liar.connect().open(&liar.hello(proof)),
            Err(refused.clone())
        );
    }
    let mut elsewhere = liar.hello(None);
    if let LaneHello::Control { share, .. } = &mut elsewhere.lane {
        share.0 = [4; 32];
    }
    assert_eq!(liar.connect().open(&elsewhere), Err(refused.clone()));
    // None of it used the ticket up. The session it gives is the liar's alone.
    let mut raw = liar.connect();
    let hello = liar.hello(Some(liar.proof(&ticket, &raw.exporter)));
    let session = raw.open(&hello).unwrap().session;
    let thief = Liar::new(&ticket);
    assert_eq!(
        thief.data(session, false, false).err(),
        Some(refused.clone())
    );
    assert_eq!(liar.data([8; 16], false, false).err(), Some(refused));
    assert!(liar.data(session, false, false).is_ok());
    // The ticket, once more, by another device.
    let mut raw = thief.connect();
    let hello = thief.hello(Some(thief.proof(&ticket, &raw.exporter)));
    assert_eq!(raw.open(&hello).unwrap_err().code, RefusedCode::TicketSpent);
    // What can not be decoded gets no answer.
    for bytes in [&b"x"[..], &[0xff; 100]] {
        let mut raw = thief.connect();
        raw.send(&framed(bytes));
        assert!(raw.read(1).is_none());
    }
    // A version from the future is told so.
    let mut raw = thief.connect();
    let newer = Hello {
        protocol: 2,
        ..thief.hello(None)
    };
    assert_eq!(raw.open(&newer).unwrap_err().code, RefusedCode::Protocol);
    scene.undisturbed();
}
