//! Variables as numbers, and sets of them.

use smallvec::SmallVec;

/// A variable: its place in the names of its query or rule branch.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Var(pub(crate) u32);

/// A set of variables, one bit each.
#[derive(Clone, Debug, Default, Eq)]
pub(crate) struct VarSet {
    words: SmallVec<[u64; 2]>,
}

impl PartialEq for VarSet {
    fn eq(&self, other: &Self) -> bool {
        self.is_subset(other) && other.is_subset(self)
    }
}

impl VarSet {
    fn place(var: Var) -> (usize, u64) {
        ((var.0 / 64) as usize, 1 << (var.0 % 64))
    }

    fn word(&self, place: usize) -> u64 {
        self.words.get(place).copied().unwrap_or(0)
    }

    pub(crate) fn insert(&mut self, var: Var) {
        let (place, bit) = Self::place(var);
        if self.words.len() <= place {
            self.words.resize(place + 1, 0);
        }
        self.words[place] |= bit;
    }

    pub(crate) fn remove(&mut self, var: Var) {
        let (place, bit) = Self::place(var);
        if let Some(word) = self.words.get_mut(place) {
            *word &= !bit;
        }
    }

    #[inline]
    pub(crate) fn contains(&self, var: Var) -> bool {
        let (place, bit) = Self::place(var);
        self.word(place) & bit != 0
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.words.iter().all(|word| *word == 0)
    }

    pub(crate) fn is_subset(&self, other: &Self) -> bool {
        self.words.iter().enumerate().all(|(place, word)| word & !other.word(place) == 0)
    }

    pub(crate) fn is_disjoint(&self, other: &Self) -> bool {
        self.words.iter().enumerate().all(|(place, word)| word & other.word(place) == 0)
    }

    pub(crate) fn union_with(&mut self, other: &Self) {
        if self.words.len() < other.words.len() {
            self.words.resize(other.words.len(), 0);
        }
        for (word, more) in self.words.iter_mut().zip(&other.words) {
            *word |= more;
        }
    }

    pub(crate) fn intersect_with(&mut self, other: &Self) {
        for place in 0..self.words.len() {
            self.words[place] &= other.word(place);
        }
    }

    pub(crate) fn subtract(&mut self, other: &Self) {
        for place in 0..self.words.len() {
            self.words[place] &= !other.word(place);
        }
    }

    pub(crate) fn extend(&mut self, vars: impl IntoIterator<Item = Var>) {
        vars.into_iter().for_each(|var| self.insert(var));
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = Var> + '_ {
        self.words.iter().enumerate().flat_map(|(place, word)| {
            (0..64)
                .filter(move |bit| word >> bit & 1 == 1)
                .map(move |bit| Var(place as u32 * 64 + bit))
        })
    }
}

impl FromIterator<Var> for VarSet {
    fn from_iter<I: IntoIterator<Item = Var>>(vars: I) -> Self {
        let mut set = Self::default();
        set.extend(vars);
        set
    }
}
