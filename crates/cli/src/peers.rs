//! `soma-p2p peers`

use crate::{
    admin::NodePeers,
    error::CliError,
    node_config::NodeConfig,
    running,
    status::{connected, in_words, table, yes},
};
use std::{
    path::PathBuf,
    process::ExitCode,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

#[derive(clap::Args)]
pub struct Args {
    /// The node's configuration file.
    #[arg(long, value_name = "FILE")]
    config: PathBuf,
    /// Print one JSON object.
    #[arg(long)]
    json: bool,
}

pub(crate) fn run(args: &Args) -> Result<ExitCode, CliError> {
    let peers: NodePeers = running::ask(&NodeConfig::read(&args.config)?, "/peers")?;
    if args.json {
        println!("{}", serde_json::to_string(&peers).map_err(CliError::failed)?);
    } else {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        print!("{}", text_of(&peers, now));
    }
    Ok(ExitCode::SUCCESS)
}

/// As it is at `now`, since 1970.
fn text_of(peers: &NodePeers, now: Duration) -> String {
    let mut book = table(["peer", "addresses", "seen live", "signed", "connected"]);
    for entry in &peers.known {
        let addresses: Vec<_> = entry.addresses.iter().map(ToString::to_string).collect();
        book.add_row([
            entry.peer.to_string(),
            addresses.join("\n"),
            entry.seen_live_ms.map_or_else(|| "never".into(), |at| ago(now, at)),
            ago(now, entry.signed_ms),
            yes(entry.connected),
        ]);
    }
    let (connections, known) = (peers.connected.len(), peers.known.len());
    format!("{connections} connected\n{}\n\n{known} known\n{book}\n", connected(&peers.connected))
}

/// How long before `now` that was; another clock may be ahead of ours.
fn ago(now: Duration, at_ms: u64) -> String {
    format!("{} ago", in_words(now.saturating_sub(Duration::from_millis(at_ms))))
}

#[cfg(test)]
mod tests {
    use super::*;
    use soma_p2p::{Access, BookEntry, PeerId};

    #[test]
    fn known_peer_is_shown_with_addresses_and_ages() {
        let entry = BookEntry {
            peer: PeerId([7; 32]),
            addresses: vec!["/ip4/192.0.2.1/tcp/1".parse().unwrap(), "/dns/node.example/tcp/2".parse().unwrap()],
            access: Access::Public,
            signed_ms: 940_000,
            seen_live_ms: Some(997_000),
            connected: false,
        };
        let heard_of = BookEntry { peer: PeerId([8; 32]), seen_live_ms: None, signed_ms: 1_001_000, ..entry.clone() };
        let peers = NodePeers { connected: Vec::new(), known: vec![entry, heard_of] };
        let text = text_of(&peers, Duration::from_secs(1_000));
        let line = |start: &str| text.lines().find(|line| line.contains(start)).unwrap().to_owned();
        let seen = line(&"07".repeat(32));
        for part in ["/ip4/192.0.2.1/tcp/1", "3 s ago", "1 min 0 s ago", "no"] {
            assert!(seen.contains(part), "{part:?} is not in {seen:?}");
        }
        let heard_of = line(&"08".repeat(32));
        assert!(heard_of.contains("never") && heard_of.contains("0 ms ago"), "{heard_of:?}");
        assert!(text.contains("0 connected\n") && text.contains("\n2 known\n"), "{text}");
    }
}
