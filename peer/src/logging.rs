//! A layer that logs what passes.

use crate::error::Close;
use crate::message::Message;
use crate::middleware::{Cx, Flow, Middleware};

/// Logs connections at level `info` and the type and size of every message at level `trace`, never
/// their content.
#[derive(Clone, Copy, Debug, Default)]
pub struct Logging;

impl Middleware for Logging {
    fn name(&self) -> &'static str {
        "logging"
    }

    fn inbound(&self, message: Message, cx: &mut Cx<'_>) -> Flow {
        tracing::trace!(
            connection = cx.connection().id().0,
            kind = %message.kind(),
            bytes = message.frame_bytes(),
            "in"
        );
        Flow::Pass(message)
    }

    fn outbound(&self, message: Message, cx: &mut Cx<'_>) -> Flow {
        tracing::trace!(connection = cx.connection().id().0, kind = %message.kind(), "out");
        Flow::Pass(message)
    }

    fn connected(&self, cx: &mut Cx<'_>) {
        let connection = cx.connection();
        if let Some(opened) = connection.opened() {
            tracing::info!(
                connection = connection.id().0,
                remote = connection.info().remote,
                peer = %opened.peer,
                principal = &*opened.principal.name,
                agent = opened.agent,
                "connected"
            );
        }
    }

    fn disconnected(&self, close: &Close, cx: &mut Cx<'_>) {
        let connection = cx.connection();
        tracing::info!(
            connection = connection.id().0,
            %close,
            sent = connection.traffic().sent(),
            received = connection.traffic().received(),
            "disconnected"
        );
    }
}
