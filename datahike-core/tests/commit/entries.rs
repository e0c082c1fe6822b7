//! Entries alone and in batches.

use datahike_core::commit::{
    CommitError, CommitId, Entry, Position, decode_batch, encode_batch, entry_of_public,
    public_part, verify_chain,
};
use proptest::prelude::*;
use proptest::sample::Index;

use crate::made::{FIRST, any_entry, config, datom, entry, note, small_transactions, transaction};

/// The encoded entries of a log from its start, and where it ends.
fn log(entries: &[Entry]) -> (Vec<Vec<u8>>, Position) {
    let mut at = Position::START;
    let encoded = entries.iter().map(|entry| {
        let (bytes, next) = entry.encode(&at);
        at = next;
        bytes
    });
    (encoded.collect(), at)
}

fn slices(log: &[Vec<u8>]) -> impl Iterator<Item = &[u8]> {
    log.iter().map(Vec::as_slice)
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn entries_read_back(entry in any_entry(), seq in 0..u64::MAX, parent in any::<[u8; 32]>()) {
        let parent = Position { seq, commit: CommitId(parent) };
        let (bytes, at) = entry.encode(&parent);
        prop_assert_eq!(Entry::decode(&bytes, &parent).unwrap(), (entry.clone(), at));
        prop_assert_eq!(at.seq, seq + 1);

        // A mirror sees the transactions, computes the same commit, and none of the notes.
        let public = public_part(&bytes).unwrap();
        let bare = Entry { notes: Vec::new(), ..entry };
        prop_assert_eq!(Entry::from_public(public, &parent).unwrap(), (bare.clone(), at));
        prop_assert_eq!(entry_of_public(public), bare.encode(&parent).0);
    }

    #[test]
    fn batches_read_back(entries in prop::collection::vec(any_entry(), 0..6)) {
        let (encoded, end) = log(&entries);
        let (batch, to) = encode_batch(slices(&encoded), &Position::START).unwrap();
        prop_assert_eq!(to, end);
        let (decoded, at) = decode_batch(&batch, &Position::START).unwrap();
        prop_assert_eq!(at, end);
        prop_assert_eq!(decoded.len(), entries.len());
        for (read, (entry, original)) in decoded.iter().zip(entries.iter().zip(&encoded)) {
            prop_assert_eq!(&read.entry.transactions, &entry.transactions);
            prop_assert_eq!(&read.bytes, &entry_of_public(public_part(original).unwrap()));
        }
    }

    #[test]
    fn mutated_entries_decode_or_fail_but_never_panic(
        entry in any_entry(), at in any::<Index>(), byte in any::<u8>(), cut in any::<Index>(),
    ) {
        let (mut bytes, _) = entry.encode(&Position::START);
        prop_assert!(Entry::decode(&bytes[..cut.index(bytes.len())], &Position::START).is_err());
        let place = at.index(bytes.len());
        bytes[place] = byte;
        let _ = Entry::decode(&bytes, &Position::START);
        let _ = Entry::from_public(&bytes, &Position::START);
    }

    #[test]
    fn mutated_batches_decode_or_fail_but_never_panic(
        entries in prop::collection::vec(any_entry(), 1..4),
        changes in prop::collection::vec((any::<Index>(), any::<u8>()), 1..4),
    ) {
        let (encoded, end) = log(&entries);
        let (original, _) = encode_batch(slices(&encoded), &Position::START).unwrap();
        let mut bytes = original.clone();
        for (at, byte) in changes {
            let place = at.index(bytes.len());
            bytes[place] = byte;
        }
        // Whatever comes out of it, the commit id tells.
        if let Ok((decoded, at)) = decode_batch(&bytes, &Position::START)
            && at == end
        {
            let transactions = |entries: &[Entry]| {
                entries.iter().map(|e| e.transactions.clone()).collect::<Vec<_>>()
            };
            let decoded: Vec<Entry> = decoded.into_iter().map(|read| read.entry).collect();
            prop_assert_eq!(transactions(&decoded), transactions(&entries));
        }
    }

    #[test]
    fn an_entry_with_one_bit_changed_is_another_commit(
        entry in any_entry(), at in any::<Index>(), bit in 0..8u8,
    ) {
        let (bytes, place) = entry.encode(&Position::START);
        let mut public = public_part(&bytes).unwrap().to_vec();
        let at = at.index(public.len());
        public[at] ^= 1 << bit;
        if let Ok((_, other)) = Entry::from_public(&public, &Position::START) {
            prop_assert_ne!(other, place);
        }
    }
}

#[test]
fn a_small_transaction_takes_few_bytes() {
    let made = |tx| {
        let e = 135_233 + tx;
        vec![
            datom(e, FIRST, "Neustadt", tx),
            datom(e, FIRST + 1, 4711, tx),
            datom(e, FIRST + 2, 8.5, tx),
        ]
    };
    let parent = Position { seq: 9, commit: CommitId([7; 32]) };
    let (bytes, _) = entry(vec![transaction(5000, made(5000))]).encode(&parent);
    let public = public_part(&bytes).unwrap().len();
    assert!(public <= 45, "{public}");

    // In a group, each transaction after the first takes less.
    let group = entry(vec![transaction(5000, made(5000)), transaction(5001, made(5001))]);
    let (grouped, _) = group.encode(&parent);
    let second = public_part(&grouped).unwrap().len() - public;
    assert!(second <= 35, "{second}");
}

#[test]
fn a_batch_takes_less_than_its_entries() {
    let entries = small_transactions(10_000);
    let (encoded, _) = log(&entries);
    let plain: usize = slices(&encoded).map(|bytes| public_part(bytes).unwrap().len()).sum();
    let (batch, _) = encode_batch(slices(&encoded), &Position::START).unwrap();
    println!("per transaction: {} plain, {} in a batch", plain / 10_000, batch.len() / 10_000);
    assert!(batch.len() <= 25 * 10_000, "{}", batch.len());
    assert!(batch.len() * 2 < plain, "{} against {plain}", batch.len());
}

#[test]
fn the_commit_id_is_of_the_transactions_alone() {
    let plain = entry(vec![transaction(1, vec![datom(1, FIRST, "a", 1)])]);
    let noted = Entry { notes: vec![note(1, 1, 1)], ..plain.clone() };
    let (other, at) = plain.encode(&Position::START);
    assert_eq!(noted.encode(&Position::START).1, at);
    assert_eq!(
        public_part(&noted.encode(&Position::START).0).unwrap(),
        public_part(&other).unwrap()
    );
    let parent = Position { seq: 0, commit: CommitId([1; 32]) };
    assert_ne!(plain.encode(&parent).1.commit, at.commit);
}

#[test]
fn a_chain_is_checked_link_by_link() {
    let (encoded, end) = log(&small_transactions(5));
    assert_eq!(verify_chain(slices(&encoded), Position::START), Ok(end));
    let middle = verify_chain(slices(&encoded[..2]), Position::START).unwrap();
    assert_eq!(verify_chain(slices(&encoded[2..]), middle), Ok(end));

    let skipped = [encoded[0].as_slice(), &encoded[2]];
    let error = verify_chain(skipped, Position::START).unwrap_err();
    assert!(matches!(error, CommitError::Parent { seq: 2, .. }), "{error}");
    let swapped = [encoded[1].as_slice(), &encoded[0]];
    assert!(verify_chain(swapped, Position::START).is_err());
    assert!(encode_batch(skipped, &Position::START).is_err());
}

#[test]
fn a_newer_format_is_named_and_a_bomb_is_refused() {
    let (mut bytes, _) = entry(vec![transaction(1, vec![])]).encode(&Position::START);
    bytes[0] = 9;
    let error = Entry::decode(&bytes, &Position::START).unwrap_err();
    assert_eq!(error.to_string(), "log entry has format 9, this program reads up to 1");
    let error = decode_batch(&[9], &Position::START).unwrap_err();
    assert_eq!(error.to_string(), "batch of log entries has format 9, this program reads up to 1");
    // 1 GiB claimed by six bytes.
    let bomb = [1, 0x80, 0x80, 0x80, 0x80, 0x04, 0x10];
    assert!(matches!(decode_batch(&bomb, &Position::START), Err(CommitError::Invalid { .. })));
    // Ids from which nobody could count on.
    let absurd = entry(vec![transaction(1, vec![datom(1 << 62, FIRST, 1, 1)])]);
    let (bytes, _) = absurd.encode(&Position::START);
    let error = Entry::decode(&bytes, &Position::START).unwrap_err();
    assert_eq!(
        error.to_string(),
        "log entry cannot be read: malformed block: an id is out of range"
    );
    // No transaction at all is no commit.
    let empty = entry(vec![]).encode(&Position::START).0;
    assert!(Entry::decode(&empty, &Position::START).is_err());
}
