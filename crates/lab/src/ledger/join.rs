//! Which snapshot a node begins with.

use super::state::FORMAT;
use bytes::Bytes;
use soma_p2p::{
    CommitRef, FjallStore, OfferedSnapshot, PeerId, SnapshotAnswer, SnapshotDirectory, SnapshotManifest, SnapshotSink,
    Store,
};
use std::{io, sync::Arc};

/// Takes a snapshot of a commit that this node has verified. Validators with more stake than faulty ones can have must
/// advertise it: then an honest one does, and all honest ones have the same state after one commit.
pub(super) struct Sink {
    directory: SnapshotDirectory,
    store: Arc<FjallStore>,
}

impl Sink {
    pub(super) fn new(directory: SnapshotDirectory, store: Arc<FjallStore>) -> Self {
        Self { directory, store }
    }

    /// Whether the commit is of the verified chain, and the commits after it are here or will come.
    fn is_verified(&self, commit: CommitRef) -> io::Result<bool> {
        let watermarks = self.store.watermarks().map_err(io::Error::other)?;
        if commit == watermarks.highest_synced {
            return Ok(true);
        }
        if commit.index.saturating_add(1) < watermarks.lowest_available
            || commit.index > watermarks.highest_synced.index
        {
            return Ok(false);
        }
        let next = self.store.commit(commit.index + 1).map_err(io::Error::other)?;
        Ok(next.is_some_and(|next| next.previous_digest == commit.digest))
    }

    /// Whether these validators have more stake than faulty ones can have.
    fn has_honest(&self, validators: &[PeerId]) -> io::Result<bool> {
        let epoch = self.store.latest_epoch().map_err(io::Error::other)?;
        let Some(committee) = self.store.committee(epoch).map_err(io::Error::other)? else { return Ok(false) };
        let members = (0..).zip(&committee.authorities);
        let among = members.filter(|(_, member)| validators.contains(&PeerId::from(member.network_key)));
        let stake = committee.stake_of(among.map(|(index, _)| index));
        Ok(stake > committee.total_stake() - committee.quorum())
    }
}

impl SnapshotSink for Sink {
    fn offer(&self, offered: &OfferedSnapshot) -> io::Result<SnapshotAnswer> {
        let is_known = offered.manifest.format == FORMAT;
        if !is_known || !self.is_verified(offered.manifest.commit)? || !self.has_honest(&offered.validators)? {
            return Ok(SnapshotAnswer::Reject);
        }
        self.directory.offer(&OfferedSnapshot { is_trusted: true, ..offered.clone() })
    }

    fn chunk(&self, manifest: &SnapshotManifest, position: u32, bytes: Bytes) -> io::Result<()> {
        self.directory.chunk(manifest, position, bytes)
    }

    fn finish(&self, manifest: &SnapshotManifest) -> io::Result<()> {
        self.directory.finish(manifest)
    }

    fn abort(&self, manifest: &SnapshotManifest) {
        self.directory.abort(manifest);
    }
}
