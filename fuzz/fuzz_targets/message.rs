//! Every message as it comes from a peer: decoded without a panic, and what is taken can be told
//! onward and is read as the same.
#![no_main]

use left_core::membership::Statement;
use left_core::message::{Control, Hello, HelloReply, Want};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let Some((kind, bytes)) = data.split_first() else {
        return;
    };
    match kind % 5 {
        0 => {
            if let Ok(message) = Control::decode(bytes) {
                let again = Control::decode(&message.encode());
                assert_eq!(again.as_ref(), Ok(&message));
            }
        }
        1 => {
            if let Ok(hello) = Hello::decode(bytes) {
                // Addresses past what fits are left out.
                assert!(Hello::decode(&hello.encode()).is_ok());
            }
        }
        2 => {
            if let Ok(reply) = HelloReply::decode(bytes) {
                assert!(HelloReply::decode(&reply.encode()).is_ok());
            }
        }
        3 => {
            if let Ok(want) = Want::decode(bytes) {
                assert_eq!(Want::decode(&want.encode()).as_ref(), Ok(&want));
            }
        }
        _ => {
            if let Some(statement) = Statement::decode(bytes) {
                assert_eq!(statement.encode(), bytes);
            }
        }
    }
});
