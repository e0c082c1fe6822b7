//! Values beside flags: the common types cost no byte for saying so.

use datahike_value::{Uuid, Value, canonical_f64};

use crate::index::DecodeError;
use crate::index::codec::{Reader, get_value, put_value, put_varint, put_zigzag};

/// The type of a value where four bits have room for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Kind(u8);

const OTHER: Kind = Kind(0);
const LONG: Kind = Kind(1);
const STR: Kind = Kind(2);
const DOUBLE: Kind = Kind(3);
const FALSE: Kind = Kind(4);
const TRUE: Kind = Kind(5);
const INST: Kind = Kind(6);
const UUID: Kind = Kind(7);

impl Kind {
    pub(super) fn of(value: &Value) -> Self {
        match value {
            Value::Long(_) => LONG,
            Value::Str(_) => STR,
            Value::Double(_) => DOUBLE,
            Value::Bool(false) => FALSE,
            Value::Bool(true) => TRUE,
            Value::Inst(_) => INST,
            Value::Uuid(_) => UUID,
            _ => OTHER,
        }
    }

    /// In the upper half of a byte whose lower half is taken.
    pub(super) fn beside(self, flags: u8) -> u8 {
        self.0 << 4 | flags
    }

    pub(super) fn in_byte(byte: u8) -> Self {
        Self(byte >> 4)
    }

    /// What the kind leaves open of a value of this kind.
    pub(super) fn put(out: &mut Vec<u8>, value: &Value) {
        match value {
            Value::Long(n) | Value::Inst(n) => put_zigzag(out, *n),
            Value::Str(s) => {
                put_varint(out, s.len() as u64);
                out.extend_from_slice(s.as_bytes());
            }
            Value::Double(d) => out.extend_from_slice(&canonical_f64(*d).to_le_bytes()),
            Value::Bool(_) => {}
            Value::Uuid(u) => out.extend_from_slice(u.as_bytes()),
            other => put_value(out, other),
        }
    }

    pub(super) fn get(self, reader: &mut Reader<'_>) -> Result<Value, DecodeError> {
        Ok(match self {
            OTHER => get_value(reader)?,
            LONG => Value::Long(reader.zigzag()?),
            STR => Value::from(reader.text()?),
            DOUBLE => Value::Double(f64::from_le_bytes(reader.array()?)),
            FALSE => Value::Bool(false),
            TRUE => Value::Bool(true),
            INST => Value::Inst(reader.zigzag()?),
            UUID => Value::Uuid(Uuid::from_bytes(reader.array()?)),
            _ => return Err(DecodeError::Malformed { what: "no such type of value" }),
        })
    }
}
