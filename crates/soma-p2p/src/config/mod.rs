//! The operator's settings. Every default comes from the seed documents, or gives its reason.

mod archive;
mod broadcast;
pub(crate) mod checks;
mod schema;
mod seed_peer;
mod start;

pub use archive::{ArchiveConfig, ArchiveRead};
pub use broadcast::BroadcastConfig;
pub use checks::ConfigError;
pub use seed_peer::{SeedPeer, SeedPeerError};
pub use start::Start;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use soma_actors::verifier::Verification;
use soma_network::wire::limits::{MAX_BLOCKS_PER_FETCH, MAX_KNOWN_PEERS};
use soma_protocol::grpc_adapter::{self, Rates};
use soma_replay::RingConfig;
use soma_store::Retention;
use soma_types::{Access, Address, ChainId, ListenAddress, NodeRole, PeerId};
use std::{collections::BTreeSet, path::PathBuf, time::Duration};

/// Configuration of the subsystem. Unknown keys are errors; durations are texts such as `"5s"` or `"250ms"`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
#[non_exhaustive]
pub struct Config {
    /// Where to listen: an IP address of this machine, no name; port 0 lets the system choose.
    #[schemars(with = "schema::ListenAddress")]
    pub listen: ListenAddress,
    /// Addresses to tell peers, best first, at most 8. None: the one listened on, unless that is unspecified
    /// (`0.0.0.0`, `::`); then it is learned from where peers see this node, with the port of `listen`.
    #[schemars(with = "Vec<schema::Address>")]
    pub external_addresses: Vec<Address>,
    /// First peers, as `PEER_ID@ADDRESS`. The node dials them without end while it has few links.
    #[schemars(with = "Vec<schema::SeedPeer>")]
    pub seed_peers: Vec<SeedPeer>,
    /// The node's part in the network, told to peers: `full-node` or `validator`.
    #[schemars(with = "schema::NodeRole")]
    pub role: NodeRole,
    /// Which peers may learn this node's address from others: `public` all, `trusted` their trusted peers, `private`
    /// none.
    #[schemars(with = "schema::Access")]
    pub access: Access,
    /// Where a node with an empty store begins: `"genesis"`, `"latest-epoch"`, `{ commit = INDEX, digest = "HEX" }`
    /// with the last commit of an epoch, or `{ checkpoint = "FILE" }`, relative to the configuration file's directory.
    pub start: Start,
    /// Whether a node that began late fetches the earlier commits, too: backwards, while it has nothing else to fetch.
    /// Not beside a window of `pruning`. Needs twice `state_sync.bytes_per_range` in `state_sync.bytes_in_flight`.
    pub backfill: bool,
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
    /// Removing old commits.
    pub pruning: PruningConfig,
    /// History in object storage.
    pub archive: ArchiveConfig,
    /// Spreading messages.
    pub broadcast: BroadcastConfig,
    /// Bytes that all peers together can make this node hold, divided into parts. The least depends on
    /// `connections.max_inbound`: 293,666,816 by default.
    pub peer_memory_bytes: u64,
    /// Messages in each actor's mailbox, 1 to 100,000.
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
            start: Start::Genesis,
            backfill: false,
            discovery: DiscoveryConfig::default(),
            connections: ConnectionsConfig::default(),
            state_sync: StateSyncConfig::default(),
            serving: ServingConfig::default(),
            verifier: VerifierConfig::default(),
            pruning: PruningConfig::default(),
            archive: ArchiveConfig::default(),
            broadcast: BroadcastConfig::default(),
            peer_memory_bytes: 352 << 20,
            mailbox_capacity: 50,
            trace: None,
        }
    }
}

/// Finding peers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
#[non_exhaustive]
pub struct DiscoveryConfig {
    /// How often peers are asked for others, and dials and probes begin; every second at least while there is no
    /// link.
    #[serde(with = "humantime_serde")]
    #[schemars(with = "schema::Duration")]
    pub interval: Duration,
    /// How many are asked each time. Range: 1 to 1,000.
    pub peers_to_query: usize,
    /// How long such a call may take, and a height query or a push.
    #[serde(with = "humantime_serde")]
    #[schemars(with = "schema::Duration")]
    pub query_timeout: Duration,
    /// Links that this node looks for; trusted peers are dialled beyond it. Range: 1 to `max_outbound`.
    pub target_connections: usize,
    /// Peers told in one answer. Range: 1 to 200.
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
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
#[non_exhaustive]
pub struct ConnectionsConfig {
    /// Connections that this node makes, without those to trusted peers: the allowlist and the validators of the
    /// current committee. Range: 1 to 10,000.
    pub max_outbound: usize,
    /// Maximum of these connections to one network: 16 bits of an IPv4 address, 32 of an IPv6 address. Private and local addresses are
    /// exempt, each name is also held to it by its domain while it is dialled. Range: 1 to 10,000.
    pub max_outbound_per_group: usize,
    /// Connections that others make. When all are taken, a newcomer displaces the one that would be missed least, and
    /// a trusted peer always gets in; 0 lets nobody in. Range: 0 to 10,000.
    pub max_inbound: usize,
    /// Maximum of these connections from one IP address; loopback and trusted peers are exempt. Range: 1 to 10,000.
    pub max_inbound_per_source: usize,
    /// Dials at once; a dial that has taken a second does not count, up to four times as many. Range: 1 to 1,000.
    pub max_dials: usize,
    /// How long one dial to one address may take, handshakes included; and again for asking which chain it is on. Of
    /// several addresses one is tried 250 ms after the other.
    #[serde(with = "humantime_serde")]
    #[schemars(with = "schema::Duration")]
    pub connect_timeout: Duration,
    /// Peers that are never disconnected for a fault: they pause for as long as others would be
    /// banned. There is always a place for them. Range: at most 10,000.
    #[schemars(with = "Vec<schema::Hex>")]
    pub allowlist: Vec<PeerId>,
    /// Peer ids that are neither dialled nor let in; none may be on the allowlist, too. Range: at most 10,000.
    #[schemars(with = "Vec<schema::Hex>")]
    pub denylist: Vec<PeerId>,
    /// First ban of a peer that lied or sent malformed data; each further one is twice as long.
    #[serde(with = "humantime_serde")]
    #[schemars(with = "schema::Duration")]
    pub ban_min: Duration,
    /// Longest ban.
    #[serde(with = "humantime_serde")]
    #[schemars(with = "schema::Duration")]
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
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
#[non_exhaustive]
pub struct StateSyncConfig {
    /// Commits in memory that an executor's stream takes over at once. Range: 1 to 100,000.
    pub synced_commit_channel_capacity: usize,
    /// How long a range waits that no peer can serve.
    #[serde(with = "humantime_serde")]
    #[schemars(with = "schema::Duration")]
    pub wait_when_no_peer: Duration,
    /// How long one request of a worker may take, a whole stream of blocks included.
    #[serde(with = "humantime_serde")]
    #[schemars(with = "schema::Duration")]
    pub request_timeout: Duration,
    /// Commits in one answer; a range has up to four answers where commits are small, and fewer commits where they
    /// are large or a peer is slow. Range: 1 to 100.
    pub commits_per_fetch: u32,
    /// Blocks in one request. Range: 1 to 1,000.
    pub blocks_per_fetch: u32,
    /// Ranges fetched at once, at most, without up to 12 attempts at the next one; how many there are adapts to
    /// bandwidth and delay. Range: 1 to 256.
    pub max_workers: usize,
    /// Bytes fetched and not yet stored, in all. Range: at least `bytes_per_range`.
    pub bytes_in_flight: u64,
    /// Bytes that one range may ever hold: room for the largest commit and its votes. It reserves twice of what its
    /// commits are expected to take. Range: at least 29,360,128.
    pub bytes_per_range: u64,
    /// Commits that the node may be ahead of its slowest executor before it stops fetching, if it has any. Range: at
    /// least 64.
    pub max_executor_lag: u32,
    /// How often each peer is asked how far it has got.
    #[serde(with = "humantime_serde")]
    #[schemars(with = "schema::Duration")]
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
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
#[non_exhaustive]
pub struct ServingConfig {
    /// Calls of one peer answered at once; one connection carries 64. Range: 1 to 10,000.
    pub max_calls_per_peer: usize,
    /// Calls of all peers answered at once that fetch, and as many short ones (pushes and questions for heights). A
    /// quarter is kept for trusted peers, one for peers that have been of use, one for new ones. Range: 1 to 100,000.
    pub max_calls: usize,
    /// Calls of one peer, on all its connections. One that syncs 100,000 blocks a second makes about 1,300. Range: 1
    /// to 1,000,000.
    pub max_calls_per_second: u64,
    /// Announcements of commits among these calls. Range: 1 to 1,000,000.
    pub max_pushes_per_second: u64,
    /// Questions for other peers among these calls. Range: 1 to 1,000,000.
    pub max_peer_queries_per_second: u64,
    /// Bytes of blocks and commits for one peer; 0: any number. Not limited by default: peers that sync should be as
    /// fast as the line, and only the operator knows what that costs. A call that has begun is finished (within 30
    /// s); the next ones are refused until its debt is paid off. Range: 0, or at least 262,144.
    pub max_bytes_per_second: u64,
    /// A peer that was quiet for this long may use the rates of that time at once. Range: 1 s to 60 s.
    #[serde(with = "humantime_serde")]
    #[schemars(with = "schema::Duration")]
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
    pub(crate) fn core(&self, chain: ChainId) -> grpc_adapter::Config {
        let rates = Rates {
            calls: self.max_calls_per_second,
            pushes: self.max_pushes_per_second,
            peer_queries: self.max_peer_queries_per_second,
            bytes: self.max_bytes_per_second,
            burst: self.burst,
        };
        let (max_calls_per_peer, max_calls) = (self.max_calls_per_peer, self.max_calls);
        grpc_adapter::Config { chain, allowlist: BTreeSet::new(), max_calls_per_peer, max_calls, rates }
    }
}

/// Checking signatures.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
#[non_exhaustive]
pub struct VerifierConfig {
    /// Threads that check signatures; 0: one for each core. Range: 0 to 1,024.
    pub threads: usize,
    /// How much of a block that a quorum has certified is checked: every signature, or digest and form (docs/adr/0008
    /// says what that gives up). Range: `full`, `certified`.
    #[schemars(with = "schema::Verification")]
    pub verification: Verification,
}

/// Removing old commits. The largest window counts; without any, the node keeps all. It also keeps all commits that its
/// slowest executor has not taken.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
#[non_exhaustive]
pub struct PruningConfig {
    /// `all`: nothing is removed; no window may be set then.
    pub keep: Option<KeepAll>,
    /// Commits to keep behind the last one. Range: at least 100.
    pub commits: Option<u32>,
    /// Epochs to keep; the current one is the first. Range: at least 1.
    pub epochs: Option<u64>,
    /// Time to keep before the last commit, by the timestamps of the chain.
    #[serde(with = "humantime_serde")]
    #[schemars(with = "Option<schema::Duration>")]
    pub time: Option<Duration>,
}

impl PruningConfig {
    /// Whether nothing is removed.
    pub fn keeps_all(&self) -> bool {
        self.retention().keeps_all()
    }

    pub(crate) fn retention(&self) -> Retention {
        Retention { commits: self.commits, epochs: self.epochs, time: self.time }
    }
}

/// The value `all` of `pruning.keep`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum KeepAll {
    /// Keep every commit.
    All,
}

/// Recording what the actors receive, to replay it with `soma-p2p replay`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[non_exhaustive]
pub struct TraceConfig {
    /// Directory of the trace, relative to the configuration file's. The node creates it.
    pub directory: PathBuf,
    /// MiB that the trace files there may have together, traces of earlier runs included; the oldest go first. Range:
    /// 1 to 1,048,576.
    #[serde(default = "TraceConfig::default_ring_mib")]
    pub ring_mib: u64,
    /// Which actors to record. Range: names of actors as in the status, and `sync-worker`.
    #[serde(default)]
    pub actors: Vec<String>,
}

impl TraceConfig {
    /// A trace of all actors with the default size.
    pub fn new(directory: PathBuf) -> Self {
        Self { directory, ring_mib: Self::default_ring_mib(), actors: Vec::new() }
    }

    /// For the recorder.
    pub(crate) fn ring(&self) -> RingConfig {
        RingConfig { directory: self.directory.clone(), max_bytes: self.ring_mib << 20, only: self.actors.clone() }
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
    fn unknown_actor_to_record_is_an_error_that_names_the_known_ones() {
        let text = "[trace]\ndirectory = \"traces\"\nactors = [\"state-sync\", \"statesync\"]\n";
        let error = toml::from_str::<Config>(text).unwrap().validate().unwrap_err();
        assert_eq!((error.key, error.value.as_str()), ("trace.actors", "\"statesync\""));
        assert!(error.rule.contains("state-sync, sync-worker"), "{}", error.rule);
    }
}
