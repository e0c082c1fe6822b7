//! Connections, and what they tell.

use datahike::{Config, Error, TxEvent, Value};
use futures::stream::{AbortHandle, Abortable};
use js_sys::{Array, Function, Object};
use wasm_bindgen::prelude::wasm_bindgen;
use wasm_bindgen::{JsCast, JsValue};
use wasm_bindgen_futures::spawn_local;

use crate::database::{Database, report_of, tx_data};
use crate::failure::failure;
use crate::plain::{self, Colon};

fn read_config(config: &JsValue) -> Result<Config, JsValue> {
    let value = plain::config(config)?;
    Config::from_value(&value).map_err(|error| failure(&Error::from(error)))
}

/// Creates a database, and returns its configuration as EDN with the identity it was given.
///
/// # Errors
/// If there is one already, or the server refuses.
#[wasm_bindgen(js_name = createDatabase)]
pub async fn create_database(config: JsValue) -> Result<String, JsValue> {
    let created = datahike::create_database(&read_config(&config)?).await;
    Ok(created.map_err(|error| failure(&error))?.to_value().to_string())
}

/// Whether there is a database where the configuration says.
///
/// # Errors
/// If the server cannot be asked.
#[wasm_bindgen(js_name = databaseExists)]
pub async fn database_exists(config: JsValue) -> Result<bool, JsValue> {
    datahike::database_exists(&read_config(&config)?).await.map_err(|error| failure(&error))
}

/// Deletes a database and all that is stored of it.
///
/// # Errors
/// If it is in use, or the server refuses.
#[wasm_bindgen(js_name = deleteDatabase)]
pub async fn delete_database(config: JsValue) -> Result<(), JsValue> {
    datahike::delete_database(&read_config(&config)?).await.map_err(|error| failure(&error))
}

/// Connects to a database; with a kabel writer it is mirrored here first.
///
/// # Errors
/// If there is none, or the server cannot be reached and nothing is mirrored yet.
#[wasm_bindgen]
pub async fn connect(config: JsValue) -> Result<Connection, JsValue> {
    let connection = datahike::connect(&read_config(&config)?).await;
    Ok(Connection { connection: connection.map_err(|error| failure(&error))? })
}

/// A connection to a database.
#[wasm_bindgen]
#[derive(Debug)]
pub struct Connection {
    connection: datahike::Connection,
}

#[wasm_bindgen]
impl Connection {
    /// The newest database value.
    pub fn db(&self) -> Database {
        Database::new(self.connection.clone(), self.connection.db())
    }

    /// Has a transaction carried out, and waits until it is durable and shows here.
    ///
    /// # Errors
    /// Why it is refused.
    pub fn transact(&self, data: &JsValue) -> Result<js_sys::Promise, JsValue> {
        let connection = self.connection.clone();
        let data = tx_data(&connection.db(), data)?;
        Ok(wasm_bindgen_futures::future_to_promise(async move {
            let report = connection.transact(data).await.map_err(|error| failure(&error))?;
            Ok(report_of(&connection, &report).into())
        }))
    }

    /// Calls back with the result of a query, `{rows, added, removed, from, to}`, and after each change
    /// to it. An error is told the same way, as `{error}`.
    ///
    /// # Errors
    /// If an input is no data.
    pub fn watch(
        &self,
        query: String,
        inputs: &Array,
        callback: Function,
    ) -> Result<Subscription, JsValue> {
        let inputs: Result<Vec<Value>, JsValue> =
            inputs.iter().map(|input| plain::from_js(&input, Colon::Keyword)).collect();
        let inputs = inputs?;
        let connection = self.connection.clone();
        Ok(Subscription::of(async move {
            let mut watch = match connection.watch(&query, &inputs).await {
                Ok(watch) => watch,
                Err(error) => return call(&callback, &broken(&error)),
            };
            let first: Vec<Value> = watch.rows().iter().cloned().collect();
            let seen = watch.as_of();
            call(&callback, &change(&first, &first, &[], seen, seen));
            loop {
                let told = match watch.next().await {
                    Ok(None) => return,
                    Err(error) => broken(&error),
                    Ok(Some(next)) => {
                        let rows: Vec<Value> = watch.rows().iter().cloned().collect();
                        change(&rows, &next.added, &next.removed, next.from, next.to)
                    }
                };
                call(&callback, &told);
            }
        }))
    }

    /// Calls back with the report of every transaction from here on, whoever made it. Where some
    /// happened unseen it is told `{gap: [from, to]}`.
    pub fn listen(&self, callback: Function) -> Subscription {
        let connection = self.connection.clone();
        let mut reports = connection.tx_reports();
        Subscription::of(async move {
            while let Some(event) = reports.next().await {
                let told = match event {
                    TxEvent::Report(report) => report_of(&connection, &report),
                    TxEvent::Gap { from, to } => {
                        let object = Object::new();
                        let gap = Array::of2(&(from as f64).into(), &(to as f64).into());
                        plain::set(&object, "gap", &gap);
                        object
                    }
                    _ => continue,
                };
                call(&callback, &told);
            }
        })
    }

    /// How the connection stands: `local`, `offline`, `syncing` or `synced`, the newest
    /// transaction, the bytes in both directions on the present link, and the last error.
    pub fn status(&self) -> Object {
        let object = Object::new();
        let state = self.connection.mirror_state();
        let name = match &state {
            None => "local",
            Some(state) if !state.subscribed => "offline",
            Some(state) if !state.synced => "syncing",
            Some(_) => "synced",
        };
        plain::set(&object, "state", &name.into());
        plain::set(&object, "maxTx", &(self.connection.db().max_tx() as f64).into());
        if let Some(fault) = state.and_then(|state| state.fault) {
            plain::set(&object, "error", &fault.to_string().into());
        }
        if let Some(link) = self.connection.remote().and_then(|remote| remote.link().connection()) {
            let traffic = link.traffic();
            plain::set(&object, "bytesSent", &(traffic.sent() as f64).into());
            plain::set(&object, "bytesReceived", &(traffic.received() as f64).into());
        }
        object
    }

    /// Ends the connection: finishes what waits, and ends watches and listeners.
    ///
    /// # Errors
    /// What closing the store fails with.
    pub fn release(&self) -> js_sys::Promise {
        let connection = self.connection.clone();
        wasm_bindgen_futures::future_to_promise(async move {
            connection.release().await.map_err(|error| failure(&error))?;
            if let Some(remote) = connection.remote() {
                remote.link().close();
            }
            Ok(JsValue::UNDEFINED)
        })
    }
}

/// Something that calls back until it is stopped.
#[wasm_bindgen]
#[derive(Debug)]
pub struct Subscription {
    handle: AbortHandle,
}

impl Subscription {
    fn of(work: impl Future<Output = ()> + 'static) -> Self {
        let (handle, registration) = AbortHandle::new_pair();
        let work = Abortable::new(work, registration);
        spawn_local(async move {
            // Stopped is as good as ended.
            let _ = work.await;
        });
        Self { handle }
    }
}

#[wasm_bindgen]
impl Subscription {
    /// No call comes after this one.
    pub fn stop(&self) {
        self.handle.abort();
    }
}

fn call(callback: &Function, told: &Object) {
    // What a callback throws is its own matter: it must not end what calls it.
    if let Err(error) = callback.call1(&JsValue::UNDEFINED, told) {
        spawn_local(async move { wasm_bindgen::throw_val(error) });
    }
}

fn change(rows: &[Value], added: &[Value], removed: &[Value], from: u64, to: u64) -> Object {
    let list = |rows: &[Value]| JsValue::from(rows.iter().map(plain::to_js).collect::<Array>());
    let object = Object::new();
    for (key, value) in [("rows", list(rows)), ("added", list(added)), ("removed", list(removed))] {
        plain::set(&object, key, &value);
    }
    plain::set(&object, "from", &(from as f64).into());
    plain::set(&object, "to", &(to as f64).into());
    object
}

fn broken(error: &Error) -> Object {
    let object = Object::new();
    plain::set(&object, "error", &failure(error));
    object.unchecked_into()
}
