//! A sender that lies to `left get`.

use std::fs;
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Command, Output};
use std::sync::{Arc, Mutex};

use left::net::handshake::{ControlRequest, PairRequest, not_admitted};
use left::net::{
    Admitted, ControlSender, DeviceKey, Gate, Introduction, Net, NetConfig, NetEvent, Paired,
    Visitor,
};
use left_core::chunker::content_id;
use left_core::entry::{Entry, Node, Stamp};
use left_core::index::Cursor;
use left_core::message::{Control, IndexBatch, Nonce, Progress, Refused, Role, ShareId, Start};
use left_core::path::RelPath;
use left_core::ticket::{SendTicket, Ticket};
use left_core::version::Version;

const SHARE: ShareId = ShareId([9; 32]);

/// Lets everybody in.
struct Anybody;

impl Gate for Anybody {
    fn control(&self, _: &Visitor, _: &ControlRequest) -> Result<Admitted, Refused> {
        Ok(Admitted {
            share: SHARE,
            role: Role::ReadOnly,
            session: [7; 16],
            me: Introduction::default(),
        })
    }

    fn data(&self, _: &Visitor, _: Nonce) -> Result<ShareId, Refused> {
        Ok(SHARE)
    }

    fn pair(&self, _: &Visitor, _: &PairRequest) -> Result<Paired, Refused> {
        Err(not_admitted())
    }
}

/// Runs `left get` into `dir` against a sender that lists these.
fn get(dir: &Path, nodes: &[(&str, Node)], more: &[&str]) -> Output {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()
        .unwrap();
    let key = Arc::new(DeviceKey::generate().unwrap());
    let me = key.id();
    let entry = |node: &Node| Entry {
        node: node.clone(),
        version: Version::from_pairs([(me, 1)]),
        stamp: Stamp {
            counter: 1,
            device: me,
        },
    };
    let entries = nodes
        .iter()
        .map(|(path, node)| (RelPath::new(*path).unwrap(), entry(node)));
    let batch = IndexBatch {
        entries: entries.collect(),
        dropped: Vec::new(),
        upto: 1,
        more: false,
    };
    let lanes: Arc<Mutex<Vec<ControlSender>>> = Arc::default();
    let kept = lanes.clone();
    let any = SocketAddr::from(([127, 0, 0, 1], 0));
    let config = NetConfig::new(key, vec![any], runtime.handle().clone());
    let net = Net::start(config, Arc::new(Anybody), move |event| {
        let NetEvent::Control(lane) = event else {
            return;
        };
        let lane = lane.start(|_| ());
        let start = Start {
            epoch: 1,
            former: Vec::new(),
            head: 1,
            known: Cursor::default(),
            your_counter: 0,
        };
        let done = Progress {
            head: 1,
            ..Progress::default()
        };
        for message in [
            Control::Start(start),
            Control::Index(batch.clone()),
            Control::Progress(done),
        ] {
            lane.try_send(message).unwrap();
        }
        kept.lock().unwrap().push(lane);
    })
    .unwrap();
    let ticket = SendTicket(Ticket {
        share: SHARE,
        inviter: me,
        id: [1; 16],
        secret: [2; 16],
        role: Role::ReadOnly,
        expires: u64::MAX,
        addresses: vec![net.local_addrs()[0].to_string()],
    });
    let mut command = Command::new(env!("CARGO_BIN_EXE_left"));
    command
        .env("LEFT_HOME", dir.join("home"))
        .args(["get", &ticket.to_string()]);
    let out = command.arg(dir.join("to")).args(more).output().unwrap();
    runtime.block_on(net.stop());
    out
}

fn empty_file() -> Node {
    Node::File {
        mode: 0o6777,
        mtime: Default::default(),
        size: 0,
        content: content_id(b""),
    }
}

#[test]
fn nothing_is_written_through_a_link_that_the_sender_made() {
    let dir = tempfile::tempdir().unwrap();
    let outside = dir.path().join("outside");
    fs::create_dir(&outside).unwrap();
    let target = outside.to_str().unwrap().as_bytes().to_vec();
    let link = Node::Symlink {
        mtime: Default::default(),
        target,
    };
    let out = get(dir.path(), &[("d", link), ("d/x", empty_file())], &[]);
    let err = String::from_utf8_lossy(&out.stderr).into_owned();
    assert!(out.status.code() == Some(1) && err.contains("d/x"), "{err}");
    assert_eq!(fs::read_dir(&outside).unwrap().count(), 0);
}

#[test]
fn lists_that_cannot_be_end_in_an_error() {
    let dir = tempfile::tempdir().unwrap();
    for nodes in [
        // In a file, and in a folder that is not listed.
        vec![("a", empty_file()), ("a/b", empty_file())],
        vec![("no/folder", empty_file())],
        vec![(".left-get-x", empty_file())],
    ] {
        let out = get(dir.path(), &nodes, &["--dotfiles"]);
        let err = String::from_utf8_lossy(&out.stderr).into_owned();
        assert_eq!(out.status.code(), Some(1), "{nodes:?}: {err}");
        assert!(!err.contains("does not know why"), "{err}");
    }
}

#[test]
fn a_sender_lends_no_rights() {
    use std::os::unix::fs::PermissionsExt;
    let dir = tempfile::tempdir().unwrap();
    let out = get(dir.path(), &[("tool", empty_file())], &[]);
    assert!(
        out.status.success(),
        "{}",
        String::from_utf8_lossy(&out.stderr)
    );
    let mode = fs::metadata(dir.path().join("to/tool"))
        .unwrap()
        .permissions()
        .mode();
    assert_eq!(mode & 0o7777, 0o777);
}
