//! The limit of a chain: what the irreducible parts of its sync cost alone, on the same bytes, in this process.
//!
//! ```text
//!   signatures  ed25519-dalek verify_batch, AVX2, groups of 1,024, one thread   CPU
//!   wire        the blocks through one TLS 1.3 stream on loopback, both ends    CPU, wall
//!   disk        the blocks appended to a file, fdatasync every 4 MiB            CPU, wall
//!
//!   limit = the larger of (CPU of all) / cores and the slowest part's own wall time
//! ```
//!
//! The verifier is fixed, whatever the node uses, so that a better one shows: release 2 of the crate, which knows no
//! AVX-512. Only blocks count, not commits: a sync could do with no less. Of long chains a part is measured, and
//! scaled.

use super::{chain::Chain, cost::Cost, tls_stream, usage};
use bytes::Bytes;
use ed25519_dalek_2::{Signature, VerifyingKey, verify_batch};
use serde::Serialize;
use soma_p2p::{Certificate, CommitIndex, EpochContext, FjallStore, SignedBlock, Store, TransactionBytes};
use soma_p2p_cli::CliError;
use soma_testkit::Payload;
use soma_types::{INTENT_MESSAGE_BYTES, Scope, codec, limits};
use std::{fs::File, io::Write, path::Path, time::Instant};

/// Signatures in one group.
const GROUP: usize = 1_024;

/// Signatures after which the measurement goes no further.
const SAMPLE_SIGNATURES: usize = 40 * GROUP;

/// Bytes of blocks that are kept to be sent and written.
const SAMPLE_BYTES: usize = 16 << 20;

/// Bytes after which nothing more is sent or written; the sample is gone through several times.
const MEASURED_BYTES: usize = 64 << 20;

/// Bytes between two syncs of the file.
const SYNC_EVERY: usize = 4 << 20;

/// One signature, as the batch verifier takes it.
struct Signed {
    key: VerifyingKey,
    message: [u8; INTENT_MESSAGE_BYTES],
    signature: Signature,
}

/// What the measurements work on: the first blocks of a chain.
struct Sample {
    signatures: Vec<Signed>,
    blocks: Vec<Bytes>,
    bytes: usize,
}

/// The costs of the parts for the whole chain.
#[derive(Clone, Copy, Debug, Serialize)]
pub(crate) struct Limit {
    /// The limit itself, in seconds of wall time.
    pub(crate) limit_s: f64,
    /// CPU seconds of all signatures.
    pub(crate) limit_verify_cpu_s: f64,
    /// CPU seconds of both ends of the stream.
    pub(crate) limit_tls_cpu_s: f64,
    /// Wall time of the stream.
    pub(crate) limit_tls_wall_s: f64,
    /// CPU seconds of writing and syncing.
    pub(crate) limit_append_cpu_s: f64,
    /// Wall time of writing and syncing.
    pub(crate) limit_append_wall_s: f64,
    /// Whether a part was measured and scaled.
    pub(crate) limit_sampled: bool,
    /// The machine, as these measurements found it.
    #[serde(flatten)]
    pub(crate) calibration: Calibration,
}

/// What the parts cost on this machine at this time.
#[derive(Clone, Copy, Debug, Serialize)]
pub(crate) struct Calibration {
    /// Cores of the machine.
    pub(crate) cores: usize,
    /// CPU of one signature in a batch.
    pub(crate) verify_us_per_signature: f64,
    /// CPU of both ends of the stream for 1,000 bytes.
    pub(crate) tls_us_per_kb: f64,
    /// Bytes written and synced in one second of wall time, in millions.
    pub(crate) append_mb_per_s: f64,
}

impl Limit {
    /// Measures the limit of `chain`, while no process has its store open. Files go into `dir`.
    pub(crate) fn measure(chain: &Chain, dir: &Path) -> Result<Self, CliError> {
        let sample = Sample::read(chain)?;
        let verify = sample.verify()?;
        let passes = MEASURED_BYTES.min(chain.bytes as usize).div_ceil(sample.bytes.max(1));
        let measured = (sample.bytes * passes).max(1) as f64;
        let tls = tls_stream::measure(&sample.blocks, passes).map_err(CliError::failed)?;
        let append = sample.append(&dir.join("append.raw"), passes).map_err(CliError::failed)?;

        let per_signature = verify / sample.signatures.len().max(1) as f64;
        let scale = chain.bytes as f64 / measured;
        let limit = Self {
            limit_s: 0.0,
            limit_verify_cpu_s: per_signature * chain.signatures() as f64,
            limit_tls_cpu_s: tls.cpu_s * scale,
            limit_tls_wall_s: tls.wall.as_secs_f64() * scale,
            limit_append_cpu_s: append.cpu_s * scale,
            limit_append_wall_s: append.wall.as_secs_f64() * scale,
            limit_sampled: sample.signatures.len() < chain.signatures() as usize || measured < chain.bytes as f64,
            calibration: Calibration {
                cores: usage::cores(),
                verify_us_per_signature: per_signature * 1e6,
                tls_us_per_kb: tls.cpu_s / measured * 1e9,
                append_mb_per_s: measured / 1e6 / append.wall.as_secs_f64().max(1e-9),
            },
        };
        Ok(limit.settled())
    }

    /// The mean of several measurements of the same chain, at least one.
    pub(super) fn mean(all: &[Self]) -> Self {
        let mean = |part: fn(&Self) -> f64| all.iter().map(part).sum::<f64>() / all.len() as f64;
        let limit = Self {
            limit_s: 0.0,
            limit_verify_cpu_s: mean(|limit| limit.limit_verify_cpu_s),
            limit_tls_cpu_s: mean(|limit| limit.limit_tls_cpu_s),
            limit_tls_wall_s: mean(|limit| limit.limit_tls_wall_s),
            limit_append_cpu_s: mean(|limit| limit.limit_append_cpu_s),
            limit_append_wall_s: mean(|limit| limit.limit_append_wall_s),
            limit_sampled: all.iter().any(|limit| limit.limit_sampled),
            calibration: Calibration {
                cores: usage::cores(),
                verify_us_per_signature: mean(|limit| limit.calibration.verify_us_per_signature),
                tls_us_per_kb: mean(|limit| limit.calibration.tls_us_per_kb),
                // A rate: what all of the time gave.
                append_mb_per_s: 1.0 / mean(|limit| 1.0 / limit.calibration.append_mb_per_s),
            },
        };
        limit.settled()
    }

    /// With the limit itself, by what its parts take.
    fn settled(mut self) -> Self {
        let cores = self.calibration.cores as f64;
        self.limit_s = (self.cpu_s() / cores).max(self.limit_tls_wall_s).max(self.limit_append_wall_s);
        self
    }

    /// CPU seconds of all parts.
    pub(super) fn cpu_s(&self) -> f64 {
        self.limit_verify_cpu_s + self.limit_tls_cpu_s + self.limit_append_cpu_s
    }
}

impl Sample {
    fn read(chain: &Chain) -> Result<Self, CliError> {
        let store = FjallStore::open_existing(&chain.store).map_err(CliError::failed)?;
        let mut sample = Self { signatures: Vec::new(), blocks: Vec::new(), bytes: 0 };
        let mut context: Option<EpochContext> = None;
        let missing = |what: &str, index: CommitIndex| CliError::failed(format!("{what} {index} is not in the store"));
        for index in 1..=chain.commits {
            let full = (sample.signatures.len() >= SAMPLE_SIGNATURES, sample.bytes >= SAMPLE_BYTES);
            if full == (true, true) {
                break;
            }
            let sub_dag = store.sub_dag(index).map_err(CliError::failed)?.ok_or_else(|| missing("commit", index))?;
            let epoch = sub_dag.leader.epoch;
            let context = match &mut context {
                Some(context) if context.epoch() == epoch => context,
                context => {
                    let committee = store.committee(epoch).map_err(CliError::failed)?;
                    let committee = committee.ok_or_else(|| missing("committee of commit", index))?;
                    let made = EpochContext::new(chain.genesis.chain_id(), committee).map_err(CliError::failed)?;
                    context.insert(made)
                }
            };
            for block in &sub_dag.blocks {
                if !full.0 {
                    sample.take_signatures(context, block, chain.payload)?;
                }
                if !full.1 {
                    sample.bytes += block.bytes().len();
                    sample.blocks.push(block.bytes().clone());
                }
            }
        }
        Ok(sample)
    }

    fn take_signatures(
        &mut self,
        context: &EpochContext,
        block: &SignedBlock,
        payload: Payload,
    ) -> Result<(), CliError> {
        let no_member = |authority| CliError::failed(format!("authority {authority} is in no committee"));
        let mut take = |key: &[u8; 32], scope, digest: &[u8; 32], signature: &soma_types::Signature| {
            let key = VerifyingKey::from_bytes(key).map_err(CliError::failed)?;
            let message = context.intent(scope).message(digest);
            self.signatures.push(Signed { key, message, signature: Signature::from_bytes(&signature.0) });
            Ok::<_, CliError>(())
        };
        let author = context.key(block.author).ok_or_else(|| no_member(block.author))?;
        take(author.as_bytes(), Scope::Block, block.body_digest(), block.signature())?;
        if payload == Payload::Opaque {
            return Ok(());
        }
        for TransactionBytes(bytes) in &block.transactions {
            let certificate: Certificate =
                codec::decode(bytes, "certificate", limits::MAX_BLOCK_BYTES).map_err(CliError::failed)?;
            let signed = &certificate.signed_transaction;
            take(&signed.transaction.sender.0, Scope::Transaction, &signed.transaction.digest().0, &signed.signature)?;
            let digest = Certificate::signed_digest(certificate.epoch, signed);
            for vote in &certificate.quorum.signatures {
                let key = context.key(vote.authority).ok_or_else(|| no_member(vote.authority))?;
                take(key.as_bytes(), Scope::Certificate, &digest.0, &vote.signature)?;
            }
        }
        Ok(())
    }

    /// CPU seconds of verifying every signature of the sample.
    fn verify(&self) -> Result<f64, CliError> {
        let before = usage::thread_cpu_s();
        for group in self.signatures.chunks(GROUP) {
            let messages: Vec<&[u8]> = group.iter().map(|signed| signed.message.as_slice()).collect();
            let signatures: Vec<_> = group.iter().map(|signed| signed.signature).collect();
            let keys: Vec<_> = group.iter().map(|signed| signed.key).collect();
            verify_batch(&messages, &signatures, &keys)
                .map_err(|error| CliError::failed(format!("a signature of the chain is wrong: {error}")))?;
        }
        Ok(usage::thread_cpu_s() - before)
    }

    fn append(&self, path: &Path, passes: usize) -> std::io::Result<Cost> {
        let mut file = File::create(path)?;
        // This copy is no part of the cost: a real writer has the bytes together already.
        let pieces: Vec<Vec<u8>> = {
            let all: Vec<u8> = self.blocks.iter().flat_map(|block| block.iter().copied()).collect();
            all.chunks(SYNC_EVERY).map(<[u8]>::to_vec).collect()
        };
        let (before, started) = (usage::thread_cpu_s(), Instant::now());
        for piece in std::iter::repeat_n(&pieces, passes).flatten() {
            file.write_all(piece)?;
            file.sync_data()?;
        }
        let cost = Cost { cpu_s: usage::thread_cpu_s() - before, wall: started.elapsed() };
        drop(file);
        std::fs::remove_file(path)?;
        Ok(cost)
    }
}
