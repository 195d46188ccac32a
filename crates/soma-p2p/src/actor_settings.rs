//! What a configuration means for each actor. The wiring adds the chosen peers to it at every start of an actor.

use crate::{config::Config, node_parts::NodeParts};
use soma_actors::{connections, state_sync};
use soma_protocol::{
    ChosenPeers, connections as connections_core, discovery as discovery_core, peer_heights as heights_core,
    state_sync as sync_core,
};
use soma_types::{Address, ChainId, NodeInfo, PeerId};
use std::collections::{BTreeMap, BTreeSet};

/// The seeds and the allowlist of the configuration.
pub(crate) fn chosen_peers(config: &Config) -> ChosenPeers {
    let mut seeds: BTreeMap<PeerId, Vec<Address>> = BTreeMap::new();
    for seed in &config.seed_peers {
        seeds.entry(seed.peer_id).or_default().push(seed.address.clone());
    }
    ChosenPeers { seeds, trusted: config.connections.allowlist.iter().copied().collect() }
}

pub(crate) fn connections_core(config: &Config, seed: u64) -> connections_core::Config {
    connections_core::Config {
        max_outbound: config.connections.max_outbound,
        max_outbound_per_group: config.connections.max_outbound_per_group,
        max_inbound: config.connections.max_inbound,
        max_inbound_per_source: config.connections.max_inbound_per_source,
        max_dials: config.connections.max_dials,
        denylist: config.connections.denylist.iter().copied().collect(),
        seed,
        ..Default::default()
    }
}

pub(crate) fn connections(parts: &NodeParts) -> connections::Settings {
    connections::Settings {
        chain: parts.genesis.chain_id(),
        genesis_commit: parts.genesis.commit().reference(),
        connect_timeout: parts.config.connections.connect_timeout,
    }
}

pub(crate) fn discovery_core(parts: &NodeParts, own_info: &NodeInfo, listening: &Address) -> discovery_core::Config {
    let NodeParts { config, seed, .. } = parts;
    discovery_core::Config {
        own_id: own_info.peer_id,
        seeds: Vec::new(),
        allowlist: BTreeSet::new(),
        denylist: config.connections.denylist.iter().copied().collect(),
        addresses: own_info.addresses.clone(),
        listen_port: Some(listening.host_and_port().1),
        interval: config.discovery.interval,
        peers_to_query: config.discovery.peers_to_query,
        target_connections: config.discovery.target_connections,
        max_per_group: config.connections.max_outbound_per_group,
        max_answer: config.discovery.max_peers_in_answer,
        seed: *seed,
    }
}

pub(crate) fn peer_heights_core(config: &Config, seed: u64) -> heights_core::Config {
    heights_core::Config {
        query_interval: config.state_sync.height_query_interval,
        seed,
        ban_min: config.connections.ban_min,
        ban_max: config.connections.ban_max,
        allowlist: BTreeSet::new(),
    }
}

/// `has_archive`: the node has one to read from.
pub(crate) fn state_sync_core(config: &Config, has_archive: bool) -> sync_core::Config {
    let sync = &config.state_sync;
    let archive = if has_archive { config.archive.read.core() } else { sync_core::ArchiveUse::Never };
    sync_core::Config {
        commits_per_fetch: sync.commits_per_fetch,
        max_workers: sync.max_workers,
        bytes_in_flight: sync.bytes_in_flight,
        bytes_per_range: sync.bytes_per_range,
        no_peer_wait: sync.wait_when_no_peer,
        max_executor_lag: sync.max_executor_lag,
        start: config.start.core(),
        archive,
        backfill: config.backfill,
        ..Default::default()
    }
}

pub(crate) fn state_sync(config: &Config, chain: ChainId) -> state_sync::Settings {
    state_sync::Settings {
        chain,
        request_timeout: config.state_sync.request_timeout,
        commits_per_fetch: config.state_sync.commits_per_fetch,
        blocks_per_request: config.state_sync.blocks_per_fetch,
    }
}
