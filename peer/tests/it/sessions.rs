//! Hello, refusals, heartbeat, close, reconnect and limits, on a simulated clock.

use std::time::Duration;

use datahike_peer::{
    Backoff, Close, Limits, LinkOptions, LinkState, Message, Peer, Principal, Refusal, Runtime,
    SendError, SerializerId, SharedToken, Token,
};
use datahike_value::{Value, edn, kw};
use proptest::prelude::*;

use crate::net::{Inbox, Net, Stranger, hello, net, now};

fn plain() -> Net {
    net(&Limits::DEFAULT, |server| server, |client| client)
}

/// The only message that a stranger heard, which is EDN text.
fn only_text(frames: &[bytes::Bytes]) -> Value {
    assert_eq!(frames.len(), 1, "{frames:?}");
    assert_eq!(&frames[0][..4], [0, 0, 0, 2]);
    edn::read(std::str::from_utf8(&frames[0][4..]).expect("UTF-8")).expect("EDN")
}

#[test]
fn a_hello_opens_and_messages_pass_both_ways_in_order() {
    let (there, back) = (Inbox::default(), Inbox::default());
    let net = net(
        &Limits::DEFAULT,
        |server| server.layer(there.clone()).property(kw!("epoch"), Value::from(3)),
        |client| client.layer(back.clone()).agent("tester 1"),
    );
    let connection = net.connect();
    let opened = connection.opened().expect("open");
    assert_eq!(opened.peer, net.server.id());
    assert_eq!(opened.properties.get(&kw!("epoch")), Some(&Value::from(3)));
    let accepted = net.accepted();
    assert_eq!(accepted.opened().expect("open").agent, "tester 1");
    assert_eq!(&*accepted.principal().expect("open").name, "anonymous");
    assert_eq!(net.server.connection_to(net.client.id()).expect("found").id(), accepted.id());
    for n in 0..1000 {
        let message = |kind| Message::new(kind, [(kw!("n"), Value::from(n))]);
        connection.send(message(kw!("t/up"))).expect("room");
        accepted.send(message(kw!("t/down"))).expect("room");
    }
    net.world.settle();
    for (inbox, kind) in [(there, ":t/up"), (back, ":t/down")] {
        let got = inbox.values().iter().map(Value::to_string).collect::<Vec<_>>();
        let expected: Vec<_> = (0..1000).map(|n| format!("{{:n {n}, :type {kind}}}")).collect();
        assert_eq!(got, expected);
    }
    assert_eq!(accepted.traffic().received(), connection.traffic().sent());
}

#[test]
fn a_version_from_the_future_is_refused_with_the_range_that_is_spoken() {
    let net = plain();
    let mut stranger = Stranger::new(&net);
    stranger.say(SerializerId::EDN, hello("[9 12]", "[64]", "").as_bytes());
    let (frames, close) = stranger.heard(&net.world);
    let refusal = only_text(&frames);
    assert_eq!(refusal.get(&kw!("code")), Some(&Value::keyword("peer/version")));
    assert_eq!(refusal.get(&kw!("data")), Some(&edn::read("[1 1]").expect("EDN")));
    assert_eq!(close.expect("closed").code, Close::REFUSED);
}

#[test]
fn a_range_that_reaches_into_the_future_agrees_on_ours() {
    let net = plain();
    let mut stranger = Stranger::new(&net);
    stranger.say(SerializerId::EDN, hello("[1 99]", "[14 2]", "").as_bytes());
    let (frames, close) = stranger.heard(&net.world);
    let welcome = only_text(&frames);
    assert_eq!(welcome.get(&kw!("type")), Some(&Value::keyword("peer/welcome")));
    assert_eq!(welcome.get(&kw!("version")), Some(&Value::from(1)));
    assert_eq!(welcome.get(&kw!("serializer")), Some(&Value::from(2)));
    assert_eq!(close, None);
}

#[test]
fn bad_first_words_close_the_connection_and_no_other() {
    let net = plain();
    let good = net.connect();
    let big = vec![b' '; 70_000];
    let cases: [(&str, SerializerId, Vec<u8>, u16); 8] = [
        ("no serializer", SerializerId::EDN, hello("[1 1]", "[99]", "").into(), Close::REFUSED),
        ("no hello", SerializerId::EDN, b"{:type :pubsub/subscribe}".to_vec(), Close::PROTOCOL),
        ("half a hello", SerializerId::EDN, b"{:type :peer/hello}".to_vec(), Close::REFUSED),
        ("no map", SerializerId::EDN, b"[1 2]".to_vec(), Close::PROTOCOL),
        ("bad EDN", SerializerId::EDN, b"{:type".to_vec(), Close::PROTOCOL),
        ("not UTF-8", SerializerId::EDN, vec![0xff, 0xfe], Close::PROTOCOL),
        ("another serializer", SerializerId::FRESSIAN, b"x".to_vec(), Close::PROTOCOL),
        ("too big", SerializerId::EDN, big, Close::TOO_BIG),
    ];
    for (name, id, payload, code) in cases {
        let mut stranger = Stranger::new(&net);
        stranger.say(id, &payload);
        let (_, close) = stranger.heard(&net.world);
        assert_eq!(close.expect(name).code, code, "{name}");
    }
    let mut stranger = Stranger::new(&net);
    stranger.say_bytes(b"\0\0");
    assert_eq!(stranger.heard(&net.world).1.expect("truncated").code, Close::PROTOCOL);
    assert!(good.is_open());
    assert_eq!(net.server.connection_count(), 1, "nothing is kept of the others");
}

#[test]
fn a_serializer_that_was_not_agreed_on_is_not_read_later_either() {
    let net = plain();
    let mut stranger = Stranger::new(&net);
    stranger.say(SerializerId::EDN, hello("[1 1]", "[64]", "").as_bytes());
    assert_eq!(stranger.heard(&net.world).1, None);
    stranger.say(SerializerId::CBOR, b"anything");
    let (_, close) = stranger.heard(&net.world);
    let close = close.expect("closed");
    assert_eq!(close.code, Close::PROTOCOL);
    assert_eq!(close.reason, "serializer 14 was not agreed on");
}

#[test]
fn a_wrong_token_is_refused_for_good_and_a_right_one_names_the_principal() {
    let rule = SharedToken::new(&Token::new("open sesame"), Principal::named("ali"));
    let net = net(&Limits::DEFAULT, |server| server.authenticate(rule), |client| client);
    for (token, message) in [
        (None, "this peer asks for a token"),
        (Some("open sesamf"), "the token is not the right one"),
        (Some("open"), "the token is not the right one"),
    ] {
        let options = LinkOptions { token: token.map(Token::new), ..LinkOptions::default() };
        let link = net.client.link(net.network.dial("server"), options);
        let waiting = link.clone();
        let refusal = net.world.block_on(async move { waiting.connected().await });
        let expected = Refusal::new("peer/unauthenticated", message);
        assert_eq!(refusal.map(|_| ()), Err(expected));
        net.world.advance(Duration::from_secs(600));
        assert!(matches!(link.state(), LinkState::Refused(_)), "it does not try again by itself");
    }
    let options = LinkOptions { token: Some(Token::new("open sesame")), ..LinkOptions::default() };
    let link = net.client.link(net.network.dial("server"), options);
    let waiting = link.clone();
    net.world.block_on(async move { waiting.connected().await }).expect("connects");
    assert_eq!(&*net.accepted().principal().expect("open").name, "ali");
}

#[test]
fn a_peer_that_was_given_no_rule_lets_nobody_in() {
    let net = plain();
    let closed = Peer::builder(None, net.world.runtime()).build();
    net.network.listen("closed", &closed);
    let link = net.client.link(net.network.dial("closed"), LinkOptions::default());
    let refusal = net.world.block_on(async move { link.connected().await });
    assert_eq!(refusal.expect_err("refused").code, kw!("peer/unauthenticated"));
}

#[test]
fn a_peer_id_in_use_is_not_given_to_another_principal() {
    #[derive(Debug)]
    struct ByToken;
    impl datahike_peer::Authenticate for ByToken {
        fn authenticate<'a>(
            &'a self,
            hello: &'a datahike_peer::Hello,
            _: &'a datahike_peer::transport::TransportInfo,
        ) -> datahike_peer::BoxFuture<'a, Result<Principal, Refusal>> {
            let name = hello.token.as_ref().map_or("", |token| token.secret()).to_owned();
            Box::pin(async { Ok(Principal::named(name)) })
        }
    }
    let net = net(&Limits::DEFAULT, |server| server.authenticate(ByToken), |client| client);
    let stranger = |token: &str| {
        let mut stranger = Stranger::new(&net);
        let token = format!(", :token \"{token}\"");
        stranger.say(SerializerId::EDN, hello("[1 1]", "[64]", &token).as_bytes());
        let (frames, close) = stranger.heard(&net.world);
        (stranger, only_text(&frames), close)
    };
    let (first, _, close) = stranger("ali");
    assert_eq!(close, None);
    let (_, refusal, close) = stranger("eve");
    assert_eq!(refusal.get(&kw!("code")), Some(&Value::keyword("peer/id-taken")));
    assert!(close.is_some());
    assert_eq!(stranger("ali").2, None, "the same principal may come twice");
    drop(first);
}

#[test]
fn a_hello_that_never_ends_is_ended() {
    let net = plain();
    let mut stranger = Stranger::new(&net);
    net.world.advance(Duration::from_millis(4900));
    assert_eq!(stranger.heard(&net.world).1, None);
    net.world.advance(Duration::from_millis(200));
    assert_eq!(stranger.heard(&net.world).1.expect("closed").code, Close::DEAD);
    net.world.advance(Duration::from_secs(3));
    assert_eq!(net.server.connection_count(), 1, "only the client's is left");
}

#[test]
fn heartbeats_keep_a_silent_connection_and_a_dead_peer_is_noticed() {
    let net = plain();
    let connection = net.connect();
    net.world.advance(Duration::from_secs(600));
    assert!(connection.is_open());
    // A peer that says hello and then nothing, as after a pulled cable.
    let mut stranger = Stranger::new(&net);
    stranger.say(SerializerId::EDN, hello("[1 1]", "[64]", "").as_bytes());
    assert_eq!(stranger.heard(&net.world).1, None);
    let from = now(&net.world);
    let limits = Limits::DEFAULT;
    net.world.advance(limits.heartbeat + Duration::from_millis(1));
    let (pings, close) = stranger.heard(&net.world);
    assert_eq!((pings.len(), close), (1, None));
    net.world.advance(limits.dead_after - limits.heartbeat);
    assert_eq!(stranger.heard(&net.world).1.expect("closed").code, Close::DEAD);
    assert!(now(&net.world) - from < Duration::from_secs(46));
    assert!(connection.is_open());
}

#[test]
fn a_lost_connection_is_made_again() {
    let net = plain();
    let first = net.connect();
    net.network.cut("server");
    let ended = net.world.block_on({
        let first = first.clone();
        async move { first.ended().await }
    });
    assert_eq!(ended.close.code, Close::LOST);
    let second = net.connect();
    assert_ne!(first.id(), second.id());
    assert_eq!(first.link(), second.link());
    assert!(matches!(first.send(Message::new(kw!("t/a"), [])), Err(SendError::Closed(_))));
    assert!(now(&net.world) <= Duration::from_millis(250));
}

#[test]
fn a_server_that_is_away_is_tried_less_and_less_often_and_found_again() {
    let net = plain();
    net.connect();
    net.network.silence("server");
    net.network.cut("server");
    net.world.advance(Duration::from_secs(3600));
    assert!(matches!(net.link.state(), LinkState::Disconnected { .. } | LinkState::Connecting));
    net.network.listen("server", &net.server);
    let before = now(&net.world);
    net.connect();
    assert!(now(&net.world) - before <= Backoff::DEFAULT.longest);
}

#[test]
fn a_link_that_is_dropped_closes() {
    let net = plain();
    let connection = net.connect();
    let accepted = net.accepted();
    drop(net.link);
    net.world.advance(Duration::from_secs(60));
    assert!(!connection.is_open());
    assert!(!accepted.is_open());
    assert_eq!(net.client.connection_count() + net.server.connection_count(), 0);
}

#[test]
fn shutdown_says_why_after_what_waits_has_left() {
    let inbox = Inbox::default();
    let net = net(&Limits::DEFAULT, |server| server, |client| client.layer(inbox.clone()));
    let connection = net.connect();
    let accepted = net.accepted();
    for _ in 0..100 {
        accepted.send(Message::new(kw!("t/last"), [])).expect("room");
    }
    let server = net.server.clone();
    net.world.block_on(async move { server.shutdown(Duration::from_secs(5)).await });
    let ended = net.world.block_on(async move { connection.ended().await });
    assert_eq!(ended.close, Close::new(Close::GOING_AWAY, "the peer stops"));
    assert_eq!(inbox.values().len(), 100);
    assert_eq!(net.server.connection_count(), 0);
    let dial = net.network.dial("server");
    assert!(net.world.block_on(async move { dial.dial().await.is_err() }), "no new ones");
}

#[test]
fn connections_past_the_limit_are_turned_away() {
    let limits = Limits { connections: 2, ..Limits::DEFAULT };
    let net = net(&limits, |server| server, |client| client);
    net.connect();
    let _second = Stranger::new(&net);
    let dial = net.network.dial("server");
    let third = net.world.block_on(async move { dial.dial().await.map(|_| ()) });
    assert!(third.expect_err("turned away").to_string().contains("already has 2 connections"));
}

#[test]
fn a_reader_that_stops_bounds_what_waits_for_it() {
    let limits = Limits { outbound_bytes: 10_000, control_bytes: 5_000, ..Limits::DEFAULT };
    let net = net(&limits, |server| server, |client| client);
    net.network.set_pipe_bytes(1_000);
    let mut stranger = Stranger::new(&net);
    stranger.say(SerializerId::EDN, hello("[1 1]", "[64]", "").as_bytes());
    assert_eq!(stranger.heard(&net.world).1, None);
    let all = net.server.connections();
    let slow = all.iter().find(|c| c.opened().is_some_and(|o| o.agent == "test")).expect("there");
    let message = Message::new(kw!("t/a"), [(kw!("payload"), Value::bytes(vec![0u8; 900]))]);
    let mut sent = 0;
    let full = loop {
        match slow.send(message.clone()) {
            Ok(_) => sent += 1,
            Err(error) => break error,
        }
        net.world.settle();
    };
    assert!(matches!(full, SendError::Full { .. }), "{full}");
    assert!((10..16).contains(&sent), "{sent}");
    // A task that waits goes on when there is room again.
    let waiting = slow.clone();
    let delivered = std::sync::Arc::new(std::sync::atomic::AtomicBool::new(false));
    let done = delivered.clone();
    let again = message.clone();
    net.world.spawn(Box::pin(async move {
        waiting.deliver(again).await.expect("goes at last");
        done.store(true, std::sync::atomic::Ordering::SeqCst);
    }));
    net.world.settle();
    assert!(!delivered.load(std::sync::atomic::Ordering::SeqCst));
    let mut heard = 0;
    for _ in 0..20 {
        heard += stranger.heard(&net.world).0.len();
    }
    assert!(delivered.load(std::sync::atomic::Ordering::SeqCst));
    assert_eq!(heard, sent + 1);
    // Replies have room of their own, and past it the connection goes.
    let flood = (0..40).map(|_| slow.reply(message.clone())).find(Result::is_err);
    assert!(matches!(flood, Some(Err(SendError::Closed(close))) if close.code == Close::TRY_AGAIN));
    assert_eq!(slow.waiting_bytes(), 0);
    net.world.advance(Duration::from_secs(3));
    assert!(!slow.is_open());
}

#[test]
fn a_message_larger_than_the_other_side_takes_is_not_sent() {
    let limits = Limits { frame_bytes: 1_000, ..Limits::DEFAULT };
    let net = net(&limits, |server| server, |client| client);
    let connection = net.connect();
    let big = Message::new(kw!("t/a"), [(kw!("payload"), Value::bytes(vec![0u8; 1_000]))]);
    assert!(matches!(connection.send(big), Err(SendError::TooBig { .. })));
    assert!(connection.is_open());
}

#[test]
fn a_frame_larger_than_allowed_closes() {
    let limits = Limits { frame_bytes: 100_000, ..Limits::DEFAULT };
    let net = net(&limits, |server| server, |client| client);
    let mut stranger = Stranger::new(&net);
    stranger.say(SerializerId::EDN, hello("[1 1]", "[2]", "").as_bytes());
    stranger.say(SerializerId::EDN, &vec![b' '; 100_000]);
    assert_eq!(stranger.heard(&net.world).1.expect("closed").code, Close::TOO_BIG);
}

proptest! {
    #[test]
    fn delays_stay_under_a_span_that_doubles(failures in 1u32..100, random in any::<u64>()) {
        let delay = Backoff::DEFAULT.delay(failures, random);
        let span = Duration::from_millis(250 << (failures - 1).min(7)).min(Duration::from_secs(30));
        prop_assert!(delay <= span);
    }

    #[test]
    fn whatever_a_stranger_says_the_server_lives(
        words in prop::collection::vec((any::<bool>(), prop::collection::vec(any::<u8>(), 0..60)), 0..6),
        greets in any::<bool>(),
    ) {
        let net = plain();
        let good = net.connect();
        let mut stranger = Stranger::new(&net);
        if greets {
            stranger.say(SerializerId::EDN, hello("[1 1]", "[64]", "").as_bytes());
        }
        for (framed, bytes) in words {
            if framed {
                stranger.say(SerializerId::MESSAGE_PACK, &bytes);
            } else {
                stranger.say_bytes(&bytes);
            }
        }
        net.world.settle();
        prop_assert!(good.is_open());
    }
}
