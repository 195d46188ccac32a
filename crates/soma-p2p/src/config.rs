//! What an operator can set. Every default is the seed documents', or says why it is what it is.

use crate::{peer_memory::PeerMemory, synced_commits::TELL_EVERY};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use soma_actors::verifier::Verification;
use soma_network::wire::limits::{
    MAX_BLOCKS_PER_FETCH, MAX_COMMITS_PER_FETCH, MAX_COMMITS_RESPONSE_BYTES, MAX_KNOWN_PEERS,
};
use soma_protocol::serving::{self, Rates};
use soma_replay::core_names;
use soma_types::{Access, Address, AddressError, ChainId, ListenAddress, NodeRole, PeerId, limits};
use std::{collections::BTreeSet, fmt, path::PathBuf, str::FromStr, time::Duration};

/// Configuration of the subsystem. Unknown keys are errors; durations are texts such as `"5s"` or `"250ms"`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
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
    /// Recording what the actors receive; not recorded without it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub trace: Option<TraceConfig>,
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
            trace: None,
        }
    }
}

/// Finding peers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
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
pub struct StateSyncConfig {
    /// Messages in each actor's mailbox.
    pub mailbox_capacity: usize,
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
            mailbox_capacity: 50,
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
    pub(crate) fn core(&self, chain: ChainId, allowlist: BTreeSet<PeerId>) -> serving::Config {
        let rates = Rates {
            calls: self.max_calls_per_second,
            pushes: self.max_pushes_per_second,
            peer_queries: self.max_peer_queries_per_second,
            bytes: self.max_bytes_per_second,
            burst: self.burst,
        };
        let (max_calls_per_peer, max_calls) = (self.max_calls_per_peer, self.max_calls);
        serving::Config { chain, allowlist, max_calls_per_peer, max_calls, rates }
    }
}

/// Calls a second beyond which counting them means nothing.
const MAX_RATE: u64 = 1_000_000;

/// Bytes a second below which one answer with commits would put a peer in debt for longer than its hint can say.
const MIN_BYTES_PER_SECOND: u64 = 256 << 10;

/// Checking signatures.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
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

/// Longest time that a setting may be: sums of some of them are far from the end of the clock.
const MAX_DURATION: Duration = Duration::from_secs(10 * 365 * 24 * 60 * 60);

/// Most bytes that a setting may be, a tebibyte: sums of some of them are far from what can be counted.
const MAX_BYTES: u64 = 1 << 40;

/// A value that cannot be.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{key} = {value}: {rule}")]
pub struct ConfigError {
    /// Which.
    pub key: &'static str,
    /// What was given.
    pub value: String,
    /// What it must be.
    pub rule: String,
}

/// Peers on the allowlist, and on the denylist; a list is searched for each connection.
const MAX_ALLOWED: u64 = 10_000;

impl Config {
    /// Checks every value, and values against one another.
    pub fn validate(&self) -> Result<(), ConfigError> {
        let check = |key, value: u64, min: u64, max: u64| {
            if (min..=max).contains(&value) {
                return Ok(());
            }
            let rule =
                if max == u64::MAX { format!("must be at least {min}") } else { format!("must be {min} to {max}") };
            Err(ConfigError { key, value: value.to_string(), rule })
        };
        let positive = |key, value: Duration| {
            if (Duration::from_millis(1)..=MAX_DURATION).contains(&value) {
                return Ok(());
            }
            Err(ConfigError { key, value: format!("{value:?}"), rule: "must be 1ms to 10 years".into() })
        };
        let (discovery, connections) = (&self.discovery, &self.connections);
        let (sync, serving) = (&self.state_sync, &self.serving);
        positive("discovery.interval", discovery.interval)?;
        positive("discovery.query_timeout", discovery.query_timeout)?;
        check("discovery.peers_to_query", discovery.peers_to_query as u64, 1, 1_000)?;
        check("discovery.target_connections", discovery.target_connections as u64, 1, connections.max_outbound as u64)?;
        check("discovery.max_peers_in_answer", discovery.max_peers_in_answer as u64, 1, MAX_KNOWN_PEERS as u64)?;
        check("connections.max_outbound", connections.max_outbound as u64, 1, 10_000)?;
        // More than `max_outbound` is no error: who lowers that need not think of this.
        check("connections.max_outbound_per_group", connections.max_outbound_per_group as u64, 1, 10_000)?;
        check("connections.max_inbound", connections.max_inbound as u64, 0, 10_000)?;
        check("connections.max_inbound_per_source", connections.max_inbound_per_source as u64, 1, 10_000)?;
        check("connections.max_dials", connections.max_dials as u64, 1, 1_000)?;
        positive("connections.connect_timeout", connections.connect_timeout)?;
        check("connections.allowlist (count)", connections.allowlist.len() as u64, 0, MAX_ALLOWED)?;
        check("connections.denylist (count)", connections.denylist.len() as u64, 0, MAX_ALLOWED)?;
        let allowed: BTreeSet<_> = connections.allowlist.iter().collect();
        if let Some(both) = connections.denylist.iter().find(|peer| allowed.contains(peer)) {
            let rule = "must not be on connections.allowlist, too".into();
            return Err(ConfigError { key: "connections.denylist", value: both.to_string(), rule });
        }
        positive("connections.ban_min", connections.ban_min)?;
        positive("connections.ban_max", connections.ban_max)?;
        if connections.ban_max < connections.ban_min {
            let (value, rule) = (format!("{:?}", connections.ban_max), "must be at least connections.ban_min".into());
            return Err(ConfigError { key: "connections.ban_max", value, rule });
        }
        // 0 would mean an unbounded mailbox to actix.
        check("state_sync.mailbox_capacity", sync.mailbox_capacity as u64, 1, 100_000)?;
        let channel = sync.synced_commit_channel_capacity as u64;
        check("state_sync.synced_commit_channel_capacity", channel, 1, 100_000)?;
        positive("state_sync.wait_when_no_peer", sync.wait_when_no_peer)?;
        positive("state_sync.request_timeout", sync.request_timeout)?;
        positive("state_sync.height_query_interval", sync.height_query_interval)?;
        check("state_sync.commits_per_fetch", sync.commits_per_fetch.into(), 1, MAX_COMMITS_PER_FETCH as u64)?;
        check("state_sync.blocks_per_fetch", sync.blocks_per_fetch.into(), 1, MAX_BLOCKS_PER_FETCH as u64)?;
        check("state_sync.max_workers", sync.max_workers as u64, 1, 256)?;
        // A range must be able to hold the largest commit with its votes, or it could never be fetched.
        let largest = (limits::MAX_COMMIT_BLOCKS_BYTES + MAX_COMMITS_RESPONSE_BYTES) as u64;
        check("state_sync.bytes_per_range", sync.bytes_per_range, largest, MAX_BYTES)?;
        check("state_sync.max_executor_lag", sync.max_executor_lag.into(), TELL_EVERY.into(), u32::MAX.into())?;
        check("state_sync.bytes_in_flight", sync.bytes_in_flight, sync.bytes_per_range, MAX_BYTES)?;
        check("serving.max_calls_per_peer", serving.max_calls_per_peer as u64, 1, 10_000)?;
        check("serving.max_calls", serving.max_calls as u64, 1, 100_000)?;
        check("serving.max_calls_per_second", serving.max_calls_per_second, 1, MAX_RATE)?;
        check("serving.max_pushes_per_second", serving.max_pushes_per_second, 1, MAX_RATE)?;
        check("serving.max_peer_queries_per_second", serving.max_peer_queries_per_second, 1, MAX_RATE)?;
        if serving.max_bytes_per_second != 0 {
            check("serving.max_bytes_per_second", serving.max_bytes_per_second, MIN_BYTES_PER_SECOND, MAX_BYTES)?;
        }
        let memory = PeerMemory::new(self);
        if !(memory.least()..=MAX_BYTES).contains(&self.peer_memory_bytes) {
            let inbound = connections.max_inbound;
            let rule = format!("must be {} to {MAX_BYTES} with {inbound} inbound connections", memory.least());
            return Err(ConfigError { key: "peer_memory_bytes", value: self.peer_memory_bytes.to_string(), rule });
        }
        // A second at least, or a bucket of one call in a second would never hold one.
        if !(Duration::from_secs(1)..=Duration::from_secs(60)).contains(&serving.burst) {
            let (value, rule) = (format!("{:?}", serving.burst), "must be 1s to 60s".into());
            return Err(ConfigError { key: "serving.burst", value, rule });
        }
        check("verifier.threads", self.verifier.threads as u64, 0, 1_024)?;
        if let Some(trace) = &self.trace {
            check("trace.ring_mib", trace.ring_mib, 1, 1 << 20)?;
            let known: Vec<_> = core_names().collect();
            if let Some(unknown) = trace.actors.iter().find(|actor| !known.contains(&actor.as_str())) {
                let rule = format!("must be among {}", known.join(", "));
                return Err(ConfigError { key: "trace.actors", value: format!("{unknown:?}"), rule });
            }
        }
        let addresses = self.external_addresses.len() as u64;
        check("external_addresses (count)", addresses, 0, limits::MAX_ADDRESSES_PER_NODE as u64)?;
        let mut seen = BTreeSet::new();
        match self.external_addresses.iter().find(|address| !seen.insert(*address)) {
            Some(address) => {
                let rule = "must name each address once".into();
                Err(ConfigError { key: "external_addresses", value: address.to_string(), rule })
            }
            None => Ok(()),
        }
    }
}

/// A peer to begin with: `PEER_ID@ADDRESS`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SeedPeer {
    /// Whose key must answer.
    pub peer_id: PeerId,
    /// Where.
    pub address: Address,
}

/// Why a text names no peer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SeedPeerError {
    /// Not of the form.
    #[error("{0:?} is not of the form PEER_ID@ADDRESS, such as 3b6a…29@/ip4/192.0.2.1/tcp/9000")]
    Form(String),
    /// No peer id before the @.
    #[error("{0}")]
    PeerId(String),
    /// No address behind the @.
    #[error(transparent)]
    Address(#[from] AddressError),
}

impl FromStr for SeedPeer {
    type Err = SeedPeerError;

    fn from_str(text: &str) -> Result<Self, SeedPeerError> {
        let (peer_id, address) = text.split_once('@').ok_or_else(|| SeedPeerError::Form(text.into()))?;
        Ok(Self { peer_id: peer_id.parse().map_err(SeedPeerError::PeerId)?, address: address.parse()? })
    }
}

impl fmt::Display for SeedPeer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}@{}", self.peer_id, self.address)
    }
}

impl Serialize for SeedPeer {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for SeedPeer {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(de::Error::custom)
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

    #[test]
    fn a_seed_peer_without_id_or_with_a_bad_address_is_refused_with_the_reason() {
        let form = "/ip4/1.2.3.4/tcp/1".parse::<SeedPeer>().unwrap_err();
        assert!(form.to_string().contains("PEER_ID@ADDRESS"), "{form}");
        let id = "zz@/ip4/1.2.3.4/tcp/1".parse::<SeedPeer>().unwrap_err();
        assert!(id.to_string().contains("64 hex digits"), "{id}");
        let address = format!("{}@1.2.3.4:1", PeerId([1; 32])).parse::<SeedPeer>().unwrap_err();
        assert!(address.to_string().contains("/ip4/ADDR/tcp/PORT"), "{address}");
    }
}
