//! What can be wrong with EDN text, and where.

use std::fmt;

/// A place in a text.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Position {
    /// Line, from 1.
    pub line: usize,
    /// Column in characters, from 1.
    pub column: usize,
    /// Bytes before it, from 0.
    pub offset: usize,
}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "line {}, column {} (byte {})", self.line, self.column, self.offset)
    }
}

/// Text that is not EDN, or passes a limit.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{kind} at {position}")]
pub struct ReadError {
    /// What is wrong.
    pub kind: ReadErrorKind,
    /// Where what is wrong begins.
    pub position: Position,
}

/// What is wrong with the text.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ReadErrorKind {
    /// Nothing but blanks and comments.
    #[error("no form found")]
    Empty,
    /// One form was asked for and there is more.
    #[error("text after the end of the form")]
    ExtraForm,
    /// A collection, string, tag or discard is not finished.
    #[error("the text ends inside the {inside} that begins")]
    UnexpectedEnd {
        /// What is not finished.
        inside: &'static str,
    },
    /// A closing delimiter that nothing opened, or another than the one that is open.
    #[error("unmatched `{found}`{}", .expected.map(|c| format!(", expected `{c}`")).unwrap_or_default())]
    UnmatchedClose {
        /// What stands there.
        found: char,
        /// What would close the innermost open collection.
        expected: Option<char>,
    },
    /// A tag or `#_` directly before a closing delimiter.
    #[error("nothing follows the {what}")]
    NothingFollows {
        /// The tag or discard.
        what: &'static str,
    },
    /// A map whose last key has no value.
    #[error("map with an odd number of forms: the last key has no value")]
    OddMap,
    /// A key that is there twice.
    #[error("duplicate key in map: {0}")]
    DuplicateKey(String),
    /// An element that is there twice.
    #[error("duplicate element in set: {0}")]
    DuplicateElement(String),
    /// A character with which nothing begins.
    #[error("unexpected `{found}`: {hint}")]
    Unexpected {
        /// The character.
        found: char,
        /// What to write instead.
        hint: &'static str,
    },
    /// Neither a symbol nor a keyword.
    #[error("invalid token `{token}`: {reason}")]
    InvalidToken {
        /// The token, shortened.
        token: String,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// Begins like a number and is none.
    #[error("invalid number `{token}`: {reason}")]
    InvalidNumber {
        /// The token, shortened.
        token: String,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// A backslash in a string with nothing known after it.
    #[error("invalid escape in string: {0}")]
    InvalidEscape(String),
    /// A backslash with no character literal after it.
    #[error("invalid character literal `\\{0}`")]
    InvalidChar(String),
    /// A known tag before something it cannot read.
    #[error("invalid #{tag}: {reason}")]
    InvalidTagged {
        /// The tag.
        tag: &'static str,
        /// What it needs.
        reason: String,
    },
    /// A dispatch macro EDN does not have.
    #[error("unsupported `#{0}`")]
    UnsupportedDispatch(String),
    /// More levels than [`crate::Limits::depth`].
    #[error("nested more than {limit} levels deep")]
    TooDeep {
        /// The limit.
        limit: usize,
    },
    /// More elements than [`crate::Limits::collection_items`].
    #[error("more than {limit} items in one collection")]
    TooManyItems {
        /// The limit.
        limit: usize,
    },
    /// More digits than [`crate::Limits::digits`].
    #[error("number of more than {limit} digits")]
    TooManyDigits {
        /// The limit.
        limit: usize,
    },
    /// An exponent or scale beyond [`crate::Limits::exponent`].
    #[error("decimal exponent beyond {limit}")]
    ExponentTooLarge {
        /// The limit.
        limit: i64,
    },
    /// A string, regex or name longer than [`crate::Limits::string_bytes`].
    #[error("string of more than {limit} bytes")]
    StringTooLong {
        /// The limit.
        limit: usize,
    },
}
