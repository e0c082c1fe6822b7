//! The model.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use bigdecimal::BigDecimal;
use num_bigint::BigInt;
use uuid::Uuid;

use crate::keyword::{Keyword, Symbol};

/// Any EDN value, and the few that Datahike has besides. 24 bytes; a clone copies at most a pointer.
///
/// `Eq`, `Ord` and `Hash` agree and are one total order over all values. In it come nil, booleans,
/// numbers, characters, strings, keywords, symbols, UUIDs, instants, regexes, byte arrays, float
/// arrays, double arrays, lists with vectors, maps, sets, tagged values.
/// - Numbers compare by exact numeric value whatever their types; equal ones then by type, so that
///   `1`, `1.0` and `1N` are three values side by side. `-0.0` comes before `0.0`, `1.0M` before
///   `1.00M`, and NaN (all NaNs are one value of their type) after every other number.
/// - Strings compare by code point, keywords and symbols by namespace and then name, UUIDs as
///   unsigned bytes.
/// - Lists, vectors and arrays compare by length first, then element by element; a list comes before
///   the vector with the same elements. Maps and sets likewise, in the order of their keys.
#[derive(Clone, Default)]
pub enum Value {
    /// `nil`
    #[default]
    Nil,
    /// `true`, `false`
    Bool(bool),
    /// `42`
    Long(i64),
    /// `1.5`
    Double(f64),
    /// `#float 1.5`
    Float(f32),
    /// `42N`
    BigInt(Arc<BigInt>),
    /// `1.50M`; `1.5M` and `1.50M` are two values.
    BigDec(Arc<BigDecimal>),
    /// `"text"`
    Str(Arc<str>),
    /// `\a`
    Char(char),
    /// `:person/name`
    Keyword(Keyword),
    /// `person/name`
    Symbol(Symbol),
    /// `#uuid "…"`
    Uuid(Uuid),
    /// `#inst "…"`: milliseconds since 1970-01-01T00:00Z.
    Inst(i64),
    /// `#"[a-z]+"`
    Regex(Regex),
    /// `#bytes "00ff"`
    Bytes(Arc<[u8]>),
    /// `#floats [1.0 2.5]`
    FloatArray(Arc<[f32]>),
    /// `#doubles [1.0 2.5]`
    DoubleArray(Arc<[f64]>),
    /// `(1 2)`
    List(Arc<[Self]>),
    /// `[1 2]`
    Vector(Arc<[Self]>),
    /// `{:a 1}`
    Map(Arc<BTreeMap<Self, Self>>),
    /// `#{1 2}`
    Set(Arc<BTreeSet<Self>>),
    /// `#my/tag …`
    Tagged(Arc<Tagged>),
}

/// A value under a tag that nobody here gives a meaning to.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Tagged {
    /// What stands after the `#`.
    pub tag: Symbol,
    /// What stands after the tag.
    pub value: Value,
}

/// The source of a regular expression, as it stands between the quotes of `#"…"` (but with a plain
/// `"` where the literal has `\"`). Whether it compiles is for whoever matches with it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Regex(Arc<str>);

/// A regular expression that ends in a backslash with nothing to escape.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a regular expression must not end in a lone backslash")]
pub struct RegexError;

impl Regex {
    /// From its source; `\"` becomes `"`, which means the same.
    ///
    /// # Errors
    /// If it ends in a lone backslash.
    pub fn new(source: &str) -> Result<Self, RegexError> {
        let mut normal = String::with_capacity(source.len());
        let mut chars = source.chars();
        while let Some(c) = chars.next() {
            if c != '\\' {
                normal.push(c);
                continue;
            }
            match chars.next() {
                Some('"') => normal.push('"'),
                Some(escaped) => normal.extend(['\\', escaped]),
                None => return Err(RegexError),
            }
        }
        Ok(Self(normal.into()))
    }

    /// Its source.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl Value {
    /// A string.
    pub fn str(text: impl Into<Arc<str>>) -> Self {
        Self::Str(text.into())
    }

    /// A keyword from `namespace/name`.
    pub fn keyword(text: &str) -> Self {
        Self::Keyword(Keyword::parse(text))
    }

    /// A symbol from `namespace/name`.
    pub fn symbol(text: &str) -> Self {
        Self::Symbol(Symbol::parse(text))
    }

    /// A vector of these.
    pub fn vector(items: impl IntoIterator<Item = Self>) -> Self {
        Self::Vector(items.into_iter().collect())
    }

    /// A list of these.
    pub fn list(items: impl IntoIterator<Item = Self>) -> Self {
        Self::List(items.into_iter().collect())
    }

    /// A set of these.
    pub fn set(items: impl IntoIterator<Item = Self>) -> Self {
        Self::Set(Arc::new(items.into_iter().collect()))
    }

    /// A map; the last of equal keys wins.
    pub fn map(entries: impl IntoIterator<Item = (Self, Self)>) -> Self {
        Self::Map(Arc::new(entries.into_iter().collect()))
    }

    /// A byte array.
    pub fn bytes(bytes: impl Into<Arc<[u8]>>) -> Self {
        Self::Bytes(bytes.into())
    }

    /// A big integer.
    pub fn bigint(n: impl Into<BigInt>) -> Self {
        Self::BigInt(Arc::new(n.into()))
    }

    /// A value under a tag.
    pub fn tagged(tag: impl Into<Symbol>, value: impl Into<Self>) -> Self {
        Self::Tagged(Arc::new(Tagged { tag: tag.into(), value: value.into() }))
    }

    /// Whether this is nil.
    pub fn is_nil(&self) -> bool {
        matches!(self, Self::Nil)
    }

    /// Everything but nil and false, as Clojure sees it.
    pub fn is_truthy(&self) -> bool {
        !matches!(self, Self::Nil | Self::Bool(false))
    }

    /// Whether this is a long, double, float, big integer or big decimal.
    pub fn is_number(&self) -> bool {
        matches!(
            self,
            Self::Long(_) | Self::Double(_) | Self::Float(_) | Self::BigInt(_) | Self::BigDec(_)
        )
    }

    /// The boolean, if this is one.
    pub fn as_bool(&self) -> Option<bool> {
        match self {
            Self::Bool(b) => Some(*b),
            _ => None,
        }
    }

    /// The long, if this is one (no conversion from other numbers).
    pub fn as_long(&self) -> Option<i64> {
        match self {
            Self::Long(n) => Some(*n),
            _ => None,
        }
    }

    /// The double, if this is one (no conversion from other numbers).
    pub fn as_double(&self) -> Option<f64> {
        match self {
            Self::Double(d) => Some(*d),
            _ => None,
        }
    }

    /// The nearest double of any number.
    pub fn to_f64(&self) -> Option<f64> {
        use num_traits::ToPrimitive;
        match self {
            Self::Long(n) => Some(*n as f64),
            Self::Double(d) => Some(*d),
            Self::Float(f) => Some(f64::from(*f)),
            Self::BigInt(n) => n.to_f64(),
            Self::BigDec(d) => d.to_f64(),
            _ => None,
        }
    }

    /// The text, if this is a string.
    pub fn as_str(&self) -> Option<&str> {
        match self {
            Self::Str(s) => Some(s),
            _ => None,
        }
    }

    /// The keyword, if this is one.
    pub fn as_keyword(&self) -> Option<&Keyword> {
        match self {
            Self::Keyword(k) => Some(k),
            _ => None,
        }
    }

    /// The symbol, if this is one.
    pub fn as_symbol(&self) -> Option<&Symbol> {
        match self {
            Self::Symbol(s) => Some(s),
            _ => None,
        }
    }

    /// The UUID, if this is one.
    pub fn as_uuid(&self) -> Option<Uuid> {
        match self {
            Self::Uuid(u) => Some(*u),
            _ => None,
        }
    }

    /// Milliseconds since 1970, if this is an instant.
    pub fn as_inst(&self) -> Option<i64> {
        match self {
            Self::Inst(ms) => Some(*ms),
            _ => None,
        }
    }

    /// The bytes, if this is a byte array.
    pub fn as_bytes(&self) -> Option<&[u8]> {
        match self {
            Self::Bytes(b) => Some(b),
            _ => None,
        }
    }

    /// The elements, if this is a vector or a list.
    pub fn as_slice(&self) -> Option<&[Self]> {
        match self {
            Self::Vector(items) | Self::List(items) => Some(items),
            _ => None,
        }
    }

    /// The elements, if this is a vector.
    pub fn as_vector(&self) -> Option<&[Self]> {
        match self {
            Self::Vector(items) => Some(items),
            _ => None,
        }
    }

    /// The elements, if this is a list.
    pub fn as_list(&self) -> Option<&[Self]> {
        match self {
            Self::List(items) => Some(items),
            _ => None,
        }
    }

    /// The entries, if this is a map.
    pub fn as_map(&self) -> Option<&BTreeMap<Self, Self>> {
        match self {
            Self::Map(entries) => Some(entries),
            _ => None,
        }
    }

    /// The elements, if this is a set.
    pub fn as_set(&self) -> Option<&BTreeSet<Self>> {
        match self {
            Self::Set(items) => Some(items),
            _ => None,
        }
    }

    /// What stands under this keyword, if this is a map that has it.
    pub fn get(&self, key: &Keyword) -> Option<&Self> {
        self.as_map()?.get(&Self::Keyword(key.clone()))
    }

    /// A word for the type, for messages: `long`, `keyword`, `vector`.
    pub fn type_name(&self) -> &'static str {
        match self {
            Self::Nil => "nil",
            Self::Bool(_) => "boolean",
            Self::Long(_) => "long",
            Self::Double(_) => "double",
            Self::Float(_) => "float",
            Self::BigInt(_) => "bigint",
            Self::BigDec(_) => "bigdec",
            Self::Str(_) => "string",
            Self::Char(_) => "char",
            Self::Keyword(_) => "keyword",
            Self::Symbol(_) => "symbol",
            Self::Uuid(_) => "uuid",
            Self::Inst(_) => "instant",
            Self::Regex(_) => "regex",
            Self::Bytes(_) => "bytes",
            Self::FloatArray(_) => "float-array",
            Self::DoubleArray(_) => "double-array",
            Self::List(_) => "list",
            Self::Vector(_) => "vector",
            Self::Map(_) => "map",
            Self::Set(_) => "set",
            Self::Tagged(_) => "tagged",
        }
    }
}

macro_rules! from {
    ($($from:ty, $name:ident => $value:expr;)*) => {
        $(impl From<$from> for Value {
            fn from($name: $from) -> Self {
                $value
            }
        })*
    };
}

from! {
    bool, b => Self::Bool(b);
    i64, n => Self::Long(n);
    i32, n => Self::Long(n.into());
    u32, n => Self::Long(n.into());
    f64, d => Self::Double(d);
    f32, f => Self::Float(f);
    char, c => Self::Char(c);
    &str, s => Self::Str(s.into());
    String, s => Self::Str(s.into());
    Arc<str>, s => Self::Str(s);
    Keyword, k => Self::Keyword(k);
    &Keyword, k => Self::Keyword(k.clone());
    Symbol, s => Self::Symbol(s);
    Uuid, u => Self::Uuid(u);
    BigInt, n => Self::BigInt(Arc::new(n));
    BigDecimal, d => Self::BigDec(Arc::new(d));
    Regex, r => Self::Regex(r);
    Vec<Self>, items => Self::Vector(items.into());
    BTreeMap<Self, Self>, entries => Self::Map(Arc::new(entries));
    BTreeSet<Self>, items => Self::Set(Arc::new(items));
    &Self, v => v.clone();
}

impl<T: Into<Self>> From<Option<T>> for Value {
    fn from(option: Option<T>) -> Self {
        option.map_or(Self::Nil, Into::into)
    }
}

impl FromIterator<Self> for Value {
    fn from_iter<I: IntoIterator<Item = Self>>(items: I) -> Self {
        Self::vector(items)
    }
}
