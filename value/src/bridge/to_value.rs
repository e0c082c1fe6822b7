//! A serializer whose output is a value.

use serde::ser::{
    Error, Serialize, SerializeMap, SerializeSeq, SerializeStruct, SerializeStructVariant,
    SerializeTuple, SerializeTupleStruct, SerializeTupleVariant, Serializer,
};

use super::coded::assemble;
use super::{BridgeError, VALUE};
use crate::value::Value;

/// With `coded`, what is serialized is a [`Value`] taking itself apart: a sequence begins with its code.
#[derive(Clone, Copy)]
pub(super) struct ToValue {
    pub(super) coded: bool,
}

const PLAIN: ToValue = ToValue { coded: false };

fn variant(name: &'static str, value: Value) -> Value {
    Value::map([(Value::keyword(name), value)])
}

macro_rules! scalars {
    ($($method:ident: $type:ty => $value:expr;)*) => {
        $(fn $method(self, v: $type) -> Result<Value, BridgeError> {
            let make: fn($type) -> Value = $value;
            Ok(make(v))
        })*
    };
}

impl Serializer for ToValue {
    type Ok = Value;
    type Error = BridgeError;
    type SerializeSeq = Items;
    type SerializeTuple = Items;
    type SerializeTupleStruct = Items;
    type SerializeTupleVariant = Items;
    type SerializeMap = Entries;
    type SerializeStruct = Entries;
    type SerializeStructVariant = Entries;

    scalars! {
        serialize_bool: bool => Value::Bool;
        serialize_i8: i8 => |n| Value::Long(n.into());
        serialize_i16: i16 => |n| Value::Long(n.into());
        serialize_i32: i32 => |n| Value::Long(n.into());
        serialize_i64: i64 => Value::Long;
        serialize_i128: i128 => |n| i64::try_from(n).map_or_else(|_| Value::bigint(n), Value::Long);
        serialize_u8: u8 => |n| Value::Long(n.into());
        serialize_u16: u16 => |n| Value::Long(n.into());
        serialize_u32: u32 => |n| Value::Long(n.into());
        serialize_u64: u64 => |n| i64::try_from(n).map_or_else(|_| Value::bigint(n), Value::Long);
        serialize_u128: u128 => |n| i64::try_from(n).map_or_else(|_| Value::bigint(n), Value::Long);
        serialize_f32: f32 => Value::Float;
        serialize_f64: f64 => Value::Double;
        serialize_char: char => Value::Char;
        serialize_str: &str => |s| Value::from(s);
        serialize_bytes: &[u8] => |bytes| Value::bytes(bytes);
    }

    fn serialize_none(self) -> Result<Value, BridgeError> {
        Ok(Value::Nil)
    }

    fn serialize_some<T: Serialize + ?Sized>(self, value: &T) -> Result<Value, BridgeError> {
        value.serialize(PLAIN)
    }

    fn serialize_unit(self) -> Result<Value, BridgeError> {
        Ok(Value::Nil)
    }

    fn serialize_unit_struct(self, _name: &'static str) -> Result<Value, BridgeError> {
        Ok(Value::Nil)
    }

    fn serialize_unit_variant(
        self,
        _name: &'static str,
        _index: u32,
        variant: &'static str,
    ) -> Result<Value, BridgeError> {
        Ok(Value::keyword(variant))
    }

    fn serialize_newtype_struct<T: Serialize + ?Sized>(
        self,
        name: &'static str,
        value: &T,
    ) -> Result<Value, BridgeError> {
        value.serialize(Self { coded: name == VALUE })
    }

    fn serialize_newtype_variant<T: Serialize + ?Sized>(
        self,
        _name: &'static str,
        _index: u32,
        name: &'static str,
        value: &T,
    ) -> Result<Value, BridgeError> {
        Ok(variant(name, value.serialize(PLAIN)?))
    }

    fn serialize_seq(self, len: Option<usize>) -> Result<Items, BridgeError> {
        let items = Vec::with_capacity(len.unwrap_or(0).min(4096));
        Ok(Items { items, coded: self.coded, variant: None })
    }

    fn serialize_tuple(self, len: usize) -> Result<Items, BridgeError> {
        PLAIN.serialize_seq(Some(len))
    }

    fn serialize_tuple_struct(self, _name: &'static str, len: usize) -> Result<Items, BridgeError> {
        PLAIN.serialize_seq(Some(len))
    }

    fn serialize_tuple_variant(
        self,
        _name: &'static str,
        _index: u32,
        variant: &'static str,
        len: usize,
    ) -> Result<Items, BridgeError> {
        Ok(Items { variant: Some(variant), ..PLAIN.serialize_seq(Some(len))? })
    }

    fn serialize_map(self, _len: Option<usize>) -> Result<Entries, BridgeError> {
        Ok(Entries::default())
    }

    fn serialize_struct(self, _name: &'static str, _len: usize) -> Result<Entries, BridgeError> {
        Ok(Entries::default())
    }

    fn serialize_struct_variant(
        self,
        _name: &'static str,
        _index: u32,
        variant: &'static str,
        _len: usize,
    ) -> Result<Entries, BridgeError> {
        Ok(Entries { variant: Some(variant), ..Entries::default() })
    }

    fn is_human_readable(&self) -> bool {
        false
    }
}

pub(super) struct Items {
    items: Vec<Value>,
    coded: bool,
    variant: Option<&'static str>,
}

impl Items {
    fn push<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), BridgeError> {
        self.items.push(value.serialize(PLAIN)?);
        Ok(())
    }

    fn finish(mut self) -> Result<Value, BridgeError> {
        if self.coded {
            let code =
                self.items.first().and_then(Value::as_long).and_then(|n| u64::try_from(n).ok());
            let code = code.ok_or_else(|| BridgeError::custom("a value code is missing"))?;
            self.items.remove(0);
            return assemble(code, self.items).map_err(BridgeError::custom);
        }
        let value = Value::from(self.items);
        Ok(match self.variant {
            Some(name) => variant(name, value),
            None => value,
        })
    }
}

macro_rules! sequences {
    ($($trait:ident, $method:ident;)*) => {
        $(impl $trait for Items {
            type Ok = Value;
            type Error = BridgeError;

            fn $method<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), BridgeError> {
                self.push(value)
            }

            fn end(self) -> Result<Value, BridgeError> {
                self.finish()
            }
        })*
    };
}

sequences! {
    SerializeSeq, serialize_element;
    SerializeTuple, serialize_element;
    SerializeTupleStruct, serialize_field;
    SerializeTupleVariant, serialize_field;
}

#[derive(Default)]
pub(super) struct Entries {
    entries: Vec<(Value, Value)>,
    key: Option<Value>,
    variant: Option<&'static str>,
}

impl Entries {
    fn finish(self) -> Value {
        let value = Value::map(self.entries);
        match self.variant {
            Some(name) => variant(name, value),
            None => value,
        }
    }
}

impl SerializeMap for Entries {
    type Ok = Value;
    type Error = BridgeError;

    fn serialize_key<T: Serialize + ?Sized>(&mut self, key: &T) -> Result<(), BridgeError> {
        self.key = Some(key.serialize(PLAIN)?);
        Ok(())
    }

    fn serialize_value<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), BridgeError> {
        let key = self.key.take().ok_or_else(|| BridgeError::custom("a value without a key"))?;
        self.entries.push((key, value.serialize(PLAIN)?));
        Ok(())
    }

    fn end(self) -> Result<Value, BridgeError> {
        Ok(self.finish())
    }
}

macro_rules! structs {
    ($($trait:ident)*) => {
        $(impl $trait for Entries {
            type Ok = Value;
            type Error = BridgeError;

            fn serialize_field<T: Serialize + ?Sized>(
                &mut self,
                name: &'static str,
                value: &T,
            ) -> Result<(), BridgeError> {
                self.entries.push((Value::keyword(name), value.serialize(PLAIN)?));
                Ok(())
            }

            fn end(self) -> Result<Value, BridgeError> {
                Ok(self.finish())
            }
        })*
    };
}

structs!(SerializeStruct SerializeStructVariant);
