//! Keywords and symbols: a name with an optional namespace behind one thin pointer.

use std::cmp::Ordering;
use std::fmt;
use std::hash::{Hash, Hasher};
use std::sync::Arc;

/// `:namespace/name`. Cheap to clone; ordered by namespace (none first), then name.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Keyword(Arc<Name>);

/// `namespace/name`. Cheap to clone; ordered by namespace (none first), then name.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Symbol(Arc<Name>);

macro_rules! named {
    ($type:ident) => {
        impl $type {
            /// From text such as `person/name`: what stands before the first `/` is the namespace.
            /// A leading colon is not part of the name. Any text is accepted; what EDN could not read
            /// back is printed in a tagged form that it can.
            pub fn parse(text: &str) -> Self {
                Self(Arc::new(Name::parse(text.strip_prefix(':').unwrap_or(text))))
            }

            /// From its parts. An empty namespace is none.
            pub fn new(namespace: Option<&str>, name: &str) -> Self {
                Self(Arc::new(Name::new(namespace, name)))
            }

            /// What stands before the slash.
            pub fn namespace(&self) -> Option<&str> {
                self.0.namespace()
            }

            /// What stands after the slash, or all of it.
            pub fn name(&self) -> &str {
                self.0.name()
            }

            /// Namespace, slash and name, without a colon.
            pub fn text(&self) -> &str {
                &self.0.text
            }

            /// Whether [`Self::parse`] of [`Self::text`] gives this back.
            pub(crate) fn is_its_text(&self) -> bool {
                !self.0.text.starts_with(':') && *self.0 == Name::parse(&self.0.text)
            }
        }

        impl From<&str> for $type {
            fn from(text: &str) -> Self {
                Self::parse(text)
            }
        }

        impl fmt::Debug for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(self, f)
            }
        }
    };
}

named!(Keyword);
named!(Symbol);

impl Keyword {
    /// The same name in another namespace.
    #[must_use]
    pub fn with_namespace(&self, namespace: &str) -> Self {
        Self::new(Some(namespace), self.name())
    }

    /// Whether this is the reverse form of an attribute, `:person/_friend`.
    pub fn is_reverse(&self) -> bool {
        self.name().starts_with('_')
    }

    /// `:person/_friend` for `:person/friend` and the other way round.
    #[must_use]
    pub fn reversed(&self) -> Self {
        match self.name().strip_prefix('_') {
            Some(forward) => Self::new(self.namespace(), forward),
            None => Self::new(self.namespace(), &format!("_{}", self.name())),
        }
    }
}

/// `namespace_len` is 0 where there is none; otherwise `text[namespace_len]` is the slash.
struct Name {
    text: Box<str>,
    namespace_len: usize,
}

impl Name {
    fn parse(text: &str) -> Self {
        let namespace_len = match text.find('/') {
            Some(slash) if slash + 1 < text.len() => slash,
            _ => 0,
        };
        Self { text: text.into(), namespace_len }
    }

    fn new(namespace: Option<&str>, name: &str) -> Self {
        match namespace {
            Some(namespace) if !namespace.is_empty() => Self {
                text: format!("{namespace}/{name}").into_boxed_str(),
                namespace_len: namespace.len(),
            },
            _ => Self { text: name.into(), namespace_len: 0 },
        }
    }

    fn namespace(&self) -> Option<&str> {
        (self.namespace_len > 0).then(|| &self.text[..self.namespace_len])
    }

    fn name(&self) -> &str {
        match self.namespace_len {
            0 => &self.text,
            len => &self.text[len + 1..],
        }
    }
}

impl PartialEq for Name {
    fn eq(&self, other: &Self) -> bool {
        self.namespace_len == other.namespace_len && self.text == other.text
    }
}

impl Eq for Name {}

impl PartialOrd for Name {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Name {
    fn cmp(&self, other: &Self) -> Ordering {
        self.namespace().cmp(&other.namespace()).then_with(|| self.name().cmp(other.name()))
    }
}

impl Hash for Name {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.namespace_len.hash(state);
        self.text.hash(state);
    }
}
