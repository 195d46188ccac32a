//! Messages that spread before there is a commit.

use super::schema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use soma_protocol::broadcast::Config as Core;
use soma_types::PeerId;
use std::time::Duration;

/// Spreading messages among nodes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
#[non_exhaustive]
pub struct BroadcastConfig {
    /// Whether the node takes part. A node that does not still syncs.
    pub enabled: bool,
    /// Whether the node sends messages of the topic `consensus` on to full nodes.
    pub relay_consensus: bool,
    /// Bytes of the payload of one message of the topics `certificates` and `transactions` that the node accepts.
    /// Range: 1,024 to 1,052,672.
    pub max_message_bytes: u32,
    /// For how long the node keeps messages for peers that lack them. Range: 1 s to 5 min.
    #[serde(with = "humantime_serde")]
    #[schemars(with = "schema::Duration")]
    pub history: Duration,
    /// Bytes of such messages, of each topic. Range: 4 MiB to 4 GiB.
    pub history_bytes: u64,
}

impl Default for BroadcastConfig {
    fn default() -> Self {
        Self {
            enabled: true,
            relay_consensus: false,
            max_message_bytes: 256 << 10,
            history: Duration::from_secs(30),
            history_bytes: 64 << 20,
        }
    }
}

impl BroadcastConfig {
    /// For the core.
    pub(crate) fn core(&self, own: PeerId, seed: u64) -> Core {
        Core {
            own,
            seed,
            relays_consensus: self.relay_consensus,
            max_message_bytes: self.max_message_bytes,
            history: self.history,
            history_bytes: self.history_bytes,
        }
    }
}
