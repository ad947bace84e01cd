//! Ports and limits.

use tokio::io::AsyncReadExt;

use super::*;
use crate::net::{Limits, NetError};

#[tokio::test]
async fn a_port_is_free_again_at_once() {
    let (a, b) = friends(Setup::default);
    let addr = b.addr();
    let (gate, key) = (b.gate.clone(), b.key.clone());
    b.net.stop().await;
    for round in 0..20 {
        let config = NetConfig::new(key.clone(), vec![addr], Handle::current());
        let (tx, mut lanes) = unbounded_channel();
        let net = Net::start(config, gate.clone(), move |event| drop(tx.send(event)));
        let net = net.unwrap_or_else(|e| panic!("round {round}: {e}"));
        let mut hello = a.hello_to(&a);
        hello.peers = vec![key.id()];
        hello.addresses = vec![addr.to_string()];
        let dialed = a.net.dial_control(hello).await.unwrap();
        let accepted = in_time(lanes.recv()).await.unwrap();
        // The listening end closes first, as a killed process does: TIME_WAIT is on its port.
        drop(accepted);
        net.stop().await;
        drop(dialed);
    }
}

#[tokio::test]
async fn a_live_listener_is_not_joined() {
    let b = Node::start();
    let key = Arc::new(DeviceKey::generate().unwrap());
    for listen in [
        b.addr(),
        SocketAddr::new("::".parse().unwrap(), b.addr().port()),
    ] {
        let config = NetConfig::new(key.clone(), vec![listen], Handle::current());
        let error = Net::start(config, b.gate.clone(), |_| ()).unwrap_err();
        assert!(
            matches!(error, NetError::PortInUse { addr } if addr == listen),
            "{error}"
        );
        assert!(error.to_string().contains(&b.addr().port().to_string()));
    }
    let config = NetConfig::new(key, vec!["192.0.2.1:1".parse().unwrap()], Handle::current());
    let error = Net::start(config, b.gate.clone(), |_| ()).unwrap_err();
    assert!(matches!(error, NetError::Listen { .. }), "{error}");
}

#[tokio::test]
async fn one_listener_takes_both_ip_versions() {
    let (a, mut b) = friends(|| Setup {
        listen: Some("[::]:0".parse().unwrap()),
        ..Setup::default()
    });
    let port = b.addr().port();
    for host in ["127.0.0.1", "[::1]", "localhost"] {
        let mut hello = a.hello_to(&b);
        hello.addresses = vec![format!("{host}:{port}")];
        a.net.dial_control(hello).await.unwrap();
        let remote = b.next_control().await.info.remote;
        assert_eq!(remote.ip(), remote.ip().to_canonical());
    }
}

#[tokio::test]
async fn what_is_over_the_limit_is_dropped_and_room_comes_back() {
    let (a, mut b) = friends(|| Setup {
        limits: Limits {
            opening: 3,
            opening_per_ip: 2,
            total: 4,
        },
        ..Setup::default()
    });
    let connect = || async { TcpStream::connect(b.addr()).await.unwrap() };
    // Accepted in the order of connecting.
    let (first, second) = (connect().await, connect().await);
    let mut third = connect().await;
    let n = in_time(third.read(&mut [0; 16])).await;
    assert!(matches!(n, Ok(0) | Err(_)), "{n:?}");
    drop((first, second));
    // The two are noticed to be gone sooner or later; until then a dial is dropped too.
    let mut lanes = Vec::new();
    while lanes.len() < 4 {
        match a.dial(&b).await {
            Ok(lane) => lanes.push((lane, b.next_control().await)),
            Err(DialError::NotLeft { .. }) => {}
            Err(other) => panic!("{other}"),
        }
    }
    let over = a.dial(&b).await.unwrap_err();
    assert!(
        matches!(over, DialError::NotLeft { .. }),
        "four in all: {over}"
    );
    lanes.pop();
    a.dial(&b).await.unwrap();
}
