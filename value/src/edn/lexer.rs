//! Text into tokens: blanks and comments skipped, strings unescaped, names and numbers cut out whole.

use super::error::ReadErrorKind;
use crate::limits::Limits;

/// One token; text is borrowed where nothing had to be unescaped.
#[derive(Debug)]
pub(super) enum Token<'a> {
    Open(Bracket),
    Close(char),
    /// `#_`
    Discard,
    /// `#tag`
    Tag(&'a str),
    /// `#:ns{`: the namespace; the brace is consumed.
    NamespacedMap(&'a str),
    Str(String),
    Regex(&'a str),
    Char(char),
    /// A symbol, keyword, number, `nil`, `true` or `false`; and `##Inf` without its `##`.
    Atom(&'a str),
    Symbolic(&'a str),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Bracket {
    List,
    Vector,
    Map,
    Set,
}

impl Bracket {
    pub(super) fn closing(self) -> char {
        match self {
            Self::List => ')',
            Self::Vector => ']',
            Self::Map | Self::Set => '}',
        }
    }

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::List => "list",
            Self::Vector => "vector",
            Self::Map => "map",
            Self::Set => "set",
        }
    }
}

#[derive(Clone)]
pub(super) struct Lexer<'a> {
    text: &'a str,
    /// Where the next token is looked for; always on a character boundary.
    at: usize,
}

/// What is wrong, and the byte where it begins.
pub(super) type LexError = (ReadErrorKind, usize);

impl<'a> Lexer<'a> {
    pub(super) fn new(text: &'a str) -> Self {
        // A byte order mark is no character of the text.
        Self { text, at: if text.starts_with('\u{feff}') { 3 } else { 0 } }
    }

    pub(super) fn text(&self) -> &'a str {
        self.text
    }

    pub(super) fn offset(&self) -> usize {
        self.at
    }

    fn rest(&self) -> &'a str {
        &self.text[self.at..]
    }

    pub(super) fn skip_blanks(&mut self) {
        loop {
            let rest = self.rest();
            self.at += rest.len() - rest.trim_start_matches(is_blank).len();
            let rest = self.rest();
            if !rest.starts_with(';') && !rest.starts_with("#!") {
                return;
            }
            self.at += rest.find('\n').unwrap_or(rest.len());
        }
    }

    /// The next token and where it begins.
    pub(super) fn next(&mut self, limits: &Limits) -> Result<Option<(Token<'a>, usize)>, LexError> {
        self.skip_blanks();
        let start = self.at;
        let Some(first) = self.rest().chars().next() else { return Ok(None) };
        let token = match first {
            '(' => self.bracket(1, Bracket::List),
            '[' => self.bracket(1, Bracket::Vector),
            '{' => self.bracket(1, Bracket::Map),
            ')' | ']' | '}' => {
                self.at += 1;
                Token::Close(first)
            }
            '"' => Token::Str(self.string(limits)?),
            '\\' => Token::Char(self.character()?),
            '#' => self.dispatch(limits)?,
            '\'' => {
                return Err((unexpected(first, "EDN has no quote, write the form alone"), start));
            }
            '@' | '^' | '`' | '~' => return Err((unexpected(first, "not part of EDN"), start)),
            _ => Token::Atom(self.atom(limits)?),
        };
        Ok(Some((token, start)))
    }

    fn bracket(&mut self, len: usize, bracket: Bracket) -> Token<'a> {
        self.at += len;
        Token::Open(bracket)
    }

    /// Everything up to the next delimiter.
    fn atom(&mut self, limits: &Limits) -> Result<&'a str, LexError> {
        let rest = self.rest();
        let atom = &rest[..rest.find(is_delimiter).unwrap_or(rest.len())];
        self.check_len(atom.len(), limits)?;
        self.at += atom.len();
        Ok(atom)
    }

    fn check_len(&self, len: usize, limits: &Limits) -> Result<(), LexError> {
        match len > limits.string_bytes {
            true => Err((ReadErrorKind::StringTooLong { limit: limits.string_bytes }, self.at)),
            false => Ok(()),
        }
    }

    fn dispatch(&mut self, limits: &Limits) -> Result<Token<'a>, LexError> {
        let start = self.at;
        let mut rest = self.rest()[1..].chars();
        let token = match rest.next() {
            Some('{') => self.bracket(2, Bracket::Set),
            Some('_') => {
                self.at += 2;
                Token::Discard
            }
            Some('"') => Token::Regex(self.regex(limits)?),
            Some('#') => {
                self.at += 2;
                Token::Symbolic(self.atom(limits)?)
            }
            Some(':') => {
                self.at += 2;
                let namespace = self.atom(limits)?;
                self.skip_blanks();
                if namespace.starts_with(':') || !self.rest().starts_with('{') {
                    return Err((ReadErrorKind::UnsupportedDispatch(":".into()), start));
                }
                if !is_readable_keyword(namespace) || namespace.contains('/') {
                    return Err((invalid_token(namespace, "not a namespace"), start));
                }
                self.at += 1;
                Token::NamespacedMap(namespace)
            }
            Some(c) if c.is_alphabetic() => {
                self.at += 1;
                let tag = self.atom(limits)?;
                if !is_readable_symbol(tag) {
                    return Err((invalid_token(tag, "not a tag"), start));
                }
                Token::Tag(tag)
            }
            Some(c) => return Err((ReadErrorKind::UnsupportedDispatch(c.into()), start)),
            None => return Err((ReadErrorKind::UnexpectedEnd { inside: "tag" }, start)),
        };
        Ok(token)
    }

    fn string(&mut self, limits: &Limits) -> Result<String, LexError> {
        let start = self.at;
        self.at += 1;
        let mut string = String::new();
        loop {
            let rest = self.rest();
            let Some(stop) = rest.find(['"', '\\']) else {
                return Err((ReadErrorKind::UnexpectedEnd { inside: "string" }, start));
            };
            self.check_len(string.len() + stop, limits).map_err(|(kind, _)| (kind, start))?;
            string.push_str(&rest[..stop]);
            self.at += stop + 1;
            if rest.as_bytes()[stop] == b'"' {
                return Ok(string);
            }
            string.push(self.escape(start)?);
        }
    }

    /// What follows a backslash in a string.
    fn escape(&mut self, string_start: usize) -> Result<char, LexError> {
        let backslash = self.at - 1;
        let Some(c) = self.rest().chars().next() else {
            return Err((ReadErrorKind::UnexpectedEnd { inside: "string" }, string_start));
        };
        self.at += c.len_utf8();
        let invalid = |what: &str| (ReadErrorKind::InvalidEscape(format!("`\\{what}`")), backslash);
        Ok(match c {
            'n' => '\n',
            't' => '\t',
            'r' => '\r',
            'b' => '\u{8}',
            'f' => '\u{c}',
            '"' | '\\' => c,
            'u' => {
                let high = self.hex4().ok_or_else(|| invalid("u"))?;
                let mut code = u32::from(high);
                if (0xd800..0xdc00).contains(&high) && self.rest().starts_with("\\u") {
                    self.at += 2;
                    let low = self.hex4().ok_or_else(|| invalid("u"))?;
                    if !(0xdc00..0xe000).contains(&low) {
                        return Err(invalid("u"));
                    }
                    code = 0x1_0000 + ((code - 0xd800) << 10) + (u32::from(low) - 0xdc00);
                }
                char::from_u32(code).ok_or_else(|| invalid("u"))?
            }
            '0'..='7' => {
                let octal = self.rest().bytes().take(2).take_while(|b| matches!(b, b'0'..=b'7'));
                let (len, code) = octal.fold((0, u32::from(c) - 48), |(len, code), byte| {
                    (len + 1, code * 8 + u32::from(byte - b'0'))
                });
                self.at += len;
                char::from_u32(code).filter(|_| code < 256).ok_or_else(|| invalid("octal"))?
            }
            c => return Err(invalid(c.encode_utf8(&mut [0; 4]))),
        })
    }

    fn hex4(&mut self) -> Option<u16> {
        let digits = self.rest().get(..4)?;
        if !digits.bytes().all(|b| b.is_ascii_hexdigit()) {
            return None;
        }
        self.at += 4;
        u16::from_str_radix(digits, 16).ok()
    }

    fn regex(&mut self, limits: &Limits) -> Result<&'a str, LexError> {
        let start = self.at;
        let body = &self.rest()[2..];
        let mut at = 0;
        loop {
            let Some(stop) = body[at..].find(['"', '\\']).map(|stop| at + stop) else {
                return Err((ReadErrorKind::UnexpectedEnd { inside: "regex" }, start));
            };
            if body.as_bytes()[stop] == b'"' {
                self.check_len(stop, limits)?;
                self.at += 2 + stop + 1;
                return Ok(&body[..stop]);
            }
            let escaped = body[stop + 1..].chars().next().map_or(0, char::len_utf8);
            at = stop + 1 + escaped;
        }
    }

    /// `\a`, `\newline`, `\u00e4`, `\o101`. The first character may be a delimiter: `\(`.
    fn character(&mut self) -> Result<char, LexError> {
        let start = self.at;
        self.at += 1;
        let rest = self.rest();
        let Some(first) = rest.chars().next() else {
            return Err((ReadErrorKind::UnexpectedEnd { inside: "character" }, start));
        };
        let tail = &rest[first.len_utf8()..];
        let len = first.len_utf8() + tail.find(is_delimiter).unwrap_or(tail.len());
        let name = &rest[..len];
        self.at += len;
        let code = |digits: &str, radix| {
            digits.bytes().all(|b| b.is_ascii_alphanumeric()).then_some(())?;
            char::from_u32(u32::from_str_radix(digits, radix).ok()?)
        };
        let c = match name {
            _ if len == first.len_utf8() && !first.is_whitespace() => Some(first),
            "newline" => Some('\n'),
            "space" => Some(' '),
            "tab" => Some('\t'),
            "return" => Some('\r'),
            "backspace" => Some('\u{8}'),
            "formfeed" => Some('\u{c}'),
            _ if name.starts_with('u') && len == 5 => code(&name[1..], 16),
            _ if name.starts_with('o') && (2..=4).contains(&len) => {
                code(&name[1..], 8).filter(|c| (*c as u32) < 256)
            }
            _ => None,
        };
        c.ok_or_else(|| (ReadErrorKind::InvalidChar(shortened(name)), start))
    }
}

/// Whether this text after a colon is a keyword.
pub(super) fn is_readable_keyword(text: &str) -> bool {
    !text.is_empty()
        && !text.contains(is_delimiter)
        && !text.starts_with([':', '/'])
        && !text.ends_with([':', '/'])
}

/// Whether this text alone is a symbol.
pub(super) fn is_readable_symbol(text: &str) -> bool {
    if text == "/" {
        return true;
    }
    let mut chars = text.chars();
    let (first, second) = (chars.next(), chars.next());
    let numeric = first.is_some_and(|c| c.is_ascii_digit())
        || (matches!(first, Some('+' | '-' | '.')) && second.is_some_and(|c| c.is_ascii_digit()));
    is_readable_keyword(text)
        && !numeric
        && !text.starts_with(['#', '\'', '\u{feff}'])
        && !matches!(text, "nil" | "true" | "false")
}

/// The start of a token, short enough for a message.
pub(super) fn shortened(token: &str) -> String {
    match token.char_indices().nth(40) {
        Some((end, _)) => format!("{}…", &token[..end]),
        None => token.into(),
    }
}

pub(super) fn invalid_token(token: &str, reason: &'static str) -> ReadErrorKind {
    ReadErrorKind::InvalidToken { token: shortened(token), reason }
}

fn unexpected(found: char, hint: &'static str) -> ReadErrorKind {
    ReadErrorKind::Unexpected { found, hint }
}

fn is_blank(c: char) -> bool {
    c == ',' || c.is_whitespace()
}

fn is_delimiter(c: char) -> bool {
    is_blank(c)
        || matches!(c, '"' | ';' | '(' | ')' | '[' | ']' | '{' | '}' | '\\' | '@' | '^' | '`' | '~')
}
