//! Serving: which of the calls that peers make are answered. The core of the gRPC adapter.
//!
//! Calls of another chain are refused first, then those over the limits: so many at once for each peer, so many in
//! all. What is refused gets a reason, and costs nothing more.

use crate::core::{Core, Now};
use serde::{Deserialize, Serialize};
use soma_types::{ChainId, PeerId};
use std::collections::BTreeMap;

/// How calls are admitted.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Config {
    /// This node's chain.
    pub chain: ChainId,
    /// Calls of one peer at once.
    pub max_calls_per_peer: usize,
    /// Calls of all peers at once. Each may hold one chunk of blocks, or one answer with commits.
    pub max_calls: usize,
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
}

/// What can happen.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Input {
    /// From the transport: a peer calls.
    Arrived {
        /// Under which the shell keeps the answer's address.
        call: u64,
        /// Who.
        peer: PeerId,
        /// On which chain it says it is.
        chain: Option<ChainId>,
        /// What it wants.
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
}

/// What the shell is to do.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Effect {
    /// Answer the call.
    Admit(u64),
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
    /// The caller is on another chain, or does not say on which.
    #[error("this node is on chain {ours}, the caller on {theirs:?}")]
    OtherChain {
        /// This node's.
        ours: ChainId,
        /// The caller's.
        theirs: Option<ChainId>,
    },
    /// Too many calls.
    #[error("{calls} calls are being answered already")]
    TooMany {
        /// Of this peer, or of all.
        calls: usize,
    },
}

/// Serving as operators see it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Snapshot {
    /// Calls being answered.
    pub active: usize,
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
    active: BTreeMap<u64, (PeerId, Rpc)>,
    answered: BTreeMap<Rpc, u64>,
    refused: u64,
    blocks_sent: u64,
    bytes_sent: u64,
}

impl Serving {
    /// Starts without calls.
    pub fn new(config: Config) -> Self {
        let (active, answered) = (BTreeMap::new(), BTreeMap::new());
        Self { config, active, answered, refused: 0, blocks_sent: 0, bytes_sent: 0 }
    }

    fn check(&self, peer: PeerId, chain: Option<ChainId>) -> Result<(), Refusal> {
        let ours = self.config.chain;
        if chain != Some(ours) {
            return Err(Refusal::OtherChain { ours, theirs: chain });
        }
        if self.active.len() >= self.config.max_calls {
            return Err(Refusal::TooMany { calls: self.active.len() });
        }
        let calls = self.active.values().filter(|(caller, _)| *caller == peer).count();
        if calls >= self.config.max_calls_per_peer {
            return Err(Refusal::TooMany { calls });
        }
        Ok(())
    }
}

impl Core for Serving {
    type Input = Input;
    type Effect = Effect;
    type Snapshot = Snapshot;

    const NAME: &'static str = "grpc-adapter";

    fn handle(&mut self, _now: Now, input: Input) -> Vec<Effect> {
        match input {
            Input::Arrived { call, peer, chain, rpc } => match self.check(peer, chain) {
                Ok(()) => {
                    self.active.insert(call, (peer, rpc));
                    vec![Effect::Admit(call)]
                }
                Err(refusal) => {
                    self.refused += 1;
                    vec![Effect::Refuse { call, refusal }]
                }
            },
            Input::Finished { call, bytes, blocks } => {
                if let Some((_, rpc)) = self.active.remove(&call) {
                    *self.answered.entry(rpc).or_default() += 1;
                    self.bytes_sent += bytes;
                    self.blocks_sent += blocks;
                }
                Vec::new()
            }
        }
    }

    fn snapshot(&self) -> Snapshot {
        Snapshot {
            active: self.active.len(),
            answered: self.answered.clone(),
            refused: self.refused,
            blocks_sent: self.blocks_sent,
            bytes_sent: self.bytes_sent,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    const NOW: Now = Now { monotonic: Duration::ZERO, unix_ms: 0 };
    const OURS: ChainId = ChainId([1; 32]);

    fn arrive(core: &mut Serving, call: u64, peer: u8, chain: Option<ChainId>) -> Vec<Effect> {
        core.handle(NOW, Input::Arrived { call, peer: PeerId([peer; 32]), chain, rpc: Rpc::FetchBlocks })
    }

    #[test]
    fn a_peer_that_calls_too_much_is_refused_and_others_are_not() {
        let mut core = Serving::new(Config { chain: OURS, max_calls_per_peer: 1, max_calls: 2 });
        assert_eq!(arrive(&mut core, 1, 7, Some(OURS)), [Effect::Admit(1)]);
        let refusal = Refusal::TooMany { calls: 1 };
        assert_eq!(arrive(&mut core, 2, 7, Some(OURS)), [Effect::Refuse { call: 2, refusal }]);
        assert_eq!(arrive(&mut core, 3, 8, Some(OURS)), [Effect::Admit(3)]);
        assert!(matches!(arrive(&mut core, 4, 9, Some(OURS))[..], [Effect::Refuse { call: 4, .. }]));
        core.handle(NOW, Input::Finished { call: 1, bytes: 10, blocks: 2 });
        assert_eq!(arrive(&mut core, 5, 7, Some(OURS)), [Effect::Admit(5)]);
        assert_eq!((core.snapshot().blocks_sent, core.snapshot().bytes_sent), (2, 10));
    }

    #[test]
    fn a_call_of_another_chain_or_of_none_is_refused() {
        let mut core = Serving::new(Config { chain: OURS, max_calls_per_peer: 1, max_calls: 1 });
        for theirs in [None, Some(ChainId([2; 32]))] {
            let refusal = Refusal::OtherChain { ours: OURS, theirs };
            assert_eq!(arrive(&mut core, 1, 7, theirs), [Effect::Refuse { call: 1, refusal }]);
        }
    }
}
