//! Operations on branches and commits.

use datahike_core::commit::Position;
use datahike_peer::BoxFuture;
use datahike_value::{Value, kw};

use super::{Arguments, Bounds};
use crate::connection::Connection;
use crate::error::Error;
use crate::versioning::{Commit, Cut, Revision, VerifiedBranch, verify};

/// Commits in one answer, unless told.
const COMMITS: u64 = 100;

type Answer<'a> = BoxFuture<'a, Result<Value, Error>>;

pub(super) fn branch<'a>(
    connection: &'a Connection,
    arguments: Arguments<'a>,
    _: Bounds,
) -> Answer<'a> {
    Box::pin(async move {
        let from = arguments.revision("from")?;
        let from = from.unwrap_or_else(|| Revision::Branch(connection.branch().name().to_owned()));
        let at = connection.create_branch(from, arguments.branch("name")?).await?;
        Ok(position(at))
    })
}

pub(super) fn branches<'a>(connection: &'a Connection, _: Arguments<'a>, _: Bounds) -> Answer<'a> {
    Box::pin(async move {
        let names = connection.branches().await?;
        Ok(Value::set(names.iter().map(|name| Value::keyword(name))))
    })
}

pub(super) fn delete<'a>(
    connection: &'a Connection,
    arguments: Arguments<'a>,
    _: Bounds,
) -> Answer<'a> {
    Box::pin(async move {
        connection.delete_branch(arguments.branch("name")?).await?;
        Ok(Value::Nil)
    })
}

pub(super) fn history<'a>(
    connection: &'a Connection,
    arguments: Arguments<'a>,
    bounds: Bounds,
) -> Answer<'a> {
    Box::pin(async move {
        let from = arguments.revision("at")?;
        let from = from.unwrap_or_else(|| Revision::Branch(connection.branch().name().to_owned()));
        let limit = usize::try_from(arguments.natural("limit")?.unwrap_or(COMMITS));
        let limit = limit.unwrap_or(usize::MAX).min(bounds.rows);
        let commits = connection.branch_history(from, limit).await?;
        Ok(Value::vector(commits.iter().map(commit)))
    })
}

pub(super) fn check<'a>(
    connection: &'a Connection,
    arguments: Arguments<'a>,
    bounds: Bounds,
) -> Answer<'a> {
    Box::pin(async move {
        let deep = arguments.flag("deep")?;
        if deep && bounds.time.is_some() {
            return Err(arguments.wrong(":deep takes too long to be asked of a server"));
        }
        let verified = verify(connection, deep).await?;
        Ok(Value::map([
            (kw!("blocks").into(), long(verified.blocks)),
            (kw!("branches").into(), Value::vector(verified.branches.iter().map(branch_value))),
        ]))
    })
}

fn branch_value(branch: &VerifiedBranch) -> Value {
    let mut entries = vec![
        (kw!("branch").into(), Value::keyword(&branch.name)),
        (kw!("commit").into(), branch.at.commit.to_string().into()),
        (kw!("seq").into(), long(branch.at.seq)),
        (kw!("commits").into(), long(branch.at.seq - branch.since.seq)),
        (kw!("snapshots").into(), long(branch.flushes)),
    ];
    let cut = branch.cut.as_ref().map(|cut| match cut {
        Cut::Compacted => kw!("compacted"),
        Cut::Purged => kw!("purged"),
        Cut::Forced(_) => kw!("forced"),
    });
    if let Some(cut) = cut {
        entries.push((kw!("cut").into(), cut.into()));
        entries.push((kw!("cut-at").into(), long(branch.since.seq)));
    }
    if let Some(datoms) = &branch.datoms {
        entries.push((kw!("snapshots-remade").into(), long(branch.remade)));
        entries.push((kw!("datoms").into(), long(datoms.current)));
        entries.push((kw!("history-datoms").into(), long(datoms.history)));
    }
    Value::map(entries)
}

fn position(at: Position) -> Value {
    Value::map([
        (kw!("commit").into(), at.commit.to_string().into()),
        (kw!("seq").into(), long(at.seq)),
    ])
}

fn commit(commit: &Commit) -> Value {
    Value::map([
        (kw!("commit").into(), commit.id.to_string().into()),
        (kw!("seq").into(), long(commit.seq)),
        (
            kw!("parents").into(),
            Value::vector(commit.parents.iter().map(|parent| Value::from(parent.to_string()))),
        ),
        (
            kw!("transactions").into(),
            Value::vector(commit.transactions.iter().map(|transaction| long(*transaction))),
        ),
        (kw!("instant").into(), commit.instant.map(Value::Inst).unwrap_or_default()),
    ])
}

fn long(n: u64) -> Value {
    Value::Long(i64::try_from(n).unwrap_or(i64::MAX))
}
