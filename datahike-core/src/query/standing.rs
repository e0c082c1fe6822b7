//! Standing queries: results that are kept while the database goes on.

mod affected;
mod group;
mod plan;
mod shown;
mod sight;

use std::sync::Arc;

use datahike_value::Value;
use hashbrown::HashSet;

use self::affected::{Changes, Found};
use self::plan::Plan;
pub use self::plan::{Strategy, Trigger};
use self::shown::Shown;
use super::ast::In;
use super::{Context, Input, Query, QueryError, q};
use crate::datom::Datom;
use crate::db::Db;
use crate::schema::Schema;

/// A query over a database that goes on, and its result as of the last [`advance`](Self::advance).
///
/// Queries of patterns, predicates, functions, `or`, `not`, rules that do not recur, aggregates and
/// pulls are kept up from the datoms of a transaction: rows that these can have made or undone are
/// looked for from the datoms, and nothing else is read. All others are run again and compared, but
/// only if the transaction touches an attribute that they read; [`strategy`](Self::strategy) tells.
///
/// ```
/// use datahike_core::db::{Db, DbConfig, SchemaFlexibility};
/// use datahike_core::query::{Context, Query, Standing};
/// use datahike_core::tx::TxOptions;
/// use datahike_value::edn;
///
/// let db = Db::empty(DbConfig::new(SchemaFlexibility::Read));
/// let query = Query::parse("[:find ?name :where [?e :name ?name] [?e :age 9]]").unwrap();
/// let mut standing = Standing::start(&query, &[], &db, Context::default()).unwrap();
/// let data = edn::read(r#"[{:name "Ada" :age 9} {:name "Bob" :age 8}]"#).unwrap();
/// let report = db.with(&data, &TxOptions::at(0)).unwrap();
/// let delta = standing.advance(&report.db_before, &report.db_after, &report.tx_data).unwrap();
/// assert_eq!(delta.added, [edn::read(r#"["Ada"]"#).unwrap()]);
/// ```
#[derive(Debug)]
pub struct Standing {
    query: Query,
    /// With the followed database in its place.
    inputs: Vec<Input>,
    followed: Option<usize>,
    context: Context,
    schema: Arc<Schema>,
    plan: Plan,
    shown: Shown,
    /// An error came between: the result is of an older snapshot, or of none.
    stale: bool,
}

/// What came to a result and what went. No row is in both.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Delta {
    /// Rows that are in the result now and were not before.
    pub added: Vec<Value>,
    /// Rows that were in the result before.
    pub removed: Vec<Value>,
}

impl Delta {
    /// Whether nothing changed.
    pub fn is_empty(&self) -> bool {
        self.added.is_empty() && self.removed.is_empty()
    }
}

impl Standing {
    /// Runs the query over `db`, its first source; `inputs` are the others, in the order of `:in`.
    ///
    /// # Errors
    /// As [`q`].
    pub fn start(
        query: &Query,
        inputs: &[Input],
        db: &Db,
        context: Context,
    ) -> Result<Self, QueryError> {
        let followed = query.ast.inputs.iter().position(|input| matches!(input, In::Source(_)));
        let mut inputs = inputs.to_vec();
        if let Some(place) = followed {
            inputs.insert(place.min(inputs.len()), Input::from(db));
        }
        let plan = Plan::new(&query.ast, &inputs, followed, db)?;
        let mut standing = Self {
            shown: Shown::new(&query.ast),
            query: query.clone(),
            inputs,
            followed,
            context,
            schema: db.shared_schema(),
            plan,
            stale: true,
        };
        standing.again(db)?;
        Ok(standing)
    }

    /// The rows as of the last advance, in no order: vectors or maps of a relation, elements of a
    /// collection, the one tuple or value there is.
    pub fn rows(&self) -> impl Iterator<Item = Value> + '_ {
        self.shown.rows()
    }

    /// How many rows.
    pub fn len(&self) -> usize {
        self.shown.len()
    }

    /// Whether the result is empty.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Whether it is kept up from deltas, or why it is run again.
    pub fn strategy(&self) -> Strategy {
        self.plan.strategy
    }

    /// Which datoms may change the result: a transaction that has none of them need not be advanced
    /// over. They hold until the schema changes.
    pub fn triggers(&self) -> &[Trigger] {
        &self.plan.triggers
    }

    /// Goes on from `before`, the database of the last advance, to `after`; `datoms` are those of the
    /// transactions between them, in order. Purges are not among them: after one, run it
    /// [`again`](Self::again).
    ///
    /// # Errors
    /// As [`q`]. Where blocks are missing nothing has changed, and it is called again.
    pub fn advance(
        &mut self,
        before: &Db,
        after: &Db,
        datoms: &[Datom],
    ) -> Result<Delta, QueryError> {
        let schema = after.shared_schema();
        if self.stale || !Arc::ptr_eq(&schema, &self.schema) {
            return self.again(after);
        }
        if !datoms.iter().any(|datom| self.plan.triggers.iter().any(|t| t.fires(datom))) {
            return Ok(Delta::default());
        }
        if let Strategy::Again(_) = self.plan.strategy {
            return self.again(after);
        }
        let delta = self.follow(before, after, datoms);
        self.told(delta)
    }

    fn follow(&mut self, before: &Db, after: &Db, datoms: &[Datom]) -> Result<Delta, QueryError> {
        self.place(after);
        let changes = Changes::new(before, after, datoms);
        let found = affected::affected(
            &self.query.ast,
            &self.inputs,
            self.followed,
            &self.context,
            &self.plan,
            &changes,
        )?;
        let ready = self.shown.prepare(&self.context, found, after, &changes)?;
        self.shown.apply(ready)
    }

    /// After an error, what is kept is not of this snapshot; but a fault is none.
    fn told(&mut self, delta: Result<Delta, QueryError>) -> Result<Delta, QueryError> {
        self.stale |= matches!(&delta, Err(error) if error.missing().is_none());
        delta
    }

    /// Runs the query over `db` and compares.
    ///
    /// # Errors
    /// As [`q`].
    pub fn again(&mut self, db: &Db) -> Result<Delta, QueryError> {
        let delta = self.run(db);
        self.told(delta)
    }

    fn run(&mut self, db: &Db) -> Result<Delta, QueryError> {
        let schema = db.shared_schema();
        self.place(db);
        if !Arc::ptr_eq(&schema, &self.schema) {
            self.plan = Plan::new(&self.query.ast, &self.inputs, self.followed, db)?;
            self.schema = schema;
        }
        let ast = &self.query.ast;
        let shown = if let Strategy::Again(_) = self.plan.strategy {
            Shown::whole(ast, q(&self.query, &self.inputs, &self.context)?)
        } else {
            let rows = affected::all(ast, &self.inputs, &self.context)?;
            let mut shown = Shown::new(ast);
            let nothing = Changes::new(db, db, &[]);
            let ready = shown.prepare(&self.context, Found::All(rows), db, &nothing)?;
            shown.apply(ready)?;
            shown
        };
        let old: HashSet<Value> = self.shown.rows().collect();
        let new: HashSet<Value> = shown.rows().collect();
        (self.shown, self.stale) = (shown, false);
        Ok(Delta {
            added: new.difference(&old).cloned().collect(),
            removed: old.difference(&new).cloned().collect(),
        })
    }

    fn place(&mut self, db: &Db) {
        if let Some(input) = self.followed.and_then(|place| self.inputs.get_mut(place)) {
            *input = Input::from(db);
        }
    }
}
