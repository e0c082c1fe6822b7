//! What is said when a command fails, and how it exits.

use std::fmt::Write as _;
use std::io::{self, Write as _};
use std::process::ExitCode;

/// Why a command ends early.
#[derive(Debug)]
pub(crate) struct Failure {
    message: String,
    hint: Option<&'static str>,
    exit: Exit,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Exit {
    /// Whoever read the output has enough: no failure.
    Quiet,
    /// Failed, and said so where results go.
    Said,
    Failed,
    WrongUse,
}

impl Failure {
    /// Something did not work.
    pub(crate) fn new(message: impl Into<String>) -> Self {
        Self { message: message.into(), hint: None, exit: Exit::Failed }
    }

    /// The command was called wrongly.
    pub(crate) fn usage(message: impl Into<String>) -> Self {
        Self { exit: Exit::WrongUse, ..Self::new(message) }
    }

    /// Something did not work, and the output says what.
    pub(crate) fn said() -> Self {
        Self { exit: Exit::Said, ..Self::new("") }
    }

    /// The same with advice.
    #[must_use]
    pub(crate) fn hint(self, hint: &'static str) -> Self {
        Self { hint: Some(hint), ..self }
    }

    /// The same, saying what it happened to.
    #[must_use]
    pub(crate) fn at(self, place: impl std::fmt::Display) -> Self {
        Self { message: format!("{place}: {}", self.message), ..self }
    }

    /// Tells the user, and how to exit.
    pub(crate) fn report(&self) -> ExitCode {
        let mut text = format!("datahike: {}\n", self.message);
        if let Some(hint) = self.hint {
            let _ = writeln!(text, "  hint: {hint}");
        }
        if matches!(self.exit, Exit::Failed | Exit::WrongUse) {
            // Nobody is left to tell if this cannot be written.
            let _ = io::stderr().write_all(text.as_bytes());
        }
        match self.exit {
            Exit::Quiet => ExitCode::SUCCESS,
            Exit::Said | Exit::Failed => ExitCode::FAILURE,
            Exit::WrongUse => ExitCode::from(2),
        }
    }
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        let exit = match error.kind() {
            io::ErrorKind::BrokenPipe => Exit::Quiet,
            _ => Exit::Failed,
        };
        Self { exit, ..Self::new(error.to_string()) }
    }
}

impl From<datahike::Error> for Failure {
    fn from(error: datahike::Error) -> Self {
        let hint = match error.code() {
            "store/locked" => Some(
                "a server or another command writes it: go through the server (ws://…), or stop it; \
                 reading works meanwhile",
            ),
            "peer/unauthenticated" => Some("give --token, or set DATAHIKE_TOKEN"),
            "database/missing" => Some("see what there is with `datahike list`"),
            "connection/failed" => Some("is the server running, and is this its address?"),
            "store/no-space" => {
                Some("make room on the disk; nothing that was acknowledged is lost")
            }
            "query/timeout" => {
                Some("the server bounds queries: mirror the database and ask the copy")
            }
            _ => None,
        };
        let mut message = error.to_string();
        let mut source = std::error::Error::source(&error);
        while let Some(cause) = source {
            let cause_text = cause.to_string();
            if !message.contains(&cause_text) {
                let _ = write!(message, ": {cause_text}");
            }
            source = cause.source();
        }
        Self { hint, ..Self::new(message) }
    }
}

macro_rules! failures {
    ($($error:ty),*) => {
        $(impl From<$error> for Failure {
            fn from(error: $error) -> Self {
                datahike::Error::from(error).into()
            }
        })*
    };
}

failures!(
    datahike::store::StoreError,
    datahike::core::tx::TxError,
    datahike::core::db::DbError,
    datahike::core::block::Missing,
    datahike::query::QueryError,
    datahike::config::ConfigError
);

impl From<serde_json::Error> for Failure {
    fn from(error: serde_json::Error) -> Self {
        match error.io_error_kind() {
            Some(kind) => io::Error::from(kind).into(),
            None => Self::new(error.to_string()),
        }
    }
}

impl From<csv::Error> for Failure {
    fn from(error: csv::Error) -> Self {
        let message = error.to_string();
        match error.into_kind() {
            csv::ErrorKind::Io(error) => error.into(),
            _ => Self::new(message),
        }
    }
}
