//! A peer with a key of its own that sends whatever it likes.

use std::io::ErrorKind;
use std::sync::Arc;
use std::time::Duration;

use left::net::handshake::{ControlRequest, PairRequest, not_admitted};
use left::net::proof::ticket_mac;
use left::net::tls::Exporter;
use left::net::{Admitted, DeviceKey, Gate, Net, NetConfig, Paired, RawStream, Visitor};
use left_core::content::ContentId;
use left_core::entry::{Entry, Mtime, Node, Stamp};
use left_core::index::Cursor;
use left_core::message::{
    Control, Hello, HelloReply, IndexBatch, LaneHello, Nonce, Progress, Refused, ShareId, Start,
    TicketProof, Want, Welcome,
};
use left_core::path::RelPath;
use left_core::ticket::Ticket;
use left_core::version::{DeviceId, Version};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::runtime::Runtime;
use tokio::time::timeout;

/// The longest anything may take. Only a failure takes so long.
const LIMIT: Duration = Duration::from_secs(60);

/// It lets nobody in.
struct Closed;

impl Gate for Closed {
    fn control(&self, _: &Visitor, _: &ControlRequest) -> Result<Admitted, Refused> {
        Err(not_admitted())
    }
    fn data(&self, _: &Visitor, _: Nonce) -> Result<ShareId, Refused> {
        Err(not_admitted())
    }
    fn pair(&self, _: &Visitor, _: &PairRequest) -> Result<Paired, Refused> {
        Err(not_admitted())
    }
}

pub struct Liar {
    runtime: Runtime,
    net: Net,
    pub key: Arc<DeviceKey>,
    /// Whom it lies to: the maker of the ticket.
    victim: DeviceId,
    address: String,
    pub share: ShareId,
}

/// An encrypted connection.
pub struct Raw<'a> {
    stream: Box<dyn RawStream>,
    pub exporter: Exporter,
    runtime: &'a Runtime,
}

impl Liar {
    /// A stranger who found a ticket.
    pub fn new(ticket: &str) -> Self {
        let ticket = Ticket::parse(ticket).unwrap();
        let runtime = Runtime::new().unwrap();
        let key = Arc::new(DeviceKey::generate().unwrap());
        let config = NetConfig::new(key.clone(), Vec::new(), runtime.handle().clone());
        let net = Net::start(config, Arc::new(Closed), |_| ()).unwrap();
        Self {
            runtime,
            net,
            key,
            victim: ticket.inviter,
            address: ticket.addresses[0].clone(),
            share: ticket.share,
        }
    }

    /// One that is let in with this ticket; its control lane is open.
    pub fn joined(ticket: &str) -> (Self, Nonce) {
        let liar = Self::new(ticket);
        let mut raw = liar.connect();
        let hello = liar.hello(Some(liar.proof(ticket, &raw.exporter)));
        let session = raw.open(&hello).unwrap().session;
        raw.taken_in();
        drop(raw);
        (liar, session)
    }

    pub fn id(&self) -> DeviceId {
        self.key.id()
    }

    pub fn connect(&self) -> Raw<'_> {
        let dial = self.net.dial_raw(self.victim, &self.address);
        let (stream, exporter) = self.runtime.block_on(dial).unwrap();
        Raw {
            stream,
            exporter,
            runtime: &self.runtime,
        }
    }

    pub fn proof(&self, ticket: &str, exporter: &Exporter) -> TicketProof {
        let ticket = Ticket::parse(ticket).unwrap();
        TicketProof {
            id: ticket.id,
            mac: ticket_mac(&ticket.secret, exporter, self.id(), self.victim),
        }
    }

    pub fn hello(&self, ticket: Option<TicketProof>) -> Hello {
        Hello {
            protocol: 1,
            agent: "liar".into(),
            features: vec!["zstd".into()],
            lane: LaneHello::Control {
                share: self.share,
                instance: [7; 16],
                name: "liar".into(),
                addresses: Vec::new(),
                ticket,
            },
        }
    }

    /// A control lane of a member; its Start is sent.
    pub fn control(&self) -> (Raw<'_>, Nonce) {
        let mut raw = self.connect();
        let welcome = raw.open(&self.hello(None)).unwrap();
        raw.control(&start());
        raw.taken_in();
        (raw, welcome.session)
    }

    /// A data lane.
    pub fn data(&self, session: Nonce, serve: bool, express: bool) -> Result<Raw<'_>, Refused> {
        let mut raw = self.connect();
        raw.open(&Hello {
            protocol: 1,
            agent: "liar".into(),
            features: Vec::new(),
            lane: LaneHello::Data {
                session,
                dialer_serves: serve,
                express,
            },
        })?;
        Ok(raw)
    }

    /// All four data lanes; gives back those on which it serves: express and the other one.
    pub fn serving(&self, session: Nonce) -> [Raw<'_>; 2] {
        for express in [true, false] {
            // Asked nothing; kept open by the far end.
            std::mem::forget(self.data(session, false, express));
        }
        [true, false].map(|express| self.data(session, true, express).unwrap())
    }

    /// A file of this content that the liar says it has edited.
    pub fn file(&self, name: &str, size: u64, content: [u8; 32], counter: u64) -> (RelPath, Entry) {
        let node = Node::File {
            mode: 0o644,
            mtime: Mtime {
                secs: 1_700_000_000,
                nanos: 0,
            },
            size,
            content: ContentId(content),
        };
        self.entry(name, node, counter)
    }

    pub fn entry(&self, name: &str, node: Node, counter: u64) -> (RelPath, Entry) {
        let device = self.id();
        let entry = Entry {
            node,
            version: Version::from_pairs([(device, counter)]),
            stamp: Stamp { counter, device },
        };
        (RelPath::new(name.as_bytes()).unwrap(), entry)
    }
}

pub fn start() -> Control {
    Control::Start(Start {
        epoch: 9,
        former: Vec::new(),
        head: 0,
        known: Cursor::default(),
        your_counter: 0,
    })
}

pub fn index(entries: Vec<(RelPath, Entry)>, upto: u64) -> Control {
    Control::Index(IndexBatch {
        entries,
        dropped: Vec::new(),
        upto,
        more: false,
    })
}

pub fn framed(body: &[u8]) -> Vec<u8> {
    [&(body.len() as u32).to_be_bytes()[..], body].concat()
}

impl Raw<'_> {
    pub fn send(&mut self, bytes: &[u8]) {
        assert!(self.try_send(bytes), "the connection is closed");
    }

    /// Whether the bytes were taken.
    pub fn try_send(&mut self, bytes: &[u8]) -> bool {
        let send = async {
            self.stream.write_all(bytes).await?;
            self.stream.flush().await
        };
        let sent = self
            .runtime
            .block_on(async { timeout(LIMIT, send).await.expect("nobody takes the bytes") });
        sent.is_ok()
    }

    /// Sends without waiting for long; whether the bytes were taken.
    pub fn offer(&mut self, bytes: &[u8]) -> bool {
        let soon = Duration::from_millis(200);
        let send = async {
            self.stream.write_all(bytes).await?;
            self.stream.flush().await
        };
        self.runtime
            .block_on(async { timeout(soon, send).await.is_ok_and(|r| r.is_ok()) })
    }

    pub fn control(&mut self, message: &Control) {
        self.send(&framed(&message.encode()));
    }

    /// The next bytes, or `None` when the far end has closed.
    pub fn read(&mut self, len: usize) -> Option<Vec<u8>> {
        let mut bytes = vec![0; len];
        let read = self.stream.read_exact(&mut bytes);
        let read = self
            .runtime
            .block_on(async { timeout(LIMIT, read).await.expect("no answer") });
        match read {
            Ok(_) => Some(bytes),
            Err(e) => {
                // Whatever TLS makes of a connection that was cut.
                assert_ne!(e.kind(), ErrorKind::InvalidInput, "{e}");
                None
            }
        }
    }

    pub fn read_framed(&mut self) -> Option<Vec<u8>> {
        let len = self.read(4)?;
        self.read(u32::from_be_bytes(len.try_into().unwrap()) as usize)
    }

    /// Opens a lane.
    pub fn open(&mut self, hello: &Hello) -> Result<Welcome, Refused> {
        self.send(&framed(&hello.encode()));
        let reply = self.read_framed().expect("no reply");
        HelloReply::decode(&reply).unwrap().outcome
    }

    /// Reads messages until one fits; `None` when the far end closed before.
    pub fn until(&mut self, mut fits: impl FnMut(&Control) -> bool) -> Option<Control> {
        loop {
            let message = Control::decode(&self.read_framed()?).unwrap();
            if fits(&message) {
                return Some(message);
            }
        }
    }

    /// The far end has taken the lane in: its Start is the first that it says.
    fn taken_in(&mut self) {
        self.until(|m| matches!(m, Control::Start(_)))
            .expect("the lane is not taken in");
    }

    /// Reads until the far end closes.
    pub fn until_closed(&mut self) {
        while self.read_framed().is_some() {}
    }

    /// Whether the far end has not closed by now. What it says meanwhile is lost.
    pub fn is_open(&mut self) -> bool {
        let mut sink = [0; 64];
        let read = self.stream.read(&mut sink);
        let now = Duration::from_millis(1);
        let read = self.runtime.block_on(async { timeout(now, read).await });
        matches!(read, Err(_) | Ok(Ok(1..)))
    }

    /// Says it is alive and has taken in everything, and waits until the far end has done all that
    /// it was told before.
    pub fn settled(&mut self) -> bool {
        self.control(&Control::Progress(Progress::default()));
        self.control(&Control::Barrier(77));
        self.until(|m| *m == Control::BarrierDone(77)).is_some()
    }

    /// The next request on a data lane on which this end serves.
    pub fn want(&mut self) -> Option<Want> {
        Some(Want::decode(&self.read_framed()?).unwrap())
    }
}
