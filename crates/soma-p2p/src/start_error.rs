//! Why a system does not start.

use crate::config::ConfigError;
use soma_network::ListenError;
use soma_runtime::Escalation;
use soma_store::StoreError;
use soma_types::ChainId;
use std::{io, path::PathBuf};

/// Why a system did not start. Nothing is left running, and nothing was written.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StartError {
    /// A setting that cannot be.
    #[error("configuration: {0}")]
    Config(#[from] ConfigError),
    /// The store is of another chain than the genesis.
    #[error("the store holds chain {store}, but the genesis is that of chain {genesis}")]
    OtherChain {
        /// The store's chain.
        store: ChainId,
        /// The genesis' chain.
        genesis: ChainId,
    },
    /// The store cannot be read.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The node cannot begin at the checkpoint of `start`.
    #[error("checkpoint {}: {reason}; `soma-p2p checkpoint export` writes one", path.display())]
    Checkpoint {
        /// The file.
        path: PathBuf,
        /// The reason.
        reason: String,
    },
    /// The archive of the configuration cannot be used.
    #[error("archive: {0}")]
    Archive(String),
    /// The identity cannot be used for TLS.
    #[cfg(feature = "tls")]
    #[error("identity: {0}")]
    Identity(#[from] soma_network::TransportError),
    /// The builder was given no transport, and this build has none of its own.
    #[cfg(not(feature = "tls"))]
    #[error("no transport: give the builder one, or build soma-p2p with its feature `tls`")]
    NoTransport,
    /// The trace cannot be written.
    #[error("trace: cannot write to {}: {source}", directory.display())]
    Trace {
        /// Where.
        directory: PathBuf,
        /// The system's reason.
        source: io::Error,
    },
    /// The node cannot listen.
    #[error(transparent)]
    Listen(#[from] ListenError),
    /// An actor did not come up, or did not stay up.
    #[error("the system gave up while starting: {0}")]
    GaveUp(Escalation),
    /// Threads or runtimes cannot be made.
    #[error("the {what} cannot be started: {reason}")]
    Runtime {
        /// Which.
        what: &'static str,
        /// The system's reason.
        reason: String,
    },
}
