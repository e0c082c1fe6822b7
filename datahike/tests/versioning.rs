//! Branches and commits through the public interface.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use datahike::commit::CommitId;
use datahike::store::{Batch, Expect};
use datahike::{
    Config, Connection, Cut, Db, Error, Keep, Revision, Value, compact, connect, create_database,
    edn, kw, verify,
};

fn form(text: &str) -> Value {
    edn::read(text).unwrap()
}

const SCHEMA: &str =
    "[{:db/ident :n :db/valueType :db.type/long :db/cardinality :db.cardinality/one}
      {:db/ident :key :db/valueType :db.type/string :db/cardinality :db.cardinality/one
       :db/unique :db.unique/identity}]";

async fn database(config: &Config) -> (Config, Connection) {
    let config = create_database(config).await.unwrap();
    let conn = connect(&config).await.unwrap();
    conn.transact(form(SCHEMA)).await.unwrap();
    (config, conn)
}

async fn put(conn: &Connection, n: i64) {
    conn.transact(form(&format!("[{{:n {n}}}]"))).await.unwrap();
}

fn numbers(db: &Db) -> Vec<i64> {
    let query = datahike::query::Query::parse("[:find [?n ...] :where [_ :n ?n]]").unwrap();
    let found =
        datahike::query::q(&query, &[db.clone().into()], &datahike::query::Context::default());
    let mut found: Vec<i64> = found
        .unwrap()
        .into_value()
        .as_slice()
        .unwrap()
        .iter()
        .map(|n| n.as_long().unwrap())
        .collect();
    found.sort_unstable();
    found
}

/// Databases in memory and in a folder, which lives as long as the guard.
fn places() -> Vec<(Config, Option<tempfile::TempDir>)> {
    let folder = tempfile::tempdir().unwrap();
    let file = Config::file(folder.path().join("db"));
    vec![(Config::memory(), None), (file, Some(folder))]
}

#[tokio::test]
async fn branches_part_and_merge() {
    for flushed in [false, true] {
        for (config, _folder) in places() {
            let (config, conn) = database(&config).await;
            put(&conn, 1).await;
            if flushed {
                conn.flush().await.unwrap();
            }
            put(&conn, 2).await;
            let from = conn.create_branch("db", "foo").await.unwrap();
            assert_eq!(from, conn.snapshot().at);
            assert_eq!(conn.branches().await.unwrap(), ["db", "foo"]);
            let foo = connect(&config.clone().branch("foo")).await.unwrap();
            assert_eq!(foo.commit_id(), conn.commit_id());
            assert!(foo.db().same_datoms(&conn.db()).unwrap());

            put(&foo, 30).await;
            put(&conn, 3).await;
            assert_eq!(numbers(&foo.db()), [1, 2, 30]);
            assert_eq!(numbers(&conn.db()), [1, 2, 3]);
            assert_eq!(numbers(&conn.branch_as_db("foo").await.unwrap()), [1, 2, 30]);

            let (ours, theirs) = (conn.commit_id(), foo.commit_id());
            let report = conn.merge(&["foo".into()], form("[{:n 30}]")).await.unwrap();
            assert_eq!(numbers(&report.db_after), [1, 2, 3, 30]);
            let merged = conn.commit_id();
            assert_eq!(conn.parent_commit_ids(merged).await.unwrap(), [ours, theirs]);
            assert_eq!(conn.parent_commit_ids(theirs).await.unwrap(), [from.commit]);

            // Schema, 1, 2, then 3 and 30 side by side, then the merge.
            let history = conn.branch_history("db", 100).await.unwrap();
            let ids: Vec<CommitId> = history.iter().map(|commit| commit.id).collect();
            assert_eq!(ids.len(), 6);
            assert_eq!(ids[0], merged);
            assert!(ids[1..3].contains(&ours) && ids[1..3].contains(&theirs));
            assert_eq!(ids[3], from.commit);
            assert!(history[5].parents.is_empty());
            assert!(history.windows(2).all(|two| two[0].seq >= two[1].seq));
            assert_eq!(conn.branch_history("db", 2).await.unwrap(), history[..2]);
            assert_eq!(conn.branch_history("foo", 9).await.unwrap().len(), 4);

            for commit in &history {
                let db = conn.commit_as_db(commit.id).await.unwrap();
                assert_eq!(db.max_tx(), *commit.transactions.last().unwrap());
                let again = foo.commit_as_db(commit.id).await.unwrap();
                assert!(db.same_datoms(&again).unwrap());
            }
            let older = conn.commit_as_db(history[4].id).await.unwrap();
            assert_eq!(numbers(&older), [1]);

            // All of it is there again after a restart, and in order.
            foo.release().await.unwrap();
            conn.release().await.unwrap();
            let conn = connect(&config).await.unwrap();
            assert_eq!(conn.commit_id(), merged);
            assert_eq!(conn.parent_commit_ids(merged).await.unwrap(), [ours, theirs]);
            for deep in [false, true] {
                let verified = verify(&conn, deep).await.unwrap();
                assert_eq!(verified.branches.len(), 2);
                for branch in &verified.branches {
                    assert_eq!((branch.since.seq, &branch.cut), (0, &None), "{branch:?}");
                    assert_eq!(branch.remade, u64::from(flushed && deep));
                }
            }
            conn.release().await.unwrap();
        }
    }
}

#[tokio::test]
async fn a_branch_begins_at_a_commit() {
    for (config, _folder) in places() {
        let (config, conn) = database(&config).await;
        let mut commits = Vec::new();
        for n in 0..6 {
            put(&conn, n).await;
            commits.push(conn.commit_id());
            if n % 2 == 1 {
                conn.flush().await.unwrap();
            }
        }
        for (n, commit) in commits.iter().enumerate() {
            let name = format!("at-{n}");
            let at = conn.create_branch(*commit, &name).await.unwrap();
            assert_eq!(at.commit, *commit);
            let branch = conn.checkout(&name).await.unwrap();
            let expected: Vec<i64> = (0..=i64::try_from(n).unwrap()).collect();
            assert_eq!(numbers(&branch.db()), expected);
            put(&branch, 100).await;
            branch.flush().await.unwrap();
            branch.release().await.unwrap();
            let branch = connect(&config.clone().branch(&name)).await.unwrap();
            assert_eq!(branch.db().datoms_of(100), 1);
            branch.release().await.unwrap();
        }
        let verified = verify(&conn, true).await.unwrap();
        assert_eq!(verified.branches.len(), 7);
        assert!(verified.branches.iter().all(|branch| branch.cut.is_none()));
        conn.release().await.unwrap();
    }
}

trait Holds {
    fn datoms_of(&self, n: i64) -> usize;
}

impl Holds for Db {
    fn datoms_of(&self, n: i64) -> usize {
        numbers(self).into_iter().filter(|found| *found == n).count()
    }
}

#[tokio::test]
async fn names_are_used_again() {
    for (config, _folder) in places() {
        let (config, conn) = database(&config).await;
        for round in 0..3i64 {
            put(&conn, round).await;
            conn.create_branch("db", "again").await.unwrap();
            let branch = conn.checkout("again").await.unwrap();
            for n in 10..13 + round {
                put(&branch, n).await;
            }
            branch.flush().await.unwrap();
            put(&branch, 50).await;
            let there = numbers(&branch.db());
            branch.release().await.unwrap();
            let branch = connect(&config.clone().branch("again")).await.unwrap();
            assert_eq!(numbers(&branch.db()), there);
            assert_eq!(there.len(), usize::try_from(round + 1 + 3 + round + 1).unwrap());
            branch.release().await.unwrap();
            conn.delete_branch("again").await.unwrap();
            assert_eq!(conn.branches().await.unwrap(), ["db"]);
        }
        conn.release().await.unwrap();
    }
}

#[tokio::test]
async fn a_branch_is_forced_to_a_value() {
    for (config, _folder) in places() {
        let (config, conn) = database(&config).await;
        put(&conn, 1).await;
        conn.create_branch("db", "foo").await.unwrap();
        let foo = conn.checkout("foo").await.unwrap();
        put(&foo, 2).await;
        let theirs = foo.commit_id();
        foo.release().await.unwrap();

        let options = datahike::core::tx::TxOptions::at(1_900_000_000_000);
        let speculative = conn.db().db_with(&form("[{:n 9}]"), &options).unwrap();
        let at = conn.force_branch(&speculative, "bar", &["foo".into()]).await.unwrap();
        assert_eq!(at.seq, 4);
        assert_eq!(conn.parent_commit_ids(at.commit).await.unwrap(), [theirs]);
        let bar = connect(&config.clone().branch("bar")).await.unwrap();
        assert_eq!(numbers(&bar.db()), [1, 9]);
        put(&bar, 10).await;
        assert_eq!(bar.branch_history("bar", 9).await.unwrap().len(), 5);
        let verified = verify(&bar, true).await.unwrap();
        assert_eq!(verified.branches[0].cut, Some(Cut::Forced(vec![theirs])));
        bar.release().await.unwrap();

        // A branch that is there is replaced, and who writes it is told.
        let foo = conn.checkout("foo").await.unwrap();
        conn.force_branch(&conn.db(), "foo", &["foo".into(), "db".into()]).await.unwrap();
        let error = foo.transact(form("[{:n 3}]")).await.unwrap_err();
        assert_eq!(error.code(), "writer/lost", "{error}");
        foo.release().await.unwrap();
        let foo = conn.checkout("foo").await.unwrap();
        assert!(foo.db().same_datoms(&conn.db()).unwrap());
        assert_eq!(foo.parent_commit_ids(foo.commit_id()).await.unwrap().len(), 2);
        foo.release().await.unwrap();
        conn.release().await.unwrap();
    }
}

#[tokio::test]
async fn compaction_keeps_every_branch() {
    for (config, _folder) in places() {
        let (config, conn) = database(&config).await;
        put(&conn, 1).await;
        conn.flush().await.unwrap();
        let gone = conn.commit_id();
        put(&conn, 2).await;
        conn.create_branch("db", "foo").await.unwrap();
        let forked = conn.commit_id();
        put(&conn, 3).await;
        conn.flush().await.unwrap();
        put(&conn, 4).await;
        compact(&conn, Keep::default()).await.unwrap();

        let foo = conn.checkout("foo").await.unwrap();
        assert_eq!(numbers(&foo.db()), [1, 2]);
        assert_eq!(foo.commit_id(), forked);
        // The branch still needs its snapshot; commit 3 nobody does.
        assert_eq!(numbers(&conn.commit_as_db(gone).await.unwrap()), [1]);
        put(&foo, 5).await;
        compact(&foo, Keep::default()).await.unwrap();
        let error = conn.commit_as_db(gone).await.unwrap_err();
        assert_eq!(error.code(), "commit/missing");
        assert!(error.to_string().contains("given back by a compaction"), "{error}");
        assert_eq!(numbers(&foo.db()), [1, 2, 5]);
        assert_eq!(numbers(&conn.db()), [1, 2, 3, 4]);
        let verified = verify(&conn, true).await.unwrap();
        assert!(verified.branches.iter().all(|branch| branch.cut == Some(Cut::Compacted)));
        foo.release().await.unwrap();
        conn.release().await.unwrap();
        let conn = connect(&config).await.unwrap();
        assert_eq!(numbers(&conn.db()), [1, 2, 3, 4]);
        conn.release().await.unwrap();
    }
}

#[tokio::test]
async fn a_purge_cuts_the_chain() {
    for (config, _folder) in places() {
        let (_, conn) = database(&config).await;
        conn.transact(form("[{:key \"secret\" :n 1}]")).await.unwrap();
        conn.flush().await.unwrap();
        put(&conn, 2).await;
        conn.transact(form("[[:db.purge/entity [:key \"secret\"]]]")).await.unwrap();
        conn.flush().await.unwrap();
        let purged = conn.snapshot().at;
        put(&conn, 3).await;
        let verified = verify(&conn, true).await.unwrap();
        let branch = &verified.branches[0];
        assert_eq!((&branch.cut, branch.since), (&Some(Cut::Purged), purged));
        assert_eq!(numbers(&conn.db()), [2, 3]);
        conn.release().await.unwrap();
    }
}

#[tokio::test]
async fn errors_name_what_is_there() {
    let (_, conn) = database(&Config::memory()).await;
    conn.create_branch("db", "foo").await.unwrap();
    let unknown = CommitId([7; 32]);
    let codes = [
        (conn.create_branch("nope", "x").await.unwrap_err(), "branch/missing", "only db, foo"),
        (conn.create_branch("db", "foo").await.unwrap_err(), "branch/exists", "foo exists"),
        (conn.create_branch(unknown, "x").await.unwrap_err(), "commit/missing", "0707"),
        (conn.create_branch("db", "").await.unwrap_err(), "branch/name", "empty"),
        (conn.create_branch("db", "a~mirror").await.unwrap_err(), "branch/name", "mirrors"),
        (conn.delete_branch("nope").await.unwrap_err(), "branch/missing", "only db, foo"),
        (conn.delete_branch("db").await.unwrap_err(), "branch/main", "cannot be deleted"),
        (conn.checkout("nope").await.unwrap_err(), "branch/missing", "only db, foo"),
        (conn.merge(&[unknown.into()], form("[]")).await.unwrap_err(), "commit/missing", "0707"),
        (conn.branch_as_db("nope").await.unwrap_err(), "branch/missing", "only db, foo"),
        (
            conn.force_branch(&conn.db(), "x", &[]).await.unwrap_err(),
            "config/unavailable",
            "parents",
        ),
    ];
    for (error, code, words) in codes {
        assert_eq!(error.code(), code, "{error}");
        assert!(error.to_string().contains(words), "{error}");
    }
    assert_eq!(conn.branches().await.unwrap(), ["db", "foo"]);
    let reading = conn.config().clone().writer(datahike::config::WriterConfig::ReadOnly);
    let reader = connect(&reading).await.unwrap();
    let error = reader.create_branch("db", "bar").await.unwrap_err();
    assert_eq!(error.code(), "connection/read-only");
    assert!(matches!(Revision::from("foo"), Revision::Branch(_)));
    assert_eq!(Revision::from(&*unknown.to_string()), Revision::Commit(unknown));
    assert_eq!(Revision::from_value(&kw!("foo").into()), Some(Revision::Branch("foo".into())));
    conn.release().await.unwrap();
    assert!(matches!(conn.create_branch("db", "y").await, Err(Error::Store(_))));
}

#[tokio::test]
async fn a_branch_that_was_never_finished_is_none() {
    for (config, _folder) in places() {
        let (config, conn) = database(&config).await;
        put(&conn, 1).await;
        // What is left when the process ends in the middle.
        let store = conn.branch().store();
        store.commit(Batch::new("foo", Expect::Absent)).await.unwrap();
        assert_eq!(conn.branches().await.unwrap(), ["db"]);
        assert_eq!(conn.checkout("foo").await.unwrap_err().code(), "branch/missing");
        assert_eq!(conn.delete_branch("foo").await.unwrap_err().code(), "branch/missing");
        compact(&conn, Keep::default()).await.unwrap();
        verify(&conn, true).await.unwrap();
        put(&conn, 2).await;
        conn.create_branch("db", "foo").await.unwrap();
        conn.release().await.unwrap();
        let foo = connect(&config.clone().branch("foo")).await.unwrap();
        assert_eq!(numbers(&foo.db()), [1, 2]);
        foo.release().await.unwrap();
    }
}

#[tokio::test]
async fn writers_of_branches_share_a_store() {
    let folder = tempfile::tempdir().unwrap();
    let (config, conn) = database(&Config::file(folder.path().join("db"))).await;
    conn.create_branch("db", "foo").await.unwrap();
    let foo_config = config.clone().branch("foo");
    let foo = connect(&foo_config).await.unwrap();
    // Each branch has one writer.
    assert_eq!(connect(&foo_config).await.unwrap_err().code(), "store/locked");
    assert_eq!(connect(&config).await.unwrap_err().code(), "store/locked");
    for n in 0..50 {
        let (ours, theirs) =
            (format!("[{{:n {n}}}]"), format!("[{{:n {}}} {{:n {}}}]", 100 + n, 200 + n));
        let both = futures::join!(conn.transact(form(&ours)), foo.transact(form(&theirs)));
        both.0.unwrap();
        both.1.unwrap();
    }
    assert_eq!((numbers(&conn.db()).len(), numbers(&foo.db()).len()), (50, 100));
    // The one goes on when the other is done, whichever opened the store.
    conn.release().await.unwrap();
    put(&foo, 7).await;
    let conn = connect(&config).await.unwrap();
    put(&conn, 8).await;
    conn.delete_branch("foo").await.unwrap();
    let error = foo.transact(form("[{:n 9}]")).await.unwrap_err();
    assert_eq!(error.code(), "writer/lost", "{error}");
    foo.release().await.unwrap();
    conn.release().await.unwrap();
    connect(&config).await.unwrap().release().await.unwrap();
}

#[tokio::test]
async fn operations_know_branches() {
    let (_, conn) = database(&Config::memory()).await;
    put(&conn, 1).await;
    let call = async |name: &str, arguments: &str| {
        let operation = datahike::ops::operation(name).unwrap();
        operation.call_on(&conn, &form(arguments), datahike::ops::Bounds::SERVED).await
    };
    let made = call("branch", "{:name :foo}").await.unwrap();
    let commit = made.get(&kw!("commit")).unwrap().clone();
    assert_eq!(commit, conn.commit_id().to_string().into());
    assert_eq!(call("branches", "{}").await.unwrap(), form("#{:db :foo}"));
    put(&conn, 2).await;
    let q = "{:query [:find [?n ...] :where [_ :n ?n]] :at ";
    assert_eq!(call("q", &format!("{q} :foo}}")).await.unwrap(), form("[1]"));
    assert_eq!(call("q", &format!("{q} {commit}}}")).await.unwrap(), form("[1]"));
    let at = call("q", &format!("{q} 3}}")).await.unwrap_err();
    assert_eq!(at.code(), "arguments/invalid");
    let merged = call("merge", "{:parents [:foo] :tx-data [{:n 3}]}").await.unwrap();
    assert!(merged.get(&kw!("tx")).is_some());
    let history = call("history", "{:limit 2}").await.unwrap();
    let parents = history.as_slice().unwrap()[0].get(&kw!("parents")).unwrap();
    assert!(parents.as_slice().unwrap().contains(&commit));
    assert_eq!(history.as_slice().unwrap().len(), 2);
    let metrics = call("metrics", "{:entities true}").await.unwrap();
    assert_eq!(metrics.get(&kw!("per-attr-counts")).unwrap().get(&kw!("n")), Some(&3.into()));
    let range = call("index-range", "{:attrid :key}").await.unwrap();
    assert_eq!(range, form("[]"));
    let reverse = call("reverse-schema", "{}").await.unwrap();
    assert_eq!(reverse.get(&kw!("db/unique")), Some(&form("#{:key}")));
    let verified = call("verify", "{}").await.unwrap();
    assert_eq!(verified.get(&kw!("branches")).unwrap().as_slice().unwrap().len(), 2);
    assert_eq!(call("verify", "{:deep true}").await.unwrap_err().code(), "arguments/invalid");
    assert_eq!(call("delete-branch", "{:name :foo}").await.unwrap(), Value::Nil);
    conn.release().await.unwrap();
}

#[tokio::test]
async fn damage_is_found() {
    let folder = tempfile::tempdir().unwrap();
    let (config, conn) = database(&Config::file(folder.path().join("db"))).await;
    let forms: String = (0..3_000).map(|n| format!("{{:n {n} :key \"key {n}\"}}")).collect();
    conn.transact(form(&format!("[{forms}]"))).await.unwrap();
    conn.flush().await.unwrap();
    verify(&conn, false).await.unwrap();
    conn.release().await.unwrap();
    let packs: Vec<_> = walk(folder.path()).into_iter().filter(|path| is_pack(path)).collect();
    let pack = packs.iter().max_by_key(|path| path.metadata().unwrap().len()).unwrap();
    let mut bytes = std::fs::read(pack).unwrap();
    // In the middle of the blocks, which come first.
    let middle = bytes.len() / 3;
    bytes[middle] ^= 0x10;
    std::fs::write(pack, bytes).unwrap();
    let reading = config.writer(datahike::config::WriterConfig::ReadOnly);
    // Where blocks end differs from database to database: the one may be needed to open it.
    let error = match connect(&reading).await {
        Ok(conn) => {
            let error = verify(&conn, false).await.unwrap_err();
            conn.release().await.unwrap();
            error
        }
        Err(error) => error,
    };
    assert!(["block/damaged", "store/corrupt"].contains(&error.code()), "{error}");
}

fn is_pack(path: &std::path::Path) -> bool {
    path.parent().and_then(|folder| folder.file_name()).is_some_and(|name| name == "packs")
}

fn walk(folder: &std::path::Path) -> Vec<std::path::PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        match path.is_dir() {
            true => found.extend(walk(&path)),
            false => found.push(path),
        }
    }
    found
}
