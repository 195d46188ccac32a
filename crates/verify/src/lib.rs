//! Every check on what peers send: blocks, commits, certificates and node infos.
//!
//! ```text
//!  FetchCommits answer --check_commits-----> TrustedCommit x n, certifier blocks
//!                                                  | names, with digests
//!  FetchBlocks answer  --check_blocks------> CheckedBlocks --with others', in one batch--> VerifiedBlock x m
//!                                                  | joined by commit
//!                        verify_sub_dags---> ready to apply; the next committee, if the epoch ends
//!  GetKnownPeers answer -verify_node_info--> SignedNodeInfo
//! ```
//!
//! What always holds here:
//! - **Pure.** No I/O, no clock, no randomness: the same input has the same verdict on every node, at any time.
//! - **Cheap first.** Form, limits, chain order and epoch rules are checked before any signature.
//! - **No input panics.** Lengths, indices and positions come from peers, and nothing is indexed by them.
//! - **One verdict.** Whether a commit or a block passes does not depend on what comes with it: of an answer with
//!   something that a quorum certified against a rule, all before that passes.
//! - **Absence is failure.** What was not checked, or not found, is never verified.
//! - **A fault has an owner.** Every error tells with `fault()` whether the peer that served the bytes is to blame.
//!   What a quorum's votes pin by digest cannot be the serving peer's doing.
//!
//! Signatures that alone decide whether something is trusted (certifier blocks, end-of-epoch certificates, node infos)
//! are checked with `verify_strict`. Those below a digest that a quorum certified go through [`SignatureBatch`], or are
//! left to that quorum ([`Checks::Certified`]).

#![deny(missing_docs)]

mod block_rules;
mod blocks;
mod certified_commit;
mod commits;
mod context;
mod node_info;
mod signature_batch;
mod sub_dag;
mod transaction;

pub use block_rules::BlockError;
pub use blocks::{BlocksError, BlocksVerdict, CheckObserver, CheckedBlocks, Checks, check_blocks, verify_blocks};
pub use certified_commit::{CertifiedCommitError, verify_certified_commit};
pub use commits::{CheckedCommits, CommitsError, check_commits};
pub use context::{EpochContext, QuorumError};
pub use node_info::{MAX_CLOCK_SKEW_MS, MAX_NODE_INFO_AGE_MS, NodeInfoError, verify_node_info};
pub use signature_batch::{BATCH_GROUP, SignatureBatch};
pub use sub_dag::{SubDag, SubDagError, SubDagsVerdict, verify_sub_dag, verify_sub_dags};
pub use transaction::{
    CertificateVerifier, TransactionError, TransactionSignatures, TransactionVerifier, verify_transaction,
};
