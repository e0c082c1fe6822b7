//! One segment of a branch's log: where it starts from, then one frame per commit.
//!
//! ```text
//! header   "DHKLOG\0\0"  version u32  length u32  crc32 u32  body [length]  zeros to a multiple of 8
//!   body   segment u64  salt u32  flags u8 (1: the branch exists)
//!          revision u64  log start u64  log end u64  head record [rest]
//! frame    length u32  crc32 u32  body [length]  zeros to a multiple of 8        (any number of them)
//!   body   kind u8 (1 commit, 2 delete)  flags u8 (1: has a record)
//!          revision u64  log start u64  first entry u64  entries u32
//!          [record length u32  record]  (length u32  entry)*  0xa5
//! zeros    room for more frames, up to the end of the file
//! ```
//! Numbers are little-endian. The header says what the head was when the segment began, so older
//! segments are needed for their entries only. A frame's crc32 starts from the salt, which no
//! writer of entries knows: bytes inside an entry cannot pass for a frame. The 0xa5 makes the last
//! byte of a frame differ from the zeros it is written over, so a frame cut short never passes.
//! Frames are written one after the other, each durable before the next begins: whatever follows
//! the last good frame belongs to one write that was not acknowledged.

use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;

use super::medium::{corrupt, failed};
use super::vfs::{VfsFile, read_full};
use crate::limits::{COMMIT_BYTES_MAX, RECORD_BYTES_MAX};
use crate::{Head, StoreError};

const MAGIC: &[u8; 8] = b"DHKLOG\0\0";
const VERSION: u32 = 1;
const HEADER_BYTES: usize = 20;
const HEADER_BODY_BYTES: usize = 37;
const FRAME_BYTES: usize = 8;
const FRAME_BODY_BYTES: usize = 31;
const FRAME_END: u8 = 0xa5;
/// A commit at its limit, with the fixed fields around it.
const FRAME_BODY_MAX: usize = COMMIT_BYTES_MAX + 64;
const CHUNK_MIN: usize = 4 << 10;
/// Bytes that are looked at at once for what lies behind the last frame.
const PIECE_BYTES: usize = 16 << 10;
const COMMIT: u8 = 1;
const DELETE: u8 = 2;

/// What a segment or a frame makes of a branch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct BranchState {
    pub(super) head: Head,
    /// False before the first commit and after a deletion; the numbers of `head` go on.
    pub(super) exists: bool,
}

impl BranchState {
    pub(super) const NONE: Self =
        Self { head: Head { revision: 0, record: Bytes::new(), log: 0..0 }, exists: false };
}

/// First bytes of a segment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Header {
    pub(super) number: u64,
    pub(super) salt: u32,
    pub(super) state: BranchState,
    /// Where frames begin.
    pub(super) end: u64,
}

impl Header {
    pub(super) fn encode(number: u64, salt: u32, state: &BranchState) -> Vec<u8> {
        let mut body = Vec::with_capacity(HEADER_BODY_BYTES + state.head.record.len());
        body.extend_from_slice(&number.to_le_bytes());
        body.extend_from_slice(&salt.to_le_bytes());
        body.push(u8::from(state.exists));
        body.extend_from_slice(&state.head.revision.to_le_bytes());
        body.extend_from_slice(&state.head.log.start.to_le_bytes());
        body.extend_from_slice(&state.head.log.end.to_le_bytes());
        body.extend_from_slice(&state.head.record);
        let mut bytes = Vec::with_capacity(HEADER_BYTES + body.len() + 8);
        bytes.extend_from_slice(MAGIC);
        bytes.extend_from_slice(&VERSION.to_le_bytes());
        bytes.extend_from_slice(&(body.len() as u32).to_le_bytes());
        bytes.extend_from_slice(&crc32fast::hash(&body).to_le_bytes());
        bytes.extend_from_slice(&body);
        bytes.resize(bytes.len().next_multiple_of(8), 0);
        bytes
    }

    pub(super) fn read(file: &dyn VfsFile, path: &Path) -> Result<Self, StoreError> {
        let read = |offset: u64, length: usize| -> Result<Vec<u8>, StoreError> {
            let mut bytes = vec![0; length];
            match read_full(file, &mut bytes, offset) {
                Ok(n) if n == length => Ok(bytes),
                Ok(_) => Err(corrupt(path, offset, "segment is cut short")),
                Err(error) => Err(failed("read", path, error)),
            }
        };
        let fixed = read(0, HEADER_BYTES)?;
        let mut fields = Fields(&fixed);
        if fields.take(8) != Some(MAGIC) {
            return Err(corrupt(path, 0, "not a log segment"));
        }
        match fields.u32() {
            Some(VERSION) => {}
            Some(found) if found > VERSION => {
                let path = path.to_owned();
                return Err(StoreError::Version { path, found, supported: VERSION });
            }
            _ => return Err(corrupt(path, 8, "unknown segment version")),
        }
        let (Some(length), Some(crc)) = (fields.u32(), fields.u32()) else {
            return Err(corrupt(path, 12, "segment is cut short"));
        };
        let length = length as usize;
        if !(HEADER_BODY_BYTES..=HEADER_BODY_BYTES + RECORD_BYTES_MAX).contains(&length) {
            return Err(corrupt(path, 12, "segment header has the wrong size"));
        }
        let body = Bytes::from(read(HEADER_BYTES as u64, length)?);
        if crc32fast::hash(&body) != crc {
            return Err(corrupt(path, HEADER_BYTES as u64, "segment header fails its check"));
        }
        let end = (HEADER_BYTES + length).next_multiple_of(8) as u64;
        Self::decode(&body, end)
            .ok_or_else(|| corrupt(path, HEADER_BYTES as u64, "bad segment header"))
    }

    fn decode(body: &Bytes, end: u64) -> Option<Self> {
        let mut fields = Fields(body);
        let (number, salt, flags) = (fields.u64()?, fields.u32()?, fields.u8()?);
        let (revision, start, log_end) = (fields.u64()?, fields.u64()?, fields.u64()?);
        if flags > 1 || start > log_end {
            return None;
        }
        let record = body.slice(HEADER_BODY_BYTES..);
        let head = Head { revision, record, log: start..log_end };
        Some(Self { number, salt, state: BranchState { head, exists: flags == 1 }, end })
    }
}

/// One step of a branch, as it lies in a segment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Frame {
    pub(super) exists: bool,
    pub(super) revision: u64,
    pub(super) log_start: u64,
    pub(super) first: u64,
    pub(super) record: Option<Bytes>,
    pub(super) entries: Vec<Bytes>,
}

impl Frame {
    /// The frame with its length and check, padded.
    pub(super) fn encode(&self, salt: u32) -> Vec<u8> {
        let entries: usize = self.entries.iter().map(|entry| entry.len() + 4).sum();
        let record = self.record.as_ref().map_or(0, |record| record.len() + 4);
        let length = FRAME_BODY_BYTES + record + entries;
        let mut bytes = Vec::with_capacity((FRAME_BYTES + length).next_multiple_of(8));
        bytes.extend_from_slice(&(length as u32).to_le_bytes());
        bytes.extend_from_slice(&[0; 4]);
        bytes.push(if self.exists { COMMIT } else { DELETE });
        bytes.push(u8::from(self.record.is_some()));
        bytes.extend_from_slice(&self.revision.to_le_bytes());
        bytes.extend_from_slice(&self.log_start.to_le_bytes());
        bytes.extend_from_slice(&self.first.to_le_bytes());
        bytes.extend_from_slice(&(self.entries.len() as u32).to_le_bytes());
        for part in self.record.iter().chain(&self.entries) {
            bytes.extend_from_slice(&(part.len() as u32).to_le_bytes());
            bytes.extend_from_slice(part);
        }
        bytes.push(FRAME_END);
        let crc = bytes.get(FRAME_BYTES..).map_or(0, |body| check(salt, body));
        if let Some(cell) = bytes.get_mut(4..FRAME_BYTES) {
            cell.copy_from_slice(&crc.to_le_bytes());
        }
        bytes.resize(bytes.len().next_multiple_of(8), 0);
        bytes
    }

    fn decode(body: &Bytes) -> Option<Self> {
        let mut fields = Fields(body);
        let (kind, flags) = (fields.u8()?, fields.u8()?);
        let (revision, log_start, first) = (fields.u64()?, fields.u64()?, fields.u64()?);
        let count = fields.u32()?;
        if !matches!(kind, COMMIT | DELETE) || flags > 1 {
            return None;
        }
        // Slices of the body, not copies; `take` cannot pass its end.
        let mut part = || {
            let length = fields.u32()? as usize;
            fields.take(length).map(|bytes| body.slice_ref(bytes))
        };
        let record = if flags == 1 { Some(part()?) } else { None };
        let mut entries = Vec::with_capacity((count as usize).min(body.len() / 4));
        for _ in 0..count {
            entries.push(part()?);
        }
        let done = fields.0 == [FRAME_END] && first.checked_add(entries.len() as u64).is_some();
        let exists = kind == COMMIT;
        done.then_some(Self { exists, revision, log_start, first, record, entries })
    }

    /// What the branch is after this frame; `None` if it does not follow on `state`.
    pub(super) fn apply(&self, state: &BranchState) -> Option<BranchState> {
        let old = &state.head;
        let end = self.first.checked_add(self.entries.len() as u64)?;
        let follows = old.revision.checked_add(1) == Some(self.revision)
            && self.first >= old.log.end
            && (self.first == old.log.end || self.first == self.log_start)
            && (old.log.start..=end).contains(&self.log_start);
        let record = self.record.clone().unwrap_or_else(|| old.record.clone());
        let head = Head { revision: self.revision, record, log: self.log_start..end };
        follows.then_some(BranchState { head, exists: self.exists })
    }
}

fn check(salt: u32, body: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(&salt.to_le_bytes());
    hasher.update(body);
    hasher.finalize()
}

/// What comes next in a segment.
#[derive(Debug)]
pub(super) enum Step {
    /// A frame, and where it began.
    Frame(Frame, u64),
    /// Nothing was written here yet.
    End,
    /// Something is here that is no frame: cut short, still being written, or damaged.
    Torn,
}

/// Reads frames one after the other.
#[derive(Debug)]
pub(super) struct Frames<'a> {
    file: &'a dyn VfsFile,
    path: &'a Path,
    salt: u32,
    /// Bytes of the next read, doubled with each up to this many.
    chunk: usize,
    chunk_max: usize,
    /// Where the next frame begins.
    pub(super) offset: u64,
    buffer: Vec<u8>,
    buffer_at: u64,
}

impl<'a> Frames<'a> {
    /// Reads from `offset` in pieces of at most `chunk_max` bytes, the first ones smaller.
    pub(super) fn new(
        file: &'a Arc<dyn VfsFile>,
        path: &'a Path,
        salt: u32,
        offset: u64,
        chunk_max: usize,
    ) -> Self {
        let (buffer, chunk) = (Vec::new(), CHUNK_MIN.min(chunk_max));
        Self { file: &**file, path, salt, chunk, chunk_max, offset, buffer, buffer_at: offset }
    }

    pub(super) fn next(&mut self) -> Result<Step, StoreError> {
        let (path, salt, start) = (self.path, self.salt, self.offset);
        let Some(head) = self.window(start, FRAME_BYTES)? else { return Ok(Step::End) };
        let mut fields = Fields(head);
        let (Some(length), Some(crc)) = (fields.u32(), fields.u32()) else { return Ok(Step::Torn) };
        if length == 0 && crc == 0 {
            return Ok(Step::End);
        }
        let length = length as usize;
        if !(FRAME_BODY_BYTES..=FRAME_BODY_MAX).contains(&length) {
            return Ok(Step::Torn);
        }
        let body = self.window(start + FRAME_BYTES as u64, length)?;
        let Some(body) = body.filter(|body| check(salt, body) == crc) else {
            return Ok(Step::Torn);
        };
        // Whole, yet not understood: to take it for a torn write would be to cut it off.
        let frame = Frame::decode(&Bytes::copy_from_slice(body))
            .ok_or_else(|| corrupt(path, start, "unknown kind of log frame"))?;
        self.offset += ((FRAME_BYTES + length) as u64).next_multiple_of(8);
        Ok(Step::Frame(frame, start))
    }

    /// Asks, where no whole frame came next, whether a whole one comes later: then this one was
    /// acknowledged and is damaged. `None` if not; the frame if a writer finished it meanwhile.
    ///
    /// # Errors
    /// [`StoreError::Corrupt`] if it is damaged.
    pub(super) fn settle(&mut self, revision: u64) -> Result<Option<(Frame, u64)>, StoreError> {
        match inspect_tail(self.file, self.path, self.salt, self.offset, revision) {
            Ok(_) => Ok(None),
            Err(damaged @ StoreError::Corrupt { .. }) => {
                self.buffer.clear();
                match self.next()? {
                    Step::Frame(frame, start) => Ok(Some((frame, start))),
                    Step::End | Step::Torn => Err(damaged),
                }
            }
            Err(error) => Err(error),
        }
    }

    /// `length` bytes at `offset`, `None` where the file ends before.
    fn window(&mut self, offset: u64, length: usize) -> Result<Option<&[u8]>, StoreError> {
        let held = offset
            .checked_sub(self.buffer_at)
            .is_some_and(|skip| skip.saturating_add(length as u64) <= self.buffer.len() as u64);
        if !held {
            // A length that the file does not bear out must not be allocated.
            if length > self.chunk {
                let end = self.file.len().map_err(|error| failed("measure", self.path, error))?;
                if offset.saturating_add(length as u64) > end {
                    return Ok(None);
                }
            }
            self.buffer.clear();
            self.buffer.resize(length.max(self.chunk), 0);
            let read = read_full(self.file, &mut self.buffer, offset)
                .map_err(|error| failed("read", self.path, error))?;
            self.buffer.truncate(read);
            self.buffer_at = offset;
            self.chunk = (self.chunk * 2).min(self.chunk_max);
        }
        let skip = (offset - self.buffer_at) as usize;
        Ok(self.buffer.get(skip..skip + length))
    }
}

/// What lies behind the last good frame.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Tail {
    /// Zeros only.
    Clean,
    /// Bytes of one unacknowledged write, up to this offset.
    Torn(u64),
}

/// Looks at everything from `offset` to the end of a segment, whose last good frame left the branch
/// at `revision`.
///
/// # Errors
/// [`StoreError::Corrupt`] if a later frame is whole: then the one that is not was acknowledged.
pub(super) fn inspect_tail(
    file: &dyn VfsFile,
    path: &Path,
    salt: u32,
    offset: u64,
    revision: u64,
) -> Result<Tail, StoreError> {
    let failed = |error| failed("read", path, error);
    let mut piece = vec![0; PIECE_BYTES];
    let mut at = offset;
    // Nearly always there are zeros only.
    let end = loop {
        let read = read_full(file, &mut piece, at).map_err(failed)?;
        let (words, rest) = piece.get(..read).unwrap_or_default().as_chunks::<16>();
        let zero = words.iter().fold(0, |all, word| all | u128::from_le_bytes(*word)) == 0;
        if !zero || rest.iter().any(|byte| *byte != 0) {
            break file.len().map_err(failed)?;
        }
        if read < PIECE_BYTES {
            return Ok(Tail::Clean);
        }
        at += read as u64;
    };
    let mut bytes = vec![0; end.saturating_sub(offset) as usize];
    let read = read_full(file, &mut bytes, offset).map_err(failed)?;
    bytes.truncate(read);
    let Some(last) = bytes.iter().rposition(|byte| *byte != 0) else { return Ok(Tail::Clean) };
    // Frames begin at multiples of eight; the torn one begins at 0.
    for start in (8..last).step_by(8) {
        let Some(rest) = bytes.get(start..) else { break };
        if is_frame(rest, salt, revision) {
            return Err(corrupt(path, offset, "a commit is damaged, and later ones are not"));
        }
    }
    Ok(Tail::Torn(offset + last as u64 + 1))
}

fn is_frame(bytes: &[u8], salt: u32, revision: u64) -> bool {
    let mut fields = Fields(bytes);
    let (Some(length), Some(crc)) = (fields.u32(), fields.u32()) else { return false };
    let Some(body) = fields.take(length as usize) else { return false };
    // The cheap looks first: this runs at every eighth byte.
    body.len() >= FRAME_BODY_BYTES
        && body.last() == Some(&FRAME_END)
        && matches!(body.first(), Some(&(COMMIT | DELETE)))
        && Fields(body.get(2..).unwrap_or_default()).u64().is_some_and(|found| found > revision)
        && check(salt, body) == crc
}

/// A cursor over encoded numbers that ends instead of panicking.
struct Fields<'a>(&'a [u8]);

impl<'a> Fields<'a> {
    fn take(&mut self, length: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(length)?;
        self.0 = rest;
        Some(taken)
    }

    fn u8(&mut self) -> Option<u8> {
        self.take(1).and_then(|bytes| bytes.first().copied())
    }

    fn u32(&mut self) -> Option<u32> {
        self.take(4)?.try_into().ok().map(u32::from_le_bytes)
    }

    fn u64(&mut self) -> Option<u64> {
        self.take(8)?.try_into().ok().map(u64::from_le_bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::file::{Disk, Vfs};

    /// The log of the golden store, encoded again under its own salt.
    #[test]
    fn segments_of_format_1_are_written() {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/v1/log");
        let file = Disk.open(&path).unwrap();
        let header = Header::read(&*file, &path).unwrap();
        let mut bytes = Header::encode(header.number, header.salt, &header.state);
        assert_eq!(bytes.len() as u64, header.end);
        for n in 0..6u64 {
            let entry = |n: u64| Bytes::from(format!("entry {n}"));
            let frame = Frame {
                exists: true,
                revision: n + 1,
                log_start: 0,
                first: 2 * n,
                record: n.is_multiple_of(2).then(|| Bytes::from(format!("record {n}"))),
                entries: vec![entry(2 * n), entry(2 * n + 1)],
            };
            bytes.extend_from_slice(&frame.encode(header.salt));
        }
        assert_eq!(bytes, std::fs::read(&path).unwrap());
    }

    #[test]
    fn a_frame_inside_an_entry_is_no_frame() {
        let inner = Frame {
            exists: true,
            revision: 9,
            log_start: 0,
            first: 0,
            record: None,
            entries: Vec::new(),
        };
        // Whoever writes entries does not know the salt of the segment they end up in.
        let guessed = inner.encode(1);
        assert!(is_frame(&guessed, 1, 0));
        assert!(!is_frame(&guessed, 2, 0));
    }
}
