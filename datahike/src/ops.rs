//! What can be done with a database from outside, declared once: the command line and remote
//! invocations run these operations, and whatever else serves databases can.
//!
//! Arguments are a map of keywords; the result is a value. [`OPERATIONS`] is the table.

mod arguments;
mod branches;
mod coerce;
mod read;
mod write;

use std::time::Duration;

use datahike_core::budget::Budget;
use datahike_peer::{BoxFuture, MaybeSend, MaybeSync};
use datahike_value::Value;

pub use self::arguments::Arguments;
pub use self::coerce::coerce_tx_data;
pub use self::read::{at_point, stats};
use crate::config::Config;
use crate::connection::Connection;
use crate::error::Error;
use crate::worker::now_ms;

/// One operation.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct Operation {
    /// By which it is called.
    pub name: &'static str,
    /// What it does, in a sentence.
    pub doc: &'static str,
    /// What it takes.
    pub arguments: &'static [Argument],
    /// Whether it leaves everything as it was, so that it may be run again.
    pub pure: bool,
    run: Run,
}

/// One argument of an operation.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct Argument {
    /// Its key, without the colon.
    pub name: &'static str,
    /// Whether the operation cannot do without it.
    pub required: bool,
    /// What it means.
    pub doc: &'static str,
}

#[derive(Clone, Copy, Debug)]
enum Run {
    /// On the host of databases.
    Host(for<'a> fn(&'a dyn Host, Arguments<'a>) -> BoxFuture<'a, Result<Value, Error>>),
    /// On one database.
    Database(
        for<'a> fn(&'a Connection, Arguments<'a>, Bounds) -> BoxFuture<'a, Result<Value, Error>>,
    ),
}

/// Where an operation finds its database.
pub trait Host: MaybeSend + MaybeSync {
    /// The connection to the database of this name or store id.
    fn database<'a>(&'a self, name: &'a str) -> BoxFuture<'a, Result<Connection, Error>>;

    /// Creates a database.
    fn create<'a>(
        &'a self,
        name: &'a str,
        config: &'a Config,
    ) -> BoxFuture<'a, Result<Connection, Error>>;

    /// Deletes a database.
    fn delete<'a>(&'a self, name: &'a str) -> BoxFuture<'a, Result<(), Error>>;

    /// Names of the databases, with their store ids where they are open.
    fn list(&self) -> BoxFuture<'_, Result<Vec<Value>, Error>>;
}

/// What one call may spend.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bounds {
    /// Time to evaluate.
    pub time: Option<Duration>,
    /// Rows or datoms in the result, and in any relation on the way.
    pub rows: usize,
    /// Bytes of memory that the evaluation may take.
    pub bytes: usize,
}

impl Bounds {
    /// What a server grants: 5 s, a million rows, 1 GiB.
    pub const SERVED: Self =
        Self { time: Some(Duration::from_secs(5)), rows: 1_000_000, bytes: 1 << 30 };

    /// What one's own process may take.
    pub const OWN: Self = Self { time: None, rows: usize::MAX, bytes: usize::MAX };

    /// As what an evaluation may spend from now on.
    pub fn budget(self) -> Budget {
        let mut budget = Budget { rows_max: self.rows, bytes_max: self.bytes, ..Budget::default() };
        if let Some(time) = self.time {
            let time = i64::try_from(time.as_millis()).unwrap_or(i64::MAX);
            let end = now_ms().saturating_add(time);
            budget.deadline = Some(std::sync::Arc::new(move || now_ms() > end));
        }
        budget
    }
}

const fn required(name: &'static str, doc: &'static str) -> Argument {
    Argument { name, required: true, doc }
}

const fn optional(name: &'static str, doc: &'static str) -> Argument {
    Argument { name, required: false, doc }
}

const DB: Argument = required("db", "name of the database, or its store id");
const AS_OF: Argument =
    optional("as-of", "transaction id or instant: the state at that time, inclusive");
const SINCE: Argument = optional("since", "transaction id or instant: only what came after it");
const HISTORY: Argument = optional("history", "true: everything asserted or retracted, ever");
const AT: Argument = optional("at", "branch or commit id: its state instead of the newest");
const CLIENT: Argument =
    optional("client", "uuid of who asks; with :request, the transaction happens once");
const REQUEST: Argument = optional("request", "the client's number for it, counted up from 1");
const IN_SEQUENCE: Argument =
    optional("in-sequence", "true: refuse it once an earlier request of the client was");
const TX_DATA: Argument = required("tx-data", "a vector of maps and operations");
const TX_META: Argument = optional("tx-meta", "attributes of the transaction itself, a map");

/// All operations, by name.
pub const OPERATIONS: &[Operation] = &[
    Operation {
        name: "await",
        doc: "The latest transaction, as soon as it is later than the given one. Waits as long as the \
              caller does.",
        arguments: &[DB, required("after", "transaction id")],
        pure: true,
        run: Run::Database(read::wait),
    },
    Operation {
        name: "branch",
        doc: "Makes a branch that begins where another one or a commit is: {:commit … :seq n}.",
        arguments: &[
            DB,
            required("name", "its name"),
            optional("from", "branch or commit id; the branch of the database unless told"),
        ],
        pure: false,
        run: Run::Database(branches::branch),
    },
    Operation {
        name: "branches",
        doc: "The names of the branches, a set of keywords.",
        arguments: &[DB],
        pure: true,
        run: Run::Database(branches::branches),
    },
    Operation {
        name: "create",
        doc: "Creates a database and returns its store id.",
        arguments: &[
            required("name", "its name"),
            optional("config", "configuration map; its :store is the server's affair"),
        ],
        pure: false,
        run: Run::Host(write::create),
    },
    Operation {
        name: "datoms",
        doc: "Datoms of an index, in its order, as vectors [e a v tx added].",
        arguments: &[
            DB,
            required("index", ":eavt, :aevt or :avet"),
            optional("components", "leading components in the order of the index"),
            AT,
            AS_OF,
            SINCE,
            HISTORY,
            optional("offset", "so many datoms are left out"),
            optional("limit", "at most so many; 10,000 unless told"),
        ],
        pure: true,
        run: Run::Database(read::datoms),
    },
    Operation {
        name: "delete",
        doc: "Deletes a database and all that is stored of it.",
        arguments: &[required("name", "its name, or its store id")],
        pure: false,
        run: Run::Host(write::delete),
    },
    Operation {
        name: "delete-branch",
        doc: "Removes a branch. What only it reaches goes with the next compaction.",
        arguments: &[DB, required("name", "its name")],
        pure: false,
        run: Run::Database(branches::delete),
    },
    Operation {
        name: "export",
        doc: "Everything asserted or retracted, ever, in the order of entities, page by page: \
              {:datoms [[e a v tx added] …] :next e :basis tx}.",
        arguments: &[
            DB,
            optional("from", "entity to begin with: the :next of the page before"),
            optional("basis", "the :basis of the first page: later transactions are left out"),
        ],
        pure: true,
        run: Run::Database(read::export),
    },
    Operation {
        name: "history",
        doc: "The commits that lead to a branch or commit, newest first: [{:commit … :seq n \
              :parents […] :transactions […] :instant …} …].",
        arguments: &[
            DB,
            optional("at", "branch or commit id; the branch of the database unless told"),
            optional("limit", "at most so many; 100 unless told"),
        ],
        pure: true,
        run: Run::Database(branches::history),
    },
    Operation {
        name: "index-range",
        doc: "Datoms of an indexed attribute by value, from :start to :end, both included.",
        arguments: &[
            DB,
            required("attrid", "the attribute"),
            optional("start", "the least value"),
            optional("end", "the greatest value"),
            AT,
            AS_OF,
            SINCE,
            HISTORY,
            optional("limit", "at most so many; 10,000 unless told"),
        ],
        pure: true,
        run: Run::Database(read::index_range),
    },
    Operation {
        name: "list",
        doc: "The databases that are served: [{:name … :id …} …].",
        arguments: &[],
        pure: true,
        run: Run::Host(write::list),
    },
    Operation {
        name: "merge",
        doc: "Carries out a transaction whose commit has these parents besides the newest; returns \
              what transact does. What of them is to be here, the transaction says.",
        arguments: &[
            DB,
            required("parents", "a vector of branches and commit ids"),
            TX_DATA,
            TX_META,
            CLIENT,
            REQUEST,
        ],
        pure: false,
        run: Run::Database(write::merge),
    },
    Operation {
        name: "metrics",
        doc: "Counts of datoms, in all and by attribute.",
        arguments: &[DB, AT, AS_OF, SINCE, HISTORY, optional("entities", "true: by entity too")],
        pure: true,
        run: Run::Database(read::metrics),
    },
    Operation {
        name: "pull",
        doc: "An entity and what hangs on it as a map, in the shape of a pattern.",
        arguments: &[
            DB,
            required("pattern", "pull pattern"),
            required("entity", "id, lookup ref or ident"),
            AT,
            AS_OF,
            SINCE,
            HISTORY,
        ],
        pure: true,
        run: Run::Database(read::pull),
    },
    Operation {
        name: "q",
        doc: "Runs a Datalog query over the database, which is its first input.",
        arguments: &[
            DB,
            required("query", "the query"),
            optional("inputs", "its other inputs, a vector"),
            AT,
            AS_OF,
            SINCE,
            HISTORY,
            optional(
                "explain",
                "instead of the result: true: the plan as text, without running it; :analyze: the \
                 plan with the rows and times that it met; :stats: {:ret result :stats {…}}",
            ),
            optional("strict", "true: an attribute that the database does not know is an error"),
        ],
        pure: true,
        run: Run::Database(read::query),
    },
    Operation {
        name: "reverse-schema",
        doc: "From properties to the attributes that have them.",
        arguments: &[DB, AT],
        pure: true,
        run: Run::Database(read::reverse_schema),
    },
    Operation {
        name: "schema",
        doc: "Every attribute that was declared, with its definition.",
        arguments: &[DB, AT],
        pure: true,
        run: Run::Database(read::schema),
    },
    Operation {
        name: "stats",
        doc: "Sizes and counts: datoms, blocks, bytes, depth, tail, commits.",
        arguments: &[DB],
        pure: true,
        run: Run::Database(read::statistics),
    },
    Operation {
        name: "transact",
        doc: "Carries out a transaction and returns {:tx … :tx-instant … :tempids {…} :datoms n}.",
        arguments: &[DB, TX_DATA, TX_META, CLIENT, REQUEST, IN_SEQUENCE],
        pure: false,
        run: Run::Database(write::transact),
    },
    Operation {
        name: "verify",
        doc: "Recomputes the address of every block and the id of every commit that is there, back \
              to the first, and says for each branch how far that is.",
        arguments: &[
            DB,
            optional(
                "deep",
                "true: makes the indexes of every snapshot again and checks those of the newest",
            ),
        ],
        pure: true,
        run: Run::Database(branches::check),
    },
];

/// The operation of this name.
pub fn operation(name: &str) -> Option<&'static Operation> {
    OPERATIONS.iter().find(|operation| operation.name == name)
}

impl Operation {
    /// Whether it concerns one database, the one that `:db` names.
    pub fn needs_database(&self) -> bool {
        matches!(self.run, Run::Database(_))
    }

    /// Carries it out at a host.
    ///
    /// # Errors
    /// [`Error::Arguments`] if they are not those it takes; what it fails with.
    pub async fn call(
        &self,
        host: &dyn Host,
        arguments: &Value,
        bounds: Bounds,
    ) -> Result<Value, Error> {
        let arguments = Arguments::check(self, arguments)?;
        match self.run {
            Run::Host(run) => run(host, arguments).await,
            Run::Database(run) => {
                let connection = host.database(arguments.text("db")?).await?;
                run(&connection, arguments, bounds).await
            }
        }
    }

    /// Carries it out on a database that is open already; `:db` may be left out.
    ///
    /// # Errors
    /// As [`Operation::call`]; [`Error::Arguments`] if the operation concerns no single database.
    pub async fn call_on(
        &self,
        connection: &Connection,
        arguments: &Value,
        bounds: Bounds,
    ) -> Result<Value, Error> {
        let arguments = Arguments::check(self, arguments)?;
        match self.run {
            Run::Database(run) => run(connection, arguments, bounds).await,
            Run::Host(_) => Err(arguments.wrong("it concerns no single database")),
        }
    }
}
