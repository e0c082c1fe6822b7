use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use dashmap::DashMap;
use datahike_peer::pubsub::Reach;
use datahike_peer::rt::within;
use datahike_peer::{
    Action, Close, Connection, ConnectionId, Cx, Flow, LinkId, MaybeSend, MaybeSync, Message,
    Middleware, Refusal, SendError,
};
use datahike_value::{Keyword, Value, from_value, kw, to_value};
use futures::future::{AbortHandle, Abortable};
use parking_lot::Mutex;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::sync::{Semaphore, oneshot};

use crate::calls::{Calls, Rejected, Work};
use crate::error::InvokeError;
use crate::function::{Call, Function, Raw, typed};

/// The layer; clones are handles to the same one. Give one clone to
/// [`PeerBuilder::layer`](datahike_peer::PeerBuilder::layer) and keep another to register and invoke.
#[derive(Clone, Debug, Default)]
pub struct Scope {
    inner: Arc<Inner>,
}

/// How to invoke.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct InvokeOptions {
    /// Time for the answer to come; without one, the peer's [`Limits::request`](datahike_peer::Limits::request).
    pub deadline: Option<Duration>,
}

#[derive(Debug, Default)]
struct Inner {
    functions: DashMap<String, Arc<dyn Function>>,
    connections: DashMap<ConnectionId, Arc<Talk>>,
    links: DashMap<LinkId, Arc<Talk>>,
}

type Answer = Result<Value, InvokeError>;

/// Both directions over one connection.
#[derive(Debug)]
struct Talk {
    connection: Connection,
    /// As many calls at a time as one side works on, so that none is refused for being too many.
    slots: Semaphore,
    calls: Mutex<Calls<oneshot::Sender<Answer>>>,
    work: Mutex<Work<AbortHandle>>,
}

impl Scope {
    /// A layer without functions.
    pub fn new() -> Self {
        Self::default()
    }

    /// Registers a function under this name, in the place of one that had it. It is called in the
    /// order in which invocations arrive; the futures that it returns run side by side, and are
    /// dropped when the caller cancels, its deadline passes, or its connection goes.
    pub fn register<A, R, E, F, U>(&self, name: impl Into<String>, function: F)
    where
        A: DeserializeOwned + 'static,
        R: Serialize + 'static,
        E: Into<Refusal> + 'static,
        F: Fn(Call, A) -> U + MaybeSend + MaybeSync + 'static,
        U: Future<Output = Result<R, E>> + MaybeSend + 'static,
    {
        self.register_value(name, typed(function));
    }

    /// [`register`](Self::register) for a function over values.
    pub fn register_value<F, U>(&self, name: impl Into<String>, function: F)
    where
        F: Fn(Call, Value) -> U + MaybeSend + MaybeSync + 'static,
        U: Future<Output = Result<Value, Refusal>> + MaybeSend + 'static,
    {
        self.inner.functions.insert(name.into(), Arc::new(Raw(function)));
    }

    /// Takes a function away. Invocations of it that run go on.
    pub fn unregister(&self, name: &str) {
        self.inner.functions.remove(name);
    }

    /// Invokes a function of the other side and waits for its result. Dropping the future cancels.
    /// As many calls as [`Limits::in_flight`](datahike_peer::Limits::in_flight) are on the way at a time; more wait here.
    ///
    /// # Errors
    /// See [`InvokeError`].
    pub async fn invoke<A: Serialize + ?Sized, R: DeserializeOwned>(
        &self,
        at: &impl Reach,
        name: &str,
        arguments: &A,
    ) -> Result<R, InvokeError> {
        let arguments =
            to_value(arguments).map_err(|error| InvokeError::Arguments(error.to_string()))?;
        let result = self.invoke_value(at, name, arguments, InvokeOptions::default()).await?;
        from_value(result).map_err(|error| InvokeError::Result(error.to_string()))
    }

    /// [`invoke`](Self::invoke) with values and options.
    ///
    /// # Errors
    /// See [`InvokeError`].
    pub async fn invoke_value(
        &self,
        at: &impl Reach,
        name: &str,
        arguments: Value,
        options: InvokeOptions,
    ) -> Result<Value, InvokeError> {
        let talk = self.inner.links.get(&at.link_id()).map(|entry| entry.value().clone());
        let talk = talk.ok_or(InvokeError::Disconnected)?;
        let deadline = options.deadline.unwrap_or(talk.connection.limits().request);
        let runtime = talk.connection.runtime().clone();
        let exchange = talk.exchange(name, arguments, deadline);
        within(&*runtime, deadline, exchange).await.unwrap_or(Err(InvokeError::Deadline))
    }
}

impl Talk {
    async fn exchange(
        self: &Arc<Self>,
        name: &str,
        arguments: Value,
        deadline: Duration,
    ) -> Answer {
        // Closed when the connection goes.
        let _slot = self.slots.acquire().await.map_err(|_| InvokeError::Disconnected)?;
        let (sender, answer) = oneshot::channel();
        let (begun, alone) = {
            let mut calls = self.calls.lock();
            (calls.begin(sender), calls.len() == 1)
        };
        let id = begun.map_err(|_| InvokeError::Disconnected)?;
        let waiting = Waiting { talk: self, id };
        let milliseconds = Value::Long(i64::try_from(deadline.as_millis()).unwrap_or(i64::MAX));
        let message = Message::new(
            kw!("scope/invoke"),
            [
                (kw!("id"), long(id)),
                (kw!("function"), Value::str(name)),
                (kw!("arguments"), arguments),
                (kw!("deadline"), milliseconds),
            ],
        );
        // Calls side by side share a write, one alone should not wait for another task.
        let sent = match alone {
            true => self.connection.deliver_at_once(message).await,
            false => self.connection.deliver(message).await,
        };
        if let Err(error) = sent {
            self.calls.lock().answered(id);
            return Err(match error {
                SendError::Closed(_) | SendError::NotOpen => InvokeError::Disconnected,
                error => InvokeError::NotSent(error),
            });
        }
        let answer = answer.await.unwrap_or(Err(InvokeError::Disconnected));
        drop(waiting);
        answer
    }

    fn answer(&self, id: u64, answer: Answer) {
        // Nobody, if the call was given up meanwhile.
        if let Some(waiter) = self.calls.lock().answered(id) {
            let _ = waiter.send(answer);
        }
    }
}

/// Tells the other side to stop if the caller stops waiting.
struct Waiting<'a> {
    talk: &'a Arc<Talk>,
    id: u64,
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        let tell = self.talk.calls.lock().given_up(self.id);
        if tell {
            let cancel = Message::new(kw!("scope/cancel"), [(kw!("id"), long(self.id))]);
            let _ = self.talk.connection.reply(cancel);
        }
    }
}

/// Answers a call that ends without an answer, as when its function panics.
struct Working {
    talk: Arc<Talk>,
    id: u64,
}

impl Drop for Working {
    fn drop(&mut self) {
        let unanswered = self.talk.work.lock().end(self.id).is_some();
        if unanswered {
            let refusal = Refusal::new("scope/failed", "the function ended without an answer");
            let _ = self.talk.connection.reply(failure(self.id, &refusal));
        }
    }
}

impl Inner {
    fn invoked(&self, message: &Message, cx: &mut Cx<'_>) -> Result<(), Malformed> {
        let id = number(message, &kw!("id"))?;
        let name = message.get(&kw!("function")).and_then(Value::as_str);
        let name = name.ok_or(Malformed("function"))?;
        let milliseconds = number(message, &kw!("deadline"))?;
        let arguments = message.get(&kw!("arguments")).cloned().unwrap_or_default();
        let Some(talk) = self.talk(cx.connection()) else {
            return Ok(());
        };
        let (stop, stopped) = AbortHandle::new_pair();
        let begun = talk.work.lock().begin(id, stop);
        match begun {
            Ok(()) => {}
            Err(Rejected::Twice) => return Err(Malformed("id")),
            Err(Rejected::TooMany) => {
                let limit = cx.connection().limits().in_flight;
                let message = format!("at most {limit} invocations at a time");
                cx.send(failure(id, &Refusal::new("scope/too-many-in-flight", message)));
                return Ok(());
            }
        }
        let working = Working { talk: talk.clone(), id };
        let limit = Duration::from_millis(milliseconds);
        let work = self.permit(cx.connection(), name, &arguments).map(|function| {
            function.call(Call::new(talk.connection.clone(), cx.now() + limit), arguments)
        });
        let runtime = cx.connection().runtime().clone();
        let work = async move {
            let done = match work {
                Err(refusal) => Err(refusal),
                Ok(work) => within(&*runtime, limit, work).await.unwrap_or_else(|| {
                    Err(Refusal::new("scope/deadline", "the function did not end in time"))
                }),
            };
            finish(&working.talk, id, done).await;
            drop(working);
        };
        let work = Abortable::new(work, stopped);
        cx.run(async move {
            let _ = work.await;
        });
        Ok(())
    }

    fn permit(
        &self,
        connection: &Connection,
        name: &str,
        arguments: &Value,
    ) -> Result<Arc<dyn Function>, Refusal> {
        connection.authorize(Action::Invoke, &Value::str(name), Some(arguments))?;
        let function = self.functions.get(name).map(|entry| entry.value().clone());
        function.ok_or_else(|| {
            Refusal::new("scope/unknown-function", format!("no function {name} is registered here"))
        })
    }

    fn talk(&self, connection: &Connection) -> Option<Arc<Talk>> {
        self.connections.get(&connection.id()).map(|entry| entry.value().clone())
    }

    fn answered(&self, message: &Message, cx: &Cx<'_>) -> Result<(), Malformed> {
        let id = number(message, &kw!("id"))?;
        if let Some(talk) = self.talk(cx.connection()) {
            let answer = match message.kind().name() {
                "result" => Ok(message.get(&kw!("result")).cloned().unwrap_or_default()),
                _ => Err(InvokeError::Remote(Refusal::from_message(message))),
            };
            talk.answer(id, answer);
        }
        Ok(())
    }

    fn cancelled(&self, message: &Message, cx: &Cx<'_>) -> Result<(), Malformed> {
        let id = number(message, &kw!("id"))?;
        let stop = self.talk(cx.connection()).and_then(|talk| talk.work.lock().end(id));
        if let Some(stop) = stop {
            stop.abort();
        }
        Ok(())
    }
}

/// Sends the outcome once there is room for it; the call counts as in flight until then.
async fn finish(talk: &Talk, id: u64, outcome: Result<Value, Refusal>) {
    let message = match outcome {
        Ok(result) => {
            Message::new(kw!("scope/result"), [(kw!("id"), long(id)), (kw!("result"), result)])
        }
        Err(refusal) => failure(id, &refusal),
    };
    talk.connection.ready().await;
    // Before the answer leaves: the caller may use the free place as soon as it has it.
    let alone = {
        let mut work = talk.work.lock();
        work.end(id);
        work.is_empty()
    };
    let sent = match alone {
        true => talk.connection.deliver_at_once(message).await,
        false => talk.connection.deliver(message).await,
    };
    if let Err(error @ (SendError::TooBig { .. } | SendError::Encode(_))) = sent {
        let refusal = Refusal::new("scope/result-too-big", error.to_string());
        let _ = talk.connection.reply(failure(id, &refusal));
    }
}

fn failure(id: u64, refusal: &Refusal) -> Message {
    let mut entries = vec![(kw!("id"), long(id))];
    entries.extend(refusal.to_entries());
    Message::new(kw!("scope/error"), entries)
}

/// A message that lacks what its type must have.
struct Malformed(&'static str);

fn number(message: &Message, key: &Keyword) -> Result<u64, Malformed> {
    let value = message.get(key).and_then(Value::as_long);
    value.and_then(|n| u64::try_from(n).ok()).ok_or_else(|| match key.name() {
        "id" => Malformed("id"),
        _ => Malformed("deadline"),
    })
}

fn long(n: u64) -> Value {
    Value::Long(i64::try_from(n).unwrap_or(i64::MAX))
}

impl Middleware for Scope {
    fn name(&self) -> &'static str {
        "scope"
    }

    fn inbound(&self, message: Message, cx: &mut Cx<'_>) -> Flow {
        if message.kind().namespace() != Some("scope") {
            return Flow::Pass(message);
        }
        let outcome = match message.kind().name() {
            "invoke" => self.inner.invoked(&message, cx),
            "result" | "error" => self.inner.answered(&message, cx),
            "cancel" => self.inner.cancelled(&message, cx),
            _ => Err(Malformed("type")),
        };
        if let Err(Malformed(key)) = outcome {
            let reason = format!("a {} message without a proper :{key}", message.kind());
            cx.close(Close::new(Close::PROTOCOL, reason));
        }
        Flow::Stop
    }

    fn connected(&self, cx: &mut Cx<'_>) {
        let connection = cx.connection();
        let limit = connection.limits().in_flight;
        let talk = Arc::new(Talk {
            connection: connection.clone(),
            slots: Semaphore::new(limit),
            calls: Mutex::default(),
            work: Mutex::new(Work::new(limit)),
        });
        self.inner.connections.insert(connection.id(), talk.clone());
        self.inner.links.insert(connection.link(), talk);
    }

    fn disconnected(&self, _close: &Close, cx: &mut Cx<'_>) {
        let connection = cx.connection();
        let Some((_, talk)) = self.inner.connections.remove(&connection.id()) else {
            return;
        };
        self.inner.links.remove_if(&connection.link(), |_, known| Arc::ptr_eq(known, &talk));
        talk.slots.close();
        let waiters = talk.calls.lock().lost();
        for waiter in waiters {
            let _ = waiter.send(Err(InvokeError::Disconnected));
        }
    }
}
