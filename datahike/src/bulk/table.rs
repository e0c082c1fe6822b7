//! Tables: one entity a row, one attribute a column.

use std::collections::HashSet;

use datahike_core::block::Missing;
use datahike_core::datom::{AttrId, Datom, HIGH_ENTITIES, LOW_ENTITIES_END, TX0, TxId};
use datahike_core::index::Range;
use datahike_core::schema::{Attribute, Schema, ValueType, system};
use datahike_core::tx::ResolvedTx;
use datahike_value::{Keyword, Value, kw};

use super::BulkLoad;
use crate::error::Error;

/// A column of a table: the attribute that its cells are values of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Column {
    /// Its name.
    pub ident: Keyword,
    /// The type of its values.
    pub value_type: ValueType,
    /// Whether a value names one entity: a row with a value that is there already is about the
    /// entity that has it.
    pub unique: bool,
    /// Whether an entity may have several values: rows about one entity then add up.
    pub many: bool,
}

impl Column {
    /// Of single values that name nothing.
    pub fn new(ident: Keyword, value_type: ValueType) -> Self {
        Self { ident, value_type, unique: false, many: false }
    }

    /// The same with values that name an entity.
    #[must_use]
    pub fn unique(self) -> Self {
        Self { unique: true, ..self }
    }

    /// The attribute's definition as transaction data.
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

/// A table that is being loaded; see [`BulkLoad::table`].
#[derive(Debug)]
pub struct Table {
    columns: Vec<Known>,
    /// The columns in the order in which the entries of a map come.
    order: Vec<usize>,
    /// Whether rows may be resolved here, as long as they are about new entities: until something
    /// else is added to the database.
    plain: bool,
    /// The latest transaction that the table knows of.
    tx: TxId,
}

/// A column with its attribute.
#[derive(Debug)]
struct Known {
    column: Column,
    a: AttrId,
    /// The values so far, where they name entities.
    seen: HashSet<Value>,
}

impl BulkLoad {
    /// Declares the attributes of columns that the database does not have, as one transaction.
    /// Returns the number of its datoms, 0 if there was nothing to declare.
    ///
    /// # Errors
    /// [`Error::Arguments`] if two columns are of one attribute, or an attribute is declared already
    /// and is not what the column says; why the declaration was refused.
    pub async fn declare(&mut self, columns: &[Column]) -> Result<usize, Error> {
        let refuse = |column: &Column, reason: &str| {
            Err(wrong(format!("column {}: {reason}", column.ident)))
        };
        let mut names = HashSet::new();
        let mut new = Vec::new();
        for column in columns {
            if !names.insert(&column.ident) {
                return refuse(column, "there is another one of this name");
            }
            let declared = self.db().attribute(&column.ident);
            match declared.and_then(|found| Some((found, found.value_type?))) {
                None => new.push(column.definition()),
                Some((_, found)) if found != column.value_type => {
                    return refuse(column, &format!("its attribute is declared as {found}"));
                }
                Some((found, _)) if column.unique && !found.is_identity() => {
                    return refuse(column, "its attribute is declared, and not as unique identity");
                }
                Some(_) => {}
            }
        }
        match new.is_empty() {
            true => Ok(0),
            false => Ok(self.transact(&Value::vector(new)).await?.tx_data.len()),
        }
    }

    /// Begins a table, [declaring](Self::declare) what is not declared.
    ///
    /// # Errors
    /// As [`declare`](Self::declare).
    pub async fn table(&mut self, columns: Vec<Column>) -> Result<Table, Error> {
        self.declare(&columns).await?;
        let (blocks, db) = (self.blocks.clone(), self.db().clone());
        let schema = db.schema();
        let mut plain = true;
        let mut known = Vec::with_capacity(columns.len());
        for column in columns {
            let Some(a) = schema.attr_id(&column.ident) else {
                return Err(wrong(format!("column {}: it was not declared", column.ident)));
            };
            let attribute = schema.attribute(a);
            plain &= is_plain(schema, attribute);
            if attribute.unique.is_some() {
                // Values of before may name the entities of rows.
                plain &= blocks
                    .settle(|| {
                        let mut datoms = db.scan(&Range::aevt(a, None));
                        Ok::<_, Missing>(datoms.next().transpose()?.is_none())
                    })
                    .await?;
            }
            known.push(Known { column, a, seen: HashSet::new() });
        }
        let mut order: Vec<usize> = (0..known.len()).collect();
        order.sort_by(|x, y| known[*x].column.ident.cmp(&known[*y].column.ident));
        Ok(Table { columns: known, order, plain, tx: db.max_tx() })
    }

    /// Adds rows as one transaction and begins to commit it; it is durable when
    /// [`commit`](Self::commit) returns, and before any that is added later. `cells` holds the rows
    /// one after the other, each with a value for every column, nil where it has none; they are left
    /// nil. Returns the number of datoms.
    ///
    /// What comes of it is what the transactor makes of a map for each row: types are checked, and
    /// values that name entities are looked up. Where all rows are new entities with plain values,
    /// that is known without asking it.
    ///
    /// # Errors
    /// [`Error::Arguments`] if they are not whole rows; why the transactor refuses them, which leaves
    /// the load as it was; what the store fails with, which ends it.
    pub async fn add_rows(
        &mut self,
        table: &mut Table,
        cells: &mut [Value],
    ) -> Result<usize, Error> {
        let width = table.columns.len();
        if width == 0 || !cells.len().is_multiple_of(width) {
            let cells = cells.len();
            return Err(wrong(format!("{cells} cells are no whole rows of {width} columns")));
        }
        table.plain &= table.tx == self.counters.max_tx;
        let takes = table.takes(cells);
        let datoms = match table.plain && takes {
            true => self.add_new(table, cells),
            false => {
                let data = Value::vector(cells.chunks_mut(width).filter_map(|row| table.map(row)));
                match data.as_slice() {
                    Some([]) => 0,
                    _ => self.transact(&data).await?.tx_data.len(),
                }
            }
        };
        table.tx = self.counters.max_tx;
        self.begin_commit().await?;
        Ok(datoms)
    }

    /// Resolves rows of new entities.
    fn add_new(&mut self, table: &Table, cells: &mut [Value]) -> usize {
        let instant = self.next_instant();
        let mut counters = self.counters;
        let tx = counters.max_tx + 1;
        let mut datoms = Vec::with_capacity(cells.len() + 1);
        let v = Value::Inst(instant);
        datoms.push(Datom { e: tx, a: system::TX_INSTANT, v, tx, added: true });
        let mut e = counters.next_entity();
        for row in cells.chunks_mut(table.columns.len()) {
            let before = datoms.len();
            for column in &table.order {
                if let (Some(cell), Some(known)) =
                    (row.get_mut(*column), table.columns.get(*column))
                    && !cell.is_nil()
                {
                    let v = std::mem::take(cell);
                    datoms.push(Datom { e, a: known.a, v, tx, added: true });
                }
            }
            if datoms.len() > before {
                counters.max_entity = e;
                e = if e + 1 == LOW_ENTITIES_END { HIGH_ENTITIES } else { e + 1 };
            }
        }
        // Rows without any cell are no entities, and no transaction.
        if datoms.len() == 1 {
            return 0;
        }
        counters.instants_rise &= counters.max_tx == TX0 || instant > counters.last_instant;
        counters.max_tx = tx;
        counters.last_instant = instant;
        let count = datoms.len();
        self.add_facts(ResolvedTx::new(tx, datoms), counters);
        count
    }
}

impl Table {
    /// Whether all cells are plain values of their columns, and all rows about new entities. What
    /// names entities is remembered in any case: later rows may mean those of these.
    fn takes(&mut self, cells: &[Value]) -> bool {
        let width = self.columns.len();
        let mut takes = true;
        for (at, known) in self.columns.iter_mut().enumerate() {
            for cell in cells.iter().skip(at).step_by(width).filter(|cell| !cell.is_nil()) {
                takes &= is_value(known.column.value_type, cell);
                if known.column.unique {
                    takes &= known.seen.insert(cell.clone());
                }
            }
        }
        takes
    }

    /// A row as the transactor takes it; `None` if it has no cell.
    fn map(&self, row: &mut [Value]) -> Option<Value> {
        let cells = row.iter_mut().zip(&self.columns).filter(|(cell, _)| !cell.is_nil());
        let entries: Vec<(Value, Value)> = cells
            .map(|(cell, known)| (known.column.ident.clone().into(), std::mem::take(cell)))
            .collect();
        (!entries.is_empty()).then(|| Value::map(entries))
    }
}

fn wrong(reason: String) -> Error {
    Error::Arguments { operation: "load a table", reason }
}

/// Whether a new entity's value of this attribute has no consequences but itself.
fn is_plain(schema: &Schema, attribute: &Attribute) -> bool {
    let Attribute { id, unique, tuple, max_length, preds, .. } = attribute;
    !Schema::is_system(*id)
        && (unique.is_none() || attribute.is_identity())
        && tuple.is_none()
        && max_length.is_none()
        && preds.is_empty()
        && schema.composites_of(*id).is_empty()
}

/// Whether a cell is a value of this type that is stored as it is.
fn is_value(value_type: ValueType, cell: &Value) -> bool {
    match cell {
        Value::Long(_) => value_type == ValueType::Long,
        Value::Double(number) => value_type == ValueType::Double && number.is_finite(),
        Value::Str(_) => value_type == ValueType::String,
        Value::Bool(_) => value_type == ValueType::Boolean,
        Value::Keyword(_) => value_type == ValueType::Keyword,
        Value::Uuid(_) => value_type == ValueType::Uuid,
        Value::Inst(_) => value_type == ValueType::Instant,
        _ => false,
    }
}
