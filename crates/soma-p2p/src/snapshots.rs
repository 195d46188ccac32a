//! Snapshots of other nodes: which there are, and fetching one.
//!
//! ```text
//!   GetSnapshots of every peer --> offers, the latest first --manifest by id--> SnapshotSink::offer
//!                                                                                 | accept
//!   chunks by id, those that the sink lacks, from several peers at once --------> SnapshotSink::chunk ... finish
//!      '-- those that no peer has: from the archive
//! ```

use crate::{
    handle::Handle,
    objects::{FetchedObjects, deadline},
};
use bytes::Bytes;
use soma_actors::objects::messages::{AdvertisedSnapshot, FetchError, ListSnapshots};
use soma_archive::ArchiveError;
use soma_store::{OfferedSnapshot, SnapshotAnswer, SnapshotSink};
use soma_types::{ObjectId, ObjectKind, PeerId, SnapshotInfo, SnapshotManifest};
use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    sync::Arc,
    time::Duration,
};
use tokio::time::{Instant, sleep, timeout};

/// How long to wait before peers are asked again for what none of them has.
const ASK_AGAIN: Duration = Duration::from_secs(1);

/// Snapshots that are offered to a sink in one attempt: their manifests are in memory together.
const MAX_OFFERS: usize = 16;

/// Time between two looks into the archive for a manifest: a sink may reject what is there for hours.
const LOOK_AGAIN: Duration = Duration::from_secs(10);

/// Advertised snapshots that are remembered as useless. Peers may invent any number: beyond it, all are forgotten.
const MAX_USELESS: usize = 4_096;

/// How long peers may bring no chunk before the archive is read, if there is one. The chunks under way share a slow line.
const IDLE: Duration = Duration::from_secs(20);

/// How long the manifests of advertised snapshots may take: a peer may advertise what it never sends.
const MANIFEST_TIME: Duration = Duration::from_secs(5);

/// A snapshot that connected peers advertise.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct PeersSnapshot {
    /// What they say of it. The id of the manifest proves what they will send, and nothing else is proved.
    pub info: SnapshotInfo,
    /// The peers.
    pub peers: Vec<PeerId>,
    /// Those of them that are validators of the present epoch.
    pub validators: Vec<PeerId>,
}

/// Why a snapshot was not fetched.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SnapshotError {
    /// The deadline has passed. What the sink has stays for the next attempt.
    #[error("the snapshot did not come in time: {reason}")]
    Late {
        /// What was missing.
        reason: String,
    },
    /// The manifest with this id is none of a snapshot of this chain.
    #[error("object {id} is no manifest of a snapshot of this chain: {reason}")]
    NoManifest {
        /// The id.
        id: ObjectId,
        /// The reason.
        reason: String,
    },
    /// The sink refused the snapshot whose id the caller gave.
    #[error("the sink refused snapshot {0}")]
    Rejected(ObjectId),
    /// A chunk does not have the bytes that the manifest says, so the manifest is wrong.
    #[error("chunk {position} of snapshot {id} has {found} bytes, and the manifest says {expected}")]
    WrongChunk {
        /// The snapshot.
        id: ObjectId,
        /// Position of the chunk.
        position: u32,
        /// Its bytes.
        found: u64,
        /// Its bytes by the manifest.
        expected: u64,
    },
    /// The node was given no archive, or no source of objects.
    #[error("the node has no {0}")]
    Lacks(&'static str),
    /// The node's own source of objects lacks an object of the snapshot.
    #[error("the node's source of objects has no object {0}")]
    NotHere(ObjectId),
    /// The archive failed.
    #[error(transparent)]
    Archive(#[from] ArchiveError),
    /// The sink or the source failed.
    #[error("the snapshot cannot be kept: {0}")]
    Sink(#[from] io::Error),
    /// The system has stopped.
    #[error("the system has stopped")]
    Stopped,
}

impl Handle {
    /// Asks every connected peer which snapshots it has. The latest commit comes first, and of one commit the snapshot
    /// that most peers have. Peers that do not answer within 5 s are left out.
    pub async fn snapshots(&self) -> Vec<PeersSnapshot> {
        let mut objects = self.shared.list_snapshots.clone();
        // Without an answer the actor is being restarted: as if no peer had answered.
        let advertised = objects.ask(|reply| ListSnapshots { reply }).await.unwrap_or_default();
        let mut snapshots: BTreeMap<SnapshotInfo, PeersSnapshot> = BTreeMap::new();
        for AdvertisedSnapshot { info, peer, is_validator } in advertised {
            let empty = || PeersSnapshot { info, peers: Vec::new(), validators: Vec::new() };
            let snapshot = snapshots.entry(info).or_insert_with(empty);
            snapshot.peers.push(peer);
            snapshot.validators.extend(is_validator.then_some(peer));
        }
        let mut snapshots: Vec<_> = snapshots.into_values().collect();
        snapshots.sort_by_key(|it| std::cmp::Reverse((it.info.commit.index, it.validators.len(), it.peers.len())));
        snapshots
    }

    /// Fetches a snapshot into `sink`, and returns its manifest once the sink has finished.
    ///
    /// With `trusted`, it is the snapshot with this id: the operator vouches for it. Without, the snapshots that peers
    /// advertise are offered to the sink, first those that validators have, then those in the archive, and each time the
    /// latest first. The first one that the sink accepts is fetched.
    ///
    /// Chunks come from several peers at once. When peers vanish, others are asked, until `within` is over. What no peer
    /// has comes from the archive, if the node has one. Another call goes on with the chunks that the sink has.
    ///
    /// # Errors
    ///
    /// The snapshot is not complete. [`SnapshotError`] says why.
    pub async fn fetch_snapshot(
        &self,
        trusted: Option<ObjectId>,
        sink: Arc<dyn SnapshotSink>,
        within: Duration,
    ) -> Result<SnapshotManifest, SnapshotError> {
        let fetch = SnapshotFetch { handle: self, sink, deadline: deadline(within) };
        let (manifest, has) = match trusted {
            Some(id) => fetch.trusted(id).await?,
            None => fetch.best_offer().await?,
        };
        let fetched = match fetch.chunks(&manifest, has).await {
            Ok(()) => fetch.run(&manifest, |sink, manifest| sink.finish(manifest)).await,
            Err(error) => Err(error),
        };
        if fetched.is_err() {
            let abort = |sink: &dyn SnapshotSink, manifest: &SnapshotManifest| {
                sink.abort(manifest);
                Ok(())
            };
            let _ = fetch.run(&manifest, abort).await;
        }
        fetched.map(|()| Arc::unwrap_or_clone(manifest))
    }
}

/// Positions of chunks that the sink has.
type Has = BTreeSet<u32>;

/// Chunks that the sink lacks, with their positions. One chunk may stand at several.
pub(crate) type Lacking = BTreeMap<ObjectId, Vec<u32>>;

/// Who offers a snapshot.
#[derive(Clone, Copy)]
enum Offerer<'a> {
    Peers(&'a PeersSnapshot),
    Archive,
    Nobody,
}

pub(crate) struct SnapshotFetch<'a> {
    pub(crate) handle: &'a Handle,
    sink: Arc<dyn SnapshotSink>,
    deadline: Instant,
}

impl SnapshotFetch<'_> {
    fn left(&self) -> Duration {
        self.deadline.saturating_duration_since(Instant::now())
    }

    fn late(&self, reason: String) -> SnapshotError {
        if self.handle.shared.closing.is_cancelled() { SnapshotError::Stopped } else { SnapshotError::Late { reason } }
    }

    /// Calls the sink on a thread that may block.
    async fn run<R: Send + 'static>(
        &self,
        manifest: &Arc<SnapshotManifest>,
        call: impl FnOnce(&dyn SnapshotSink, &SnapshotManifest) -> io::Result<R> + Send + 'static,
    ) -> Result<R, SnapshotError> {
        let (sink, manifest) = (self.sink.clone(), manifest.clone());
        let called = self.handle.shared.offload.run(move || call(&*sink, &manifest)).await;
        Ok(called.map_err(|exit| io::Error::other(format!("the sink {exit}")))??)
    }

    /// Whether the time is over, or the system stops.
    pub(crate) fn is_over(&self) -> bool {
        self.left().is_zero() || self.handle.shared.closing.is_cancelled()
    }

    /// Whether a connected peer says that it has the snapshot.
    async fn is_advertised(&self, id: ObjectId) -> bool {
        self.handle.snapshots().await.iter().any(|it| it.info.manifest == id)
    }

    /// The snapshot with this id, from whoever has it.
    async fn trusted(&self, id: ObjectId) -> Result<(Arc<SnapshotManifest>, Has), SnapshotError> {
        let manifest = self.trusted_manifest(id).await?;
        let advertised = self.handle.snapshots().await.into_iter().find(|it| it.info.manifest == id);
        let from = advertised.as_ref().map_or(Offerer::Nobody, Offerer::Peers);
        match self.offer(&manifest, from, true).await? {
            SnapshotAnswer::Accept { has } => Ok((manifest, has)),
            SnapshotAnswer::Reject => Err(SnapshotError::Rejected(id)),
        }
    }

    /// Waits for a peer that has the manifest. Reads it from the archive if no peer has.
    async fn trusted_manifest(&self, id: ObjectId) -> Result<Arc<SnapshotManifest>, SnapshotError> {
        let mut look_at = Instant::now();
        loop {
            if self.has_archive() && look_at <= Instant::now() && !self.is_advertised(id).await {
                look_at = Instant::now() + LOOK_AGAIN;
                let archived = self.archived().await.into_iter().find(|name| name.manifest == id);
                if let Some(name) = archived
                    && let Some(manifest) = self.archived_manifest(name).await
                {
                    return Ok(manifest);
                }
            }
            let within = if self.has_archive() { self.left().min(MANIFEST_TIME) } else { self.left() };
            match self.manifest(id, within).await {
                Err(SnapshotError::Late { .. }) if self.left() > ASK_AGAIN => sleep(ASK_AGAIN).await,
                other => return other,
            }
        }
    }

    /// The first snapshot that the sink accepts, of those that peers advertise, and of those in the archive.
    async fn best_offer(&self) -> Result<(Arc<SnapshotManifest>, Has), SnapshotError> {
        let mut manifests: BTreeMap<ObjectId, Arc<SnapshotManifest>> = BTreeMap::new();
        // Advertised, and not sent in time or no manifests: they are not waited for again.
        let mut useless = BTreeSet::new();
        let mut look_at = Instant::now();
        loop {
            if useless.len() > MAX_USELESS {
                useless.clear();
            }
            let mut advertised = self.handle.snapshots().await;
            advertised.retain(|it| !useless.contains(&it.info.manifest));
            // Peers that are no validators may invent any number.
            advertised.sort_by_key(|it| it.validators.is_empty());
            advertised.truncate(MAX_OFFERS);
            let ids: BTreeSet<_> = advertised.iter().map(|it| it.info.manifest).collect();
            manifests.retain(|id, _| ids.contains(id));
            self.fetch_manifests(ids, &mut manifests).await;
            let mut offers = 0;
            for advertised in &advertised {
                // A peer that advertises what it does not send is no reason to end: another one may be honest.
                let Some(manifest) = manifests.get(&advertised.info.manifest) else {
                    useless.insert(advertised.info.manifest);
                    continue;
                };
                offers += 1;
                if let SnapshotAnswer::Accept { has } = self.offer(manifest, Offerer::Peers(advertised), false).await? {
                    return Ok((manifest.clone(), has));
                }
            }
            let mut archived = Vec::new();
            if look_at <= Instant::now() {
                look_at = Instant::now() + LOOK_AGAIN;
                archived = self.archived().await;
            }
            for name in archived {
                let Some(manifest) = self.archived_manifest(name).await else { continue };
                offers += 1;
                if let SnapshotAnswer::Accept { has } = self.offer(&manifest, Offerer::Archive, false).await? {
                    return Ok((manifest, has));
                }
            }
            if self.left() <= ASK_AGAIN || self.handle.shared.closing.is_cancelled() {
                return Err(self.late(format!("the sink accepted none of {offers} offered snapshots")));
            }
            sleep(ASK_AGAIN).await;
        }
    }

    /// Fetches the manifests that are not there, all at once.
    async fn fetch_manifests(
        &self,
        ids: BTreeSet<ObjectId>,
        manifests: &mut BTreeMap<ObjectId, Arc<SnapshotManifest>>,
    ) {
        let missing = ids.into_iter().filter(|id| !manifests.contains_key(id)).collect::<Vec<_>>();
        let within = self.left().min(MANIFEST_TIME);
        let mut fetched = self.handle.fetch(ObjectKind::SNAPSHOT_MANIFEST, missing, within);
        while let Some((id, bytes)) = fetched.next().await {
            if let Some(manifest) = bytes.ok().and_then(|bytes| self.decode(id, &bytes).ok()) {
                manifests.insert(id, manifest);
            }
        }
    }

    async fn offer(
        &self,
        manifest: &Arc<SnapshotManifest>,
        from: Offerer<'_>,
        is_trusted: bool,
    ) -> Result<SnapshotAnswer, SnapshotError> {
        let (peers, validators) = match from {
            Offerer::Peers(advertised) => (advertised.peers.clone(), advertised.validators.clone()),
            Offerer::Archive | Offerer::Nobody => Default::default(),
        };
        let in_archive = matches!(from, Offerer::Archive);
        let offered = OfferedSnapshot {
            manifest: (**manifest).clone(),
            id: manifest.id(),
            peers,
            validators,
            in_archive,
            is_trusted,
        };
        self.run(manifest, move |sink, _| sink.offer(&offered)).await
    }

    /// Fetches a manifest. [`SnapshotError::Late`] if no peer has it.
    async fn manifest(&self, id: ObjectId, within: Duration) -> Result<Arc<SnapshotManifest>, SnapshotError> {
        let mut fetched = self.handle.fetch(ObjectKind::SNAPSHOT_MANIFEST, [id], within);
        match fetched.next().await {
            Some((_, Ok(bytes))) => self.decode(id, &bytes),
            Some((_, Err(error))) => Err(self.late(format!("its manifest {id}: {error}"))),
            None => Err(self.late(format!("its manifest {id} has no answer"))),
        }
    }

    /// The manifest of a snapshot of this chain.
    pub(crate) fn decode(&self, id: ObjectId, bytes: &[u8]) -> Result<Arc<SnapshotManifest>, SnapshotError> {
        let wrong = |reason: String| SnapshotError::NoManifest { id, reason };
        let manifest = SnapshotManifest::decode(bytes).map_err(|error| wrong(error.to_string()))?;
        if manifest.chain_id != self.handle.chain_id() {
            return Err(wrong(format!("it is of chain {}", manifest.chain_id)));
        }
        Ok(Arc::new(manifest))
    }

    /// Fetches every chunk that the sink lacks.
    async fn chunks(&self, manifest: &Arc<SnapshotManifest>, has: Has) -> Result<(), SnapshotError> {
        let mut lacking = Lacking::new();
        for (position, id) in (0..).zip(&manifest.chunks).filter(|(position, _)| !has.contains(position)) {
            lacking.entry(*id).or_default().push(position);
        }
        // No peer is waited for that does not say it has the snapshot.
        if self.has_archive() && !self.is_advertised(manifest.id()).await {
            self.take_archived(manifest, &mut lacking).await?;
        }
        while !lacking.is_empty() {
            // In the order of the state, which peers read from their disks.
            let mut ids: Vec<_> = lacking.iter().map(|(id, positions)| (positions[0], *id)).collect();
            ids.sort_unstable();
            let ids = ids.into_iter().map(|(_, id)| id).collect();
            let bytes = manifest.chunk_bytes as usize;
            let fetched = self.handle.fetch_sized(ObjectKind::SNAPSHOT_CHUNK, ids, self.left(), bytes);
            let missing = self.take(manifest, fetched, &mut lacking).await?;
            if let Some(error) = missing {
                if self.take_archived(manifest, &mut lacking).await? > 0 {
                    continue;
                }
                if self.left() <= ASK_AGAIN || self.handle.shared.closing.is_cancelled() {
                    return Err(self.late(format!("{} chunks are missing: {error}", lacking.len())));
                }
                sleep(ASK_AGAIN).await;
            }
        }
        Ok(())
    }

    /// Hands arriving chunks to the sink. Returns why some did not arrive.
    async fn take(
        &self,
        manifest: &Arc<SnapshotManifest>,
        mut fetched: FetchedObjects,
        lacking: &mut Lacking,
    ) -> Result<Option<FetchError>, SnapshotError> {
        let mut missing = None;
        let idle = if self.has_archive() { IDLE } else { self.left() };
        loop {
            let Ok(next) = timeout(idle, fetched.next()).await else {
                missing = Some(FetchError::Late { asked: 0 });
                break;
            };
            let Some((id, result)) = next else { break };
            match result {
                Ok(bytes) => self.place(manifest, lacking.remove(&id), bytes).await?,
                Err(error) => missing = Some(error),
            }
        }
        Ok(missing)
    }

    /// Hands a chunk to the sink for each of its positions.
    pub(crate) async fn place(
        &self,
        manifest: &Arc<SnapshotManifest>,
        positions: Option<Vec<u32>>,
        bytes: Bytes,
    ) -> Result<(), SnapshotError> {
        for position in positions.unwrap_or_default() {
            self.chunk(manifest, position, bytes.clone()).await?;
        }
        Ok(())
    }

    async fn chunk(&self, manifest: &Arc<SnapshotManifest>, position: u32, bytes: Bytes) -> Result<(), SnapshotError> {
        let range = manifest.range(position as usize);
        let (found, expected) = (bytes.len() as u64, range.end - range.start);
        if found != expected {
            return Err(SnapshotError::WrongChunk { id: manifest.id(), position, found, expected });
        }
        self.run(manifest, move |sink, manifest| sink.chunk(manifest, position, bytes)).await
    }
}
