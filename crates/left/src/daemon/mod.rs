//! The daemon: wires disk, store, net and transfer to the engines of this device's shares.
//!
//! One owner thread a share ([`owner`]); all else sends it messages. What others may ask of a
//! running left is the trait [`handle::Daemon`].

pub(crate) mod adapt;
mod ask;
mod book;
mod browse;
mod choose;
mod device;
mod gate;
pub mod handle;
pub mod history;
mod latest;
pub(crate) mod limits;
mod links;
mod members;
mod offers;
mod owner;
mod pairing;
mod reload;
mod sightings;
mod snapshot;
pub mod times;
mod verify;
mod workers;

pub(crate) use device::address::{advertised, listen_addrs};
pub use device::start;
use handle::PeerStatus;

use crate::home::{Home, ShareRecord, UserError};
use crate::net::DeviceKey;

/// The other devices that the record of a share tells of, as far as that is known without the share
/// running: id, name, role and address.
pub fn members_at_rest(record: &ShareRecord) -> Vec<PeerStatus> {
    let fellows = book::at_rest(record).into_iter();
    fellows.map(|f| snapshot::away(&f)).collect()
}

/// This device's key, made when there is none.
pub fn load_key(home: &Home) -> Result<DeviceKey, UserError> {
    let bytes = home.device_key(
        || {
            let key = DeviceKey::generate()
                .map_err(|e| UserError::new("cannot make the device's key", e, "try again"))?;
            Ok(key.to_pkcs8().to_vec())
        },
        |bytes| DeviceKey::from_pkcs8(bytes).is_ok(),
    )?;
    DeviceKey::from_pkcs8(&bytes).map_err(|e| {
        UserError::new(
            "cannot use the device's key",
            e,
            "put device.key back from a backup: see docs/damage.md",
        )
    })
}
