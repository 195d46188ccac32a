//! `soma-p2p config`

use crate::{
    error::CliError,
    files,
    node_config::{NodeConfig, default_admin},
};
use clap::Subcommand;
use soma_p2p::PeerId;
use std::{path::PathBuf, process::ExitCode};

#[derive(clap::Args)]
pub struct Args {
    #[command(subcommand)]
    what: What,
}

#[derive(Subcommand)]
enum What {
    /// Check a configuration file, with the key and the genesis that it names. Nothing is started or written.
    Check {
        /// The configuration file.
        #[arg(value_name = "FILE")]
        file: PathBuf,
    },
    /// Print a configuration file that has every setting at its default.
    Default,
}

pub(crate) fn run(args: &Args) -> Result<ExitCode, CliError> {
    match &args.what {
        What::Check { file } => {
            let config = NodeConfig::read(file)?;
            let peer = PeerId::from(&files::read_key(&config.key)?);
            let chain = files::read_genesis(&config.genesis)?.chain_id();
            println!(
                "{} is valid: peer {peer} on chain {chain}, data in {}",
                file.display(),
                config.data_dir.display()
            );
        }
        What::Default => {
            let config = NodeConfig {
                data_dir: "data".into(),
                genesis: "genesis.bin".into(),
                key: "node.key".into(),
                admin: default_admin(),
                p2p: soma_p2p::Config::default(),
            };
            print!("{}", toml::to_string(&config).map_err(CliError::failed)?);
        }
    }
    Ok(ExitCode::SUCCESS)
}
