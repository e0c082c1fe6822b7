//! What shells and man(1) know of the command line, made of its one description.

use clap::CommandFactory;
use clap_complete::Shell;
use clap_mangen::Man;

use crate::cli::Cli;
use crate::failure::Failure;
use crate::output;

/// Prints the completions for a shell.
pub(super) fn completions(shell: Shell) -> Result<(), Failure> {
    let mut command = Cli::command();
    let name = command.get_name().to_owned();
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut command, name, &mut script);
    output::line(String::from_utf8_lossy(&script).trim_end())
}

/// Prints the manual page of the program, or of one of its commands.
pub(super) fn man(name: Option<&str>) -> Result<(), Failure> {
    let mut program = Cli::command();
    program.build();
    let about = match name {
        None => program,
        Some(name) => program.find_subcommand(name).cloned().ok_or_else(|| {
            Failure::usage(format!("there is no command {name:?}"))
                .hint("datahike --help lists them")
        })?,
    };
    let title = about.get_bin_name().unwrap_or(about.get_name()).replace(' ', "-");
    let mut page = Vec::new();
    Man::new(about.clone()).title(title).render(&mut page)?;
    output::line(String::from_utf8_lossy(&page).trim_end())
}
