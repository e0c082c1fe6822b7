//! The database as a value: one immutable snapshot and the view through which it is seen.
//!
//! **Ids.** Transactions count from 536870913 and user entities from 1, as in Datahike. Entity ids
//! run up to 2^29 - 1 and go on at 2^40, so that they never meet a transaction id; see
//! [`crate::datom`].

mod datoms;
mod equality;
mod error;
mod later;
mod lookup;
mod metrics;
mod scan;
mod view;

use std::fmt;
use std::sync::Arc;

use datahike_value::{Keyword, Value};

pub use self::datoms::{Components, Datoms};
pub use self::error::DbError;
pub(crate) use self::error::did_you_mean;
use self::later::Later;
pub use self::metrics::Metrics;
pub use self::scan::Scan;
pub use self::view::{Filter, TimePoint, View};
use crate::datom::{AttrId, Datom, EntityId, HIGH_ENTITIES, LOW_ENTITIES_END, TX0, TxId};
use crate::index::{Indexes, Params, Range};
use crate::schema::{Attribute, Schema, system};
use crate::tx::ResolvedTx;

/// Whether attributes must be declared before they are used.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum SchemaFlexibility {
    /// Any attribute may be used and holds any value; declared ones are honoured.
    Read,
    /// Attributes must be declared, and values must be of the declared type.
    #[default]
    Write,
}

/// What is decided when a database is created and never changes.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct DbConfig {
    /// Whether attributes must be declared.
    pub schema_flexibility: SchemaFlexibility,
    /// Whether what is retracted or superseded is kept.
    pub keep_history: bool,
    /// Whether users see attributes as entity ids.
    pub attribute_refs: bool,
    /// Where the blocks of the indexes end.
    pub params: Params,
}

impl Default for DbConfig {
    fn default() -> Self {
        Self {
            schema_flexibility: SchemaFlexibility::Write,
            keep_history: true,
            attribute_refs: false,
            params: Params::default(),
        }
    }
}

impl DbConfig {
    /// The default with this schema flexibility.
    pub fn new(schema_flexibility: SchemaFlexibility) -> Self {
        Self { schema_flexibility, ..Self::default() }
    }

    /// With history or without.
    #[must_use]
    pub fn with_history(self, keep_history: bool) -> Self {
        Self { keep_history, ..self }
    }

    /// With attributes as entity ids or as keywords.
    #[must_use]
    pub fn with_attribute_refs(self, attribute_refs: bool) -> Self {
        Self { attribute_refs, ..self }
    }

    /// With these index parameters.
    #[must_use]
    pub fn with_params(self, params: Params) -> Self {
        Self { params, ..self }
    }
}

/// What a snapshot counts. Everything here follows from the datoms; a flush record keeps it so that
/// opening need not read them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Counters {
    /// The greatest entity id given out or used, in the order low range, high range.
    pub max_entity: EntityId,
    /// The latest transaction; [`TX0`] before the first.
    pub max_tx: TxId,
    /// Its instant, milliseconds since the epoch.
    pub last_instant: i64,
    /// Whether the instants of all transactions rise with their ids. Only supplied instants can
    /// break it; looking up a time is a search then, not a bisection.
    pub instants_rise: bool,
}

impl Counters {
    fn new(attribute_refs: bool) -> Self {
        Self {
            max_entity: if attribute_refs { system::LAST_ENTITY } else { 0 },
            max_tx: TX0,
            last_instant: 0,
            instants_rise: true,
        }
    }

    /// The id after `max_entity`.
    pub fn next_entity(&self) -> EntityId {
        after(self.max_entity)
    }

    pub(crate) fn absorb(&mut self, datom: &Datom) {
        self.use_entity(datom.e);
        if datom.a == system::TX_INSTANT
            && datom.added
            && datom.e == datom.tx
            && let Value::Inst(instant) = datom.v
        {
            self.instants_rise &= self.max_tx == TX0 || instant > self.last_instant;
            self.last_instant = instant;
        } else if datom.a == system::TX_INSTANT {
            self.instants_rise = false;
        }
    }

    pub(crate) fn use_entity(&mut self, e: EntityId) {
        if is_user_entity(e) && e > self.max_entity {
            self.max_entity = e;
        }
    }
}

/// The entity id that follows `e`: the one after 2^29 - 1 is 2^40.
pub(crate) fn after(e: EntityId) -> EntityId {
    if e + 1 == LOW_ENTITIES_END { HIGH_ENTITIES } else { e + 1 }
}

/// Whether the id is in one of the two ranges of user entities.
pub(crate) fn is_user_entity(e: EntityId) -> bool {
    !(LOW_ENTITIES_END..HIGH_ENTITIES).contains(&e)
}

/// A snapshot of a database, seen through a view. A clone copies two pointers.
#[derive(Clone)]
pub struct Db {
    snapshot: Arc<Snapshot>,
    view: Option<Arc<View>>,
}

#[derive(Debug)]
enum Snapshot {
    Made(Base),
    /// Made when it is first looked at.
    Later(Later),
}

#[derive(Clone, Debug)]
struct Base {
    config: DbConfig,
    schema: Arc<Schema>,
    indexes: Indexes,
    counters: Counters,
}

impl Db {
    /// The database before its first transaction. In attribute-refs mode it holds the entities of
    /// the system attributes, under transaction [`TX0`].
    pub fn empty(config: DbConfig) -> Self {
        let schema = Schema::new(config.attribute_refs);
        let mut indexes = Indexes::empty(config.params, config.keep_history);
        if config.attribute_refs {
            indexes.extend(&schema.system_datoms(), &schema);
        }
        let counters = Counters::new(config.attribute_refs);
        Self::restore(config, Arc::new(schema), indexes, counters)
    }

    /// A snapshot from its stored parts.
    pub fn restore(
        config: DbConfig,
        schema: Arc<Schema>,
        indexes: Indexes,
        counters: Counters,
    ) -> Self {
        Base { config, schema, indexes, counters }.into()
    }

    /// The same datoms in other indexes, after a flush for one. The view stays.
    #[must_use]
    pub fn with_indexes(&self, indexes: Indexes) -> Self {
        let base = Base { indexes, ..self.base().clone() };
        Self { view: self.view.clone(), ..base.into() }
    }

    fn base(&self) -> &Base {
        match &*self.snapshot {
            Snapshot::Made(base) => base,
            Snapshot::Later(later) => later.made(),
        }
    }

    /// What was decided when the database was created.
    pub fn config(&self) -> &DbConfig {
        &self.base().config
    }

    /// Its attributes and idents, as of the latest transaction whatever the view.
    pub fn schema(&self) -> &Schema {
        &self.base().schema
    }

    /// The schema to share.
    pub fn shared_schema(&self) -> Arc<Schema> {
        Arc::clone(&self.base().schema)
    }

    /// The indexes, whatever the view.
    pub fn indexes(&self) -> &Indexes {
        &self.base().indexes
    }

    /// The counters, whatever the view.
    pub fn counters(&self) -> Counters {
        self.base().counters
    }

    /// The latest transaction of the snapshot; [`TX0`] before the first.
    pub fn max_tx(&self) -> TxId {
        self.base().counters.max_tx
    }

    /// The greatest entity id in use.
    pub fn max_entity(&self) -> EntityId {
        self.base().counters.max_entity
    }

    /// The view, `None` for the current state.
    pub fn view(&self) -> Option<&View> {
        self.view.as_deref()
    }

    /// Whether this is the plain current state, so that [`Self::indexes`] may be read directly.
    pub fn is_current(&self) -> bool {
        self.view.is_none()
    }

    /// The same snapshot without a view.
    #[must_use]
    pub fn unviewed(&self) -> Self {
        Self { snapshot: Arc::clone(&self.snapshot), view: None }
    }

    /// All assertions and retractions instead of a state.
    ///
    /// # Errors
    /// If the database keeps no history.
    pub fn history(&self) -> Result<Self, DbError> {
        self.viewed("history", View::with_history)
    }

    /// The state at a transaction or instant, inclusive. As-of of an as-of is the earlier of both.
    ///
    /// # Errors
    /// If the database keeps no history.
    pub fn as_of(&self, point: TimePoint) -> Result<Self, DbError> {
        self.viewed("as-of", |view| view.with_as_of(point))
    }

    /// Only what was transacted after a transaction or instant.
    ///
    /// # Errors
    /// If the database keeps no history.
    pub fn since(&self, point: TimePoint) -> Result<Self, DbError> {
        self.viewed("since", |view| view.with_since(point))
    }

    /// Only the datoms that pass `filter`, which is handed this database and must be pure.
    #[must_use]
    pub fn filter(&self, filter: Filter) -> Self {
        let view = View::of(self.view()).with_filter(self.clone(), filter);
        Self { snapshot: Arc::clone(&self.snapshot), view: Some(Arc::new(view)) }
    }

    /// Whether a filter is in the view.
    pub fn is_filtered(&self) -> bool {
        self.view().is_some_and(View::is_filtered)
    }

    fn viewed(
        &self,
        name: &'static str,
        change: impl FnOnce(View) -> View,
    ) -> Result<Self, DbError> {
        if !self.base().config.keep_history {
            return Err(DbError::NoHistory { view: name });
        }
        let view = change(View::of(self.view()));
        Ok(Self { snapshot: Arc::clone(&self.snapshot), view: Some(Arc::new(view)) })
    }

    /// The datoms in `range` that the view shows, in the order of the index.
    pub fn scan(&self, range: &Range) -> Scan {
        Scan::new(self, range, false)
    }

    /// The same from the end.
    pub fn scan_rev(&self, range: &Range) -> Scan {
        Scan::new(self, range, true)
    }

    /// About how many datoms are in `range`, for planning. Reads nothing.
    pub fn estimate(&self, range: &Range) -> usize {
        self.base().indexes.estimate(range)
    }

    /// The attribute that a user means: its ident, or in attribute-refs mode its entity too.
    pub fn attr_of(&self, value: &Value) -> Option<AttrId> {
        match value {
            Value::Keyword(ident) => self.schema().attr_id(ident),
            Value::Long(e) if self.config().attribute_refs => {
                self.schema().attr_of_entity(u64::try_from(*e).ok()?)
            }
            _ => None,
        }
    }

    /// How a user sees an attribute: its ident, or its entity in attribute-refs mode.
    pub fn attr_value(&self, a: AttrId) -> Value {
        let attribute = self.schema().attribute(a);
        match attribute.entity.filter(|_| self.config().attribute_refs) {
            Some(e) => entity_value(e),
            None => Value::Keyword(attribute.ident.clone()),
        }
    }

    /// The attribute of this name, declared or used.
    pub fn attribute(&self, ident: &Keyword) -> Option<&Attribute> {
        self.schema().attr_id(ident).map(|a| self.schema().attribute(a))
    }

    /// A datom as users see it: `[e a v tx added]`.
    pub fn datom_value(&self, datom: &Datom) -> Value {
        Value::vector([
            entity_value(datom.e),
            self.attr_value(datom.a),
            datom.v.clone(),
            entity_value(datom.tx),
            Value::Bool(datom.added),
        ])
    }

    /// The snapshot after a resolved transaction. Checks nothing and reads nothing: the transaction
    /// must have been made from this snapshot. The view is dropped.
    #[must_use]
    pub fn apply(&self, tx: &ResolvedTx) -> Self {
        self.apply_all(std::iter::once(tx))
    }

    /// The snapshot after several resolved transactions, in order.
    #[must_use]
    pub fn apply_all<'a>(&self, txs: impl IntoIterator<Item = &'a ResolvedTx>) -> Self {
        let mut base = self.base().clone();
        txs.into_iter().for_each(|tx| base.apply(tx));
        base.into()
    }

    /// Becomes the snapshot after a transaction whose schema is known already: in place, if nobody
    /// else holds this one.
    pub(crate) fn advance(&mut self, tx: &ResolvedTx, schema: Arc<Schema>) {
        self.view = None;
        if let Some(Snapshot::Made(base)) = Arc::get_mut(&mut self.snapshot) {
            let before = std::mem::replace(&mut base.schema, schema);
            base.follow(&before);
            base.add(tx);
        } else {
            let mut base = Base { schema, ..self.base().clone() };
            base.follow(&self.base().schema);
            base.add(tx);
            *self = base.into();
        }
    }

    /// The snapshot after a transaction, to be made when it is first looked at.
    pub(crate) fn later(&self, tx: ResolvedTx) -> Self {
        let later = Later::new(self.unviewed(), tx);
        Self { snapshot: Arc::new(Snapshot::Later(later)), view: None }
    }
}

impl Base {
    fn apply(&mut self, tx: &ResolvedTx) {
        let mut all = tx.purged.iter().chain(tx.datoms.iter());
        let defines = all.any(|datom| Schema::defines_schema(datom.a));
        let before = Arc::clone(&self.schema);
        if defines || !tx.new_attributes.is_empty() {
            let schema = Arc::make_mut(&mut self.schema);
            for ident in tx.new_attributes.iter() {
                schema.intern(ident);
            }
            for datom in tx.purged_from_now() {
                schema.absorb(&Datom { added: false, tx: tx.tx, ..datom.clone() });
            }
            for datom in tx.datoms.iter() {
                schema.absorb(datom);
            }
            schema.seal();
        }
        self.follow(&before);
        self.add(tx);
    }

    /// Attributes that have become indexed may have data.
    fn follow(&mut self, before: &Arc<Schema>) {
        if Arc::ptr_eq(before, &self.schema) {
            return;
        }
        for (old, new) in before.attributes().iter().zip(self.schema.attributes()) {
            if new.in_avet() && !old.in_avet() {
                self.indexes.uncover(old.id);
            }
        }
    }

    fn add(&mut self, tx: &ResolvedTx) {
        for datom in tx.datoms.iter() {
            self.counters.absorb(datom);
        }
        self.counters.max_tx = self.counters.max_tx.max(tx.tx);
        self.indexes.purge_in_place(&tx.purged);
        match tx.for_indexes() {
            Some(datoms) => self.indexes.extend(&datoms, &*self.schema),
            None => self.indexes.extend(&tx.datoms, &*self.schema),
        }
    }
}

impl From<Base> for Db {
    fn from(base: Base) -> Self {
        Self { snapshot: Arc::new(Snapshot::Made(base)), view: None }
    }
}

impl fmt::Debug for Db {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Db")
            .field("max_tx", &self.base().counters.max_tx)
            .field("max_entity", &self.base().counters.max_entity)
            .field("view", &self.view)
            .finish_non_exhaustive()
    }
}

/// An entity id as a value. Ids are below 2^63 wherever they come from.
pub fn entity_value(e: EntityId) -> Value {
    Value::Long(i64::try_from(e).unwrap_or(i64::MAX))
}
