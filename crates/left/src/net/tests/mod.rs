//! Real sockets on loopback, real TLS; only time limits are shortened.

mod data;
mod lanes;
mod listening;
mod opening;

use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use left_core::message::{LaneHello, Nonce, Refused, RefusedCode, Role, ShareId};
use left_core::version::DeviceId;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::runtime::Handle;
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};
use tokio_rustls::{TlsConnector, client};

use super::code::CodeKey;
use super::handshake::{
    Admitted, ControlRequest, Gate, Introduction, PairRequest, Paired, Visitor,
};
use super::proof::{End, TicketSecret, code_mac, same, ticket_mac};
use super::{
    ControlLane, DataLane, DeviceKey, DialControl, DialData, DialError, LaneEnd, LaneEvent, Net,
    NetConfig, NetEvent, Timeouts, tls,
};

const SHARE: ShareId = ShareId([7; 32]);
const SESSION: Nonce = [5; 16];
const TICKET: TicketSecret = TicketSecret {
    id: [1; 16],
    secret: [2; 16],
};
/// Only reached when a test fails.
const LONG: Duration = Duration::from_secs(60);

fn random<const N: usize>() -> [u8; N] {
    let mut bytes = [0; N];
    aws_lc_rs::rand::fill(&mut bytes).unwrap();
    bytes
}

/// Admits its members to one share, holders of one ticket, and knowers of one code.
struct TestGate {
    id: DeviceId,
    instance: Nonce,
    members: Mutex<Vec<DeviceId>>,
    code: Option<CodeKey>,
    /// Claims a pairing without knowing the code.
    lies: bool,
    asked: AtomicUsize,
}

fn no(reason: &str) -> Refused {
    Refused {
        code: RefusedCode::NotAdmitted,
        reason: reason.into(),
    }
}

impl TestGate {
    fn is_member(&self, device: DeviceId) -> bool {
        self.members.lock().unwrap().contains(&device)
    }

    fn admitted(&self) -> Admitted {
        Admitted {
            share: SHARE,
            role: Role::ReadWrite,
            session: SESSION,
            me: Introduction {
                instance: self.instance,
                name: "acceptor".into(),
                addresses: vec!["somewhere:1".into()],
            },
        }
    }
}

impl Gate for TestGate {
    fn control(&self, visitor: &Visitor, request: &ControlRequest) -> Result<Admitted, Refused> {
        self.asked.fetch_add(1, Ordering::SeqCst);
        let ticket = request.ticket.is_some_and(|t| {
            let mac = ticket_mac(&TICKET.secret, &visitor.exporter, visitor.peer, self.id);
            t.id == TICKET.id && same(&t.mac, &mac)
        });
        match (
            self.is_member(visitor.peer) || ticket,
            request.share == SHARE,
        ) {
            (true, true) => Ok(self.admitted()),
            (true, false) => Err(no("a member, but of another share")),
            (false, _) => Err(no("a stranger")),
        }
    }

    fn data(&self, visitor: &Visitor, session: Nonce) -> Result<ShareId, Refused> {
        self.asked.fetch_add(1, Ordering::SeqCst);
        match self.is_member(visitor.peer) && session == SESSION {
            true => Ok(SHARE),
            false => Err(no("no such session")),
        }
    }

    fn pair(&self, visitor: &Visitor, request: &PairRequest) -> Result<Paired, Refused> {
        self.asked.fetch_add(1, Ordering::SeqCst);
        if self.lies {
            let mac = request.mac;
            let admitted = self.admitted();
            return Ok(Paired { admitted, mac });
        }
        let code = self.code.as_ref().ok_or_else(|| no("no pairing is open"))?;
        let proof = |end| code_mac(code, &visitor.exporter, end, visitor.peer, self.id);
        if !same(&request.mac, &proof(End::Dialer)) {
            return Err(no("wrong code"));
        }
        Ok(Paired {
            admitted: self.admitted(),
            mac: proof(End::Acceptor),
        })
    }
}

/// A device of a test.
struct Node {
    net: Net,
    key: Arc<DeviceKey>,
    gate: Arc<TestGate>,
    events: UnboundedReceiver<NetEvent>,
}

/// What differs from the usual in a test.
struct Setup {
    timeouts: Timeouts,
    limits: super::Limits,
    listen: Option<SocketAddr>,
    code: Option<CodeKey>,
    lies: bool,
}

impl Default for Setup {
    fn default() -> Self {
        Self {
            timeouts: Timeouts::default(),
            limits: super::Limits::default(),
            listen: Some("127.0.0.1:0".parse().unwrap()),
            code: None,
            lies: false,
        }
    }
}

impl Node {
    fn start() -> Self {
        Self::with(Setup::default())
    }

    fn with(setup: Setup) -> Self {
        let key = Arc::new(DeviceKey::generate().unwrap());
        let gate = Arc::new(TestGate {
            id: key.id(),
            instance: random(),
            members: Mutex::default(),
            code: setup.code,
            lies: setup.lies,
            asked: AtomicUsize::new(0),
        });
        let config = NetConfig {
            timeouts: setup.timeouts,
            limits: setup.limits,
            ..NetConfig::new(
                key.clone(),
                setup.listen.into_iter().collect(),
                Handle::current(),
            )
        };
        let (tx, events) = unbounded_channel();
        let net = Net::start(config, gate.clone(), move |event| drop(tx.send(event))).unwrap();
        Self {
            net,
            key,
            gate,
            events,
        }
    }

    fn id(&self) -> DeviceId {
        self.key.id()
    }

    fn addr(&self) -> SocketAddr {
        self.net.local_addrs()[0]
    }

    fn asked(&self) -> usize {
        self.gate.asked.load(Ordering::SeqCst)
    }

    fn admit(&self, other: &Self) {
        self.gate.members.lock().unwrap().push(other.id());
    }

    fn hello_to(&self, to: &Self) -> DialControl {
        DialControl {
            share: SHARE,
            peers: vec![to.id()],
            addresses: vec![to.addr().to_string()],
            me: Introduction {
                instance: self.gate.instance,
                name: "dialer".into(),
                addresses: Vec::new(),
            },
            ticket: None,
        }
    }

    async fn dial(&self, to: &Self) -> Result<ControlLane, DialError> {
        self.net.dial_control(self.hello_to(to)).await
    }

    async fn dial_data(
        &self,
        to: &Self,
        session: Nonce,
        serves: bool,
    ) -> Result<DataLane, DialError> {
        self.net
            .dial_data(DialData {
                session,
                share: SHARE,
                peer: to.id(),
                remote: to.addr(),
                dialer_serves: serves,
                express: false,
            })
            .await
    }

    async fn next_control(&mut self) -> ControlLane {
        match in_time(self.events.recv()).await.unwrap() {
            NetEvent::Control(lane) => lane,
            NetEvent::Data(lane) => panic!("not a control lane: {lane:?}"),
        }
    }

    async fn next_data(&mut self) -> DataLane {
        match in_time(self.events.recv()).await.unwrap() {
            NetEvent::Data(lane) => lane,
            NetEvent::Control(lane) => panic!("not a data lane: {lane:?}"),
        }
    }

    /// A finished TLS connection to `to`, with nothing said yet.
    async fn raw(&self, to: &Self) -> client::TlsStream<TcpStream> {
        raw(tls::client_config(&self.key, None).unwrap(), to).await
    }

    /// A control lane whose dialer's end is in the test's hands.
    async fn raw_lane(&self, to: &mut Self) -> (client::TlsStream<TcpStream>, ControlLane) {
        let mut stream = self.raw(to).await;
        let hello = LaneHello::Control {
            share: SHARE,
            instance: self.gate.instance,
            name: "raw".into(),
            addresses: Vec::new(),
            ticket: None,
        };
        super::handshake::open(&mut stream, hello, LONG)
            .await
            .unwrap();
        stream.flush().await.unwrap();
        let lane = to.next_control().await;
        (stream, lane)
    }
}

async fn raw(config: Arc<rustls::ClientConfig>, to: &Node) -> client::TlsStream<TcpStream> {
    let tcp = TcpStream::connect(to.addr()).await.unwrap();
    let tls = TlsConnector::from(config);
    tls.connect(tls::server_name(), tcp).await.unwrap()
}

/// Two devices that know each other.
fn friends(setup: impl Fn() -> Setup) -> (Node, Node) {
    let (a, b) = (Node::with(setup()), Node::with(setup()));
    a.admit(&b);
    b.admit(&a);
    (a, b)
}

async fn in_time<T>(what: impl Future<Output = T>) -> T {
    tokio::time::timeout(LONG, what).await.expect("in time")
}

/// A started lane whose events can be awaited.
struct Running {
    tx: super::ControlSender,
    events: UnboundedReceiver<LaneEvent>,
}

fn run(lane: ControlLane) -> Running {
    let (sink, events) = unbounded_channel();
    let tx = lane.start(move |event| drop(sink.send(event)));
    Running { tx, events }
}

impl Running {
    async fn next(&mut self) -> LaneEvent {
        in_time(self.events.recv()).await.expect("an event")
    }

    /// The end, after which there is nothing more.
    async fn end(&mut self) -> LaneEnd {
        loop {
            if let LaneEvent::Closed(end) = self.next().await {
                assert!(
                    in_time(self.events.recv()).await.is_none(),
                    "the end is last"
                );
                return end;
            }
        }
    }
}
