//! Replays the recordings in a folder: prints what differs and `N passed, M failed`.

use std::path::Path;
use std::process::ExitCode;

use datahike_tests::recording::run_folder;

fn main() -> ExitCode {
    let arguments: Vec<_> = std::env::args_os().skip(1).collect();
    let [folder] = &arguments[..] else {
        eprintln!("usage: recorded DIR");
        return ExitCode::from(2);
    };
    match run_folder(Path::new(folder)) {
        Ok((outcomes, passed_over)) => {
            for other in passed_over {
                println!("passed over {}: no txs.edn", other.display());
            }
            outcomes.report(false)
        }
        Err(error) => {
            eprintln!("{}: {error}", Path::new(folder).display());
            ExitCode::from(2)
        }
    }
}
