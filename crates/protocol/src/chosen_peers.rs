//! Peers that the operator chose, before the start or while the node runs.

use serde::{Deserialize, Serialize};
use soma_types::{Address, PeerId};
use std::collections::{BTreeMap, BTreeSet};

/// The seeds and the trusted peers of a node: the whole lists, never a change of them.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChosenPeers {
    /// The addresses of each seed. This node dials its seeds for as long as it has few links.
    pub seeds: BTreeMap<PeerId, Vec<Address>>,
    /// The allowlist. This node keeps a link to each of these peers, and always has room for them.
    pub trusted: BTreeSet<PeerId>,
}
