//! Every check of data from peers: blocks, commits, certificates and node infos.
//!
//! ```text
//!  FetchCommits response --check_commits-----> TrustedCommit x n, certifier blocks
//!                                                    | digests of blocks
//!  FetchBlocks response  --check_blocks------> CheckedBlocks --in batches with others--> VerifiedBlock x m
//!                                                    | grouped by commit
//!                          verify_sub_dags---> ready to apply; the next committee if the epoch ends
//!  GetKnownPeers response -verify_node_info--> SignedNodeInfo
//!  FetchObjects response -ObjectAssembly-----> bytes that their ids name
//! ```
//!
//! Invariants:
//! - **Pure.** No I/O, no clock, no randomness: the same input has the same verdict on every node, at any time.
//! - **Cheap first.** Form, limits, chain order and epoch rules are checked before any signature.
//! - **No input panics.** Lengths, indices and positions come from peers, so no check uses them as an unchecked index.
//! - **One verdict.** The verdict on a commit or block does not depend on the rest of its response. If a certified item
//!   breaks a rule, all items before it pass.
//! - **Absence is failure.** Data that was not checked, or not found, is never verified.
//! - **A fault has an owner.** Every error's `fault()` says whether the serving peer is to blame. An error in data that
//!   a quorum's votes pin by digest is not the serving peer's fault.
//!
//! Some signatures alone decide about trust: those of certifier blocks, end-of-epoch certificates and node infos. They
//! are checked with `verify_strict`. Signatures below a certified digest go through [`SignatureBatch`], or are trusted
//! with the quorum ([`Checks::Certified`]).

#![warn(clippy::missing_errors_doc)]
#![deny(missing_docs)]

mod block_rules;
mod blocks;
mod certified_commit;
mod commits;
mod context;
mod epoch_proof;
mod messages;
mod node_info;
mod objects;
mod signature_batch;
mod sub_dag;
mod transaction;

pub use block_rules::BlockError;
pub use blocks::{BlocksError, BlocksVerdict, CheckObserver, CheckedBlocks, Checks, check_blocks, verify_blocks};
pub use certified_commit::{CertifiedCommitError, verify_certified_commit};
pub use commits::{CheckedCommits, CommitsError, check_commits};
pub use context::{EpochContext, QuorumError};
pub use epoch_proof::{CheckpointError, EpochProofError, verify_checkpoint, verify_epoch_proof};
pub use messages::{AcceptAll, MessageValidator, SignatureVerdict, check_message_signatures};
pub use node_info::{MAX_CLOCK_SKEW_MS, MAX_NODE_INFO_AGE_MS, NodeInfoError, verify_node_info};
pub use objects::{AnsweredObject, ObjectAssembly, check_certificates};
pub use signature_batch::{BATCH_GROUP, SignatureBatch};
pub use sub_dag::{SubDag, SubDagError, SubDagsVerdict, verify_sub_dag, verify_sub_dags};
pub use transaction::{
    CertificateVerifier, TransactionError, TransactionSignatures, TransactionVerifier, verify_transaction,
};
