//! The attributes every database is born with, and the entities that stand for them in
//! attribute-refs mode.
//!
//! The numbers are frozen: an [`AttrId`] below `ATTRIBUTES.len()` means the same in every
//! database, and the entity ids are those of Datahike, so that a database in attribute-refs mode
//! prints the ids its users know. New rows go at the end of a table.

use datahike_value::{Keyword, Value, kw};

use super::{Cardinality, Unique, ValueType};
use crate::datom::{AttrId, Datom, EntityId, HIGH_ENTITIES, TX0};
use crate::db::entity_value;

/// `:db/ident`
pub const IDENT: AttrId = AttrId(0);
/// `:db/valueType`
pub const VALUE_TYPE: AttrId = AttrId(1);
/// `:db/cardinality`
pub const CARDINALITY: AttrId = AttrId(2);
/// `:db/doc`
pub const DOC: AttrId = AttrId(3);
/// `:db/index`
pub const INDEX: AttrId = AttrId(4);
/// `:db/unique`
pub const UNIQUE: AttrId = AttrId(5);
/// `:db/noHistory`
pub const NO_HISTORY: AttrId = AttrId(6);
/// `:db.install/attribute`
pub const INSTALL_ATTRIBUTE: AttrId = AttrId(7);
/// `:db/txInstant`
pub const TX_INSTANT: AttrId = AttrId(8);
/// `:db/isComponent`
pub const IS_COMPONENT: AttrId = AttrId(9);
/// `:db/tupleType`
pub const TUPLE_TYPE: AttrId = AttrId(10);
/// `:db/tupleTypes`
pub const TUPLE_TYPES: AttrId = AttrId(11);
/// `:db/tupleAttrs`
pub const TUPLE_ATTRS: AttrId = AttrId(12);
/// `:db.valid/from`
pub const VALID_FROM: AttrId = AttrId(13);
/// `:db.valid/to`
pub const VALID_TO: AttrId = AttrId(14);
/// `:db/maxLength`
pub const MAX_LENGTH: AttrId = AttrId(26);
/// `:db.attr/preds`
pub const ATTR_PREDS: AttrId = AttrId(27);
/// `:db.entity/attrs`
pub const ENTITY_ATTRS: AttrId = AttrId(28);
/// `:db.entity/preds`
pub const ENTITY_PREDS: AttrId = AttrId(29);

/// `:db/fn`, under which an entity with an ident names a function of the host. It gets a number where
/// it is first used.
pub(crate) fn function() -> Keyword {
    kw!("db/fn").clone()
}

/// One system attribute.
pub(crate) struct SystemAttribute {
    pub(crate) ident: &'static str,
    /// Its entity in attribute-refs mode.
    pub(crate) entity: EntityId,
    /// Absent where Datahike declares none and takes any value.
    pub(crate) value_type: Option<ValueType>,
    pub(crate) cardinality: Cardinality,
    pub(crate) doc: &'static str,
    pub(crate) unique: Option<Unique>,
    pub(crate) indexed: bool,
    pub(crate) no_history: bool,
}

const fn plain(ident: &'static str, entity: EntityId) -> SystemAttribute {
    SystemAttribute {
        ident,
        entity,
        value_type: None,
        cardinality: Cardinality::One,
        doc: "",
        unique: None,
        indexed: false,
        no_history: false,
    }
}

const fn typed(
    ident: &'static str,
    entity: EntityId,
    value_type: ValueType,
    doc: &'static str,
) -> SystemAttribute {
    SystemAttribute { value_type: Some(value_type), doc, ..plain(ident, entity) }
}

const fn many(
    ident: &'static str,
    entity: EntityId,
    value_type: Option<ValueType>,
) -> SystemAttribute {
    SystemAttribute { value_type, cardinality: Cardinality::Many, ..plain(ident, entity) }
}

const fn indexed(attribute: SystemAttribute) -> SystemAttribute {
    SystemAttribute { indexed: true, ..attribute }
}

/// By [`AttrId`].
pub(crate) const ATTRIBUTES: &[SystemAttribute] = &[
    SystemAttribute {
        unique: Some(Unique::Identity),
        ..typed("db/ident", 1, ValueType::Keyword, "An attribute's or specification's identifier")
    },
    typed("db/valueType", 2, ValueType::ValueType, "An attribute's value type"),
    typed("db/cardinality", 3, ValueType::Cardinality, "An attribute's cardinality"),
    typed("db/doc", 4, ValueType::String, "An attribute's documentation"),
    typed("db/index", 5, ValueType::Boolean, "An attribute's index selection"),
    typed("db/unique", 6, ValueType::Unique, "An attribute's unique selection"),
    typed("db/noHistory", 7, ValueType::Boolean, "An attribute's history selection"),
    typed(
        "db.install/attribute",
        8,
        ValueType::InstallAttribute,
        "Only for interoperability with Datomic",
    ),
    SystemAttribute {
        no_history: true,
        ..typed("db/txInstant", 9, ValueType::Instant, "A transaction's time-point")
    },
    plain("db/isComponent", 34),
    plain("db/tupleType", 35),
    plain("db/tupleTypes", 36),
    plain("db/tupleAttrs", 37),
    indexed(typed("db.valid/from", 39, ValueType::Instant, VALID_FROM_DOC)),
    indexed(typed("db.valid/to", 40, ValueType::Instant, VALID_TO_DOC)),
    plain("db.secondary/type", 41),
    plain("db.secondary/attrs", 42),
    plain("db.secondary/config", 43),
    plain("db.secondary/status", 44),
    plain("db.secondary/building-since-tx", 45),
    plain("db.secondary/only", 46),
    indexed(typed(
        "dh.ref/db",
        47,
        ValueType::Uuid,
        "Cross-db reference: target database (store :id)",
    )),
    typed(
        "dh.ref/attr",
        48,
        ValueType::Keyword,
        "Cross-db reference: unique attribute of the target lookup ref",
    ),
    indexed(typed(
        "dh.ref/value",
        49,
        ValueType::String,
        "Cross-db reference: lookup-ref value, canonically encoded",
    )),
    typed(
        "dh.ref/temporal",
        50,
        ValueType::String,
        "Cross-db reference: temporal qualifier (tx:/date:/valid:/branch:); absent = live head",
    ),
    typed(
        "dh.ref/type",
        51,
        ValueType::Keyword,
        "Cross-db reference: link predicate (application vocabulary)",
    ),
    typed("db/maxLength", 53, ValueType::Long, ""),
    many("db.attr/preds", 54, Some(ValueType::Symbol)),
    // Datahike has no entities for these two; theirs are at the far end of the id space.
    many("db.entity/attrs", HIGH_ENTITIES - 1, None),
    many("db.entity/preds", HIGH_ENTITIES - 2, None),
];

/// Entities with an ident and nothing else, in attribute-refs mode: what the values of
/// `:db/valueType`, `:db/cardinality` and `:db/unique` refer to.
pub(crate) const NAMES: &[(EntityId, &str)] = &[
    (10, "db.cardinality/many"),
    (11, "db.cardinality/one"),
    (12, "db.part/sys"),
    (13, "db.part/tx"),
    (14, "db.part/user"),
    (15, "db.type/bigdec"),
    (16, "db.type/bigint"),
    (17, "db.type/boolean"),
    (18, "db.type/double"),
    (19, "db.type/cardinality"),
    (20, "db.type/float"),
    (21, "db.type/number"),
    (22, "db.type/instant"),
    (23, "db.type/keyword"),
    (24, "db.type/long"),
    (25, "db.type/ref"),
    (26, "db.type/string"),
    (27, "db.type/symbol"),
    (28, "db.type/unique"),
    (29, "db.type/uuid"),
    (30, "db.type/valueType"),
    (31, "db.type.install/attribute"),
    (32, "db.unique/identity"),
    (33, "db.unique/value"),
    (38, "db.type/tuple"),
    (52, "db.type/store-ref"),
    (HIGH_ENTITIES - 3, "db.type/bytes"),
    (HIGH_ENTITIES - 4, "db.type/float-array"),
    (HIGH_ENTITIES - 5, "db.type/double-array"),
    (HIGH_ENTITIES - 6, "db.type/value"),
];

/// The greatest system entity id that Datahike's own numbering uses; user entities follow.
pub(crate) const LAST_ENTITY: EntityId = 54;

const VALID_FROM_DOC: &str = "A transaction's valid-time lower bound (inclusive).\n             Every datom in the tx inherits this vt-from. When\n             absent the transaction's `:db/txInstant` is used.\n             See `doc/valid_time.md` for usage.";
const VALID_TO_DOC: &str = "A transaction's valid-time upper bound (exclusive).\n             When absent the interval is open-ended (treated as +∞).\n             May be written retroactively on a prior tx-entity to\n             close that tx's window; the write is a normal commit,\n             the prior tx's hash is unchanged, and the transactor\n             enforces a cross-tx `vf < vt` check on the combined\n             state. See `doc/valid_time.md` for usage.";

impl super::Schema {
    /// The datoms that say of the system attributes what the table says, as attribute-refs mode
    /// shows them, under [`TX0`].
    pub(crate) fn system_datoms(&self) -> Vec<Datom> {
        let mut datoms = Vec::new();
        let mut say = |e, a, v| datoms.push(Datom { e, a, v, tx: TX0, added: true });
        let refer = |ident: &Keyword| match self.entity_of_ident(ident) {
            Some(e) => entity_value(e),
            None => Value::Keyword(ident.clone()),
        };
        for row in ATTRIBUTES.iter().filter(|row| row.entity <= LAST_ENTITY) {
            let id = self.attr_id(&Keyword::parse(row.ident));
            say(row.entity, IDENT, Value::keyword(row.ident));
            if let Some(value_type) = row.value_type {
                say(row.entity, VALUE_TYPE, refer(&value_type.ident()));
                say(row.entity, CARDINALITY, refer(&row.cardinality.ident()));
            }
            if !row.doc.is_empty() {
                say(row.entity, DOC, Value::str(row.doc));
            }
            if id.is_some_and(|id| self.attribute(id).indexed) {
                say(row.entity, INDEX, Value::Bool(true));
            }
            if row.unique.is_some() {
                // Datahike declares it so here, though idents identify in every mode.
                say(row.entity, UNIQUE, refer(&Unique::Value.ident()));
            }
            if row.no_history {
                say(row.entity, NO_HISTORY, Value::Bool(true));
            }
        }
        for (entity, name) in NAMES.iter().filter(|(entity, _)| *entity <= LAST_ENTITY) {
            say(*entity, IDENT, Value::keyword(name));
        }
        say(TX0, TX_INSTANT, Value::Inst(0));
        datoms
    }
}
