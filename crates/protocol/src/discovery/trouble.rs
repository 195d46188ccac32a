//! What can be wrong with a node's place in the network, so that its operator can mend it.

use crate::connections::DialFailure;
use serde::{Deserialize, Serialize};
use soma_types::{Address, PeerId};

/// What is wrong with this node's place in the network.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[serde(rename_all = "kebab-case")]
pub enum Trouble {
    /// Nobody to dial.
    #[error("no seed peer is configured and no peer is known: this node waits for others to connect")]
    NobodyKnown,
    /// Not connected, and no seed could be used.
    #[error("{}{}", failed_seeds(failures), other_peers(*known))]
    SeedsUnreachable {
        /// How the last dial to each seed failed.
        failures: Vec<(PeerId, DialFailure)>,
        /// Other peers that this node would dial: of its address book, its allowlist and its committee. None is connected.
        known: usize,
    },
    /// Not connected, and all seeds that answered are on another chain.
    #[error(
        "the seed peers are on another chain than this node: check its genesis file and its seeds: {}",
        listed(failures)
    )]
    SeedsOnOtherChain {
        /// How the last dial to each seed failed.
        failures: Vec<(PeerId, DialFailure)>,
    },
    /// Not connected, and somebody else answers where the seeds should.
    #[error("the seed peers have other keys than this node was told: check the ids of its seeds: {}", listed(failures))]
    SeedsHaveOtherKeys {
        /// How the last dial to each seed failed.
        failures: Vec<(PeerId, DialFailure)>,
    },
    /// This node's clock is wrong, as its peers have it.
    #[error(
        "the clock of this node is {} s {} those of {peers} peers, and peers refuse what it signs beyond 30 s: check its time service",
        ahead_ms.unsigned_abs() / 1000,
        if *ahead_ms > 0 { "ahead of" } else { "behind" }
    )]
    ClockOff {
        /// By how many milliseconds it is ahead; behind: negative.
        ahead_ms: i64,
        /// Peers that told their time.
        peers: usize,
    },
    /// Peers cannot dial this node.
    #[error(
        "none of {peers} peers that tried could connect to this node at {}: check external_addresses, port forwarding and firewalls",
        texts(addresses)
    )]
    Unreachable {
        /// Where this node says that it listens.
        addresses: Vec<Address>,
        /// Peers that tried.
        peers: usize,
    },
}

impl Trouble {
    /// Of a node without links, whose seeds have all been tried and failed so.
    pub(super) fn without_links(failures: Vec<(PeerId, DialFailure)>, known: usize) -> Self {
        // What those say that answered tells more than who did not.
        let answered = || failures.iter().filter(|(_, failure)| !matches!(failure, DialFailure::Unreachable { .. }));
        let all = |kind: fn(&DialFailure) -> bool| answered().next().is_some() && answered().all(|(_, f)| kind(f));
        if failures.is_empty() && known == 0 {
            Self::NobodyKnown
        } else if all(|failure| matches!(failure, DialFailure::OtherChain { .. })) {
            Self::SeedsOnOtherChain { failures }
        } else if all(|failure| matches!(failure, DialFailure::WrongKey { .. })) {
            Self::SeedsHaveOtherKeys { failures }
        } else {
            Self::SeedsUnreachable { failures, known }
        }
    }

    /// The cause in one word, for metrics and scripts.
    pub fn cause(&self) -> &'static str {
        match self {
            Self::NobodyKnown => "nobody-known",
            Self::SeedsUnreachable { .. } => "seeds-unreachable",
            Self::SeedsOnOtherChain { .. } => "seeds-on-other-chain",
            Self::SeedsHaveOtherKeys { .. } => "seeds-have-other-keys",
            Self::ClockOff { .. } => "clock-off",
            Self::Unreachable { .. } => "unreachable",
        }
    }
}

fn listed(failures: &[(PeerId, DialFailure)]) -> String {
    let failures: Vec<_> = failures.iter().map(|(peer, failure)| format!("{}: {failure}", peer.short())).collect();
    failures.join("; ")
}

fn failed_seeds(failures: &[(PeerId, DialFailure)]) -> String {
    match failures {
        [] => "no seed peer is configured".into(),
        _ => format!("no seed peer can be reached: {}", listed(failures)),
    }
}

fn other_peers(known: usize) -> String {
    if known == 0 {
        String::new()
    } else {
        format!("; nor is there a link to any of {known} other peers that this node knows")
    }
}

fn texts(addresses: &[Address]) -> String {
    addresses.iter().map(Address::as_str).collect::<Vec<_>>().join(", ")
}
