//! Peers to test with.

use std::sync::Arc;

use datahike_peer::{
    Anyone, Connection, Cx, Flow, Limits, Link, LinkOptions, Message, Middleware, Peer,
    PeerBuilder, Runtime, SerializerId, sim,
};
use datahike_value::Value;
use parking_lot::Mutex;

/// A server under the name `server`, a client linked to it.
pub(crate) struct Net {
    pub(crate) world: sim::World,
    pub(crate) network: sim::Network,
    pub(crate) server: Peer,
    pub(crate) client: Peer,
    pub(crate) link: Link,
}

pub(crate) fn net(
    limits: &Limits,
    server: impl FnOnce(PeerBuilder) -> PeerBuilder,
    client: impl FnOnce(PeerBuilder) -> PeerBuilder,
) -> Net {
    let world = sim::World::new(42);
    let network = sim::Network::new(&world);
    let builder =
        || Peer::builder(None, world.runtime()).limits(limits.clone()).authenticate(Anyone);
    let server = server(builder()).build();
    let client = client(builder()).build();
    network.listen("server", &server);
    let link = client.link(network.dial("server"), LinkOptions::default());
    Net { world, network, server, client, link }
}

impl Net {
    pub(crate) fn connect(&self) -> Connection {
        let link = self.link.clone();
        self.world.block_on(async move { link.connected().await }).expect("connects")
    }

    /// The server's end of the only connection.
    pub(crate) fn accepted(&self) -> Connection {
        self.world.settle();
        let connections = self.server.connections();
        assert_eq!(connections.len(), 1);
        connections.into_iter().next().expect("one")
    }
}

/// Keeps what reaches it.
#[derive(Clone, Debug, Default)]
pub(crate) struct Inbox {
    pub(crate) messages: Arc<Mutex<Vec<Message>>>,
}

impl Inbox {
    pub(crate) fn values(&self) -> Vec<Value> {
        self.messages.lock().iter().map(|message| message.value().clone()).collect()
    }
}

impl Middleware for Inbox {
    fn name(&self) -> &'static str {
        "inbox"
    }

    fn inbound(&self, message: Message, _cx: &mut Cx<'_>) -> Flow {
        self.messages.lock().push(message);
        Flow::Stop
    }
}

/// A raw transport at the server, to say what no peer would.
pub(crate) struct Stranger {
    transport: Box<dyn datahike_peer::Transport>,
}

impl Stranger {
    pub(crate) fn new(net: &Net) -> Self {
        let dial = net.network.dial("server");
        let transport = net.world.block_on(async move { dial.dial().await }).expect("listens");
        Self { transport }
    }

    pub(crate) fn say(&mut self, id: SerializerId, payload: &[u8]) {
        self.say_bytes(&datahike_peer::frame::encode(id, payload));
    }

    pub(crate) fn say_bytes(&mut self, bytes: &[u8]) {
        self.transport.send(bytes::Bytes::copy_from_slice(bytes)).expect("memory takes it");
    }

    /// Everything that came, as EDN text where it is that, and the close.
    pub(crate) fn heard(
        &mut self,
        world: &sim::World,
    ) -> (Vec<bytes::Bytes>, Option<datahike_peer::Close>) {
        use datahike_peer::transport::Received;
        world.settle();
        let mut frames = Vec::new();
        let mut cx = std::task::Context::from_waker(std::task::Waker::noop());
        loop {
            match self.transport.poll_receive(&mut cx) {
                std::task::Poll::Ready(Ok(Received::Frame(frame))) => frames.push(frame),
                std::task::Poll::Ready(Ok(Received::Closed(close))) => {
                    return (frames, Some(close));
                }
                std::task::Poll::Ready(other) => panic!("unexpected {other:?}"),
                std::task::Poll::Pending => return (frames, None),
            }
        }
    }
}

pub(crate) fn hello(versions: &str, serializers: &str, token: &str) -> String {
    format!(
        "{{:type :peer/hello, :versions {versions}, :serializers {serializers}, \
         :peer #uuid \"00000000-0000-4000-8000-000000000001\", :agent \"test\", \
         :frame-bytes 1000000 {token}}}"
    )
}

pub(crate) fn now(world: &sim::World) -> std::time::Duration {
    world.now().since_start()
}
