//! Tickets survive copying, and mistakes in them are found.
#![allow(clippy::unwrap_used)] // A failed unwrap is a failed test.

use left_core::message::{Role, ShareId};
use left_core::ticket::{MAX_ADDRESS, MAX_ADDRESSES, SendTicket, Ticket, TicketError};
use left_core::version::DeviceId;
use proptest::collection::vec;
use proptest::prelude::*;

const ALPHABET: &str = "abcdefghijklmnopqrstuvwxyz234567";

fn ticket() -> impl Strategy<Value = Ticket> {
    (
        any::<([u8; 32], [u8; 32], [u8; 16], [u8; 16], bool, u64)>(),
        vec("[a-z0-9.:\\[\\]-]{0,40}", 0..=MAX_ADDRESSES),
    )
        .prop_map(
            |((share, inviter, id, secret, write, expires), addresses)| Ticket {
                share: ShareId(share),
                inviter: DeviceId(inviter),
                id,
                secret,
                role: if write {
                    Role::ReadWrite
                } else {
                    Role::ReadOnly
                },
                expires,
                addresses,
            },
        )
}

fn sample() -> Ticket {
    Ticket {
        share: ShareId([1; 32]),
        inviter: DeviceId([2; 32]),
        id: [3; 16],
        secret: [0xab; 16],
        role: Role::ReadWrite,
        expires: 1_900_000_000,
        addresses: vec!["192.0.2.1:4711".into(), "[2001:db8::1]:4711".into()],
    }
}

proptest! {
    #[test]
    fn text_and_back(t in ticket()) {
        prop_assert_eq!(Ticket::parse(&t.to_string()).unwrap(), t);
    }

    #[test]
    fn wrapping_and_capitals_do_no_harm(t in ticket(), width in 1usize..80) {
        let text = t.to_string().to_uppercase();
        let lines: Vec<&str> = text
            .as_bytes()
            .chunks(width)
            .map(|l| std::str::from_utf8(l).unwrap())
            .collect();
        let wrapped = format!("  {}\r\n", lines.join("\n\t"));
        prop_assert_eq!(Ticket::parse(&wrapped).unwrap(), t);
    }

    #[test]
    fn random_text_never_panics(text: String, tail in "[a-z2-7]{0,300}") {
        for wrong in [text.clone(), format!("left1{text}"), format!("left1{tail}")] {
            prop_assert!(Ticket::parse(&wrong).is_err());
        }
    }
}

#[test]
fn the_form_is_fixed() {
    // Protocol: what one version prints, every later one reads.
    assert_eq!(
        sample().to_string(),
        "left1aeaqcaibaeaqcaibaeaqcaibaeaqcaibaeaqcaibaeaqcaibaeaqcaqcaibaeaqcaibaeaqcaibaeaqcaibaeaqca\
         ibaeaqcaibaeaqcambqgaydambqgaydambqgaydaov2xk5lvov2xk5lvov2xk5lvovqcafth5yqaaaaaaba4mjzgixda\
         lrsfyytunbxgeyrewzsgaydcotemi4duorrlu5dinzrgf5kubs2x4"
    );
}

#[test]
fn every_single_mistake_is_found() {
    let text = sample().to_string();
    for at in 0..text.len() {
        for c in ALPHABET
            .chars()
            .filter(|c| *c != text[at..].chars().next().unwrap())
        {
            let mut wrong = text.clone();
            wrong.replace_range(at..=at, &c.to_string());
            let error = Ticket::parse(&wrong).unwrap_err();
            let expected = if at < 5 {
                TicketError::NotATicket
            } else {
                TicketError::Mistyped
            };
            assert_eq!(error, expected, "{c} at {at}");
        }
    }
}

#[test]
fn what_is_cut_off_or_swapped_is_found() {
    let text = sample().to_string();
    for len in 0..text.len() {
        assert!(Ticket::parse(&text[..len]).is_err(), "{len}");
        if len > 5 {
            assert!(Ticket::parse(&format!("left1{}", &text[len..])).is_err());
        }
    }
    assert!(Ticket::parse(&format!("{text}a")).is_err());
    assert!(Ticket::parse(&format!("{text}aaaaaaaa")).is_err());
    let bytes = text.as_bytes();
    for at in (5..text.len() - 1).filter(|at| bytes[*at] != bytes[at + 1]) {
        let mut swapped = bytes.to_vec();
        swapped.swap(at, at + 1);
        assert!(Ticket::parse(std::str::from_utf8(&swapped).unwrap()).is_err());
    }
}

#[test]
fn errors_say_what_to_do() {
    assert_eq!(Ticket::parse(""), Err(TicketError::NotATicket));
    assert_eq!(Ticket::parse("hello"), Err(TicketError::NotATicket));
    assert_eq!(Ticket::parse("left1"), Err(TicketError::Mistyped));
    assert_eq!(
        Ticket::parse(&format!("left1{}", "a".repeat(1 << 20))),
        Err(TicketError::Mistyped)
    );
    assert_eq!(Ticket::parse(&other_format(2)), Err(TicketError::Newer));
}

/// A ticket of another format with a right checksum.
fn other_format(format: u8) -> String {
    let body = [format, 1, 2, 3];
    let mut hasher = blake3::Hasher::new_derive_key("LEFT 2026 ticket checksum v1");
    hasher.update(&body);
    let bytes = [&body[..], &hasher.finalize().as_bytes()[..5]].concat();
    format!(
        "left1{}",
        data_encoding::BASE32_NOPAD.encode(&bytes).to_lowercase()
    )
}

#[test]
fn too_many_addresses_are_left_out() {
    let mut t = sample();
    t.addresses = vec!["a".repeat(MAX_ADDRESS); 40];
    t.addresses.insert(0, "b".repeat(MAX_ADDRESS + 1));
    let back = Ticket::parse(&t.to_string()).unwrap();
    assert_eq!(back.addresses, vec!["a".repeat(MAX_ADDRESS); MAX_ADDRESSES]);
}

#[test]
fn debug_hides_the_secret() {
    let shown = format!("{:?}", sample());
    assert!(
        !shown.contains("secret") && !shown.contains("171"),
        "{shown}"
    );
}

#[test]
fn a_ticket_of_send_is_another_kind_than_one_of_a_share() {
    let share = sample();
    let send = SendTicket(Ticket {
        role: Role::ReadOnly,
        ..share.clone()
    });
    let text = send.to_string();
    assert_eq!(SendTicket::parse(&text).unwrap(), send);
    assert_eq!(Ticket::parse(&text), Err(TicketError::OfSend));
    let of_share = SendTicket::parse(&share.to_string());
    assert_eq!(of_share, Err(TicketError::OfShare));
    assert_eq!(SendTicket::parse("left1"), Err(TicketError::Mistyped));
    assert!(!format!("{send:?}").contains("secret"));
}
