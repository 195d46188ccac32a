//! Putting a system together.

#[cfg(feature = "testing")]
use crate::local::{LocalResources, LocalSystem};
use crate::{
    config::{ArchiveConfig, ArchiveRead, Config, SeedPeer},
    node_parts::NodeParts,
    start_error::StartError,
    system::ActorSystem,
};
use soma_archive::SegmentStorage;
use soma_network::Transport;
use soma_runtime::{MetricsRecorder, PlannedFaults};
use soma_store::{ObjectSource, Store};
use soma_types::{Genesis, PeerId, SigningKey};
use soma_verify::{AcceptAll, CertificateVerifier, MessageValidator, TransactionVerifier};
use std::sync::Arc;

/// Makes an [`ActorSystem`]. What [`ActorSystem::builder`] does not take has a default.
pub struct Builder {
    config: Config,
    genesis: Genesis,
    identity: SigningKey,
    store: Arc<dyn Store>,
    protocol_keys: Vec<SigningKey>,
    transactions: Option<Arc<dyn TransactionVerifier>>,
    validator: Option<Arc<dyn MessageValidator>>,
    transport: Option<Arc<dyn Transport>>,
    archive: Option<Arc<dyn SegmentStorage>>,
    objects: Option<Arc<dyn ObjectSource>>,
    seed: Option<u64>,
    faults: Option<PlannedFaults>,
    metrics: Option<MetricsRecorder>,
    seed_peers: Vec<SeedPeer>,
    trusted_peers: Vec<PeerId>,
}

impl ActorSystem {
    /// Begins to put a system together.
    ///
    /// - `genesis`: the chain, and the root of all trust.
    /// - `identity`: the node's network key. Its public half is the node's peer id.
    /// - `store`: holds the chain. Only this system writes to it.
    pub fn builder(genesis: Genesis, identity: SigningKey, store: Arc<dyn Store>) -> Builder {
        Builder::new(genesis, identity, store)
    }
}

impl Builder {
    pub(crate) fn new(genesis: Genesis, identity: SigningKey, store: Arc<dyn Store>) -> Self {
        Self {
            config: Config::default(),
            genesis,
            identity,
            store,
            protocol_keys: Vec::new(),
            transactions: None,
            validator: None,
            transport: None,
            archive: None,
            objects: None,
            seed: None,
            faults: None,
            metrics: None,
            seed_peers: Vec::new(),
            trusted_peers: Vec::new(),
        }
    }

    /// Settings; defaults otherwise.
    pub fn config(mut self, config: Config) -> Self {
        self.config = config;
        self
    }

    /// Adds a seed to those of the configuration. [`Handle::add_seed`](crate::Handle::add_seed) does it at run time.
    pub fn seed_peer(mut self, seed: SeedPeer) -> Self {
        self.seed_peers.push(seed);
        self
    }

    /// Adds a peer to the allowlist of the configuration.
    /// [`Handle::add_trusted_peer`](crate::Handle::add_trusted_peer) does it later.
    pub fn trusted_peer(mut self, peer: PeerId) -> Self {
        self.trusted_peers.push(peer);
        self
    }

    /// How transactions in blocks are checked; [`CertificateVerifier`] otherwise.
    pub fn transaction_verifier(mut self, verifier: Arc<dyn TransactionVerifier>) -> Self {
        self.transactions = Some(verifier);
        self
    }

    /// How messages are judged before they are delivered and sent on; otherwise all with a right signature are accepted.
    pub fn message_validator(mut self, validator: Arc<dyn MessageValidator>) -> Self {
        self.validator = Some(validator);
        self
    }

    /// Adds a protocol key of a validator, which signs its messages. [`Handle::publish`](crate::Handle::publish) uses
    /// the one that the present committee has beside the node's identity. A validator whose key changes with an epoch
    /// gives both.
    pub fn protocol_key(mut self, key: SigningKey) -> Self {
        self.protocol_keys.push(key);
        self
    }

    /// How peers are reached; TCP with mutual TLS otherwise. Required without the feature `tls`.
    pub fn transport(mut self, transport: Arc<dyn Transport>) -> Self {
        self.transport = Some(transport);
        self
    }

    /// Where the archive is; otherwise at `archive.place` of the configuration (feature `archive`). The configuration
    /// says what the node writes and reads.
    pub fn archive(mut self, storage: Arc<dyn SegmentStorage>) -> Self {
        self.archive = Some(storage);
        self
    }

    /// What the node has of objects, for peers that ask by digest; otherwise it serves none.
    /// [`DirectoryObjects`](crate::DirectoryObjects) is one over a directory.
    pub fn object_source(mut self, source: Arc<dyn ObjectSource>) -> Self {
        self.objects = Some(source);
        self
    }

    /// Seed of every random choice, for reproducible runs; from the operating system otherwise.
    pub fn seed(mut self, seed: u64) -> Self {
        self.seed = Some(seed);
        self
    }

    /// Where the system's metrics go; otherwise to the process' global recorder of the crate `metrics`, if there is
    /// one. A recorder for each separates several systems in one process.
    pub fn metrics_recorder(mut self, recorder: MetricsRecorder) -> Self {
        self.metrics = Some(recorder);
        self
    }

    /// Makes actors of a started system fail as planned.
    #[cfg(feature = "testing")]
    pub fn faults(mut self, faults: PlannedFaults) -> Self {
        self.faults = Some(faults);
        self
    }

    /// Starts the system and returns when it listens. Blocks for as long as that takes, a few milliseconds.
    ///
    /// # Errors
    ///
    /// The configuration is wrong, the address is in use, or an actor has been given up.
    pub fn start(self) -> Result<ActorSystem, StartError> {
        ActorSystem::start(self.parts()?)
    }

    /// Starts the system on the current thread, in the [`LocalSet`](tokio::task::LocalSet) that this runs in: for
    /// simulation. Give it a transport that runs there, too.
    ///
    /// # Errors
    ///
    /// As [`start`](Self::start).
    #[cfg(feature = "testing")]
    pub async fn start_local(self, local_resources: LocalResources) -> Result<LocalSystem, StartError> {
        LocalSystem::start(self.parts()?, local_resources).await
    }

    fn parts(mut self) -> Result<NodeParts, StartError> {
        self.config.seed_peers.append(&mut self.seed_peers);
        self.config.connections.allowlist.append(&mut self.trusted_peers);
        self.config.validate()?;
        let Self { genesis, store, .. } = self;
        let key = Arc::new(self.identity);
        let chain = genesis.chain_id();
        if store.chain_id() != chain {
            return Err(StartError::OtherChain { store: store.chain_id(), genesis: chain });
        }
        let transport = match self.transport {
            Some(transport) => transport,
            None => own_transport(&self.config, &key)?,
        };
        let archive = match self.archive {
            Some(storage) => Some(storage),
            None => own_archive(&self.config.archive)?,
        };
        let seed = match self.seed {
            Some(seed) => seed,
            None => getrandom::u64()
                .map_err(|error| StartError::Runtime { what: "random generator", reason: error.to_string() })?,
        };
        let validator = self.validator.unwrap_or_else(|| Arc::new(AcceptAll));
        let transactions = self.transactions.unwrap_or_else(|| Arc::new(CertificateVerifier));
        Ok(NodeParts {
            config: self.config,
            genesis,
            key,
            store,
            protocol_keys: self.protocol_keys,
            transactions,
            validator,
            transport,
            archive,
            objects: self.objects,
            seed,
            faults: self.faults,
            metrics: self.metrics,
        })
    }
}

/// The archive of a node that is given none.
fn own_archive(config: &ArchiveConfig) -> Result<Option<Arc<dyn SegmentStorage>>, StartError> {
    let Some(place) = &config.place else {
        if config.write || config.read == ArchiveRead::First {
            return Err(StartError::Archive("archive.place says where it is, and is not set".into()));
        }
        return Ok(None);
    };
    open_archive(place).map(Some)
}

#[cfg(feature = "archive")]
fn open_archive(place: &str) -> Result<Arc<dyn SegmentStorage>, StartError> {
    let archive = soma_archive::Archive::open(place).map_err(|error| StartError::Archive(error.to_string()))?;
    Ok(Arc::new(archive))
}

#[cfg(not(feature = "archive"))]
fn open_archive(_: &str) -> Result<Arc<dyn SegmentStorage>, StartError> {
    Err(StartError::Archive("give the builder a storage, or build soma-p2p with its feature `archive`".into()))
}

/// The transport of a node that is given none.
#[cfg(feature = "tls")]
fn own_transport(config: &Config, key: &SigningKey) -> Result<Arc<dyn Transport>, StartError> {
    let unread = crate::peer_memory::PeerMemory::new(config).unread();
    Ok(Arc::new(soma_network::TlsTransport::new(key)?.with_unread_bytes(unread)))
}

#[cfg(not(feature = "tls"))]
fn own_transport(_: &Config, _: &SigningKey) -> Result<Arc<dyn Transport>, StartError> {
    Err(StartError::NoTransport)
}
