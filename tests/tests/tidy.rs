//! The rules of the code base that a compiler does not check.

#![expect(clippy::unwrap_used, reason = "a test that cannot set up what it needs has failed")]

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

/// Lines that a Rust file may have.
const MOST_LINES: usize = 700;
/// Lines from which on a file is named as worth a split.
const MANY_LINES: usize = 600;

/// Which of our crates each of our crates may use.
const ARROWS: [(&str, &[&str]); 9] = [
    ("datahike-value", &[]),
    ("datahike-core", &["datahike-value"]),
    ("datahike-store", &[]),
    ("datahike-peer", &["datahike-value"]),
    ("datahike-scope", &["datahike-peer", "datahike-value"]),
    ("datahike-sync", &["datahike-peer"]),
    (
        "datahike",
        &[
            "datahike-value",
            "datahike-core",
            "datahike-store",
            "datahike-peer",
            "datahike-scope",
            "datahike-sync",
        ],
    ),
    ("datahike-server", &["datahike", "datahike-peer"]),
    ("datahike-web", &["datahike"]),
];

/// Packages at the top of the graph: they may use anything, and only tests may use them.
const HEADS: [&str; 5] =
    ["datahike-server", "datahike-tests", "datahike-examples", "datahike-benches", "xtask"];

/// The only places that may tell browsers and natives apart: the runtime and its threads, transports
/// and backends, and the modules that decide which of those there are.
const PLATFORM_SEAMS: [&str; 11] = [
    "datahike-core/src/index/flush.rs",
    "peer/src/lib.rs",
    "peer/src/rt.rs",
    "peer/src/transport",
    "store/src/lib.rs",
    "store/src/file",
    "datahike/src/lib.rs",
    "datahike/src/database.rs",
    "datahike/src/kabel",
    "datahike/src/worker.rs",
    "web/src/lib.rs",
];

/// C libraries for TLS and what drags them in.
const BANNED_PACKAGES: [&str; 4] = ["openssl-sys", "aws-lc-sys", "native-tls", "aws-lc-rs"];

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_owned()
}

/// Every file under the root with one of these extensions, as a path from the root and its text.
fn files(extensions: &[&str]) -> Vec<(String, String)> {
    fn walk(folder: &Path, root: &Path, extensions: &[&str], found: &mut Vec<(String, String)>) {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            let name = path.file_name().unwrap().to_str().unwrap();
            if path.is_dir() {
                if !path.is_symlink() && !["target", ".git", "node_modules"].contains(&name) {
                    walk(&path, root, extensions, found);
                }
            } else if path.extension().is_some_and(|e| extensions.contains(&e.to_str().unwrap())) {
                let text = fs::read_to_string(&path).unwrap();
                let from_root = path.strip_prefix(root).unwrap().to_str().unwrap();
                found.push((from_root.to_owned(), text));
            }
        }
    }
    let root = root();
    let mut found = Vec::new();
    walk(&root, &root, extensions, &mut found);
    found.sort();
    assert!(!found.is_empty(), "no file with {extensions:?} under {}", root.display());
    found
}

fn refuse(rule: &str, offences: &[String]) {
    assert!(offences.is_empty(), "{rule}:\n  {}", offences.join("\n  "));
}

/// Lines of `files` that hold one of `needles`, except in this file.
fn lines_with(files: &[(String, String)], needles: &[&str]) -> Vec<String> {
    let mut found = Vec::new();
    for (path, text) in files {
        if path == "tests/tests/tidy.rs" {
            continue;
        }
        for (number, line) in text.lines().enumerate() {
            if needles.iter().any(|needle| line.contains(needle)) {
                found.push(format!("{path}:{}: {}", number + 1, line.trim()));
            }
        }
    }
    found
}

struct Manifest {
    path: String,
    name: String,
    /// Names under `[dependencies]` and `[build-dependencies]`, for any target.
    uses: Vec<String>,
    text: String,
}

fn manifests() -> Vec<Manifest> {
    let mut found = Vec::new();
    for (path, text) in files(&["toml"]) {
        if !path.ends_with("/Cargo.toml") || path.starts_with("fuzz/") {
            continue;
        }
        let mut section = String::new();
        let mut name = None;
        let mut uses = Vec::new();
        for line in text.lines().map(str::trim) {
            if let Some(header) = line.strip_prefix('[') {
                section = header.trim_end_matches(']').to_owned();
                // A table of its own: `[dependencies.name]`.
                if let Some((_, dependency)) = section.split_once("dependencies.")
                    && !section.contains("dev-")
                {
                    uses.push(dependency.to_owned());
                }
            } else if let Some((key, value)) = line.split_once('=') {
                let key = key.trim();
                if section == "package" && key == "name" {
                    name = Some(value.trim().trim_matches('"').to_owned());
                } else if section.ends_with("dependencies")
                    && !section.ends_with("dev-dependencies")
                {
                    uses.push(key.split('.').next().unwrap().trim().to_owned());
                }
            }
        }
        found.push(Manifest { path, name: name.expect("a package has a name"), uses, text });
    }
    found
}

#[test]
fn crates_use_only_crates_below_them() {
    let arrows: BTreeMap<&str, &[&str]> = ARROWS.into_iter().collect();
    let manifests = manifests();
    let ours: Vec<&str> = manifests.iter().map(|m| m.name.as_str()).collect();
    let mut offences = Vec::new();
    for name in arrows.keys() {
        if !ours.contains(name) {
            offences.push(format!("{name} is in the table but not in the workspace"));
        }
    }
    for manifest in &manifests {
        let allowed = arrows.get(manifest.name.as_str());
        if allowed.is_none() && !HEADS.contains(&manifest.name.as_str()) {
            offences.push(format!("{} is not in the table of arrows", manifest.name));
        }
        for used in manifest.uses.iter().filter(|used| ours.contains(&used.as_str())) {
            if allowed.is_some_and(|allowed| !allowed.contains(&used.as_str())) {
                offences.push(format!("{} -> {used} ({})", manifest.name, manifest.path));
            }
        }
    }
    refuse("crates may only use the crates below them", &offences);
}

#[test]
fn every_crate_takes_the_lints_of_the_workspace() {
    let offences: Vec<String> = manifests()
        .into_iter()
        .filter(|m| !m.text.contains("[lints]\nworkspace = true"))
        .map(|m| m.path)
        .collect();
    refuse("a manifest needs `[lints] workspace = true`", &offences);
}

#[test]
fn rust_files_stay_short() {
    let mut offences = Vec::new();
    for (path, text) in files(&["rs"]) {
        let lines = text.lines().count();
        if lines > MOST_LINES {
            offences.push(format!("{path}: {lines} lines"));
        } else if lines > MANY_LINES {
            eprintln!("{path} has {lines} lines: worth a split");
        }
    }
    refuse("a file is about one thing and has at most 700 lines", &offences);
}

#[test]
fn no_test_is_switched_off_and_nothing_is_left_for_later() {
    let needles = ["#[ignore", "todo!(", "unimplemented!(", "TODO", "FIXME", "XXX"];
    refuse("not in this code base", &lines_with(&files(&["rs"]), &needles));
}

#[test]
fn modules_are_files_beside_their_folder() {
    let offences: Vec<String> = files(&["rs"])
        .into_iter()
        .map(|(path, _)| path)
        .filter(|path| path.ends_with("/mod.rs"))
        .collect();
    refuse("`foo.rs` beside `foo/`, not `foo/mod.rs`", &offences);
}

#[test]
fn platform_conditions_stay_in_the_seams() {
    let offences: Vec<String> =
        lines_with(&files(&["rs"]), &["target_family", "target_arch", "target_os"])
            .into_iter()
            // `async_trait` has to be told on each trait and implementation: futures are not `Send`
            // in a browser.
            .filter(|line| !line.contains("async_trait"))
            .filter(|line| !PLATFORM_SEAMS.iter().any(|seam| line.starts_with(seam)))
            .collect();
    refuse("what differs between browser and native belongs in a seam", &offences);
}

#[test]
fn nothing_refers_to_places_outside_the_root() {
    let texts = files(&["rs", "toml", "md", "sh", "yml", "edn"]);
    let mut offences = lines_with(&texts, &["/work/", "../shared", "/tmp/team", "/root/"]);
    let sources = |path: &str| [".rs", ".toml", ".md"].iter().any(|end| path.ends_with(end));
    for (path, text) in texts.iter().filter(|(path, _)| sources(path)) {
        // A path in a source is meant from the file (`include_str!`) or from its crate.
        let depth = path.matches('/').count();
        for (number, line) in text.lines().enumerate() {
            let most = if line.contains("CARGO_MANIFEST_DIR") { 1 } else { depth };
            if line.contains(&"../".repeat(most + 1)) {
                offences.push(format!("{path}:{}: {}", number + 1, line.trim()));
            }
        }
    }
    refuse("the project reads nothing outside its root", &offences);
}

#[test]
fn no_link_leads_out_of_the_root() {
    fn walk(folder: &Path, root: &Path, offences: &mut Vec<String>) {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            let name = path.file_name().unwrap().to_str().unwrap();
            if path.is_symlink() {
                let inside = fs::canonicalize(&path).is_ok_and(|to| to.starts_with(root));
                if !inside {
                    offences.push(path.display().to_string());
                }
            } else if path.is_dir() && !["target", ".git", "node_modules"].contains(&name) {
                walk(&path, root, offences);
            }
        }
    }
    let root = fs::canonicalize(root()).unwrap();
    let mut offences = Vec::new();
    walk(&root, &root, &mut offences);
    refuse("links that lead out of the root", &offences);
}

#[test]
fn banned_packages_are_not_in_the_lock_file() {
    let lock = fs::read_to_string(root().join("Cargo.lock")).unwrap();
    assert!(lock.contains("name = \"datahike-core\""), "this is not our lock file");
    let offences: Vec<String> = BANNED_PACKAGES
        .iter()
        .filter(|name| lock.contains(&format!("name = \"{name}\"\n")))
        .map(|name| (*name).to_owned())
        .collect();
    refuse("TLS is rustls with ring", &offences);
}

#[test]
fn each_banned_package_is_also_banned_by_deny_toml() {
    let deny = fs::read_to_string(root().join("deny.toml")).unwrap();
    for name in BANNED_PACKAGES {
        assert!(deny.contains(&format!("\"{name}\"")), "{name}");
    }
}
