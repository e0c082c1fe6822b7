//! The attributes that imported data needs.

use datahike::core::schema::{Attribute, ValueType};
use datahike::{BulkLoad, Keyword, Value, kw};

use super::Imported;
use super::columns::ColumnType;
use crate::failure::Failure;

/// An attribute as a file needs it.
#[derive(Clone, Debug)]
pub(super) struct Wanted {
    pub(super) ident: Keyword,
    pub(super) value_type: ValueType,
    pub(super) many: bool,
    pub(super) unique: bool,
}

impl Wanted {
    fn definition(&self) -> Value {
        let cardinality = if self.many { "db.cardinality/many" } else { "db.cardinality/one" };
        let mut entries = vec![
            (kw!("db/ident").into(), self.ident.clone().into()),
            (kw!("db/valueType").into(), self.value_type.ident().into()),
            (kw!("db/cardinality").into(), Value::keyword(cardinality)),
        ];
        if self.unique {
            entries.push((kw!("db/unique").into(), Value::keyword("db.unique/identity")));
        }
        Value::map(entries)
    }
}

/// The attribute of this name, if the database declares it.
pub(super) fn declared<'a>(load: &'a BulkLoad, ident: &Keyword) -> Option<&'a Attribute> {
    load.db().attribute(ident).filter(|attribute| attribute.value_type.is_some())
}

/// Declares the attributes that the database does not have; whether all were new.
pub(super) async fn declare(
    load: &mut BulkLoad,
    wanted: &[Wanted],
    done: &mut Imported,
) -> Result<bool, Failure> {
    for one in wanted {
        if let Some(found) = declared(load, &one.ident)
            && one.unique
            && !found.is_identity()
        {
            let text = format!("{} is declared already, and not unique", one.ident);
            return Err(
                Failure::new(text).hint("import without --unique, or under another --namespace")
            );
        }
    }
    let new: Vec<Value> = wanted
        .iter()
        .filter(|one| load.db().attribute(&one.ident).is_none())
        .map(Wanted::definition)
        .collect();
    let all_new = new.len() == wanted.len();
    if !new.is_empty() {
        let report = load.transact(&Value::vector(new)).await?;
        done.add(report.tx_data.len());
        load.commit().await?;
    }
    Ok(all_new)
}

/// How cells of a declared attribute are read, where they can be.
pub(super) fn column_type(attribute: &Attribute) -> Option<ColumnType> {
    let name = attribute.value_type?.ident();
    match name.name() {
        "ref" => Some(ColumnType::Long),
        "float" => Some(ColumnType::Double),
        name => name.parse().ok(),
    }
}
