//! Conversion between typed and generated messages. Every received message is converted and checked here.

use crate::wire::{
    Availability, BlockRefs, CallError, CommitRange, EpochProofs, EpochProofsFrom, FetchedCommits, KnownPeers,
    ObjectIds, Seen, Status, error::malformed, limits::*, proto,
};
use bytes::Bytes;
use soma_types::{
    BlockDigest, BlockRef, CommitDigest, CommitRef, ObjectId, ObjectKind, ObjectPart, ObjectTree, SnapshotInfo,
};
use std::net::IpAddr;

fn digest(bytes: &[u8]) -> Option<[u8; 32]> {
    bytes.try_into().ok()
}

impl From<&BlockRefs> for proto::FetchBlocksRequest {
    fn from(refs: &BlockRefs) -> Self {
        let refs = refs.as_slice();
        // Slices of one buffer, so all digests take one allocation.
        let digests: Vec<_> = refs.iter().map(|reference| reference.digest.0).collect();
        let mut digests = Bytes::from(digests.into_flattened());
        let refs = refs.iter().map(|reference| proto::BlockRef {
            epoch: reference.epoch,
            round: reference.round,
            author: reference.author,
            digest: digests.split_to(reference.digest.as_bytes().len()),
        });
        Self { refs: refs.collect() }
    }
}

impl TryFrom<proto::FetchBlocksRequest> for BlockRefs {
    type Error = CallError;

    fn try_from(request: proto::FetchBlocksRequest) -> Result<Self, CallError> {
        // Check the number before converting any.
        if request.refs.len() > MAX_BLOCKS_PER_FETCH {
            let message = format!("{} block references: 1 to {MAX_BLOCKS_PER_FETCH} are allowed", request.refs.len());
            return Err(CallError::new(Status::InvalidArgument, message));
        }
        let refs = request.refs.into_iter().map(|reference| {
            let digest = digest(&reference.digest).ok_or_else(|| {
                let message = format!("a block digest has 32 bytes, not {}", reference.digest.len());
                CallError::new(Status::InvalidArgument, message)
            })?;
            Ok(BlockRef {
                epoch: reference.epoch,
                round: reference.round,
                author: reference.author,
                digest: BlockDigest(digest),
            })
        });
        BlockRefs::new(refs.collect::<Result<_, CallError>>()?)
    }
}

impl TryFrom<proto::FetchCommitsRequest> for CommitRange {
    type Error = CallError;

    fn try_from(request: proto::FetchCommitsRequest) -> Result<Self, CallError> {
        let range = CommitRange::new(request.start, request.end)?;
        Ok(if request.max_bytes > 0 { range.within(request.max_bytes.into()) } else { range })
    }
}

impl From<CommitRange> for proto::FetchCommitsRequest {
    fn from(range: CommitRange) -> Self {
        Self { start: range.start(), end: range.end(), max_bytes: range.max_bytes() as u32 }
    }
}

impl From<KnownPeers> for proto::GetKnownPeersResponse {
    fn from(answer: KnownPeers) -> Self {
        Self { own_info: answer.own_info, known_peers: answer.known_peers, seen: Some(answer.seen.into()) }
    }
}

impl TryFrom<proto::GetKnownPeersResponse> for KnownPeers {
    type Error = CallError;

    fn try_from(answer: proto::GetKnownPeersResponse) -> Result<Self, CallError> {
        let seen = answer.seen.map(Seen::try_from).transpose()?.unwrap_or_default();
        Self { own_info: answer.own_info, known_peers: answer.known_peers, seen }.checked()
    }
}

impl From<Seen> for proto::CallerSeen {
    fn from(seen: Seen) -> Self {
        let ip = match seen.ip.map(|ip| ip.to_canonical()) {
            None => Bytes::new(),
            Some(IpAddr::V4(v4)) => Bytes::copy_from_slice(&v4.octets()),
            Some(IpAddr::V6(v6)) => Bytes::copy_from_slice(&v6.octets()),
        };
        let reached = match seen.reached {
            None => proto::Reached::Unknown,
            Some(true) => proto::Reached::Yes,
            Some(false) => proto::Reached::No,
        };
        Self { ip, time_ms: seen.time_ms, reached: reached.into() }
    }
}

impl TryFrom<proto::CallerSeen> for Seen {
    type Error = CallError;

    fn try_from(seen: proto::CallerSeen) -> Result<Self, CallError> {
        // An unknown value of a later version counts as not stated.
        let reached = match seen.reached() {
            proto::Reached::Unknown => None,
            proto::Reached::Yes => Some(true),
            proto::Reached::No => Some(false),
        };
        let ip = match seen.ip.len() {
            0 => None,
            4 => <[u8; 4]>::try_from(&*seen.ip).ok().map(IpAddr::from),
            16 => <[u8; 16]>::try_from(&*seen.ip).ok().map(|v6| IpAddr::from(v6).to_canonical()),
            len => return Err(malformed(format!("an IP address has 4 bytes or 16, not {len}"))),
        };
        Ok(Self { ip, time_ms: seen.time_ms, reached })
    }
}

impl From<Availability> for proto::GetCommitAvailabilityResponse {
    fn from(answer: Availability) -> Self {
        Self { highest_synced_commit: answer.highest_synced, lowest_available_commit: answer.lowest_available }
    }
}

impl From<proto::GetCommitAvailabilityResponse> for Availability {
    fn from(answer: proto::GetCommitAvailabilityResponse) -> Self {
        Self { highest_synced: answer.highest_synced_commit, lowest_available: answer.lowest_available_commit }
    }
}

impl From<CommitRef> for proto::GetCommitInfoResponse {
    fn from(answer: CommitRef) -> Self {
        Self { index: answer.index, digest: Bytes::copy_from_slice(answer.digest.as_bytes()) }
    }
}

impl TryFrom<proto::GetCommitInfoResponse> for CommitRef {
    type Error = CallError;

    fn try_from(answer: proto::GetCommitInfoResponse) -> Result<Self, CallError> {
        let digest = digest(&answer.digest)
            .ok_or_else(|| malformed(format!("a commit digest has 32 bytes, not {}", answer.digest.len())))?;
        Ok(Self { index: answer.index, digest: CommitDigest(digest) })
    }
}

impl From<FetchedCommits> for proto::FetchCommitsResponse {
    fn from(answer: FetchedCommits) -> Self {
        Self { commits: answer.commits, certifier_blocks: answer.certifier_blocks }
    }
}

impl From<proto::FetchCommitsResponse> for FetchedCommits {
    fn from(answer: proto::FetchCommitsResponse) -> Self {
        Self { commits: answer.commits, certifier_blocks: answer.certifier_blocks }
    }
}

impl From<EpochProofsFrom> for proto::GetEpochProofsRequest {
    fn from(request: EpochProofsFrom) -> Self {
        Self { from_epoch: request.from_epoch(), max_bytes: request.max_bytes() as u32 }
    }
}

impl From<proto::GetEpochProofsRequest> for EpochProofsFrom {
    fn from(request: proto::GetEpochProofsRequest) -> Self {
        let from = EpochProofsFrom::new(request.from_epoch);
        if request.max_bytes > 0 { from.within(request.max_bytes.into()) } else { from }
    }
}

impl From<EpochProofs> for proto::GetEpochProofsResponse {
    fn from(answer: EpochProofs) -> Self {
        Self { proofs: answer.proofs }
    }
}

impl From<proto::GetEpochProofsResponse> for EpochProofs {
    fn from(answer: proto::GetEpochProofsResponse) -> Self {
        Self { proofs: answer.proofs }
    }
}

impl From<ObjectIds> for proto::FetchObjectsRequest {
    fn from(request: ObjectIds) -> Self {
        let kind = request.kind().0;
        let ids: Vec<_> = request.as_slice().iter().map(|id| id.0).collect();
        Self { kind, ids: ids.into_flattened().into() }
    }
}

impl TryFrom<proto::FetchObjectsRequest> for ObjectIds {
    type Error = CallError;

    fn try_from(request: proto::FetchObjectsRequest) -> Result<Self, CallError> {
        let (ids, rest) = request.ids.as_chunks();
        if !rest.is_empty() {
            let message = format!("ids of objects have {} bytes, which is no multiple of 32", request.ids.len());
            return Err(CallError::new(Status::InvalidArgument, message));
        }
        Self::new(ObjectKind(request.kind), ids.iter().copied().map(ObjectId).collect())
    }
}

impl From<ObjectPart> for proto::ObjectPart {
    fn from(part: ObjectPart) -> Self {
        use proto::object_part::Part;
        let part = match part {
            ObjectPart::Whole(bytes) => Part::Whole(bytes),
            ObjectPart::Missing(count) => Part::Missing(count),
            ObjectPart::Tree(tree) => Part::Tree(proto::ObjectTree {
                bytes: tree.bytes(),
                pieces: Bytes::copy_from_slice(tree.pieces().as_flattened()),
            }),
            ObjectPart::Piece(bytes) => Part::Piece(bytes),
        };
        Self { part: Some(part) }
    }
}

impl TryFrom<proto::ObjectPart> for ObjectPart {
    type Error = CallError;

    fn try_from(part: proto::ObjectPart) -> Result<Self, CallError> {
        use proto::object_part::Part;
        match part.part.ok_or_else(|| malformed("a part of an object that is none".into()))? {
            Part::Whole(bytes) => Ok(Self::Whole(bytes)),
            Part::Missing(count) => Ok(Self::Missing(count)),
            Part::Piece(bytes) => Ok(Self::Piece(bytes)),
            Part::Tree(proto::ObjectTree { bytes, pieces }) => {
                let (values, rest) = pieces.as_chunks();
                let tree = rest.is_empty().then(|| ObjectTree::new(bytes, values.to_vec())).flatten();
                let wrong = || malformed(format!("an object of {bytes} bytes with a tree of {} bytes", pieces.len()));
                Ok(Self::Tree(tree.ok_or_else(wrong)?))
            }
        }
    }
}

impl From<SnapshotInfo> for proto::SnapshotInfo {
    fn from(info: SnapshotInfo) -> Self {
        Self {
            commit: info.commit.index,
            commit_digest: Bytes::copy_from_slice(info.commit.digest.as_bytes()),
            format: info.format,
            bytes: info.bytes,
            manifest: Bytes::copy_from_slice(info.manifest.as_bytes()),
        }
    }
}

impl TryFrom<proto::SnapshotInfo> for SnapshotInfo {
    type Error = CallError;

    fn try_from(info: proto::SnapshotInfo) -> Result<Self, CallError> {
        let wrong = || malformed("a digest of a snapshot has 32 bytes".into());
        let commit = CommitDigest(digest(&info.commit_digest).ok_or_else(wrong)?);
        Ok(Self {
            commit: CommitRef { index: info.commit, digest: commit },
            format: info.format,
            bytes: info.bytes,
            manifest: ObjectId(digest(&info.manifest).ok_or_else(wrong)?),
        })
    }
}
