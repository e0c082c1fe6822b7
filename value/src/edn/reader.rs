//! Tokens into values, without recursion: open collections and waiting tags are a stack of frames.

use std::sync::Arc;

use super::error::{Position, ReadError, ReadErrorKind};
use super::lexer::{
    Bracket, LexError, Lexer, Token, invalid_token, is_readable_keyword, is_readable_symbol,
};
use super::number;
use super::tags::Tag;
use crate::keyword::{Keyword, Symbol};
use crate::limits::Limits;
use crate::value::{Regex, Tagged, Value};

/// A form and where it stood.
#[derive(Clone, Debug, PartialEq)]
pub struct Form {
    /// What was read.
    pub value: Value,
    /// Where it begins.
    pub position: Position,
    /// The byte after its last.
    pub end: usize,
}

/// The forms of a text, one after another. After an error there are no more.
///
/// ```
/// use datahike_value::edn::Reader;
///
/// let mut forms = Reader::new("{:a 1} ; one\n[2");
/// assert_eq!(forms.next().unwrap()?.value.to_string(), "{:a 1}");
/// let error = forms.next().unwrap().unwrap_err();
/// assert_eq!(error.to_string(), "the text ends inside the vector that begins at line 2, column 1 (byte 13)");
/// assert!(forms.next().is_none());
/// # Ok::<(), datahike_value::edn::ReadError>(())
/// ```
#[derive(Clone)]
pub struct Reader<'a> {
    lexer: Lexer<'a>,
    limits: Limits,
    /// A place already counted: lines are counted on from here, so that a stream of forms costs its length.
    counted: Position,
    failed: bool,
}

impl<'a> Reader<'a> {
    /// The forms of `text`, under [`Limits::DEFAULT`].
    pub fn new(text: &'a str) -> Self {
        Self::with_limits(text, Limits::DEFAULT)
    }

    /// The forms of `text`.
    pub fn with_limits(text: &'a str, limits: Limits) -> Self {
        let counted = Position { line: 1, column: 1, offset: 0 };
        Self { lexer: Lexer::new(text), limits, counted, failed: false }
    }

    /// Bytes read so far.
    pub fn offset(&self) -> usize {
        self.lexer.offset()
    }

    pub(super) fn only_form(mut self) -> Result<Value, ReadError> {
        let form = match self.next() {
            Some(form) => form?,
            None => return Err(self.error((ReadErrorKind::Empty, self.lexer.text().len()))),
        };
        match self.next() {
            None => Ok(form.value),
            Some(Ok(extra)) => {
                Err(ReadError { kind: ReadErrorKind::ExtraForm, position: extra.position })
            }
            Some(Err(error)) => Err(error),
        }
    }

    fn position(&mut self, offset: usize) -> Position {
        let mut position = self.counted;
        if offset < position.offset {
            position = Position { line: 1, column: 1, offset: 0 };
        }
        let passed = self.lexer.text().get(position.offset..offset).unwrap_or_default();
        match passed.rfind('\n') {
            Some(last) => {
                position.line += passed.bytes().filter(|b| *b == b'\n').count();
                position.column = 1 + passed[last + 1..].chars().count();
            }
            None => position.column += passed.chars().count(),
        }
        position.offset = offset;
        self.counted = position;
        position
    }

    fn error(&mut self, (kind, offset): LexError) -> ReadError {
        self.failed = true;
        ReadError { kind, position: self.position(offset) }
    }

    fn form(&mut self) -> Result<Option<(Value, usize)>, LexError> {
        let mut frames: Vec<Frame<'a>> = Vec::new();
        let mut begin = None;
        loop {
            let Some((token, at)) = self.lexer.next(&self.limits)? else {
                return match frames.last() {
                    // Only discards of whole forms came before the end.
                    None => Ok(None),
                    Some(frame) => {
                        let inside = frame.kind.name();
                        Err((ReadErrorKind::UnexpectedEnd { inside }, frame.at))
                    }
                };
            };
            let kind = match token {
                Token::Open(bracket) => FrameKind::Collection(bracket),
                Token::NamespacedMap(namespace) => FrameKind::NamespacedMap(namespace),
                Token::Tag(tag) => FrameKind::Tag(tag),
                Token::Discard => FrameKind::Discard,
                Token::Close(found) => {
                    let Some(frame) = frames.pop() else {
                        return Err((ReadErrorKind::UnmatchedClose { found, expected: None }, at));
                    };
                    let value = self.close(frame, found, at)?;
                    if let Some(value) = give(&mut frames, value, &self.limits)? {
                        return Ok(Some((value, begin.unwrap_or(at))));
                    }
                    begin = begin.filter(|_| !frames.is_empty());
                    continue;
                }
                atom => {
                    let value = self.atom(atom).map_err(|kind| (kind, at))?;
                    if let Some(value) = give(&mut frames, value, &self.limits)? {
                        return Ok(Some((value, begin.unwrap_or(at))));
                    }
                    begin = begin.filter(|_| !frames.is_empty());
                    continue;
                }
            };
            if frames.len() >= self.limits.depth {
                return Err((ReadErrorKind::TooDeep { limit: self.limits.depth }, at));
            }
            begin = begin.or(Some(at));
            frames.push(Frame { kind, items: Vec::new(), at });
        }
    }

    fn close(&self, frame: Frame<'a>, found: char, at: usize) -> Result<Value, LexError> {
        let expected = match frame.kind {
            FrameKind::Collection(bracket) => bracket.closing(),
            FrameKind::NamespacedMap(_) => '}',
            FrameKind::Tag(_) | FrameKind::Discard => {
                return Err((ReadErrorKind::NothingFollows { what: frame.kind.name() }, frame.at));
            }
        };
        if expected != found {
            return Err((ReadErrorKind::UnmatchedClose { found, expected: Some(expected) }, at));
        }
        let items = frame.items;
        match frame.kind {
            FrameKind::Collection(Bracket::List) => Ok(Value::List(items.into())),
            FrameKind::Collection(Bracket::Set) => set(items),
            FrameKind::Collection(Bracket::Map) => map(items, None),
            FrameKind::NamespacedMap(namespace) => map(items, Some(namespace)),
            _ => Ok(Value::Vector(items.into())),
        }
        .map_err(|kind| (kind, frame.at))
    }

    fn atom(&self, token: Token<'a>) -> Result<Value, ReadErrorKind> {
        let text = match token {
            Token::Str(string) => return Ok(Value::from(string)),
            Token::Char(c) => return Ok(Value::Char(c)),
            Token::Regex(source) => {
                return Regex::new(source).map(Value::Regex).map_err(|e| {
                    ReadErrorKind::InvalidTagged { tag: "\"regex\"", reason: e.to_string() }
                });
            }
            Token::Symbolic(name) => {
                return Ok(Value::Double(match name {
                    "Inf" => f64::INFINITY,
                    "-Inf" => f64::NEG_INFINITY,
                    "NaN" => f64::NAN,
                    _ => return Err(invalid_token(name, "known after ## are Inf, -Inf and NaN")),
                }));
            }
            Token::Atom(text) => text,
            _ => return Err(invalid_token("", "not a form")),
        };
        match text {
            "nil" => return Ok(Value::Nil),
            "true" => return Ok(Value::Bool(true)),
            "false" => return Ok(Value::Bool(false)),
            _ => {}
        }
        if let Some(name) = text.strip_prefix(':') {
            return match name {
                _ if is_readable_keyword(name) => Ok(Value::Keyword(Keyword::parse(name))),
                _ if name.starts_with(':') => {
                    Err(invalid_token(text, "EDN has no `::`, write the namespace out"))
                }
                _ => Err(invalid_token(text, "not a keyword")),
            };
        }
        let unsigned = text.strip_prefix(['+', '-']).unwrap_or(text);
        if unsigned.starts_with(|c: char| c.is_ascii_digit()) {
            return number::parse(text, &self.limits);
        }
        match is_readable_symbol(text) {
            true => Ok(Value::Symbol(Symbol::parse(text))),
            false => Err(invalid_token(text, "not a symbol")),
        }
    }
}

impl Iterator for Reader<'_> {
    type Item = Result<Form, ReadError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.failed {
            return None;
        }
        match self.form() {
            Ok(None) => None,
            Ok(Some((value, begin))) => {
                Some(Ok(Form { value, position: self.position(begin), end: self.lexer.offset() }))
            }
            Err(error) => Some(Err(self.error(error))),
        }
    }
}

struct Frame<'a> {
    kind: FrameKind<'a>,
    /// The elements so far; keys and values of a map alternate.
    items: Vec<Value>,
    at: usize,
}

#[derive(Clone, Copy)]
enum FrameKind<'a> {
    Collection(Bracket),
    NamespacedMap(&'a str),
    Tag(&'a str),
    Discard,
}

impl FrameKind<'_> {
    fn name(self) -> &'static str {
        match self {
            Self::Collection(bracket) => bracket.name(),
            Self::NamespacedMap(_) => "map",
            Self::Tag(_) => "tag",
            Self::Discard => "discard #_",
        }
    }
}

/// Hands a finished value to what waits for it; gives it back if nothing does.
fn give(
    frames: &mut Vec<Frame<'_>>,
    mut value: Value,
    limits: &Limits,
) -> Result<Option<Value>, LexError> {
    while let Some(frame) = frames.last_mut() {
        match frame.kind {
            FrameKind::Tag(tag) => {
                value = tagged(tag, value).map_err(|kind| (kind, frame.at))?;
                frames.pop();
            }
            FrameKind::Discard => {
                frames.pop();
                return Ok(None);
            }
            FrameKind::Collection(_) | FrameKind::NamespacedMap(_) => {
                if frame.items.len() >= limits.collection_items {
                    let limit = limits.collection_items;
                    return Err((ReadErrorKind::TooManyItems { limit }, frame.at));
                }
                frame.items.push(value);
                return Ok(None);
            }
        }
    }
    Ok(Some(value))
}

fn tagged(tag: &str, value: Value) -> Result<Value, ReadErrorKind> {
    match Tag::named(tag) {
        Some(known) => known.read(&value),
        None => Ok(Value::Tagged(Arc::new(Tagged { tag: Symbol::parse(tag), value }))),
    }
}

fn set(mut items: Vec<Value>) -> Result<Value, ReadErrorKind> {
    items.sort_unstable();
    match items.windows(2).find(|pair| pair[0] == pair[1]) {
        Some(pair) => Err(ReadErrorKind::DuplicateElement(in_message(&pair[0]))),
        None => Ok(Value::set(items)),
    }
}

fn map(items: Vec<Value>, namespace: Option<&str>) -> Result<Value, ReadErrorKind> {
    if !items.len().is_multiple_of(2) {
        return Err(ReadErrorKind::OddMap);
    }
    let mut entries = Vec::with_capacity(items.len() / 2);
    let mut items = items.into_iter();
    while let (Some(key), Some(value)) = (items.next(), items.next()) {
        let key = namespace.map_or_else(|| key.clone(), |namespace| qualified(&key, namespace));
        entries.push((key, value));
    }
    entries.sort_unstable_by(|a, b| a.0.cmp(&b.0));
    match entries.windows(2).find(|pair| pair[0].0 == pair[1].0) {
        Some(pair) => Err(ReadErrorKind::DuplicateKey(in_message(&pair[0].0))),
        None => Ok(Value::map(entries)),
    }
}

/// A key of `#:namespace{…}`: a name without a namespace gets this one, the namespace `_` is dropped.
fn qualified(key: &Value, namespace: &str) -> Value {
    let of = |own: Option<&str>| match own {
        None => Some(Some(namespace.to_owned())),
        Some("_") => Some(None),
        Some(_) => None,
    };
    match key {
        Value::Keyword(k) => of(k.namespace()).map_or_else(
            || key.clone(),
            |ns| Value::Keyword(Keyword::new(ns.as_deref(), k.name())),
        ),
        Value::Symbol(s) => of(s.namespace())
            .map_or_else(|| key.clone(), |ns| Value::Symbol(Symbol::new(ns.as_deref(), s.name()))),
        _ => key.clone(),
    }
}

/// A value in a message: printed, but not at any length.
fn in_message(value: &Value) -> String {
    match value {
        Value::Str(s) => format!("{:?}", super::lexer::shortened(s)),
        Value::List(_) | Value::Vector(_) | Value::Map(_) | Value::Set(_) | Value::Tagged(_) => {
            format!("a {}", value.type_name())
        }
        scalar => super::lexer::shortened(&scalar.to_string()),
    }
}
