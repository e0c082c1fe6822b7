//! Servers that prove who they are, that cannot, and that say nothing.

use std::sync::Arc;
use std::time::Duration;

use datahike_peer::{
    Anyone, Limits, LinkOptions, LinkState, Peer, PeerBuilder, TokioRuntime, TransportError,
};
use rcgen::{CertifiedKey, generate_simple_self_signed};
use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::PrivatePkcs8KeyDer;

fn builder() -> PeerBuilder {
    Peer::builder(None, Arc::new(TokioRuntime::current())).authenticate(Anyone)
}

async fn in_time<F: Future>(future: F) -> F::Output {
    tokio::time::timeout(Duration::from_secs(20), future).await.expect("in time")
}

/// A peer behind TLS, as behind a proxy: its port, and its own certificate as PEM.
async fn serve() -> (u16, String) {
    let peer = builder().build();
    let inner = TcpListener::bind(("127.0.0.1", 0)).await.expect("binds");
    let address = inner.local_addr().expect("bound");
    tokio::spawn(async move { peer.serve(inner).await });

    let names = vec!["localhost".to_owned()];
    let CertifiedKey { cert, signing_key } = generate_simple_self_signed(names).expect("signed");
    let key = PrivatePkcs8KeyDer::from(signing_key.serialize_der());
    let config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .expect("versions")
        .with_no_client_auth()
        .with_single_cert(vec![cert.der().clone()], key.into())
        .expect("a certificate");
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let outer = TcpListener::bind(("127.0.0.1", 0)).await.expect("binds");
    let port = outer.local_addr().expect("bound").port();
    tokio::spawn(async move {
        while let Ok((stream, _)) = outer.accept().await {
            let acceptor = acceptor.clone();
            tokio::spawn(async move {
                let mut near = acceptor.accept(stream).await?;
                let mut far = TcpStream::connect(address).await?;
                copy_bidirectional(&mut near, &mut far).await
            });
        }
    });
    (port, cert.pem())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_with_a_certificate_of_its_own_is_reached_by_whoever_trusts_it() {
    let (port, pem) = serve().await;
    let client = builder().trust(pem.as_bytes()).expect("a root").build();
    let link = client.connect(format!("wss://localhost:{port}"), LinkOptions::default());
    let connection = in_time(link.connected()).await.expect("trusted");
    assert!(connection.info().encrypted);

    // Under another name the certificate proves nothing.
    let link = client.connect(format!("wss://127.0.0.1:{port}"), LinkOptions::default());
    let refusal = in_time(link.connected()).await.expect_err("another name");
    assert_eq!(refusal.code.text(), "peer/untrusted", "{refusal}");
    in_time(client.shutdown(Duration::from_secs(5))).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_nobody_vouches_for_is_refused_at_once_and_by_name() {
    let (port, _) = serve().await;
    let url = format!("wss://localhost:{port}");
    let (_, of_another) = serve().await;
    let strangers =
        [builder().build(), builder().trust(of_another.as_bytes()).expect("a root").build()];
    for client in strangers {
        let link = client.connect(&url, LinkOptions::default());
        let refusal = in_time(link.connected()).await.expect_err("not trusted");
        assert_eq!(refusal.code.text(), "peer/untrusted", "{refusal}");
        assert!(refusal.message.contains(&url), "{refusal}");
        assert!(refusal.message.contains("certificate"), "{refusal}");
    }
}

#[tokio::test]
async fn what_is_no_certificate_is_no_root() {
    for text in ["", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"] {
        let refused = builder().trust(text.as_bytes()).expect_err("no root");
        assert!(matches!(refused, TransportError::Untrusted { .. }), "{refused}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_accepts_and_never_answers_is_a_timeout_with_its_name() {
    let silent = TcpListener::bind(("127.0.0.1", 0)).await.expect("binds");
    let address = silent.local_addr().expect("bound");
    let accepting = tokio::spawn(async move {
        let mut held = Vec::new();
        while let Ok(accepted) = silent.accept().await {
            held.push(accepted);
        }
    });
    let limits = Limits { handshake: Duration::from_millis(200), ..Limits::DEFAULT };
    let client = builder().limits(limits).build();
    for scheme in ["ws", "wss"] {
        let url = format!("{scheme}://{address}");
        let link = client.connect(&url, LinkOptions::default());
        let mut states = link.states();
        let given_up = |state: &LinkState| matches!(state, LinkState::Disconnected { .. });
        let state = in_time(states.wait_for(given_up)).await.expect("a state").clone();
        let LinkState::Disconnected { reason } = state else { unreachable!() };
        assert_eq!(reason, format!("no answer from {url} within 0.2 s"));
    }
    accepting.abort();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_who_never_answers_a_close_does_not_hold_up_the_end() {
    let server = builder().build();
    let listener = TcpListener::bind(("127.0.0.1", 0)).await.expect("binds");
    let address = listener.local_addr().expect("bound");
    let serving = server.clone();
    tokio::spawn(async move { serving.serve(listener).await });
    // It connects, and reads nothing from then on.
    let stream = TcpStream::connect(address).await.expect("connects");
    let upgraded = upgrade(stream, address).await;
    in_time(async {
        while server.connection_count() == 0 {
            tokio::task::yield_now().await;
        }
    })
    .await;
    let limit = Duration::from_millis(1500);
    let ended = tokio::time::timeout(limit, server.shutdown(Duration::from_secs(5))).await;
    assert!(ended.is_ok(), "the end took longer than {limit:?}");
    drop(upgraded);
}

/// A stream upgraded to WebSocket by hand.
async fn upgrade(mut stream: TcpStream, address: std::net::SocketAddr) -> TcpStream {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let request = format!(
        "GET / HTTP/1.1\r\nHost: {address}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
    );
    stream.write_all(request.as_bytes()).await.expect("sent");
    let mut answer = Vec::new();
    while !answer.ends_with(b"\r\n\r\n") {
        answer.push(stream.read_u8().await.expect("an answer"));
    }
    stream
}
