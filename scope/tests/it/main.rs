//! Invocations over a simulated network, and over real sockets.

mod sockets;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use datahike_peer::{
    Action, Anyone, Authorize, Connection, Limits, Link, LinkOptions, Message, Peer, PeerBuilder,
    Refusal, Runtime, Wish, sim,
};
use datahike_scope::{InvokeError, InvokeOptions, Scope};
use datahike_value::{Value, kw};
use parking_lot::Mutex;

struct Net {
    world: sim::World,
    network: sim::Network,
    server: Peer,
    functions: Scope,
    scope: Scope,
    link: Link,
}

fn net(limits: &Limits, server: impl FnOnce(PeerBuilder) -> PeerBuilder) -> Net {
    let world = sim::World::new(5);
    let network = sim::Network::new(&world);
    let (functions, scope) = (Scope::new(), Scope::new());
    let builder = |scope: &Scope| {
        let builder = Peer::builder(None, world.runtime()).limits(limits.clone());
        builder.authenticate(Anyone).layer(scope.clone())
    };
    let server = server(builder(&functions)).build();
    network.listen("server", &server);
    let client = builder(&scope).build();
    let link = client.link(network.dial("server"), LinkOptions::default());
    let net = Net { world, network, server, functions, scope, link };
    net.connect();
    net
}

impl Net {
    fn connect(&self) -> Connection {
        let link = self.link.clone();
        self.world.block_on(async move { link.connected().await }).expect("connects")
    }

    fn invoke(&self, name: &'static str, arguments: Value) -> Result<Value, InvokeError> {
        let call = self.start(name, arguments, InvokeOptions::default());
        self.world.block_on(call)
    }

    fn start(
        &self,
        name: &'static str,
        arguments: Value,
        options: InvokeOptions,
    ) -> impl Future<Output = Result<Value, InvokeError>> + Send + 'static {
        let (scope, link) = (self.scope.clone(), self.link.clone());
        async move { scope.invoke_value(&link, name, arguments, options).await }
    }

    /// Begins a call beside everything else; where its outcome will be.
    fn spawn(&self, name: &'static str, arguments: Value) -> Outcome {
        let outcome = Outcome::default();
        let slot = outcome.clone();
        let call = self.start(name, arguments, InvokeOptions::default());
        self.world.spawn(Box::pin(async move {
            let done = call.await;
            *slot.lock() = Some(done);
        }));
        self.world.settle();
        outcome
    }
}

type Outcome = Arc<Mutex<Option<Result<Value, InvokeError>>>>;

/// Registers `hang`, which never ends; how many of it there are.
fn hang(scope: &Scope) -> Arc<AtomicUsize> {
    struct Alive(Arc<AtomicUsize>);
    impl Drop for Alive {
        fn drop(&mut self) {
            self.0.fetch_sub(1, Ordering::SeqCst);
        }
    }
    let count = Arc::new(AtomicUsize::new(0));
    let counted = count.clone();
    scope.register_value("hang", move |_, _| {
        counted.fetch_add(1, Ordering::SeqCst);
        let alive = Alive(counted.clone());
        async move {
            std::future::pending::<()>().await;
            drop(alive);
            Ok(Value::Nil)
        }
    });
    count
}

fn remote(outcome: Result<Value, InvokeError>) -> Refusal {
    match outcome {
        Err(InvokeError::Remote(refusal)) => refusal,
        other => panic!("not a remote error: {other:?}"),
    }
}

#[test]
fn arguments_and_results_are_typed_through_serde() {
    #[derive(serde::Serialize, serde::Deserialize)]
    struct Order {
        what: String,
        many: u32,
    }
    let net = net(&Limits::DEFAULT, |server| server);
    net.functions.register("order", |call: datahike_scope::Call, order: Order| async move {
        let who = call.principal().map(|principal| principal.name.to_string());
        Ok::<_, Refusal>((who, order.what, order.many * 2))
    });
    let (scope, link) = (net.scope.clone(), net.link.clone());
    let got: (Option<String>, String, u32) = net
        .world
        .block_on(async move {
            scope.invoke(&link, "order", &Order { what: "tea".into(), many: 2 }).await
        })
        .expect("answers");
    assert_eq!(got, (Some("anonymous".into()), "tea".into(), 4));
    let refusal = remote(net.invoke("order", Value::from("tea")));
    assert_eq!(refusal.code, kw!("scope/bad-arguments"));
}

#[test]
fn a_result_may_be_nil_and_values_pass_unchanged() {
    let net = net(&Limits::DEFAULT, |server| server);
    net.functions.register_value("echo", |_, value| async { Ok(value) });
    assert_eq!(net.invoke("echo", Value::Nil), Ok(Value::Nil));
    let value = datahike_value::edn::read("{:a #{1 2.5 (x)} \"b\" #my/tag [nil]}").expect("EDN");
    assert_eq!(net.invoke("echo", value.clone()), Ok(value));
}

#[test]
fn errors_carry_code_message_and_data() {
    let net = net(&Limits::DEFAULT, |server| server);
    let refusal = Refusal::new("shop/sold-out", "no tea is left").with_data(Value::from(3));
    let said = refusal.clone();
    net.functions.register_value("buy", move |_, _| {
        let refusal = said.clone();
        async { Err(refusal) }
    });
    assert_eq!(remote(net.invoke("buy", Value::Nil)), refusal);
    let unknown = remote(net.invoke("by", Value::Nil));
    assert_eq!(
        unknown,
        Refusal::new("scope/unknown-function", "no function by is registered here")
    );
}

#[test]
fn functions_of_both_sides_are_invoked_over_one_connection_nested() {
    let net = net(&Limits::DEFAULT, |server| server);
    let back = net.functions.clone();
    net.functions.register_value("there", move |call, value| {
        let back = back.clone();
        async move {
            let options = InvokeOptions::default();
            let more = back.invoke_value(call.connection(), "back", value, options).await;
            more.map_err(|error| Refusal::new("t/failed", error.to_string()))
        }
    });
    net.scope.register("back", |_, n: i64| async move { Ok::<_, Refusal>(n + 1) });
    assert_eq!(net.invoke("there", Value::from(1)), Ok(Value::from(2)));
    assert_eq!(net.server.connection_count(), 1);
}

#[test]
fn a_call_does_not_wait_for_another_and_functions_see_them_in_order() {
    let net = net(&Limits::DEFAULT, |server| server);
    hang(&net.functions);
    let order = Arc::new(Mutex::new(Vec::new()));
    let seen = order.clone();
    net.functions.register("note", move |_, n: i64| {
        seen.lock().push(n);
        async move { Ok::<_, Refusal>(n) }
    });
    let hanging = net.spawn("hang", Value::Nil);
    let outcomes: Vec<_> = (0..50).map(|n| net.spawn("note", Value::from(n))).collect();
    for (n, outcome) in (0i64..).zip(outcomes) {
        assert_eq!(*outcome.lock(), Some(Ok(Value::from(n))));
    }
    assert!(hanging.lock().is_none());
    assert_eq!(*order.lock(), (0..50).collect::<Vec<i64>>());
}

#[test]
fn pending_calls_fail_at_once_when_the_connection_goes_and_their_functions_stop() {
    let net = net(&Limits::DEFAULT, |server| server);
    let running = hang(&net.functions);
    let outcomes: Vec<_> = (0..3).map(|_| net.spawn("hang", Value::Nil)).collect();
    assert_eq!(running.load(Ordering::SeqCst), 3);
    net.network.silence("server");
    net.network.cut("server");
    net.world.settle();
    for outcome in outcomes {
        assert_eq!(*outcome.lock(), Some(Err(InvokeError::Disconnected)));
    }
    assert_eq!(running.load(Ordering::SeqCst), 0);
    assert_eq!(net.invoke("hang", Value::Nil), Err(InvokeError::Disconnected));
    net.network.listen("server", &net.server);
    net.connect();
    net.functions.register_value("echo", |_, value| async { Ok(value) });
    assert_eq!(net.invoke("echo", Value::from(1)), Ok(Value::from(1)), "the next connection works");
}

#[test]
fn a_deadline_ends_the_call_here_and_there() {
    let net = net(&Limits::DEFAULT, |server| server);
    let running = hang(&net.functions);
    let before = net.world.now();
    let options = InvokeOptions { deadline: Some(Duration::from_millis(700)) };
    let outcome = net.world.block_on(net.start("hang", Value::Nil, options));
    // Both sides watch it; whichever clock fires first, the code is the same.
    assert_eq!(outcome.expect_err("too late").code(), kw!("scope/deadline"));
    assert_eq!(net.world.now().since(before), Duration::from_millis(700));
    net.world.settle();
    assert_eq!(running.load(Ordering::SeqCst), 0);
}

#[test]
fn dropping_the_future_drops_the_function() {
    let net = net(&Limits::DEFAULT, |server| server);
    let running = hang(&net.functions);
    let call = net.start("hang", Value::Nil, InvokeOptions::default());
    let runtime = net.world.clone();
    net.world.block_on(async move {
        let sleep = runtime.sleep(Duration::from_millis(10));
        futures::future::select(Box::pin(call), sleep).await;
    });
    net.world.settle();
    assert_eq!(running.load(Ordering::SeqCst), 0);
}

#[test]
fn calls_past_the_limit_wait_and_a_flood_from_a_stranger_is_refused() {
    let limits = Limits { in_flight: 4, ..Limits::DEFAULT };
    let net = net(&limits, |server| server);
    let running = hang(&net.functions);
    let outcomes: Vec<_> = (0..6).map(|_| net.spawn("hang", Value::Nil)).collect();
    assert_eq!(running.load(Ordering::SeqCst), 4);
    assert!(outcomes.iter().all(|outcome| outcome.lock().is_none()), "the others wait here");
    // Past the layer's own restraint, as a client of another make might.
    let connection = net.link.connection().expect("open");
    let invoke = Message::new(
        kw!("scope/invoke"),
        [
            (kw!("id"), Value::from(99)),
            (kw!("function"), Value::from("hang")),
            (kw!("deadline"), Value::from(1000)),
        ],
    );
    connection.send(invoke).expect("room");
    net.world.settle();
    assert_eq!(running.load(Ordering::SeqCst), 4);
    assert!(connection.is_open());
}

#[test]
fn a_number_used_twice_or_a_malformed_call_closes_the_connection() {
    for entries in [
        vec![(kw!("id"), Value::from(0)), (kw!("function"), Value::from("hang"))],
        vec![(kw!("function"), Value::from("hang")), (kw!("deadline"), Value::from(1000))],
        vec![
            (kw!("id"), Value::from(0)),
            (kw!("function"), Value::from("hang")),
            (kw!("deadline"), Value::from(1000)),
        ],
    ] {
        let net = net(&Limits::DEFAULT, |server| server);
        hang(&net.functions);
        let connection = net.link.connection().expect("open");
        net.spawn("hang", Value::Nil);
        connection.send(Message::new(kw!("scope/invoke"), entries)).expect("room");
        net.world.settle();
        assert!(!connection.is_open());
    }
}

#[test]
fn the_authorize_hook_is_asked() {
    #[derive(Debug)]
    struct OnlyPublic;
    impl Authorize for OnlyPublic {
        fn authorize(&self, wish: &Wish<'_>) -> Result<(), Refusal> {
            let public = wish.target.as_str().is_some_and(|name| name.starts_with("public/"));
            if wish.action == Action::Invoke && !public {
                let message = format!("{} may not invoke {}", wish.principal.name, wish.target);
                return Err(Refusal::new("peer/unauthorized", message));
            }
            Ok(())
        }
    }
    let net = net(&Limits::DEFAULT, |server| server.authorize(OnlyPublic));
    for name in ["public/a", "private/a"] {
        net.functions.register_value(name, |_, value| async { Ok(value) });
    }
    assert!(net.invoke("public/a", Value::Nil).is_ok());
    let refusal = remote(net.invoke("private/a", Value::Nil));
    assert_eq!(refusal.code, kw!("peer/unauthorized"));
}

#[test]
fn a_result_too_large_for_a_frame_is_an_error_and_the_connection_lives() {
    let limits = Limits { frame_bytes: 10_000, ..Limits::DEFAULT };
    let net = net(&limits, |server| server);
    net.functions.register_value("big", |_, _| async { Ok(Value::bytes(vec![0u8; 20_000])) });
    assert_eq!(remote(net.invoke("big", Value::Nil)).code, kw!("scope/result-too-big"));
    assert!(net.link.connection().is_some());
}

#[test]
fn large_results_wait_for_room_and_none_is_lost() {
    let limits = Limits { outbound_bytes: 50_000, control_bytes: 10_000, ..Limits::DEFAULT };
    let net = net(&limits, |server| server);
    net.functions.register_value("big", |_, n| async move {
        Ok(Value::vector([n, Value::bytes(vec![0u8; 40_000])]))
    });
    let outcomes: Vec<_> = (0..40).map(|n| net.spawn("big", Value::from(n))).collect();
    net.world.settle();
    for (n, outcome) in (0i64..).zip(outcomes) {
        let outcome = outcome.lock();
        let result = outcome.as_ref().expect("answered").as_ref().expect("a result");
        assert_eq!(result.as_vector().and_then(|v| v.first()), Some(&Value::from(n)));
    }
}

#[test]
fn codes_say_whether_a_function_may_have_run() {
    let refused = |code| InvokeError::Remote(Refusal::new(code, "no"));
    assert!(!refused("scope/unknown-function").may_have_run());
    assert!(!refused("scope/too-many-in-flight").may_have_run());
    assert!(refused("scope/failed").may_have_run());
    assert!(InvokeError::Disconnected.may_have_run());
    assert_eq!(InvokeError::Deadline.code(), kw!("scope/deadline"));
}
