//! `soma-p2p config`

use crate::{
    error::CliError,
    files,
    node_config::NodeConfig,
    overrides::{Override, Overrides},
};
use clap::Subcommand;
use schemars::generate::SchemaSettings;
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
    /// Print the JSON schema of configuration files, for editors.
    Schema,
}

pub(crate) fn run(args: &Args) -> Result<ExitCode, CliError> {
    match &args.what {
        What::Check { file } => {
            let overrides = Overrides::of_process()?;
            let config = NodeConfig::read_with(file, &overrides)?;
            let peer = PeerId::from(&files::read_key(&config.key)?);
            let chain = files::read_genesis(&config.genesis)?.chain_id();
            println!(
                "{} is valid: peer {peer} on chain {chain}, data in {}",
                file.display(),
                config.data_dir.display()
            );
            for Override { key, variable } in overrides.iter() {
                println!("{key} comes from the environment variable {variable}");
            }
        }
        What::Default => {
            let config = NodeConfig::new("data".into(), "genesis.bin".into(), "node.key".into());
            print!("{}", toml::to_string(&config).map_err(CliError::failed)?);
        }
        What::Schema => {
            // The latest version that editors of TOML read.
            let schema = SchemaSettings::draft07().into_generator().into_root_schema_for::<NodeConfig>();
            println!("{}", serde_json::to_string_pretty(&schema).map_err(CliError::failed)?);
        }
    }
    Ok(ExitCode::SUCCESS)
}
