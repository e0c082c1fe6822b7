//! What every backend must do, as one function per behaviour.
//!
//! A backend's tests call [`all`] with a way to make an empty store, or the functions one by one.
//! A function panics where the store does not behave, and returns an error where it fails.

use bytes::Bytes;

use crate::{Address, Batch, Expect, Head, Store, StoreError, StoreExt};

type Outcome = Result<(), StoreError>;

/// Runs every behaviour, each on a store of its own.
///
/// # Errors
/// The first error a store gives where it should not.
///
/// # Panics
/// Where a store misbehaves.
pub async fn all<S: AsRef<dyn Store>>(mut empty: impl FnMut() -> S) -> Outcome {
    blocks_round_trip(empty().as_ref()).await?;
    blocks_are_kept_once(empty().as_ref()).await?;
    a_commit_is_one_step(empty().as_ref()).await?;
    the_head_moves_by_compare_and_set(empty().as_ref()).await?;
    concurrent_commits_have_one_winner(empty().as_ref()).await?;
    branches_are_independent(empty().as_ref()).await?;
    the_log_pages(empty().as_ref()).await?;
    the_log_is_truncated(empty().as_ref()).await?;
    the_log_skips_on(empty().as_ref()).await?;
    a_deleted_branch_continues_its_numbers(empty().as_ref()).await?;
    listing_pages_in_order(empty().as_ref()).await?;
    collection_removes_only_garbage(empty().as_ref()).await?;
    collection_spares_what_was_put_again(empty().as_ref()).await?;
    bounds_are_kept(empty().as_ref()).await?;
    synchronous_calls_agree(empty().as_ref()).await?;
    identity_is_stable(empty().as_ref()).await?;
    a_closed_store_refuses(empty().as_ref()).await
}

/// An address for tests, rising with `n`.
pub fn address(n: u64) -> Address {
    let mut bytes = [0x5a; 32];
    let (head, _) = bytes.split_at_mut(8);
    head.copy_from_slice(&n.to_be_bytes());
    Address(bytes)
}

/// A block for tests, told apart by `n`; every other one does not compress.
pub fn block(n: u64) -> Bytes {
    let length = (n * 37 % 3000) as usize;
    if n.is_multiple_of(2) {
        return std::iter::repeat_n(n as u8, length).collect();
    }
    let mut state = n.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    std::iter::repeat_with(|| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state as u8
    })
    .take(length)
    .collect()
}

fn entry(n: u64) -> Bytes {
    Bytes::from(format!("entry {n}"))
}

/// The commit after `head` with one entry.
fn next(branch: &str, head: Option<&Head>) -> Batch {
    let expect = head.map_or(Expect::Absent, Expect::from);
    let mut batch = Batch::new(branch, expect);
    batch.entries.push(entry(head.map_or(0, |head| head.log.end)));
    batch
}

async fn grow(store: &dyn Store, branch: &str, entries: u64) -> Result<Head, StoreError> {
    let mut head = store.head(branch).await?;
    loop {
        let grown = store.commit(next(branch, head.as_ref())).await?;
        if grown.log.end >= entries {
            return Ok(grown);
        }
        head = Some(grown);
    }
}

/// Blocks come back in the order asked for, absent ones as `None`, whatever their size.
pub async fn blocks_round_trip(store: &dyn Store) -> Outcome {
    let blocks: Vec<_> = (0..100).map(|n| (address(n), block(n))).collect();
    store.put(blocks.clone()).await?;
    let asked: Vec<_> = (0..110).rev().map(address).collect();
    let found = store.get(&asked).await?;
    for (n, found) in (0..110).rev().zip(found) {
        assert_eq!(found, (n < 100).then(|| block(n)), "block {n}");
    }
    assert_eq!(store.contains(&[address(5), address(105)]).await?, [true, false]);
    assert_eq!(store.missing(&[address(5), address(105)]).await?, [address(105)]);
    assert_eq!(store.get_one(&address(7)).await?, Some(block(7)));
    assert!(store.get(&[]).await?.is_empty());
    Ok(())
}

/// Putting a block again, or twice in one call, changes nothing.
pub async fn blocks_are_kept_once(store: &dyn Store) -> Outcome {
    store.put(vec![(address(1), block(9)), (address(1), block(9))]).await?;
    let once = store.stats().await?;
    store.put(vec![(address(1), block(9))]).await?;
    assert_eq!(store.stats().await?, once);
    assert_eq!((once.blocks, once.block_bytes), (1, block(9).len() as u64));
    store.put(Vec::new()).await
}

/// Blocks, entries and record of a commit are all there afterwards; a record stays until replaced.
pub async fn a_commit_is_one_step(store: &dyn Store) -> Outcome {
    let mut batch = Batch::new("main", Expect::Absent);
    batch.blocks = vec![(address(1), block(1)), (address(2), block(2))];
    batch.entries = vec![entry(0), Bytes::new(), entry(2)];
    batch.record = Some(Bytes::from_static(b"record"));
    let head = store.commit(batch).await?;
    let record = Bytes::from_static(b"record");
    assert_eq!(head, Head { revision: 1, record: record.clone(), log: 0..3 });
    assert_eq!(store.head("main").await?.as_ref(), Some(&head));
    assert_eq!(store.log("main", 0, usize::MAX).await?, [entry(0), Bytes::new(), entry(2)]);
    assert_eq!(store.get(&[address(2), address(1)]).await?, [Some(block(2)), Some(block(1))]);

    let head = store.commit(next("main", Some(&head))).await?;
    assert_eq!(head, Head { revision: 2, record, log: 0..4 });
    let mut batch = Batch::new("main", Expect::from(&head));
    batch.record = Some(Bytes::new());
    let head = store.commit(batch).await?;
    assert_eq!(head, Head { revision: 3, record: Bytes::new(), log: 0..4 });
    Ok(())
}

/// A batch made for another head changes nothing and says what was found.
pub async fn the_head_moves_by_compare_and_set(store: &dyn Store) -> Outcome {
    let conflict = |outcome: Result<Head, StoreError>| match outcome {
        Err(StoreError::Conflict { expected, found, .. }) => (expected, found),
        other => panic!("expected a conflict, got {other:?}"),
    };
    let early = store.commit(Batch::new("main", Expect::Revision(1))).await;
    assert_eq!(conflict(early), (Expect::Revision(1), None));
    let head = grow(store, "main", 2).await?;
    for expect in [Expect::Absent, Expect::Revision(1), Expect::Revision(3)] {
        let mut batch = next("main", Some(&head));
        batch.expect = expect;
        batch.record = Some(entry(9));
        assert_eq!(conflict(store.commit(batch).await), (expect, Some(2)));
    }
    assert_eq!(store.head("main").await?, Some(head));
    assert_eq!(store.log("main", 2, 100).await?, [] as [Bytes; 0]);
    assert_eq!(store.head("other").await?, None);
    Ok(())
}

/// Of two commits for the same head made at the same time one succeeds.
pub async fn concurrent_commits_have_one_winner(store: &dyn Store) -> Outcome {
    let mut head = store.commit(next("main", None)).await?;
    for round in 0..20 {
        let mut a = next("main", Some(&head));
        a.blocks = vec![(address(round), block(round))];
        let b = next("main", Some(&head));
        let (mut a, mut b) = (store.commit(a), store.commit(b));
        let both = std::future::poll_fn(move |cx| {
            // Both are under way before either is waited for.
            use std::task::Poll;
            let (first, second) = (a.as_mut().poll(cx), b.as_mut().poll(cx));
            match (first, second) {
                (Poll::Ready(a), Poll::Ready(b)) => Poll::Ready((Some(a), Some(b))),
                (Poll::Ready(a), Poll::Pending) => Poll::Ready((Some(a), None)),
                (Poll::Pending, Poll::Ready(b)) => Poll::Ready((None, Some(b))),
                (Poll::Pending, Poll::Pending) => Poll::Pending,
            }
        });
        let (a, b) = both.await;
        let won = [&a, &b].iter().filter(|outcome| matches!(outcome, Some(Ok(_)))).count();
        assert!(won <= 1, "two winners: {a:?}, {b:?}");
        // What was dropped while under way is done or not done; wait until it can be told.
        let mut found = store.head("main").await?;
        while found.as_ref() == Some(&head) {
            let again = store.commit(next("main", Some(&head))).await;
            assert!(matches!(again, Ok(_) | Err(StoreError::Conflict { .. })), "{again:?}");
            found = store.head("main").await?;
        }
        let Some(found) = found else { panic!("the branch is gone") };
        assert_eq!((found.revision, found.log.end), (head.revision + 1, head.log.end + 1));
        head = found;
    }
    Ok(())
}

/// Branches share blocks and nothing else; their names may be nearly anything.
pub async fn branches_are_independent(store: &dyn Store) -> Outcome {
    let names = ["main", "..", "a/b", "ärger", "%41", "A", "with space"];
    for (n, name) in names.iter().enumerate() {
        let head = grow(store, name, n as u64 + 1).await?;
        assert_eq!(head.log, 0..n as u64 + 1, "{name}");
    }
    let mut sorted = names.map(String::from);
    sorted.sort();
    assert_eq!(store.branches().await?, sorted);
    assert_eq!(store.stats().await?.branches, names.len() as u64);
    assert_eq!(store.head("a").await?, None);
    for bad in ["", "nul\0", &"x".repeat(65)] {
        let refused = store.head(bad).await;
        assert!(matches!(refused, Err(StoreError::InvalidBranch { .. })), "{refused:?}");
    }
    Ok(())
}

/// Entries come in order, in pages of the size asked for, at least one at a time.
pub async fn the_log_pages(store: &dyn Store) -> Outcome {
    let head = grow(store, "main", 50).await?;
    let mut batch = next("main", Some(&head));
    batch.entries = (50..500).map(entry).collect();
    store.commit(batch).await?;
    for page in [0, 1, 30, 1000, usize::MAX] {
        let mut read = Vec::new();
        loop {
            let entries = store.log("main", read.len() as u64, page).await?;
            let bytes: usize = entries.iter().map(Bytes::len).sum();
            assert!(bytes <= page || entries.len() == 1, "{bytes} bytes in a page of {page}");
            if entries.is_empty() {
                break;
            }
            read.extend(entries);
        }
        assert_eq!(read, (0..500).map(entry).collect::<Vec<_>>(), "pages of {page}");
    }
    assert!(store.log("main", 501, 10).await?.is_empty());
    let refused = store.log("none", 0, 10).await;
    assert!(matches!(refused, Err(StoreError::NoBranch { .. })), "{refused:?}");
    Ok(())
}

/// Entries before the start that a commit names are gone; the start never goes back.
pub async fn the_log_is_truncated(store: &dyn Store) -> Outcome {
    let head = grow(store, "main", 20).await?;
    let mut batch = next("main", Some(&head));
    batch.log_start = Some(15);
    let head = store.commit(batch).await?;
    assert_eq!(head.log, 15..21);
    match store.log("main", 14, 100).await {
        Err(StoreError::LogGone { from: 14, start: 15, .. }) => {}
        other => panic!("expected a log that is gone, got {other:?}"),
    }
    assert_eq!(store.log("main", 15, 1).await?, [entry(15)]);
    let mut batch = Batch::new("main", Expect::from(&head));
    batch.log_start = Some(3);
    assert_eq!(store.commit(batch).await?.log, 15..21);
    store.collect(&[], store.mark()).await?;
    assert_eq!(store.log("main", 20, 100).await?, [entry(20)]);
    Ok(())
}

/// A start past the end numbers the entries of the batch from there.
pub async fn the_log_skips_on(store: &dyn Store) -> Outcome {
    let head = grow(store, "main", 3).await?;
    let mut batch = Batch::new("main", Expect::from(&head));
    batch.log_start = Some(1000);
    batch.entries = vec![entry(1000), entry(1001)];
    let head = store.commit(batch).await?;
    assert_eq!(head.log, 1000..1002);
    assert_eq!(store.log("main", 1001, 100).await?, [entry(1001)]);
    assert!(matches!(store.log("main", 2, 1).await, Err(StoreError::LogGone { .. })));

    let mut batch = Batch::new("mirror", Expect::Absent);
    batch.log_start = Some(77);
    assert_eq!(store.commit(batch).await?.log, 77..77);
    Ok(())
}

/// A branch is deleted by compare-and-set; a new one of the name is told apart by its numbers.
pub async fn a_deleted_branch_continues_its_numbers(store: &dyn Store) -> Outcome {
    let refused = store.delete_branch("main", 1).await;
    assert!(matches!(refused, Err(StoreError::Conflict { found: None, .. })), "{refused:?}");
    let mut batch = next("main", None);
    batch.record = Some(entry(7));
    let head = store.commit(batch).await?;
    let refused = store.delete_branch("main", 2).await;
    assert!(matches!(refused, Err(StoreError::Conflict { found: Some(1), .. })), "{refused:?}");
    store.delete_branch("main", head.revision).await?;
    assert_eq!(store.head("main").await?, None);
    assert!(store.branches().await?.is_empty());
    assert!(matches!(store.log("main", 0, 1).await, Err(StoreError::NoBranch { .. })));
    let stale = store.commit(next("main", Some(&head))).await;
    assert!(matches!(stale, Err(StoreError::Conflict { found: None, .. })), "{stale:?}");

    let anew = store.commit(next("main", None)).await?;
    assert!(anew.revision > head.revision);
    assert_eq!((anew.log, anew.record), (1..2, Bytes::new()));
    Ok(())
}

/// Listing visits every block once, in order, whatever the page.
pub async fn listing_pages_in_order(store: &dyn Store) -> Outcome {
    for n in [5, 3, 9, 1, 7] {
        store.put(vec![(address(n), block(n)), (address(n * 100), block(n))]).await?;
    }
    for limit in [1, 3, 100] {
        let mut seen = Vec::new();
        let mut after = None;
        loop {
            let page = store.list(after, limit).await?;
            assert!(page.len() <= limit);
            let Some(last) = page.last() else { break };
            after = Some(last.address);
            seen.extend(page);
        }
        let addresses: Vec<_> = seen.iter().map(|info| info.address).collect();
        let expected = [1, 3, 5, 7, 9, 100, 300, 500, 700, 900].map(address);
        assert_eq!(addresses, expected, "pages of {limit}");
        assert!(seen.iter().all(|info| store_size(info.address) == info.bytes));
    }
    Ok(())
}

fn store_size(address: Address) -> u64 {
    let [a, b, c, d, e, f, g, h, ..] = address.0;
    let n = u64::from_be_bytes([a, b, c, d, e, f, g, h]);
    block(if n >= 100 { n / 100 } else { n }).len() as u64
}

/// Garbage goes, the rest stays readable, and what is garbage twice or never was is no error.
pub async fn collection_removes_only_garbage(store: &dyn Store) -> Outcome {
    for n in 0..10 {
        store.put((n * 10..n * 10 + 10).map(|n| (address(n), block(n))).collect()).await?;
    }
    let garbage: Vec<_> = (0..120).filter(|n| n % 3 == 0).map(address).collect();
    let reclaimed = store.collect(&garbage, store.mark()).await?;
    assert_eq!(reclaimed.blocks, 34);
    let all: Vec<_> = (0..100).map(address).collect();
    for (n, found) in (0..100).zip(store.get(&all).await?) {
        assert_eq!(found, (n % 3 != 0).then(|| block(n)), "block {n}");
    }
    assert_eq!(store.stats().await?.blocks, 66);
    assert_eq!(store.collect(&garbage, store.mark()).await?.blocks, 0);
    // What was collected may come back.
    store.put(vec![(address(3), block(3))]).await?;
    assert_eq!(store.get_one(&address(3)).await?, Some(block(3)));
    Ok(())
}

/// A block put after the mark stays, even if it was there before: its garbage was counted too early.
pub async fn collection_spares_what_was_put_again(store: &dyn Store) -> Outcome {
    store.put((0..4).map(|n| (address(n), block(n))).collect()).await?;
    let mark = store.mark();
    store.put(vec![(address(1), block(1))]).await?;
    let mut batch = next("main", None);
    batch.blocks.push((address(2), block(2)));
    store.commit(batch).await?;
    let reclaimed = store.collect(&[address(0), address(1), address(2)], mark).await?;
    assert_eq!(reclaimed.blocks, 1);
    // Another collection, from another mark, does not make the first one forget.
    assert_eq!(store.collect(&[address(3)], store.mark()).await?.blocks, 1);
    assert_eq!(store.collect(&[address(1), address(2)], mark).await?.blocks, 0);
    let found = store.contains(&[address(0), address(1), address(2)]).await?;
    assert_eq!(found, [false, true, true]);
    Ok(())
}

/// What passes a bound is refused by name, before anything is written.
pub async fn bounds_are_kept(store: &dyn Store) -> Outcome {
    use crate::limits::{BLOCK_BYTES_MAX, RECORD_BYTES_MAX};
    let mut batch = next("main", None);
    batch.record = Some(Bytes::from(vec![0; RECORD_BYTES_MAX + 1]));
    let refused = store.commit(batch).await;
    assert!(matches!(refused, Err(StoreError::TooLarge { what: "head record", .. })));
    let huge = Bytes::from(vec![0; BLOCK_BYTES_MAX + 1]);
    let refused = store.put(vec![(address(1), huge)]).await;
    assert!(matches!(refused, Err(StoreError::TooLarge { what: "block", .. })));
    assert_eq!(store.head("main").await?, None);
    assert_eq!(store.stats().await?.blocks, 0);
    Ok(())
}

/// Where the synchronous calls answer, they answer as the others do.
pub async fn synchronous_calls_agree(store: &dyn Store) -> Outcome {
    store.put(vec![(address(1), block(1))]).await?;
    let batch = next("main", None);
    if !store.capabilities().synchronous {
        assert!(store.get_now(&address(1)).is_none() && store.commit_now(&batch).is_none());
        return Ok(());
    }
    let (Some(there), Some(absent)) = (store.get_now(&address(1)), store.get_now(&address(2)))
    else {
        panic!("a synchronous store must answer");
    };
    assert_eq!((there?, absent?), (Some(block(1)), None));
    let Some(head) = store.commit_now(&batch) else { panic!("a synchronous store must answer") };
    assert_eq!(store.head("main").await?, Some(head?));
    Ok(())
}

/// The identity is set and does not change while the store is open.
pub async fn identity_is_stable(store: &dyn Store) -> Outcome {
    let identity = store.identity();
    assert!(!identity.id.is_nil() && !identity.epoch.is_nil());
    grow(store, "main", 3).await?;
    assert_eq!(store.identity(), identity);
    assert!(!store.describe().is_empty());
    Ok(())
}

/// After closing every call says so, and closing again is fine.
pub async fn a_closed_store_refuses(store: &dyn Store) -> Outcome {
    grow(store, "main", 1).await?;
    store.close().await?;
    store.close().await?;
    assert!(matches!(store.head("main").await, Err(StoreError::Closed)));
    assert!(matches!(store.get(&[address(1)]).await, Err(StoreError::Closed)));
    assert!(matches!(store.put(vec![(address(1), block(1))]).await, Err(StoreError::Closed)));
    assert!(matches!(store.commit(next("main", None)).await, Err(StoreError::Closed)));
    Ok(())
}
