//! `soma-p2p genesis`

use crate::{error::CliError, files};
use clap::builder::RangedU64ValueParser;
use soma_p2p::{Address, Committee, Genesis, PeerId, PublicKey};
use soma_types::Authority;
use std::{
    fs,
    net::SocketAddr,
    path::PathBuf,
    process::ExitCode,
    time::{SystemTime, UNIX_EPOCH},
};

#[derive(clap::Args)]
pub struct Args {
    /// Directory to write to: genesis.bin, and validator-N.protocol.key and validator-N.network.key for each.
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
    /// A name for people.
    #[arg(long, default_value = "soma")]
    name: String,
    /// Authorities in the first committee.
    #[arg(long, default_value_t = 4, value_parser = RangedU64ValueParser::<usize>::new().range(1..=1000))]
    validators: usize,
    /// Their stakes, separated by commas; 1 each otherwise.
    #[arg(long, value_delimiter = ',', value_name = "STAKE,...")]
    stakes: Vec<u64>,
    /// Their addresses, separated by commas; /ip4/127.0.0.1/tcp/9000 and up otherwise.
    #[arg(long, value_delimiter = ',', value_name = "ADDRESS,...")]
    addresses: Vec<Address>,
}

pub(crate) fn run(args: &Args) -> Result<ExitCode, CliError> {
    let count = args.validators;
    let given = |what, given: usize| {
        if given == 0 || given == count {
            return Ok(());
        }
        Err(CliError::input(format!("{given} {what} for {count} validators: give one for each, or none")))
    };
    given("stakes", args.stakes.len())?;
    given("addresses", args.addresses.len())?;
    let genesis_file = args.out.join("genesis.bin");
    let key_file = |index: usize, kind: &str| args.out.join(format!("validator-{index}.{kind}.key"));
    let key_files = (0..count).flat_map(|index| [key_file(index, "protocol"), key_file(index, "network")]);
    if let Some(file) = key_files.chain([genesis_file.clone()]).find(|file| file.exists()) {
        return Err(CliError::input(format!("{} is there already; choose another directory", file.display())));
    }

    let mut keys = Vec::new();
    let mut authorities = Vec::new();
    for index in 0..count {
        let (protocol, network) = (files::new_key()?, files::new_key()?);
        authorities.push(Authority {
            stake: args.stakes.get(index).copied().unwrap_or(1),
            protocol_key: PublicKey::from(&protocol),
            network_key: PublicKey::from(&network),
            address: match args.addresses.get(index) {
                Some(address) => address.clone(),
                None => {
                    let port = u16::try_from(9_000 + index).map_err(CliError::input)?;
                    Address::try_from(SocketAddr::from(([127, 0, 0, 1], port))).map_err(CliError::input)?
                }
            },
        });
        keys.push((protocol, network));
    }
    let now = SystemTime::now().duration_since(UNIX_EPOCH).map_err(CliError::failed)?;
    // Checked before anything is written.
    let genesis = Genesis::new(&*args.name, now.as_millis() as u64, Committee { epoch: 0, authorities });
    let genesis = genesis.map_err(CliError::input)?;

    fs::create_dir_all(&args.out)
        .map_err(|error| CliError::input(format!("{} cannot be made: {error}", args.out.display())))?;
    for (index, (protocol, network)) in keys.iter().enumerate() {
        files::write_key(&key_file(index, "protocol"), protocol)?;
        files::write_key(&key_file(index, "network"), network)?;
    }
    files::replace(&genesis_file, &genesis.encode()).map_err(CliError::failed)?;
    println!("chain {}", genesis.chain_id());
    for (index, (_, network)) in keys.iter().enumerate() {
        println!("validator {index}: peer {}", PeerId::from(network));
    }
    println!("written to {}", args.out.display());
    Ok(ExitCode::SUCCESS)
}
