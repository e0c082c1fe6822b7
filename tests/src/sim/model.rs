//! The simulated network over a database of plain numbers.

use std::sync::Arc;

use bytes::Bytes;
use datahike_sync::{
    FlushPoint, Head, Identity, Mode, Point, Replica, Shape, Source,
    model::{ModelReplica, ModelSource, Seen, digest},
};
use rand::RngExt;
use rand_chacha::ChaCha8Rng;

use super::{Reading, Replicated, Site};

/// Keys are drawn from so many.
const KEYS: u32 = 500;

/// A server's database of numbers.
#[derive(Debug)]
pub struct ModelSite {
    source: ModelSource,
    backup: Option<datahike_sync::model::Backup>,
}

impl ModelSite {
    /// One with some content.
    pub fn new(rng: &mut ChaCha8Rng) -> Self {
        let identity = Identity { store: uuid(rng), epoch: rng.random_range(0..3) };
        let source = ModelSource::new(identity, Shape(Bytes::from_static(b"model-1")));
        source.set_batches(rng.random_bool(0.7));
        let mut site = Self { source, backup: None };
        if rng.random_bool(0.7) {
            let sets: Vec<(u32, u32)> = (0..KEYS).map(|key| (key, rng.random())).collect();
            site.source.commit(&sets, 0);
            site.flush();
        }
        site
    }
}

fn uuid(rng: &mut ChaCha8Rng) -> uuid::Uuid {
    uuid::Uuid::from_bytes(rng.random())
}

impl Site for ModelSite {
    fn source(&self) -> Arc<dyn Source> {
        Arc::new(self.source.clone())
    }

    fn commit(&mut self, rng: &mut ChaCha8Rng) -> (Point, Bytes) {
        let count = if rng.random_bool(0.03) { 200 } else { rng.random_range(1..4) };
        let sets: Vec<(u32, u32)> =
            (0..count).map(|_| (rng.random_range(0..KEYS), rng.random())).collect();
        // Now and then one that takes several payloads.
        let padding = if rng.random_bool(0.002) { 300_000 } else { 0 };
        self.source.commit(&sets, padding)
    }

    fn flush(&mut self) -> Option<FlushPoint> {
        self.source.flush()
    }

    fn collect(&mut self, rng: &mut ChaCha8Rng) {
        match rng.random_range(0..6) {
            0..3 => self.source.sweep(),
            3 => self.source.forget_past(),
            _ => self.source.cut_log(rng.random_range(0..20)),
        }
        if self.backup.is_none() || rng.random_bool(0.2) {
            self.backup = Some(self.source.back_up());
        }
    }

    fn restore(&mut self, _rng: &mut ChaCha8Rng) -> bool {
        if let Some(backup) = &self.backup {
            self.source.restore(backup);
        }
        self.backup.is_some()
    }

    fn head(&self) -> Head {
        self.source.head()
    }

    fn digest(&self, at: &Point) -> Option<[u8; 32]> {
        self.source.digest(at)
    }
}

/// A mirror of numbers.
#[derive(Debug)]
pub struct ModelMirror {
    replica: ModelReplica,
    mode: Mode,
}

impl ModelMirror {
    /// One of a random mode; some cannot make their own blocks.
    pub fn new(rng: &mut ChaCha8Rng) -> Self {
        let mode = match rng.random_range(0..6) {
            0 => Mode::Lazy,
            1 | 2 => Mode::Blocks,
            _ => Mode::Full,
        };
        let replica = if mode == Mode::Lazy { ModelReplica::lazy() } else { ModelReplica::new() };
        replica.set_folds_differ(mode == Mode::Full && rng.random_bool(0.2));
        Self { replica, mode }
    }

    /// One that loses commits now and then.
    pub fn forgetful(rng: &mut ChaCha8Rng) -> Self {
        let mirror = Self::new(rng);
        mirror.replica.forget_tails();
        mirror
    }
}

impl Replicated for ModelMirror {
    fn open(&mut self) -> Arc<dyn Replica> {
        Arc::new(self.replica.clone())
    }

    fn mode(&self) -> Mode {
        self.mode
    }

    fn read(&self) -> Result<Option<Reading>, String> {
        let Some(head) = self.replica.head() else { return Ok(None) };
        if self.mode == Mode::Lazy {
            return Ok(Some((head.at, None)));
        }
        let contents = self.replica.contents();
        let contents = contents.ok_or_else(|| format!("{head:?} cannot be read"))?;
        Ok(Some((head.at, Some(digest(&contents)))))
    }

    fn check(&self) -> Result<(), String> {
        let mut last: Option<Point> = None;
        for seen in self.replica.seen() {
            let follows = match (seen, last) {
                (Seen::Reset(_), _) => true,
                (Seen::Jump(at), Some(last)) => at.seq > last.seq,
                (Seen::Jump(_), None) => true,
                (Seen::Commit(at), Some(last)) => at.seq == last.seq + 1,
                (Seen::Commit(_), None) => false,
            };
            if !follows {
                return Err(format!("a listener saw {seen:?} after {last:?}"));
            }
            last = match seen {
                Seen::Commit(at) | Seen::Jump(at) => Some(at),
                Seen::Reset(_) => None,
            };
        }
        Ok(())
    }
}
