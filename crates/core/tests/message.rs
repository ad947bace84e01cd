//! Messages survive the wire; nothing else that comes over it is taken, and nothing panics.
#![allow(clippy::unwrap_used)] // A failed unwrap is a failed test.

mod values;

use left_core::membership::{MAX_BODY, Statement};
use left_core::message::{
    Control, DecodeError, Hello, HelloReply, IndexBatch, MAX_HELLO, MAX_MESSAGE, Want,
};
use proptest::collection::vec;
use proptest::prelude::*;
use values::{control, hello, reply, statement, want};

/// Decodes `bytes` as everything; must not panic.
fn decode_all(bytes: &[u8]) {
    let _ = Hello::decode(bytes);
    let _ = HelloReply::decode(bytes);
    let _ = Control::decode(bytes);
    let _ = Want::decode(bytes);
}

/// Changes to valid bytes.
#[derive(Debug, Clone)]
enum Damage {
    Set(usize, u8),
    Cut(usize),
    Insert(usize, Vec<u8>),
    Repeat(usize, usize),
}

fn damage() -> impl Strategy<Value = Damage> {
    let at = any::<usize>();
    prop_oneof![
        (at, any::<u8>()).prop_map(|(a, b)| Damage::Set(a, b)),
        at.prop_map(Damage::Cut),
        (at, vec(any::<u8>(), 0..8)).prop_map(|(a, b)| Damage::Insert(a, b)),
        (at, any::<usize>()).prop_map(|(a, b)| Damage::Repeat(a, b)),
    ]
}

fn damaged(mut bytes: Vec<u8>, all: &[Damage]) -> Vec<u8> {
    for d in all {
        let len = bytes.len();
        match d {
            _ if len == 0 => {}
            Damage::Set(at, b) => bytes[at % len] = *b,
            Damage::Cut(at) => bytes.truncate(at % len),
            Damage::Insert(at, more) => {
                bytes.splice(at % len..at % len, more.iter().copied());
            }
            Damage::Repeat(a, b) => {
                let (a, b) = (a % len, b % len);
                let piece = bytes[a.min(b)..a.max(b)].to_vec();
                bytes.extend(piece);
            }
        }
    }
    bytes
}

proptest! {
    #[test]
    fn hello_and_back(m in hello()) {
        let bytes = m.encode();
        prop_assert!(bytes.len() <= MAX_HELLO);
        prop_assert_eq!(Hello::decode(&bytes).unwrap(), m);
    }

    #[test]
    fn reply_and_back(m in reply()) {
        let bytes = m.encode();
        prop_assert!(bytes.len() <= MAX_HELLO);
        prop_assert_eq!(HelloReply::decode(&bytes).unwrap(), m);
    }

    #[test]
    fn control_and_back(m in control()) {
        let bytes = m.encode();
        prop_assert_eq!(&Control::decode(&bytes).unwrap(), &m);
        if let Control::Index(batch) = &m {
            prop_assert!(bytes.len() <= batch.approx_len());
        }
    }

    #[test]
    fn want_and_back(m in want()) {
        prop_assert_eq!(Want::decode(&m.encode()).unwrap(), m);
    }

    #[test]
    fn random_bytes_never_panic(bytes in vec(any::<u8>(), 0..300)) {
        decode_all(&bytes);
    }

    #[test]
    fn damaged_bytes_never_panic(
        h in hello(),
        r in reply(),
        c in control(),
        w in want(),
        all in vec(damage(), 1..4),
    ) {
        for bytes in [h.encode(), r.encode(), c.encode(), w.encode()] {
            let bytes = damaged(bytes, &all);
            decode_all(&bytes);
            // What is still taken is a message as any other.
            if let Ok(m) = Control::decode(&bytes) {
                prop_assert_eq!(Control::decode(&m.encode()).unwrap(), m);
            }
            if let Ok(m) = Want::decode(&bytes) {
                prop_assert_eq!(Want::decode(&m.encode()).unwrap(), m);
            }
        }
    }

    #[test]
    fn unknown_fields_are_passed_over(c in control(), tag in 100u64..1000, bytes in vec(any::<u8>(), 0..100)) {
        let mut wire = c.encode();
        prost::encoding::encode_varint(tag << 3 | 2, &mut wire);
        prost::encoding::encode_varint(bytes.len() as u64, &mut wire);
        wire.extend(bytes);
        prost::encoding::encode_varint((tag + 1) << 3, &mut wire);
        wire.push(7);
        prop_assert_eq!(Control::decode(&wire).unwrap(), c);
    }
}

#[test]
fn an_empty_batch_is_fine() {
    let m = Control::Index(IndexBatch {
        upto: 7,
        ..IndexBatch::default()
    });
    assert_eq!(Control::decode(&m.encode()), Ok(m));
}

#[test]
fn too_long_is_refused_before_anything_is_read() {
    let long = |most: usize| Err::<(), _>(DecodeError(format!("longer than {most} bytes")));
    let zeros = vec![0; MAX_MESSAGE + 1];
    assert_eq!(Control::decode(&zeros).map(|_| ()), long(MAX_MESSAGE));
    assert_eq!(Want::decode(&zeros).map(|_| ()), long(MAX_MESSAGE));
    assert_eq!(
        Hello::decode(&zeros[..=MAX_HELLO]).map(|_| ()),
        long(MAX_HELLO)
    );
    assert_eq!(
        HelloReply::decode(&zeros[..=MAX_HELLO]).map(|_| ()),
        long(MAX_HELLO)
    );
}

#[test]
fn nothing_is_no_message() {
    assert!(Hello::decode(&[]).is_err());
    assert!(HelloReply::decode(&[]).is_err());
    assert!(Control::decode(&[]).is_err());
    assert!(Want::decode(&[]).is_err());
}

proptest! {
    #[test]
    fn statements_survive(statement in statement()) {
        let body = statement.encode();
        prop_assert!(body.len() <= MAX_BODY);
        prop_assert_eq!(Statement::decode(&body), Some(statement.clone()));
        let mut longer = body.clone();
        longer.push(0);
        prop_assert_eq!(Statement::decode(&longer), None);
        prop_assert_eq!(Statement::decode(&body[..body.len() - 1]), None);
    }

    #[test]
    fn any_bytes_are_one_statement_or_none(bytes in vec(any::<u8>(), 0..300)) {
        if let Some(statement) = Statement::decode(&bytes) {
            prop_assert_eq!(statement.encode(), bytes);
        }
    }
}
