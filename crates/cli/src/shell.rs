//! `soma-p2p completions` and `soma-p2p man`: for shells and for `man`, from the definitions of the commands.

use crate::{Cli, error::CliError};
use clap::CommandFactory;
use clap_complete::Shell;
use std::{fs, io, path::PathBuf, process::ExitCode};

/// The program that they are for.
const PROGRAM: &str = "soma-p2p";

#[derive(clap::Args)]
pub struct CompletionsArgs {
    /// The shell.
    #[arg(value_enum)]
    shell: Shell,
}

#[derive(clap::Args)]
pub struct ManArgs {
    /// Directory for the pages, one for each command; it is made if it is missing.
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
}

pub(crate) fn completions(args: &CompletionsArgs) -> Result<ExitCode, CliError> {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut Cli::command(), PROGRAM, &mut script);
    io::Write::write_all(&mut io::stdout(), &script).map_err(CliError::failed)?;
    Ok(ExitCode::SUCCESS)
}

pub(crate) fn man(args: &ManArgs) -> Result<ExitCode, CliError> {
    let refuse = |error: io::Error| CliError::input(format!("--out {}: {error}", args.out.display()));
    fs::create_dir_all(&args.out).map_err(refuse)?;
    clap_mangen::generate_to(Cli::command(), &args.out).map_err(refuse)?;
    Ok(ExitCode::SUCCESS)
}
