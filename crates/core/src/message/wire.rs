//! Between the core types and prost's: encoding, and decoding within limits.

use prost::Message;

use super::{
    Ask, Control, DecodeError, Have, Hello, HelloReply, LaneHello, MAX_ADDRESS, MAX_ADDRESSES,
    MAX_BITMAP, MAX_HELLO, MAX_INDEX_ENTRIES, MAX_MEMBERS, MAX_MESSAGE, MAX_NAME, MAX_REASON,
    MAX_WANT_SEGMENTS, Member, Nonce, Progress, Refused, RefusedCode, Role, ShareId, TicketProof,
    Want, Welcome, What, index, proto, scan,
};
use crate::content::ContentId;
use crate::version::DeviceId;

/// Bytes that the addresses in one Hello or HelloReply may take together, so that it stays below
/// [`MAX_HELLO`].
const HELLO_ADDRESS_BYTES: usize = 8 * 1024;
/// The same for all of a Members message.
const MEMBERS_ADDRESS_BYTES: usize = 512 * 1024;

impl Hello {
    /// Protobuf bytes, at most [`MAX_HELLO`]. Names and addresses past their limits are cut or
    /// left out.
    pub fn encode(&self) -> Vec<u8> {
        let lane = match &self.lane {
            LaneHello::Control {
                share,
                instance,
                name,
                addresses,
                ticket,
            } => proto::hello::Lane::Control(proto::ControlHello {
                share: share.0.to_vec(),
                instance: instance.to_vec(),
                name: clean(name),
                addresses: fitting(addresses, HELLO_ADDRESS_BYTES),
                ticket: ticket.map(|t| proto::TicketProof {
                    id: t.id.to_vec(),
                    mac: t.mac.to_vec(),
                }),
            }),
            LaneHello::Data {
                session,
                dialer_serves,
                express,
            } => proto::hello::Lane::Data(proto::DataHello {
                session: session.to_vec(),
                dialer_serves: *dialer_serves,
                express: *express,
            }),
            LaneHello::Pair {
                mac,
                share,
                instance,
                name,
                addresses,
            } => proto::hello::Lane::Pair(proto::PairHello {
                mac: mac.to_vec(),
                share: share.map_or_else(Vec::new, |s| s.0.to_vec()),
                instance: instance.to_vec(),
                name: clean(name),
                addresses: fitting(addresses, HELLO_ADDRESS_BYTES),
            }),
        };
        proto::Hello {
            protocol: self.protocol,
            agent: clean(&self.agent),
            features: self.features.clone(),
            lane: Some(lane),
        }
        .encode_to_vec()
    }

    /// Reads protobuf bytes; every limit is checked before memory is taken.
    pub fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        let hello: proto::Hello = read(bytes, MAX_HELLO, &scan::HELLO)?;
        let lane = match hello.lane.ok_or_else(|| bad("no lane known here"))? {
            proto::hello::Lane::Control(c) => LaneHello::Control {
                share: ShareId(exact(c.share, "share id")?),
                instance: exact(c.instance, "instance")?,
                name: clean(&c.name),
                addresses: addresses(c.addresses)?,
                ticket: c.ticket.map(ticket_proof).transpose()?,
            },
            proto::hello::Lane::Data(d) => LaneHello::Data {
                session: exact(d.session, "session")?,
                dialer_serves: d.dialer_serves,
                express: d.express,
            },
            proto::hello::Lane::Pair(p) => LaneHello::Pair {
                mac: exact(p.mac, "mac")?,
                share: optional(p.share, "share id")?.map(ShareId),
                instance: exact(p.instance, "instance")?,
                name: clean(&p.name),
                addresses: addresses(p.addresses)?,
            },
        };
        Ok(Self {
            protocol: hello.protocol,
            agent: clean(&hello.agent),
            features: features(hello.features)?,
            lane,
        })
    }
}

impl HelloReply {
    /// Protobuf bytes, at most [`MAX_HELLO`]. Names, reasons and addresses past their limits are
    /// cut or left out.
    pub fn encode(&self) -> Vec<u8> {
        let outcome = match &self.outcome {
            Ok(w) => proto::hello_reply::Outcome::Welcome(proto::Welcome {
                session: w.session.to_vec(),
                instance: w.instance.to_vec(),
                name: clean(&w.name),
                addresses: fitting(&w.addresses, HELLO_ADDRESS_BYTES),
                mac: w.mac.map_or_else(Vec::new, |m| m.to_vec()),
                share: w.share.map_or_else(Vec::new, |s| s.0.to_vec()),
                role: role_number(w.role),
            }),
            Err(r) => proto::hello_reply::Outcome::Refused(proto::Refused {
                code: match r.code {
                    RefusedCode::NotAdmitted => 1,
                    RefusedCode::Protocol => 2,
                    RefusedCode::Duplicate => 3,
                    RefusedCode::Busy => 4,
                    RefusedCode::TicketSpent => 5,
                    RefusedCode::OtherShare => 6,
                },
                reason: cut_reason(&r.reason),
            }),
        };
        proto::HelloReply {
            protocol: self.protocol,
            agent: clean(&self.agent),
            features: self.features.clone(),
            outcome: Some(outcome),
        }
        .encode_to_vec()
    }

    /// Reads protobuf bytes; every limit is checked before memory is taken.
    pub fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        let reply: proto::HelloReply = read(bytes, MAX_HELLO, &scan::HELLO_REPLY)?;
        let outcome = match reply.outcome.ok_or_else(|| bad("no outcome known here"))? {
            proto::hello_reply::Outcome::Welcome(w) => Ok(Welcome {
                session: exact(w.session, "session")?,
                instance: exact(w.instance, "instance")?,
                name: clean(&w.name),
                addresses: addresses(w.addresses)?,
                mac: optional(w.mac, "mac")?,
                share: optional(w.share, "share id")?.map(ShareId),
                role: role(w.role)?,
            }),
            proto::hello_reply::Outcome::Refused(r) => Err(Refused {
                code: match r.code {
                    2 => RefusedCode::Protocol,
                    3 => RefusedCode::Duplicate,
                    4 => RefusedCode::Busy,
                    5 => RefusedCode::TicketSpent,
                    6 => RefusedCode::OtherShare,
                    // Whatever a later version refuses for: we are not let in. The reason
                    // still says it in words.
                    _ => RefusedCode::NotAdmitted,
                },
                reason: cut_reason(&r.reason),
            }),
        };
        Ok(Self {
            protocol: reply.protocol,
            agent: clean(&reply.agent),
            features: features(reply.features)?,
            outcome,
        })
    }
}

impl Control {
    /// Protobuf bytes. At most [`MAX_MESSAGE`], but for an Index and a Roll, where the caller sees
    /// to it by [`entry_len`](super::entry_len) and [`RollPart::split`]. Names, reasons and addresses past their limits are cut
    /// or left out, and so are members past [`MAX_MEMBERS`].
    pub fn encode(&self) -> Vec<u8> {
        use proto::control::Body;
        let body = match self {
            Control::Start(s) => Body::Start(index::start_to_wire(s)),
            Control::Index(batch) => Body::Index(index::to_wire(batch)),
            Control::Progress(p) => Body::Progress(proto::Progress {
                your_seq: p.your_seq,
                head: p.head,
                busy: p.busy,
                need_files: p.need_files,
                need_bytes: p.need_bytes,
            }),
            Control::Roll(part) => Body::Roll(super::roll::to_wire(part)),
            Control::Members(members) => Body::Members(proto::Members {
                members: members_to_wire(members),
            }),
            Control::Barrier(token) => Body::Barrier(proto::Barrier {
                token: *token,
                asked: None,
            }),
            Control::BarrierDone(token) => Body::BarrierDone(proto::BarrierDone {
                token: *token,
                held: Vec::new(),
            }),
            Control::Ask(ask) => Body::Barrier(proto::Barrier {
                token: ask.token,
                asked: Some(index::asked_to_wire(&ask.entries)),
            }),
            Control::Have(have) => Body::BarrierDone(proto::BarrierDone {
                token: have.token,
                held: have.held.clone(),
            }),
            Control::Ping => Body::Ping(proto::Ping {}),
            Control::Pong => Body::Pong(proto::Pong {}),
            Control::Bye(reason) => Body::Bye(proto::Bye {
                reason: cut_reason(reason),
            }),
            Control::Offer(offer) => Body::Offer(super::offer::to_wire(offer)),
            Control::Parts(parts) => Body::Parts(super::parts::to_wire(parts)),
        };
        proto::Control { body: Some(body) }.encode_to_vec()
    }

    /// Reads protobuf bytes; every limit is checked before memory is taken.
    pub fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        use proto::control::Body;
        let control: proto::Control = read(bytes, MAX_MESSAGE, &scan::CONTROL)?;
        Ok(
            match control.body.ok_or_else(|| bad("no message known here"))? {
                Body::Start(s) => Control::Start(index::start(s)?),
                Body::Index(i) => Control::Index(index::from_wire(i)?),
                Body::Progress(p) => Control::Progress(Progress {
                    your_seq: p.your_seq,
                    head: p.head,
                    busy: p.busy,
                    need_files: p.need_files,
                    need_bytes: p.need_bytes,
                }),
                Body::Roll(r) => Control::Roll(super::roll::from_wire(r)?),
                Body::Members(m) => Control::Members(
                    m.members
                        .into_iter()
                        .map(member)
                        .collect::<Result<_, _>>()?,
                ),
                Body::Barrier(b) => match b.asked {
                    None => Control::Barrier(b.token),
                    Some(asked) => Control::Ask(Ask {
                        token: b.token,
                        entries: index::from_wire(asked)?.entries,
                    }),
                },
                Body::BarrierDone(b) if b.held.is_empty() => Control::BarrierDone(b.token),
                Body::BarrierDone(b) => {
                    if b.held.len() > MAX_INDEX_ENTRIES.div_ceil(8) {
                        return Err(bad("an answer to more than was asked"));
                    }
                    Control::Have(Have {
                        token: b.token,
                        held: b.held,
                    })
                }
                Body::Ping(_) => Control::Ping,
                Body::Pong(_) => Control::Pong,
                Body::Bye(b) => Control::Bye(cut_reason(&b.reason)),
                Body::Offer(o) => Control::Offer(super::offer::from_wire(o)?),
                Body::Parts(p) => Control::Parts(super::parts::from_wire(p)?),
            },
        )
    }
}

impl Want {
    /// Protobuf bytes, at most [`MAX_MESSAGE`] when the lists are within their limits.
    pub fn encode(&self) -> Vec<u8> {
        use proto::want::What as Wire;
        let what = match &self.what {
            What::Whole(contents) => Wire::Whole(proto::WantWhole {
                contents: contents.iter().map(|c| c.0.to_vec()).collect(),
            }),
            What::Refs { content, from } => Wire::Refs(proto::WantRefs {
                content: content.0.to_vec(),
                from: *from,
            }),
            What::Lists { content, segments } => Wire::Lists(proto::WantLists {
                content: content.0.to_vec(),
                segments: segments.clone(),
            }),
            What::Segments { content, segments } => Wire::Segments(proto::WantSegments {
                content: content.0.to_vec(),
                segments: segments.clone(),
            }),
            What::Chunks {
                content,
                segment,
                bitmap,
            } => Wire::Chunks(proto::WantChunks {
                content: content.0.to_vec(),
                segment: *segment,
                bitmap: bitmap.clone(),
            }),
        };
        proto::Want {
            id: self.id,
            what: Some(what),
            rate: self.rate,
        }
        .encode_to_vec()
    }

    /// Reads protobuf bytes; every limit is checked before memory is taken.
    pub fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        use proto::want::What as Wire;
        let want: proto::Want = read(bytes, MAX_MESSAGE, &scan::WANT)?;
        let what = match want.what.ok_or_else(|| bad("no request known here"))? {
            Wire::Whole(w) => What::Whole(
                w.contents
                    .into_iter()
                    .map(content)
                    .collect::<Result<_, _>>()?,
            ),
            Wire::Refs(r) => What::Refs {
                content: content(r.content)?,
                from: r.from,
            },
            Wire::Lists(l) => What::Lists {
                content: content(l.content)?,
                segments: positions(l.segments)?,
            },
            Wire::Segments(s) => What::Segments {
                content: content(s.content)?,
                segments: positions(s.segments)?,
            },
            Wire::Chunks(c) => {
                if c.bitmap.len() > MAX_BITMAP {
                    return Err(bad(format!("a bitmap of more than {MAX_BITMAP} bytes")));
                }
                What::Chunks {
                    content: content(c.content)?,
                    segment: c.segment,
                    bitmap: c.bitmap,
                }
            }
        };
        Ok(Self {
            id: want.id,
            what,
            rate: want.rate,
        })
    }
}

fn read<M: Message + Default>(
    bytes: &[u8],
    most: usize,
    shape: &scan::Shape,
) -> Result<M, DecodeError> {
    if bytes.len() > most {
        return Err(bad(format!("longer than {most} bytes")));
    }
    scan::check(bytes, shape)?;
    M::decode(bytes).map_err(|e| bad(e.to_string()))
}

pub(super) fn bad(why: impl Into<String>) -> DecodeError {
    DecodeError(why.into())
}

pub(super) fn exact<const N: usize>(bytes: Vec<u8>, what: &str) -> Result<[u8; N], DecodeError> {
    let len = bytes.len();
    bytes
        .try_into()
        .map_err(|_| bad(format!("{what} of {len} bytes instead of {N}")))
}

fn optional<const N: usize>(bytes: Vec<u8>, what: &str) -> Result<Option<[u8; N]>, DecodeError> {
    if bytes.is_empty() {
        return Ok(None);
    }
    exact(bytes, what).map(Some)
}

fn content(bytes: Vec<u8>) -> Result<ContentId, DecodeError> {
    exact(bytes, "content id").map(ContentId)
}

fn positions(segments: Vec<u64>) -> Result<Vec<u64>, DecodeError> {
    if segments.len() > MAX_WANT_SEGMENTS {
        return Err(bad(format!("more than {MAX_WANT_SEGMENTS} segments")));
    }
    Ok(segments)
}

fn ticket_proof(proof: proto::TicketProof) -> Result<TicketProof, DecodeError> {
    let id: Nonce = exact(proof.id, "ticket id")?;
    Ok(TicketProof {
        id,
        mac: exact(proof.mac, "mac")?,
    })
}

fn members_to_wire(members: &[Member]) -> Vec<proto::Member> {
    let budget = (MEMBERS_ADDRESS_BYTES / members.len().clamp(1, MAX_MEMBERS)).min(8 * 1024);
    members
        .iter()
        .take(MAX_MEMBERS)
        .map(|m| proto::Member {
            device: m.device.0.to_vec(),
            name: clean(&m.name),
            addresses: fitting(&m.addresses, budget),
        })
        .collect()
}

fn member(m: proto::Member) -> Result<Member, DecodeError> {
    Ok(Member {
        device: DeviceId(exact(m.device, "device id")?),
        name: clean(&m.name),
        addresses: addresses(m.addresses)?,
    })
}

fn role_number(role: Role) -> u32 {
    match role {
        Role::ReadWrite => 1,
        Role::ReadOnly => 2,
    }
}

fn role(number: u32) -> Result<Role, DecodeError> {
    match number {
        1 => Ok(Role::ReadWrite),
        2 => Ok(Role::ReadOnly),
        _ => Err(bad(format!("role {number} is not known here"))),
    }
}

fn features(features: Vec<String>) -> Result<Vec<String>, DecodeError> {
    if features.iter().any(|f| f.len() > MAX_NAME) {
        return Err(bad(format!("a feature of more than {MAX_NAME} bytes")));
    }
    Ok(features)
}

fn addresses(addresses: Vec<String>) -> Result<Vec<String>, DecodeError> {
    if addresses.len() > MAX_ADDRESSES {
        return Err(bad(format!("more than {MAX_ADDRESSES} addresses")));
    }
    if !addresses.iter().all(|a| is_address(a)) {
        return Err(bad(format!(
            "an address of more than {MAX_ADDRESS} bytes or with control characters"
        )));
    }
    Ok(addresses)
}

fn is_address(text: &str) -> bool {
    text.len() <= MAX_ADDRESS && !text.chars().any(char::is_control)
}

/// The first addresses that a peer will take and that fit into `budget` bytes.
fn fitting(addresses: &[String], budget: usize) -> Vec<String> {
    let mut left = budget;
    addresses
        .iter()
        .filter(|a| is_address(a))
        .take(MAX_ADDRESSES)
        .take_while(|a| {
            // Two or three bytes of tag and length.
            let fits = a.len() + 3 <= left;
            left = left.saturating_sub(a.len() + 3);
            fits
        })
        .cloned()
        .collect()
}

/// A name as people may see it: no control characters, at most [`MAX_NAME`] bytes.
fn clean(name: &str) -> String {
    let mut out = String::with_capacity(name.len().min(MAX_NAME));
    for c in name.chars().filter(|c| !c.is_control()) {
        if out.len() + c.len_utf8() > MAX_NAME {
            break;
        }
        out.push(c);
    }
    out
}

/// A reason as people may see it: no control characters, at most [`MAX_REASON`] characters.
fn cut_reason(reason: &str) -> String {
    reason
        .chars()
        .filter(|c| !c.is_control())
        .take(MAX_REASON)
        .collect()
}
