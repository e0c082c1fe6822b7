//! Mirrors into stores of the test's own: full disks, and mirrors that are killed half way.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use async_trait::async_trait;
use bytes::Bytes;
use datahike::config::Secret;
use datahike::kabel::{Client, Remote};
use datahike::mirror::{Resets, StoreReplica};
use datahike::{Blocks, Uuid, Value};
use datahike_peer::{Peer, TokioRuntime};
use datahike_scope::Scope;
use datahike_store::file::simulated::{Fault, SimulatedDisk};
use datahike_store::{FileOptions, FileStore, MemoryStore, Store};
use datahike_sync::{
    Address, Database, Derived, FlushPoint, Fold, Have, Head, Identity, Mirror, Mode, Point,
    Replica, ReplicaError, Reset, Shape, StoreName, SubscriberOptions, SyncLayer,
};

use crate::setting::{Server, TOKEN, Wire, form, soon};

/// A client whose layers can be reached.
struct Bare {
    sync: SyncLayer,
    remote: Remote,
}

impl Bare {
    fn new(url: &str) -> Self {
        let (sync, scope) = (SyncLayer::new(), Scope::new());
        let peer = Peer::builder(None, Arc::new(TokioRuntime::current()))
            .layer(sync.clone())
            .layer(scope.clone())
            .build();
        let client = Client::of(peer, scope, sync.clone());
        Self { sync, remote: client.connect(url, Some(&Secret::new(TOKEN))) }
    }

    fn mirror(&self, replica: Arc<dyn Replica>, id: Uuid, window: u64) -> Mirror {
        let database = Database { store: StoreName::Id(id), branch: "db".to_owned() };
        let options = SubscriberOptions { database, mode: Mode::Full, window };
        self.sync.mirror(self.remote.link().clone(), replica, options)
    }
}

async fn replica(store: impl Store + 'static) -> Arc<StoreReplica> {
    let blocks = Arc::new(Blocks::new(Arc::new(store), 64 << 20));
    Arc::new(StoreReplica::open(blocks, "db", Resets::Follow).await.unwrap())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_mirror_whose_disk_is_full_stops_and_goes_on_when_there_is_room() {
    let server_folder = tempfile::tempdir().unwrap();
    let server = Server::start(server_folder.path()).await;
    let id = Uuid::from_u128(10);
    let served = server.create(id).await;
    served.transact(form("[{:n 1}]")).await.unwrap();
    let disk = SimulatedDisk::new();
    let files = || FileOptions { vfs: Arc::new(disk.clone()), segment_bytes: 4 << 20 };
    let store = FileStore::create("/mirror", files()).unwrap();
    let copy = replica(store.clone()).await;
    let client = Bare::new(&server.url());
    let mirror = client.mirror(copy.clone(), id, 1 << 20);
    soon(mirror.synced()).await.unwrap();

    disk.fail(disk.operations(), Fault::Full);
    served.transact(form("[{:n 2}]")).await.unwrap();
    let stopped = soon(mirror.reached(u64::MAX)).await.unwrap_err();
    assert!(stopped.to_string().contains("append to its log"), "{stopped}");
    assert!(disk.failed());
    served.transact(form("[{:n 3}]")).await.unwrap();
    drop((mirror, copy));
    store.close().await.unwrap();

    let store = FileStore::open("/mirror", files()).unwrap();
    let copy = replica(store).await;
    assert!(copy.branch().await.unwrap().snapshot().at.seq < served.snapshot().at.seq);
    let mirror = client.mirror(copy.clone(), id, 1 << 20);
    soon(mirror.synced()).await.unwrap();
    let snapshot = copy.branch().await.unwrap().snapshot();
    assert_eq!(snapshot.at, served.snapshot().at);
    assert!(snapshot.db.same_datoms(&served.db()).unwrap());
    mirror.stop().await;
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_mirror_showed_and_a_crash_took_comes_again() {
    let server_folder = tempfile::tempdir().unwrap();
    let server = Server::start(server_folder.path()).await;
    let id = Uuid::from_u128(12);
    let served = server.create(id).await;
    served.transact(form("[{:n 0}]")).await.unwrap();
    let disk = SimulatedDisk::new();
    let files =
        |disk: &SimulatedDisk| FileOptions { vfs: Arc::new(disk.clone()), segment_bytes: 4 << 20 };
    let store = FileStore::create("/mirror", files(&disk)).unwrap();
    let copy = replica(store.clone()).await;
    let client = Bare::new(&server.url());
    let mirror = client.mirror(copy.clone(), id, 1 << 20);
    soon(mirror.synced()).await.unwrap();
    let mut crashed = Vec::new();
    for n in 1..=30 {
        served.transact(form(&format!("[{{:n {n}}}]"))).await.unwrap();
        if n == 20 {
            served.flush().await.unwrap();
        }
        soon(mirror.reached(served.snapshot().at.seq)).await.unwrap();
        crashed.push(disk.after_power_loss(n));
    }
    assert!(disk.operations() < 30 * 8, "each commit was synced by itself");
    soon(mirror.stop()).await;
    let stopped = disk.after_power_loss(0);
    store.close().await.unwrap();
    let at = |copy: Arc<StoreReplica>| async move { copy.branch().await.unwrap().snapshot().at };
    let complete = at(replica(FileStore::open("/mirror", files(&stopped)).unwrap()).await).await;
    assert_eq!(complete, served.snapshot().at, "a mirror that was stopped keeps what it showed");

    let mut lost = 0;
    for disk in crashed.iter().step_by(3) {
        let copy = replica(FileStore::open("/mirror", files(disk)).unwrap()).await;
        let began = at(copy.clone()).await;
        assert!(began.seq <= complete.seq, "{began:?}");
        lost += complete.seq - began.seq;
        let client = Bare::new(&server.url());
        let mirror = client.mirror(copy.clone(), id, 1 << 20);
        soon(mirror.synced()).await.unwrap();
        let snapshot = copy.branch().await.unwrap().snapshot();
        assert_eq!(snapshot.at, complete);
        assert!(snapshot.db.same_datoms(&served.db()).unwrap());
        mirror.stop().await;
    }
    assert!(lost > 0);
    server.stop().await;
}

/// A replica that dies after so many pieces of a transfer.
struct Dying(Arc<StoreReplica>, AtomicUsize);

#[async_trait]
impl Replica for Dying {
    async fn have(&self) -> Result<Have, ReplicaError> {
        self.0.have().await
    }

    async fn append(&self, first: u64, entries: Vec<Bytes>) -> Result<Point, ReplicaError> {
        self.0.append(first, entries).await
    }

    async fn apply_batch(&self, to: Point, bytes: Bytes) -> Result<(), ReplicaError> {
        self.0.apply_batch(to, bytes).await
    }

    async fn save(&self) -> Result<(), ReplicaError> {
        self.0.save().await
    }

    async fn apply_difference(&self, to: FlushPoint, bytes: Bytes) -> Result<Fold, ReplicaError> {
        self.0.apply_difference(to, bytes).await
    }

    async fn fold(&self, flush: FlushPoint) -> Result<Fold, ReplicaError> {
        self.0.fold(flush).await
    }

    async fn begin(&self, of: Identity, shape: Shape, to: FlushPoint) -> Result<(), ReplicaError> {
        self.0.begin(of, shape, to).await
    }

    fn verify(&self, address: &Address, bytes: &[u8]) -> bool {
        self.0.verify(address, bytes)
    }

    async fn block(&self, address: &Address) -> Result<Option<Bytes>, ReplicaError> {
        self.0.block(address).await
    }

    async fn put(
        &self,
        blocks: Vec<(Address, Bytes)>,
        seeds: Option<u64>,
    ) -> Result<(), ReplicaError> {
        if self.1.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |n| n.checked_sub(1)).is_err() {
            return Err(ReplicaError::Store { action: "live", source: "killed".into() });
        }
        self.0.put(blocks, seeds).await
    }

    async fn lacks(&self, addresses: Vec<Address>) -> Result<Vec<Address>, ReplicaError> {
        self.0.lacks(addresses).await
    }

    async fn derive(&self, flush: FlushPoint) -> Result<Derived, ReplicaError> {
        self.0.derive(flush).await
    }

    async fn adopt(&self, flush: FlushPoint) -> Result<Head, ReplicaError> {
        self.0.adopt(flush).await
    }

    async fn reset(&self, reason: Reset) -> Result<(), ReplicaError> {
        self.0.reset(reason).await
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_first_transfer_that_was_interrupted_is_not_begun_anew() {
    let (server_folder, folder) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let server = Server::start(server_folder.path()).await;
    let id = Uuid::from_u128(11);
    let served = server.create(id).await;
    let many: Vec<Value> = (0..40_000_u64)
        .map(|n| form(&format!("{{:n {n} :s \"{:x}\"}}", n.wrapping_mul(0x9e37_79b9_7f4a_7c15))))
        .collect();
    served.transact(Value::vector(many)).await.unwrap();
    served.flush().await.unwrap();
    let wire = Wire::to(&server).await;
    let place = folder.path().join("mirror");
    let store = FileStore::create(&place, FileOptions::default()).unwrap();
    let dying = Arc::new(Dying(replica(store.clone()).await, AtomicUsize::new(8)));
    let first = Bare::new(&wire.url());
    let mirror = first.mirror(dying.clone(), id, 32 << 10);
    let stopped = soon(mirror.synced()).await.unwrap_err();
    assert!(stopped.to_string().contains("killed"), "{stopped}");
    let have = dying.have().await.unwrap();
    assert!(have.head.is_none(), "half a snapshot can be read");
    let seeds = have.partial.unwrap().seeds;
    assert!(seeds > 0);
    first.remote.link().close();
    drop((mirror, dying));
    store.close().await.unwrap();

    // One window may have been on its way to the mirror that died.
    let transfer = async |copy: &Arc<StoreReplica>| {
        let before = wire.bytes();
        let client = Bare::new(&wire.url());
        let mirror = client.mirror(copy.clone(), id, 32 << 10);
        soon(mirror.synced()).await.unwrap();
        mirror.stop().await;
        let snapshot = copy.branch().await.unwrap().snapshot();
        assert!(snapshot.db.same_datoms(&served.db()).unwrap());
        wire.bytes() - before
    };
    let whole = transfer(&replica(MemoryStore::new()).await).await;
    let store = FileStore::open(&place, FileOptions::default()).unwrap();
    let rest = transfer(&replica(store).await).await;
    assert!(rest < whole * 9 / 10, "{rest} bytes after {seeds} seeds, {whole} in one go");
    server.stop().await;
}
