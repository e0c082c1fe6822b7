//! EDN: transaction data, or what `export` wrote.

use std::collections::HashSet;

use datahike::config::SchemaFlexibility;
use datahike::core::tx::{RawDatom, transactions_of};
use datahike::{BulkLoad, Config, Value, kw};

use super::source::Source;
use super::{Imported, Plan};
use crate::cli::Import;
use crate::failure::Failure;
use crate::forms::Forms;

/// Datoms of restored transactions in one commit.
const COMMIT_DATOMS: usize = 50_000;

/// Every datom of a database.
#[derive(Debug, Default)]
pub(super) struct Export {
    datoms: Vec<RawDatom>,
    /// Attributes are named by their entities.
    attribute_refs: bool,
    /// An attribute is used that is not declared.
    undeclared: bool,
}

/// Tells transaction data and exports apart by the first form; an export is read as a whole.
pub(super) fn plan(source: &Source) -> Result<Plan, Failure> {
    let mut forms = Forms::new(source.open()?, source.path.display().to_string());
    let mut form = forms.next()?;
    if !form.as_ref().is_some_and(is_datom) {
        return Ok(Plan::Transactions);
    }
    let mut export = Export::default();
    let mut idents = HashSet::new();
    let mut used = HashSet::new();
    while let Some(record) = form {
        let datom = RawDatom::from_value(&record).map_err(|error| source.failure(error))?;
        export.attribute_refs |= matches!(datom.a, Value::Long(_));
        if datom.a == kw!("db/ident").into() {
            idents.insert(datom.v.clone());
        }
        if datom.a.as_keyword().is_some_and(|a| a.namespace() != Some("db"))
            && !used.contains(&datom.a)
        {
            used.insert(datom.a.clone());
        }
        export.datoms.push(datom);
        form = forms.next()?;
    }
    let of_the_system = |a: &Value| {
        let namespace = a.as_keyword().and_then(|a| a.namespace());
        namespace.is_some_and(|namespace| namespace == "db" || namespace.starts_with("db."))
    };
    export.undeclared = used.iter().any(|a| !idents.contains(a) && !of_the_system(a));
    Ok(Plan::Export(export))
}

impl Export {
    /// A configuration under which all of it can have come about.
    pub(super) fn config(&self, config: Config) -> Config {
        let config = config.attribute_refs(self.attribute_refs);
        match self.undeclared && !self.attribute_refs {
            true => config.schema_flexibility(SchemaFlexibility::Read),
            false => config,
        }
    }
}

/// `[e a v tx added]`
fn is_datom(form: &Value) -> bool {
    let a = |a: &Value| matches!(a, Value::Keyword(_) | Value::Long(_));
    matches!(
        form.as_vector(),
        Some([Value::Long(_), attribute, _, Value::Long(_), Value::Bool(_)]) if a(attribute)
    )
}

/// Brings an export back: ids, transactions and instants as they were.
pub(super) async fn restore(load: &mut BulkLoad, export: Export) -> Result<Imported, Failure> {
    let mut done = Imported::default();
    let transactions = transactions_of(load.db(), export.datoms).map_err(|error| {
        Failure::from(error)
            .hint("an export goes into a new database, or one that is its older part")
    })?;
    let mut waiting = 0;
    for transaction in transactions {
        waiting += transaction.datoms.len();
        done.add(transaction.datoms.len());
        load.add(transaction);
        if waiting >= COMMIT_DATOMS {
            load.commit().await?;
            waiting = 0;
        }
    }
    load.commit().await?;
    Ok(done)
}

/// Transacts form by form: a vector is one transaction, maps that stand alone are batched.
pub(super) async fn load(
    load: &mut BulkLoad,
    source: &Source,
    args: &Import,
) -> Result<Imported, Failure> {
    let mut done = Imported::default();
    let (input, bar) = source.open_shown()?;
    let mut forms = Forms::new(input, source.path.display().to_string());
    let mut alone = Vec::new();
    let mut number = 0_u64;
    loop {
        let form = forms.next()?;
        number += 1;
        let is_alone = form.as_ref().is_some_and(|form| form.as_map().is_some());
        if !alone.is_empty() && (!is_alone || alone.len() >= args.batch as usize) {
            let maps = Value::vector(std::mem::take(&mut alone));
            transact(load, &maps, &mut done).await.map_err(|e| e.at(source.path.display()))?;
        }
        match form {
            None => break,
            Some(map) if is_alone => alone.push(map),
            Some(form) => transact(load, &form, &mut done)
                .await
                .map_err(|e| source.failure(e.at(format!("form {number}"))))?,
        }
    }
    bar.finish_and_clear();
    Ok(done)
}

async fn transact(load: &mut BulkLoad, data: &Value, done: &mut Imported) -> Result<(), Failure> {
    let report = load.transact(data).await?;
    done.add(report.tx_data.len());
    Ok(load.commit().await?)
}
