//! One function per command.

mod branches;
mod export;
mod help;
mod manage;
mod mirror;
mod query;
mod transact;
mod watch;

use datahike::{Value, edn};

pub(crate) use self::manage::{databases_in, make_parent};

use crate::cli::{Command, View};
use crate::failure::Failure;
use crate::{import, serve};

/// Carries out a command.
pub(crate) async fn run(command: Command) -> Result<(), Failure> {
    match command {
        Command::Serve(args) => serve::run(args).await,
        Command::Create(args) => manage::create(args).await,
        Command::Delete(args) => manage::delete(args).await,
        Command::List(args) => manage::list(args).await,
        Command::Transact(args) => transact::run(args).await,
        Command::Q(args) => query::q(args).await,
        Command::Pull(args) => query::pull(args).await,
        Command::Datoms(args) => query::datoms(args).await,
        Command::Import(args) => import::run(args).await,
        Command::Export(args) => export::run(args).await,
        Command::Stats(args) => manage::stats(args).await,
        Command::Branch(args) => branches::branch(args).await,
        Command::Branches(args) => branches::branches(args).await,
        Command::DeleteBranch(args) => branches::delete(args).await,
        Command::Merge(args) => branches::merge(args).await,
        Command::History(args) => branches::history(args).await,
        Command::Verify(args) => branches::verify(args).await,
        Command::Compact(args) => manage::compact(args).await,
        Command::Mirror(args) => mirror::run(args).await,
        Command::Watch(args) => watch::run(args).await,
        Command::Completions(args) => help::completions(args.shell),
        Command::Man(args) => help::man(args.command.as_deref()),
    }
}

/// EDN from the command line; `@FILE` reads it from there.
fn form(what: &str, given: &str) -> Result<Value, Failure> {
    let place = given.strip_prefix('@').unwrap_or(what);
    edn::read(&text(what, given)?).map_err(|error| Failure::usage(format!("{place}: {error}")))
}

/// Text from the command line; `@FILE` reads it from there.
fn text(what: &str, given: &str) -> Result<String, Failure> {
    match given.strip_prefix('@') {
        Some(path) => std::fs::read_to_string(path)
            .map_err(|error| Failure::usage(format!("{what}: {path}: {error}"))),
        None => Ok(given.to_owned()),
    }
}

fn forms(what: &str, texts: &[String]) -> Result<Value, Failure> {
    let read: Result<Vec<_>, _> = texts.iter().map(|text| form(what, text)).collect();
    Ok(Value::vector(read?))
}

/// The arguments by which operations know a view.
fn view(view: &View) -> Result<Vec<(&'static str, Value)>, Failure> {
    let point = |name: &str, text: &Option<String>| match text {
        None => Ok(Value::Nil),
        Some(text) => point(text).ok_or_else(|| {
            Failure::usage(format!("{name} {text:?} is neither a transaction id nor an instant"))
                .hint("say 536870913, or 2026-01-31T12:00:00Z")
        }),
    };
    Ok(vec![
        ("as-of", point("--as-of", &view.as_of)?),
        ("since", point("--since", &view.since)?),
        ("at", view.at.as_deref().map(Value::from).unwrap_or_default()),
        ("history", if view.history { true.into() } else { Value::Nil }),
    ])
}

fn point(text: &str) -> Option<Value> {
    let quoted = format!("#inst \"{text}\"");
    let read = edn::read(text).ok().or_else(|| edn::read(&quoted).ok());
    let bare = || edn::read(&quoted).ok();
    read.filter(|value| datahike::ops::at_point(value).is_some())
        .or_else(bare)
        .filter(|value| datahike::ops::at_point(value).is_some())
}
