//! What may come from outside at most.

/// Bounds on values that are read from text or bytes. Passing one is an error with a name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Levels of nesting, tags and discarded forms included. More than 128 may exhaust the stack of a
    /// thread with 2 MiB.
    pub depth: usize,
    /// Elements of one collection; a map counts its keys and its values.
    pub collection_items: usize,
    /// Digits of one number.
    pub digits: usize,
    /// Magnitude of a decimal exponent, and of the scale of a big decimal.
    pub exponent: i64,
    /// Bytes of one string, regex, keyword or symbol, in UTF-8.
    pub string_bytes: usize,
}

impl Limits {
    /// The bounds that hold where nobody says otherwise.
    pub const DEFAULT: Self = Self {
        depth: 128,
        collection_items: 1_000_000,
        digits: 4096,
        exponent: 10_000,
        string_bytes: 16 << 20,
    };
}

impl Default for Limits {
    fn default() -> Self {
        Self::DEFAULT
    }
}
