//! The attributes that imported data needs.

use datahike::core::schema::Attribute;
use datahike::{BulkLoad, Column, Keyword};

use super::columns::ColumnType;
use crate::failure::Failure;

/// The attribute of this name, if the database declares it.
pub(super) fn declared<'a>(load: &'a mut BulkLoad, ident: &Keyword) -> Option<&'a Attribute> {
    load.db().attribute(ident).filter(|attribute| attribute.value_type.is_some())
}

/// Refuses an attribute that is to be unique and is declared otherwise.
pub(super) fn check_unique(load: &mut BulkLoad, wanted: &[Column]) -> Result<(), Failure> {
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
    Ok(())
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
