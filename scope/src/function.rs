use std::fmt;
use std::future::Future;

use datahike_peer::{BoxFuture, Connection, MaybeSend, MaybeSync, Principal, Refusal, Time};
use datahike_value::{Value, from_value, to_value};
use serde::Serialize;
use serde::de::DeserializeOwned;

/// What a function knows about the invocation besides its arguments.
#[derive(Clone, Debug)]
pub struct Call {
    connection: Connection,
    deadline: Time,
}

impl Call {
    pub(crate) fn new(connection: Connection, deadline: Time) -> Self {
        Self { connection, deadline }
    }

    /// The connection that it came over; functions of the other side can be invoked on it.
    pub fn connection(&self) -> &Connection {
        &self.connection
    }

    /// Whom the caller was found to be.
    pub fn principal(&self) -> Option<&Principal> {
        self.connection.principal()
    }

    /// When the caller stops waiting; the function's future is dropped then.
    pub fn deadline(&self) -> Time {
        self.deadline
    }
}

/// A registered function.
pub(crate) trait Function: MaybeSend + MaybeSync {
    /// Called in the order in which invocations arrive; the futures run side by side.
    fn call(&self, call: Call, arguments: Value) -> BoxFuture<'static, Result<Value, Refusal>>;
}

/// A function over values.
pub(crate) struct Raw<F>(pub(crate) F);

impl<F, U> Function for Raw<F>
where
    F: Fn(Call, Value) -> U + MaybeSend + MaybeSync,
    U: Future<Output = Result<Value, Refusal>> + MaybeSend + 'static,
{
    fn call(&self, call: Call, arguments: Value) -> BoxFuture<'static, Result<Value, Refusal>> {
        Box::pin((self.0)(call, arguments))
    }
}

/// A function over whatever serde can turn into values and back.
pub(crate) fn typed<A, R, E, F, U>(
    function: F,
) -> impl Fn(Call, Value) -> BoxFuture<'static, Result<Value, Refusal>> + MaybeSend + MaybeSync
where
    A: DeserializeOwned,
    R: Serialize,
    E: Into<Refusal>,
    F: Fn(Call, A) -> U + MaybeSend + MaybeSync,
    U: Future<Output = Result<R, E>> + MaybeSend + 'static,
{
    move |call, arguments| {
        let arguments: A = match from_value(arguments) {
            Ok(arguments) => arguments,
            Err(error) => {
                let refusal = Refusal::new("scope/bad-arguments", error.to_string());
                return Box::pin(async { Err(refusal) });
            }
        };
        let work = function(call, arguments);
        Box::pin(async move {
            let result = work.await.map_err(Into::into)?;
            to_value(&result).map_err(|error| {
                let message = format!("the result has no form as a value: {error}");
                Refusal::new("scope/failed", message)
            })
        })
    }
}

impl fmt::Debug for dyn Function {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Function(..)")
    }
}
