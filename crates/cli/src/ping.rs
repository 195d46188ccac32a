//! `soma-p2p ping`: whether a node answers, its identity, and how it sees this caller.
//!
//! Asks only what a stranger may ask, who names no chain: so it needs neither the genesis nor a key of its own.

use crate::{error::CliError, files};
use bytes::Bytes;
use serde::Serialize;
use soma_network::wire::{Call, CallError, KnownPeers, Status};
use soma_network::{DialError, Link, TlsTransport, Transport};
use soma_p2p::{Address, ChainId, CommitIndex, NodeRole, PeerId, SeedPeer, SeedPeerError};
use soma_types::{CommitDigest, NodeInfo, ProtocolVersions, SignedNodeInfo};
use soma_verify::verify_node_info;
use std::{
    fmt,
    net::IpAddr,
    path::PathBuf,
    process::ExitCode,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

/// How long a connection may take to end after a call over it failed: what is still up then was not ended by the node.
const END_OF_CONNECTION: Duration = Duration::from_secs(1);

#[derive(clap::Args)]
pub struct Args {
    /// The node to ask, as in its line `ready: peer PEER_ID listens on ADDRESS`.
    #[arg(value_name = "PEER_ID@ADDRESS")]
    peer: String,
    /// Key of the caller, such as that of a node with a place at the other; a new key by default.
    #[arg(long, value_name = "FILE")]
    key: Option<PathBuf>,
    /// Number of calls whose round-trip time is measured.
    #[arg(long, value_name = "N", default_value_t = 4, value_parser = clap::value_parser!(u32).range(1..=1_000))]
    count: u32,
    /// How long the handshake may take, and each call.
    #[arg(long, value_name = "TIME", default_value = "5s", value_parser = humantime::parse_duration)]
    timeout: Duration,
    /// Print one JSON object.
    #[arg(long)]
    json: bool,
}

pub(crate) fn run(args: &Args) -> Result<ExitCode, CliError> {
    let hint = "a node prints both in its line `ready: peer ... listens on ...`";
    let wrong = |error: SeedPeerError| CliError::input(format!("PEER_ID@ADDRESS: {error}; {hint}"));
    let target: SeedPeer = args.peer.parse().map_err(wrong)?;
    let key = match &args.key {
        Some(path) => files::read_key(path)?,
        None => files::new_key()?,
    };
    let transport = TlsTransport::new(&key).map_err(CliError::failed)?;
    let ping = Ping { target, caller: PeerId::from(&key), timeout: args.timeout };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(CliError::failed)?;
    let answer = runtime.block_on(ping.run(&transport, args.count)).map_err(CliError::failed)?;
    if args.json {
        println!("{}", serde_json::to_string(&answer).map_err(CliError::failed)?);
    } else {
        print!("{answer}");
    }
    Ok(ExitCode::SUCCESS)
}

/// Why a node could not be asked, and what to do about it.
#[derive(Debug, thiserror::Error)]
enum PingError {
    #[error(
        "{address} cannot be reached: {reason}; check the address, that the node runs there, and that no firewall is in between"
    )]
    Unreachable { address: Address, reason: String },
    #[error(
        "{address} did not answer within {timeout:?}: the node may be down, hidden by a firewall or overloaded; check it, or allow more with --timeout"
    )]
    Timeout { address: Address, timeout: Duration },
    #[error("{address} answered as {found}, not as {expected}: check the peer id, or who has the address now")]
    WrongKey { address: Address, expected: PeerId, found: PeerId },
    #[error(
        "no soma node answers at {address}: {reason}; check address and port, and try again if they are right: a node with too many handshakes at once ends one so"
    )]
    NoNode { address: Address, reason: String },
    #[error(
        "{peer} at {address} does not admit the caller {caller}: it is full, or keeps this key or address out; try later, or with --key and a key that it admits"
    )]
    NotAdmitted { peer: PeerId, address: Address, caller: PeerId },
    #[error("{peer} at {address} tells nothing to a caller that names no chain: {reason}; it runs an older version")]
    Reserved { peer: PeerId, address: Address, reason: String },
    #[error("{peer} at {address} cannot answer {rpc} now: {error}; try again later")]
    Busy { peer: PeerId, address: Address, rpc: &'static str, error: CallError },
    #[error("the connection with {peer} at {address} ended during {rpc}: it was stopped, or hung up; try again")]
    Lost { peer: PeerId, address: Address, rpc: &'static str },
    #[error("{peer} at {address} is no soma node, or of another version: its answer to {rpc} is {error}")]
    Alien { peer: PeerId, address: Address, rpc: &'static str, error: CallError },
}

/// The node to ask, and the caller's identity.
struct Ping {
    target: SeedPeer,
    caller: PeerId,
    timeout: Duration,
}

impl Ping {
    async fn run(&self, transport: &TlsTransport, count: u32) -> Result<Answer, PingError> {
        let SeedPeer { peer_id, address } = self.target.clone();
        let begun = Instant::now();
        let link = transport.dial(peer_id, &address, self.timeout).await.map_err(|error| self.not_dialled(error))?;
        let handshake = begun.elapsed();
        let (api, call) = (link.api(), Call { peer: peer_id, chain: None, remote: None, timeout: self.timeout });

        // The first call also shows whether the node has admitted us.
        let genesis_commit = match api.get_commit_info(call, Some(0)).await {
            Ok(info) => info.digest,
            Err(error) => return Err(self.not_answered(&link, "GetCommitInfo", error, true).await),
        };
        let mut round_trips = Vec::new();
        let mut commits = None;
        for _ in 0..count {
            let asked = Instant::now();
            match api.get_commit_availability(call).await {
                Ok(availability) => commits = Some(availability),
                Err(error) => return Err(self.not_answered(&link, "GetCommitAvailability", error, false).await),
            }
            round_trips.push(asked.elapsed());
        }
        let (asked, asked_ms) = (Instant::now(), now_ms());
        let known = match api.get_known_peers(call, Bytes::new()).await {
            Ok(known) => known,
            Err(error) => return Err(self.not_answered(&link, "GetKnownPeers", error, false).await),
        };
        // It read its clock on the way between, as far as anyone can tell in the middle.
        let answered_ms = asked_ms + asked.elapsed().as_secs_f64() * 500.0;
        link.hang_up();

        let KnownPeers { own_info, seen, .. } = known;
        let (info, info_error) = match own_info_of(peer_id, own_info) {
            Ok(info) => (Some(info), None),
            Err(error) => (None, Some(error)),
        };
        let capabilities = info.as_ref().map(|info| info.capabilities);
        Ok(Answer {
            peer_id,
            address,
            chain_id: info.as_ref().map(|info| info.chain_id),
            genesis_commit,
            info_error,
            protocol_versions: info.as_ref().map(|info| info.protocol_versions),
            role: capabilities.map(|it| it.role),
            archive: capabilities.map(|it| it.archive),
            lowest_commit: commits.map_or(0, |commits| commits.lowest_available),
            highest_commit: commits.map_or(0, |commits| commits.highest_synced),
            clock_ahead_ms: (seen.time_ms > 0).then(|| (seen.time_ms as f64 - answered_ms).round() as i64),
            seen_ip: seen.ip,
            handshake_ms: in_ms(handshake),
            round_trip_ms: RoundTrips::of(&round_trips),
        })
    }

    fn not_dialled(&self, error: DialError) -> PingError {
        match error {
            DialError::Unreachable { address, reason } => PingError::Unreachable { address, reason },
            DialError::Timeout { address, timeout } => PingError::Timeout { address, timeout },
            DialError::WrongKey { address, expected, found } => PingError::WrongKey { address, expected, found },
            DialError::Handshake { address, reason } => PingError::NoNode { address, reason },
            DialError::Refused { address, .. } => self.not_admitted(address),
        }
    }

    fn not_admitted(&self, address: Address) -> PingError {
        PingError::NotAdmitted { peer: self.target.peer_id, address, caller: self.caller }
    }

    /// Why a call failed. A node that does not admit a caller ends the connection, so that its first call fails.
    async fn not_answered(&self, link: &Link, rpc: &'static str, error: CallError, first: bool) -> PingError {
        let SeedPeer { peer_id: peer, address } = self.target.clone();
        let lost = matches!(error.status, Status::Cancelled | Status::Unavailable | Status::Internal);
        if lost && tokio::time::timeout(END_OF_CONNECTION, link.closed()).await.is_ok() {
            return if first { self.not_admitted(address) } else { PingError::Lost { peer, address, rpc } };
        }
        match error.status {
            Status::PermissionDenied => self.not_admitted(address),
            Status::DeadlineExceeded => PingError::Timeout { address, timeout: self.timeout },
            Status::FailedPrecondition => PingError::Reserved { peer, address, reason: error.message },
            Status::ResourceExhausted | Status::Unavailable | Status::Cancelled => {
                PingError::Busy { peer, address, rpc, error }
            }
            _ => PingError::Alien { peer, address, rpc, error },
        }
    }
}

/// What the node says of itself, if that is in its own hand; else why it cannot be used.
fn own_info_of(peer: PeerId, bytes: Bytes) -> Result<NodeInfo, String> {
    if bytes.is_empty() {
        return Err("not signed yet: the node is starting".into());
    }
    let claim = SignedNodeInfo::decode_bounded(bytes.clone()).map_err(|error| error.to_string())?;
    // The ping asks for the chain and the clock, and does not judge them.
    let info = verify_node_info(claim.chain_id, bytes, claim.timestamp_ms).map_err(|error| error.to_string())?;
    if info.peer_id != peer {
        return Err(format!("it is that of {}", info.peer_id));
    }
    Ok(NodeInfo::clone(&info))
}

fn now_ms() -> f64 {
    in_ms(SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default())
}

/// In milliseconds, to the microsecond.
fn in_ms(time: Duration) -> f64 {
    time.as_micros() as f64 / 1_000.0
}

/// Knowledge of the node.
#[derive(Debug, Serialize)]
struct Answer {
    peer_id: PeerId,
    address: Address,
    /// As its signed info has it.
    chain_id: Option<ChainId>,
    /// Tells the chain, too.
    genesis_commit: CommitDigest,
    /// Why its signed info says nothing.
    info_error: Option<String>,
    protocol_versions: Option<ProtocolVersions>,
    role: Option<NodeRole>,
    archive: Option<bool>,
    lowest_commit: CommitIndex,
    highest_commit: CommitIndex,
    /// Of ours; negative when it is behind. Exact to half of a round trip.
    clock_ahead_ms: Option<i64>,
    /// Where it sees us.
    seen_ip: Option<IpAddr>,
    handshake_ms: f64,
    round_trip_ms: RoundTrips,
}

/// Times of small calls, in milliseconds.
#[derive(Debug, PartialEq, Serialize)]
struct RoundTrips {
    count: usize,
    min: f64,
    avg: f64,
    max: f64,
}

impl RoundTrips {
    fn of(times: &[Duration]) -> Self {
        let sum: Duration = times.iter().sum();
        let avg = sum / u32::try_from(times.len().max(1)).unwrap_or(u32::MAX);
        let (min, max) = (times.iter().min(), times.iter().max());
        let of = |time: Option<&Duration>| in_ms(time.copied().unwrap_or_default());
        Self { count: times.len(), min: of(min), avg: in_ms(avg), max: of(max) }
    }
}

impl fmt::Display for Answer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut line = |name: &str, value: String| writeln!(f, "{name:<10}  {value}");
        line("peer", self.peer_id.to_string())?;
        line("address", self.address.to_string())?;
        match self.chain_id {
            Some(chain) => line("chain", chain.to_string())?,
            None => line("chain", format!("that of commit 0 with digest {}", self.genesis_commit))?,
        }
        if let Some(error) = &self.info_error {
            line("info", format!("none that can be used: {error}"))?;
        }
        if let Some(ProtocolVersions { min, max }) = self.protocol_versions {
            line("versions", if min == max { min.to_string() } else { format!("{min} to {max}") })?;
        }
        if let Some(role) = self.role {
            let role = match role {
                NodeRole::Validator => "validator",
                NodeRole::FullNode => "full node",
            };
            let archive = if self.archive == Some(true) { ", archive" } else { "" };
            line("role", format!("{role}{archive}"))?;
        }
        let commits = match (self.lowest_commit, self.highest_commit) {
            (lowest, highest) if lowest > highest => "none yet".into(),
            (lowest, highest) => format!("{lowest} to {highest}"),
        };
        line("commits", commits)?;
        line("clock", clock(self.clock_ahead_ms))?;
        line("sees us at", self.seen_ip.map_or_else(|| "does not say".into(), |ip| ip.to_string()))?;
        line("handshake", format!("{:.2} ms", self.handshake_ms))?;
        let RoundTrips { count, min, avg, max } = &self.round_trip_ms;
        line("round trip", format!("{min:.2} / {avg:.2} / {max:.2} ms (min / avg / max of {count})"))
    }
}

fn clock(ahead_ms: Option<i64>) -> String {
    match ahead_ms {
        None => "does not say".into(),
        Some(0) => "as ours".into(),
        Some(ahead @ 1..) => format!("{ahead} ms ahead of ours"),
        Some(behind) => format!("{} ms behind ours", behind.unsigned_abs()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn round_trips_are_told_by_the_shortest_the_longest_and_the_mean() {
        let times = [4, 1, 4].map(Duration::from_millis);
        assert_eq!(RoundTrips::of(&times), RoundTrips { count: 3, min: 1.0, avg: 3.0, max: 4.0 });
    }

    #[test]
    fn a_clock_is_ahead_of_ours_or_behind_it_or_not_told() {
        let said = [
            (None, "does not say"),
            (Some(0), "as ours"),
            (Some(12), "12 ms ahead of ours"),
            (Some(-3), "3 ms behind ours"),
        ];
        for (ahead_ms, words) in said {
            assert_eq!(clock(ahead_ms), words);
        }
    }
}
