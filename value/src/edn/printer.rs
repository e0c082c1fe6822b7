//! Values as EDN text.

use std::fmt::{self, Display, Formatter, Write};

use bigdecimal::BigDecimal;

use super::lexer::{is_readable_keyword, is_readable_symbol};
use super::tags;
use crate::instant;
use crate::keyword::{Keyword, Symbol};
use crate::value::{Regex, Tagged, Value};

/// EDN that reads back as the same value: maps and sets sorted, entries of a map separated by commas,
/// numbers as Clojure prints them.
impl Display for Value {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Self::Nil => f.write_str("nil"),
            Self::Bool(b) => write!(f, "{b}"),
            Self::Long(n) => write!(f, "{n}"),
            Self::Double(d) => write_double(f, &Shortest::of_f64(*d)),
            Self::Float(x) => {
                f.write_str("#float ")?;
                write_double(f, &Shortest::of_f32(*x))
            }
            Self::BigInt(n) => write!(f, "{n}N"),
            Self::BigDec(d) => write_bigdec(f, d),
            Self::Str(s) => write_string(f, s),
            Self::Char(c) => write_char(f, *c),
            Self::Keyword(k) => k.fmt(f),
            Self::Symbol(s) => s.fmt(f),
            Self::Uuid(u) => write!(f, "#uuid \"{u}\""),
            Self::Inst(ms) => {
                f.write_str("#inst \"")?;
                instant::write(f, *ms)?;
                f.write_char('"')
            }
            Self::Regex(r) => write_regex(f, r),
            Self::Bytes(bytes) => {
                f.write_str("#bytes \"")?;
                bytes.iter().try_for_each(|byte| write!(f, "{byte:02x}"))?;
                f.write_char('"')
            }
            Self::FloatArray(items) => {
                f.write_str("#floats ")?;
                write_items(f, "[", "]", items.iter(), |f, x| {
                    write_double(f, &Shortest::of_f32(*x))
                })
            }
            Self::DoubleArray(items) => {
                f.write_str("#doubles ")?;
                write_items(f, "[", "]", items.iter(), |f, x| {
                    write_double(f, &Shortest::of_f64(*x))
                })
            }
            Self::List(items) => write_items(f, "(", ")", items.iter(), |f, v| v.fmt(f)),
            Self::Vector(items) => write_items(f, "[", "]", items.iter(), |f, v| v.fmt(f)),
            Self::Set(items) => write_items(f, "#{", "}", items.iter(), |f, v| v.fmt(f)),
            Self::Map(entries) => {
                f.write_char('{')?;
                for (i, (key, value)) in entries.iter().enumerate() {
                    if i > 0 {
                        f.write_str(", ")?;
                    }
                    write!(f, "{key} {value}")?;
                }
                f.write_char('}')
            }
            Self::Tagged(tagged) => write_tagged(f, tagged),
        }
    }
}

impl fmt::Debug for Value {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        Display::fmt(self, f)
    }
}

impl Display for Keyword {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        if self.is_its_text() && is_readable_keyword(self.text()) {
            return write!(f, ":{}", self.text());
        }
        f.write_str("#keyword ")?;
        write_parts(f, self.namespace(), self.name())
    }
}

impl Display for Symbol {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        if self.is_its_text() && is_readable_symbol(self.text()) {
            return f.write_str(self.text());
        }
        f.write_str("#symbol ")?;
        write_parts(f, self.namespace(), self.name())
    }
}

impl Display for Regex {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        write_regex(f, self)
    }
}

fn write_parts(f: &mut Formatter<'_>, namespace: Option<&str>, name: &str) -> fmt::Result {
    f.write_char('[')?;
    match namespace {
        Some(namespace) => write_string(f, namespace)?,
        None => f.write_str("nil")?,
    }
    f.write_char(' ')?;
    write_string(f, name)?;
    f.write_char(']')
}

fn write_items<T>(
    f: &mut Formatter<'_>,
    open: &str,
    close: &str,
    items: impl Iterator<Item = T>,
    mut write: impl FnMut(&mut Formatter<'_>, T) -> fmt::Result,
) -> fmt::Result {
    f.write_str(open)?;
    for (i, item) in items.enumerate() {
        if i > 0 {
            f.write_char(' ')?;
        }
        write(f, item)?;
    }
    f.write_str(close)
}

/// A tag that the reader gives a meaning to, or cannot read, goes into the longer form.
fn write_tagged(f: &mut Formatter<'_>, tagged: &Tagged) -> fmt::Result {
    let tag = &tagged.tag;
    let plain = tag.is_its_text()
        && is_readable_symbol(tag.text())
        && tag.text().starts_with(char::is_alphabetic)
        && tags::Tag::named(tag.text()).is_none();
    match plain {
        true => write!(f, "#{tag} {}", tagged.value),
        false => write!(f, "#tagged [{tag} {}]", tagged.value),
    }
}

fn write_string(f: &mut Formatter<'_>, s: &str) -> fmt::Result {
    f.write_char('"')?;
    let mut rest = s;
    while let Some(at) = rest.find(['"', '\\', '\n', '\t', '\r', '\u{8}', '\u{c}']) {
        f.write_str(&rest[..at])?;
        f.write_str(match rest.as_bytes()[at] {
            b'"' => "\\\"",
            b'\\' => "\\\\",
            b'\n' => "\\n",
            b'\t' => "\\t",
            b'\r' => "\\r",
            8 => "\\b",
            _ => "\\f",
        })?;
        rest = &rest[at + 1..];
    }
    f.write_str(rest)?;
    f.write_char('"')
}

fn write_regex(f: &mut Formatter<'_>, regex: &Regex) -> fmt::Result {
    f.write_str("#\"")?;
    let mut chars = regex.as_str().chars();
    while let Some(c) = chars.next() {
        match c {
            '"' => f.write_str("\\\"")?,
            '\\' => {
                f.write_char('\\')?;
                chars.next().map_or(Ok(()), |escaped| f.write_char(escaped))?;
            }
            _ => f.write_char(c)?,
        }
    }
    f.write_char('"')
}

fn write_char(f: &mut Formatter<'_>, c: char) -> fmt::Result {
    match c {
        '\n' => f.write_str("\\newline"),
        ' ' => f.write_str("\\space"),
        '\t' => f.write_str("\\tab"),
        '\r' => f.write_str("\\return"),
        '\u{8}' => f.write_str("\\backspace"),
        '\u{c}' => f.write_str("\\formfeed"),
        c if (c.is_control() || c.is_whitespace()) && (c as u32) < 0x1_0000 => {
            write!(f, "\\u{:04x}", c as u32)
        }
        c => write!(f, "\\{c}"),
    }
}

/// The shortest digits that give the number back: 0.digits * 10^point.
enum Shortest {
    Finite { negative: bool, digits: String, point: i32 },
    Other(&'static str),
}

impl Shortest {
    fn of_f64(d: f64) -> Self {
        Self::new(d.is_nan(), d.is_infinite(), d.is_sign_negative(), || format!("{:e}", d.abs()))
    }

    fn of_f32(f: f32) -> Self {
        Self::new(f.is_nan(), f.is_infinite(), f.is_sign_negative(), || format!("{:e}", f.abs()))
    }

    fn new(nan: bool, infinite: bool, negative: bool, text: impl FnOnce() -> String) -> Self {
        if nan {
            return Self::Other("##NaN");
        }
        if infinite {
            return Self::Other(if negative { "##-Inf" } else { "##Inf" });
        }
        let text = text();
        let (mantissa, exponent) = text.split_once('e').unwrap_or((&text, "0"));
        let digits = mantissa.replace('.', "");
        Self::Finite { negative, digits, point: exponent.parse::<i32>().unwrap_or(0) + 1 }
    }
}

/// As Java does: plain between 0.001 and 10,000,000, else scientific, always with a fraction.
fn write_double(f: &mut Formatter<'_>, number: &Shortest) -> fmt::Result {
    let (negative, digits, point) = match number {
        Shortest::Other(text) => return f.write_str(text),
        Shortest::Finite { negative, digits, point } => (*negative, digits.as_str(), *point),
    };
    if negative {
        f.write_char('-')?;
    }
    let zeros = |n: i32| "0".repeat(usize::try_from(n).unwrap_or(0));
    if digits == "0" {
        return f.write_str("0.0");
    }
    let count = i32::try_from(digits.len()).unwrap_or(i32::MAX);
    match point {
        1..=7 if point >= count => write!(f, "{digits}{}.0", zeros(point - count)),
        1..=7 => {
            let (whole, fraction) = digits.split_at(usize::try_from(point).unwrap_or(0));
            write!(f, "{whole}.{fraction}")
        }
        -2..=0 => write!(f, "0.{}{digits}", zeros(-point)),
        _ => {
            let (first, rest) = digits.split_at(1);
            let rest = if rest.is_empty() { "0" } else { rest };
            write!(f, "{first}.{rest}E{}", point - 1)
        }
    }
}

/// As `java.math.BigDecimal` does, which keeps the scale.
fn write_bigdec(f: &mut Formatter<'_>, d: &BigDecimal) -> fmt::Result {
    let (unscaled, scale) = d.as_bigint_and_exponent();
    let text = unscaled.to_string();
    let (sign, digits) = match text.strip_prefix('-') {
        Some(digits) => ("-", digits),
        None => ("", text.as_str()),
    };
    let count = digits.len() as i64;
    let adjusted = (count - 1).saturating_sub(scale);
    f.write_str(sign)?;
    if scale == 0 {
        write!(f, "{digits}M")
    } else if scale > 0 && adjusted >= -6 {
        match usize::try_from(count - scale) {
            Ok(whole) if whole > 0 => write!(f, "{}.{}M", &digits[..whole], &digits[whole..]),
            _ => {
                let zeros = "0".repeat(usize::try_from(scale - count).unwrap_or(0));
                write!(f, "0.{zeros}{digits}M")
            }
        }
    } else {
        let (first, rest) = digits.split_at(1);
        let dot = if rest.is_empty() { "" } else { "." };
        let plus = if adjusted >= 0 { "+" } else { "" };
        write!(f, "{first}{dot}{rest}E{plus}{adjusted}M")
    }
}
