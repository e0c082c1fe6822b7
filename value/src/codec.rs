//! Values in the formats of other languages.
//!
//! | format | module | what it is for |
//! |---|---|---|
//! | tagged JSON | [`json`] | any language: what JSON has no word for is `["!tag", …]`, as in Datahike |
//! | plain JSON | [`json::Plain`] | people with `curl`: readable, one way |
//! | transit | [`transit`] | Clojure, JavaScript, Python clients; with its caching codes |
//! | CBOR | [`cbor`] | binary, with registered tags |
//!
//! Names are written as their text. One that reads back from its text as another name (`#keyword [nil
//! "a/b"]`) is not kept apart from that.
//!
//! Every reader is bounded by [`Limits`](crate::Limits) and reports what is wrong by a [`CodecError`].

pub mod cbor;
pub mod json;
pub mod transit;

use crate::edn;
use crate::value::Value;

/// Whether there is a name in this text: a colon in front is not part of one.
fn is_name(text: &str) -> bool {
    !matches!(text, "" | ":")
}

/// Bytes or text that are not a value in the format.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum CodecError {
    /// Not the format at all.
    #[error("not {format}: {reason}")]
    Syntax {
        /// Its name.
        format: &'static str,
        /// What is wrong, and where as far as known.
        reason: String,
    },
    /// A tag in front of something that cannot stand behind it.
    #[error("{tag} does not fit {found}")]
    Tag {
        /// The tag.
        tag: String,
        /// What stands behind it, shortened.
        found: String,
    },
    /// Nested too deeply, or too large.
    #[error("more than {max} {what}")]
    Limit {
        /// What there is too much of.
        what: &'static str,
        /// The bound.
        max: usize,
    },
}

impl CodecError {
    fn tag(tag: impl Into<String>, found: impl std::fmt::Display) -> Self {
        let mut found = found.to_string();
        if let Some((end, _)) = found.char_indices().nth(80) {
            found.truncate(end);
            found.push('…');
        }
        Self::Tag { tag: tag.into(), found }
    }
}

/// A number that a format writes as text: the EDN number that `text` with `suffix` is.
fn number(tag: &str, text: &str, suffix: char) -> Result<Value, CodecError> {
    let plain = |c: char| c.is_ascii_digit() || matches!(c, '+' | '-' | '.' | 'e' | 'E');
    let read = text.chars().all(plain).then(|| edn::read(&format!("{text}{suffix}")).ok());
    read.flatten().filter(Value::is_number).ok_or_else(|| CodecError::tag(tag, text))
}

/// The digits of a big decimal, without its `M`.
fn decimal_digits(value: &Value) -> String {
    value.to_string().trim_end_matches('M').to_owned()
}
