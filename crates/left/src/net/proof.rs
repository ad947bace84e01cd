//! Proofs of a shared secret, bound to one TLS connection.
//!
//! Every proof is keyed BLAKE3 over the connection's exporter and both keys. It is worthless on
//! any other connection, so whoever stands in between, or is sent one, learns nothing to use.
//! Each use of a secret has its own `derive_key` context: no proof can pass for another.

use left_core::membership::Founding;
use left_core::message::Nonce;
use left_core::version::DeviceId;

use super::code::CodeKey;
use super::tls::Exporter;

/// A proof as it travels.
pub type Mac = [u8; 32];

/// A ticket as its redeemer knows it.
#[derive(Clone, Copy)]
pub struct TicketSecret {
    /// Names the ticket at the inviter.
    pub id: Nonce,
    /// What the redeemer shows to know.
    pub secret: [u8; 16],
}

/// Which end of a pairing speaks; a proof cannot be sent back as the other end's.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum End {
    /// The one who dialed.
    Dialer,
    /// The one who was dialed.
    Acceptor,
}

/// The dialer's proof that it holds a ticket's secret.
pub fn ticket_mac(
    secret: &[u8; 16],
    exporter: &Exporter,
    dialer: DeviceId,
    acceptor: DeviceId,
) -> Mac {
    let key = blake3::derive_key("LEFT 1 2026-11 ticket proof", secret);
    mac(&key, exporter, &[], dialer, acceptor)
}

/// One end's proof that it knows a pairing code.
pub fn code_mac(
    code: &CodeKey,
    exporter: &Exporter,
    end: End,
    dialer: DeviceId,
    acceptor: DeviceId,
) -> Mac {
    let key = blake3::derive_key("LEFT 1 2026-11 pairing proof", code.bytes());
    let end = match end {
        End::Dialer => b"dialer",
        End::Acceptor => b"accept",
    };
    mac(&key, exporter, end, dialer, acceptor)
}

/// The share that two folders become which were none before: both ends know it at once, and
/// nobody without the code does. Its founder is the device with the smaller id, so that it does not
/// matter who dialed.
pub fn founding_from_code(code: &CodeKey, one: DeviceId, other: DeviceId) -> Founding {
    Founding {
        founder: one.min(other),
        nonce: blake3::derive_key("LEFT 1 2026-11 share of a pairing", code.bytes()),
    }
}

/// Compares two proofs in constant time.
pub fn same(a: &Mac, b: &Mac) -> bool {
    aws_lc_rs::constant_time::verify_slices_are_equal(a, b).is_ok()
}

fn mac(key: &[u8; 32], exporter: &Exporter, end: &[u8], from: DeviceId, to: DeviceId) -> Mac {
    let mut hasher = blake3::Hasher::new_keyed(key);
    // All parts but `end` have a fixed length, and `end` has one length a key: no ambiguity.
    hasher
        .update(exporter)
        .update(&from.0)
        .update(&to.0)
        .update(end);
    *hasher.finalize().as_bytes()
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;
    use crate::net::code::PairCode;

    #[test]
    fn every_input_matters_and_no_two_uses_agree() {
        let (a, b) = (DeviceId([1; 32]), DeviceId([2; 32]));
        let code = PairCode::generate().unwrap().key();
        let other = PairCode::generate().unwrap().key();
        let all = [
            ticket_mac(&[3; 16], &[4; 32], a, b),
            ticket_mac(&[3; 16], &[4; 32], b, a),
            ticket_mac(&[3; 16], &[5; 32], a, b),
            ticket_mac(&[6; 16], &[4; 32], a, b),
            code_mac(&code, &[4; 32], End::Dialer, a, b),
            code_mac(&code, &[4; 32], End::Acceptor, a, b),
            code_mac(&code, &[4; 32], End::Dialer, b, a),
            code_mac(&code, &[5; 32], End::Dialer, a, b),
            code_mac(&other, &[4; 32], End::Dialer, a, b),
            founding_from_code(&code, a, b).share().0,
            founding_from_code(&other, a, b).share().0,
            founding_from_code(&code, a, DeviceId([0; 32])).share().0,
        ];
        assert_eq!(all.iter().collect::<HashSet<_>>().len(), all.len());
        assert_eq!(
            founding_from_code(&code, a, b),
            founding_from_code(&code, b, a)
        );
        assert!(same(&all[0], &ticket_mac(&[3; 16], &[4; 32], a, b)));
        assert!(!same(&all[0], &all[1]));
    }

    #[test]
    fn the_share_of_a_pairing_never_changes() {
        let code = "abandon-abandon-abandon-abandon-abandon-abandon-abandon-spend";
        let code = PairCode::parse(code).unwrap().key();
        let founding = founding_from_code(&code, DeviceId([2; 32]), DeviceId([1; 32]));
        assert_eq!(founding.founder, DeviceId([1; 32]));
        let share = founding.share().to_string();
        assert_eq!(
            share,
            "CLUXXREJEBIF6RRTOBR2RYS4HOBGOZ6WDJEG5ADYWL5D6NTROPEA"
        );
    }
}
