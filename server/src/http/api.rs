//! The operations that are served over HTTP: names, arguments and meaning are Datahike's, declared
//! once.

mod database;
mod read;
mod write;

use datahike::Value;
use datahike::ops::Bounds;
use datahike::peer::BoxFuture;

use super::failure::{Problem, wrong};
use super::handle::Handles;

/// One operation.
#[derive(Clone, Copy)]
pub(super) struct Route {
    /// Under which it is called: `/name`.
    pub(super) name: &'static str,
    /// What it does, in a sentence.
    pub(super) doc: &'static str,
    /// What it takes, in this order.
    pub(super) arguments: &'static [Argument],
    /// Whether the same arguments always give the same answer.
    pub(super) pure: bool,
    run: for<'a> fn(&'a Handles, Arguments) -> Answer<'a>,
}

/// One argument of an operation.
#[derive(Clone, Copy)]
pub(super) struct Argument {
    pub(super) name: &'static str,
    pub(super) doc: &'static str,
    pub(super) need: Need,
}

/// How often an argument is given.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Need {
    Once,
    Maybe,
    Any,
}

type Answer<'a> = BoxFuture<'a, Result<Value, Problem>>;

/// What a request gives to an operation.
pub(super) struct Arguments {
    values: Vec<Value>,
    /// Whether strings may stand for keywords.
    pub(super) loose: bool,
    pub(super) bounds: Bounds,
}

impl Arguments {
    /// Of a body: a list of arguments. In formats where EDN would be a string, a string at its front
    /// is EDN.
    pub(super) fn of(body: Value, loose: bool, edn_first: bool) -> Result<Self, Problem> {
        let mut values = match body {
            Value::Nil => Vec::new(),
            Value::Vector(items) | Value::List(items) => items.to_vec(),
            other => {
                return Err(wrong(format!("the body is a list of arguments, not {other}"))
                    .hint("put them into [ and ]"));
            }
        };
        if edn_first && let Some(Value::Str(text)) = values.first() {
            values[0] = datahike::edn::read(text)
                .map_err(|error| wrong(format!("the first argument: {error}")))?;
        }
        Ok(Self { values, loose, bounds: Bounds::SERVED })
    }

    fn check(&self, route: &Route) -> Result<(), Problem> {
        let least = route.arguments.iter().filter(|a| a.need == Need::Once).count();
        let any = route.arguments.iter().any(|a| a.need == Need::Any);
        let given = self.values.len();
        if given >= least && (any || given <= route.arguments.len()) {
            return Ok(());
        }
        let names: Vec<_> = route.arguments.iter().map(|a| a.name).collect();
        Err(wrong(format!("{} takes [{}], {given} are given", route.name, names.join(" "))))
    }

    fn get(&self, place: usize) -> Option<&Value> {
        self.values.get(place).filter(|value| !value.is_nil())
    }

    fn at(&self, place: usize) -> Result<&Value, Problem> {
        self.get(place).ok_or_else(|| wrong(format!("argument {} is missing", place + 1)))
    }

    fn from(&self, place: usize) -> &[Value] {
        self.values.get(place..).unwrap_or_default()
    }
}

impl Route {
    /// Carries it out.
    pub(super) async fn call(
        &self,
        handles: &Handles,
        arguments: Arguments,
    ) -> Result<Value, Problem> {
        arguments.check(self)?;
        (self.run)(handles, arguments).await
    }
}

/// The operation of this name.
pub(super) fn route(name: &str) -> Option<&'static Route> {
    ROUTES.iter().find(|route| route.name == name)
}

const fn once(name: &'static str, doc: &'static str) -> Argument {
    Argument { name, doc, need: Need::Once }
}

const fn maybe(name: &'static str, doc: &'static str) -> Argument {
    Argument { name, doc, need: Need::Maybe }
}

const fn any(name: &'static str, doc: &'static str) -> Argument {
    Argument { name, doc, need: Need::Any }
}

const CONFIG: Argument =
    maybe("config", "configuration map, or EDN text of one; without a store, a new one is made");
const CONN: Argument = once("connection", "connection, or the name of a database");
const DB: Argument = once("db", "database value, or a name for the newest value of a database");
const TX: Argument = once("tx-data", "vector of maps and operations, or {:tx-data … :tx-meta …}");
const POINT: Argument = once("time-point", "transaction id or instant");
const INDEX: Argument = once("index", ":eavt, :aevt or :avet, or {:index … :components […]}");
const COMPONENTS: Argument = any("components", "leading components in the order of the index");

macro_rules! routes {
    ($($purity:ident $name:literal $run:path, [$($argument:expr),*], $doc:literal;)*) => {
        /// All operations, by name.
        pub(super) const ROUTES: &[Route] = &[$(Route {
            name: $name,
            doc: $doc,
            arguments: &[$($argument),*],
            pure: routes!(@$purity),
            run: |handles, arguments| Box::pin(async move { $run(handles, &arguments).await }),
        }),*];
    };
    (@pure) => { true };
    (@acts) => { false };
}

routes! {
    pure "as-of" read::as_of, [DB, POINT], "The database value as it was at a time, inclusive.";
    acts "branch" write::branch,
        [CONN, once("from", "branch or commit"), once("new-branch", "its name, a keyword")],
        "Makes a branch that begins where another one or a commit is.";
    acts "branch-as-db" database::branch_as_db, [CONN, once("branch", "its name, a keyword")],
        "The newest database value of a branch.";
    acts "branches" database::branches, [CONN], "The names of all branches.";
    acts "commit-as-db" database::commit_as_db, [CONN, once("commit-id", "uuid")],
        "The database value of a commit.";
    pure "commit-id" read::commit_id, [DB], "The id of the commit that a database value is of.";
    acts "connect" database::connect, [CONFIG, maybe("options", "map")],
        "A connection to a database that exists.";
    acts "create-database" database::create, [CONFIG],
        "Creates a database and returns its configuration.";
    acts "create-database-writer" database::create, [CONFIG],
        "The same, for peers whose writer is this server.";
    acts "database-exists" database::exists, [CONFIG], "Whether there is such a database.";
    pure "datoms" read::datoms, [DB, INDEX, COMPONENTS], "Datoms of an index, in its order.";
    acts "db" database::db, [CONN], "The newest database value.";
    acts "delete-branch" write::delete_branch, [CONN, once("branch", "its name, a keyword")],
        "Removes a branch.";
    acts "delete-database" database::delete, [CONFIG], "Deletes a database and all that is stored.";
    acts "delete-database-writer" database::delete, [CONFIG],
        "The same, for peers whose writer is this server.";
    pure "entity" read::entity, [DB, once("entity", "id, lookup ref or ident")],
        "An entity with its attributes.";
    pure "entity-db" read::entity_db, [once("entity", "entity")], "The database an entity is of.";
    acts "gc-storage" write::gc_storage,
        [CONN, maybe("remove-before", "instant"), maybe("options", "map")],
        "Gives back what no branch and no younger commit needs.";
    pure "history" read::history, [DB], "Everything asserted or retracted, ever.";
    pure "index-range" read::index_range,
        [DB, once("range", "{:attrid … :start … :end …}")],
        "Datoms of an indexed attribute between two values, inclusive.";
    acts "merge-db" write::merge,
        [CONN, once("parents", "set of branches and commits"), TX, maybe("tx-meta", "map")],
        "Carries out a transaction whose commit has these parents too.";
    pure "metrics" read::metrics, [DB], "Counts of datoms by attribute and entity.";
    pure "parent-commit-ids" read::parent_commit_ids, [DB], "The parents of a value's commit.";
    pure "pull" read::pull,
        [DB, once("pattern", "pull pattern, or {:selector … :eid …}"), maybe("entity", "id, lookup ref or ident")],
        "An entity and what hangs on it as a map.";
    pure "pull-many" read::pull_many,
        [DB, once("pattern", "pull pattern"), once("entities", "ids, lookup refs or idents")],
        "The same for several entities.";
    pure "q" read::query, [once("query", "query, or {:query … :args […]}"), any("inputs", "databases and values")],
        "Runs a Datalog query.";
    pure "query-stats" read::query_stats,
        [once("query", "query, or {:query … :args […]}"), any("inputs", "databases and values")],
        "Runs a Datalog query and tells how.";
    acts "release" database::release, [CONN, maybe("all", "true or false")],
        "Gives up a connection. The server keeps the database open for others.";
    pure "reverse-schema" read::reverse_schema, [DB], "Attributes by their properties.";
    pure "rseek-datoms" read::rseek_datoms, [DB, INDEX, COMPONENTS],
        "Datoms of an index from a place backwards.";
    pure "schema" read::schema, [DB], "Every attribute that was declared.";
    pure "seek-datoms" read::seek_datoms, [DB, INDEX, COMPONENTS],
        "Datoms of an index from a place on.";
    pure "since" read::since, [DB, POINT], "The datoms that came after a time.";
    acts "transact" write::transact, [CONN, TX], "Carries out a transaction.";
    acts "transact!-writer" write::transact, [CONFIG, TX],
        "The same, for peers whose writer is this server.";
}
