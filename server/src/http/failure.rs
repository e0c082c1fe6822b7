//! What a request is told that cannot be answered.

use datahike::{Error, Uuid, Value, kw};
use http::StatusCode;

/// Why a request is not answered: a status, words, and the code and data of `:ex-data`.
#[derive(Debug)]
pub(super) struct Problem {
    pub(super) status: StatusCode,
    message: String,
    code: String,
    hint: Option<String>,
}

/// The caller's mistake.
pub(super) fn wrong(message: impl Into<String>) -> Problem {
    Problem::new(StatusCode::BAD_REQUEST, "arguments/invalid", message)
}

impl Problem {
    pub(super) fn new(
        status: StatusCode,
        code: impl Into<String>,
        message: impl Into<String>,
    ) -> Self {
        Self { status, message: message.into(), code: code.into(), hint: None }
    }

    pub(super) fn hint(self, hint: impl Into<String>) -> Self {
        Self { hint: Some(hint.into()), ..self }
    }

    /// A commit that the store no longer tells of.
    pub(super) fn gone(commit: Uuid) -> Self {
        let message = format!("commit {commit} is not here any more, or never was");
        Self::new(StatusCode::GONE, "commit/gone", message)
            .hint("commits go when the database is compacted: ask for a newer database value")
    }

    /// `{:msg … :ex-data {:error code}}`
    pub(super) fn to_value(&self) -> Value {
        let hint = self.hint.as_deref().map(|hint| (kw!("hint").into(), Value::from(hint)));
        let error = (kw!("error").into(), Value::keyword(&self.code));
        Value::map([
            (kw!("msg").into(), self.message.as_str().into()),
            (kw!("ex-data").into(), Value::map(std::iter::once(error).chain(hint))),
        ])
    }
}

impl<E: Into<Error>> From<E> for Problem {
    fn from(error: E) -> Self {
        let error = error.into();
        let code = error.code().to_owned();
        let status = match code.as_str() {
            "database/missing" | "branch/missing" | "entity-id/missing" => StatusCode::NOT_FOUND,
            "commit/missing" | "commit/gone" | "log/gone" => StatusCode::GONE,
            "database/exists" | "branch/exists" => StatusCode::CONFLICT,
            "connection/read-only" | "peer/forbidden" => StatusCode::FORBIDDEN,
            "transact/too-large" => StatusCode::PAYLOAD_TOO_LARGE,
            "store/no-space" => StatusCode::INSUFFICIENT_STORAGE,
            "store/locked" | "writer/lost" | "connection/released" | "timeout" => {
                StatusCode::SERVICE_UNAVAILABLE
            }
            code if code.starts_with("store/")
                || code.starts_with("block/")
                || code.starts_with("system/") =>
            {
                StatusCode::INTERNAL_SERVER_ERROR
            }
            _ => StatusCode::BAD_REQUEST,
        };
        Self::new(status, code, error.to_string())
    }
}
