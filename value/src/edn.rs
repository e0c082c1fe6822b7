//! EDN text: reading with positions and limits, printing as Clojure prints.
//!
//! Printing and reading again gives back the same value, for every value. What EDN has no literal for is
//! written under a tag: `#bytes "00ff"`, `#float 1.5`, `#floats [1.0]`, `#doubles [1.0]`, and
//! `#keyword ["ns" "odd name"]`, `#symbol [nil "42"]`, `#tagged [inst "not a date"]` where the plain form
//! would read as something else. Read besides: `#dh/bytes`, `#dh/f32`, `#dh/f32s`, `#dh/f64s`,
//! `#dh/i32`, `#dh/bigint`.

mod error;
mod lexer;
mod number;
mod printer;
mod reader;
mod tags;

pub use error::{Position, ReadError, ReadErrorKind};
pub use reader::{Form, Reader};

use crate::limits::Limits;
use crate::value::Value;

/// Reads the one form in `text`.
///
/// # Errors
/// If there is no form, or more than one, or it is not EDN, or it passes [`Limits::DEFAULT`].
pub fn read(text: &str) -> Result<Value, ReadError> {
    Reader::new(text).only_form()
}

/// Reads every form in `text`.
///
/// # Errors
/// As [`read()`]; no form at all is fine.
pub fn read_all(text: &str) -> Result<Vec<Value>, ReadError> {
    Reader::new(text).map(|form| Ok(form?.value)).collect()
}

/// [`read()`] with bounds of one's own.
///
/// # Errors
/// As [`read()`].
pub fn read_with(text: &str, limits: &Limits) -> Result<Value, ReadError> {
    Reader::with_limits(text, limits.clone()).only_form()
}
