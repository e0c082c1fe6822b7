//! Messages on their way into a connection, in order, whoever adds them.

use std::{collections::VecDeque, sync::Mutex};

use datahike_peer::{Connection, Message, SendError};

use crate::layer::lock;

/// A queue in front of a connection. It holds what the connection had no room for, which a window
/// bounds, and keeps the order of those who fill it from several tasks, without a lock being held
/// while the connection's layers run.
#[derive(Debug)]
pub(crate) struct Outbox {
    connection: Connection,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    waiting: VecDeque<Message>,
    draining: bool,
}

impl Outbox {
    pub(crate) fn new(connection: Connection) -> Self {
        Self { connection, state: Mutex::default() }
    }

    pub(crate) fn connection(&self) -> &Connection {
        &self.connection
    }

    /// Adds a message; [`drain`](Self::drain) sends it. Cheap enough to be called under the lock
    /// that decides the order.
    pub(crate) fn push(&self, message: Message) {
        lock(&self.state).waiting.push_back(message);
    }

    /// Sends as much as there is room for.
    pub(crate) fn drain(&self) {
        self.drain_by(Connection::send);
    }

    /// [`drain`](Self::drain) that writes on the caller's thread.
    pub(crate) fn drain_at_once(&self) {
        self.drain_by(Connection::send_at_once);
    }

    fn drain_by(&self, send: impl Fn(&Connection, Message) -> Result<usize, SendError>) {
        {
            let mut state = lock(&self.state);
            if state.draining {
                return;
            }
            state.draining = true;
        }
        loop {
            let message = {
                let mut state = lock(&self.state);
                let Some(message) = state.waiting.pop_front() else {
                    state.draining = false;
                    return;
                };
                message
            };
            match send(&self.connection, message.clone()) {
                Ok(_) | Err(SendError::Stopped(_)) => {}
                Err(SendError::Full { .. }) => {
                    {
                        let mut state = lock(&self.state);
                        state.waiting.push_front(message);
                        state.draining = false;
                    }
                    // Room that was made since the refusal was told to nobody.
                    if !self.connection.has_room() {
                        return;
                    }
                    let mut state = lock(&self.state);
                    if state.draining {
                        return;
                    }
                    state.draining = true;
                }
                Err(error) => {
                    tracing::debug!(connection = self.connection.id().0, %error, "not sent");
                    let mut state = lock(&self.state);
                    state.waiting.clear();
                    state.draining = false;
                    return;
                }
            }
        }
    }
}
