//! One attribute and the words its definition is made of.

use std::fmt;
use std::sync::Arc;

use datahike_value::{Keyword, Symbol, Value};

use crate::datom::{AttrId, EntityId};

/// The types of `:db/valueType`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[non_exhaustive]
pub enum ValueType {
    /// Decimal of any precision.
    Bigdec,
    /// Integer of any size; accepts longs.
    Bigint,
    /// `true` or `false`.
    Boolean,
    /// A byte array, compared by content.
    Bytes,
    /// 64-bit floating point; refuses integers.
    Double,
    /// An array of doubles.
    DoubleArray,
    /// 32-bit floating point (a double is accepted too, as in Datahike).
    Float,
    /// An array of floats.
    FloatArray,
    /// Milliseconds since the epoch.
    Instant,
    /// A keyword.
    Keyword,
    /// 64-bit integer.
    Long,
    /// Any number.
    Number,
    /// An entity of the same database.
    Ref,
    /// The UUID of a blob in the store.
    StoreRef,
    /// A string.
    String,
    /// A symbol.
    Symbol,
    /// A tuple, see [`Tuple`].
    Tuple,
    /// A UUID.
    Uuid,
    /// Any value at all.
    Value,
    /// A value type; the type of `:db/valueType` itself.
    ValueType,
    /// A cardinality; the type of `:db/cardinality`.
    Cardinality,
    /// A kind of uniqueness; the type of `:db/unique`.
    Unique,
    /// The type of `:db.install/attribute`.
    InstallAttribute,
}

const VALUE_TYPES: &[(ValueType, &str)] = &[
    (ValueType::Bigdec, "db.type/bigdec"),
    (ValueType::Bigint, "db.type/bigint"),
    (ValueType::Boolean, "db.type/boolean"),
    (ValueType::Bytes, "db.type/bytes"),
    (ValueType::Double, "db.type/double"),
    (ValueType::DoubleArray, "db.type/double-array"),
    (ValueType::Float, "db.type/float"),
    (ValueType::FloatArray, "db.type/float-array"),
    (ValueType::Instant, "db.type/instant"),
    (ValueType::Keyword, "db.type/keyword"),
    (ValueType::Long, "db.type/long"),
    (ValueType::Number, "db.type/number"),
    (ValueType::Ref, "db.type/ref"),
    (ValueType::StoreRef, "db.type/store-ref"),
    (ValueType::String, "db.type/string"),
    (ValueType::Symbol, "db.type/symbol"),
    (ValueType::Tuple, "db.type/tuple"),
    (ValueType::Uuid, "db.type/uuid"),
    (ValueType::Value, "db.type/value"),
    (ValueType::ValueType, "db.type/valueType"),
    (ValueType::Cardinality, "db.type/cardinality"),
    (ValueType::Unique, "db.type/unique"),
    (ValueType::InstallAttribute, "db.type.install/attribute"),
];

impl ValueType {
    /// The type with this ident, `:db.type/long` for one.
    pub fn from_ident(ident: &Keyword) -> Option<Self> {
        VALUE_TYPES.iter().find(|(_, text)| *text == ident.text()).map(|(found, _)| *found)
    }

    /// Its ident.
    pub fn ident(self) -> Keyword {
        let text = VALUE_TYPES.iter().find(|(found, _)| *found == self).map(|(_, text)| *text);
        Keyword::parse(text.unwrap_or("db.type/value"))
    }

    /// Whether a value is of this type. Entity ids, idents and lookup refs under a ref attribute are
    /// resolved before this is asked: a ref is a non-negative long here.
    pub fn accepts(self, value: &Value) -> bool {
        match self {
            Self::Bigdec => matches!(value, Value::BigDec(_)),
            Self::Bigint => matches!(value, Value::BigInt(_) | Value::Long(_)),
            Self::Boolean => matches!(value, Value::Bool(_)),
            Self::Bytes => matches!(value, Value::Bytes(_)),
            Self::Double => matches!(value, Value::Double(_)),
            Self::DoubleArray => matches!(value, Value::DoubleArray(_)),
            Self::Float => matches!(value, Value::Float(_) | Value::Double(_)),
            Self::FloatArray => matches!(value, Value::FloatArray(_)),
            Self::Instant => matches!(value, Value::Inst(_)),
            Self::Keyword => matches!(value, Value::Keyword(_)),
            Self::Long => matches!(value, Value::Long(_)),
            Self::Number => value.is_number(),
            Self::Ref => matches!(value, Value::Long(id) if *id >= 0),
            Self::StoreRef | Self::Uuid => matches!(value, Value::Uuid(_)),
            Self::String => matches!(value, Value::Str(_)),
            Self::Symbol => matches!(value, Value::Symbol(_)),
            Self::Tuple => matches!(value, Value::Vector(_) | Value::List(_)),
            Self::Value
            | Self::ValueType
            | Self::Cardinality
            | Self::Unique
            | Self::InstallAttribute => !value.is_nil(),
        }
    }
}

impl fmt::Display for ValueType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.ident())
    }
}

/// `:db/cardinality`: how many values an entity holds under the attribute.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Cardinality {
    /// At most one; a new value replaces the old.
    #[default]
    One,
    /// A set of values.
    Many,
}

impl Cardinality {
    /// The cardinality with this ident.
    pub fn from_ident(ident: &Keyword) -> Option<Self> {
        match ident.text() {
            "db.cardinality/one" => Some(Self::One),
            "db.cardinality/many" => Some(Self::Many),
            _ => None,
        }
    }

    /// Its ident.
    pub fn ident(self) -> Keyword {
        Keyword::parse(match self {
            Self::One => "db.cardinality/one",
            Self::Many => "db.cardinality/many",
        })
    }
}

/// `:db/unique`: at most one entity holds a given value.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Unique {
    /// The value names the entity: a transaction that states it means that entity (upsert).
    Identity,
    /// A second entity with the value is refused.
    Value,
}

impl Unique {
    /// The kind of uniqueness with this ident.
    pub fn from_ident(ident: &Keyword) -> Option<Self> {
        match ident.text() {
            "db.unique/identity" => Some(Self::Identity),
            "db.unique/value" => Some(Self::Value),
            _ => None,
        }
    }

    /// Its ident.
    pub fn ident(self) -> Keyword {
        Keyword::parse(match self {
            Self::Identity => "db.unique/identity",
            Self::Value => "db.unique/value",
        })
    }
}

/// What a tuple attribute holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Tuple {
    /// `:db/tupleAttrs`: the values of these attributes of the same entity, kept by the transactor;
    /// nil where the entity has none.
    Composite(Arc<[Keyword]>),
    /// `:db/tupleTypes`: one type per position.
    Types(Arc<[ValueType]>),
    /// `:db/tupleType`: up to eight values of one type.
    Of(ValueType),
}

/// An attribute as a snapshot knows it. One that was only used, never declared (possible with
/// schema-flexibility read), has `entity` and everything optional empty.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Attribute {
    /// Its number in this database.
    pub id: AttrId,
    /// Its name.
    pub ident: Keyword,
    /// The entity that declares it.
    pub entity: Option<EntityId>,
    /// `:db/valueType`; without one, any value is accepted.
    pub value_type: Option<ValueType>,
    /// `:db/cardinality`, one if not stated.
    pub cardinality: Cardinality,
    /// `:db/unique`
    pub unique: Option<Unique>,
    /// `:db/index` as stated; [`Attribute::in_avet`] says whether values are indexed.
    pub indexed: bool,
    /// `:db/isComponent`: the referred entity is part of this one.
    pub is_component: bool,
    /// `:db/noHistory`: superseded values leave no trace.
    pub no_history: bool,
    /// `:db/doc`
    pub doc: Option<Arc<str>>,
    /// What a tuple attribute holds.
    pub tuple: Option<Tuple>,
    /// `:db/maxLength`: characters of a string, bytes, or elements of an array.
    pub max_length: Option<u64>,
    /// `:db.attr/preds`: predicates every value must pass.
    pub preds: Arc<[Symbol]>,
}

impl Attribute {
    /// An attribute nobody declared.
    pub(crate) fn undeclared(id: AttrId, ident: Keyword) -> Self {
        Self {
            id,
            ident,
            entity: None,
            value_type: None,
            cardinality: Cardinality::One,
            unique: None,
            indexed: false,
            is_component: false,
            no_history: false,
            doc: None,
            tuple: None,
            max_length: None,
            preds: Arc::new([]),
        }
    }

    /// Whether an entity may hold several values.
    pub fn is_many(&self) -> bool {
        self.cardinality == Cardinality::Many
    }

    /// Whether values are entities of the same database.
    pub fn is_ref(&self) -> bool {
        self.value_type == Some(ValueType::Ref)
    }

    /// Whether the values stand in the AVET index.
    pub fn in_avet(&self) -> bool {
        self.indexed || self.unique.is_some() || self.is_ref()
    }

    /// Whether stating a value means the entity that has it.
    pub fn is_identity(&self) -> bool {
        self.unique == Some(Unique::Identity)
    }

    /// The parts of a composite tuple.
    pub fn composite(&self) -> Option<&[Keyword]> {
        match &self.tuple {
            Some(Tuple::Composite(parts)) => Some(parts),
            _ => None,
        }
    }
}
