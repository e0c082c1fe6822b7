//! Runs a folder of conformance cases: prints the failing ones and `N passed, M failed, K skipped`.

use std::path::PathBuf;
use std::process::ExitCode;

use datahike_tests::corpus::{Modes, run_folder};

fn main() -> ExitCode {
    let mut modes = Modes::AsWritten;
    let mut folder = None;
    for argument in std::env::args_os().skip(1) {
        if argument == "--all-modes" {
            modes = Modes::All;
        } else if folder.replace(PathBuf::from(argument)).is_some() {
            folder = None;
            break;
        }
    }
    let Some(folder) = folder else {
        eprintln!("usage: conformance [--all-modes] DIR");
        return ExitCode::from(2);
    };
    match run_folder(&folder, modes) {
        Ok(outcomes) => outcomes.report(true),
        Err(error) => {
            eprintln!("{}: {error}", folder.display());
            ExitCode::from(2)
        }
    }
}
