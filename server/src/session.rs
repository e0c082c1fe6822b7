//! A database to read or write, wherever it is, through the one table of operations.

use std::time::{Duration, Instant};

use datahike::config::{Secret, WriterConfig};
use datahike::kabel::{Client, Remote};
use datahike::ops::{self, Bounds, Operation};
use datahike::peer::{self, TokioRuntime};
use datahike::scope::{InvokeError, InvokeOptions};
use datahike::{Config, Connection, Error, Value, connect, kw};

use crate::cli::{Access, Target};
use crate::failure::Failure;
use crate::place::Place;

/// Comes before the name of an operation where it is invoked at a server.
pub(crate) const PREFIX: &str = "datahike.op/";

/// How long the server may work on one invocation.
const ANSWER: Duration = Duration::from_secs(30);

/// Between two attempts to reach a server.
const RETRY_AFTER: Duration = Duration::from_millis(50);

/// An open database.
#[derive(Debug)]
pub(crate) enum Session {
    /// In this process.
    Local(Connection),
    /// At a server.
    Remote(RemoteSession),
}

/// A server, and which of its databases is meant.
#[derive(Clone, Debug)]
pub(crate) struct RemoteSession {
    client: Client,
    remote: Remote,
    database: Value,
    timeout: Duration,
}

/// What came of trying once to carry out a transaction.
#[derive(Debug)]
pub(crate) enum Attempt {
    /// It happened, or was refused.
    Answered(Result<Value, Error>),
    /// The connection was lost before there was an answer: ask again under the same id.
    Lost,
}

impl Session {
    /// Opens for reading; a server or another process may write meanwhile.
    pub(crate) async fn read(target: &Target) -> Result<Self, Failure> {
        Self::open(target, WriterConfig::ReadOnly).await
    }

    /// Opens for writing.
    pub(crate) async fn write(target: &Target) -> Result<Self, Failure> {
        Self::open(target, WriterConfig::Local).await
    }

    async fn open(target: &Target, writer: WriterConfig) -> Result<Self, Failure> {
        match &target.db {
            Place::File(folder) => {
                let config = Config::file(folder).writer(writer).branch(&target.branch);
                Ok(Self::Local(connect(&config).await?))
            }
            Place::Server(_) if target.branch != Config::BRANCH => {
                let text = format!("{}: --branch works on file: databases", target.db);
                Err(Failure::usage(text).hint("to read another branch, say --at BRANCH"))
            }
            Place::Server(at) => {
                let session = RemoteSession::connect(&at.url, &target.access).await?;
                Ok(Self::Remote(session.with_database(at.name.as_str().into())))
            }
        }
    }

    /// Carries out an operation; `arguments` without the database.
    pub(crate) async fn call(
        &self,
        operation: &'static str,
        arguments: impl IntoIterator<Item = (&'static str, Value)>,
    ) -> Result<Value, Failure> {
        Ok(self.invoke(operation, arguments).await?)
    }

    /// The same, for those who tell of errors in another way.
    pub(crate) async fn invoke(
        &self,
        operation: &'static str,
        arguments: impl IntoIterator<Item = (&'static str, Value)>,
    ) -> Result<Value, Error> {
        match self {
            Self::Local(connection) => {
                declared(operation)?.call_on(connection, &map(arguments), Bounds::OWN).await
            }
            Self::Remote(remote) => remote.call(operation, arguments).await,
        }
    }

    /// Ends it: what is local gives up its lock.
    pub(crate) async fn close(self) -> Result<(), Failure> {
        match self {
            Self::Local(connection) => Ok(connection.release().await?),
            Self::Remote(session) => {
                session.remote.link().close();
                Ok(())
            }
        }
    }
}

impl RemoteSession {
    /// Reaches a server.
    pub(crate) async fn connect(url: &str, access: &Access) -> Result<Self, Failure> {
        let client = Client::new(None, std::sync::Arc::new(TokioRuntime::current()));
        let token = access.token.as_ref().map(Secret::new);
        let remote = client.connect(url, token.as_ref());
        remote.connected(access.timeout).await?;
        Ok(Self { client, remote, database: Value::Nil, timeout: access.timeout })
    }

    fn with_database(self, database: Value) -> Self {
        Self { database, ..self }
    }

    /// Has the server open a database that it does not have open yet.
    pub(crate) async fn open(&self, database: &Value) -> Result<(), Error> {
        let session = self.clone().with_database(database.clone());
        session.call("await", [("after", Value::Long(0))]).await.map(drop)
    }

    /// The server.
    pub(crate) fn remote(&self) -> &Remote {
        &self.remote
    }

    /// Carries out an operation there.
    pub(crate) async fn call(
        &self,
        operation: &'static str,
        arguments: impl IntoIterator<Item = (&'static str, Value)>,
    ) -> Result<Value, Error> {
        let operation = declared(operation)?;
        let database = operation.needs_database().then(|| ("db", self.database.clone()));
        let arguments = map(arguments.into_iter().chain(database));
        let limit = Instant::now() + self.timeout;
        loop {
            match self.invoke(operation.name, arguments.clone()).await {
                // What changes nothing may be asked for again.
                Err(InvokeError::Disconnected) if operation.pure => self.reconnect(limit).await?,
                answer => return answer.map_err(|error| self.failure(error)),
            }
        }
    }

    /// Tries once to carry out a transaction, given the operation's arguments for it.
    pub(crate) async fn transact(&self, arguments: Vec<(&'static str, Value)>) -> Attempt {
        let database = [("db", self.database.clone())];
        match self.invoke("transact", map(arguments.into_iter().chain(database))).await {
            Err(InvokeError::Disconnected | InvokeError::Deadline) => Attempt::Lost,
            Err(InvokeError::Remote(refusal)) if passing(refusal.code.text()) => Attempt::Lost,
            answer => Attempt::Answered(answer.map_err(|error| self.failure(error))),
        }
    }

    /// Waits until there is a later transaction than `after`, or some seconds.
    pub(crate) async fn wait(&self, after: i64) -> Result<(), Failure> {
        let arguments = map([("db", self.database.clone()), ("after", Value::Long(after))]);
        match self.invoke("await", arguments).await {
            Ok(_) | Err(InvokeError::Deadline) => Ok(()),
            Err(InvokeError::Remote(refusal)) if refusal.code.text() == "scope/deadline" => Ok(()),
            Err(InvokeError::Disconnected) => {
                Ok(self.reconnect(Instant::now() + self.timeout).await?)
            }
            Err(error) => Err(self.failure(error).into()),
        }
    }

    async fn invoke(&self, operation: &str, arguments: Value) -> Result<Value, InvokeError> {
        let name = format!("{PREFIX}{operation}");
        let options = InvokeOptions { deadline: Some(ANSWER) };
        self.client.scope().invoke_value(self.remote.link(), &name, arguments, options).await
    }

    /// Waits for a connection after one was lost.
    pub(crate) async fn reconnect(&self, limit: Instant) -> Result<(), Error> {
        let left = limit.saturating_duration_since(Instant::now());
        if left.is_zero() {
            let millis = u64::try_from(self.timeout.as_millis()).unwrap_or(u64::MAX);
            return Err(Error::Timeout { what: "reaching the server again", millis });
        }
        tokio::time::sleep(RETRY_AFTER).await;
        // No waiting for a back-off that a busy client would not have.
        self.remote.link().retry();
        self.remote.connected(left).await
    }

    fn failure(&self, error: InvokeError) -> Error {
        match error {
            InvokeError::Remote(refusal) => Error::Remote {
                code: refusal.code.text().to_owned(),
                message: refusal.message,
                data: refusal.data,
            },
            other => Error::Connection {
                place: self.remote.link().address().to_owned(),
                reason: other.to_string(),
            },
        }
    }
}

/// Refusals that say nothing about the transaction.
fn passing(code: &str) -> bool {
    ["scope/too-many-in-flight", "scope/deadline", "peer/stopping", "connection/released"]
        .contains(&code)
}

fn declared(name: &'static str) -> Result<&'static Operation, Error> {
    let reason = "there is no such operation".to_owned();
    ops::operation(name).ok_or(Error::Arguments { operation: name, reason })
}

/// Arguments as a map, without those that are nil.
fn map(arguments: impl IntoIterator<Item = (&'static str, Value)>) -> Value {
    let given = arguments.into_iter().filter(|(_, value)| !value.is_nil());
    Value::map(given.map(|(name, value)| (Value::keyword(name), value)))
}

/// A refusal as a client gets it.
pub(crate) fn refusal(error: &Error) -> peer::Refusal {
    peer::Refusal::new(error.code(), error.to_string())
}

/// The report's or failure's line of output.
pub(crate) fn error_line(error: &Error) -> Value {
    let entries = [
        (kw!("error").into(), Value::keyword(error.code())),
        (kw!("message").into(), error.to_string().as_str().into()),
    ];
    Value::map(entries)
}
