//! What the columns of a table of text hold.

use std::fmt;
use std::str::FromStr;

use datahike::{BigDecimal, BigInt, Uuid, Value, edn};

/// The type of a column: how its cells become values, and the attribute's `:db/valueType`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ColumnType {
    /// Whole numbers as they are written canonically: `42`, not `042`.
    Long,
    /// Finite decimal numbers.
    Double,
    /// Anything.
    String,
    /// `true`, `false`.
    Boolean,
    /// `:ns/name` or `ns/name`.
    Keyword,
    /// A UUID.
    Uuid,
    /// An RFC 3339 instant.
    Instant,
    /// A whole number of any size.
    BigInt,
    /// A decimal number of any precision.
    BigDec,
}

const NAMES: [(&str, ColumnType); 9] = [
    ("long", ColumnType::Long),
    ("double", ColumnType::Double),
    ("string", ColumnType::String),
    ("boolean", ColumnType::Boolean),
    ("keyword", ColumnType::Keyword),
    ("uuid", ColumnType::Uuid),
    ("instant", ColumnType::Instant),
    ("bigint", ColumnType::BigInt),
    ("bigdec", ColumnType::BigDec),
];

impl ColumnType {
    /// As it stands after `:db.type/`.
    pub(crate) fn name(self) -> &'static str {
        NAMES.iter().find(|(_, t)| *t == self).map_or("string", |(name, _)| name)
    }

    /// The value of a cell; `None` if the cell is not of this type.
    pub(crate) fn value(self, cell: &str) -> Option<Value> {
        match self {
            Self::Long => canonical_long(cell).map(Value::Long),
            Self::Double => decimal(cell).map(Value::Double),
            Self::String => Some(cell.into()),
            Self::Boolean => match cell {
                "true" => Some(true.into()),
                "false" => Some(false.into()),
                _ => None,
            },
            Self::Keyword => {
                let name = cell.strip_prefix(':').unwrap_or(cell);
                (!name.is_empty()).then(|| Value::keyword(name))
            }
            Self::Uuid => Uuid::parse_str(cell).ok().map(Value::Uuid),
            Self::Instant => {
                // The reader knows every form of an instant; a quote in the cell ends the text early.
                let read = edn::read(&format!("#inst \"{cell}\"")).ok()?;
                matches!(read, Value::Inst(_)).then_some(read)
            }
            Self::BigInt => {
                (cell.len() <= DIGITS_MAX).then(|| cell.parse::<BigInt>().ok())?.map(Value::bigint)
            }
            Self::BigDec => (cell.len() <= DIGITS_MAX && decimal(cell).is_some())
                .then(|| cell.parse::<BigDecimal>().ok())?
                .map(Value::from),
        }
    }
}

/// Digits of a number of any size: parsing takes longer than linear time.
const DIGITS_MAX: usize = 4_096;

impl FromStr for ColumnType {
    type Err = UnknownType;

    fn from_str(name: &str) -> Result<Self, UnknownType> {
        let found = NAMES.iter().find(|(known, _)| *known == name);
        found.map(|(_, t)| *t).ok_or_else(|| UnknownType(name.to_owned()))
    }
}

/// A type that no column can have.
#[derive(Debug)]
pub(crate) struct UnknownType(String);

impl fmt::Display for UnknownType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let known: Vec<_> = NAMES.iter().map(|(name, _)| *name).collect();
        write!(f, "{:?} is not a column type; there are {}", self.0, known.join(", "))
    }
}

impl std::error::Error for UnknownType {}

/// Finds the type of one column from all of its cells.
///
/// Long only if every cell is a canonical whole number (`02` is a code, not a number), else double
/// if every cell is a finite decimal number, else string. Empty cells say nothing.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Inference {
    long: bool,
    double: bool,
    seen: bool,
}

impl Default for Inference {
    fn default() -> Self {
        Self { long: true, double: true, seen: false }
    }
}

impl Inference {
    /// Takes a cell into account.
    pub(crate) fn see(&mut self, cell: &str) {
        if cell.is_empty() {
            return;
        }
        self.seen = true;
        self.long = self.long && canonical_long(cell).is_some();
        self.double = self.double && decimal(cell).is_some() && !padded(cell);
    }

    /// What all cells seen so far are.
    pub(crate) fn column_type(self) -> ColumnType {
        match self {
            Self { seen: true, long: true, .. } => ColumnType::Long,
            Self { seen: true, double: true, .. } => ColumnType::Double,
            _ => ColumnType::String,
        }
    }
}

fn canonical_long(cell: &str) -> Option<i64> {
    if padded(cell) || cell.starts_with('+') || cell == "-0" {
        return None;
    }
    cell.parse().ok()
}

/// Whether a whole number is written with zeros in front, as codes are.
fn padded(cell: &str) -> bool {
    let digits = cell.strip_prefix(['-', '+']).unwrap_or(cell);
    digits.len() > 1 && digits.starts_with('0') && digits.as_bytes()[1].is_ascii_digit()
}

/// A finite decimal number: digits, at most one point, an exponent; not `inf`, `nan` or `1_000`.
fn decimal(cell: &str) -> Option<f64> {
    let plain = cell.bytes().all(|b| b.is_ascii_digit() || b"+-.eE".contains(&b));
    let number: f64 = if plain { cell.parse().ok()? } else { return None };
    number.is_finite().then_some(number)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn infer(cells: &[&str]) -> ColumnType {
        let mut inference = Inference::default();
        cells.iter().for_each(|cell| inference.see(cell));
        inference.column_type()
    }

    #[test]
    fn a_column_is_what_every_cell_is() {
        assert_eq!(infer(&["1", "-20", "", "0"]), ColumnType::Long);
        assert_eq!(infer(&["1", "2.5"]), ColumnType::Double);
        assert_eq!(infer(&["1", "02"]), ColumnType::String);
        assert_eq!(infer(&["1.5", "007"]), ColumnType::String);
        assert_eq!(infer(&["0.5", "1e3"]), ColumnType::Double);
        assert_eq!(infer(&["1", "x"]), ColumnType::String);
        assert_eq!(infer(&["inf"]), ColumnType::String);
        assert_eq!(infer(&["1e999"]), ColumnType::String);
        assert_eq!(infer(&["9223372036854775807"]), ColumnType::Long);
        assert_eq!(infer(&["9223372036854775808"]), ColumnType::Double);
        assert_eq!(infer(&["", ""]), ColumnType::String);
    }

    #[test]
    fn a_cell_of_another_type_is_no_value() {
        assert_eq!(ColumnType::Long.value("02"), None);
        assert_eq!(ColumnType::Boolean.value("yes"), None);
        assert_eq!(ColumnType::Uuid.value("x"), None);
        assert_eq!(ColumnType::Instant.value("2026-01-01\" 1"), None);
        assert_eq!(ColumnType::Keyword.value(":a/b"), Some(Value::keyword("a/b")));
    }
}
