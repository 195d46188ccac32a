//! What can be wrong with a node's place in the network, so that its operator can mend it.

use super::Discovery;
use crate::connections::DialFailure;
use serde::{Deserialize, Serialize};
use soma_types::{Address, PeerId};

/// An issue of a node's place in the network.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[serde(rename_all = "kebab-case")]
pub enum Trouble {
    /// There is no peer to dial.
    #[error("no seed peer is configured and no peer is known: this node waits for others to connect")]
    NobodyKnown,
    /// Not connected, and no seed could be used.
    #[error("{}{}", failed_seeds(failures), other_peers(*known))]
    SeedsUnreachable {
        /// How the last dial to each seed failed.
        failures: Vec<(PeerId, DialFailure)>,
        /// Other peers that this node would dial: of its address book, its allowlist and its committee. None is
        /// connected.
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
    /// Not connected, and other keys answer at the addresses of the seeds.
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
    /// The issue of a node without links after every seed was tried and failed like this.
    pub(super) fn without_links(failures: Vec<(PeerId, DialFailure)>, known: usize) -> Self {
        // Answers tell more than silence.
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

impl Discovery {
    /// Number of peers to dial besides seeds: those of the book, and those that are always kept.
    fn others_known(&self) -> usize {
        let in_config =
            self.kept().filter(|peer| self.book.get(*peer).is_none() && !self.addresses_of(*peer).is_empty());
        self.book.len() + in_config.count()
    }

    /// The network issue of this node, if there is one.
    pub fn trouble(&self) -> Option<Trouble> {
        if self.connected.is_empty() {
            let failures = self.seed_failures.iter().map(|(peer, failure)| (*peer, failure.clone())).collect();
            // The committee and the address book come right after the start, in any order, and bring peers to dial.
            let known = self.others_known();
            let is_told_of_all = self.book_read && !self.validators.is_empty();
            let tried = match self.config.seeds.len() {
                0 => is_told_of_all && (known == 0 || self.dial_failed),
                seeds => self.seed_failures.len() >= seeds,
            };
            return tried.then(|| Trouble::without_links(failures, known));
        }
        if let Some((ahead_ms, peers)) = self.hearsay.clock_off() {
            return Some(Trouble::ClockOff { ahead_ms, peers });
        }
        let peers = self.hearsay.unreachable()?;
        Some(Trouble::Unreachable { addresses: self.addresses.clone(), peers })
    }
}
