//! Pull patterns and how they are read.

use datahike_value::{Keyword, Symbol, Value, edn};

use crate::query::QueryError;

/// How many values of a cardinality-many attribute a pull returns unless it says otherwise.
pub const LIMIT_DEFAULT: usize = 1000;

/// Patterns nested deeper than this are refused.
const DEPTH_MAX: usize = 64;

/// What to pull of an entity.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Pattern {
    /// `*`: every attribute that the entity has, and `:db/id`.
    pub wildcard: bool,
    /// `:db/id`
    pub id: bool,
    /// Attributes by name. One that is named overrides what the wildcard says of it.
    pub attributes: Vec<Attribute>,
}

/// One attribute of a pattern.
#[derive(Clone, Debug, PartialEq)]
pub struct Attribute {
    /// Its ident (or, in attribute-refs mode, entity id), always the forward form.
    pub attribute: Value,
    /// Whether entities are wanted that refer to this one (`:_attribute`).
    pub reverse: bool,
    /// The key in the result: the attribute as written, or `:as`.
    pub key: Value,
    /// Values at most; `None` for all.
    pub limit: Option<usize>,
    /// What stands in the result if there is no value.
    pub default: Option<Value>,
    /// A function that the value goes through (`:xform`).
    pub xform: Option<Symbol>,
    /// What becomes of the entities that are referred to.
    pub follow: Follow,
}

/// What becomes of the entities that an attribute refers to.
#[derive(Clone, Debug, PartialEq)]
pub enum Follow {
    /// `{:db/id n}`, or all of it if it is a component.
    Default,
    /// A pattern of its own.
    Pattern(Pattern),
    /// The pattern in which the attribute stands, again; so many levels, `None` for as long as it
    /// leads to new entities.
    Recursion(Option<usize>),
}

fn error(message: impl Into<String>, form: &Value) -> QueryError {
    QueryError::new("parser/pull", message).at(form)
}

impl Pattern {
    /// From text.
    ///
    /// # Errors
    /// If the text is not EDN or not a pattern.
    pub fn parse_text(text: &str) -> Result<Self, QueryError> {
        let value =
            edn::read(text).map_err(|error| crate::query::unreadable("parser/pull", &error))?;
        Self::parse(&value).map_err(|error| error.within(text))
    }

    /// From EDN: a vector or set of attributes, or a string that holds one.
    ///
    /// # Errors
    /// If it is not a pattern.
    pub fn parse(form: &Value) -> Result<Self, QueryError> {
        match form {
            Value::Str(text) => Self::parse_text(text),
            form => Self::read(form, 0),
        }
    }

    fn read(form: &Value, depth: usize) -> Result<Self, QueryError> {
        if depth > DEPTH_MAX {
            return Err(error(format!("the pattern is nested deeper than {DEPTH_MAX}"), form));
        }
        let items: Vec<&Value> = match form {
            Value::Vector(items) | Value::List(items) => items.iter().collect(),
            Value::Set(items) => items.iter().collect(),
            _ => return Err(error("a pull pattern is a vector of attributes", form)),
        };
        if items.is_empty() {
            return Err(error("a pull pattern names at least one attribute", form));
        }
        let mut pattern = Self::default();
        for item in items {
            match item {
                Value::Symbol(star) if star.text() == "*" => pattern.wildcard = true,
                Value::Keyword(star) if star.text() == "*" => pattern.wildcard = true,
                Value::Str(star) if &**star == "*" => pattern.wildcard = true,
                Value::Keyword(id) if id.text() == "db/id" => pattern.id = true,
                Value::Map(map) => {
                    for (key, sub) in &**map {
                        let mut attribute = read_attribute(key)?;
                        attribute.follow = match sub {
                            Value::Symbol(dots) if dots.text() == "..." => Follow::Recursion(None),
                            Value::Str(dots) if &**dots == "..." => Follow::Recursion(None),
                            Value::Long(levels) => {
                                let levels = usize::try_from(*levels).ok().filter(|n| *n > 0);
                                let message = "a recursion limit is a positive integer or ...";
                                Follow::Recursion(Some(levels.ok_or_else(|| error(message, item))?))
                            }
                            sub => Follow::Pattern(Self::read(sub, depth + 1)?),
                        };
                        pattern.attributes.push(attribute);
                    }
                }
                item => pattern.attributes.push(read_attribute(item)?),
            }
        }
        Ok(pattern)
    }
}

impl Attribute {
    fn plain(name: &Value) -> Option<Self> {
        let (attribute, reverse) = match name {
            Value::Keyword(ident) if ident.is_reverse() => (Value::Keyword(ident.reversed()), true),
            Value::Keyword(_) | Value::Long(_) => (name.clone(), false),
            _ => return None,
        };
        Some(Self {
            attribute,
            reverse,
            key: name.clone(),
            limit: Some(LIMIT_DEFAULT),
            default: None,
            xform: None,
            follow: Follow::Default,
        })
    }

    fn set(&mut self, option: &str, value: &Value, form: &Value) -> Result<(), QueryError> {
        match option {
            "limit" => {
                self.limit = match value {
                    Value::Nil => None,
                    Value::Long(n) if *n > 0 => Some(*n as usize),
                    _ => return Err(error("a limit is a positive integer or nil", form)),
                }
            }
            "default" => self.default = Some(value.clone()).filter(|value| !value.is_nil()),
            "as" => self.key = value.clone(),
            "xform" => match value {
                Value::Symbol(name) => self.xform = Some(name.clone()),
                _ => return Err(error(":xform takes the name of a function", form)),
            },
            other => return Err(error(format!("unknown option :{other} of a pull"), form)),
        }
        Ok(())
    }
}

/// `:attr`, `(limit :attr n)`, `(default :attr v)`, `[:attr :option value …]`, `(:attr :option value …)`.
fn read_attribute(form: &Value) -> Result<Attribute, QueryError> {
    if let Some(plain) = Attribute::plain(form) {
        return Ok(plain);
    }
    let malformed = || {
        error(
            "expected an attribute, (limit :attr n), (default :attr v) or [:attr :option v]",
            form,
        )
    };
    let items = form.as_slice().ok_or_else(malformed)?;
    let old_name = |value: &Value| match value {
        Value::Symbol(name) => Some(name.text().to_string()),
        Value::Str(name) => Some(name.to_string()),
        _ => None,
    };
    match items {
        [head, inner, value] if old_name(head).is_some() => {
            let name = old_name(head).filter(|name| matches!(name.as_str(), "limit" | "default"));
            let name = name.ok_or_else(malformed)?;
            let mut attribute = read_attribute(inner)?;
            attribute.set(&name, value, form)?;
            Ok(attribute)
        }
        [name, options @ ..] if options.len() % 2 == 0 => {
            let mut attribute = read_attribute(name)?;
            for pair in options.chunks_exact(2) {
                let option = pair[0].as_keyword().map(Keyword::text).ok_or_else(malformed)?;
                attribute.set(option, &pair[1], form)?;
            }
            Ok(attribute)
        }
        _ => Err(malformed()),
    }
}
