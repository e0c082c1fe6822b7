//! The simulated network over real databases: the server's is written by a connection over a store
//! in memory, the mirrors' are copies as a client keeps them. A crash leaves of each what its store
//! holds.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use datahike::commit::{Position, RequestId, public_part};
use datahike::core::index::{Index, Range};
use datahike::datom::Datom;
use datahike::mirror::{BranchSource, Resets, StoreReplica};
use datahike::store::{Batch, Expect, MemoryStore, Store, StoreIdentity};
use datahike::sync::{CommitId, FlushPoint, Head, Mode, Point, Replica, Source};
use datahike::{
    Blocks, Branch, BranchEvent, Config, Connection, Db, Keep, Observation, Transacted,
    Transaction, Uuid, Value, compact, connect_in, create_in, kw,
};
use futures::FutureExt;
use futures::executor::block_on;
use rand::RngExt;
use rand_chacha::ChaCha8Rng;

use super::{Reading, Replicated, Site};

const BRANCH: &str = "db";
/// Entities are drawn from so many.
const ENTITIES: i64 = 60;
/// 2026-01-01, milliseconds since the epoch: transactions say their instants, so that a seed is a
/// run.
const BEGINNING: i64 = 1_767_225_600_000;
const CACHE_BYTES: u64 = 1 << 20;

const SCHEMA: &str = "
    [{:db/ident :id   :db/valueType :db.type/long   :db/cardinality :db.cardinality/one
      :db/unique :db.unique/identity}
     {:db/ident :n    :db/valueType :db.type/long   :db/cardinality :db.cardinality/one}
     {:db/ident :text :db/valueType :db.type/string :db/cardinality :db.cardinality/many}]";

/// A server's database.
#[derive(Debug)]
pub struct DatabaseSite {
    store: MemoryStore,
    connection: Connection,
    /// A copy of the store, and how much was known of the past when it was made.
    backup: Option<MemoryStore>,
    client: Uuid,
    /// Transactions asked for, each under its number.
    requests: u64,
    /// The latest that was acknowledged.
    latest: Option<(Transaction, u64)>,
    instants: i64,
    digests: HashMap<Point, [u8; 32]>,
    /// Transactions that were acknowledged and not lost with a restore.
    acknowledged: HashSet<u64>,
}

/// The commits that a branch told of, in order.
#[derive(Debug)]
struct Observed {
    commits: Arc<Mutex<Vec<Position>>>,
    _observation: Observation,
}

impl Observed {
    fn of(branch: &Branch) -> Self {
        let commits: Arc<Mutex<Vec<Position>>> = Arc::default();
        let seen = commits.clone();
        let _observation = branch.observe(move |event| {
            if let (BranchEvent::Committed { at, .. }, Ok(mut seen)) = (event, seen.lock()) {
                seen.push(*at);
            }
        });
        Self { commits, _observation }
    }

    fn take(&self) -> Vec<Position> {
        self.commits.lock().map(|mut seen| std::mem::take(&mut *seen)).unwrap_or_default()
    }
}

fn config() -> Config {
    Config::memory()
}

fn handle(store: &MemoryStore) -> Arc<dyn Store> {
    Arc::new(store.handle())
}

fn uuid(rng: &mut ChaCha8Rng) -> Uuid {
    Uuid::from_bytes(rng.random())
}

fn point(at: Position) -> Point {
    Point { seq: at.seq, commit: CommitId(at.commit.0) }
}

/// Over every datom that is or was: what a snapshot says.
fn digest(blocks: &Blocks, db: &Db) -> Result<[u8; 32], String> {
    let range = Range::all(Index::Eavt);
    let datoms: Vec<Datom> = blocks
        .settle_now(|| db.indexes().history(&range).collect::<Result<_, _>>())
        .map_err(|error| error.to_string())?;
    let mut hasher = blake3::Hasher::new();
    for Datom { e, a, v, tx, added } in datoms {
        hasher.update(&e.to_le_bytes());
        hasher.update(&a.0.to_le_bytes());
        hasher.update(&tx.to_le_bytes());
        hasher.update(&[u8::from(added)]);
        match v {
            Value::Long(n) | Value::Inst(n) => hasher.update(&n.to_le_bytes()),
            other => hasher.update(other.to_string().as_bytes()),
        };
    }
    Ok(*hasher.finalize().as_bytes())
}

/// All of a store, in another one.
async fn copy(from: &MemoryStore, identity: StoreIdentity) -> MemoryStore {
    let copy = MemoryStore::with_identity(identity);
    let all = from.list(None, usize::MAX).await.unwrap_or_default();
    let addresses: Vec<_> = all.iter().map(|info| info.address).collect();
    let blocks = from.get(&addresses).await.unwrap_or_default();
    let mut batch = Batch::new(BRANCH, Expect::Absent);
    batch.blocks =
        addresses.into_iter().zip(blocks).filter_map(|(a, block)| Some((a, block?))).collect();
    if let Ok(Some(head)) = from.head(BRANCH).await {
        batch.entries = from.log(BRANCH, head.log.start, usize::MAX).await.unwrap_or_default();
        batch.log_start = Some(head.log.start);
        batch.record = Some(head.record);
    }
    if let Err(error) = copy.commit(batch).await {
        panic!("a store in memory cannot be copied: {error}");
    }
    copy
}

fn good<T>(what: &str, done: Result<T, datahike::Error>) -> T {
    match done {
        Ok(done) => done,
        Err(error) => panic!("cannot {what}: {error}"),
    }
}

impl DatabaseSite {
    /// One with some content.
    pub fn new(rng: &mut ChaCha8Rng) -> Self {
        let identity = StoreIdentity { id: uuid(rng), epoch: uuid(rng) };
        let store = MemoryStore::with_identity(identity);
        let seed = rng.random();
        let connection = block_on(async {
            let store = handle(&store);
            good("create", create_in(&store, &config(), seed).await);
            good("connect", connect_in(store, &config()).await)
        });
        let mut site = Self {
            store,
            connection,
            backup: None,
            client: uuid(rng),
            requests: 0,
            latest: None,
            instants: 0,
            digests: HashMap::new(),
            acknowledged: HashSet::new(),
        };
        site.digests.insert(site.head().at, site.digest_now());
        let schema = datahike::edn::read(SCHEMA);
        site.transact(schema.unwrap_or_default());
        for _ in 0..rng.random_range(0..4) {
            site.commit(rng);
        }
        if rng.random_bool(0.7) {
            site.flush();
        }
        site
    }

    fn transact(&mut self, data: Value) -> (Point, Bytes) {
        self.requests += 1;
        self.instants += 1;
        let request = RequestId { client: self.client, number: self.requests };
        let meta =
            Value::map([(kw!("db/txInstant").into(), Value::Inst(BEGINNING + self.instants))]);
        let transaction = Transaction { meta, request: Some(request), ..Transaction::new(data) };
        let done = block_on(self.connection.transact_with(transaction.clone()));
        let Transacted::Now(report) = good("transact", done) else {
            panic!("request {} happened before it was sent", self.requests);
        };
        assert!(self.acknowledged.insert(report.tx), "two transactions have one id");
        self.latest = Some((transaction, report.tx));
        good("show a transaction", block_on(self.connection.sync(report.tx)));
        let snapshot = self.connection.snapshot();
        let number = snapshot.head.log_number(snapshot.at.seq - 1);
        let entries = block_on(self.store.log(BRANCH, number, usize::MAX)).unwrap_or_default();
        let [entry] = &entries[..] else {
            panic!("one transaction made {} entries", entries.len());
        };
        let public = match public_part(entry) {
            Ok(public) => entry.slice_ref(public),
            Err(error) => panic!("the server's log cannot be read: {error}"),
        };
        self.digests.insert(point(snapshot.at), self.digest_now());
        (point(snapshot.at), public)
    }

    fn digest_now(&self) -> [u8; 32] {
        let db = self.connection.snapshot().db.clone();
        match digest(self.connection.branch().blocks(), &db) {
            Ok(digest) => digest,
            Err(error) => panic!("the server cannot read its database: {error}"),
        }
    }

    /// Opens what the store holds, as a process does that has just started.
    fn open(&mut self) {
        let connection = block_on(connect_in(handle(&self.store), &config()));
        self.connection = good("connect", connection);
    }

    fn flush_point(&self) -> FlushPoint {
        self.head().flush
    }
}

impl Site for DatabaseSite {
    fn source(&self) -> Arc<dyn Source> {
        Arc::new(BranchSource::new(self.connection.branch().clone()))
    }

    fn commit(&mut self, rng: &mut ChaCha8Rng) -> (Point, Bytes) {
        let count = if rng.random_bool(0.03) { 40 } else { rng.random_range(1..4) };
        let first = rng.random_range(0..ENTITIES);
        let long = rng.random_bool(0.002);
        let entity = |n: i64| {
            let id = (first + n * 7) % ENTITIES;
            let text =
                if long && n == 0 { "x".repeat(300_000) } else { format!("text {}", id % 9) };
            Value::map([
                (kw!("id").into(), id.into()),
                (kw!("n").into(), rng.random_range(0..1000_i64).into()),
                (kw!("text").into(), text.as_str().into()),
            ])
        };
        let data: Vec<Value> = (0..count).map(entity).collect();
        self.transact(Value::vector(data))
    }

    fn flush(&mut self) -> Option<FlushPoint> {
        let before = self.flush_point();
        good("flush", block_on(self.connection.flush()));
        Some(self.flush_point()).filter(|after| *after != before)
    }

    fn collect(&mut self, rng: &mut ChaCha8Rng) {
        if rng.random_bool(0.5) {
            good("compact", block_on(compact(&self.connection, Keep::default())));
        }
        if self.backup.is_none() || rng.random_bool(0.2) {
            self.backup = Some(block_on(copy(&self.store, self.store.identity())));
        }
    }

    fn restore(&mut self, rng: &mut ChaCha8Rng) -> bool {
        let Some(backup) = &self.backup else { return false };
        let identity = StoreIdentity { epoch: uuid(rng), ..backup.identity() };
        self.store = block_on(copy(backup, identity));
        self.open();
        let newest = self.connection.snapshot().db.max_tx();
        self.acknowledged.retain(|tx| *tx <= newest);
        // What was asked for last is lost, or there: to ask again would be right either way.
        self.latest = None;
        self.client = uuid(rng);
        true
    }

    fn restart(&mut self) {
        let before = self.head();
        self.open();
        assert_eq!(self.head().at, before.at, "a restart lost or made commits");
        assert_eq!(self.digests.get(&before.at), Some(&self.digest_now()), "a restart lost datoms");
        // A client that heard no answer asks again.
        if let Some((transaction, tx)) = self.latest.clone() {
            match good("ask again", block_on(self.connection.transact_with(transaction))) {
                Transacted::Before(remembered) => assert_eq!(remembered.tx, tx),
                Transacted::Now(_) => panic!("transaction {tx} happened twice"),
            }
            assert_eq!(self.head().at, before.at, "a request that came again made a commit");
        }
    }

    fn head(&self) -> Head {
        let source = BranchSource::new(self.connection.branch().clone());
        match block_on(source.state()) {
            Ok(state) => state.head,
            Err(error) => panic!("the server does not know its state: {error}"),
        }
    }

    fn digest(&self, at: &Point) -> Option<[u8; 32]> {
        self.digests.get(at).copied()
    }
}

/// A mirror as a client keeps it.
#[derive(Debug)]
pub struct DatabaseMirror {
    store: MemoryStore,
    mode: Mode,
    replica: Option<Arc<StoreReplica>>,
    blocks: Option<Arc<Blocks>>,
    seen: Mutex<Seen>,
}

/// What a listener to the branch has heard.
#[derive(Debug, Default)]
struct Seen {
    branch: Option<Arc<Branch>>,
    observed: Option<Observed>,
    last: u64,
    /// What was read last, and at which commit over which flush.
    read: Option<(Position, Position, [u8; 32])>,
}

impl DatabaseMirror {
    /// An empty one.
    pub fn new(rng: &mut ChaCha8Rng) -> Self {
        let store = MemoryStore::with_identity(StoreIdentity { id: uuid(rng), epoch: uuid(rng) });
        let mode = if rng.random_bool(0.75) { Mode::Full } else { Mode::Blocks };
        Self { store, mode, replica: None, blocks: None, seen: Mutex::default() }
    }
}

impl Replicated for DatabaseMirror {
    fn open(&mut self) -> Arc<dyn Replica> {
        let blocks = Arc::new(Blocks::new(handle(&self.store), CACHE_BYTES));
        let opened = block_on(StoreReplica::open(blocks.clone(), BRANCH, Resets::Follow));
        let replica = Arc::new(good("open a mirror", opened));
        self.replica = Some(replica.clone());
        self.blocks = Some(blocks);
        self.seen = Mutex::default();
        replica
    }

    fn mode(&self) -> Mode {
        self.mode
    }

    fn read(&self) -> Result<Option<Reading>, String> {
        let (Some(replica), Some(blocks)) = (&self.replica, &self.blocks) else { return Ok(None) };
        let Some(branch) = replica.branch().now_or_never() else { return Ok(None) };
        let branch = branch.map_err(|error| error.to_string())?;
        let snapshot = branch.snapshot();
        let mut seen = self.seen.lock().map_err(|error| error.to_string())?;
        if seen.branch.as_ref().is_none_or(|known| !Arc::ptr_eq(known, &branch)) {
            let observed = Some(Observed::of(&branch));
            *seen = Seen { branch: Some(branch), observed, last: snapshot.at.seq, read: None };
        }
        let place = (snapshot.at, snapshot.head.flush);
        let digest = match &seen.read {
            Some((at, flush, digest)) if (*at, *flush) == place => *digest,
            _ => digest(blocks, &snapshot.db)?,
        };
        seen.read = Some((place.0, place.1, digest));
        Ok(Some((point(snapshot.at), Some(digest))))
    }

    fn was_reset(&mut self) {
        if let Ok(seen) = self.seen.get_mut() {
            // What was told of the history that is given up.
            drop(seen.observed.as_ref().map(Observed::take));
            seen.last = 0;
        }
    }

    fn check(&self) -> Result<(), String> {
        let mut seen = self.seen.lock().map_err(|error| error.to_string())?;
        let heard = seen.observed.as_ref().map(Observed::take).unwrap_or_default();
        for at in heard {
            if at.seq <= seen.last {
                return Err(format!("a listener heard of {at:?} after {}", seen.last));
            }
            seen.last = at.seq;
        }
        Ok(())
    }
}
