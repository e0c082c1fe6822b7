//! What the commands do.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};

use crate::node::{self, Installed};
use crate::step::Run;
use crate::web;

/// The crates that a browser runs.
const WASM_CRATES: [&str; 8] = [
    "datahike-value",
    "datahike-core",
    "datahike-store",
    "datahike-peer",
    "datahike-scope",
    "datahike-sync",
    "datahike",
    "datahike-web",
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

/// How a strict application would check its use of the package's types.
const TYPES: [&str; 11] = [
    "--noEmit",
    "--strict",
    "--target",
    "es2022",
    "--module",
    "nodenext",
    "--moduleResolution",
    "nodenext",
    "--lib",
    "es2022,dom",
    "web/tests/types.ts",
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
    match node::install(&root()?, node::PEERS) {
        Ok(Installed::In(modules)) => drop(command.env(node::MODULES, modules)),
        Ok(Installed::Unavailable(why)) => run.skip("differential test against DataScript", &why),
        Err(error) => run.step("packages for Node", || Err(format!("{error:#}"))),
    }
    run.command(if long { "tests (long)" } else { "tests" }, &mut command);
    run.command("documentation tests", cargo()?.args(["test", "--quiet", "--workspace", "--doc"]));
    let exports = wasm_steps(&mut run)?;
    if let Some(modules) = web_steps(&mut run, exports)? {
        // The tests above built it.
        let server = node::target(&root()?).join("debug/datahike");
        let mut command = Command::new("node");
        command.arg(modules.join("typescript/bin/tsc")).args(TYPES).current_dir(root()?);
        run.command("types of the package", &mut command);
        let mut command = Command::new("node");
        command.args(["--test", "web/tests/package.test.mjs"]).current_dir(root()?);
        command.env("DATAHIKE_SERVER", &server).env("NODE_PATH", &modules);
        run.command("package in Node", &mut command);
        match web::browser() {
            Some(browser) => {
                let mut command = Command::new("node");
                command.args(["--test", "web/tests/browser.test.mjs"]).current_dir(root()?);
                command.env("DATAHIKE_SERVER", &server).env("NODE_PATH", &modules);
                run.command("package in a browser", command.env("DATAHIKE_CHROMIUM", browser));
            }
            None => {
                run.skip("package in a browser", "there is no chromium (apt-get install chromium)")
            }
        }
    }
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
        match node::install(&root()?, node::PEERS)? {
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

pub(crate) fn web() -> Result<bool> {
    let mut run = Run::default();
    let exports = wasm_toolchain(&mut run);
    web_steps(&mut run, exports)?;
    Ok(run.finish())
}

/// Makes the package, and says where the modules are that its tests need, if it could be made.
fn web_steps(run: &mut Run, exports: Vec<(String, String)>) -> Result<Option<PathBuf>> {
    let root = root()?;
    let modules = match node::install(&root, node::WEB) {
        Ok(Installed::In(modules)) => modules,
        Ok(Installed::Unavailable(why)) => {
            run.skip("package for browsers and Node", &why);
            return Ok(None);
        }
        Err(error) => {
            run.step("packages for Node", || Err(format!("{error:#}")));
            return Ok(None);
        }
    };
    let own = exports.iter().find(|(name, _)| name == "CARGO_TARGET_DIR");
    let compiled = own.map_or_else(|| node::target(&root), |(_, folder)| root.join(folder));
    let module = compiled.join("wasm32-unknown-unknown/web/datahike_web.wasm");
    let mut command = cargo()?;
    command
        .args(["build", "--quiet", "--profile", "web", "--target", "wasm32-unknown-unknown"])
        .args(["--package", "datahike-web"])
        .envs(exports);
    run.command("engine", &mut command);
    let out = web::folder(&root);
    let mut made = false;
    run.step("package for browsers and Node", || {
        let make = || {
            std::fs::create_dir_all(&out)?;
            web::bind(&module, &out)?;
            let wasm = out.join("engine_bg.wasm");
            web::optimise(&modules, &wasm)?;
            web::lay_out(&root, &out)?;
            let (raw, brotli) = web::sizes(&wasm)?;
            println!("web/dist: engine of {raw} bytes, {brotli} with brotli");
            anyhow::Ok(())
        };
        make().map_err(|error| format!("{error:#}"))?;
        made = true;
        Ok(())
    });
    Ok(made.then_some(modules))
}

/// What has to be set for a compiler that knows wasm32.
fn wasm_toolchain(run: &mut Run) -> Vec<(String, String)> {
    let mut exports = Vec::new();
    run.step("wasm32 toolchain", || {
        exports = wasm_environment().map_err(|error| format!("{error:#}"))?;
        Ok(())
    });
    exports
}

fn wasm_steps(run: &mut Run) -> Result<Vec<(String, String)>> {
    let exports = wasm_toolchain(run);
    let mut command = cargo()?;
    command.args(["check", "--quiet", "--target", "wasm32-unknown-unknown"]).envs(exports.clone());
    for name in WASM_CRATES {
        command.args(["--package", name]);
    }
    run.command("wasm32 build", &mut command);
    Ok(exports)
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
