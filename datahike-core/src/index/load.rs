//! Writing out very many new facts at once, without laying them over the trees first.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::block::Missing;
use crate::datom::{AttrId, Datom};
use crate::index::flush::{Flushed, Output, WORTH_A_THREAD, of_each_index, update};
use crate::index::key::{DatomRef, Index};
use crate::index::rechunk::{Edits, Tree};
use crate::index::{AttrTraits, Indexes};

impl Indexes {
    /// What [`flush`](Self::flush) makes of these indexes with more datoms on top: the same blocks.
    /// Where all are new facts, as in a bulk load, each order is sorted once and no tail is made.
    ///
    /// # Errors
    /// Blocks that it must read and that are not in memory; all that can be told.
    pub fn flush_with(
        &self,
        more: &[&[Datom]],
        traits: &dyn AttrTraits,
    ) -> Result<Flushed, Missing> {
        let flushed = self.facts_with(more).map(|facts| self.flush_facts(&facts, traits));
        if let Some(flushed) = flushed.transpose()?.flatten() {
            return Ok(flushed);
        }
        let mut all = self.clone();
        more.iter().for_each(|datoms| all.extend(datoms, traits));
        all.flush()
    }

    /// The datoms of the tail and these in the order of EAVT, if they are all different facts.
    fn facts_with<'a>(&'a self, more: &[&'a [Datom]]) -> Option<Vec<&'a Datom>> {
        if self.purged.is_some()
            || self.uncovered.is_some()
            || self.tail.arena.iter().any(|datom| datom.repeated)
        {
            return None;
        }
        let mut facts: Vec<&Datom> = self.tail().collect();
        facts.extend(more.iter().copied().flatten());
        if facts.iter().any(|datom| !datom.added) {
            return None;
        }
        let order =
            |x: &&Datom, y: &&Datom| (x.e, x.a).cmp(&(y.e, y.a)).then_with(|| x.v.cmp(&y.v));
        // Entities come one after the other, each with few datoms: this leaves little to sort.
        facts.chunk_by_mut(|x, y| x.e == y.e).for_each(|entity| entity.sort_by(order));
        facts.sort_by(order);
        let differ = facts.windows(2).all(|pair| match pair {
            [x, y] => (x.e, x.a) != (y.e, y.a) || x.v != y.v,
            _ => true,
        });
        differ.then_some(facts)
    }

    /// Writes facts into the trees; `None` if one of them is there already.
    fn flush_facts(
        &self,
        facts: &[&Datom],
        traits: &dyn AttrTraits,
    ) -> Result<Option<Flushed>, Missing> {
        let mut by_attribute: BTreeMap<AttrId, Vec<&Datom>> = BTreeMap::new();
        for fact in facts {
            by_attribute.entry(fact.a).or_default().push(fact);
        }
        let in_avet: Vec<&Vec<&Datom>> =
            by_attribute.iter().filter(|(a, _)| traits.avet(**a)).map(|(_, facts)| facts).collect();
        let replaces = AtomicBool::new(false);
        let made = of_each_index(facts.len() >= WORTH_A_THREAD, |index| {
            let sorted: Vec<&Datom>;
            let facts = match index {
                Index::Eavt => facts,
                Index::Aevt => {
                    sorted = by_attribute.values().flatten().copied().collect();
                    &sorted
                }
                Index::Avet => {
                    sorted = in_avet.iter().flat_map(|facts| by_value(facts)).collect();
                    &sorted
                }
            };
            let tree = Tree {
                source: &*self.source,
                index,
                history: false,
                params: self.params,
                root: self.roots.current[index.number()],
            };
            let mut out = Output::default();
            let root = update(&tree, Edits::Facts(facts), &mut out, &mut |_, _| {
                replaces.store(true, Ordering::Relaxed);
            });
            root.map(|root| (root, out))
        });
        let mut roots = self.roots;
        let mut all = Output::default();
        let mut missing = Vec::new();
        for (index, made) in Index::ALL.into_iter().zip(made) {
            match made {
                Ok((root, out)) => {
                    roots.current[index.number()] = root;
                    all.blocks.extend(out.blocks);
                    all.bases.extend(out.bases);
                }
                Err(lacking) => missing.extend(lacking.addresses),
            }
        }
        if !missing.is_empty() {
            return Err(Missing::of(missing));
        }
        if replaces.into_inner() {
            return Ok(None);
        }
        let indexes = Self::open(self.params, self.keep_history, roots, self.source.clone());
        Ok(Some(Flushed { indexes, roots, blocks: all.blocks, bases: all.bases }))
    }
}

/// Facts of one attribute by value; equal values stay in the order of EAVT.
fn by_value<'a>(facts: &[&'a Datom]) -> Vec<&'a Datom> {
    let mut keyed: Vec<(u64, &Datom)> =
        facts.iter().map(|fact| (DatomRef::from(*fact).v.order_bits(), *fact)).collect();
    keyed.sort_by(|(x_bits, x), (y_bits, y)| x_bits.cmp(y_bits).then_with(|| x.v.cmp(&y.v)));
    keyed.into_iter().map(|(_, fact)| fact).collect()
}
