//! What an operator can set. Every default is the seed documents', or says why it is what it is.

mod checks;
mod seed_peer;

pub use checks::ConfigError;
pub use seed_peer::{SeedPeer, SeedPeerError};

use serde::{Deserialize, Serialize};
use soma_actors::verifier::Verification;
use soma_network::wire::limits::{MAX_BLOCKS_PER_FETCH, MAX_KNOWN_PEERS};
use soma_protocol::grpc_adapter::{self, Rates};
use soma_types::{Access, Address, ChainId, ListenAddress, NodeRole, PeerId};
use std::{collections::BTreeSet, path::PathBuf, time::Duration};

/// Configuration of the subsystem. Unknown keys are errors; durations are texts such as `"5s"` or `"250ms"`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
#[non_exhaustive]
pub struct Config {
    /// Where to listen; port 0 lets the system choose.
    pub listen: ListenAddress,
    /// Addresses to tell peers, best first; empty: the one listened on, if it is a particular one.
    pub external_addresses: Vec<Address>,
    /// Peers to begin with, as `PEER_ID@ADDRESS`.
    pub seed_peers: Vec<SeedPeer>,
    /// The node's part in the network, told to peers.
    pub role: NodeRole,
    /// Whom the node's address may be told.
    pub access: Access,
    /// Finding peers.
    pub discovery: DiscoveryConfig,
    /// Connections with peers.
    pub connections: ConnectionsConfig,
    /// Fetching commits.
    pub state_sync: StateSyncConfig,
    /// Answering peers.
    pub serving: ServingConfig,
    /// Checking signatures.
    pub verifier: VerifierConfig,
    /// Bytes that all peers together can make this node hold, connections included. What is not for connections, handshakes,
    /// known peers and answers being made is for answers that peers have not read yet.
    pub peer_memory_bytes: u64,
    /// Messages that each actor's mailbox holds. A sender beyond it waits, or is refused.
    pub mailbox_capacity: usize,
    /// Recording what the actors receive; not recorded without it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub trace: Option<TraceConfig>,
}

impl Config {
    /// The defaults, with another address to listen on.
    pub fn listening_on(listen: ListenAddress) -> Self {
        Self { listen, ..Self::default() }
    }
}

impl Default for Config {
    fn default() -> Self {
        Self {
            listen: ListenAddress(std::net::SocketAddr::from(([0, 0, 0, 0], 9000))),
            external_addresses: Vec::new(),
            seed_peers: Vec::new(),
            role: NodeRole::FullNode,
            access: Access::Public,
            discovery: DiscoveryConfig::default(),
            connections: ConnectionsConfig::default(),
            state_sync: StateSyncConfig::default(),
            serving: ServingConfig::default(),
            verifier: VerifierConfig::default(),
            peer_memory_bytes: 256 << 20,
            mailbox_capacity: 50,
            trace: None,
        }
    }
}

/// Finding peers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
#[non_exhaustive]
pub struct DiscoveryConfig {
    /// How often peers are asked for others.
    #[serde(with = "humantime_serde")]
    pub interval: Duration,
    /// How many of them at a time.
    pub peers_to_query: usize,
    /// How long one may take to answer.
    #[serde(with = "humantime_serde")]
    pub query_timeout: Duration,
    /// How many peers to be connected to.
    pub target_connections: usize,
    /// Peers told in one answer, at most 200.
    pub max_peers_in_answer: usize,
}

impl Default for DiscoveryConfig {
    fn default() -> Self {
        Self {
            interval: Duration::from_secs(5),
            peers_to_query: 5,
            query_timeout: Duration::from_secs(10),
            target_connections: 20,
            max_peers_in_answer: MAX_KNOWN_PEERS,
        }
    }
}

/// Connections with peers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
#[non_exhaustive]
pub struct ConnectionsConfig {
    /// Connections that this node makes, beside those to the allowlist and to validators.
    pub max_outbound: usize,
    /// Those of them to one network: an IPv4 network of 16 bits, an IPv6 network of 32. Machines near by are exempt.
    pub max_outbound_per_group: usize,
    /// Connections that others make to this node. When all are taken a newcomer displaces the least useful.
    pub max_inbound: usize,
    /// Those of them from one IP address; loopback is exempt.
    pub max_inbound_per_source: usize,
    /// Dials at once.
    pub max_dials: usize,
    /// How long one dial to one address may take, handshakes included.
    #[serde(with = "humantime_serde")]
    pub connect_timeout: Duration,
    /// Peers that are never disconnected for what they do, only not asked for a while, and for whom there is always a place.
    pub allowlist: Vec<PeerId>,
    /// Peers that are neither dialled nor let in.
    pub denylist: Vec<PeerId>,
    /// First ban of a peer that lied or sent malformed data; each further one is twice as long.
    #[serde(with = "humantime_serde")]
    pub ban_min: Duration,
    /// Longest ban.
    #[serde(with = "humantime_serde")]
    pub ban_max: Duration,
}

impl Default for ConnectionsConfig {
    fn default() -> Self {
        let core = soma_protocol::connections::Config::default();
        let heights = soma_protocol::peer_heights::Config::default();
        Self {
            max_outbound: core.max_outbound,
            max_outbound_per_group: core.max_outbound_per_group,
            max_inbound: core.max_inbound,
            max_inbound_per_source: core.max_inbound_per_source,
            max_dials: core.max_dials,
            connect_timeout: Duration::from_secs(5),
            allowlist: Vec::new(),
            denylist: Vec::new(),
            ban_min: heights.ban_min,
            ban_max: heights.ban_max,
        }
    }
}

/// Fetching commits.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
#[non_exhaustive]
pub struct StateSyncConfig {
    /// Commits at hand that an executor's stream takes over at once.
    pub synced_commit_channel_capacity: usize,
    /// How long a range waits when no peer can serve it.
    #[serde(with = "humantime_serde")]
    pub wait_when_no_peer: Duration,
    /// How long one request may take.
    #[serde(with = "humantime_serde")]
    pub request_timeout: Duration,
    /// Commits in one answer, at most 100. A range has up to four times as many.
    pub commits_per_fetch: u32,
    /// Blocks in one request, at most 1,000.
    pub blocks_per_fetch: u32,
    /// Ranges fetched at once, at most. How many there are is for the bytes on their way to decide, which adapt to bandwidth
    /// and delay.
    pub max_workers: usize,
    /// Bytes fetched and not yet stored, in all, whatever peers do.
    pub bytes_in_flight: u64,
    /// Bytes that one range may hold; where it would exceed them it is cut.
    pub bytes_per_range: u64,
    /// Commits that the node may be ahead of its slowest executor before it stops fetching, if it has any.
    pub max_executor_lag: u32,
    /// How often each peer is asked how far it has got, beside what it pushes.
    #[serde(with = "humantime_serde")]
    pub height_query_interval: Duration,
}

impl Default for StateSyncConfig {
    fn default() -> Self {
        let core = soma_protocol::state_sync::Config::default();
        Self {
            synced_commit_channel_capacity: 50,
            wait_when_no_peer: core.no_peer_wait,
            request_timeout: Duration::from_secs(30),
            commits_per_fetch: core.commits_per_fetch,
            blocks_per_fetch: MAX_BLOCKS_PER_FETCH as u32,
            max_workers: core.max_workers,
            bytes_in_flight: core.bytes_in_flight,
            bytes_per_range: core.bytes_per_range,
            max_executor_lag: core.max_executor_lag,
            height_query_interval: soma_protocol::peer_heights::Config::default().query_interval,
        }
    }
}

/// Answering peers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
#[non_exhaustive]
pub struct ServingConfig {
    /// Calls of one peer answered at once: as many as a connection carries, twice, so that an honest one never meets it.
    pub max_calls_per_peer: usize,
    /// Calls of all peers answered at once that fetch, and as many short ones. A quarter is guaranteed to trusted peers, one
    /// to proven ones, one to new ones. Each holds about 1 MiB at most, one for commits up to 12 MiB.
    pub max_calls: usize,
    /// Calls of one peer in a second.
    pub max_calls_per_second: u64,
    /// Pushes of one peer in a second.
    pub max_pushes_per_second: u64,
    /// Times in a second that one peer may ask whom this node knows.
    pub max_peer_queries_per_second: u64,
    /// Bytes of blocks and commits that one peer may take in a second; 0: any number. Only the operator knows what the
    /// line carries and costs, and a limit that is too low makes every peer that syncs from here slower.
    pub max_bytes_per_second: u64,
    /// For how long a peer that was quiet may have saved up what it did not ask for in each second.
    #[serde(with = "humantime_serde")]
    pub burst: Duration,
}

impl Default for ServingConfig {
    fn default() -> Self {
        let rates = Rates::default();
        Self {
            max_calls_per_peer: 128,
            max_calls: 512,
            max_calls_per_second: rates.calls,
            max_pushes_per_second: rates.pushes,
            max_peer_queries_per_second: rates.peer_queries,
            max_bytes_per_second: rates.bytes,
            burst: rates.burst,
        }
    }
}

impl ServingConfig {
    /// For the core, on this chain.
    pub(crate) fn core(&self, chain: ChainId, allowlist: BTreeSet<PeerId>) -> grpc_adapter::Config {
        let rates = Rates {
            calls: self.max_calls_per_second,
            pushes: self.max_pushes_per_second,
            peer_queries: self.max_peer_queries_per_second,
            bytes: self.max_bytes_per_second,
            burst: self.burst,
        };
        let (max_calls_per_peer, max_calls) = (self.max_calls_per_peer, self.max_calls);
        grpc_adapter::Config { chain, allowlist, max_calls_per_peer, max_calls, rates }
    }
}

/// Checking signatures.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
#[non_exhaustive]
pub struct VerifierConfig {
    /// Threads of the CPU pool; 0: one for each core.
    pub threads: usize,
    /// How much of a block that a quorum has certified is checked: `"full"`, every signature of it and its transactions,
    /// or `"certified"`, its digest and its form (docs/adr/0008 in the sources says what that gives up).
    pub verification: Verification,
}

/// Recording what the actors receive, to replay it with `soma-p2p replay`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[non_exhaustive]
pub struct TraceConfig {
    /// Where; made if it is not there.
    pub directory: PathBuf,
    /// MiB that the trace files there may have together; the oldest are dropped.
    #[serde(default = "TraceConfig::default_ring_mib")]
    pub ring_mib: u64,
    /// Names of the actors to record, as in the status, and `sync-worker`; empty: all.
    #[serde(default)]
    pub actors: Vec<String>,
}

impl TraceConfig {
    /// A trace of all actors with the default size.
    pub fn new(directory: PathBuf) -> Self {
        Self { directory, ring_mib: Self::default_ring_mib(), actors: Vec::new() }
    }

    /// Hours of a synced node, minutes of one that catches up.
    const fn default_ring_mib() -> u64 {
        64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_defaults_are_valid_and_survive_a_round_trip_through_toml() {
        let config = Config::default();
        config.validate().unwrap();
        let text = toml::to_string(&config).unwrap();
        assert_eq!(toml::from_str::<Config>(&text).unwrap(), config);
    }

    #[test]
    fn an_unknown_key_is_an_error_that_names_it() {
        let error = toml::from_str::<Config>("[state_sync]\nmax_worker = 3\n").unwrap_err().to_string();
        assert!(error.contains("max_worker"), "{error}");
    }

    #[test]
    fn a_value_out_of_range_is_an_error_that_names_key_value_and_rule() {
        let mut config = Config::default();
        config.state_sync.commits_per_fetch = 101;
        let error = config.validate().unwrap_err().to_string();
        assert_eq!(error, "state_sync.commits_per_fetch = 101: must be 1 to 100");
        config.state_sync.commits_per_fetch = 100;
        config.state_sync.bytes_in_flight = 1;
        assert_eq!(config.validate().unwrap_err().key, "state_sync.bytes_in_flight");
    }

    #[test]
    fn peer_memory_too_small_for_the_connections_is_an_error_with_the_least() {
        let mut config = Config::default();
        config.connections.max_inbound = 1_000;
        let error = config.validate().unwrap_err();
        assert_eq!(error.key, "peer_memory_bytes");
        let least = error.rule.split(' ').find_map(|word| word.parse().ok()).expect("a number");
        config.peer_memory_bytes = least;
        config.validate().unwrap();
        config.peer_memory_bytes = least - 1;
        config.validate().unwrap_err();
    }

    #[test]
    fn a_peer_that_is_both_allowed_and_denied_is_an_error_that_names_it() {
        let mut config = Config::default();
        config.connections.allowlist = vec![PeerId([1; 32]), PeerId([2; 32])];
        config.connections.denylist = vec![PeerId([3; 32])];
        config.validate().unwrap();
        config.connections.denylist.push(PeerId([2; 32]));
        let error = config.validate().unwrap_err();
        assert_eq!((error.key, error.value), ("connections.denylist", PeerId([2; 32]).to_string()));
    }

    #[test]
    fn an_actor_to_record_that_does_not_exist_is_an_error_that_names_those_that_do() {
        let text = "[trace]\ndirectory = \"traces\"\nactors = [\"state-sync\", \"statesync\"]\n";
        let error = toml::from_str::<Config>(text).unwrap().validate().unwrap_err();
        assert_eq!((error.key, error.value.as_str()), ("trace.actors", "\"statesync\""));
        assert!(error.rule.contains("state-sync, sync-worker"), "{}", error.rule);
    }
}
