//! What goes over the control socket.

use clap::Subcommand;
use serde::{Deserialize, Serialize};
use soma_p2p::{PeerId, SeedPeer, types::Epoch};
use std::{path::PathBuf, time::Duration};

/// Bytes of one request.
pub(super) const MAX_REQUEST_BYTES: usize = 16 << 10;

/// A change of a running node. What shall stay after a restart belongs in the configuration.
#[derive(Clone, Debug, Subcommand, Serialize, Deserialize)]
#[serde(tag = "command", rename_all = "kebab-case", deny_unknown_fields)]
pub(crate) enum Request {
    /// Add an address of a seed peer.
    AddPeer {
        /// The peer, as PEER_ID@ADDRESS.
        #[arg(value_name = "PEER_ID@ADDRESS")]
        seed: SeedPeer,
    },
    /// Remove a seed peer with all its addresses, and end every connection with it.
    DropPeer {
        /// The peer.
        #[arg(value_name = "PEER_ID")]
        peer: PeerId,
    },
    /// Put a peer on the allowlist.
    Trust {
        /// The peer.
        #[arg(value_name = "PEER_ID")]
        peer: PeerId,
    },
    /// Take a peer off the allowlist.
    Distrust {
        /// The peer.
        #[arg(value_name = "PEER_ID")]
        peer: PeerId,
    },
    /// Disconnect a peer and keep it out for some time. The ban survives a restart.
    Ban {
        /// The peer.
        #[arg(value_name = "PEER_ID")]
        peer: PeerId,
        /// For how long, such as `2h`.
        #[arg(long = "for", value_name = "TIME", value_parser = humantime::parse_duration)]
        #[serde(with = "humantime_serde")]
        time: Duration,
        /// The reason, for the log.
        #[arg(long, value_name = "TEXT", default_value = "by the operator")]
        reason: String,
    },
    /// End the ban of a peer.
    Unban {
        /// The peer.
        #[arg(value_name = "PEER_ID")]
        peer: PeerId,
    },
    /// Set the filter of the log, in the form of RUST_LOG.
    LogLevel {
        /// The filter, such as `debug` or `error,soma=debug`.
        #[arg(value_name = "FILTER")]
        filter: String,
    },
    /// Write the checkpoint of an ended epoch, at which another node can begin.
    Checkpoint {
        /// The file to write; it must not exist.
        #[arg(long, value_name = "FILE")]
        #[serde(skip)]
        out: PathBuf,
        /// The epoch; the last one that has ended by default.
        #[arg(long)]
        epoch: Option<Epoch>,
        /// Print JSON.
        #[arg(long)]
        #[serde(skip)]
        json: bool,
    },
    /// Record what the actors receive from now on, for `soma-p2p replay`.
    Trace {
        /// The directory; the node creates it.
        #[arg(long, value_name = "DIR")]
        out: PathBuf,
        /// For how long, such as `5min`; at most 24 h.
        #[arg(long = "for", value_name = "TIME", value_parser = humantime::parse_duration)]
        #[serde(with = "humantime_serde")]
        time: Duration,
        /// MiB of trace files in the directory; the oldest go first.
        #[arg(long, value_name = "MIB", default_value_t = 256)]
        ring_mib: u64,
        /// An actor to record, as in the status, or `sync-worker`; all by default. May be given several times.
        #[arg(long = "actor", value_name = "NAME")]
        actors: Vec<String>,
    },
    /// Read the configuration file again, and take over what can change while the node runs.
    Reload,
}

/// What a node answers.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Answer {
    /// The command is carried out. The text describes its effect.
    Done(String),
    /// The checkpoint asked for, in hex.
    Checkpoint(String),
    /// The command was not carried out, for this reason.
    Failed(String),
}
