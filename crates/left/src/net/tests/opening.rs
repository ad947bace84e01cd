//! Who gets in, and what others learn.

use std::sync::atomic::AtomicBool;

use left_core::message::{HelloReply, PROTOCOL, RefusedCode, ShareId};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;

use super::*;
use crate::net::code::PairCode;
use crate::net::frame::{framed, read_body, read_len};
use crate::net::handshake::{accept, not_admitted};
use crate::net::{DialPair, WrongKey};

#[tokio::test]
async fn both_ends_know_each_other() {
    let (a, mut b) = friends(Setup::default);
    let ours = a.dial(&b).await.unwrap().info;
    let theirs = b.next_control().await.info;
    assert_eq!((ours.peer, theirs.peer), (b.id(), a.id()));
    assert_eq!((ours.share, theirs.share), (SHARE, SHARE));
    assert_eq!((ours.session, theirs.session), (SESSION, SESSION));
    assert_eq!(
        (ours.name.as_str(), theirs.name.as_str()),
        ("acceptor", "dialer")
    );
    assert_eq!(
        (ours.instance, theirs.instance),
        (b.gate.instance, a.gate.instance)
    );
    assert_eq!((ours.dialed_by_us, theirs.dialed_by_us), (true, false));
    assert_eq!(
        (ours.dialer_role, theirs.dialer_role),
        (Role::ReadWrite, Role::ReadWrite)
    );
    assert_eq!(ours.addresses, ["somewhere:1"]);
    assert_eq!(ours.remote, b.addr());
}

#[tokio::test]
async fn another_device_at_the_address_is_turned_away_unasked() {
    let (a, b) = friends(Setup::default);
    let meant = DeviceKey::generate().unwrap().id();
    let mut hello = a.hello_to(&b);
    hello.peers = vec![meant];
    let error = a.net.dial_control(hello).await.unwrap_err();
    let key = WrongKey {
        expected: vec![meant],
        found: b.id(),
    };
    let address = b.addr().to_string();
    assert_eq!(error, DialError::WrongKey { address, key });
    let text = error.to_string();
    assert!(
        text.contains(&meant.to_string()) && text.contains(&b.id().to_string()),
        "{text}"
    );
    assert_eq!(b.asked(), 0);
}

#[tokio::test]
async fn the_right_one_of_several_addresses_is_found() {
    let (a, mut b) = friends(Setup::default);
    let c = Node::start();
    let mut hello = a.hello_to(&b);
    // Nothing listens on port 1; `c` is a LEFT, but another.
    hello.addresses = vec![
        "127.0.0.1:1".into(),
        c.addr().to_string(),
        b.addr().to_string(),
    ];
    assert_eq!(
        a.net.dial_control(hello.clone()).await.unwrap().info.peer,
        b.id()
    );
    b.next_control().await;
    hello.addresses = vec!["127.0.0.1:1".into(), "[::1".into()];
    let error = a.net.dial_control(hello).await.unwrap_err();
    assert_eq!(
        error.to_string(),
        "unreachable: 127.0.0.1:1: nothing listens there; [::1: `]` is missing"
    );
}

#[tokio::test]
async fn a_stranger_hears_the_same_whatever_it_asks() {
    let (a, b) = (Node::start(), Node::start());
    let refused = Some(DialError::Refused(not_admitted()));
    assert_eq!(a.dial(&b).await.err(), refused);
    let mut hello = a.hello_to(&b);
    hello.share = ShareId([9; 32]);
    assert_eq!(a.net.dial_control(hello.clone()).await.err(), refused);
    hello.ticket = Some(TicketSecret {
        id: [9; 16],
        secret: [9; 16],
    });
    assert_eq!(a.net.dial_control(hello).await.err(), refused);
    assert_eq!(a.dial_data(&b, SESSION, true).await.err(), refused);
    assert_eq!(a.dial_data(&b, [0; 16], true).await.err(), refused);
    let code = PairCode::generate().unwrap().key();
    assert_eq!(pair(&a, &b, code).await.err(), refused);
    assert_eq!(b.asked(), 6);
    // A member that asks for a share it is not in learns no more than a stranger.
    b.admit(&a);
    let mut hello = a.hello_to(&b);
    hello.share = ShareId([9; 32]);
    assert_eq!(a.net.dial_control(hello).await.err(), refused);
}

#[tokio::test]
async fn a_ticket_lets_in_and_only_with_its_secret() {
    let (a, b) = (Node::start(), Node::start());
    let mut hello = a.hello_to(&b);
    hello.ticket = Some(TICKET);
    let lane = a.net.dial_control(hello.clone()).await.unwrap();
    assert_eq!(lane.info.peer, b.id());
    hello.ticket = Some(TicketSecret {
        secret: [3; 16],
        ..TICKET
    });
    let refused = a.net.dial_control(hello).await.unwrap_err();
    assert_eq!(refused, DialError::Refused(not_admitted()));
}

async fn pair(a: &Node, b: &Node, code: CodeKey) -> Result<ControlLane, DialError> {
    let dial = DialPair {
        code,
        addresses: vec![b.addr().to_string()],
        share: None,
        me: a.hello_to(b).me,
    };
    a.net.dial_pair(dial).await
}

#[tokio::test]
async fn a_pairing_needs_the_code_on_both_ends() {
    let code = PairCode::generate().unwrap();
    let with_code = || Setup {
        code: Some(code.key()),
        ..Setup::default()
    };
    let (a, mut b) = (Node::start(), Node::with(with_code()));
    // The code as the other person typed it.
    let typed = PairCode::parse(&code.to_string().to_uppercase().replace('-', " ")).unwrap();
    let lane = pair(&a, &b, typed.key()).await.unwrap();
    assert_eq!((lane.info.peer, lane.info.share), (b.id(), SHARE));
    assert_eq!(b.next_control().await.info.peer, a.id());

    let wrong = PairCode::generate().unwrap().key();
    let refused = pair(&a, &b, wrong).await.unwrap_err();
    assert_eq!(refused, DialError::Refused(not_admitted()));

    // One that sends our own proof back does not know the code.
    let liar = Node::with(Setup {
        lies: true,
        ..Setup::default()
    });
    assert_eq!(
        pair(&a, &liar, code.key()).await.unwrap_err(),
        DialError::WrongCode
    );
}

#[tokio::test]
async fn a_dialer_of_another_version_is_told_both_versions() {
    let (a, b) = friends(Setup::default);
    let mut stream = a.raw(&b).await;
    // Protocol 7, then a field no version 1 knows.
    stream
        .write_all(&framed(&[8, 7, 0xfa, 1, 1, 0]))
        .await
        .unwrap();
    let len = read_len(&mut stream, 4096, LONG).await.unwrap();
    let reply = read_body(&mut stream, len, LONG).await.unwrap();
    let reply = HelloReply::decode(&reply).unwrap();
    assert_eq!(reply.protocol, PROTOCOL);
    let refused = reply.outcome.unwrap_err();
    assert_eq!(refused.code, RefusedCode::Protocol);
    assert!(
        refused.reason.contains("protocol 1, yours speaks 7"),
        "{}",
        refused.reason
    );
    assert_eq!(b.asked(), 0);
}

/// Listens once with `b`'s key and answers any Hello with these bytes.
async fn answering(key: Arc<DeviceKey>, reply: Vec<u8>) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = listener.local_addr().unwrap();
    tokio::spawn(async move {
        let tls = TlsAcceptor::from(tls::server_config(&key).unwrap());
        let mut stream = tls
            .accept(listener.accept().await.unwrap().0)
            .await
            .unwrap();
        let len = read_len(&mut stream, 1 << 20, LONG).await.unwrap();
        read_body(&mut stream, len, LONG).await.unwrap();
        stream.write_all(&reply).await.unwrap();
        let _ = stream.read(&mut [0]).await;
    });
    addr
}

#[tokio::test]
async fn odd_answers_are_named() {
    let (a, b) = friends(Setup::default);
    let mut hello = a.hello_to(&b);
    for (reply, want) in [
        (
            framed(&[8, 9, 0xfa, 1, 1, 0]),
            "the other device speaks LEFT protocol 9, this one speaks 1",
        ),
        (
            framed(&[0xff; 9]),
            "no LEFT device answers there (malformed",
        ),
        (vec![0xff; 9], "is too long"),
        (vec![0, 0, 0, 9, 1], "no LEFT device"),
    ] {
        let addr = answering(b.key.clone(), reply).await;
        hello.addresses = vec![addr.to_string()];
        let mut dial = hello.clone();
        dial.addresses = vec![addr.to_string()];
        let short = Setup {
            timeouts: Timeouts {
                opening: Duration::from_millis(300),
                ..Timeouts::default()
            },
            ..Setup::default()
        };
        let error = Node::with(short).net.dial_control(dial).await.unwrap_err();
        let silent = matches!(error, DialError::Timeout(_)) && want == "no LEFT device";
        assert!(error.to_string().contains(want) || silent, "{error}");
    }
}

#[tokio::test]
async fn what_is_not_tls_is_dropped() {
    let (a, mut b) = friends(Setup::default);
    for garbage in [
        &b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"[..],
        &[0xff; 4096],
        &[22, 3, 1, 0, 4, 9, 9, 9, 9],
    ] {
        let mut tcp = TcpStream::connect(b.addr()).await.unwrap();
        tcp.write_all(garbage).await.unwrap();
        closed(&mut tcp).await;
    }
    // And what answers without TLS is no LEFT.
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let mut hello = a.hello_to(&b);
    hello.addresses = vec![listener.local_addr().unwrap().to_string()];
    tokio::spawn(async move {
        let mut tcp = listener.accept().await.unwrap().0;
        tcp.write_all(b"220 mail.example ESMTP\r\n").await.unwrap();
        let _ = tcp.read_to_end(&mut Vec::new()).await;
    });
    let error = a.net.dial_control(hello).await.unwrap_err();
    assert!(matches!(error, DialError::NotLeft { .. }), "{error}");
    assert_eq!(b.asked(), 0);
    a.dial(&b).await.unwrap();
    b.next_control().await;
}

/// Reads to the end, whatever kind of end it is.
async fn closed(stream: &mut (impl tokio::io::AsyncRead + Unpin)) {
    let _ = in_time(stream.read_to_end(&mut Vec::new())).await;
}

#[tokio::test]
async fn silence_while_opening_is_not_waited_for() {
    let (a, b) = friends(|| Setup {
        timeouts: Timeouts {
            opening: Duration::from_millis(100),
            ..Timeouts::default()
        },
        ..Setup::default()
    });
    closed(&mut TcpStream::connect(b.addr()).await.unwrap()).await;
    let mut half = a.raw(&b).await;
    half.write_all(&[0, 0, 1, 0, 8, 1]).await.unwrap();
    half.flush().await.unwrap();
    closed(&mut half).await;
    let mut long = a.raw(&b).await;
    long.write_all(&[0, 1, 0, 0]).await.unwrap();
    long.flush().await.unwrap();
    closed(&mut long).await;
    assert_eq!(b.asked(), 0);
    // The dialer does not wait either.
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let mut hello = a.hello_to(&b);
    hello.addresses = vec![listener.local_addr().unwrap().to_string()];
    let error = a.net.dial_control(hello).await.unwrap_err();
    assert!(
        error.to_string().contains("no TLS handshake in time"),
        "{error}"
    );
}

#[tokio::test]
async fn tls_without_a_key_or_our_protocol_is_refused() {
    let (a, b) = friends(Setup::default);
    let good = tls::client_config(&a.key, None).unwrap();
    let mut no_alpn = (*good).clone();
    no_alpn.alpn_protocols.clear();
    let mut other_alpn = (*good).clone();
    other_alpn.alpn_protocols = vec![b"h2".to_vec()];
    let mut no_key = (*good).clone();
    no_key.client_auth_cert_resolver = Arc::new(NoKey);
    for config in [no_alpn, other_alpn, no_key] {
        let tcp = TcpStream::connect(b.addr()).await.unwrap();
        let tls = TlsConnector::from(Arc::new(config));
        // In TLS 1.3 the dialer may learn of its rejection only by its first read.
        if let Ok(mut stream) = tls.connect(tls::server_name(), tcp).await {
            let _ = stream.write_all(&framed(&[8, 1])).await;
            let mut answer = Vec::new();
            let _ = in_time(stream.read_to_end(&mut answer)).await;
            assert!(answer.is_empty());
        }
    }
    assert_eq!(b.asked(), 0);
}

#[derive(Debug)]
struct NoKey;

impl rustls::client::ResolvesClientCert for NoKey {
    fn resolve(
        &self,
        _: &[&[u8]],
        _: &[rustls::SignatureScheme],
    ) -> Option<Arc<rustls::sign::CertifiedKey>> {
        None
    }

    fn only_raw_public_keys(&self) -> bool {
        true
    }

    fn has_certs(&self) -> bool {
        false
    }
}

/// Counts who is in.
#[derive(Default)]
struct Counting {
    control: AtomicUsize,
    data: AtomicUsize,
    /// Does not answer yet.
    thinks: AtomicBool,
    asked: tokio::sync::Notify,
}

impl Gate for Counting {
    fn control(&self, _: &Visitor, request: &ControlRequest) -> Result<Admitted, Refused> {
        self.asked.notify_one();
        while self.thinks.load(Ordering::SeqCst) {
            std::thread::yield_now();
        }
        self.control.fetch_add(1, Ordering::SeqCst);
        Ok(Admitted {
            share: request.share,
            role: Role::ReadWrite,
            session: SESSION,
            me: request.from.clone(),
        })
    }

    fn data(&self, _: &Visitor, _: Nonce) -> Result<ShareId, Refused> {
        self.data.fetch_add(1, Ordering::SeqCst);
        Ok(SHARE)
    }

    fn control_lost(&self, session: Nonce) {
        assert_eq!(session, SESSION);
        self.control.fetch_sub(1, Ordering::SeqCst);
    }

    fn data_lost(&self, session: Nonce) {
        assert_eq!(session, SESSION);
        self.data.fetch_sub(1, Ordering::SeqCst);
    }

    fn pair(&self, _: &Visitor, _: &PairRequest) -> Result<Paired, Refused> {
        Err(not_admitted())
    }
}

fn knock(lane: LaneHello) -> Vec<u8> {
    let hello = left_core::message::Hello {
        protocol: PROTOCOL,
        agent: String::new(),
        features: Vec::new(),
        lane,
    };
    framed(&hello.encode())
}

/// Who is admitted and gone before it hears so takes no place for good.
#[tokio::test]
async fn who_knocks_and_runs_is_not_let_in() {
    let control = LaneHello::Control {
        share: SHARE,
        instance: SESSION,
        name: "runs".into(),
        addresses: Vec::new(),
        ticket: None,
    };
    let data = LaneHello::Data {
        session: SESSION,
        dialer_serves: false,
        express: false,
    };
    let proven = tls::Proven {
        peer: DeviceId([1; 32]),
        exporter: Default::default(),
    };
    let remote = SocketAddr::from(([127, 0, 0, 1], 1));
    let gate = Arc::new(Counting::default());
    let count = || {
        let load = |n: &AtomicUsize| n.load(Ordering::SeqCst);
        (load(&gate.control), load(&gate.data))
    };
    let open = async |hello: &LaneHello, stays: bool| {
        let (mut here, mut there) = tokio::io::duplex(1 << 16);
        here.write_all(&knock(hello.clone())).await.unwrap();
        let here = stays.then_some(here);
        let accepted = accept(&mut there, &proven, remote, gate.clone(), LONG).await;
        drop(here);
        accepted.is_ok()
    };
    assert!(open(&control, true).await && open(&data, true).await);
    assert_eq!(count(), (1, 1));
    assert!(!open(&control, false).await && !open(&data, false).await);
    assert_eq!(count(), (1, 1));

    // The time for an opening is over while the gate still thinks.
    gate.asked.notified().await;
    gate.thinks.store(true, Ordering::SeqCst);
    let opening = open(&control, true);
    tokio::select! {
        _ = opening => panic!("the gate has not answered"),
        () = gate.asked.notified() => {}
    }
    gate.thinks.store(false, Ordering::SeqCst);
    while Arc::strong_count(&gate) > 1 {
        tokio::task::yield_now().await;
    }
    assert_eq!(count(), (1, 1));
}
