//! Whole peers on a simulated network: the layer, publishers and mirrors.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use datahike_peer::{
    Action, Anyone, Authorize, LinkOptions, Peer, Refusal, Wish,
    sim::{Network, World},
};
use datahike_sync::{
    Cause, Database, Identity, Mirror, Mode, Publisher, Shape, StoreName, SubscriberOptions,
    SyncError, SyncLayer,
    model::{ModelReplica, ModelSource},
};

struct Stage {
    world: World,
    network: Network,
    server: Peer,
    layer: SyncLayer,
    source: ModelSource,
    publisher: Option<Publisher>,
}

fn store() -> StoreName {
    StoreName::Name("numbers".into())
}

fn database() -> Database {
    Database { store: store(), branch: "db".into() }
}

#[derive(Debug)]
struct OnlyNumbers;

impl Authorize for OnlyNumbers {
    fn authorize(&self, wish: &Wish<'_>) -> Result<(), Refusal> {
        let numbers = wish.target.to_string().contains("numbers");
        match wish.action {
            Action::Subscribe if numbers => Ok(()),
            _ => Err(Refusal::new("peer/forbidden", "only numbers")),
        }
    }
}

impl Stage {
    fn new() -> Self {
        let world = World::new(11);
        let layer = SyncLayer::new();
        let server = Peer::builder(None, world.runtime())
            .authenticate(Anyone)
            .authorize(OnlyNumbers)
            .layer(layer.clone())
            .build();
        let network = Network::new(&world);
        network.listen("server", &server);
        let identity = Identity { store: uuid::Uuid::from_u128(1), epoch: 0 };
        let source = ModelSource::new(identity, Shape(Bytes::from_static(b"s")));
        let sets: Vec<(u32, u32)> = (0..3000).map(|key| (key, key)).collect();
        source.commit(&sets, 0);
        source.flush();
        let publisher = layer.serve([store()], "db", Arc::new(source.clone()));
        Self { world, network, server, layer, source, publisher: Some(publisher) }
    }

    fn mirror(&self, options: SubscriberOptions) -> (Peer, Mirror, ModelReplica) {
        let layer = SyncLayer::new();
        let peer = Peer::builder(None, self.world.runtime()).layer(layer.clone()).build();
        let link = peer.link(self.network.dial("server"), LinkOptions::default());
        let replica = match options.mode {
            Mode::Lazy => ModelReplica::lazy(),
            _ => ModelReplica::new(),
        };
        let mirror = layer.mirror(link, Arc::new(replica.clone()), options);
        (peer, mirror, replica)
    }

    fn commit(&self, sets: &[(u32, u32)]) {
        let (at, entry) = self.source.commit(sets, 0);
        self.publisher.as_ref().unwrap().committed(at, entry);
    }

    fn flush(&self) {
        let flush = self.source.flush().unwrap();
        self.publisher.as_ref().unwrap().flushed(flush);
    }

    fn reach(&self, mirror: &Mirror, replica: &ModelReplica) {
        let (waiting, seq) = (mirror.clone(), self.source.head().at.seq);
        self.world.block_on(async move { waiting.reached(seq).await }).unwrap();
        assert_eq!(replica.contents().unwrap(), self.source.contents());
    }
}

#[test]
fn mirrors_follow_over_reconnects() {
    let stage = Stage::new();
    let (_one, first, first_replica) = stage.mirror(SubscriberOptions::full(database()));
    let blocks = SubscriberOptions { mode: Mode::Blocks, ..SubscriberOptions::full(database()) };
    let (_two, second, second_replica) = stage.mirror(blocks);
    stage.reach(&first, &first_replica);
    stage.reach(&second, &second_replica);
    for round in 0..8u32 {
        for n in 0..50 {
            stage.commit(&[(n * 3, round * n)]);
        }
        stage.flush();
        stage.commit(&[(1, round)]);
        stage.reach(&first, &first_replica);
        stage.reach(&second, &second_replica);
        if round % 2 == 1 {
            stage.network.cut("server");
            stage.commit(&[(2, round)]);
        }
    }
    stage.world.advance(Duration::from_secs(60));
    let head = stage.source.head();
    for (mirror, replica) in [(&first, &first_replica), (&second, &second_replica)] {
        let state = mirror.state();
        assert!(state.synced && state.subscribed && state.fault.is_none());
        assert_eq!(state.head, Some(head));
        assert_eq!(replica.seen().len() as u64, head.at.seq);
    }
    let stats = stage.publisher.as_ref().unwrap().subscribers();
    assert_eq!(stats.len(), 2);
    assert!(stats.iter().all(|one| one.sent == head.at.seq && !one.behind && one.in_flight == 0));
}

#[test]
fn a_small_commit_is_a_small_frame() {
    let stage = Stage::new();
    let (peer, mirror, replica) = stage.mirror(SubscriberOptions::full(database()));
    stage.reach(&mirror, &replica);
    let connection = peer.connections().pop().unwrap();
    let (received, sent) = (connection.traffic().received(), connection.traffic().sent());
    let count = 100;
    for n in 0..count {
        // An entry of 50 bytes.
        let (at, entry) = stage.source.commit(&[(n, n)], 34);
        assert_eq!(entry.len(), 50);
        stage.publisher.as_ref().unwrap().committed(at, entry);
        stage.world.settle();
    }
    stage.world.advance(Duration::from_secs(3));
    stage.reach(&mirror, &replica);
    let down = (connection.traffic().received() - received) / u64::from(count);
    let up = (connection.traffic().sent() - sent) / u64::from(count);
    println!("{down} bytes down and {up} up for an entry of 50");
    assert!(down + up <= 110, "{down} down, {up} up");
}

#[test]
fn blocks_can_be_fetched_by_whoever_needs_them() {
    let stage = Stage::new();
    let options = SubscriberOptions { mode: Mode::Lazy, ..SubscriberOptions::full(database()) };
    let (_peer, mirror, replica) = stage.mirror(options);
    let waiting = mirror.clone();
    let head = stage.world.block_on(async move { waiting.synced().await }).unwrap();
    assert_eq!(replica.block_count(), 1);
    let wanted = [head.flush.address, datahike_sync::Address([8; 32])];
    let asking = mirror.clone();
    let blocks = stage.world.block_on(async move { asking.fetch(&wanted).await }).unwrap();
    assert_eq!(blocks.len(), 1);
    assert_eq!(blocks[0].0, head.flush.address);

    stage.network.silence("server");
    stage.network.cut("server");
    stage.world.advance(Duration::from_secs(1));
    let asking = mirror.clone();
    let offline = stage.world.block_on(async move { asking.fetch(&wanted).await });
    assert!(matches!(offline.as_ref().map_err(|error| &**error), Err(SyncError::Offline)));
}

#[test]
fn a_refusal_says_why() {
    let mut stage = Stage::new();
    let other = |store: &str, branch: &str| {
        let store = StoreName::Name(store.to_owned());
        SubscriberOptions::full(Database { store, branch: branch.to_owned() })
    };
    for (options, cause) in [
        (other("secrets", "db"), Cause::NotAllowed),
        (other("numbers", "elsewhere"), Cause::UnknownDatabase),
    ] {
        let (_peer, mirror, _) = stage.mirror(options);
        let refused = stage.world.block_on(async move { mirror.synced().await }).unwrap_err();
        assert!(
            matches!(&*refused, SyncError::Refused { cause: found, .. } if *found == cause),
            "{refused}"
        );
    }
    // A database that is gone for a while is found again when it is back.
    let (_peer, mirror, replica) = stage.mirror(SubscriberOptions::full(database()));
    stage.reach(&mirror, &replica);
    let publisher = stage.publisher.take().unwrap();
    let second = stage.layer.serve([store()], "db", Arc::new(stage.source.clone()));
    drop(publisher);
    stage.publisher = Some(second);
    stage.world.advance(Duration::from_secs(10));
    stage.commit(&[(5, 5)]);
    stage.reach(&mirror, &replica);
    assert_eq!(stage.server.connection_count(), 1);
}

#[test]
fn a_mirror_that_is_stopped_leaves_no_trace_at_the_server() {
    let stage = Stage::new();
    let (_peer, mirror, replica) = stage.mirror(SubscriberOptions::full(database()));
    stage.reach(&mirror, &replica);
    assert_eq!(stage.publisher.as_ref().unwrap().subscribers().len(), 1);
    let stopping = mirror.clone();
    stage.world.block_on(async move { stopping.stop().await });
    stage.world.settle();
    assert!(mirror.state().stopped);
    assert_eq!(stage.publisher.as_ref().unwrap().subscribers().len(), 0);
    drop(mirror);

    let (peer, mirror, replica) = stage.mirror(SubscriberOptions::full(database()));
    stage.reach(&mirror, &replica);
    drop(mirror);
    stage.world.settle();
    assert_eq!(stage.publisher.as_ref().unwrap().subscribers().len(), 0);
    drop(peer);
}
