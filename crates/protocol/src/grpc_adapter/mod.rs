//! Serving: which of the calls that peers make are answered. The core of the gRPC adapter.
//!
//! Calls of another chain are refused first, and calls that name none unless they only look. Then those for which
//! there is no place: places are shared by class of caller and by peer (`places`). Then those that come too fast: so
//! many a second for each peer, and so many bytes. What is refused gets a reason and a time after which it would not
//! have been refused, and costs nothing more.

mod pace;
mod places;

use crate::{
    chosen_peers::ChosenPeers,
    core::{Core, Now},
};
use pace::Paces;
pub use places::Class;
use places::{Callers, Length, Places};
use serde::{Deserialize, Serialize};
use soma_types::{ChainId, PeerId};
use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    time::Duration,
};
use strum::VariantNames;

/// How calls are admitted.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Config {
    /// This node's chain.
    pub chain: ChainId,
    /// Peers that are always welcome.
    pub allowlist: BTreeSet<PeerId>,
    /// Calls of one peer at once.
    pub max_calls_per_peer: usize,
    /// Calls of all peers at once that fetch, and as many others. One that fetches may hold one chunk of blocks, or one
    /// answer with commits.
    pub max_calls: usize,
    /// How fast one peer may call.
    pub rates: Rates,
}

impl Config {
    /// The same, with the peers that the operator chose.
    pub fn with_chosen_peers(self, chosen: &ChosenPeers) -> Self {
        Self { allowlist: chosen.trusted.clone(), ..self }
    }
}

/// What one peer may have in a second. Each is a token bucket: a peer that was quiet for [`burst`](Self::burst) may
/// have at once what it did not ask for meanwhile, and no more.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rates {
    /// Calls of any kind.
    pub calls: u64,
    /// PushCommit among them.
    pub pushes: u64,
    /// GetKnownPeers among them.
    pub peer_queries: u64,
    /// Bytes of blocks and commits; 0: any number. They are charged when a call ends, which is then in debt: what is
    /// begun is finished, and the next call waits until all of it is paid off.
    pub bytes: u64,
    /// How long a bucket takes to fill.
    pub burst: Duration,
}

impl Default for Rates {
    /// A peer that syncs at 100,000 blocks a second makes about 1,300 calls. It pushes once for each commit, and asks
    /// for peers every few seconds. Bytes are for the operator to limit, who knows what the line costs.
    fn default() -> Self {
        Self { calls: 5_000, pushes: 200, peer_queries: 10, bytes: 0, burst: Duration::from_secs(2) }
    }
}

/// The rpcs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Rpc {
    /// GetKnownPeers.
    GetKnownPeers,
    /// GetCommitAvailability.
    GetCommitAvailability,
    /// GetCommitInfo.
    GetCommitInfo,
    /// FetchCommits.
    FetchCommits,
    /// FetchBlocks.
    FetchBlocks,
    /// PushCommit.
    PushCommit,
    /// GetEpochProofs.
    GetEpochProofs,
    /// FetchObjects.
    FetchObjects,
    /// GetSnapshots.
    GetSnapshots,
    /// Broadcast: its place is that of its admission. The actor Broadcast bounds its streams.
    Broadcast,
}

impl Rpc {
    /// Whether the call only looks at the node, which a caller may do that does not name the chain: it wants to know
    /// which node this is, and on which chain. Whoever fetches or pushes must know.
    fn only_looks(self) -> bool {
        matches!(self, Self::GetKnownPeers | Self::GetCommitAvailability | Self::GetCommitInfo)
    }
}

/// What can happen.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, VariantNames)]
pub enum Input {
    /// From the transport: a peer calls.
    Arrived {
        /// Under which the shell keeps the answer's address.
        call: u64,
        /// The peer.
        peer: PeerId,
        /// On which chain it says it is.
        chain: Option<ChainId>,
        /// The kind of call.
        rpc: Rpc,
    },
    /// From the service: an admitted call ended, with an answer of this size.
    Finished {
        /// Which.
        call: u64,
        /// Bytes of blocks and commits sent.
        bytes: u64,
        /// Blocks sent.
        blocks: u64,
    },
    /// From StateSync: the validators of the epoch of the next commit.
    Committee {
        /// Their network keys.
        validators: Vec<PeerId>,
    },
    /// From PeerHeights: these peers served a range, or announced a new commit.
    Useful {
        /// The peers.
        peers: Vec<PeerId>,
    },
    /// From the handle: the operator changed the seeds or the trusted peers.
    ChosenPeers(ChosenPeers),
}

/// What the shell is to do.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Effect {
    /// Answer the call.
    Admit {
        /// Which.
        call: u64,
        /// What this node knows of the caller.
        class: Class,
    },
    /// Refuse it.
    Refuse {
        /// Which.
        call: u64,
        /// Why.
        refusal: Refusal,
    },
}

/// Why a call is not answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
pub enum Refusal {
    /// The caller is on another chain; or it does not say on which, and wants more than to look.
    #[error("this node is on chain {ours}, {}", whose(*theirs))]
    OtherChain {
        /// This node's.
        ours: ChainId,
        /// The caller's.
        theirs: Option<ChainId>,
    },
    /// Too many calls.
    #[error("{calls} calls of the caller are being answered, and there is no place for another")]
    TooMany {
        /// Of this peer.
        calls: usize,
    },
    /// Too many in a second.
    #[error("too many {what} of one peer, call again in {retry_after:?}")]
    TooFast {
        /// Of what.
        what: Paced,
        /// When the call would be answered, in whole milliseconds.
        retry_after: Duration,
    },
}

/// The caller's chain in words.
fn whose(chain: Option<ChainId>) -> String {
    match chain {
        Some(theirs) => format!("the caller on {theirs}"),
        None => "and the caller does not say on which".into(),
    }
}

/// Rates of one peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Paced {
    /// Calls of any kind.
    Calls,
    /// PushCommit.
    Pushes,
    /// GetKnownPeers.
    PeerQueries,
    /// Bytes of blocks and commits.
    Bytes,
}

impl fmt::Display for Paced {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Calls => "calls",
            Self::Pushes => "pushes",
            Self::PeerQueries => "questions for peers",
            Self::Bytes => "bytes",
        })
    }
}

/// Serving as operators see it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Snapshot {
    /// Calls being answered that fetch.
    pub active: usize,
    /// Other calls being answered.
    pub short: usize,
    /// Calls answered since start, by rpc.
    pub answered: BTreeMap<Rpc, u64>,
    /// Calls refused since start.
    pub refused: u64,
    /// Blocks sent since start.
    pub blocks_sent: u64,
    /// Bytes of blocks and commits sent since start.
    pub bytes_sent: u64,
}

/// The core of the gRPC adapter.
#[derive(Serialize, Deserialize)]
pub struct Serving {
    config: Config,
    callers: Callers,
    places: Places,
    paces: Paces,
    answered: BTreeMap<Rpc, u64>,
    refused: u64,
    blocks_sent: u64,
    bytes_sent: u64,
}

impl Serving {
    /// Starts without calls.
    pub fn new(config: Config) -> Self {
        Self {
            config,
            callers: Callers::default(),
            places: Places::default(),
            paces: Paces::default(),
            answered: BTreeMap::new(),
            refused: 0,
            blocks_sent: 0,
            bytes_sent: 0,
        }
    }

    /// Takes a place for the call, or says why not.
    fn admit(
        &mut self,
        now: Duration,
        call: u64,
        peer: PeerId,
        chain: Option<ChainId>,
        rpc: Rpc,
    ) -> Result<Class, Refusal> {
        let ours = self.config.chain;
        let admitted = chain.map_or(rpc.only_looks(), |theirs| theirs == ours);
        if !admitted {
            return Err(Refusal::OtherChain { ours, theirs: chain });
        }
        let class = self.callers.class(now, &self.config.allowlist, peer);
        let limits = (self.config.max_calls, self.config.max_calls_per_peer);
        if let Some(calls) = self.places.too_many(limits, peer, rpc, class) {
            return Err(Refusal::TooMany { calls });
        }
        self.paces.of(now, peer).call(now, &self.config.rates, rpc)?;
        self.places.take(call, peer, rpc, class);
        Ok(class)
    }
}

impl Core for Serving {
    type Input = Input;
    type Effect = Effect;
    type Snapshot = Snapshot;

    const NAME: &'static str = "grpc-adapter";

    fn handle(&mut self, now: Now, input: Input) -> Vec<Effect> {
        match input {
            Input::Arrived { call, peer, chain, rpc } => match self.admit(now.monotonic, call, peer, chain, rpc) {
                Ok(class) => vec![Effect::Admit { call, class }],
                Err(refusal) => {
                    self.refused += 1;
                    vec![Effect::Refuse { call, refusal }]
                }
            },
            Input::Finished { call, bytes, blocks } => {
                if let Some((peer, rpc)) = self.places.give_back(call) {
                    if bytes > 0 {
                        self.paces.of(now.monotonic, peer).sent(now.monotonic, &self.config.rates, bytes);
                    }
                    *self.answered.entry(rpc).or_default() += 1;
                    self.bytes_sent += bytes;
                    self.blocks_sent += blocks;
                }
                Vec::new()
            }
            Input::Committee { validators } => {
                self.callers.validators = validators.into_iter().collect();
                Vec::new()
            }
            Input::Useful { peers } => {
                self.callers.were_useful(now.monotonic, peers);
                Vec::new()
            }
            Input::ChosenPeers(chosen) => {
                self.config = self.config.clone().with_chosen_peers(&chosen);
                Vec::new()
            }
        }
    }

    fn snapshot(&self) -> Snapshot {
        Snapshot {
            active: self.places.taken(Length::Long),
            short: self.places.taken(Length::Short),
            answered: self.answered.clone(),
            refused: self.refused,
            blocks_sent: self.blocks_sent,
            bytes_sent: self.bytes_sent,
        }
    }
}

#[cfg(test)]
mod tests;
