//! What the commands do.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};

use crate::node::{self, Installed};
use crate::step::Run;

/// The crates that a browser runs.
const WASM_CRATES: [&str; 7] = [
    "datahike-value",
    "datahike-core",
    "datahike-store",
    "datahike-peer",
    "datahike-scope",
    "datahike-sync",
    "datahike",
];

/// What makes a run long: seeds and cases where a test has a default of its own.
const LONG: [(&str, &str); 9] = [
    ("DATAHIKE_TEST_LONG", "1"),
    ("SIM_SEEDS", "20000"),
    ("STORE_SEEDS", "2000"),
    ("INDEX_CASES", "5000"),
    ("COMMIT_CASES", "5000"),
    ("TRANSACTOR_CASES", "5000"),
    ("QUERY_CASES", "2000"),
    ("VALUE_CASES", "50000"),
    ("PROPTEST_CASES", "5000"),
];

pub(crate) fn check() -> Result<bool> {
    let mut run = Run::default();
    run.command("format", cargo()?.args(["fmt", "--all", "--check"]));
    run.command(
        "lints",
        cargo()?.args(["clippy", "--workspace", "--all-targets", "--", "-D", "warnings"]),
    );
    run.command(
        "documentation",
        cargo()?
            .args(["doc", "--workspace", "--no-deps", "--quiet"])
            .env("RUSTDOCFLAGS", "-D warnings"),
    );
    if has_cargo_command("deny") {
        run.command(
            "dependency rules",
            cargo()?.args(["deny", "check", "bans", "licenses", "sources"]),
        );
    } else {
        run.skip(
            "dependency rules",
            "cargo-deny is not installed (cargo install cargo-deny --locked); \
             the tests still check the list of banned crates",
        );
    }
    wasm_steps(&mut run)?;
    Ok(run.finish())
}

pub(crate) fn test(long: bool) -> Result<bool> {
    let mut run = Run::default();
    let tests = if has_cargo_command("nextest") { ["nextest", "run"] } else { ["test", "--quiet"] };
    let mut command = cargo()?;
    command.args(tests).args(["--workspace", "--lib", "--bins", "--tests", "--examples"]);
    if tests[0] == "test" {
        // One red test must not hide the other crates'.
        command.arg("--no-fail-fast");
    } else {
        command.args(["--no-fail-fast", "--status-level", "fail"]);
    }
    if long {
        command.envs(LONG);
    }
    match node::install(&root()?) {
        Ok(Installed::In(modules)) => drop(command.env(node::MODULES, modules)),
        Ok(Installed::Unavailable(why)) => run.skip("differential test against DataScript", &why),
        Err(error) => run.step("packages for Node", || Err(format!("{error:#}"))),
    }
    run.command(if long { "tests (long)" } else { "tests" }, &mut command);
    run.command("documentation tests", cargo()?.args(["test", "--quiet", "--workspace", "--doc"]));
    wasm_steps(&mut run)?;
    Ok(run.finish())
}

pub(crate) fn bench(suite: &str, json: Option<&Path>) -> Result<bool> {
    let mut command = cargo()?;
    command.args(["run", "--release", "--package", "datahike-benches", "--", suite]);
    if let Some(file) = json {
        // The command runs at the root; the path was meant from here.
        let file = std::path::absolute(file).context("cannot name the results file")?;
        command.arg("--json").arg(file);
    }
    if suite == "query" {
        match node::install(&root()?)? {
            Installed::In(modules) => drop(command.env(node::MODULES, modules)),
            Installed::Unavailable(why) => bail!("DataScript cannot be compared with: {why}"),
        }
    }
    let status = command.status().context("cannot start cargo")?;
    Ok(status.success())
}

pub(crate) fn wasm() -> Result<bool> {
    let mut run = Run::default();
    wasm_steps(&mut run)?;
    Ok(run.finish())
}

fn wasm_steps(run: &mut Run) -> Result<()> {
    let mut exports = Vec::new();
    run.step("wasm32 toolchain", || {
        exports = wasm_environment().map_err(|error| format!("{error:#}"))?;
        Ok(())
    });
    let mut command = cargo()?;
    command.args(["check", "--quiet", "--target", "wasm32-unknown-unknown"]).envs(exports);
    for name in WASM_CRATES {
        command.args(["--package", name]);
    }
    run.command("wasm32 build", &mut command);
    Ok(())
}

/// What has to be set for a compiler that knows wasm32, after making sure that
/// there is one.
fn wasm_environment() -> Result<Vec<(String, String)>> {
    let output = Command::new("bash")
        .arg(root()?.join("scripts/wasm-toolchain.sh"))
        .current_dir(root()?)
        .stderr(Stdio::inherit())
        .output()
        .context("cannot start bash for scripts/wasm-toolchain.sh")?;
    if !output.status.success() {
        bail!("scripts/wasm-toolchain.sh: {}", output.status);
    }
    parse_exports(std::str::from_utf8(&output.stdout).context("the script's output is not text")?)
}

/// Reads lines of the form `export NAME='value'`.
fn parse_exports(text: &str) -> Result<Vec<(String, String)>> {
    text.lines()
        .map(|line| {
            line.strip_prefix("export ")
                .and_then(|rest| rest.split_once("='"))
                .and_then(|(name, value)| Some((name, value.strip_suffix('\'')?)))
                .map(|(name, value)| (name.to_owned(), value.to_owned()))
                .with_context(|| format!("not an export: {line:?}"))
        })
        .collect()
}

fn has_cargo_command(name: &str) -> bool {
    Command::new(cargo_program())
        .args([name, "--version"])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .is_ok_and(|status| status.success())
}

fn cargo() -> Result<Command> {
    let mut command = Command::new(cargo_program());
    command.current_dir(root()?);
    Ok(command)
}

fn cargo_program() -> OsString {
    std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into())
}

fn root() -> Result<PathBuf> {
    let own = Path::new(env!("CARGO_MANIFEST_DIR"));
    Ok(own.parent().context("xtask lies in no workspace")?.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exports_are_read_and_anything_else_is_refused() {
        let read = parse_exports("export RUSTC='/a b/rustc'\nexport X=''\n").unwrap();
        assert_eq!(read, [("RUSTC".into(), "/a b/rustc".into()), ("X".into(), String::new())]);
        assert!(parse_exports("RUSTC=/a").is_err());
        assert!(parse_exports("export RUSTC='/a").is_err());
        assert!(parse_exports("").unwrap().is_empty());
    }
}
