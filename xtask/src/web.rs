//! The package for browsers and Node: compiled, bound, optimised, laid out.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};
use wasm_bindgen_cli_support::Bindgen;

/// What the optimiser may use: what every current browser and Node has, and rustc emits.
const FEATURES: [&str; 6] = [
    "--enable-bulk-memory",
    "--enable-nontrapping-float-to-int",
    "--enable-sign-ext",
    "--enable-mutable-globals",
    "--enable-reference-types",
    "--enable-multivalue",
];

/// Writes `engine.js` and `engine_bg.wasm` for a compiled module.
///
/// # Errors
/// If the module was made with another version of wasm-bindgen.
pub(crate) fn bind(module: &Path, out: &Path) -> Result<()> {
    Bindgen::new()
        .input_path(module)
        .out_name("engine")
        .typescript(false)
        .remove_name_section(true)
        .remove_producers_section(true)
        .omit_default_module_path(false)
        .web(true)?
        .generate(out)
        .with_context(|| format!("cannot bind {}", module.display()))
}

/// Makes the module small.
///
/// # Errors
/// If the optimiser fails.
pub(crate) fn optimise(modules: &Path, wasm: &Path) -> Result<()> {
    let optimised = wasm.with_extension("optimised");
    let status = Command::new("node")
        .arg(modules.join("binaryen/bin/wasm-opt"))
        .arg("-Oz")
        .args(FEATURES)
        .arg(wasm)
        .arg("-o")
        .arg(&optimised)
        .status()
        .context("cannot start node")?;
    if !status.success() {
        bail!("wasm-opt: {status}");
    }
    std::fs::rename(&optimised, wasm)?;
    Ok(())
}

/// Puts what is written by hand beside what was generated.
///
/// # Errors
/// If a file cannot be copied.
pub(crate) fn lay_out(root: &Path, out: &Path) -> Result<()> {
    for entry in std::fs::read_dir(root.join("web/js"))? {
        let path = entry?.path();
        let name = path.file_name().context("a file without a name")?;
        std::fs::copy(&path, out.join(name))?;
    }
    std::fs::copy(root.join("web/README.md"), out.join("README.md"))?;
    Ok(())
}

/// Bytes of a file as they are, and after brotli at its best, which is how they are served.
///
/// # Errors
/// If node cannot read it.
pub(crate) fn sizes(file: &Path) -> Result<(u64, u64)> {
    let raw = std::fs::metadata(file)?.len();
    let script = "const z = require('zlib'), b = require('fs').readFileSync(process.argv[1]); \
                  console.log(z.brotliCompressSync(b).length)";
    let output = Command::new("node").args(["-e", script]).arg(file).output()?;
    let brotli = String::from_utf8_lossy(&output.stdout).trim().parse();
    Ok((raw, brotli.context("node gave no size")?))
}

/// Where the package is made.
pub(crate) fn folder(root: &Path) -> PathBuf {
    root.join("web/dist")
}

/// A Chromium: one that is there, or Debian's where this process may install it.
pub(crate) fn browser() -> Option<PathBuf> {
    let found = || {
        let path = std::env::var_os("PATH")?;
        std::env::split_paths(&path)
            .flat_map(|folder| ["chromium", "chromium-browser"].map(|name| folder.join(name)))
            .find(|file| file.is_file())
    };
    found().or_else(|| {
        let install = ["install", "--yes", "--no-install-recommends", "chromium"];
        for words in [&["update"][..], &install] {
            // Without the right to it, apt-get says so and changes nothing.
            let mut command = Command::new("apt-get");
            let _ =
                command.arg("-qq").args(words).env("DEBIAN_FRONTEND", "noninteractive").status();
        }
        found()
    })
}
