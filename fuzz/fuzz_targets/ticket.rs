//! Tickets as pasted: any text, and bodies behind a right checksum.
#![no_main]

use left_core::ticket::Ticket;
use libfuzzer_sys::fuzz_target;

const ALPHABET: &[u8; 32] = b"abcdefghijklmnopqrstuvwxyz234567";

/// The ticket text of this body, with the checksum that it should have.
fn text(body: &[u8]) -> String {
    let mut hasher = blake3::Hasher::new_derive_key("LEFT 2026 ticket checksum v1");
    hasher.update(body);
    let mut bytes = body.to_vec();
    bytes.extend_from_slice(&hasher.finalize().as_bytes()[..5]);
    let mut out = String::from("left1");
    let (mut bits, mut count) = (0_u32, 0);
    for byte in bytes {
        bits = bits << 8 | u32::from(byte);
        count += 8;
        while count >= 5 {
            count -= 5;
            out.push(char::from(ALPHABET[(bits >> count & 31) as usize]));
        }
    }
    if count > 0 {
        out.push(char::from(ALPHABET[(bits << (5 - count) & 31) as usize]));
    }
    out
}

fuzz_target!(|data: &[u8]| {
    if let Ok(any) = std::str::from_utf8(data) {
        let _ = Ticket::parse(any);
    }
    if let Ok(ticket) = Ticket::parse(&text(data)) {
        assert_eq!(Ticket::parse(&ticket.to_string()).as_ref(), Ok(&ticket));
    }
});
