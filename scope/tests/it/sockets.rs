//! Over real sockets.

use std::sync::Arc;

use datahike_peer::{Anyone, LinkOptions, Peer, Refusal, TokioRuntime};
use datahike_scope::{InvokeError, Scope};
use datahike_value::{Value, kw};
use tokio::net::TcpListener;

/// A server with these functions and a client linked to it.
async fn pair(functions: Scope) -> (Peer, Scope, datahike_peer::Link) {
    let runtime = Arc::new(TokioRuntime::current());
    let server = Peer::builder(None, runtime.clone()).authenticate(Anyone).layer(functions).build();
    let listener = TcpListener::bind(("127.0.0.1", 0)).await.expect("binds");
    let url = format!("ws://{}", listener.local_addr().expect("bound"));
    tokio::spawn({
        let server = server.clone();
        async move { server.serve(listener).await }
    });
    let scope = Scope::new();
    let client = Peer::builder(None, runtime).layer(scope.clone()).build();
    let link = client.connect(url, LinkOptions::default());
    link.connected().await.expect("connects");
    (server, scope, link)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_calls_at_once_each_get_their_own_answer() {
    let functions = Scope::new();
    functions.register("double", |_, n: i64| async move { Ok::<_, Refusal>(n * 2) });
    let (server, scope, link) = pair(functions).await;
    let calls = (0..1000i64).map(|n| {
        let (scope, link) = (scope.clone(), link.clone());
        tokio::spawn(async move { (n, scope.invoke::<_, i64>(&link, "double", &n).await) })
    });
    for call in calls.collect::<Vec<_>>() {
        let (n, doubled) = call.await.expect("runs");
        assert_eq!(doubled, Ok(n * 2));
    }
    server.shutdown(std::time::Duration::from_secs(5)).await;
    let gone = scope.invoke::<_, i64>(&link, "double", &1).await;
    assert_eq!(gone, Err(InvokeError::Disconnected));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_function_that_panics_is_an_error_and_the_connection_lives() {
    let functions = Scope::new();
    functions.register_value("panic", |_, _| async { panic!("on purpose") });
    functions.register_value("echo", |_, value| async { Ok(value) });
    let (_server, scope, link) = pair(functions).await;
    let error = scope.invoke::<_, Value>(&link, "panic", &()).await.expect_err("fails");
    assert_eq!(error.code(), kw!("scope/failed"));
    assert_eq!(scope.invoke::<_, i64>(&link, "echo", &7).await, Ok(7));
}

/// Prints what an invocation costs; run it with `--release -- --nocapture` for figures.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_invocation_takes_few_bytes() {
    let functions = Scope::new();
    functions.register_value("echo", |_, value| async { Ok(value) });
    let (_server, scope, link) = pair(functions).await;
    let connection = link.connection().expect("open");
    let rounds: u32 = if cfg!(debug_assertions) { 200 } else { 20_000 };
    let (sent, received) = (connection.traffic().sent(), connection.traffic().received());
    let began = std::time::Instant::now();
    for n in 0..rounds {
        assert_eq!(scope.invoke::<_, u32>(&link, "echo", &n).await, Ok(n));
    }
    let each = began.elapsed() / rounds;
    let sent = (connection.traffic().sent() - sent) / u64::from(rounds);
    let received = (connection.traffic().received() - received) / u64::from(rounds);
    println!("invoke: {each:?} each, {sent} B there, {received} B back");
    assert!(sent <= 50 && received <= 30, "{sent} B there, {received} B back");
}
