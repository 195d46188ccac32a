//! `soma-p2p keygen`

use crate::{error::CliError, files};
use soma_p2p::PeerId;
use std::{path::PathBuf, process::ExitCode};

#[derive(clap::Args)]
pub struct Args {
    /// File to write the key to (PKCS#8 PEM, readable by its owner only); must not exist.
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
}

pub(crate) fn run(args: &Args) -> Result<ExitCode, CliError> {
    let key = files::new_key()?;
    files::write_key(&args.out, &key)?;
    println!("{}", PeerId::from(&key));
    Ok(ExitCode::SUCCESS)
}
