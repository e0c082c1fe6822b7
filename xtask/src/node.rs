//! What the benchmarks and tests run in Node: pinned by a lock file, installed into the target folder.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

/// The variable that tells a benchmark or test where the packages are.
pub(crate) const MODULES: &str = "DATAHIKE_NODE_MODULES";

/// Signs in the words of npm that the registry was out of reach.
const OFFLINE: [&str; 6] =
    ["ENOTFOUND", "EAI_AGAIN", "ECONNREFUSED", "ECONNRESET", "ETIMEDOUT", "ENETUNREACH"];

/// What came of an installation.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Installed {
    /// The packages are in this folder.
    In(PathBuf),
    /// This machine cannot have them, and why.
    Unavailable(String),
}

/// What to install: where it is listed, and under which name in the target folder.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Packages {
    list: &'static str,
    name: &'static str,
}

/// What the benchmarks and tests compare with.
pub(crate) const PEERS: Packages = Packages { list: "benches/js", name: "node" };

/// What making and testing the package for browsers takes.
pub(crate) const WEB: Packages = Packages { list: "web", name: "node-web" };

/// Installs packages unless they are there already.
///
/// # Errors
/// If npm fails for any other reason than that there is no Node or no network.
pub(crate) fn install(root: &Path, packages: Packages) -> Result<Installed> {
    if Command::new("node").arg("--version").output().is_err() {
        return Ok(Installed::Unavailable("there is no node".into()));
    }
    let folder = target(root).join(packages.name);
    let modules = folder.join("node_modules");
    let list = root.join(packages.list);
    let lock = std::fs::read(list.join("package-lock.json"))?;
    let is_current = std::fs::read(folder.join("package-lock.json")).is_ok_and(|old| old == lock);
    if is_current && modules.join(".package-lock.json").is_file() {
        return Ok(Installed::In(modules));
    }
    std::fs::create_dir_all(&folder)
        .with_context(|| format!("cannot create {}", folder.display()))?;
    for name in ["package.json", "package-lock.json"] {
        std::fs::copy(list.join(name), folder.join(name))?;
    }
    let output = Command::new("npm")
        .args(["ci", "--no-audit", "--no-fund", "--ignore-scripts", "--prefer-offline"])
        .current_dir(&folder)
        .output();
    let Ok(output) = output else {
        return Ok(Installed::Unavailable("there is no npm".into()));
    };
    if output.status.success() {
        return Ok(Installed::In(modules));
    }
    let said = String::from_utf8_lossy(&output.stderr);
    match OFFLINE.iter().find(|sign| said.contains(**sign)) {
        Some(sign) => Ok(Installed::Unavailable(format!("npm has no network ({sign})"))),
        None => bail!("npm ci in {}: {}\n{said}", folder.display(), output.status),
    }
}

/// Cargo's target folder.
pub(crate) fn target(root: &Path) -> PathBuf {
    std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| root.join("target"), |dir| root.join(dir))
}
