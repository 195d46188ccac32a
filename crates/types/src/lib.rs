//! The Soma chain's types, exactly as nodes sign, hash, store and send them.
//!
//! ```text
//!  Genesis --digest--> ChainId            (in every signature's intent)
//!     |
//!  Committee(epoch 0) --end_of_epoch certificate--> Committee(1) --> ...
//!     |
//!  Block --body digest--> signature --digest--> BlockRef
//!                                                 ^ identified by
//!  Commit(i) --previous_digest--> Commit(i-1) ... Commit(0) = genesis
//! ```
//!
//! Invariants:
//! - **One encoding.** A value has exactly one byte string ([`codec`]). The codec refuses bytes that would not
//!   re-encode to themselves, so the digest of received bytes is the digest of the value.
//! - **Hashed once.** Decoding a signed value hashes the received bytes; no check encodes the value again.
//! - **Nothing is trusted.** Decoding proves only the form. `soma-verify` checks signatures, quorums and chain rules.
//!   The types show the difference: [`SignedBlock`] and [`UnverifiedCommit`] are claims, [`VerifiedBlock`] and
//!   [`TrustedCommit`] are proven.

#![warn(clippy::missing_errors_doc)]
#![deny(missing_docs)]

mod address;
mod block;
mod certificate;
mod checkpoint;
pub mod codec;
mod commit;
mod committee;
mod digest;
mod epoch_proof;
mod fault;
mod genesis;
mod keys;
pub mod limits;
mod message;
mod network;
mod node_info;
mod object;
mod references;
mod segment_name;
mod signed;
mod snapshot;

pub use address::{Address, AddressError, ListenAddress};
pub use block::{Block, EndOfEpoch, HashedBlock, SignedBlock, TransactionBytes, VerifiedBlock, epoch_genesis_refs};
pub use certificate::{
    AuthoritySignature, Certificate, EncodedCertificate, QuorumSignatures, SignedTransaction, Transaction,
};
pub use checkpoint::Checkpoint;
pub use codec::CodecError;
pub use commit::{CertifiedCommit, Commit, CommittedSubDag, SubDagDigest, TrustedCommit, UnverifiedCommit};
pub use committee::{Authority, Committee, CommitteeError};
pub use digest::{
    BlockBodyDigest, BlockDigest, CertificateDigest, ChainId, CommitDigest, CommitteeDigest, ContentDigest, MessageId,
    NodeInfoDigest, ObjectId, SegmentDigest, TransactionDigest,
};
pub use epoch_proof::{EndedEpoch, EpochProof};
pub use fault::{Fault, PeerFailure};
pub use genesis::{Genesis, GenesisError};
pub use keys::{INTENT_MESSAGE_BYTES, Intent, KeyError, PeerId, PublicKey, Scope, Signature, SigningKey};
pub use message::{Author, Message, MessageVerdict, SignedMessage, Topic};
pub use network::{NetworkGroup, Reach};
pub use node_info::{Access, Capabilities, NodeInfo, NodeRole, ProtocolVersions, SignedNodeInfo};
pub use object::{ObjectKind, ObjectPart, ObjectTree, pieces as object_pieces};
pub use references::{BlockRef, CommitRef};
pub use segment_name::{SegmentName, SegmentRoute};
pub use signed::{Signable, Signed};
pub use snapshot::{SnapshotInfo, SnapshotManifest};

/// Number of an epoch; the genesis committee's is 0.
pub type Epoch = u64;
/// Round of a block within its epoch; 0 is the epoch's unsigned genesis round.
pub type Round = u32;
/// Index of a commit on the chain; 0 is genesis.
pub type CommitIndex = u32;
/// Voting power of an authority.
pub type Stake = u64;
/// Milliseconds since the UNIX epoch.
pub type TimestampMs = u64;
/// Position of an authority in its committee's list.
pub type AuthorityIndex = u32;
