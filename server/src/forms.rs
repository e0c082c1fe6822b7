//! EDN forms as they come in: each is handed on when it is complete, not when the input ends.

use std::io::BufRead;

use datahike::Value;
use datahike::edn::{Position, ReadError, ReadErrorKind, Reader};

use crate::failure::Failure;

/// Bytes of one form. A transaction is limited below it.
const FORM_BYTES_MAX: usize = 64 << 20;

/// The forms of a stream.
pub(crate) struct Forms<R> {
    input: R,
    name: String,
    buffer: String,
    /// Bytes and lines that were handed on before the buffer.
    passed: Position,
    scan: Scan,
    ready: std::vec::IntoIter<Value>,
    /// What comes after what is ready.
    failed: Option<Failure>,
    ended: bool,
}

impl<R: BufRead> Forms<R> {
    /// Reads from `input`, which errors call `name`.
    pub(crate) fn new(input: R, name: impl Into<String>) -> Self {
        Self {
            input,
            name: name.into(),
            buffer: String::new(),
            passed: Position { line: 1, column: 1, offset: 0 },
            scan: Scan::default(),
            ready: Vec::new().into_iter(),
            failed: None,
            ended: false,
        }
    }

    /// The next form; `None` at the end. After a failure there are no more.
    pub(crate) fn next(&mut self) -> Result<Option<Value>, Failure> {
        loop {
            if let Some(form) = self.ready.next() {
                return Ok(Some(form));
            }
            if let Some(failure) = self.failed.take() {
                return Err(failure);
            }
            if self.ended {
                return Ok(None);
            }
            let before = self.buffer.len();
            match self.input.read_line(&mut self.buffer) {
                Ok(0) => self.ended = true,
                Ok(_) => self.scan.see(&self.buffer[before..]),
                Err(error) => return Err(Failure::from(error).at(&self.name)),
            }
            if self.buffer.len() > FORM_BYTES_MAX {
                let text = format!("a form is longer than {FORM_BYTES_MAX} bytes");
                return Err(Failure::new(text).at(&self.name));
            }
            if self.ended || self.scan.is_complete() {
                self.read()?;
            }
        }
    }

    fn read(&mut self) -> Result<(), Failure> {
        let mut forms = Vec::new();
        for form in Reader::new(&self.buffer) {
            match form {
                Ok(form) => forms.push(form.value),
                // A tag or discard at the end of a line belongs to what follows.
                Err(ReadError { kind: ReadErrorKind::UnexpectedEnd { .. }, .. }) if !self.ended => {
                    return Ok(());
                }
                Err(error) => {
                    self.ended = true;
                    self.failed = Some(self.failure(error));
                    break;
                }
            }
        }
        self.ready = forms.into_iter();
        self.passed.line += self.buffer.matches('\n').count();
        self.passed.offset += self.buffer.len();
        self.buffer.clear();
        Ok(())
    }

    fn failure(&self, mut error: ReadError) -> Failure {
        error.position.line += self.passed.line - 1;
        error.position.offset += self.passed.offset;
        Failure::new(error.to_string()).at(&self.name)
    }
}

/// Tells whether brackets and strings are closed, without reading what is in them.
#[derive(Debug, Default)]
struct Scan {
    depth: usize,
    in_string: bool,
}

impl Scan {
    fn see(&mut self, line: &str) {
        let mut bytes = line.bytes();
        while let Some(byte) = bytes.next() {
            match byte {
                b'\\' => {
                    // An escape in a string, a character outside: what follows means itself.
                    bytes.next();
                }
                b'"' => self.in_string = !self.in_string,
                _ if self.in_string => {}
                b';' => return,
                b'(' | b'[' | b'{' => self.depth += 1,
                b')' | b']' | b'}' => self.depth = self.depth.saturating_sub(1),
                _ => {}
            }
        }
    }

    fn is_complete(&self) -> bool {
        self.depth == 0 && !self.in_string
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all(text: &str) -> Result<Vec<String>, Failure> {
        let mut forms = Forms::new(text.as_bytes(), "test");
        let mut found = Vec::new();
        while let Some(form) = forms.next()? {
            found.push(form.to_string());
        }
        Ok(found)
    }

    #[test]
    fn forms_may_span_lines_and_share_them() {
        let text = "[1\n 2] [3]\n; [ a comment\n{:a \"[\n\"}\n[\\[ \\\"]\n#inst\n\"2026-01-01T00:00:00.000-00:00\"";
        let found = all(text).unwrap();
        assert_eq!(found.len(), 5, "{found:?}");
        assert_eq!(found[..2], ["[1 2]", "[3]"]);
    }

    #[test]
    fn a_form_is_there_before_the_input_ends() {
        let (reader, mut writer) = std::io::pipe().unwrap();
        let mut forms = Forms::new(std::io::BufReader::new(reader), "pipe");
        std::io::Write::write_all(&mut writer, b"[1]\n").unwrap();
        assert_eq!(forms.next().unwrap().map(|form| form.to_string()), Some("[1]".to_owned()));
    }

    #[test]
    fn positions_count_from_the_beginning_of_the_input() {
        let failure = format!("{:?}", all("[1]\n[2]\n[3 }\n").unwrap_err());
        assert!(failure.contains("line 3, column 4"), "{failure}");
    }
}
