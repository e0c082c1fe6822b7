use datahike_peer::{Refusal, SendError};
use datahike_value::{Keyword, kw};

/// Why an invocation has no result.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum InvokeError {
    /// The function, or the peer that has it, said no: its own code, or one of
    /// `:scope/unknown-function`, `:scope/bad-arguments`, `:scope/too-many-in-flight`,
    /// `:scope/deadline`, `:scope/result-too-big`, `:scope/failed` (it ended without an answer), or
    /// what [`Authorize`](datahike_peer::Authorize) says.
    #[error("{0}")]
    Remote(Refusal),
    /// There is no connection, or it went before the answer came: whether the function ran is unknown.
    #[error("there is no connection, or it went before the answer came")]
    Disconnected,
    /// No answer came in time; the function was told to stop.
    #[error("no answer came in time")]
    Deadline,
    /// The invocation could not be sent; the function did not run.
    #[error("the invocation was not sent: {0}")]
    NotSent(SendError),
    /// The arguments cannot be turned into a value; nothing was sent.
    #[error("the arguments have no form as a value: {0}")]
    Arguments(String),
    /// The result is not of the type that was asked for. The function ran.
    #[error("the result is not what was expected: {0}")]
    Result(String),
}

impl InvokeError {
    /// A code that programs can act on: the remote one, or one of `:scope/disconnected`,
    /// `:scope/deadline`, `:scope/not-sent`, `:scope/bad-arguments`, `:scope/bad-result`.
    pub fn code(&self) -> Keyword {
        match self {
            Self::Remote(refusal) => refusal.code.clone(),
            Self::Disconnected => kw!("scope/disconnected"),
            Self::Deadline => kw!("scope/deadline"),
            Self::NotSent(_) => kw!("scope/not-sent"),
            Self::Arguments(_) => kw!("scope/bad-arguments"),
            Self::Result(_) => kw!("scope/bad-result"),
        }
    }

    /// Whether the function may have run.
    pub fn may_have_run(&self) -> bool {
        match self {
            Self::NotSent(_) | Self::Arguments(_) => false,
            Self::Remote(refusal) => !matches!(
                refusal.code.text(),
                "scope/unknown-function" | "scope/bad-arguments" | "scope/too-many-in-flight"
            ),
            Self::Disconnected | Self::Deadline | Self::Result(_) => true,
        }
    }
}
