//! A row of the index as a damaged or forged database file may hold it.
#![no_main]
#![allow(dead_code, reason = "the module has more than is looked at here")]

#[path = "../../crates/left/src/store/codec.rs"]
mod codec;

use codec::{decode, encode, peek};
use left_core::version::DeviceId;
use libfuzzer_sys::fuzz_target;

/// Stands for the store's error, of which rows know one kind.
#[derive(Debug)]
pub enum StoreError {
    Corrupt(String),
}

/// A row names devices by number; there are eight.
fn device(n: u32) -> Result<DeviceId, StoreError> {
    match n {
        0..8 => Ok(DeviceId([n as u8; 32])),
        _ => Err(StoreError::Corrupt("no such device".into())),
    }
}

fuzz_target!(|data: &[u8]| {
    let _ = peek(data);
    let Ok(record) = decode(data, device) else {
        return;
    };
    let number = |d: DeviceId, _| Ok::<_, StoreError>(u32::from(d.0[0]));
    let again = encode(&record.entry, record.stat.as_ref(), number);
    let again = decode(&again.expect("all devices are known"), device);
    assert_eq!(again.expect("what was encoded can be decoded"), record);
});
