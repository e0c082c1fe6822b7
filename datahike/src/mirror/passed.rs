//! Which commits a mirror's copy led through lately. Whoever was told of a commit finds out here
//! whether it is the one that shows, or one of another history under the same number.

use std::collections::VecDeque;

use datahike_core::commit::Position;

/// Commits that are remembered.
const REMEMBERED_MAX: usize = 4_096;

/// The commits that the copy led through, as far as they are remembered.
#[derive(Debug, Default)]
pub(super) struct Passed {
    recent: VecDeque<Position>,
    /// The history before the first of `recent` was not forgotten: nothing came before it.
    whole: bool,
    /// How many histories were given up.
    given_up: u64,
}

/// How the copy's history stands to a commit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Leads {
    /// It holds it.
    Through,
    /// It does not reach so far.
    NotYet,
    /// It holds another commit of that number, or began after it.
    Elsewhere,
    /// It is so far, and has forgotten which commit had that number.
    Unknown,
}

impl Passed {
    /// Of a copy that is there at the start, perhaps.
    pub(super) fn since(at: Option<Position>) -> Self {
        Self { recent: at.into_iter().collect(), whole: true, given_up: 0 }
    }

    /// The copy goes on to this commit.
    pub(super) fn push(&mut self, at: Position) {
        if self.recent.len() == REMEMBERED_MAX {
            self.recent.pop_front();
            self.whole = false;
        }
        self.recent.push_back(at);
    }

    /// The copy is given up.
    pub(super) fn give_up(&mut self) {
        *self = Self { recent: VecDeque::new(), whole: false, given_up: self.given_up + 1 };
    }

    /// How many histories were given up.
    pub(super) fn given_up(&self) -> u64 {
        self.given_up
    }

    /// Whether the copy's history leads through the commit of number `seq` that `is_it` knows.
    pub(super) fn leads(&self, seq: u64, is_it: impl Fn(&Position) -> bool) -> Leads {
        let (Some(first), Some(last)) = (self.recent.front(), self.recent.back()) else {
            return Leads::NotYet;
        };
        if last.seq < seq {
            return Leads::NotYet;
        }
        match self.recent.binary_search_by_key(&seq, |at| at.seq) {
            Ok(index) if self.recent.get(index).is_some_and(is_it) => Leads::Through,
            Ok(_) => Leads::Elsewhere,
            // Whoever tells of it stands before where this copy began, which was theirs as well.
            Err(_) if seq < first.seq && self.whole => Leads::Elsewhere,
            Err(_) => Leads::Unknown,
        }
    }
}

#[cfg(test)]
mod tests {
    use datahike_core::commit::CommitId;

    use super::*;

    fn at(seq: u64, commit: u8) -> Position {
        Position { seq, commit: CommitId([commit; 32]) }
    }

    fn leads(passed: &Passed, wanted: Position) -> Leads {
        passed.leads(wanted.seq, |found| *found == wanted)
    }

    #[test]
    fn a_commit_of_another_history_is_not_taken_for_the_one_that_was_told() {
        let mut passed = Passed::since(Some(at(10, 1)));
        passed.push(at(11, 2));
        assert_eq!(leads(&passed, at(11, 2)), Leads::Through);
        assert_eq!(leads(&passed, at(11, 3)), Leads::Elsewhere);
        assert_eq!(leads(&passed, at(12, 3)), Leads::NotYet);
        assert_eq!(leads(&passed, at(9, 3)), Leads::Elsewhere, "the server went back");
        // A snapshot was adopted: what lies between was not seen.
        passed.push(at(20, 4));
        assert_eq!(leads(&passed, at(15, 4)), Leads::Unknown);
        passed.give_up();
        assert_eq!((leads(&passed, at(1, 1)), passed.given_up()), (Leads::NotYet, 1));
        passed.push(at(30, 5));
        assert_eq!(leads(&passed, at(20, 4)), Leads::Unknown);
    }

    #[test]
    fn what_is_remembered_is_bounded() {
        let mut passed = Passed::since(None);
        (0..=REMEMBERED_MAX as u64).for_each(|seq| passed.push(at(seq, 0)));
        assert_eq!(leads(&passed, at(0, 0)), Leads::Unknown);
        assert_eq!(leads(&passed, at(1, 0)), Leads::Through);
        assert_eq!(passed.recent.len(), REMEMBERED_MAX);
    }
}
