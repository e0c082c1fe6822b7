//! Topics: subscriptions, windows, catching up, reconnects, refusals.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use datahike_peer::pubsub::{
    Broadcast, BroadcastOptions, Delivery, PubSub, SubscribeOptions, Subscriber, Subscription,
    TopicHandler,
};
use datahike_peer::{
    Action, Authorize, BoxFuture, Limits, Message, Refusal, Runtime, SerializerId, Wish,
};
use datahike_value::{Value, kw};
use parking_lot::Mutex;

use crate::net::{Net, Stranger, hello, net};

struct Topics {
    net: Net,
    serving: PubSub,
    subscribing: PubSub,
}

fn topics(limits: &Limits) -> Topics {
    let (serving, subscribing) = (PubSub::new(), PubSub::new());
    let net = net(
        limits,
        |server| server.layer(serving.clone()),
        |client| client.layer(subscribing.clone()),
    );
    net.connect();
    Topics { net, serving, subscribing }
}

impl Topics {
    fn subscribe(&self, topic: &str, options: SubscribeOptions) -> Subscription {
        let subscription = self.subscribing.subscribe(&self.net.link, topic, options);
        self.net.world.settle();
        subscription
    }
}

fn all(subscription: &mut Subscription) -> Vec<Delivery> {
    std::iter::from_fn(|| subscription.try_next()).collect()
}

fn told(deliveries: &[Delivery]) -> Vec<String> {
    deliveries
        .iter()
        .map(|delivery| match delivery {
            Delivery::Subscribed(state) => format!("subscribed {state}"),
            Delivery::Event(event) => format!("{} {}", event.seq, event.payload),
            Delivery::Gap { from, to } => format!("gap {from} to {to}"),
            Delivery::Disconnected => "disconnected".into(),
            Delivery::Ended(refusal) => format!("ended {}", refusal.code),
            other => format!("{other:?}"),
        })
        .collect()
}

#[test]
fn events_reach_subscribers_in_order_until_they_leave() {
    let t = topics(&Limits::DEFAULT);
    let chat = Broadcast::serve(&t.serving, "chat", BroadcastOptions::default());
    chat.publish(Value::from("before"));
    let mut subscription = t.subscribe("chat", SubscribeOptions::default());
    for n in 0..3 {
        chat.publish(Value::from(n));
    }
    t.net.world.settle();
    assert_eq!(told(&all(&mut subscription)), ["subscribed 1", "2 0", "3 1", "4 2"]);
    let topic = t.serving.topic(&Value::from("chat")).expect("served");
    assert_eq!(topic.subscriber_count(), 1);
    drop(subscription);
    t.net.world.settle();
    assert_eq!(topic.subscriber_count(), 0);
}

#[test]
fn a_frame_for_many_subscribers_is_encoded_once() {
    let t = topics(&Limits::DEFAULT);
    let chat = Broadcast::serve(&t.serving, "chat", BroadcastOptions::default());
    let (mut frames, mut strangers) = (Vec::new(), Vec::new());
    for n in 0..3 {
        let mut stranger = Stranger::new(&t.net);
        let hello = hello("[1 1]", "[64]", "").replace("0001\"", &format!("000{n}\""));
        stranger.say(SerializerId::EDN, hello.as_bytes());
        stranger.heard(&t.net.world);
        let ask = "{:type :pubsub/subscribe :id 1 :topic \"chat\" :window 1000}";
        stranger.say(SerializerId::EDN, ask.as_bytes());
        stranger.heard(&t.net.world);
        strangers.push(stranger);
    }
    chat.publish(Value::from("hi"));
    for stranger in &mut strangers {
        frames.extend(stranger.heard(&t.net.world).0);
    }
    assert_eq!(frames.len(), 3);
    assert!(frames.iter().all(|frame| frame.as_ptr() == frames[0].as_ptr()), "one allocation");
}

#[test]
fn refusals_are_typed_and_arrive() {
    #[derive(Debug)]
    struct NoSecrets;
    impl Authorize for NoSecrets {
        fn authorize(&self, wish: &Wish<'_>) -> Result<(), Refusal> {
            let secret = wish.target == &Value::from("secret")
                || (wish.action == Action::Publish && wish.payload == Some(&Value::from("spam")));
            if secret { Err(Refusal::new("peer/unauthorized", "no")) } else { Ok(()) }
        }
    }
    let limits = Limits { subscriptions: 2, ..Limits::DEFAULT };
    let (serving, subscribing) = (PubSub::new(), PubSub::new());
    let net = net(
        &limits,
        |server| server.layer(serving.clone()).authorize(NoSecrets),
        |client| client.layer(subscribing.clone()),
    );
    net.connect();
    let t = Topics { net, serving, subscribing };
    let quiet = BroadcastOptions { from_peers: false, ..BroadcastOptions::default() };
    for topic in ["a", "b", "c", "secret"] {
        Broadcast::serve(&t.serving, topic, BroadcastOptions::default());
    }
    Broadcast::serve(&t.serving, "quiet", quiet);
    let default = SubscribeOptions::default;
    let mut kept = [t.subscribe("a", default()), t.subscribe("b", default())];
    for (topic, code) in [
        ("a", "ended :pubsub/already-subscribed"),
        ("c", "ended :pubsub/too-many-subscriptions"),
        ("nowhere", "ended :pubsub/unknown-topic"),
        ("secret", "ended :peer/unauthorized"),
    ] {
        assert_eq!(told(&all(&mut t.subscribe(topic, default()))), [code]);
    }
    assert_eq!(told(&all(&mut kept[0])), ["subscribed 0"]);
    let publish = |topic: &'static str, payload: &'static str| {
        let (pubsub, link) = (t.subscribing.clone(), t.net.link.clone());
        let published = async move { pubsub.publish(&link, topic, Value::from(payload)).await };
        t.net.world.block_on(published).map_err(|refusal| refusal.code.to_string())
    };
    assert_eq!(publish("a", "hello"), Ok(Value::from(1)));
    assert_eq!(publish("a", "spam"), Err(":peer/unauthorized".into()));
    assert_eq!(publish("quiet", "x"), Err(":pubsub/read-only".into()));
    assert_eq!(publish("nowhere", "x"), Err(":pubsub/unknown-topic".into()));
    t.net.world.settle();
    assert_eq!(told(&all(&mut kept[0])), ["1 \"hello\""]);
    t.serving.withdraw(&Value::from("a"), &Refusal::new("t/over", "over"));
    t.net.world.settle();
    assert_eq!(told(&all(&mut kept[0])), ["ended :t/over"]);
}

#[test]
fn a_handler_that_never_answers_is_a_refusal_in_time() {
    #[derive(Debug)]
    struct Mute;
    impl TopicHandler for Mute {
        fn subscribe<'a>(
            &'a self,
            _: &'a Subscriber,
            _: Value,
        ) -> BoxFuture<'a, Result<Value, Refusal>> {
            Box::pin(std::future::pending())
        }
        fn catch_up<'a>(&'a self, _: &'a Subscriber) -> BoxFuture<'a, Result<(), Refusal>> {
            Box::pin(std::future::pending())
        }
    }
    let t = topics(&Limits::DEFAULT);
    t.serving.serve("mute", Arc::new(Mute));
    let mut subscription = t.subscribe("mute", SubscribeOptions::default());
    assert!(all(&mut subscription).is_empty());
    t.net.world.advance(Duration::from_secs(31));
    let ended = told(&all(&mut subscription));
    assert!(ended == ["ended :pubsub/timeout"] || ended == ["ended :peer/timeout"], "{ended:?}");
}

#[test]
fn a_slow_subscriber_is_behind_bounded_and_catches_up_while_the_others_go_on() {
    let t = topics(&Limits::DEFAULT);
    let keep = BroadcastOptions { keep: 10_000, ..BroadcastOptions::default() };
    let chat = Broadcast::serve(&t.serving, "chat", keep);
    let other = PubSub::new();
    let quick_peer =
        datahike_peer::Peer::builder(None, t.net.world.runtime()).layer(other.clone()).build();
    let link = quick_peer.link(t.net.network.dial("server"), Default::default());
    let mut quick = other.subscribe(&link, "chat", SubscribeOptions::default());
    let options = SubscribeOptions::default().window(2_000);
    let mut slow = t.subscribe("chat", options);
    let mut got = Vec::new();
    for n in 0..1000 {
        chat.publish(Value::from(n));
        t.net.world.settle();
        got.extend(all(&mut quick));
    }
    assert_eq!(got.len(), 1001, "the quick one has everything");
    let topic = t.serving.topic(&Value::from("chat")).expect("served");
    let behind = topic.subscribers().into_iter().find(|s| !s.is_live()).expect("one is behind");
    assert!(behind.position() < 120, "{}", behind.position());
    assert!(behind.connection().waiting_bytes() < 2_100);
    // It begins to read: every event comes, in order, none twice.
    let mut got = Vec::new();
    while got.len() < 1001 {
        let before = got.len();
        got.extend(all(&mut slow).into_iter().filter_map(|delivery| match delivery {
            Delivery::Event(event) => Some(event.seq),
            Delivery::Subscribed(_) => Some(0),
            _ => None,
        }));
        t.net.world.settle();
        assert!(got.len() > before, "it stands still at {before}");
    }
    assert_eq!(got, (0..=1000).collect::<Vec<u64>>());
    assert!(behind.is_live());
}

#[test]
fn what_is_not_kept_is_one_gap() {
    let t = topics(&Limits::DEFAULT);
    let keep = BroadcastOptions { keep: 5, ..BroadcastOptions::default() };
    let chat = Broadcast::serve(&t.serving, "chat", keep);
    for n in 1..=20 {
        chat.publish(Value::from(n));
    }
    let resume = SubscribeOptions::default().state(|| Value::from(3));
    let mut subscription = t.subscribe("chat", resume);
    let expected = ["subscribed 20", "gap 4 to 15", "16 16", "17 17", "18 18", "19 19", "20 20"];
    assert_eq!(told(&all(&mut subscription)), expected);
}

#[test]
fn subscriptions_come_back_with_the_connection_from_where_they_stand() {
    let t = topics(&Limits::DEFAULT);
    let chat = Broadcast::serve(&t.serving, "chat", BroadcastOptions::default());
    let seen = Arc::new(AtomicU64::new(0));
    let state = seen.clone();
    let options = SubscribeOptions::default()
        .state(move || Value::from(i64::try_from(state.load(Ordering::SeqCst)).expect("small")));
    let mut subscription = t.subscribe("chat", options);
    chat.publish(Value::from("one"));
    t.net.world.settle();
    assert_eq!(told(&all(&mut subscription)), ["subscribed 0", "1 \"one\""]);
    seen.store(1, Ordering::SeqCst);
    t.net.network.cut("server");
    t.net.world.settle();
    chat.publish(Value::from("two"));
    t.net.world.advance(Duration::from_secs(1));
    chat.publish(Value::from("three"));
    t.net.world.settle();
    let expected = ["disconnected", "subscribed 2", "2 \"two\"", "3 \"three\""];
    assert_eq!(told(&all(&mut subscription)), expected);
    let topic = t.serving.topic(&Value::from("chat")).expect("served");
    assert_eq!(topic.subscriber_count(), 1, "the old one is gone");
}

#[test]
fn subscribing_before_there_is_a_connection_works_once_there_is() {
    let (serving, subscribing) = (PubSub::new(), PubSub::new());
    let net = net(
        &Limits::DEFAULT,
        |server| server.layer(serving.clone()),
        |client| client.layer(subscribing.clone()),
    );
    Broadcast::serve(&serving, "chat", BroadcastOptions::default());
    let mut subscription = subscribing.subscribe(&net.link, "chat", SubscribeOptions::default());
    let first = net.world.block_on(async move { subscription.next().await });
    assert!(matches!(first, Some(Delivery::Subscribed(_))));
}

#[test]
fn an_event_larger_than_the_window_gets_through() {
    let t = topics(&Limits::DEFAULT);
    let chat = Broadcast::serve(&t.serving, "chat", BroadcastOptions::default());
    let options = SubscribeOptions::default().window(100);
    let mut subscription = t.subscribe("chat", options);
    for _ in 0..3 {
        chat.publish(Value::bytes(vec![0u8; 5_000]));
        t.net.world.settle();
        let deliveries = all(&mut subscription);
        assert!(matches!(deliveries.last(), Some(Delivery::Event(_))), "{deliveries:?}");
        drop(deliveries);
        t.net.world.settle();
    }
}

#[test]
fn false_acknowledgements_and_malformed_messages_close_only_their_connection() {
    let t = topics(&Limits::DEFAULT);
    Broadcast::serve(&t.serving, "chat", BroadcastOptions::default());
    let mut good = t.subscribe("chat", SubscribeOptions::default());
    for lie in [
        "{:type :pubsub/ack :topic 0 :bytes 1}",
        "{:type :pubsub/ack :topic 0 :bytes -5}",
        "{:type :pubsub/subscribe :id 2}",
        "{:type :pubsub/subscribe :id -1 :topic \"chat\" :window 10}",
        "{:type :pubsub/publish :topic \"chat\"}",
        "{:type :pubsub/nonsense}",
    ] {
        let mut stranger = Stranger::new(&t.net);
        stranger.say(SerializerId::EDN, hello("[1 1]", "[64]", "").as_bytes());
        stranger.heard(&t.net.world);
        let ask = "{:type :pubsub/subscribe :id 1 :topic \"chat\" :window 9223372036854775807}";
        stranger.say(SerializerId::EDN, ask.as_bytes());
        assert_eq!(stranger.heard(&t.net.world).1, None);
        stranger.say(SerializerId::EDN, lie.as_bytes());
        assert_eq!(stranger.heard(&t.net.world).1.expect(lie).code, 1002, "{lie}");
    }
    let topic = t.serving.topic(&Value::from("chat")).expect("served");
    assert_eq!(topic.subscriber_count(), 1);
    assert_eq!(told(&all(&mut good)), ["subscribed 0"]);
}

#[test]
fn a_server_that_sends_past_the_window_is_left() {
    let t = topics(&Limits::DEFAULT);
    Broadcast::serve(&t.serving, "chat", BroadcastOptions::default());
    let options = SubscribeOptions::default().window(500);
    let mut subscription = t.subscribe("chat", options);
    let accepted = t.net.accepted();
    for seq in 1..10 {
        let entries = [
            (kw!("topic"), Value::from(0)),
            (kw!("seq"), Value::from(seq)),
            (kw!("payload"), Value::bytes(vec![0u8; 200])),
        ];
        let _ = accepted.send(Message::new(kw!("pubsub/event"), entries));
    }
    t.net.world.settle();
    let got = all(&mut subscription);
    assert!(!accepted.is_open());
    assert!(got.len() < 6, "{}", got.len());
}

#[test]
fn subscribers_and_handlers_talk() {
    #[derive(Debug, Default)]
    struct Talker {
        heard: Mutex<Vec<Value>>,
        left: AtomicU64,
    }
    impl TopicHandler for Talker {
        fn catch_up<'a>(&'a self, to: &'a Subscriber) -> BoxFuture<'a, Result<(), Refusal>> {
            Box::pin(async move {
                to.go_live();
                Ok(())
            })
        }
        fn told(&self, _: &Subscriber, payload: Value) {
            self.heard.lock().push(payload);
        }
        fn unsubscribed(&self, _: &Subscriber) {
            self.left.fetch_add(1, Ordering::SeqCst);
        }
    }
    let t = topics(&Limits::DEFAULT);
    let talker = Arc::new(Talker::default());
    t.serving.serve(kw!("t/talk"), talker.clone());
    let subscription =
        t.subscribing.subscribe(&t.net.link, kw!("t/talk"), SubscribeOptions::default());
    assert!(subscription.tell(Value::from(0)).is_err(), "not yet");
    t.net.world.settle();
    subscription.tell(Value::from(1)).expect("stands");
    t.net.world.settle();
    assert_eq!(*talker.heard.lock(), [Value::from(1)]);
    t.net.network.cut("server");
    t.net.world.settle();
    assert_eq!(talker.left.load(Ordering::SeqCst), 1);
    assert!(t.net.world.now().since_start() < Duration::from_secs(1));
}
