//! Pulling entities.

use std::collections::BTreeMap;

use datahike_value::{Value, kw};
use hashbrown::HashMap;

use super::pattern::{Attribute, Follow, LIMIT_DEFAULT, Pattern};
use crate::block::Missing;
use crate::budget::{Budget, Meter};
use crate::datom::{AttrId, EntityId};
use crate::db::Db;
use crate::index::Range;
use crate::query::{Functions, QueryError, call_by_name};

/// What a pull may use besides the database.
#[derive(Clone, Debug, Default)]
pub struct PullContext {
    /// What it may spend.
    pub budget: Budget,
    /// Functions for `:xform`.
    pub functions: Functions,
}

/// Levels that components, which need not be bounded by a pattern, may be nested.
const LEVELS_MAX: usize = 512;

/// Pulls one entity, named by id, ident or lookup ref. `nil` if nothing of the pattern is there.
///
/// # Errors
/// If the entity's name leads nowhere or blocks are missing.
pub fn pull(db: &Db, pattern: &Pattern, entity: &Value) -> Result<Value, QueryError> {
    pull_with(db, pattern, entity, &PullContext::default())
}

/// [`pull`] with a budget and functions.
///
/// # Errors
/// As [`pull`], and if the budget is spent or a function fails.
pub fn pull_with(
    db: &Db,
    pattern: &Pattern,
    entity: &Value,
    context: &PullContext,
) -> Result<Value, QueryError> {
    let mut puller = Puller::new(db, context)?;
    puller.named(pattern, entity)
}

/// Pulls several entities, in their order. What is missing in memory is reported for all at once.
///
/// # Errors
/// As [`pull`].
pub fn pull_many(db: &Db, pattern: &Pattern, entities: &[Value]) -> Result<Vec<Value>, QueryError> {
    let context = PullContext::default();
    let mut puller = Puller::new(db, &context)?;
    let mut missing = Vec::new();
    let mut pulled = Vec::with_capacity(entities.len());
    for entity in entities {
        match puller.named(pattern, entity) {
            Ok(value) => pulled.push(value),
            Err(QueryError::Missing(Missing { addresses })) => missing.extend(addresses),
            Err(error) => return Err(error),
        }
    }
    if missing.is_empty() {
        return Ok(pulled);
    }
    missing.sort_unstable();
    missing.dedup();
    Err(Missing { addresses: missing }.into())
}

/// Pulls from one database within one budget.
pub(crate) struct Puller<'a> {
    db: &'a Db,
    meter: Meter,
    functions: &'a Functions,
    /// The entities that were read, if somebody wants to know.
    visited: Option<Vec<EntityId>>,
}

/// Where a pull stands on its way through references.
#[derive(Clone, Default)]
struct Path {
    /// Entities that a recursion or component has led to.
    seen: Vec<EntityId>,
    /// Levels of recursion by attribute.
    levels: HashMap<Value, usize>,
    depth: usize,
}

impl<'a> Puller<'a> {
    pub(crate) fn new(db: &'a Db, context: &'a PullContext) -> Result<Self, QueryError> {
        Ok(Self {
            db,
            meter: Meter::start(&context.budget)?,
            functions: &context.functions,
            visited: None,
        })
    }

    pub(crate) fn within(
        db: &'a Db,
        budget: &Budget,
        functions: &'a Functions,
    ) -> Result<Self, QueryError> {
        Ok(Self { db, meter: Meter::start(budget)?, functions, visited: None })
    }

    /// Remembers which entities it reads.
    pub(crate) fn watching(self) -> Self {
        Self { visited: Some(Vec::new()), ..self }
    }

    /// The entities that were read since this was last asked.
    pub(crate) fn take_visited(&mut self) -> Vec<EntityId> {
        self.visited.as_mut().map(std::mem::take).unwrap_or_default()
    }

    pub(crate) fn named(&mut self, pattern: &Pattern, entity: &Value) -> Result<Value, QueryError> {
        let e = match entity {
            Value::Nil => return Ok(Value::Nil),
            Value::Long(n) if *n < 0 => return Ok(Value::Nil),
            Value::Keyword(_) => self.db.entid(entity)?,
            entity => Some(self.db.entid_strict(entity)?),
        };
        let Some(e) = e else { return Ok(Value::Nil) };
        self.entity(pattern, e, &Path::default())
    }

    fn entity(&mut self, pattern: &Pattern, e: EntityId, path: &Path) -> Result<Value, QueryError> {
        self.meter.recursion(path.depth)?;
        self.meter.work(8)?;
        if let Some(visited) = &mut self.visited {
            visited.push(e);
        }
        let mut result: BTreeMap<Value, Value> = BTreeMap::new();
        if pattern.wildcard || pattern.id {
            result.insert(Value::Keyword(kw!("db/id")), Value::Long(e as i64));
        }
        // One scan of the entity serves all its attributes, unless only one is wanted.
        let forward = pattern.attributes.iter().filter(|attribute| !attribute.reverse).count();
        let mut facts: Vec<(AttrId, Vec<Value>)> = Vec::new();
        if pattern.wildcard || forward > 1 {
            facts = self.facts(&Range::eavt(e, None, None))?;
        }
        for attribute in &pattern.attributes {
            let a = self.db.attr_of(&attribute.attribute);
            let value = match a {
                None => None,
                Some(a) if attribute.reverse => self.reverse(pattern, attribute, a, e, path)?,
                Some(a) => {
                    let values = if pattern.wildcard || forward > 1 {
                        match facts.iter_mut().find(|(known, _)| *known == a) {
                            Some((_, values)) => std::mem::take(values),
                            None => Vec::new(),
                        }
                    } else {
                        let mut found = self.facts(&Range::eavt(e, a, None))?;
                        found.pop().map(|(_, values)| values).unwrap_or_default()
                    };
                    self.forward(pattern, attribute, a, values, path)?
                }
            };
            let value = match (value, &attribute.default) {
                (None, Some(default)) => Some(default.clone()),
                (value, _) => value,
            };
            if let Some(mut value) = value {
                if let Some(name) = &attribute.xform {
                    value = call_by_name(self.functions, name, &[value])?;
                }
                result.insert(attribute.key.clone(), value);
            }
        }
        if pattern.wildcard {
            self.rest(facts, pattern, path, &mut result)?;
        }
        Ok(if result.is_empty() { Value::Nil } else { Value::Map(result.into()) })
    }

    /// What the wildcard adds: attributes that no other part of the pattern names.
    fn rest(
        &mut self,
        facts: Vec<(AttrId, Vec<Value>)>,
        pattern: &Pattern,
        path: &Path,
        result: &mut BTreeMap<Value, Value>,
    ) -> Result<(), QueryError> {
        for (a, values) in facts {
            let named = pattern
                .attributes
                .iter()
                .any(|known| !known.reverse && self.db.attr_of(&known.attribute) == Some(a));
            if named || values.is_empty() {
                continue;
            }
            let ident = Value::Keyword(self.db.schema().ident(a).clone());
            let attribute = Attribute {
                attribute: ident.clone(),
                reverse: false,
                key: ident.clone(),
                limit: Some(LIMIT_DEFAULT),
                default: None,
                xform: None,
                follow: Follow::Default,
            };
            if let Some(value) = self.forward(pattern, &attribute, a, values, path)? {
                result.insert(ident, value);
            }
        }
        Ok(())
    }

    /// Values by attribute, in the order of the index.
    fn facts(&mut self, range: &Range) -> Result<Vec<(AttrId, Vec<Value>)>, QueryError> {
        let mut facts: Vec<(AttrId, Vec<Value>)> = Vec::new();
        for datom in self.db.scan(range) {
            let datom = datom?;
            self.meter.work(1)?;
            match facts.last_mut() {
                Some((a, values)) if *a == datom.a => values.push(datom.v),
                _ => facts.push((datom.a, vec![datom.v])),
            }
        }
        Ok(facts)
    }

    fn forward(
        &mut self,
        pattern: &Pattern,
        attribute: &Attribute,
        a: AttrId,
        mut values: Vec<Value>,
        path: &Path,
    ) -> Result<Option<Value>, QueryError> {
        if values.is_empty() {
            return Ok(None);
        }
        let known = self.db.schema().attribute(a);
        let (is_many, is_ref, is_component) = (known.is_many(), known.is_ref(), known.is_component);
        if is_many && let Some(limit) = attribute.limit {
            values.truncate(limit);
        }
        if !is_ref {
            return Ok(Some(shape(values, is_many)));
        }
        let entities: Vec<EntityId> = values
            .iter()
            .filter_map(|value| value.as_long().and_then(|n| u64::try_from(n).ok()))
            .collect();
        let maps = self.follow(pattern, attribute, &entities, is_component, path)?;
        Ok(maps.and_then(|maps| match maps.is_empty() && !is_many {
            true => None,
            false => Some(shape(maps, is_many)),
        }))
    }

    fn reverse(
        &mut self,
        pattern: &Pattern,
        attribute: &Attribute,
        a: AttrId,
        e: EntityId,
        path: &Path,
    ) -> Result<Option<Value>, QueryError> {
        let known = self.db.schema().attribute(a);
        let is_component = known.is_component;
        if !known.is_ref() {
            return Ok(None);
        }
        let mut entities = Vec::new();
        let limit = attribute.limit.unwrap_or(usize::MAX);
        for datom in self.db.scan(&Range::avet(a, Value::Long(e as i64))).take(limit) {
            entities.push(datom?.e);
            self.meter.work(1)?;
        }
        if entities.is_empty() {
            return Ok(None);
        }
        // A component belongs to one entity; going back to it does not expand it.
        let maps = self.follow(pattern, attribute, &entities, false, path)?;
        Ok(maps.and_then(|maps| match maps.is_empty() && is_component {
            true => None,
            false => Some(shape(maps, !is_component)),
        }))
    }

    /// The entities that a reference leads to, as maps; those of which nothing is wanted are left
    /// out. `None` where a recursion ends.
    fn follow(
        &mut self,
        pattern: &Pattern,
        attribute: &Attribute,
        entities: &[EntityId],
        is_component: bool,
        path: &Path,
    ) -> Result<Option<Vec<Value>>, QueryError> {
        let only_id =
            |e: EntityId| Value::map([(Value::Keyword(kw!("db/id")), Value::Long(e as i64))]);
        let all = Pattern { wildcard: true, ..Pattern::default() };
        let mut inner = Path { depth: path.depth + 1, ..path.clone() };
        let sub = match &attribute.follow {
            Follow::Default if !is_component => {
                return Ok(Some(entities.iter().map(|e| only_id(*e)).collect()));
            }
            Follow::Default => &all,
            Follow::Pattern(sub) => {
                // A pattern of its own starts a recursion of its own.
                inner.seen.clear();
                inner.levels.clear();
                sub
            }
            Follow::Recursion(limit) => {
                let level = inner.levels.entry(attribute.key.clone()).or_insert(0);
                if limit.is_some_and(|limit| *level >= limit) {
                    return Ok(None);
                }
                *level += 1;
                pattern
            }
        };
        if inner.depth > LEVELS_MAX {
            self.meter.recursion(usize::MAX)?;
        }
        let tracks = !matches!(attribute.follow, Follow::Pattern(_));
        let mut maps = Vec::with_capacity(entities.len());
        for e in entities {
            if tracks && inner.seen.contains(e) {
                maps.push(only_id(*e));
                continue;
            }
            if tracks {
                inner.seen.push(*e);
            }
            let map = self.entity(sub, *e, &inner)?;
            if tracks {
                inner.seen.pop();
            }
            if !map.is_nil() {
                maps.push(map);
            }
        }
        Ok(Some(maps))
    }
}

fn shape(mut values: Vec<Value>, is_many: bool) -> Value {
    if is_many { Value::vector(values) } else { values.pop().unwrap_or_default() }
}
