//! What a transaction will read, as far as its forms tell by themselves. A transactor that lacks one
//! block would find out about the next one only in its next run; this finds most of them at once.

use datahike_value::{Value, kw};
use hashbrown::HashSet;

use crate::block::{Address, Missing};
use crate::datom::AttrId;
use crate::db::Db;
use crate::index::Range;

/// How many forms are looked at, so that a fault in a huge transaction does not cost much.
const MAX_FORMS: usize = 10_000;

/// `missing`, and what else the forms are sure to need.
pub(crate) fn widen(db: &Db, forms: &[&Value], missing: Missing) -> Missing {
    let mut probe = Probe { db, addresses: missing.addresses.into_iter().collect() };
    for form in forms.iter().take(MAX_FORMS) {
        match form {
            Value::Map(_) => probe.map(form),
            Value::Vector(items) | Value::List(items) => probe.operation(items),
            _ => {}
        }
    }
    let mut addresses: Vec<Address> = probe.addresses.into_iter().collect();
    addresses.sort();
    Missing { addresses }
}

struct Probe<'a> {
    db: &'a Db,
    addresses: HashSet<Address>,
}

impl Probe<'_> {
    fn read(&mut self, range: &Range) {
        if let Some(Err(missing)) = self.db.indexes().current(range).next() {
            self.addresses.extend(missing.addresses);
        }
    }

    fn entity(&mut self, name: &Value, a: Option<AttrId>) {
        match self.db.entid(name) {
            Ok(Some(e)) => self.read(&Range::eavt(e, a, None)),
            Ok(None) => {}
            Err(error) => {
                let addresses = error.missing().map(|missing| missing.addresses.clone());
                self.addresses.extend(addresses.unwrap_or_default());
            }
        }
    }

    fn value(&mut self, a: AttrId, v: &Value) {
        let attribute = self.db.schema().attribute(a);
        if attribute.is_ref() {
            if matches!(v, Value::Vector(_) | Value::List(_)) {
                self.entity(v, None);
            }
        } else if attribute.unique.is_some() {
            self.read(&Range::avet(a, self.db.schema().canonical(a, v)));
        }
    }

    fn map(&mut self, form: &Value) {
        let Some(entries) = form.as_map() else { return };
        if let Some(id) = form.get(&kw!("db/id"))
            && !super::names::is_tempid(id)
        {
            self.entity(id, None);
        }
        for (key, v) in entries {
            if let Some(a) = self.db.attr_of(key) {
                self.value(a, v);
            }
        }
    }

    fn operation(&mut self, items: &[Value]) {
        let Some(e) = items.get(1) else { return };
        let a = items.get(2).and_then(|a| self.db.attr_of(a));
        if !super::names::is_tempid(e) {
            self.entity(e, a);
        }
        if let (Some(a), Some(v)) = (a, items.get(3)) {
            self.value(a, v);
        }
    }
}
