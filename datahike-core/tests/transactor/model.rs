//! A list of facts and the rules of transactions, as plainly as they can be said.

use std::collections::{BTreeMap, BTreeSet};

use datahike_value::{Value, kw, vector};

/// `(e, attribute, value as text, tx, added)`
pub(crate) type Event = (u64, String, String, u64, bool);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Attr {
    Name,
    Code,
    Age,
    Tag,
    Boss,
    Friend,
    Part,
}

#[derive(Clone, Copy, Debug)]
pub(crate) enum Who {
    Id(u64),
    Temp(i64),
    /// A lookup ref by name.
    Named(i64),
}

#[derive(Clone, Copy, Debug)]
pub(crate) enum Target {
    Plain(i64),
    Ref(Who),
}

#[derive(Clone, Debug)]
pub(crate) enum Op {
    Add(Who, Attr, Target),
    Retract(Who, Attr, Target),
    RetractAll(Who, Attr),
    RetractAttribute(Who, Attr),
    RetractEntity(Who),
    Cas(Who, Attr, Option<i64>, i64),
    Map(Option<Who>, Vec<(Attr, i64)>),
}

impl Attr {
    fn text(self) -> &'static str {
        match self {
            Self::Name => "name",
            Self::Code => "code",
            Self::Age => "age",
            Self::Tag => "tag",
            Self::Boss => "boss",
            Self::Friend => "friend",
            Self::Part => "part",
        }
    }

    fn many(self) -> bool {
        matches!(self, Self::Tag | Self::Friend | Self::Part)
    }

    fn value(self, v: i64) -> Value {
        if self == Self::Name { Value::str(format!("n{v}")) } else { Value::from(v) }
    }

    fn print(self, v: i64) -> String {
        if self == Self::Name { format!("\"n{v}\"") } else { v.to_string() }
    }
}

impl Who {
    fn form(self) -> Value {
        match self {
            Self::Id(e) => Value::from(e as i64),
            Self::Temp(t) => Value::from(t),
            Self::Named(n) => vector![kw!("name"), Attr::Name.value(n)],
        }
    }
}

impl Op {
    pub(crate) fn to_form(&self) -> Value {
        let key = |a: &Attr| Value::keyword(a.text());
        let target = |a: &Attr, v: &Target| match v {
            Target::Plain(v) => a.value(*v),
            Target::Ref(who) => who.form(),
        };
        match self {
            Self::Add(e, a, v) => vector![kw!("db/add"), e.form(), key(a), target(a, v)],
            Self::Retract(e, a, v) => vector![kw!("db/retract"), e.form(), key(a), target(a, v)],
            Self::RetractAll(e, a) => vector![kw!("db/retract"), e.form(), key(a)],
            Self::RetractAttribute(e, a) => {
                vector![kw!("db.fn/retractAttribute"), e.form(), key(a)]
            }
            Self::RetractEntity(e) => vector![kw!("db/retractEntity"), e.form()],
            Self::Cas(e, a, old, new) => vector![
                kw!("db/cas"),
                e.form(),
                key(a),
                old.map_or(Value::Nil, |old| a.value(old)),
                a.value(*new)
            ],
            Self::Map(e, entries) => {
                let mut form = BTreeMap::new();
                if let Some(e) = e {
                    form.insert(kw!("db/id").into(), e.form());
                }
                for (a, v) in entries {
                    form.insert(key(a), a.value(*v));
                }
                Value::map(form)
            }
        }
    }
}

#[derive(Clone, Debug)]
pub(crate) struct Model {
    facts: Vec<(u64, Attr, i64, u64)>,
    past: Vec<(u64, Attr, i64, u64, bool)>,
    /// The greatest id given out.
    max_entity: u64,
    /// The greatest id that has a fact: ids that were given out for nothing are given out again.
    used: u64,
    max_tx: u64,
}

type Refusal = &'static str;

/// Why a run ended: refused, or to be run again with what a tempid turned out to mean.
enum Stop {
    Refused(Refusal),
    Again(Known),
}

#[derive(Clone, Debug, Default)]
struct Known {
    means: BTreeMap<i64, u64>,
    same: BTreeMap<i64, i64>,
}

struct Run {
    model: Model,
    known: Known,
    bound: BTreeMap<i64, u64>,
    /// Ids given out in this run, and to which tempid (maps without an id count down from -100).
    fresh: BTreeMap<u64, i64>,
    maps: i64,
    subjects: BTreeSet<i64>,
    objects: BTreeSet<i64>,
    reported: BTreeMap<i64, u64>,
}

impl Model {
    pub(crate) fn new(max_entity: u64, max_tx: u64) -> Self {
        Self { facts: Vec::new(), past: Vec::new(), max_entity, used: max_entity, max_tx }
    }

    pub(crate) fn max_entity(&self) -> u64 {
        self.max_entity
    }

    pub(crate) fn current(&self) -> BTreeSet<Event> {
        let print = |(e, a, v, tx): &(u64, Attr, i64, u64)| {
            (*e, a.text().to_owned(), a.print(*v), *tx, true)
        };
        self.facts.iter().filter(|fact| fact.0 < 100).map(print).collect()
    }

    /// Of a fact that one transaction changes more than once, the first and last change count.
    pub(crate) fn history(&self) -> BTreeSet<Event> {
        let mut events = BTreeSet::new();
        for (at, (e, a, v, tx, added)) in self.past.iter().enumerate() {
            let same = |other: &&(u64, Attr, i64, u64, bool)| {
                (other.0, other.1, other.2, other.3) == (*e, *a, *v, *tx)
            };
            let first = !self.past[..at].iter().any(|other| same(&other));
            let last = !self.past[at + 1..].iter().any(|other| same(&other));
            if (first || last) && *e < 100 {
                events.insert((*e, a.text().to_owned(), a.print(*v), *tx, *added));
            }
        }
        events
    }

    pub(crate) fn transact(&mut self, ops: &[Op]) -> Result<BTreeMap<i64, u64>, Refusal> {
        let mut known = Known::default();
        loop {
            let mut run = Run {
                model: self.clone(),
                known,
                bound: BTreeMap::new(),
                fresh: BTreeMap::new(),
                maps: -100,
                subjects: BTreeSet::new(),
                objects: BTreeSet::new(),
                reported: BTreeMap::new(),
            };
            run.model.max_tx += 1;
            match ops.iter().try_for_each(|op| run.op(op)) {
                Ok(()) if !run.objects.is_subset(&run.subjects) => return Err("transact/syntax"),
                Ok(()) => {
                    *self = run.model;
                    self.max_entity = self.used;
                    return Ok(run.reported);
                }
                Err(Stop::Refused(code)) => return Err(code),
                Err(Stop::Again(more)) => known = more,
            }
        }
    }

    fn holder(&self, a: Attr, v: i64) -> Option<u64> {
        self.facts.iter().find(|fact| fact.1 == a && fact.2 == v).map(|fact| fact.0)
    }

    fn values(&self, e: u64, a: Attr) -> Vec<i64> {
        self.facts.iter().filter(|fact| fact.0 == e && fact.1 == a).map(|fact| fact.2).collect()
    }

    fn take(&mut self, e: u64, a: Attr, v: i64) {
        let before = self.facts.len();
        self.facts.retain(|fact| (fact.0, fact.1, fact.2) != (e, a, v));
        if self.facts.len() < before {
            self.past.push((e, a, v, self.max_tx, false));
        }
    }

    fn put(&mut self, e: u64, a: Attr, v: i64) -> Result<(), Refusal> {
        let values = self.values(e, a);
        if values.contains(&v) {
            return Ok(());
        }
        if matches!(a, Attr::Name | Attr::Code) && self.holder(a, v).is_some() {
            return Err("transact/unique");
        }
        if !a.many() {
            values.into_iter().for_each(|old| self.take(e, a, old));
        }
        self.facts.push((e, a, v, self.max_tx));
        self.past.push((e, a, v, self.max_tx, true));
        self.max_entity = self.max_entity.max(e);
        self.used = self.used.max(e);
        Ok(())
    }

    fn retract_entity(&mut self, e: u64, done: &mut BTreeSet<u64>) {
        if !done.insert(e) {
            return;
        }
        let parts = self.values(e, Attr::Part);
        let about = |fact: &(u64, Attr, i64, u64)| {
            fact.0 == e
                || (matches!(fact.1, Attr::Boss | Attr::Friend | Attr::Part) && fact.2 == e as i64)
        };
        for fact in self.facts.clone().iter().filter(|fact| about(fact)) {
            self.take(fact.0, fact.1, fact.2);
        }
        parts.into_iter().for_each(|part| self.retract_entity(part as u64, done));
    }
}

impl Run {
    fn real(&self, tempid: i64) -> i64 {
        self.known.same.get(&tempid).map_or(tempid, |same| self.real(*same))
    }

    fn bound(&self, tempid: i64) -> Option<u64> {
        let real = self.real(tempid);
        self.bound.get(&real).or_else(|| self.known.means.get(&real)).copied()
    }

    fn id(&mut self, tempid: i64) -> u64 {
        let real = self.real(tempid);
        let e = self.bound(tempid).unwrap_or_else(|| {
            self.model.max_entity += 1;
            self.fresh.insert(self.model.max_entity, real);
            self.model.max_entity
        });
        self.bound.insert(real, e);
        self.report(tempid, e)
    }

    fn report(&mut self, tempid: i64, e: u64) -> u64 {
        if tempid > -100 {
            self.reported.insert(tempid, e);
        }
        e
    }

    fn bind(&mut self, tempid: i64, means: u64) -> Result<u64, Stop> {
        let real = self.real(tempid);
        if let Some(had) = self.bound(tempid).filter(|had| *had != means) {
            let mut known = self.known.clone();
            match (self.fresh.contains_key(&had), self.fresh.get(&means)) {
                (true, None) => known.means.insert(real, means).map(drop),
                (true, Some(other)) => known.same.insert(real, *other).map(drop),
                (false, Some(other)) => known.means.insert(*other, had).map(drop),
                (false, None) => return Err(Stop::Refused("transact/upsert")),
            };
            return Err(Stop::Again(known));
        }
        self.bound.insert(real, means);
        Ok(self.report(tempid, means))
    }

    fn existing(&self, who: Who) -> Option<u64> {
        match who {
            Who::Id(e) => Some(e),
            Who::Named(n) => self.model.holder(Attr::Name, n),
            Who::Temp(_) => unreachable!("operations on what exists have no tempids"),
        }
    }

    fn op(&mut self, op: &Op) -> Result<(), Stop> {
        let refused = Stop::Refused;
        match op {
            Op::Add(e, a, v) => {
                let e = match e {
                    Who::Temp(t) => {
                        self.subjects.insert(*t);
                        let means = match v {
                            Target::Plain(v) if *a == Attr::Name => self.model.holder(*a, *v),
                            _ => None,
                        };
                        match means {
                            Some(means) => self.bind(*t, means)?,
                            None => self.id(*t),
                        }
                    }
                    known => self.existing(*known).ok_or(refused("entity-id/missing"))?,
                };
                let v = match v {
                    Target::Plain(v) => *v,
                    Target::Ref(Who::Temp(t)) => {
                        self.objects.insert(*t);
                        self.id(*t) as i64
                    }
                    Target::Ref(who) => {
                        self.existing(*who).ok_or(refused("entity-id/missing"))? as i64
                    }
                };
                self.model.put(e, *a, v).map_err(refused)
            }
            Op::Retract(e, a, v) => {
                let v = match v {
                    Target::Plain(v) => Some(*v),
                    Target::Ref(who) => self.existing(*who).map(|e| e as i64),
                };
                if let (Some(e), Some(v)) = (self.existing(*e), v) {
                    self.model.take(e, *a, v);
                }
                Ok(())
            }
            Op::RetractAll(e, a) | Op::RetractAttribute(e, a) => {
                let Some(e) = self.existing(*e) else { return Ok(()) };
                let mut done = BTreeSet::new();
                for v in self.model.values(e, *a) {
                    self.model.take(e, *a, v);
                    if *a == Attr::Part && matches!(op, Op::RetractAttribute(..)) {
                        self.model.retract_entity(v as u64, &mut done);
                    }
                }
                Ok(())
            }
            Op::RetractEntity(e) => {
                if let Some(e) = self.existing(*e) {
                    self.model.retract_entity(e, &mut BTreeSet::new());
                }
                Ok(())
            }
            Op::Cas(e, a, old, new) => {
                let e = self.existing(*e).ok_or(refused("entity-id/missing"))?;
                let values = self.model.values(e, *a);
                match old {
                    Some(old) if values.contains(old) => {}
                    None if values.is_empty() => {}
                    _ => return Err(refused("transact/cas")),
                }
                self.model.put(e, *a, *new).map_err(refused)
            }
            Op::Map(e, entries) => self.map(*e, entries),
        }
    }

    fn map(&mut self, e: Option<Who>, entries: &[(Attr, i64)]) -> Result<(), Stop> {
        // In a map the last of equal keys counts.
        let entries: BTreeMap<&str, (Attr, i64)> =
            entries.iter().map(|(a, v)| (a.text(), (*a, *v))).collect();
        let given = match e {
            Some(who @ (Who::Id(_) | Who::Named(_))) => {
                Some(self.existing(who).ok_or(Stop::Refused("entity-id/missing"))?)
            }
            _ => None,
        };
        let means = entries.get("name").and_then(|(a, v)| self.model.holder(*a, *v));
        let e = match (given, e) {
            (Some(given), _) if means.is_some_and(|means| means != given) => {
                return Err(Stop::Refused("transact/upsert"));
            }
            (Some(given), _) => given,
            (None, tempid) => {
                let tempid = match tempid {
                    Some(Who::Temp(t)) => {
                        self.subjects.insert(t);
                        t
                    }
                    _ => {
                        self.maps -= 1;
                        self.maps
                    }
                };
                match means {
                    Some(means) => self.bind(tempid, means)?,
                    None => self.id(tempid),
                }
            }
        };
        for (a, v) in entries.into_values() {
            self.model.put(e, a, v).map_err(Stop::Refused)?;
        }
        Ok(())
    }
}
