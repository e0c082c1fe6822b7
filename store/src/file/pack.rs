//! One pack file: the blocks of one write, with an index at the end.
//!
//! ```text
//! header   "DHKPACK\0"  version u32  0 u32
//! block    crc32 u32  stored u32  raw u32  address [32]  data [stored]       (any number of them)
//! index    address [32]  offset u64  stored u32  raw u32                     (sorted by address)
//! trailer  offset of the index u64  count u32  crc32 of the index u32
//!          crc32 of the 16 bytes before u32  0 u32  "DHKPEND\0"
//! ```
//! Numbers are little-endian. `raw` is the length of the block; data is an lz4 block unless
//! `stored` equals `raw`. The crc32 of a block covers everything after it up to the next block. A
//! pack is written under a temporary name and never changes once it has its own.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;

use super::medium::{Medium, corrupt, failed};
use super::vfs::{VfsFile, read_full};
use crate::limits::BLOCK_BYTES_MAX;
use crate::{Address, StoreError};

const MAGIC: &[u8; 8] = b"DHKPACK\0";
const END_MAGIC: &[u8; 8] = b"DHKPEND\0";
const VERSION: u32 = 1;
const HEADER_BYTES: usize = 16;
const RECORD_BYTES: usize = 44;
const INDEX_BYTES: usize = 48;
const TRAILER_BYTES: usize = 32;
/// Bytes gathered before they are written.
const BUFFER_BYTES: usize = 1 << 20;
/// Entries of an index that are looked at at once for one block, and how often. In an index of `n`
/// evenly spread addresses, two of three are off their place by `sqrt(n) / 2` or less.
const GUESS_ENTRIES: u64 = 128;
const GUESSES_MAX: usize = 4;

/// Where a block lies in its pack.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) address: Address,
    pub(super) offset: u64,
    pub(super) stored: u32,
    pub(super) raw: u32,
}

/// An open pack.
#[derive(Debug)]
pub(super) struct Pack {
    pub(super) number: u64,
    pub(super) path: PathBuf,
    pub(super) bytes: u64,
    file: Arc<dyn VfsFile>,
    index: Index,
}

/// Where the index of a pack is, and its check.
#[derive(Clone, Copy, Debug)]
struct Index {
    at: u64,
    count: u32,
    crc: u32,
}

impl Pack {
    /// Opens a pack; its index is not read yet.
    pub(super) fn open(medium: &Medium, path: PathBuf, number: u64) -> Result<Self, StoreError> {
        let file = medium.vfs.open(&path).map_err(|error| failed("open", &path, error))?;
        let bytes = file.len().map_err(|error| failed("measure", &path, error))?;
        let index = Index::locate(&*file, &path, bytes)?;
        Ok(Self { number, path, bytes, file, index })
    }

    /// All places in order of address, checked.
    pub(super) fn places(&self) -> Result<Vec<Place>, StoreError> {
        self.index.read(&*self.file, &self.path)
    }

    /// The place of a block, by a look at the part of the index where addresses, which are evenly
    /// spread, put it. `None` if it is not there: only [`places`](Self::places) can tell that the
    /// pack does not have it, and only the block's record that this is its place.
    pub(super) fn guess(&self, address: &Address) -> Result<Option<Place>, StoreError> {
        let count = u64::from(self.index.count);
        let prefix =
            |bytes: &[u8]| bytes.first_chunk().map_or(0, |b| u64::from(u32::from_be_bytes(*b)));
        let wanted = prefix(address.as_bytes());
        let mut likely = (wanted * count) >> 32;
        let mut buffer = [0; GUESS_ENTRIES as usize * INDEX_BYTES];
        for _ in 0..GUESSES_MAX {
            let first = likely.min(count.saturating_sub(1)).saturating_sub(GUESS_ENTRIES / 2);
            let length = GUESS_ENTRIES.min(count - first) as usize * INDEX_BYTES;
            let part = buffer.get_mut(..length).unwrap_or_default();
            let read = read_full(&*self.file, part, self.index.at + first * INDEX_BYTES as u64)
                .map_err(|error| failed("read", &self.path, error))?;
            let entries = part.get(..read).unwrap_or_default().chunks_exact(INDEX_BYTES);
            if let Some(entry) = entries.clone().find(|entry| entry.starts_with(address.as_bytes()))
            {
                return Ok(decode_place(entry).filter(|place| self.index.holds(place)));
            }
            let (Some(low), Some(high)) = (entries.clone().next(), entries.last()) else { break };
            // From the nearer end of what was seen, how far addresses are apart says how far to go.
            let (low, high) = (prefix(low), prefix(high));
            likely = if wanted < low {
                first.saturating_sub(((low - wanted) * count) >> 32)
            } else if wanted > high {
                first + GUESS_ENTRIES + (((wanted - high) * count) >> 32)
            } else {
                break;
            };
        }
        Ok(None)
    }

    /// The block at this place.
    pub(super) fn block(&self, place: &Place) -> Result<Bytes, StoreError> {
        let record = self.record(place)?;
        let data = record.slice(RECORD_BYTES..);
        if place.stored == place.raw {
            return Ok(data);
        }
        match lz4_flex::block::decompress(&data, place.raw as usize) {
            Ok(block) if block.len() == place.raw as usize => Ok(block.into()),
            _ => Err(corrupt(&self.path, place.offset, "block does not decompress")),
        }
    }

    /// The record at this place as it is stored, checked.
    pub(super) fn record(&self, place: &Place) -> Result<Bytes, StoreError> {
        let mut record = vec![0; RECORD_BYTES + place.stored as usize];
        let read = read_full(&*self.file, &mut record, place.offset)
            .map_err(|error| failed("read", &self.path, error))?;
        let expected = record_head(place);
        let fits = read == record.len()
            && record.get(4..RECORD_BYTES) == Some(&expected[..])
            && record.get(4..).map(crc32fast::hash) == number_u32(&record, 0);
        if fits {
            Ok(record.into())
        } else {
            Err(corrupt(&self.path, place.offset, "block record fails its check"))
        }
    }
}

fn record_head(place: &Place) -> [u8; RECORD_BYTES - 4] {
    let mut head = [0; RECORD_BYTES - 4];
    head[..4].copy_from_slice(&place.stored.to_le_bytes());
    head[4..8].copy_from_slice(&place.raw.to_le_bytes());
    head[8..].copy_from_slice(place.address.as_bytes());
    head
}

fn read_exact(
    file: &dyn VfsFile,
    path: &Path,
    offset: u64,
    length: usize,
) -> Result<Vec<u8>, StoreError> {
    let mut buffer = vec![0; length];
    match read_full(file, &mut buffer, offset) {
        Ok(n) if n == length => Ok(buffer),
        Ok(_) => Err(corrupt(path, offset, "pack is cut short")),
        Err(error) => Err(failed("read", path, error)),
    }
}

impl Index {
    fn locate(file: &dyn VfsFile, path: &Path, bytes: u64) -> Result<Self, StoreError> {
        let header = read_exact(file, path, 0, HEADER_BYTES)?;
        if header.get(..8) != Some(&MAGIC[..]) {
            return Err(corrupt(path, 0, "not a pack"));
        }
        match number_u32(&header, 8) {
            Some(VERSION) => {}
            Some(found) if found > VERSION => {
                let path = path.to_owned();
                return Err(StoreError::Version { path, found, supported: VERSION });
            }
            _ => return Err(corrupt(path, 8, "unknown pack version")),
        }
        if header.get(12..) != Some(&[0; 4]) {
            return Err(corrupt(path, 12, "reserved bytes are not zero"));
        }
        let Some(trailer_at) = bytes.checked_sub(TRAILER_BYTES as u64) else {
            return Err(corrupt(path, bytes, "pack is cut short"));
        };
        let trailer = read_exact(file, path, trailer_at, TRAILER_BYTES)?;
        let sound = trailer.get(24..) == Some(&END_MAGIC[..])
            && trailer.get(20..24) == Some(&[0; 4])
            && trailer.get(..16).map(crc32fast::hash) == number_u32(&trailer, 16);
        let (Some(at), Some(count), Some(crc), true) =
            (number_u64(&trailer, 0), number_u32(&trailer, 8), number_u32(&trailer, 12), sound)
        else {
            return Err(corrupt(path, trailer_at, "pack trailer fails its check"));
        };
        // The file itself bounds what is allocated for its index.
        let length = u64::from(count) * INDEX_BYTES as u64;
        if at.checked_add(length) != Some(trailer_at) || at < HEADER_BYTES as u64 {
            return Err(corrupt(path, trailer_at, "pack index has the wrong size"));
        }
        Ok(Self { at, count, crc })
    }

    fn read(&self, file: &dyn VfsFile, path: &Path) -> Result<Vec<Place>, StoreError> {
        let index = read_exact(file, path, self.at, self.count as usize * INDEX_BYTES)?;
        if crc32fast::hash(&index) != self.crc {
            return Err(corrupt(path, self.at, "pack index fails its check"));
        }
        let mut places: Vec<Place> = Vec::with_capacity(self.count as usize);
        for (n, entry) in index.chunks_exact(INDEX_BYTES).enumerate() {
            let at = self.at + (n * INDEX_BYTES) as u64;
            let rises =
                |place: &Place| places.last().is_none_or(|last| last.address < place.address);
            let place = decode_place(entry).filter(|place| self.holds(place) && rises(place));
            places.push(place.ok_or_else(|| corrupt(path, at, "bad index entry"))?);
        }
        Ok(places)
    }

    /// Whether a block can lie at this place.
    fn holds(&self, place: &Place) -> bool {
        let end = place.offset.checked_add(RECORD_BYTES as u64 + u64::from(place.stored));
        place.offset >= HEADER_BYTES as u64
            && end.is_some_and(|end| end <= self.at)
            && place.raw as usize <= BLOCK_BYTES_MAX
            && place.stored <= place.raw
    }
}

fn decode_place(entry: &[u8]) -> Option<Place> {
    let address = <[u8; 32]>::try_from(entry.get(..32)?).ok()?;
    Some(Place {
        address: Address(address),
        offset: number_u64(entry, 32)?,
        stored: number_u32(entry, 40)?,
        raw: number_u32(entry, 44)?,
    })
}

fn number_u32(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_le_bytes(bytes.get(at..at + 4)?.try_into().ok()?))
}

fn number_u64(bytes: &[u8], at: usize) -> Option<u64> {
    Some(u64::from_le_bytes(bytes.get(at..at + 8)?.try_into().ok()?))
}

/// A pack in the making. Dropped before [`finish`](Self::finish) it takes its file with it.
#[derive(Debug)]
pub(super) struct PackWriter<'a> {
    medium: &'a Medium,
    file: Arc<dyn VfsFile>,
    temporary: PathBuf,
    buffer: Vec<u8>,
    written: u64,
    places: Vec<Place>,
    named: bool,
}

impl<'a> PackWriter<'a> {
    pub(super) fn create(medium: &'a Medium, path: &Path) -> Result<Self, StoreError> {
        let temporary = path.with_extension("tmp");
        let file =
            medium.vfs.create(&temporary).map_err(|error| failed("create", &temporary, error))?;
        let mut buffer = Vec::with_capacity(BUFFER_BYTES / 8);
        buffer.extend_from_slice(MAGIC);
        buffer.extend_from_slice(&VERSION.to_le_bytes());
        buffer.extend_from_slice(&[0; 4]);
        Ok(Self { medium, file, temporary, buffer, written: 0, places: Vec::new(), named: false })
    }

    /// Bytes so far.
    pub(super) fn bytes(&self) -> u64 {
        self.written + self.buffer.len() as u64
    }

    /// Adds a block. Each address may be added once.
    pub(super) fn add(&mut self, address: Address, block: &[u8]) -> Result<(), StoreError> {
        let packed = lz4_flex::block::compress(block);
        let data = if packed.len() < block.len() { &packed[..] } else { block };
        let place = Place {
            address,
            offset: self.bytes(),
            stored: data.len() as u32,
            raw: block.len() as u32,
        };
        let start = self.buffer.len();
        self.buffer.extend_from_slice(&[0; 4]);
        self.buffer.extend_from_slice(&record_head(&place));
        self.buffer.extend_from_slice(data);
        let crc = self.buffer.get(start + 4..).map_or(0, crc32fast::hash);
        if let Some(cell) = self.buffer.get_mut(start..start + 4) {
            cell.copy_from_slice(&crc.to_le_bytes());
        }
        self.added(place)
    }

    /// Adds a record that another pack holds.
    pub(super) fn copy(&mut self, pack: &Pack, place: &Place) -> Result<(), StoreError> {
        let record = pack.record(place)?;
        let place = Place { offset: self.bytes(), ..*place };
        self.buffer.extend_from_slice(&record);
        self.added(place)
    }

    fn added(&mut self, place: Place) -> Result<(), StoreError> {
        self.places.push(place);
        if self.buffer.len() >= BUFFER_BYTES { self.write() } else { Ok(()) }
    }

    fn write(&mut self) -> Result<(), StoreError> {
        self.medium.write(&*self.file, &self.buffer, self.written, &self.temporary)?;
        self.written += self.buffer.len() as u64;
        self.buffer.clear();
        Ok(())
    }

    /// Writes the index and gives the pack its name, durably.
    pub(super) fn finish(
        mut self,
        path: PathBuf,
        number: u64,
    ) -> Result<(Pack, Vec<Place>), StoreError> {
        let mut places = std::mem::take(&mut self.places);
        places.sort_unstable_by_key(|place| place.address);
        let index_at = self.bytes();
        let start = self.buffer.len();
        for place in &places {
            self.buffer.extend_from_slice(place.address.as_bytes());
            self.buffer.extend_from_slice(&place.offset.to_le_bytes());
            self.buffer.extend_from_slice(&place.stored.to_le_bytes());
            self.buffer.extend_from_slice(&place.raw.to_le_bytes());
        }
        let crc = self.buffer.get(start..).map_or(0, crc32fast::hash);
        let mut trailer = [0; TRAILER_BYTES];
        trailer[..8].copy_from_slice(&index_at.to_le_bytes());
        trailer[8..12].copy_from_slice(&(places.len() as u32).to_le_bytes());
        trailer[12..16].copy_from_slice(&crc.to_le_bytes());
        let check = crc32fast::hash(&trailer[..16]);
        trailer[16..20].copy_from_slice(&check.to_le_bytes());
        trailer[24..].copy_from_slice(END_MAGIC);
        self.buffer.extend_from_slice(&trailer);
        self.write()?;
        self.medium.publish(&*self.file, &self.temporary, &path)?;
        self.named = true;
        let index = Index { at: index_at, count: places.len() as u32, crc };
        let pack = Pack { number, path, bytes: self.written, file: Arc::clone(&self.file), index };
        Ok((pack, places))
    }
}

impl Drop for PackWriter<'_> {
    fn drop(&mut self) {
        if !self.named {
            self.medium.discard(&self.temporary);
        }
    }
}
