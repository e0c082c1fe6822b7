//! DataScript from npm, in one Node process that lives as long as the suite, so that it is warm.

use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use anyhow::Context;
use serde::Deserialize;
use serde_json::{Value, json};

const PROGRAM: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/js/datascript.js");

/// The process.
#[derive(Debug)]
pub struct DataScript {
    child: Child,
    orders: ChildStdin,
    answers: BufReader<ChildStdout>,
}

/// What a turn came to.
#[derive(Clone, Copy, Debug, Deserialize)]
pub struct Turn {
    /// Milliseconds of the median run.
    pub ms: f64,
    /// Rows, attributes or datoms.
    pub found: usize,
}

impl DataScript {
    /// Starts Node and has it load `data`.
    ///
    /// # Errors
    /// If there is no Node, or no DataScript in `modules`.
    pub fn start(modules: &Path, data: &Path) -> anyhow::Result<Self> {
        let mut child = Command::new("node")
            .arg(PROGRAM)
            .env("NODE_PATH", modules)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .context("cannot start node")?;
        let orders = child.stdin.take().context("node has no stdin")?;
        let answers = BufReader::new(child.stdout.take().context("node has no stdout")?);
        let mut peer = Self { child, orders, answers };
        peer.ask(&json!({ "load": data }))?;
        Ok(peer)
    }

    /// Runs a workload again and again for `ms` milliseconds, at least once.
    ///
    /// # Errors
    /// If Node fails.
    pub fn turn(&mut self, id: &str, ms: u64) -> anyhow::Result<Turn> {
        Ok(serde_json::from_value(self.ask(&json!({ "run": id, "ms": ms }))?)?)
    }

    fn ask(&mut self, order: &Value) -> anyhow::Result<Value> {
        writeln!(self.orders, "{order}")?;
        let mut line = String::new();
        self.answers.read_line(&mut line)?;
        serde_json::from_str(&line).with_context(|| format!("node did not answer {order}"))
    }
}

impl Drop for DataScript {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Where `cargo xtask bench query` installs DataScript.
///
/// # Errors
/// If it was not installed.
pub fn modules() -> anyhow::Result<PathBuf> {
    let modules = std::env::var_os("DATAHIKE_NODE_MODULES").map(PathBuf::from).context(
        "DATAHIKE_NODE_MODULES does not name a folder with DataScript; run `cargo xtask bench query`",
    )?;
    anyhow::ensure!(
        modules.join("datascript").is_dir(),
        "there is no DataScript in {}",
        modules.display()
    );
    Ok(modules)
}
