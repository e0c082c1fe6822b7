//! The engine as the corpora see it: values go in and come out, errors have a code.

use std::collections::BTreeMap;
use std::fmt;

use datahike_core::datom::Datom;
use datahike_core::db::{Components, Datoms, Db, DbConfig, DbError, SchemaFlexibility, TimePoint};
use datahike_core::entity::EntityValue;
use datahike_core::index::Index;
use datahike_core::pull::{Pattern, pull, pull_many};
use datahike_core::query::{Context, Function, Input, Query, QueryError, Rules, q};
use datahike_core::tx::{TxError, TxOptions};
use datahike_value::Value;

/// How a database is created.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Options {
    /// Attributes must be declared.
    pub schema_on_write: bool,
    /// The past is kept.
    pub keep_history: bool,
    /// Users see attributes as entity ids.
    pub attribute_refs: bool,
}

/// What the engine refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// The stable code, without the colon.
    pub code: Option<String>,
    /// The message.
    pub message: String,
}

impl Failure {
    /// Without a code.
    pub fn new(message: String) -> Self {
        Self { code: None, message }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.code {
            Some(code) => write!(f, ":{code} ({})", self.message),
            None => f.write_str(&self.message),
        }
    }
}

impl From<DbError> for Failure {
    fn from(error: DbError) -> Self {
        Self { code: error.code().map(str::to_owned), message: error.to_string() }
    }
}

impl From<TxError> for Failure {
    fn from(error: TxError) -> Self {
        Self { code: error.code().map(str::to_owned), message: error.to_string() }
    }
}

impl From<QueryError> for Failure {
    fn from(error: QueryError) -> Self {
        Self { code: Some(error.code().to_owned()), message: error.to_string() }
    }
}

/// What a transaction did.
#[derive(Clone, Debug, PartialEq)]
pub struct Report {
    /// Its id.
    pub tx: i64,
    /// Its datoms as `[e a v tx added]`.
    pub datoms: Vec<[Value; 5]>,
    /// What its tempids mean.
    pub tempids: BTreeMap<Value, i64>,
}

/// A point in time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Point {
    /// A transaction.
    Tx(i64),
    /// Milliseconds since 1970.
    Instant(i64),
}

/// A view of a database.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ViewOp {
    /// Everything that happened.
    History,
    /// What held then.
    AsOf(Point),
    /// What came after.
    Since(Point),
}

/// One input of a query.
#[derive(Clone, Debug)]
pub enum Argument {
    /// A database.
    Db(Engine),
    /// A value.
    Value(Value),
    /// Rules.
    Rules(Value),
    /// A host function by name.
    Function(String),
}

/// What a query is given besides its text.
#[derive(Clone, Debug, Default)]
pub struct Paging {
    /// `:limit`
    pub limit: Option<i64>,
    /// `:offset`
    pub offset: Option<i64>,
    /// `:order-by`
    pub order_by: Option<Value>,
}

/// A snapshot.
#[derive(Clone, Debug)]
pub struct Engine {
    db: Db,
}

impl Engine {
    /// An empty database.
    pub fn empty(options: Options) -> Self {
        let flexibility = if options.schema_on_write {
            SchemaFlexibility::Write
        } else {
            SchemaFlexibility::Read
        };
        let config = DbConfig::new(flexibility)
            .with_history(options.keep_history)
            .with_attribute_refs(options.attribute_refs);
        Self { db: Db::empty(config) }
    }

    /// The snapshot itself.
    pub fn db(&self) -> &Db {
        &self.db
    }

    /// The snapshot after a transaction at `now`, milliseconds since 1970.
    ///
    /// # Errors
    /// If it is refused.
    pub fn transact(
        &self,
        data: &Value,
        meta: Option<&Value>,
        now: i64,
    ) -> Result<(Self, Report), Failure> {
        let options = TxOptions::at(now).with_meta(meta.cloned().unwrap_or_default());
        let report = self.db.with(data, &options)?;
        let tempids = report.tempids.iter().map(|(tempid, e)| (tempid.clone(), signed(*e)));
        let told = Report {
            tx: signed(report.tx),
            datoms: report.tx_data.iter().map(|datom| shown(&report.db_after, datom)).collect(),
            tempids: tempids.collect(),
        };
        Ok((Self { db: report.db_after }, told))
    }

    /// The snapshot through a view.
    ///
    /// # Errors
    /// If the database keeps no history.
    pub fn view(&self, op: &ViewOp) -> Result<Self, Failure> {
        let db = match op {
            ViewOp::History => self.db.history(),
            ViewOp::AsOf(point) => self.db.as_of(point.into()),
            ViewOp::Since(point) => self.db.since(point.into()),
        }?;
        Ok(Self { db })
    }

    /// The datoms of `index` that start with `components`.
    ///
    /// # Errors
    /// If a component is malformed.
    pub fn datoms(&self, index: &Value, components: &[Value]) -> Result<Vec<[Value; 5]>, Failure> {
        self.collect(self.db.datoms(index_of(index)?, &Components::from(components))?)
    }

    /// The datoms of `index` from `components` on, or back from there.
    ///
    /// # Errors
    /// If a component is malformed.
    pub fn seek(
        &self,
        index: &Value,
        components: &[Value],
        reverse: bool,
    ) -> Result<Vec<[Value; 5]>, Failure> {
        let (index, components) = (index_of(index)?, Components::from(components));
        self.collect(if reverse {
            self.db.rseek_datoms(index, &components)?
        } else {
            self.db.seek_datoms(index, &components)?
        })
    }

    /// The datoms of `attribute` with values from `start` to `end`.
    ///
    /// # Errors
    /// If the attribute is unknown or not indexed.
    pub fn index_range(
        &self,
        attribute: &Value,
        start: Option<&Value>,
        end: Option<&Value>,
    ) -> Result<Vec<[Value; 5]>, Failure> {
        let open = Value::Nil;
        let found = self.db.index_range(attribute, start.unwrap_or(&open), end.unwrap_or(&open))?;
        self.collect(found)
    }

    /// The answer to `query`, which is asked of `arguments` in the order of its `:in`.
    ///
    /// # Errors
    /// If it is refused or fails.
    pub fn query(form: &Value, arguments: &[Argument], paging: &Paging) -> Result<Value, Failure> {
        let mut query = Query::from_value(form)?;
        if let Some(order) = &paging.order_by {
            query = query.ordered_by(order)?;
        }
        if let Some(limit) = paging.limit {
            // Fewer than none is no bound.
            query = query.limited(usize::try_from(limit).ok());
        }
        if let Some(offset) = paging.offset {
            query = query.starting_at(usize::try_from(offset).unwrap_or(0));
        }
        let inputs = arguments
            .iter()
            .map(|argument| match argument {
                Argument::Db(engine) => Ok(Input::Db(engine.db.clone())),
                Argument::Value(value) => Ok(Input::Value(value.clone())),
                Argument::Rules(rules) => Ok(Input::Rules(Rules::from_value(rules)?)),
                Argument::Function(name) => crate::host::function(name)
                    .map(|function| Input::Function(Function(function)))
                    .ok_or_else(|| Failure::new(format!("unknown host function {name}"))),
            })
            .collect::<Result<Vec<_>, Failure>>()?;
        Ok(q(&query, &inputs, &Context::default())?.into_value())
    }

    /// The entity as `pattern` asks for it.
    ///
    /// # Errors
    /// If the pattern or the entity is malformed.
    pub fn pull(&self, pattern: &Value, entity: &Value) -> Result<Value, Failure> {
        Ok(pull(&self.db, &Pattern::parse(pattern)?, entity)?)
    }

    /// Several entities, in their order.
    ///
    /// # Errors
    /// As [`Self::pull`].
    pub fn pull_many(&self, pattern: &Value, entities: &[Value]) -> Result<Value, Failure> {
        Ok(Value::vector(pull_many(&self.db, &Pattern::parse(pattern)?, entities)?))
    }

    /// All about an entity; nil if it is not there.
    ///
    /// # Errors
    /// If its name is malformed.
    pub fn touch(&self, entity: &Value) -> Result<Value, Failure> {
        match self.db.entity(entity)? {
            Some(entity) => Ok(entity.touch()?),
            None => Ok(Value::Nil),
        }
    }

    /// What a path of attributes leads to from an entity.
    ///
    /// # Errors
    /// If the name is malformed, or the path leads through a plain value.
    pub fn entity_path(&self, entity: &Value, path: &[Value]) -> Result<Value, Failure> {
        let Some(mut entity) = self.db.entity(entity)? else { return Ok(Value::Nil) };
        let mut reached = Some(EntityValue::Entity(entity.clone()));
        for step in path {
            match reached {
                None => return Ok(Value::Nil),
                Some(EntityValue::Entity(next)) => entity = next,
                Some(_) => return Err(Failure::new(format!("{step}: not at one entity"))),
            }
            let attribute =
                step.as_keyword().ok_or_else(|| Failure::new(format!("{step} is no attribute")))?;
            reached = if attribute.text() == "db/id" {
                Some(EntityValue::One(signed(entity.id()).into()))
            } else {
                entity.get(attribute)?
            };
        }
        Ok(reached.map(|value| value.to_value()).unwrap_or_default())
    }

    fn collect(&self, datoms: Datoms<'_>) -> Result<Vec<[Value; 5]>, Failure> {
        datoms.map(|datom| Ok(shown(&self.db, &datom.map_err(DbError::from)?))).collect()
    }
}

impl From<&Point> for TimePoint {
    fn from(point: &Point) -> Self {
        match point {
            Point::Tx(tx) => Self::Tx(tx.unsigned_abs()),
            Point::Instant(ms) => Self::Inst(*ms),
        }
    }
}

fn index_of(name: &Value) -> Result<Index, Failure> {
    match name.as_keyword().map(|keyword| keyword.text()) {
        Some("eavt") => Ok(Index::Eavt),
        Some("aevt") => Ok(Index::Aevt),
        Some("avet") => Ok(Index::Avet),
        _ => Err(Failure::new(format!("unknown index {name}"))),
    }
}

fn shown(db: &Db, datom: &Datom) -> [Value; 5] {
    [
        signed(datom.e).into(),
        db.attr_value(datom.a),
        datom.v.clone(),
        signed(datom.tx).into(),
        datom.added.into(),
    ]
}

fn signed(id: u64) -> i64 {
    i64::try_from(id).unwrap_or(i64::MAX)
}
