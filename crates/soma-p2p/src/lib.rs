//! Peer-to-peer sync for a Soma node: finds peers, fetches and proves the commits that the node lacks, stores them
//! durably, hands them in order to its executor, and serves others.
//!
//! ```text
//!            node (executor, consensus)
//!               ^ synced_commits    | send_commit
//!   +-----------+------- Handle ----v-------------------------+
//!   | supervisor tree, a thread for each actor:                |
//!   |   Verifier  StoreWriter  Connections  Discovery          |
//!   |   StateSync(-> SyncWorker x n)  PeerHeights  GrpcAdapter |
//!   | io runtime: TLS, HTTP/2     CPU pool: signatures         |
//!   +----------------------------------------------------------+
//! ```
//!
//! ```no_run
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! use soma_p2p::{ActorSystem, Config, FjallStore, Genesis, SigningKey};
//! use std::sync::Arc;
//!
//! let genesis = Genesis::decode(&std::fs::read("genesis.bin")?)?;
//! let key = SigningKey::from_bytes(&[7; 32]); // the node's own, kept secret
//! let store = Arc::new(FjallStore::open("data".as_ref(), &genesis)?);
//! let mut config = Config::default();
//! config.seed_peers = vec!["<peer id>@/ip4/192.0.2.1/tcp/9000".parse()?];
//!
//! let system = ActorSystem::builder(genesis, key, store).config(config).start()?;
//! let mut commits = system.synced_commits(1);
//! while let Some(commit) = commits.blocking_next() {
//!     println!("execute {}", commit?.commit_ref);
//! }
//! # Ok(()) }
//! ```
//!
//! The system runs on threads of its own, so the handle works from any async runtime and from none. Several systems
//! may run in one process.

#![warn(clippy::missing_errors_doc)]
#![deny(missing_docs)]

mod actor_settings;
mod archived_snapshots;
mod builder;
mod checkpoints;
mod config;
mod handle;
#[cfg(feature = "testing")]
mod local;
mod messages;
mod metrics;
mod node;
mod node_parts;
mod objects;
mod peer_events;
mod peer_management;
mod peer_memory;
mod publishing;
mod shared;
mod shutdown_report;
mod snapshots;
mod start_error;
mod status;
mod synced_commits;
mod system;
mod trace_recording;

pub use builder::Builder;
pub use checkpoints::{CheckpointError, export_checkpoint};
pub use config::{
    ArchiveConfig, ArchiveRead, BroadcastConfig, Config, ConfigError, ConnectionsConfig, DiscoveryConfig, KeepAll,
    PruningConfig, SeedPeer, SeedPeerError, ServingConfig, Start, StateSyncConfig, TraceConfig, VerifierConfig,
};
pub use handle::Handle;
pub use messages::Messages;
pub use metrics::{METRICS, Metric, MetricKind};
pub use objects::FetchedObjects;
pub use peer_events::PeerEvents;
pub use peer_management::PeerManagementError;
pub use peer_memory::PeerMemoryStatus;
pub use publishing::PublishError;
pub use shutdown_report::ShutdownReport;
pub use snapshots::{PeersSnapshot, SnapshotError};
pub use start_error::StartError;
pub use status::{PeerStatus, Status, Stuck};
pub use synced_commits::SyncedCommits;
pub use system::ActorSystem;
pub use trace_recording::{MAX_RECORDING, RecordTraceError};

pub use soma_actors::broadcast::messages::MessageEvent;
pub use soma_actors::connections::messages::Lagged;
pub use soma_actors::objects::messages::FetchError;
pub use soma_actors::verifier::Verification;
pub use soma_protocol::{
    LostReason, PeerEvent,
    connections::DialFailure,
    discovery::{BookEntry, Trouble},
    peer_heights::NoPeer,
    peer_heights::PeerSnapshot,
    state_sync::{BackfillProgress, ExecutorFailure, LocalCommitError, Progress, STUCK_AFTER},
    verifier::{SlowCheck, TransactionPlace},
};
pub use soma_replay::FLOW_TARGET;
pub use soma_runtime::{ChildState, ChildStatus, Escalation as Fatal, ExitReason, MetricsRecorder, Strategy};
#[cfg(feature = "fjall")]
pub use soma_store::FjallStore;
pub use soma_store::{
    CorruptReason, DirectoryObjects, MemStore, MemoryObjects, ObjectBytes, ObjectSource, OfferedSnapshot, PeerList,
    Place, Pruned, Record, SnapshotAnswer, SnapshotDirectory, SnapshotReader, SnapshotSink, SnapshotWriter, Store,
    StoreError, Watermarks, make_checkpoint, make_epoch_proof,
};
pub use soma_types::{
    Access, Address, Author, Block, BlockRef, Certificate, CertifiedCommit, ChainId, Checkpoint, Commit, CommitIndex,
    CommitRef, CommittedSubDag, Committee, EndedEpoch, EpochProof, Genesis, GenesisError, ListenAddress, Message,
    MessageId, MessageVerdict, NodeRole, ObjectId, ObjectKind, PeerId, PublicKey, SignedBlock, SignedMessage,
    SigningKey, SnapshotInfo, SnapshotManifest, SubDagDigest, Topic, TransactionBytes, TrustedCommit, UnverifiedCommit,
    VerifiedBlock,
};
pub use soma_verify::{
    AcceptAll, CertificateVerifier, EpochContext, MessageValidator, TransactionError, TransactionSignatures,
    TransactionVerifier, verify_transaction,
};

/// The chain's types, with their codec, digests, keys and limits.
pub use soma_types as types;

/// Every check of what peers send, as pure functions: commits, blocks, sub-dags, certificates, node infos.
pub use soma_verify as verify;

/// The [`Store`] trait, both implementations, and with the feature `conformance` the suite that every store must pass.
pub use soma_store as store;

/// Transports: mutual TLS (feature `tls`), and [`MemoryNetwork`](soma_network::MemoryNetwork) for tests of a node that
/// embeds this.
pub use soma_network as network;

/// The history of a chain in object storage: its format, and the storage that a node may bring. With the feature
/// `archive`, `Archive` is the one for S3, Google Cloud Storage, Azure, HTTP and directories.
pub use soma_archive as archive;

/// What [`Status`] has of each actor.
pub mod actor_status {
    pub use soma_protocol::{
        archiver::{Failure as ArchiveFailure, Snapshot as Archiver, State as ArchiverState},
        broadcast::{Snapshot as Broadcast, TopicSnapshot},
        connections::BannedPeer,
        discovery::Snapshot as Discovery,
        grpc_adapter::{Rpc, Snapshot as Serving},
        objects::{OldestWanted, Snapshot as Objects},
        state_sync::{Late, Snapshot as StateSync},
        store_writer::Snapshot as StoreWriter,
        verifier::Snapshot as Verifier,
    };
}

/// Hooks for tests of a node: planned faults of actors, and a system on the current thread in virtual time.
#[cfg(feature = "testing")]
pub mod testing {
    pub use crate::local::{LocalResources, LocalSystem};
    pub use soma_protocol::Now;
    pub use soma_replay::{Cause, Flow, MemoryTrace, Origin, Recorder, Track};
    pub use soma_runtime::{
        ChildCounts, Clock, Entered, Fault, PlannedFaults, RuntimeContext, Telemetry, WorkerThread,
    };
}
