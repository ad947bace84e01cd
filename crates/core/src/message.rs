//! Core types of all that travels, and their bounded decoding. Wire types stay in here.

mod index;
mod offer;
mod parts;
mod proto;
mod roll;
mod scan;
mod wire;

use crate::content::{ContentId, SEGMENT_MAX_CHUNKS, SegmentRef};
use crate::entry::{Entry, Node};
use crate::index::{Cursor, Epoch};
use crate::membership::{Founding, Signed};
pub use crate::membership::{Role, ShareId};
use crate::path::RelPath;
use crate::version::{DeviceId, MAX_DEVICES};

/// The version of the protocol this code speaks.
pub const PROTOCOL: u32 = 1;
/// ALPN name.
pub const ALPN: &[u8] = b"left/1";
/// Longest control message in bytes, without its 4-byte length.
pub const MAX_MESSAGE: usize = 1 << 20;
/// Longest Hello or HelloReply in bytes.
pub const MAX_HELLO: usize = 16 * 1024;
/// Most entries of one Index message.
pub const MAX_INDEX_ENTRIES: usize = 4096;
/// Most segments of one Offer message.
pub const MAX_OFFER_SEGMENTS: usize = 16_384;
/// Longest bitmap of one Parts message, in bytes.
pub const MAX_PARTS_BITMAP: usize = 8 * 1024;
/// Most device ids that the entries of one Index message name.
pub const MAX_INDEX_DEVICES: usize = MAX_INDEX_ENTRIES + MAX_DEVICES;
/// Most members of a share.
pub const MAX_MEMBERS: usize = 1024;
/// Longest name of a device, and longest agent, in bytes; longer ones are cut.
pub const MAX_NAME: usize = 128;
/// Most addresses of one device.
pub const MAX_ADDRESSES: usize = 64;
/// Longest address in bytes.
pub const MAX_ADDRESS: usize = 300;
/// Most optional features a Hello names, each at most [`MAX_NAME`] bytes.
pub const MAX_FEATURES: usize = 64;
/// Longest reason in characters; longer ones are cut.
pub const MAX_REASON: usize = 500;
/// Most contents one Want asks for.
pub const MAX_WANT_CONTENTS: usize = 4096;
/// Most segments one Want asks for.
pub const MAX_WANT_SEGMENTS: usize = 1024;
/// Longest bitmap of a Want for chunks, in bytes: a bit for each chunk a segment may have.
pub const MAX_BITMAP: usize = SEGMENT_MAX_CHUNKS / 8;

/// 16 random bytes: a process' run, or a control lane.
pub type Nonce = [u8; 16];

/// First message on a connection, from the dialer.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Hello {
    /// The dialer's protocol version.
    pub protocol: u32,
    /// Program and version, for the log.
    pub agent: String,
    /// Optional features the dialer knows.
    pub features: Vec<String>,
    /// What the connection is for.
    pub lane: LaneHello,
}

/// What a connection is for.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum LaneHello {
    /// The control lane of a share.
    Control {
        /// Which share.
        share: ShareId,
        /// The dialer's run.
        instance: Nonce,
        /// The dialer's name.
        name: String,
        /// Where the dialer may be dialed, `host:port`.
        addresses: Vec<String>,
        /// Ticket id and proof, for one who is not yet a member.
        ticket: Option<TicketProof>,
    },
    /// A data lane.
    Data {
        /// The control lane it belongs to.
        session: Nonce,
        /// Whether the dialer answers Wants here (else it asks).
        dialer_serves: bool,
        /// Whether only small contents travel here.
        express: bool,
    },
    /// A pairing by code.
    Pair {
        /// The dialer's proof of the code.
        mac: [u8; 32],
        /// The dialer's share, if its folder is one.
        share: Option<ShareId>,
        /// The dialer's run.
        instance: Nonce,
        /// The dialer's name.
        name: String,
        /// Where the dialer may be dialed.
        addresses: Vec<String>,
    },
}

/// Proof of a ticket's secret, bound to the TLS session.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct TicketProof {
    /// Which ticket.
    pub id: Nonce,
    /// Keyed BLAKE3 of the TLS exporter.
    pub mac: [u8; 32],
}

/// The acceptor's answer.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct HelloReply {
    /// The acceptor's protocol version.
    pub protocol: u32,
    /// Program and version, for the log.
    pub agent: String,
    /// Optional features the acceptor knows.
    pub features: Vec<String>,
    /// Yes or no.
    pub outcome: Result<Welcome, Refused>,
}

/// The lane is open.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Welcome {
    /// Names the control lane (zeros for data lanes).
    pub session: Nonce,
    /// The acceptor's run.
    pub instance: Nonce,
    /// The acceptor's name.
    pub name: String,
    /// Where the acceptor may be dialed.
    pub addresses: Vec<String>,
    /// Pairing: the acceptor's proof of the code.
    pub mac: Option<[u8; 32]>,
    /// Pairing: the share both now belong to.
    pub share: Option<ShareId>,
    /// The role the dialer has.
    pub role: Role,
}

/// Why a lane was not opened.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Refused {
    /// Machine-readable reason.
    pub code: RefusedCode,
    /// The same for people.
    pub reason: String,
}

/// Reasons that tell an unknown device nothing about which shares exist.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum RefusedCode {
    /// Unknown device, share, ticket or code: all the same from outside.
    NotAdmitted,
    /// The other protocol version is not spoken here.
    Protocol,
    /// This connection is not needed: another one between the two devices is kept.
    Duplicate,
    /// Too many connections; try again later.
    Busy,
    /// The ticket was right but is expired or used (told only to who proved its secret).
    TicketSpent,
    /// The pairing code was right, but both folders are shares already, and different ones.
    OtherShare,
}

/// A message on the control lane.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Control {
    /// First message both ways.
    Start(Start),
    /// Index changes.
    Index(IndexBatch),
    /// How far the sender is.
    Progress(Progress),
    /// The signed membership list, or a part of it.
    Roll(RollPart),
    /// How members are called and where they are.
    Members(Vec<Member>),
    /// Look at your disk now, tell me all changes, then answer with the token.
    Barrier(u64),
    /// The answer.
    BarrierDone(u64),
    /// Which of these do you hold?
    Ask(Ask),
    /// The answer: those of the question whose bits are set.
    Have(Have),
    /// Are you there?
    Ping,
    /// Yes.
    Pong,
    /// The sender closes, and why.
    Bye(String),
    /// Segments of a file that is still being read.
    Offer(Offer),
    /// Segments of a content that is still being fetched.
    Parts(Parts),
}

/// See [`Control::Start`].
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Start {
    /// Life of the sender's index.
    pub epoch: Epoch,
    /// Its former lives, each with its last number.
    pub former: Vec<Cursor>,
    /// Last sequence number of the sender's index.
    pub head: u64,
    /// How far the sender knows the receiver's index.
    pub known: Cursor,
    /// Largest counter of the receiver that the sender has ever seen.
    pub your_counter: u64,
}

/// See [`Control::Index`].
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct IndexBatch {
    /// Entries in the order of their sequence numbers.
    pub entries: Vec<(RelPath, Entry)>,
    /// What the sender does not hold any more, though nobody deleted it.
    pub dropped: Vec<RelPath>,
    /// All changes up to this one are told.
    pub upto: u64,
    /// Another batch follows at once.
    pub more: bool,
}

/// See [`Control::Ask`].
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Ask {
    /// Repeated in the answer. Barriers and questions share their numbers.
    pub token: u64,
    /// What the asker holds.
    pub entries: Vec<(RelPath, Entry)>,
}

/// See [`Control::Have`].
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Have {
    /// Of the question.
    pub token: u64,
    /// Bit `i % 8` of byte `i / 8`: entry `i` of the question stands at the answerer exactly so. What is
    /// beyond its end does not. Never empty: who holds nothing answers like to a barrier.
    pub held: Vec<u8>,
}

/// See [`Control::Progress`].
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Progress {
    /// The last sequence number of the receiver that the sender has taken in.
    pub your_seq: u64,
    /// The sender's own last sequence number.
    pub head: u64,
    /// The sender scans, fetches or applies.
    pub busy: bool,
    /// Paths the sender still needs.
    pub need_files: u64,
    /// Bytes the sender still needs.
    pub need_bytes: u64,
}

/// See [`Control::Offer`].
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Offer {
    /// Random; stands for the content id in Wants until that is known.
    pub id: ContentId,
    /// Of which path.
    pub path: RelPath,
    /// Position of the first segment told here.
    pub from: u64,
    /// The next segments, at most [`MAX_OFFER_SEGMENTS`].
    pub segments: Vec<SegmentRef>,
    /// Bytes of the file.
    pub size: u64,
}

/// See [`Control::Parts`].
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Parts {
    /// The content, or an offer that stands for it.
    pub content: ContentId,
    /// Position of the first bit's segment.
    pub from: u64,
    /// Bit `i % 8` of byte `i / 8`: the sender has segment `from + i`, verified. At most
    /// [`MAX_PARTS_BITMAP`] bytes.
    pub bitmap: Vec<u8>,
    /// The sender has begun to fetch it, and asks who else does.
    pub hello: bool,
}

/// See [`Control::Roll`].
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct RollPart {
    /// Who founded the share: proven by the share's id.
    pub founding: Founding,
    /// Statements, each after all that it refers to and that was not sent before. Not yet checked.
    pub statements: Vec<Signed>,
}

/// How a member is called and where it is. Who is a member the [`RollPart`]s tell.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Member {
    /// Its key.
    pub device: DeviceId,
    /// Its name.
    pub name: String,
    /// Where it may be dialed.
    pub addresses: Vec<String>,
}

/// A request on a data lane.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Want {
    /// Chosen by the asker, repeated in every frame of the answer.
    pub id: u32,
    /// What is asked for.
    pub what: What,
    /// Bytes a second that the asker gets on this lane, where it waits for them most of the time and
    /// takes compressed payloads; 0 when it does not wait or can not say.
    pub rate: u64,
}

/// See [`Want`].
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum What {
    /// Small contents (each at most [`crate::content::WHOLE_MAX`] bytes), a frame each.
    Whole(Vec<ContentId>),
    /// A page of the segment list.
    Refs {
        /// Of which content.
        content: ContentId,
        /// Position of the first segment.
        from: u64,
    },
    /// Chunk lists, a frame a segment.
    Lists {
        /// Of which content.
        content: ContentId,
        /// Positions.
        segments: Vec<u64>,
    },
    /// Chunk lists and bytes, a frame a segment.
    Segments {
        /// Of which content.
        content: ContentId,
        /// Positions.
        segments: Vec<u64>,
    },
    /// Some chunks of one segment, one frame.
    Chunks {
        /// Of which content.
        content: ContentId,
        /// Position of the segment.
        segment: u64,
        /// Bit `i % 8` of byte `i / 8` asks for chunk `i`.
        bitmap: Vec<u8>,
    },
}

/// Bytes that are no message: named, bounded, never a panic.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("malformed message: {0}")]
pub struct DecodeError(pub String);

impl IndexBatch {
    /// Upper estimate of the encoded length in bytes.
    pub fn approx_len(&self) -> usize {
        let entries: usize = self.entries.iter().map(|(p, e)| entry_len(p, e)).sum();
        let dropped: usize = self.dropped.iter().map(dropped_len).sum();
        INDEX_OVERHEAD + entries + dropped
    }
}

/// Bytes of an Index message beside its entries, at most.
pub const INDEX_OVERHEAD: usize = 64;

/// Upper estimate of the bytes that an entry takes in an Index message, its devices' ids
/// included: a batch stays below [`MAX_MESSAGE`] when the sum and [`INDEX_OVERHEAD`] do. Any
/// single entry does.
pub fn entry_len(path: &RelPath, entry: &Entry) -> usize {
    // Tags and lengths of the entry's own fields and all its numbers, each at its longest.
    const FIXED: usize = 96;
    // A device in the table (tag, length, id), its position and its counter.
    const PER_DEVICE: usize = 2 + 32 + 3 + 9;
    let node = match &entry.node {
        Node::File { .. } => 32,
        Node::Symlink { target, .. } => target.len(),
        Node::Dir { .. } | Node::Tombstone => 0,
    };
    // One more device: the author, if the version does not name it.
    FIXED + path.as_bytes().len() + node + (entry.version.pairs().len() + 1) * PER_DEVICE
}

/// Upper estimate of the bytes that a path which was dropped takes in an Index message.
pub fn dropped_len(path: &RelPath) -> usize {
    4 + path.as_bytes().len()
}
