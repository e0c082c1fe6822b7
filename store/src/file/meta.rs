//! The file that makes a folder a store: 48 bytes under the name `meta`.
//!
//! ```text
//! "DHKSTORE"  version u32  store id [16]  epoch [16]  crc32 of the 44 bytes before u32
//! ```

use std::path::Path;

use uuid::Uuid;

use super::medium::{Medium, corrupt, failed};
use crate::{StoreError, StoreIdentity};

const MAGIC: &[u8; 8] = b"DHKSTORE";
const VERSION: u32 = 1;
const BYTES: usize = 48;

fn encode(identity: StoreIdentity) -> [u8; BYTES] {
    let mut bytes = [0; BYTES];
    bytes[..8].copy_from_slice(MAGIC);
    bytes[8..12].copy_from_slice(&VERSION.to_le_bytes());
    bytes[12..28].copy_from_slice(identity.id.as_bytes());
    bytes[28..44].copy_from_slice(identity.epoch.as_bytes());
    let crc = crc32fast::hash(&bytes[..44]);
    bytes[44..].copy_from_slice(&crc.to_le_bytes());
    bytes
}

pub(super) fn read(medium: &Medium, path: &Path) -> Result<StoreIdentity, StoreError> {
    // One byte more than there may be, to see that there are not more.
    let bytes = medium.read_small(path, BYTES + 1)?;
    let Ok(bytes) = <[u8; BYTES]>::try_from(bytes) else {
        return Err(corrupt(path, 0, "store description has the wrong size"));
    };
    if bytes[..8] != MAGIC[..] {
        return Err(corrupt(path, 0, "not a store description"));
    }
    let number =
        |at: usize| u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]]);
    if number(44) != crc32fast::hash(&bytes[..44]) {
        return Err(corrupt(path, 0, "store description fails its check"));
    }
    match number(8) {
        VERSION => {}
        found => {
            return Err(StoreError::Version { path: path.to_owned(), found, supported: VERSION });
        }
    }
    let uuid = |at: usize| Uuid::from_slice(&bytes[at..at + 16]).unwrap_or_default();
    Ok(StoreIdentity { id: uuid(12), epoch: uuid(28) })
}

pub(super) fn write(
    medium: &Medium,
    path: &Path,
    identity: StoreIdentity,
) -> Result<(), StoreError> {
    let temporary = path.with_extension("tmp");
    let file =
        medium.vfs.create(&temporary).map_err(|error| failed("create", &temporary, error))?;
    medium.write(&*file, &encode(identity), 0, &temporary)?;
    medium.publish(&*file, &temporary, path)
}
