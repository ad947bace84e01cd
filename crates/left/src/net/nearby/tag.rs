//! By what a device that says where it is, is recognised by those who know it, and by nobody else.

use left_core::version::DeviceId;

const CONTEXT: &str = "LEFT 1 2026-11 nearby tag";

/// Random, new at each start, at each change of network and every hour.
pub type Nonce = [u8; 16];
/// See [`tag()`].
pub type Tag = [u8; 16];

/// The tag of a device under a nonce: the first 16 bytes of BLAKE3 of the nonce, keyed with what is
/// derived from the device's id. Who knows the id can compute it; for others two tags of one device
/// have nothing in common. It says nothing of shares.
pub fn tag(device: DeviceId, nonce: &Nonce) -> Tag {
    let key = blake3::derive_key(CONTEXT, &device.0);
    let hash = blake3::keyed_hash(&key, nonce);
    let mut tag = [0; 16];
    tag.copy_from_slice(&hash.as_bytes()[..16]);
    tag
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As docs/protocol.md says.
    #[test]
    fn golden() {
        let hex = data_encoding::HEXLOWER.encode(&tag(DeviceId([1; 32]), &[2; 16]));
        assert_eq!(hex, "0e398f5a85931a90dd72d7320ffec26a");
    }

    #[test]
    fn tags_differ_by_device_and_nonce() {
        let (a, b) = (DeviceId([1; 32]), DeviceId([2; 32]));
        assert_ne!(tag(a, &[0; 16]), tag(a, &[1; 16]));
        assert_ne!(tag(a, &[0; 16]), tag(b, &[0; 16]));
    }
}
