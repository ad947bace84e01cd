//! What is said, as packets of DNS.

use std::net::IpAddr;

use data_encoding::BASE32_NOPAD;
use simple_dns::rdata::{A, AAAA, PTR, RData, SRV, TXT};
use simple_dns::{CLASS, Name, Packet, PacketFlag, QTYPE, Question, ResourceRecord, TYPE};

use super::tag::{Nonce, Tag};

/// Longer packets are cut, and then not understood.
pub(super) const MAX_PACKET: usize = 1500;
/// Records and questions of a packet that is looked at.
const MAX_RECORDS: u32 = 64;
/// Seconds for which others may remember it.
const TTL: u32 = 120;
const SERVICE: &str = "_left._tcp.local";
/// The same as it stands in packets, but for the case of letters.
const LABELS: &[u8] = b"\x05_left\x04_tcp";
/// Version of all this, so that a later one can be told from it.
const VERSION: &[u8] = b"1";

/// What a packet says that matters here.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Heard {
    /// Who is there?
    Question,
    /// A left listens at this port of the sender.
    Answer { nonce: Nonce, tag: Tag, port: u16 },
    /// Nothing.
    Nothing,
}

pub(super) fn question() -> Option<Vec<u8>> {
    let mut packet = Packet::new_query(0);
    let question = Question::new(
        Name::new(SERVICE).ok()?,
        QTYPE::TYPE(TYPE::PTR),
        CLASS::IN.into(),
        false,
    );
    packet.questions.push(question);
    packet.build_bytes_vec_compressed().ok()
}

/// `ip` is for other programs; those of left take the address that the packet comes from.
pub(super) fn answer(nonce: &Nonce, tag: &Tag, port: u16, ip: IpAddr) -> Option<Vec<u8>> {
    let label = text(nonce);
    let (instance, host) = (format!("{label}.{SERVICE}"), format!("{label}.local"));
    let (instance, host) = (Name::new(&instance).ok()?, Name::new(&host).ok()?);
    let tag = text(tag);
    let txt = TXT::new()
        .with_attribute("v", Some(VERSION))
        .and_then(|txt| txt.with_attribute("t", Some(tag.as_bytes())))
        .ok()?;
    let srv = SRV {
        priority: 0,
        weight: 0,
        port,
        target: host.clone(),
    };
    let record = |name: &Name<'_>, data| {
        ResourceRecord::new(name.clone().into_owned(), CLASS::IN, TTL, data)
    };
    let mut packet = Packet::new_reply(0);
    packet.set_flags(PacketFlag::AUTHORITATIVE_ANSWER);
    packet.answers = vec![
        record(&Name::new(SERVICE).ok()?, RData::PTR(PTR(instance.clone()))),
        record(&instance, RData::SRV(srv)).with_cache_flush(true),
        record(&instance, RData::TXT(txt)).with_cache_flush(true),
        match ip {
            IpAddr::V4(ip) => record(&host, RData::A(A::from(ip))),
            IpAddr::V6(ip) => record(&host, RData::AAAA(AAAA::from(ip))),
        }
        .with_cache_flush(true),
    ];
    packet.build_bytes_vec_compressed().ok()
}

/// A quick look, before anything is decoded.
pub(super) fn speaks_of_left(bytes: &[u8]) -> bool {
    let found = |w: &[u8]| w.eq_ignore_ascii_case(LABELS);
    bytes.windows(LABELS.len()).any(found)
}

pub(super) fn read(bytes: &[u8]) -> Heard {
    // Memory is taken for as many records as the header says.
    let Some(counts) = bytes.get(4..12) else {
        return Heard::Nothing;
    };
    let records = counts.chunks_exact(2);
    let records: u32 = records
        .map(|c| u32::from(u16::from_be_bytes([c[0], c[1]])))
        .sum();
    if records > MAX_RECORDS {
        return Heard::Nothing;
    }
    let (Ok(packet), Ok(service)) = (Packet::parse(bytes), Name::new(SERVICE)) else {
        return Heard::Nothing;
    };
    if !packet.has_flags(PacketFlag::RESPONSE) {
        let asked = |q: &Question<'_>| {
            let kind = matches!(q.qtype, QTYPE::TYPE(TYPE::PTR) | QTYPE::ANY);
            kind && q.qname == service
        };
        return match packet.questions.iter().any(asked) {
            true => Heard::Question,
            false => Heard::Nothing,
        };
    }
    answer_in(&packet, &service).unwrap_or(Heard::Nothing)
}

/// The first service that a packet tells completely.
fn answer_in(packet: &Packet<'_>, service: &Name<'_>) -> Option<Heard> {
    let all = || packet.answers.iter().chain(&packet.additional_records);
    all().find_map(|record| {
        let RData::SRV(srv) = &record.rdata else {
            return None;
        };
        let label = record.name.without(service)?;
        let mut labels = label.as_bytes();
        let nonce = bytes(labels.next()?)?;
        if labels.next().is_some() {
            return None;
        }
        let tag = all().filter(|r| r.name == record.name).find_map(|r| {
            let RData::TXT(txt) = &r.rdata else {
                return None;
            };
            let value = |key: &[u8]| {
                let mut all = txt.iter_raw();
                all.find(|(k, _)| *k == key).and_then(|(_, v)| v)
            };
            (value(b"v") == Some(VERSION)).then(|| value(b"t"))?
        })?;
        // A farewell.
        if record.ttl == 0 || srv.port == 0 {
            return None;
        }
        Some(Heard::Answer {
            nonce,
            tag: bytes(tag)?,
            port: srv.port,
        })
    })
}

fn text(bytes: &[u8; 16]) -> String {
    BASE32_NOPAD.encode(bytes).to_ascii_lowercase()
}

fn bytes(text: &[u8]) -> Option<[u8; 16]> {
    let text = text.to_ascii_uppercase();
    BASE32_NOPAD.decode(&text).ok()?.try_into().ok()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const IP: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(10, 0, 0, 7));

    #[test]
    fn what_is_said_is_heard() {
        let said = answer(&[7; 16], &[9; 16], 4711, IP).unwrap();
        assert!(said.len() < 300 && speaks_of_left(&said));
        let heard = Heard::Answer {
            nonce: [7; 16],
            tag: [9; 16],
            port: 4711,
        };
        assert_eq!(read(&said), heard);
        let asked = question().unwrap();
        assert!(speaks_of_left(&asked));
        assert_eq!(read(&asked), Heard::Question);
    }

    #[test]
    fn a_packet_says_nothing_that_could_be_linked() {
        // But for nonce, tag and address two devices say the same.
        let a = answer(&[7; 16], &[9; 16], 4711, IP).unwrap();
        let b = answer(&[8; 16], &[1; 16], 4711, IP).unwrap();
        let put = |all: Vec<u8>, old: &[u8; 16], new: &[u8; 16]| {
            let (old, new) = (text(old), text(new));
            let mut out = all.clone();
            for at in 0..=all.len() - old.len() {
                if all[at..].starts_with(old.as_bytes()) {
                    out[at..at + new.len()].copy_from_slice(new.as_bytes());
                }
            }
            out
        };
        let a = put(a, &[7; 16], &[8; 16]);
        assert_eq!(put(a, &[9; 16], &[1; 16]), b);
    }

    #[test]
    fn large_counts_take_no_memory() {
        let mut said = answer(&[7; 16], &[9; 16], 4711, IP).unwrap();
        said[6..8].copy_from_slice(&[0xff, 0xff]);
        assert_eq!(read(&said), Heard::Nothing);
        for len in 0..said.len() {
            read(&said[..len]);
        }
    }

    proptest! {
        #[test]
        fn nothing_panics(mut noise in prop::collection::vec(any::<u8>(), 0..400), at in 0_usize..200, b: u8) {
            read(&noise);
            let mut said = answer(&[7; 16], &[9; 16], 4711, IP).unwrap();
            let at = at % said.len();
            said[at] = b;
            read(&said);
            noise.extend(&said);
            read(&noise);
        }
    }
}
