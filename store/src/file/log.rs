//! The log and head of one branch: segments in a folder, written by one, read by many.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use parking_lot::{Mutex, RwLock};
use uuid::Uuid;

use super::medium::{Medium, corrupt, failed, is_gone};
use super::segment::{BranchState, Frame, Frames, Header, Step, Tail, inspect_tail};
use super::vfs::VfsFile;
use crate::{Batch, Expect, Head, StoreError};

/// Room is prepared in steps of what there is, between these.
const ROOM_MIN: u64 = 64 << 10;
const ROOM_MAX: u64 = 1 << 20;
/// A frame of this size is written without preparing room for it.
const LARGE_BYTES: u64 = 256 << 10;
/// Distance between remembered places of a segment.
const POINT_BYTES: u64 = 32 << 10;
/// Piece in which a log is read, and in which a reader looks for a new head.
const READ_BYTES: usize = 64 << 10;
const PEEK_BYTES: usize = 4 << 10;
/// How often to look again when segments vanish while they are looked at.
const RETRIES_MAX: usize = 16;

/// One branch.
#[derive(Debug)]
pub(super) struct Log {
    name: String,
    dir: PathBuf,
    medium: Arc<Medium>,
    segment_bytes: u64,
    writable: bool,
    /// The newest segment. Held while writing, or while a reader catches up.
    active: Mutex<Active>,
    view: RwLock<View>,
}

#[derive(Debug)]
struct Active {
    number: u64,
    path: PathBuf,
    file: Arc<dyn VfsFile>,
    salt: u32,
    /// End of the last good frame.
    offset: u64,
    /// End of the zeros prepared.
    room: u64,
}

/// What has been acknowledged, or seen by a reader.
#[derive(Clone, Debug)]
struct View {
    state: BranchState,
    /// Oldest first; never empty.
    segments: Vec<Segment>,
    /// Places in the newest segment, rising.
    points: Vec<Point>,
}

#[derive(Clone, Copy, Debug)]
struct Segment {
    number: u64,
    /// Entries in it have this number or a higher one.
    first: u64,
}

#[derive(Clone, Copy, Debug)]
struct Point {
    first: u64,
    offset: u64,
}

/// A segment just read up to its last good frame.
struct Loaded {
    active: Active,
    first: u64,
    state: BranchState,
    points: Vec<Point>,
}

impl Log {
    /// Opens the log in `dir`; `None` if there is none yet.
    pub(super) fn open(
        medium: Arc<Medium>,
        dir: PathBuf,
        name: &str,
        segment_bytes: u64,
        writable: bool,
    ) -> Result<Option<Self>, StoreError> {
        if writable {
            for file in list(&medium, &dir)?.iter().filter(|file| file.ends_with(".tmp")) {
                medium.discard(&dir.join(file));
            }
            medium.sync_dir(&dir)?;
        }
        let Some((active, view)) = load(&medium, &dir, writable)? else { return Ok(None) };
        let name = name.to_owned();
        let log = Self {
            name,
            dir,
            medium,
            segment_bytes,
            writable,
            active: Mutex::new(active),
            view: RwLock::new(view),
        };
        if writable {
            log.recover()?;
        }
        Ok(Some(log))
    }

    /// Makes the first segment of a branch that does not exist yet.
    pub(super) fn create(
        medium: Arc<Medium>,
        dir: PathBuf,
        name: &str,
        segment_bytes: u64,
    ) -> Result<Self, StoreError> {
        medium.vfs.create_dir(&dir).map_err(|error| failed("create folder", &dir, error))?;
        if let Some(parent) = dir.parent() {
            medium.sync_dir(parent)?;
        }
        let active = begin(&medium, &dir, 1, &BranchState::NONE)?;
        let segments = vec![Segment { number: 1, first: 0 }];
        let view = View { state: BranchState::NONE, segments, points: Vec::new() };
        Ok(Self {
            name: name.to_owned(),
            dir,
            medium,
            segment_bytes,
            writable: true,
            active: Mutex::new(active),
            view: RwLock::new(view),
        })
    }

    /// The head as last acknowledged or seen.
    pub(super) fn head(&self) -> Option<Head> {
        let view = self.view.read();
        view.state.exists.then(|| view.state.head.clone())
    }

    /// Fails unless the branch is as expected.
    pub(super) fn check(&self, expected: Expect) -> Result<(), StoreError> {
        let found = self.head().map(|head| head.revision);
        if expected.holds(found) {
            return Ok(());
        }
        Err(StoreError::Conflict { branch: self.name.clone(), expected, found })
    }

    /// Writes the frame of this batch; its blocks are durable already.
    pub(super) fn append(&self, batch: &Batch) -> Result<Head, StoreError> {
        let mut active = self.active.lock();
        self.medium.check()?;
        self.check(batch.expect)?;
        let head = batch.step(Some(&self.view.read().state.head));
        let frame = Frame {
            exists: true,
            revision: head.revision,
            log_start: head.log.start,
            first: head.log.end.saturating_sub(batch.entries.len() as u64),
            record: batch.record.clone(),
            entries: batch.entries.clone(),
        };
        self.write(&mut active, &frame)?;
        Ok(head)
    }

    /// Ends the branch if it has this revision; its numbers live on in a short segment.
    pub(super) fn delete(&self, revision: u64) -> Result<(), StoreError> {
        let mut active = self.active.lock();
        self.medium.check()?;
        self.check(Expect::Revision(revision))?;
        let end = self.view.read().state.head.log.end;
        let frame = Frame {
            exists: false,
            revision: revision + 1,
            log_start: end,
            first: end,
            record: Some(Bytes::new()),
            entries: Vec::new(),
        };
        self.write(&mut active, &frame)?;
        self.roll(&mut active)
    }

    /// Waits for a write that is under way.
    pub(super) fn settle(&self) {
        drop(self.active.lock());
    }

    /// Gives back the room of dropped entries.
    pub(super) fn trim(&self) -> Result<(), StoreError> {
        let mut active = self.active.lock();
        self.medium.check()?;
        let stale = {
            let view = self.view.read();
            let first = view.segments.last().map_or(0, |segment| segment.first);
            first < view.state.head.log.start && active.offset > ROOM_MIN
        };
        if stale {
            self.roll(&mut active)?;
        }
        self.drop_segments();
        Ok(())
    }

    /// One write and one sync: this is all a small commit costs.
    fn write(&self, active: &mut Active, frame: &Frame) -> Result<(), StoreError> {
        let state = frame
            .apply(&self.view.read().state)
            .ok_or_else(|| corrupt(&active.path, active.offset, "commit does not follow"))?;
        let mut bytes = frame.encode(active.salt);
        let used = active.offset + bytes.len() as u64;
        if used > self.segment_bytes && !self.view.read().points.is_empty() {
            self.roll(active)?;
            bytes = frame.encode(active.salt);
        }
        let end = active.offset + bytes.len() as u64;
        // A large frame makes its own room: with its bytes, the change of metadata costs little.
        if (bytes.len() as u64) < LARGE_BYTES {
            self.prepare(active, end)?;
        }
        if let Err(error) = self.medium.write(&*active.file, &bytes, active.offset, &active.path) {
            // A frame cut short cannot pass for a whole one, but the next may be shorter than what
            // this one left behind.
            return match self.erase(active) {
                Ok(()) => Err(error),
                Err(_) => {
                    let cause = std::io::Error::other(error.to_string());
                    Err(self.medium.poison("write", &active.path, &cause))
                }
            };
        }
        self.medium.sync(&*active.file, &active.path)?;
        let mut view = self.view.write();
        let far = |point: &Point| active.offset >= point.offset + POINT_BYTES;
        if view.points.last().is_none_or(far) {
            view.points.push(Point { first: frame.first, offset: active.offset });
        }
        view.state = state;
        active.offset = end;
        active.room = active.room.max(end);
        Ok(())
    }

    /// Overwrites all behind the last good frame.
    fn erase(&self, active: &Active) -> Result<(), StoreError> {
        let (file, path) = (&*active.file, &active.path);
        let end = file.len().map_err(|error| failed("measure", path, error))?;
        write_zeros(&self.medium, file, path, active.offset, end)
    }

    /// Makes durable zeros up to `end` and some more, so that a commit changes no metadata.
    fn prepare(&self, active: &mut Active, end: u64) -> Result<(), StoreError> {
        if end <= active.room {
            return Ok(());
        }
        let step = active.room.clamp(ROOM_MIN, ROOM_MAX);
        let room = (active.room + step).max(end);
        write_zeros(&self.medium, &*active.file, &active.path, active.room, room)?;
        self.medium.sync(&*active.file, &active.path)?;
        active.room = room;
        Ok(())
    }

    /// Begins a new segment and drops the old ones that hold nothing any more.
    fn roll(&self, active: &mut Active) -> Result<(), StoreError> {
        let state = self.view.read().state.clone();
        *active = begin(&self.medium, &self.dir, active.number + 1, &state)?;
        let mut view = self.view.write();
        view.segments.push(Segment { number: active.number, first: state.head.log.end });
        view.points.clear();
        drop(view);
        self.drop_segments();
        Ok(())
    }

    fn drop_segments(&self) {
        let mut view = self.view.write();
        let start = view.state.head.log.start;
        // A segment is needed while the next one begins after the start of the log.
        let needed = view.segments.iter().skip(1).take_while(|next| next.first <= start).count();
        let dropped: Vec<Segment> = view.segments.drain(..needed).collect();
        drop(view);
        // Oldest first: a reader that misses its own segment knows that it must look anew.
        for segment in dropped {
            self.medium.discard(&segment_path(&self.dir, segment.number));
        }
    }

    /// Cuts off what an unacknowledged write left, and makes sure of the last frame: it may have
    /// been read from memory that never reached the medium.
    fn recover(&self) -> Result<(), StoreError> {
        let mut active = self.active.lock();
        let active = &mut *active;
        let revision = self.view.read().state.head.revision;
        let (file, path) = (&*active.file, &active.path);
        let tail = inspect_tail(file, path, active.salt, active.offset, revision)?;
        if let Tail::Torn(end) = tail {
            tracing::warn!(path = %path.display(), offset = active.offset, end, "cut torn write");
            write_zeros(&self.medium, file, path, active.offset, end)?;
        }
        let from = self.view.read().points.last().map_or(0, |point| point.offset);
        let mut bytes = vec![0; active.offset.saturating_sub(from) as usize];
        let read = super::vfs::read_full(file, &mut bytes, from)
            .map_err(|error| failed("read", path, error))?;
        bytes.truncate(read);
        self.medium.write(file, &bytes, from, path)?;
        self.medium.sync(file, path)
    }

    /// Reads on from where the last look ended, over new segments too. For readers.
    pub(super) fn refresh(&self) -> Result<(), StoreError> {
        let mut active = self.active.lock();
        for _ in 0..RETRIES_MAX {
            if self.advance(&mut active)? {
                continue;
            }
            let next = segment_path(&self.dir, active.number + 1);
            let exists = |path: &Path| {
                self.medium.vfs.exists(path).map_err(|error| failed("look for", path, error))
            };
            if !exists(&next)? && exists(&active.path)? {
                return Ok(());
            }
            // What was written before the next segment was made is visible now.
            self.advance(&mut active)?;
            match load(&self.medium, &self.dir, false) {
                Ok(Some((newest, view))) => {
                    let mut known = self.view.write();
                    if view.state.head.revision >= known.state.head.revision {
                        *known = view;
                        *active = newest;
                    }
                    return Ok(());
                }
                Ok(None) => {
                    let branch = self.name.clone();
                    return Err(StoreError::NoBranch { branch });
                }
                Err(error) if is_gone(&error) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Takes in frames behind the last one known; says if there was one.
    fn advance(&self, active: &mut Active) -> Result<bool, StoreError> {
        let file = Arc::clone(&active.file);
        let path = active.path.clone();
        let mut frames = Frames::new(&file, &path, active.salt, active.offset, PEEK_BYTES);
        let mut moved = false;
        loop {
            let (frame, start) = match frames.next()? {
                Step::Frame(frame, start) => (frame, start),
                Step::End => break,
                Step::Torn => {
                    let revision = self.view.read().state.head.revision;
                    match frames.settle(revision)? {
                        Some(finished) => finished,
                        None => break,
                    }
                }
            };
            let mut view = self.view.write();
            view.state = frame
                .apply(&view.state)
                .ok_or_else(|| corrupt(&path, start, "commit does not follow the one before"))?;
            if view.points.last().is_none_or(|point| start >= point.offset + POINT_BYTES) {
                view.points.push(Point { first: frame.first, offset: start });
            }
            active.offset = frames.offset;
            moved = true;
        }
        Ok(moved)
    }

    /// Entries from `from` on, at least one if there is one, then as many as fit.
    pub(super) fn entries(&self, from: u64, max_bytes: usize) -> Result<Vec<Bytes>, StoreError> {
        let mut gone = None;
        for _ in 0..RETRIES_MAX {
            let view = self.view.read().clone();
            if !view.state.exists {
                return Err(StoreError::NoBranch { branch: self.name.clone() });
            }
            let log = view.state.head.log.clone();
            if from < log.start {
                let branch = self.name.clone();
                return Err(StoreError::LogGone { branch, from, start: log.start });
            }
            if from >= log.end {
                return Ok(Vec::new());
            }
            match self.scan(&view, from, max_bytes) {
                Err(error) if is_gone(&error) => gone = Some(error),
                scanned => return scanned,
            }
            // Truncated meanwhile; a reader learns so by looking.
            if !self.writable {
                self.refresh()?;
            }
        }
        Err(gone.unwrap_or_else(|| corrupt(&self.dir, 0, "log segment is missing")))
    }

    fn scan(&self, view: &View, from: u64, max_bytes: usize) -> Result<Vec<Bytes>, StoreError> {
        let head = &view.state.head;
        let begun = view.segments.partition_point(|segment| segment.first <= from);
        let mut wanted = from;
        let mut room = max_bytes;
        let mut entries: Vec<Bytes> = Vec::new();
        for (n, segment) in view.segments.iter().enumerate().skip(begun.saturating_sub(1)) {
            let path = segment_path(&self.dir, segment.number);
            let file = self.medium.vfs.open(&path).map_err(|error| failed("open", &path, error))?;
            let header = Header::read(&*file, &path)?;
            let mut start = header.end;
            if n + 1 == view.segments.len() {
                let known = view.points.partition_point(|point| point.first <= wanted);
                if let Some(point) = known.checked_sub(1).and_then(|n| view.points.get(n)) {
                    start = point.offset;
                }
            }
            let mut frames = Frames::new(&file, &path, header.salt, start, READ_BYTES);
            while let Step::Frame(frame, _) = frames.next()? {
                if frame.revision > head.revision {
                    break;
                }
                let numbers = frame.first..;
                for (number, entry) in numbers.zip(frame.entries) {
                    if number < wanted {
                        continue;
                    }
                    if number > wanted {
                        return Err(corrupt(&path, frames.offset, "log entry is missing"));
                    }
                    if !entries.is_empty() && entry.len() > room {
                        return Ok(entries);
                    }
                    room = room.saturating_sub(entry.len());
                    entries.push(entry);
                    wanted += 1;
                }
                if wanted >= head.log.end || (room == 0 && !entries.is_empty()) {
                    return Ok(entries);
                }
            }
            let next = view.segments.get(n + 1).map_or(head.log.end, |next| next.first);
            if wanted < next {
                return Err(corrupt(&path, frames.offset, "log segment ends too early"));
            }
        }
        Ok(entries)
    }

    /// Bytes and number of the segments.
    pub(super) fn sizes(&self) -> Result<(u64, u64), StoreError> {
        let segments = self.view.read().segments.clone();
        let mut bytes = 0;
        for segment in &segments {
            let path = segment_path(&self.dir, segment.number);
            match self.medium.vfs.open(&path).and_then(|file| file.len()) {
                Ok(length) => bytes += length,
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
                Err(error) => return Err(failed("measure", &path, error)),
            }
        }
        Ok((bytes, segments.len() as u64))
    }
}

/// Makes an empty segment and gives it its name, durably.
fn begin(
    medium: &Medium,
    dir: &Path,
    number: u64,
    state: &BranchState,
) -> Result<Active, StoreError> {
    let path = segment_path(dir, number);
    let temporary = path.with_extension("tmp");
    // Random, so that nobody who chooses entries can also choose what passes for a frame.
    let (salt, ..) = Uuid::new_v4().as_fields();
    let header = Header::encode(number, salt, state);
    let offset = header.len() as u64;
    let room = first_room(offset);
    let file =
        medium.vfs.create(&temporary).map_err(|error| failed("create", &temporary, error))?;
    let written = medium
        .write(&*file, &header, 0, &temporary)
        .and_then(|()| write_zeros(medium, &*file, &temporary, offset, room))
        .and_then(|()| medium.publish(&*file, &temporary, &path));
    if let Err(error) = written {
        medium.discard(&temporary);
        return Err(error);
    }
    Ok(Active { number, path, file, salt, offset, room })
}

/// Length of a segment when it gets its name. It never shrinks.
fn first_room(header_end: u64) -> u64 {
    header_end.next_multiple_of(4096) + ROOM_MIN
}

fn write_zeros(
    medium: &Medium,
    file: &dyn VfsFile,
    path: &Path,
    from: u64,
    to: u64,
) -> Result<(), StoreError> {
    let zeros = vec![0; ROOM_MIN as usize];
    let mut at = from;
    while at < to {
        let length = ((to - at) as usize).min(zeros.len());
        medium.write(file, zeros.get(..length).unwrap_or_default(), at, path)?;
        at += length as u64;
    }
    Ok(())
}

fn load(medium: &Medium, dir: &Path, writable: bool) -> Result<Option<(Active, View)>, StoreError> {
    let mut numbers: Vec<u64> =
        list(medium, dir)?.iter().filter_map(|name| segment_number(name)).collect();
    numbers.sort_unstable();
    let Some((newest, older)) = numbers.split_last() else { return Ok(None) };
    let mut segments = Vec::with_capacity(numbers.len());
    for number in older {
        let path = segment_path(dir, *number);
        let file = medium.vfs.open(&path).map_err(|error| failed("open", &path, error))?;
        let header = Header::read(&*file, &path)?;
        segments.push(Segment { number: *number, first: header.state.head.log.end });
    }
    let loaded = load_segment(medium, dir, *newest, writable)?;
    segments.push(Segment { number: *newest, first: loaded.first });
    let rising = segments.windows(2).all(|pair| match pair {
        [a, b] => a.number + 1 == b.number && a.first <= b.first,
        _ => true,
    });
    if !rising {
        return Err(corrupt(dir, 0, "log segments do not follow on each other"));
    }
    let view = View { state: loaded.state, segments, points: loaded.points };
    Ok(Some((loaded.active, view)))
}

fn load_segment(
    medium: &Medium,
    dir: &Path,
    number: u64,
    writable: bool,
) -> Result<Loaded, StoreError> {
    let path = segment_path(dir, number);
    let file = if writable { medium.vfs.open_write(&path) } else { medium.vfs.open(&path) };
    let file = file.map_err(|error| failed("open", &path, error))?;
    let header = Header::read(&*file, &path)?;
    if header.number != number {
        return Err(corrupt(&path, 0, "segment has another number than its name"));
    }
    let first = header.state.head.log.end;
    let mut state = header.state;
    let mut points: Vec<Point> = Vec::new();
    let mut frames = Frames::new(&file, &path, header.salt, header.end, READ_BYTES);
    loop {
        let (frame, start) = match frames.next()? {
            Step::Frame(frame, start) => (frame, start),
            Step::End | Step::Torn => match frames.settle(state.head.revision)? {
                Some(finished) => finished,
                None => break,
            },
        };
        state = frame
            .apply(&state)
            .ok_or_else(|| corrupt(&path, start, "commit does not follow the one before"))?;
        if points.last().is_none_or(|point| start >= point.offset + POINT_BYTES) {
            points.push(Point { first: frame.first, offset: start });
        }
    }
    let offset = frames.offset;
    let room = file.len().map_err(|error| failed("measure", &path, error))?;
    if room < first_room(header.end) {
        return Err(corrupt(&path, room, "segment is cut short"));
    }
    let active = Active { number, path, file, salt: header.salt, offset, room };
    Ok(Loaded { active, first, state, points })
}

fn list(medium: &Medium, dir: &Path) -> Result<Vec<String>, StoreError> {
    medium.vfs.list(dir).map_err(|error| failed("list", dir, error))
}

fn segment_path(dir: &Path, number: u64) -> PathBuf {
    dir.join(format!("{number:016x}.log"))
}

fn segment_number(name: &str) -> Option<u64> {
    let digits = name.strip_suffix(".log").filter(|digits| digits.len() == 16)?;
    u64::from_str_radix(digits, 16).ok()
}
