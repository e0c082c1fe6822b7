//! Over real sockets on the loopback.

use std::sync::Arc;
use std::time::Duration;

use datahike_peer::pubsub::{Broadcast, BroadcastOptions, Delivery, PubSub, SubscribeOptions};
use datahike_peer::{
    Anyone, Close, Limits, LinkOptions, LinkState, Logging, Message, Peer, PeerBuilder,
    TokioRuntime,
};
use datahike_value::{Value, kw};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use crate::net::Inbox;

fn builder() -> PeerBuilder {
    Peer::builder(None, Arc::new(TokioRuntime::current())).authenticate(Anyone)
}

async fn serve(server: &Peer) -> String {
    let listener = TcpListener::bind(("127.0.0.1", 0)).await.expect("binds");
    let url = format!("ws://{}", listener.local_addr().expect("bound"));
    let server = server.clone();
    tokio::spawn(async move { server.serve(listener).await });
    url
}

async fn in_time<F: Future>(future: F) -> F::Output {
    tokio::time::timeout(Duration::from_secs(20), future).await.expect("in time")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_waits_leaves_in_few_writes_and_every_byte_is_counted() {
    let inbox = Inbox::default();
    let server = builder().layer(Logging).layer(inbox.clone()).build();
    let url = serve(&server).await;
    let client = builder().build();
    let link = client.connect(&url, LinkOptions::default());
    let connection = in_time(link.connected()).await.expect("connects");
    let (bytes, writes) = (connection.traffic().sent(), connection.traffic().writes());
    for n in 0..1000 {
        connection
            .send(Message::new(kw!("t/a"), [(kw!("payload"), Value::from(n))]))
            .expect("room");
    }
    in_time(async {
        while inbox.messages.lock().len() < 1000 {
            tokio::task::yield_now().await;
        }
    })
    .await;
    let accepted = server.connections().pop().expect("there");
    // The writing side counts a write once it has returned, which may be after it was read.
    in_time(async {
        while accepted.traffic().received() != connection.traffic().sent() {
            tokio::task::yield_now().await;
        }
    })
    .await;
    let frames: usize = inbox.messages.lock().iter().map(Message::frame_bytes).sum();
    // Two bytes of header and four of mask for each frame.
    assert_eq!(connection.traffic().sent() - bytes, frames as u64 + 6 * 1000);
    let writes = connection.traffic().writes() - writes;
    assert!(writes < 500, "{writes} writes for 1000 frames");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_stops_says_so_and_is_found_again() {
    let pubsub = PubSub::new();
    let first = builder().layer(pubsub.clone()).build();
    let listener = TcpListener::bind(("127.0.0.1", 0)).await.expect("binds");
    let address = listener.local_addr().expect("bound");
    let serving = tokio::spawn({
        let first = first.clone();
        async move { first.serve(listener).await }
    });
    Broadcast::serve(&pubsub, "chat", BroadcastOptions::default());
    let subscribing = PubSub::new();
    let client = builder().layer(subscribing.clone()).build();
    let link = client.connect(format!("ws://{address}"), LinkOptions::default());
    let mut subscription = subscribing.subscribe(&link, "chat", SubscribeOptions::default());
    assert!(matches!(in_time(subscription.next()).await, Some(Delivery::Subscribed(_))));
    let connection = in_time(link.connected()).await.expect("connects");
    first.shutdown(Duration::from_secs(5)).await;
    let ended = in_time(connection.ended()).await;
    assert_eq!(ended.close, Close::new(Close::GOING_AWAY, "the peer stops"));
    in_time(serving).await.expect("runs").expect("ends");
    assert!(matches!(in_time(subscription.next()).await, Some(Delivery::Disconnected)));
    let pubsub = PubSub::new();
    let second = builder().layer(pubsub.clone()).build();
    let chat = Broadcast::serve(&pubsub, "chat", BroadcastOptions::default());
    let listener = TcpListener::bind(address).await.expect("binds again");
    tokio::spawn(async move { second.serve(listener).await });
    assert!(matches!(in_time(subscription.next()).await, Some(Delivery::Subscribed(_))));
    chat.publish(Value::from("back"));
    match in_time(subscription.next()).await {
        Some(Delivery::Event(event)) => assert_eq!(event.payload, Value::from("back")),
        other => panic!("{other:?}"),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_not_websocket_or_too_much_before_the_hello_harms_nobody() {
    let limits = Limits { handshake: Duration::from_millis(500), ..Limits::DEFAULT };
    let server = builder().limits(limits).build();
    let url = serve(&server).await;
    let client = builder().build();
    let link = client.connect(&url, LinkOptions::default());
    let connection = in_time(link.connected()).await.expect("connects");
    let address = url.trim_start_matches("ws://").to_owned();
    let upgrade = "GET / HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
        Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";
    // A masked binary frame that claims a megabyte and sends a part of it.
    let mut huge = upgrade.as_bytes().to_vec();
    huge.extend([0x82, 0xff, 0, 0, 0, 0, 0, 0x10, 0, 0, 1, 2, 3, 4]);
    huge.extend(vec![0u8; 200_000]);
    let cases =
        [b"nonsense\r\n\r\n".to_vec(), b"GET / HTTP/1.1\r\n".to_vec(), upgrade.into(), huge];
    for bytes in cases {
        let mut stream = TcpStream::connect(&address).await.expect("connects");
        let _ = stream.write_all(&bytes).await;
        let mut answer = Vec::new();
        // Ends, by a close or a reset, and does not hang.
        let _ = in_time(stream.read_to_end(&mut answer)).await;
    }
    assert!(connection.is_open());
    in_time(async {
        while server.connection_count() > 1 {
            tokio::task::yield_now().await;
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_oversize_frame_closes_with_its_code() {
    let limits = Limits { frame_bytes: 10_000, ..Limits::DEFAULT };
    let server = builder().limits(limits).layer(Inbox::default()).build();
    let url = serve(&server).await;
    // A client of another make, which does not mind what the welcome says.
    let (mut socket, _) = tokio_tungstenite::connect_async(&url).await.expect("connects");
    use futures::{SinkExt, StreamExt};
    use tokio_tungstenite::tungstenite::Message as Ws;
    let mut hello = b"\0\0\0\x02".to_vec();
    hello.extend(crate::net::hello("[1 1]", "[2]", "").bytes());
    socket.send(Ws::Binary(hello.into())).await.expect("sends");
    assert!(matches!(in_time(socket.next()).await, Some(Ok(Ws::Binary(_)))));
    let _ = socket.send(Ws::Binary(vec![0u8; 20_000].into())).await;
    let close = loop {
        match in_time(socket.next()).await {
            Some(Ok(Ws::Close(Some(frame)))) => break u16::from(frame.code),
            Some(Ok(_)) => {}
            other => panic!("no close frame but {other:?}"),
        }
    };
    assert_eq!(close, Close::TOO_BIG);
}

#[tokio::test]
async fn addresses_that_lead_nowhere_are_named() {
    let client = builder().build();
    for (url, detail) in [
        ("http://localhost", "it begins neither with ws:// nor with wss://"),
        ("ws://", "it is no URL"),
        ("not a url", "it is no URL"),
    ] {
        let link = client.connect(url, LinkOptions::default());
        let refusal = in_time(link.connected()).await.expect_err("leads nowhere");
        assert!(refusal.message.contains(detail), "{refusal}");
    }
    let listener = TcpListener::bind(("127.0.0.1", 0)).await.expect("binds");
    let url = format!("ws://{}", listener.local_addr().expect("bound"));
    drop(listener);
    let link = client.connect(&url, LinkOptions::default());
    let mut states = link.states();
    let reason = in_time(async {
        loop {
            if let LinkState::Disconnected { reason } = &*states.borrow_and_update() {
                break reason.clone();
            }
            states.changed().await.expect("lives");
        }
    })
    .await;
    assert!(reason.starts_with(&format!("cannot connect to {url}")), "{reason}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn large_messages_pass_whole() {
    let inbox = Inbox::default();
    let server = builder().layer(inbox.clone()).build();
    let url = serve(&server).await;
    let client = builder().build();
    let link = client.connect(&url, LinkOptions::default());
    let connection = in_time(link.connected()).await.expect("connects");
    let bytes: Vec<u8> = (0..3_000_000u32).map(|n| n as u8).collect();
    let message = Message::new(kw!("t/big"), [(kw!("payload"), Value::bytes(bytes.clone()))]);
    for _ in 0..4 {
        in_time(connection.deliver(message.clone())).await.expect("goes");
    }
    in_time(async {
        while inbox.messages.lock().len() < 4 {
            tokio::task::yield_now().await;
        }
    })
    .await;
    let messages = inbox.messages.lock();
    assert!(
        messages
            .iter()
            .all(|m| m.get(&kw!("payload")).and_then(Value::as_bytes) == Some(&bytes[..]))
    );
}
