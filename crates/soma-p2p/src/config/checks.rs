//! Checks of every setting, and of settings against one another.

use super::{
    ArchiveConfig, BroadcastConfig, Config, ConnectionsConfig, DiscoveryConfig, PruningConfig, ServingConfig, Start,
    StateSyncConfig, TraceConfig,
};
use crate::{peer_memory::PeerMemory, synced_commits::TELL_EVERY};
use soma_network::wire::limits::{
    MAX_BLOCKS_PER_FETCH, MAX_COMMITS_PER_FETCH, MAX_COMMITS_RESPONSE_BYTES, MAX_KNOWN_PEERS,
};
use soma_replay::core_names;
use soma_types::limits::{self, MAX_MESSAGE_BYTES};
use std::{collections::BTreeSet, fmt::Display, time::Duration};

/// A setting with a forbidden value.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{key} = {value}: {rule}")]
#[non_exhaustive]
pub struct ConfigError {
    /// The setting, with its section.
    pub key: &'static str,
    /// The value found.
    pub value: String,
    /// The rule that the value breaks.
    pub rule: String,
}

impl ConfigError {
    fn new(key: &'static str, value: impl Display, rule: impl Into<String>) -> Self {
        Self { key, value: value.to_string(), rule: rule.into() }
    }
}

/// Maximum of every duration: sums of some durations stay far from the end of the clock.
const MAX_DURATION: Duration = Duration::from_secs(10 * 365 * 24 * 60 * 60);

/// Maximum of every size, a tebibyte: sums of some sizes do not overflow.
const MAX_BYTES: u64 = 1 << 40;

/// Maximum of every rate of calls per second.
const MAX_RATE: u64 = 1_000_000;

/// Minimum of a peer's rate in bytes per second. Below it, one answer with commits puts a peer in debt for longer than
/// its retry hint can say.
const MIN_BYTES_PER_SECOND: u64 = 256 << 10;

/// Minimum of the rate of an archive's writer. Below it, the largest segment takes longer than ten minutes.
const MIN_ARCHIVE_BYTES_PER_SECOND: u64 = 64 << 10;

/// Maximum of peers on the allowlist, and on the denylist. Every connection searches both lists.
const MAX_LISTED_PEERS: u64 = 10_000;

/// Bounds of `serving.burst`. Below a second, a bucket of one call per second never holds a call.
const BURST: std::ops::RangeInclusive<Duration> = Duration::from_secs(1)..=Duration::from_secs(60);

/// Bounds of `broadcast.history`. Below a second, a lost message cannot be asked for. Above some minutes, it is of no
/// use.
const HISTORY: std::ops::RangeInclusive<Duration> = Duration::from_secs(1)..=Duration::from_secs(300);

impl Config {
    /// Checks every value, and values against one another.
    ///
    /// # Errors
    ///
    /// The first setting that breaks a rule.
    pub fn validate(&self) -> Result<(), ConfigError> {
        check_start(&self.start)?;
        check_discovery(&self.discovery, &self.connections)?;
        check_connections(&self.connections)?;
        check_state_sync(&self.state_sync)?;
        check_serving(&self.serving)?;
        check_pruning(&self.pruning)?;
        check_archive(&self.archive)?;
        check_broadcast(&self.broadcast)?;
        self.check_backfill()?;
        in_range("verifier.threads", self.verifier.threads as u64, 0, 1_024)?;
        // actix takes 0 for a mailbox without a bound.
        in_range("mailbox_capacity", self.mailbox_capacity as u64, 1, 100_000)?;
        self.check_peer_memory()?;
        self.trace.as_ref().map_or(Ok(()), check_trace)?;
        self.check_external_addresses()
    }

    fn check_backfill(&self) -> Result<(), ConfigError> {
        let sync = &self.state_sync;
        let rule = match self.backfill {
            true if !self.pruning.keeps_all() => {
                "must be false beside pruning.commits, pruning.epochs or pruning.time: backfill fetches what pruning removes"
            }
            true if sync.bytes_in_flight / 2 < sync.bytes_per_range => {
                "must be false unless state_sync.bytes_in_flight is at least twice state_sync.bytes_per_range"
            }
            _ => return Ok(()),
        };
        Err(ConfigError::new("backfill", true, rule))
    }

    fn check_peer_memory(&self) -> Result<(), ConfigError> {
        let least = PeerMemory::new(self).least();
        if (least..=MAX_BYTES).contains(&self.peer_memory_bytes) {
            return Ok(());
        }
        let inbound = self.connections.max_inbound;
        let rule = format!("must be {least} to {MAX_BYTES} with {inbound} inbound connections");
        Err(ConfigError::new("peer_memory_bytes", self.peer_memory_bytes, rule))
    }

    fn check_external_addresses(&self) -> Result<(), ConfigError> {
        let count = self.external_addresses.len() as u64;
        in_range("external_addresses (count)", count, 0, limits::MAX_ADDRESSES_PER_NODE as u64)?;
        let mut seen = BTreeSet::new();
        match self.external_addresses.iter().find(|address| !seen.insert(*address)) {
            Some(address) => Err(ConfigError::new("external_addresses", address, "must name each address once")),
            None => Ok(()),
        }
    }
}

fn in_range(key: &'static str, value: u64, min: u64, max: u64) -> Result<(), ConfigError> {
    if (min..=max).contains(&value) {
        return Ok(());
    }
    Err(ConfigError::new(key, value, format!("must be {min} to {max}")))
}

fn is_duration(key: &'static str, value: Duration) -> Result<(), ConfigError> {
    if (Duration::from_millis(1)..=MAX_DURATION).contains(&value) {
        return Ok(());
    }
    Err(ConfigError::new(key, format!("{value:?}"), "must be 1ms to 10 years"))
}

fn check_discovery(discovery: &DiscoveryConfig, connections: &ConnectionsConfig) -> Result<(), ConfigError> {
    is_duration("discovery.interval", discovery.interval)?;
    is_duration("discovery.query_timeout", discovery.query_timeout)?;
    in_range("discovery.peers_to_query", discovery.peers_to_query as u64, 1, 1_000)?;
    let max_outbound = connections.max_outbound as u64;
    in_range("discovery.target_connections", discovery.target_connections as u64, 1, max_outbound)?;
    in_range("discovery.max_peers_in_answer", discovery.max_peers_in_answer as u64, 1, MAX_KNOWN_PEERS as u64)
}

fn check_connections(connections: &ConnectionsConfig) -> Result<(), ConfigError> {
    in_range("connections.max_outbound", connections.max_outbound as u64, 1, 10_000)?;
    // More than `max_outbound` is no error, so that an operator can lower that alone.
    in_range("connections.max_outbound_per_group", connections.max_outbound_per_group as u64, 1, 10_000)?;
    in_range("connections.max_inbound", connections.max_inbound as u64, 0, 10_000)?;
    in_range("connections.max_inbound_per_source", connections.max_inbound_per_source as u64, 1, 10_000)?;
    in_range("connections.max_dials", connections.max_dials as u64, 1, 1_000)?;
    is_duration("connections.connect_timeout", connections.connect_timeout)?;
    in_range("connections.allowlist (count)", connections.allowlist.len() as u64, 0, MAX_LISTED_PEERS)?;
    in_range("connections.denylist (count)", connections.denylist.len() as u64, 0, MAX_LISTED_PEERS)?;
    let allowed: BTreeSet<_> = connections.allowlist.iter().collect();
    if let Some(both) = connections.denylist.iter().find(|peer| allowed.contains(peer)) {
        return Err(ConfigError::new("connections.denylist", both, "must not be on connections.allowlist, too"));
    }
    is_duration("connections.ban_min", connections.ban_min)?;
    is_duration("connections.ban_max", connections.ban_max)?;
    if connections.ban_max < connections.ban_min {
        let value = format!("{:?}", connections.ban_max);
        return Err(ConfigError::new("connections.ban_max", value, "must be at least connections.ban_min"));
    }
    Ok(())
}

fn check_start(start: &Start) -> Result<(), ConfigError> {
    match start {
        Start::Commit(commit) if commit.index == 0 => {
            let rule = "must be at least 1; \"genesis\" begins with commit 1";
            Err(ConfigError::new("start.commit", 0, rule))
        }
        _ => Ok(()),
    }
}

fn check_pruning(pruning: &PruningConfig) -> Result<(), ConfigError> {
    // A peer that fetches needs some time between learning what there is and asking for it.
    pruning.commits.map_or(Ok(()), |commits| in_range("pruning.commits", commits.into(), 100, u32::MAX.into()))?;
    pruning.epochs.map_or(Ok(()), |epochs| in_range("pruning.epochs", epochs, 1, u64::MAX))?;
    pruning.time.map_or(Ok(()), |time| is_duration("pruning.time", time))?;
    if pruning.keep.is_some() && !pruning.keeps_all() {
        let rule = "must not be set beside pruning.commits, pruning.epochs or pruning.time";
        return Err(ConfigError::new("pruning.keep", "all", rule));
    }
    Ok(())
}

fn check_broadcast(broadcast: &BroadcastConfig) -> Result<(), ConfigError> {
    let limit = MAX_MESSAGE_BYTES as u64;
    in_range("broadcast.max_message_bytes", broadcast.max_message_bytes.into(), 1 << 10, limit)?;
    in_range("broadcast.history_bytes", broadcast.history_bytes, 4 << 20, 4 << 30)?;
    if !HISTORY.contains(&broadcast.history) {
        return Err(ConfigError::new("broadcast.history", format!("{:?}", broadcast.history), "must be 1s to 5min"));
    }
    Ok(())
}

fn check_archive(archive: &ArchiveConfig) -> Result<(), ConfigError> {
    if archive.max_bytes_per_second != 0 {
        let rate = archive.max_bytes_per_second;
        in_range("archive.max_bytes_per_second", rate, MIN_ARCHIVE_BYTES_PER_SECOND, MAX_BYTES)?;
    }
    Ok(())
}

fn check_state_sync(sync: &StateSyncConfig) -> Result<(), ConfigError> {
    let channel = sync.synced_commit_channel_capacity as u64;
    in_range("state_sync.synced_commit_channel_capacity", channel, 1, 100_000)?;
    is_duration("state_sync.wait_when_no_peer", sync.wait_when_no_peer)?;
    is_duration("state_sync.request_timeout", sync.request_timeout)?;
    is_duration("state_sync.height_query_interval", sync.height_query_interval)?;
    in_range("state_sync.commits_per_fetch", sync.commits_per_fetch.into(), 1, MAX_COMMITS_PER_FETCH as u64)?;
    in_range("state_sync.blocks_per_fetch", sync.blocks_per_fetch.into(), 1, MAX_BLOCKS_PER_FETCH as u64)?;
    in_range("state_sync.max_workers", sync.max_workers as u64, 1, 256)?;
    // A range must be able to hold the largest commit with its votes, or no node could fetch that commit.
    let largest = (limits::MAX_COMMIT_BLOCKS_BYTES + MAX_COMMITS_RESPONSE_BYTES) as u64;
    in_range("state_sync.bytes_per_range", sync.bytes_per_range, largest, MAX_BYTES)?;
    in_range("state_sync.max_executor_lag", sync.max_executor_lag.into(), TELL_EVERY.into(), u32::MAX.into())?;
    in_range("state_sync.bytes_in_flight", sync.bytes_in_flight, sync.bytes_per_range, MAX_BYTES)
}

fn check_serving(serving: &ServingConfig) -> Result<(), ConfigError> {
    in_range("serving.max_calls_per_peer", serving.max_calls_per_peer as u64, 1, 10_000)?;
    in_range("serving.max_calls", serving.max_calls as u64, 1, 100_000)?;
    in_range("serving.max_calls_per_second", serving.max_calls_per_second, 1, MAX_RATE)?;
    in_range("serving.max_pushes_per_second", serving.max_pushes_per_second, 1, MAX_RATE)?;
    in_range("serving.max_peer_queries_per_second", serving.max_peer_queries_per_second, 1, MAX_RATE)?;
    if serving.max_bytes_per_second != 0 {
        in_range("serving.max_bytes_per_second", serving.max_bytes_per_second, MIN_BYTES_PER_SECOND, MAX_BYTES)?;
    }
    if !BURST.contains(&serving.burst) {
        return Err(ConfigError::new("serving.burst", format!("{:?}", serving.burst), "must be 1s to 60s"));
    }
    Ok(())
}

pub(crate) fn check_trace(trace: &TraceConfig) -> Result<(), ConfigError> {
    in_range("trace.ring_mib", trace.ring_mib, 1, 1 << 20)?;
    let known: Vec<_> = core_names().collect();
    if let Some(unknown) = trace.actors.iter().find(|actor| !known.contains(&actor.as_str())) {
        let rule = format!("must be among {}", known.join(", "));
        return Err(ConfigError::new("trace.actors", format!("{unknown:?}"), rule));
    }
    Ok(())
}
