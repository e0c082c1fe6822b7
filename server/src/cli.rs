//! The command line: what may be said, and its help.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand, ValueEnum};

use crate::import::columns::ColumnType;
use crate::place::Place;

const EXAMPLES: &str = "\
Examples:
  datahike import file:data/cities cities.csv --namespace city --unique geoname_id
  datahike q file:data/cities '[:find (count ?e) . :where [?e :city/name]]'
  datahike serve --data data --dev
  datahike mirror ws://127.0.0.1:4444/cities --into copy --once
  datahike watch ws://127.0.0.1:4444/cities '[:find ?n :where [?e :city/name ?n]]'

A database is file:FOLDER, or ws://HOST:PORT/NAME at a running server. Tokens are read
from --token or DATAHIKE_TOKEN.

Exit status: 0 done, 1 failed, 2 used wrongly.";

/// A live-syncing Datalog database.
#[derive(Debug, Parser)]
#[command(name = "datahike", version, about, after_help = EXAMPLES, propagate_version = true)]
pub(crate) struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
    /// How much to log, to standard error: error, warn, info, debug, trace, or a filter such as
    /// datahike=debug.
    #[arg(long, global = true, env = "DATAHIKE_LOG", default_value = "warn", value_name = "LEVEL")]
    pub log: String,
}

/// The commands.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Serve every database in a folder to peers over WebSocket, and to everybody over HTTP.
    Serve(Serve),
    /// Create a database.
    Create(Create),
    /// Delete a database and all that is stored of it.
    Delete(Target),
    /// List the databases in a folder or at a server.
    List(List),
    /// Apply transactions, one EDN form each, in order.
    Transact(Transact),
    /// Run a Datalog query.
    Q(Query),
    /// Pull an entity by a pattern.
    Pull(Pull),
    /// Print datoms of an index, in its order.
    Datoms(Datoms),
    /// Load a file of CSV, JSON lines or EDN transaction data, or an export.
    Import(Import),
    /// Write every datom ever asserted or retracted, one `[e a v tx added]` a line.
    Export(Export),
    /// Print sizes and counts.
    Stats(Reading),
    /// Make a branch.
    Branch(Branch),
    /// List the branches.
    Branches(Target),
    /// Remove a branch; its space is given back by the next compaction.
    DeleteBranch(DeleteBranch),
    /// Apply a transaction whose commit has several parents.
    Merge(Merge),
    /// List commits, newest first, one a line.
    History(History),
    /// Recompute every address and commit id, back to the first commit.
    Verify(Verify),
    /// Write out what waits in memory, and give back the space of what no one can reach.
    Compact(Compact),
    /// Keep a local copy of a database at a server.
    Mirror(Mirror),
    /// Print a query's result, and every change to it as it happens.
    Watch(Watch),
    /// Print what makes a shell complete this command line.
    Completions(Completions),
    /// Print a manual page, for man(1).
    Man(Manual),
}

/// What `completions` takes.
#[derive(Debug, Args)]
pub(crate) struct Completions {
    /// The shell. Its documentation says where the output belongs; for this session of bash:
    /// source <(datahike completions bash).
    #[arg(value_enum)]
    pub shell: clap_complete::Shell,
}

/// What `man` takes.
#[derive(Debug, Args)]
pub(crate) struct Manual {
    /// The command that the page is about; the program itself without one. To read it:
    /// datahike man serve | man -l -.
    #[arg(value_name = "COMMAND")]
    pub command: Option<String>,
}

/// A database to change.
#[derive(Debug, Args)]
pub(crate) struct Target {
    /// The database: file:FOLDER or ws://HOST:PORT/NAME.
    #[arg(value_name = "DB")]
    pub db: Place,
    #[command(flatten)]
    pub access: Access,
    /// The branch of a file: database to work on.
    #[arg(long, default_value = "db", value_name = "BRANCH")]
    pub branch: String,
}

/// How to reach a server.
#[derive(Clone, Debug, Args)]
pub(crate) struct Access {
    /// The server's token.
    #[arg(long, env = "DATAHIKE_TOKEN", hide_env_values = true, value_name = "TOKEN")]
    pub token: Option<String>,
    /// How long to go on trying to reach a server, in seconds.
    #[arg(long, default_value = "30", value_parser = seconds, value_name = "SECONDS")]
    pub timeout: Duration,
}

/// Which state of a database to read.
#[derive(Clone, Debug, Default, Args)]
pub(crate) struct View {
    /// At this branch or commit id instead of the newest commit.
    #[arg(long, value_name = "REVISION")]
    pub at: Option<String>,
    /// As it was at this transaction id or instant.
    #[arg(long, value_name = "T")]
    pub as_of: Option<String>,
    /// Only what came after this transaction id or instant.
    #[arg(long, value_name = "T")]
    pub since: Option<String>,
    /// Everything asserted or retracted, ever.
    #[arg(long)]
    pub history: bool,
}

/// A database to read.
#[derive(Debug, Args)]
pub(crate) struct Reading {
    #[command(flatten)]
    pub target: Target,
    /// How to print.
    #[arg(long, value_enum)]
    pub format: Option<Format>,
}

/// How results are printed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    /// As EDN.
    Edn,
    /// As JSON; keywords become strings.
    Json,
    /// Rows of comma-separated values.
    Csv,
    /// Aligned columns.
    Table,
}

#[derive(Debug, Args)]
pub(crate) struct Serve {
    /// The folder whose databases are served.
    #[arg(long, value_name = "DIR")]
    pub data: PathBuf,
    /// Where to listen.
    #[arg(long, default_value = "127.0.0.1:4444", value_name = "HOST:PORT")]
    pub listen: SocketAddr,
    /// The token that clients must show.
    #[arg(long, env = "DATAHIKE_TOKEN", hide_env_values = true, value_name = "TOKEN")]
    pub token: Option<String>,
    /// Serve without a token; only on a loopback address.
    #[arg(long)]
    pub dev: bool,
    /// Pages of this origin may call over HTTP from a browser: a regular expression of the whole
    /// origin. May be given several times.
    #[arg(long, value_name = "REGEX", default_values = [r"http://localhost(:\d+)?", r"http://127\.0\.0\.1(:\d+)?"])]
    pub allow_origin: Vec<regex::Regex>,
    /// How long answers over HTTP that cannot change may be kept.
    #[arg(long, value_name = "SECONDS")]
    pub max_age: Option<u64>,
    /// The id of this peer; made up and kept in DIR unless given.
    #[arg(long, value_name = "UUID")]
    pub peer_id: Option<uuid::Uuid>,
}

#[derive(Debug, Args)]
pub(crate) struct Create {
    #[command(flatten)]
    pub target: Target,
    /// The configuration as EDN: {:schema-flexibility :read :keep-history? false …}.
    #[arg(long, value_name = "EDN")]
    pub config: Option<String>,
}

#[derive(Debug, Args)]
pub(crate) struct List {
    /// A folder, or ws://HOST:PORT.
    #[arg(value_name = "DIR|URL")]
    pub at: String,
    #[command(flatten)]
    pub access: Access,
}

#[derive(Debug, Args)]
pub(crate) struct Transact {
    #[command(flatten)]
    pub target: Target,
    /// A file of EDN forms, one transaction each; `-` is standard input.
    #[arg(value_name = "FILE")]
    pub file: String,
    /// Transactions sent before the first of them is acknowledged.
    #[arg(long, default_value = "64", value_parser = clap::value_parser!(u16).range(1..=4096))]
    pub in_flight: u16,
    /// Go on after a transaction was refused.
    #[arg(long)]
    pub keep_going: bool,
}

#[derive(Debug, Args)]
pub(crate) struct Query {
    #[command(flatten)]
    pub target: Target,
    /// The query as EDN; `@FILE` reads it from a file.
    #[arg(value_name = "QUERY")]
    pub query: String,
    /// Values for the query's :in after the database, as EDN.
    #[arg(value_name = "INPUT")]
    pub inputs: Vec<String>,
    #[command(flatten)]
    pub view: View,
    /// Print the plan instead of the result; `analyze` runs the query and adds the rows and times
    /// that it met.
    #[arg(long, value_enum, num_args = 0..=1, require_equals = true, default_missing_value = "plan")]
    pub explain: Option<Explain>,
    /// Refuse attributes that the database does not know.
    #[arg(long)]
    pub strict: bool,
    /// How to print: a table on a terminal, EDN otherwise.
    #[arg(long, value_enum)]
    pub format: Option<Format>,
    /// Begin CSV with a line of column names.
    #[arg(long)]
    pub header: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Explain {
    /// The order of the clauses and why, without running the query.
    Plan,
    /// The same with true rows and times.
    Analyze,
}

#[derive(Debug, Args)]
pub(crate) struct Pull {
    #[command(flatten)]
    pub target: Target,
    /// The pattern as EDN: [* {:person/friend [:person/name]}].
    #[arg(value_name = "PATTERN")]
    pub pattern: String,
    /// The entity: an id, a lookup ref such as [:person/name "Ada"], or an ident.
    #[arg(value_name = "ENTITY", allow_hyphen_values = true)]
    pub entity: String,
    #[command(flatten)]
    pub view: View,
    /// How to print.
    #[arg(long, value_enum)]
    pub format: Option<Format>,
}

#[derive(Debug, Args)]
pub(crate) struct Datoms {
    #[command(flatten)]
    pub target: Target,
    /// eavt, aevt or avet.
    #[arg(value_name = "INDEX")]
    pub index: String,
    /// Leading components as EDN, in the index's order.
    #[arg(value_name = "COMPONENT", allow_hyphen_values = true)]
    pub components: Vec<String>,
    #[command(flatten)]
    pub view: View,
    /// At most this many.
    #[arg(long, value_name = "N")]
    pub limit: Option<usize>,
}

#[derive(Debug, Args)]
pub(crate) struct Import {
    #[command(flatten)]
    pub target: Target,
    /// The file: .csv, .jsonl, .edn (transaction data or an export), each also gzipped.
    #[arg(value_name = "FILE")]
    pub file: PathBuf,
    /// Namespace of the attributes made of column names.
    #[arg(long, value_name = "N")]
    pub namespace: Option<String>,
    /// Sets the type of a column: COL=long, double, string, boolean, keyword, uuid, instant, bigint
    /// or bigdec.
    #[arg(long = "type", value_name = "COL=TYPE", value_parser = column_type)]
    pub types: Vec<(String, ColumnType)>,
    /// A column whose values identify the row (:db.unique/identity): importing again updates.
    #[arg(long, value_name = "COL")]
    pub unique: Vec<String>,
    /// Rows per transaction.
    #[arg(long, default_value = "5000", value_parser = clap::value_parser!(u32).range(1..=100_000))]
    pub batch: u32,
}

#[derive(Debug, Args)]
pub(crate) struct Export {
    #[command(flatten)]
    pub target: Target,
    /// Where to; standard output unless given.
    #[arg(value_name = "FILE")]
    pub file: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub(crate) struct Branch {
    #[command(flatten)]
    pub target: Target,
    /// Its name.
    #[arg(value_name = "BRANCH")]
    pub name: String,
    /// The branch or commit id where it begins; the newest commit unless given.
    #[arg(long, value_name = "REVISION")]
    pub from: Option<String>,
}

#[derive(Debug, Args)]
pub(crate) struct DeleteBranch {
    #[command(flatten)]
    pub target: Target,
    /// Its name.
    #[arg(value_name = "BRANCH")]
    pub name: String,
}

#[derive(Debug, Args)]
pub(crate) struct Merge {
    #[command(flatten)]
    pub target: Target,
    /// The transaction data as EDN: what of the parents is to be in the branch; `@FILE` reads it
    /// from a file.
    #[arg(value_name = "TX-DATA")]
    pub data: String,
    /// The branches and commit ids that are parents besides the newest commit.
    #[arg(value_name = "REVISION", required = true)]
    pub parents: Vec<String>,
}

#[derive(Debug, Args)]
pub(crate) struct History {
    #[command(flatten)]
    pub target: Target,
    /// The branch or commit id to begin with.
    #[arg(long, value_name = "REVISION")]
    pub at: Option<String>,
    /// At most this many.
    #[arg(long, value_name = "N")]
    pub limit: Option<u32>,
}

#[derive(Debug, Args)]
pub(crate) struct Verify {
    #[command(flatten)]
    pub target: Target,
    /// Also make the indexes of every snapshot again from its commits, and check order and counts.
    #[arg(long)]
    pub deep: bool,
}

#[derive(Debug, Args)]
pub(crate) struct Compact {
    #[command(flatten)]
    pub target: Target,
    /// Keep commits younger than this: 90s, 15m, 12h, 7d.
    #[arg(long, value_parser = duration, value_name = "DURATION")]
    pub keep: Option<Duration>,
}

#[derive(Debug, Args)]
pub(crate) struct Mirror {
    #[command(flatten)]
    pub target: Target,
    /// The folder to keep the copy in: afterwards file:FOLDER is a database.
    #[arg(long, value_name = "FOLDER")]
    pub into: PathBuf,
    /// End when the copy is up to date, instead of following.
    #[arg(long)]
    pub once: bool,
}

#[derive(Debug, Args)]
pub(crate) struct Watch {
    #[command(flatten)]
    pub target: Target,
    /// The query as EDN.
    #[arg(value_name = "QUERY")]
    pub query: String,
    /// Values for the query's :in after the database, as EDN.
    #[arg(value_name = "INPUT")]
    pub inputs: Vec<String>,
    /// End after this many changes.
    #[arg(long, value_name = "N")]
    pub changes: Option<usize>,
}

fn seconds(text: &str) -> Result<Duration, String> {
    let seconds: f64 = text.parse().map_err(|_| "give a number of seconds".to_owned())?;
    Duration::try_from_secs_f64(seconds).map_err(|error| error.to_string())
}

fn duration(text: &str) -> Result<Duration, String> {
    const HINT: &str = "give a number and a unit: 90s, 15m, 12h, 7d";
    let unit = text.chars().last().ok_or(HINT)?;
    let factor = match unit {
        's' => 1,
        'm' => 60,
        'h' => 3_600,
        'd' => 86_400,
        _ => return Err(HINT.to_owned()),
    };
    let number: u64 = text[..text.len() - 1].parse().map_err(|_| HINT.to_owned())?;
    Ok(Duration::from_secs(number.checked_mul(factor).ok_or(HINT)?))
}

fn column_type(text: &str) -> Result<(String, ColumnType), String> {
    let (column, name) = text.split_once('=').ok_or("give COL=TYPE, such as code=string")?;
    Ok((
        column.to_owned(),
        name.parse().map_err(|e: crate::import::columns::UnknownType| e.to_string())?,
    ))
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn durations_need_a_unit() {
        assert_eq!(duration("7d"), Ok(Duration::from_secs(604_800)));
        assert!(duration("7").is_err());
        assert!(duration("").is_err());
        assert!(duration("7é").is_err());
    }
}
