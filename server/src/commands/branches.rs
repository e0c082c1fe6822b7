use datahike::{Value, kw};

use super::form;
use crate::cli::{Branch, DeleteBranch, History, Merge, Target, Verify};
use crate::failure::Failure;
use crate::output;
use crate::session::Session;

pub(super) async fn branch(args: Branch) -> Result<(), Failure> {
    let from = args.from.as_deref().map(Value::from).unwrap_or_default();
    let arguments = [("name", args.name.as_str().into()), ("from", from)];
    change(&args.target, "branch", arguments).await
}

pub(super) async fn branches(args: Target) -> Result<(), Failure> {
    let session = Session::read(&args).await?;
    let found = session.call("branches", []).await?;
    if let Value::Set(names) = &found {
        for name in names.iter() {
            output::line(name)?;
        }
    }
    session.close().await
}

pub(super) async fn delete(args: DeleteBranch) -> Result<(), Failure> {
    let session = Session::write(&args.target).await?;
    let deleted = session.call("delete-branch", [("name", args.name.as_str().into())]).await;
    session.close().await?;
    deleted.map(drop)
}

pub(super) async fn merge(args: Merge) -> Result<(), Failure> {
    let parents = args.parents.iter().map(|parent| Value::from(parent.as_str()));
    let data = form("TX-DATA", &args.data)?;
    let arguments = [("parents", Value::vector(parents)), ("tx-data", data)];
    change(&args.target, "merge", arguments).await
}

async fn change(
    target: &Target,
    operation: &'static str,
    arguments: impl IntoIterator<Item = (&'static str, Value)>,
) -> Result<(), Failure> {
    let session = Session::write(target).await?;
    let done = session.call(operation, arguments).await;
    session.close().await?;
    output::line(done?)
}

pub(super) async fn history(args: History) -> Result<(), Failure> {
    let session = Session::read(&args.target).await?;
    let at = args.at.as_deref().map(Value::from).unwrap_or_default();
    let limit = args.limit.map(|limit| Value::Long(limit.into())).unwrap_or_default();
    let commits = session.call("history", [("at", at), ("limit", limit)]).await?;
    for commit in commits.as_slice().unwrap_or_default() {
        output::line(commit)?;
    }
    session.close().await
}

pub(super) async fn verify(args: Verify) -> Result<(), Failure> {
    let session = Session::read(&args.target).await?;
    let deep = if args.deep { true.into() } else { Value::Nil };
    let verified = session.call("verify", [("deep", deep)]).await?;
    for branch in verified.get(&kw!("branches")).and_then(Value::as_slice).unwrap_or(&[]) {
        output::line(branch)?;
    }
    let blocks = verified.get(&kw!("blocks")).cloned().unwrap_or_default();
    output::line(Value::map([(Value::keyword("blocks"), blocks)]))?;
    session.close().await
}
