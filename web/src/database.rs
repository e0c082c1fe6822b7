//! Database values.

use datahike::core::db::{Components, Db, DbError, TimePoint};
use datahike::core::index::Index;
use datahike::core::tx::TxOptions;
use datahike::ops::coerce_tx_data;
use datahike::pull::{self, Pattern};
use datahike::query::{self, Context, Input, Query, QueryError};
use datahike::{Error, TxReport, Value};
use js_sys::{Array, Object};
use wasm_bindgen::prelude::wasm_bindgen;
use wasm_bindgen::{JsCast, JsValue};

use crate::failure::{failure, unusable};
use crate::plain::{self, Colon};

/// An immutable database value. Cheap to hold and to copy.
#[wasm_bindgen]
#[derive(Clone, Debug)]
pub struct Database {
    connection: datahike::Connection,
    db: Db,
}

impl Database {
    pub(crate) fn new(connection: datahike::Connection, db: Db) -> Self {
        Self { connection, db }
    }

    fn seen(&self, db: Result<Db, DbError>) -> Result<Self, JsValue> {
        let db = db.map_err(|error| failure(&Error::from(error)))?;
        Ok(Self::new(self.connection.clone(), db))
    }
}

/// Answers a query over these databases, which stand in `inputs` where those are `undefined`.
///
/// # Errors
/// Why the query could not be read or answered.
#[wasm_bindgen]
pub async fn q(
    query: JsValue,
    databases: Vec<Database>,
    inputs: Array,
) -> Result<JsValue, JsValue> {
    let wrong = |error: QueryError| failure(&Error::from(error));
    let query = match query.as_string() {
        Some(text) => Query::parse(&text),
        None => Query::from_value(&plain::from_js(&query, Colon::Keyword)?),
    };
    let query = query.map_err(wrong)?;
    let mut given = databases.iter();
    let mut arguments = Vec::new();
    for input in inputs.iter() {
        arguments.push(match input.is_undefined() {
            true => given.next().map(|database| Input::from(database.db.clone())),
            false => Some(Input::from(plain::from_js(&input, Colon::Keyword)?)),
        });
    }
    let arguments: Option<Vec<Input>> = arguments.into_iter().collect();
    let arguments = arguments.ok_or_else(|| unusable("an input of the query is undefined"))?;
    let run = || query::q(&query, &arguments, &Context::default());
    let answer = match databases.first() {
        Some(database) => database.connection.settle(run).await.map_err(|e| failure(&e))?,
        None => run().map_err(wrong)?,
    };
    // Rows are distinct; an array is what one maps over.
    let answer = answer.into_value();
    Ok(match answer.as_set() {
        Some(rows) => rows.iter().map(plain::to_js).collect::<Array>().into(),
        None => plain::to_js(&answer),
    })
}

#[wasm_bindgen]
impl Database {
    /// Another handle to the same value.
    #[must_use]
    #[wasm_bindgen(js_name = handle)]
    pub fn handle(&self) -> Self {
        self.clone()
    }

    /// Pulls these entities by a pattern.
    ///
    /// # Errors
    /// Why the pattern cannot be read or an entity not be found.
    #[wasm_bindgen(js_name = pullMany)]
    pub async fn pull_many(self, pattern: JsValue, entities: Array) -> Result<Array, JsValue> {
        let pattern = match pattern.as_string() {
            Some(text) => Pattern::parse_text(&text),
            None => Pattern::parse(&plain::from_js(&pattern, Colon::Keyword)?),
        };
        let pattern = pattern.map_err(|error| failure(&Error::from(error)))?;
        let pulled = Array::new();
        for entity in entities.iter() {
            let entity = plain::from_js(&entity, Colon::Keyword)?;
            let run = || pull::pull(&self.db, &pattern, &entity);
            let found = self.connection.settle(run).await.map_err(|error| failure(&error))?;
            pulled.push(&plain::to_js(&found));
        }
        Ok(pulled)
    }

    /// The datoms of an index, `[e a v tx added]`, of which the first components are these.
    ///
    /// # Errors
    /// If a component does not fit.
    pub async fn datoms(self, index: String, components: Array) -> Result<JsValue, JsValue> {
        let index = match index.trim_start_matches(':') {
            "eavt" => Index::Eavt,
            "aevt" => Index::Aevt,
            "avet" => Index::Avet,
            other => return Err(unusable(&format!("no index {other:?}: give eavt, aevt or avet"))),
        };
        let given: Result<Vec<Value>, JsValue> =
            components.iter().map(|value| plain::from_js(&value, Colon::Keyword)).collect();
        let components = Components::from(given?.as_slice());
        let read = || {
            let datoms = self.db.datoms(index, &components)?;
            datoms.map(|datom| Ok(self.db.datom_value(&datom?))).collect()
        };
        let found = self.connection.settle::<Vec<Value>, DbError>(read).await;
        Ok(plain::to_js(&Value::vector(found.map_err(|error| failure(&error))?)))
    }

    /// What is declared of the attributes.
    pub fn schema(&self) -> JsValue {
        plain::to_js(&self.db.schema().to_value())
    }

    /// All that was ever true.
    ///
    /// # Errors
    /// If the database keeps no history.
    pub fn history(&self) -> Result<Self, JsValue> {
        self.seen(self.db.history())
    }

    /// The state at a transaction id or a `Date`.
    ///
    /// # Errors
    /// If it is neither, or the database keeps no history.
    #[wasm_bindgen(js_name = asOf)]
    pub fn as_of(&self, point: &JsValue) -> Result<Self, JsValue> {
        self.seen(self.db.as_of(time_point(point)?))
    }

    /// What was transacted after a transaction id or a `Date`.
    ///
    /// # Errors
    /// As for [`as_of`](Self::as_of).
    pub fn since(&self, point: &JsValue) -> Result<Self, JsValue> {
        self.seen(self.db.since(time_point(point)?))
    }

    /// What a transaction would do, done to this value alone.
    ///
    /// # Errors
    /// Why it is refused.
    #[wasm_bindgen(js_name = with)]
    pub async fn with(self, data: JsValue) -> Result<Object, JsValue> {
        let data = tx_data(&self.db, &data)?;
        let options = TxOptions::at(js_sys::Date::now() as i64);
        let run = || self.db.with(&data, &options);
        let report = self.connection.settle(run).await.map_err(|error| failure(&error))?;
        Ok(report_of(&self.connection, &report))
    }

    /// Id of the newest transaction.
    #[wasm_bindgen(getter, js_name = maxTx)]
    pub fn max_tx(&self) -> f64 {
        self.db.max_tx() as f64
    }
}

fn time_point(point: &JsValue) -> Result<TimePoint, JsValue> {
    let point = plain::from_js(point, Colon::Text)?;
    TimePoint::from_value(&point)
        .ok_or_else(|| unusable("a point in time is a transaction id or a Date"))
}

/// Transaction data as EDN, or plain: there the schema says what texts and numbers become.
pub(crate) fn tx_data(db: &Db, data: &JsValue) -> Result<Value, JsValue> {
    let read = plain::edn_or_plain(data, Colon::Text)?;
    Ok(if data.is_string() { read } else { coerce_tx_data(db, &read) })
}

/// A tx report as an object.
pub(crate) fn report_of(connection: &datahike::Connection, report: &TxReport) -> Object {
    let object = Object::new();
    let datoms = report.tx_data.iter().map(|datom| report.db_after.datom_value(datom));
    let tempids = Value::map(
        report
            .tempids
            .iter()
            .map(|(tempid, id)| (Value::str(text_of(tempid)), Value::Long(*id as i64))),
    );
    let database = |db: &Db| Database::new(connection.clone(), db.clone()).into();
    let entries: [(&str, JsValue); 6] = [
        ("tx", (report.tx as f64).into()),
        ("txInstant", plain::to_js(&Value::Inst(report.tx_instant))),
        ("txData", datoms.map(|datom| plain::to_js(&datom)).collect::<Array>().into()),
        ("tempids", plain::to_js(&tempids)),
        ("dbBefore", database(&report.db_before)),
        ("dbAfter", database(&report.db_after)),
    ];
    for (key, value) in entries {
        plain::set(object.unchecked_ref(), key, &value);
    }
    object
}

fn text_of(tempid: &Value) -> String {
    tempid.as_str().map_or_else(|| tempid.to_string(), str::to_owned)
}
