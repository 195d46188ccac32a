//! What the parts of a sync cost, each alone and on one thread: the table of `docs/performance.md`, part by part.
//!
//! Figures read as the time of one element: of a signature in `signature/*`, of an epoch in `epochs/*`, of a commit in
//! `commits/*`, of a block
//! everywhere else. `cargo bench -p soma-tests --bench parts` runs all, `... --bench parts -- verify` those whose name
//! matches.

mod per_element;

use bytes::Bytes;
use criterion::{BatchSize, BenchmarkGroup, BenchmarkId, Criterion, SamplingMode, Throughput, measurement::WallTime};
use ed25519_dalek::{Signature, Verifier, VerifyingKey};
use per_element::PerElement;
use prost::Message;
use soma_network::wire::proto::FetchBlocksResponse;
use soma_p2p::{FjallStore, MemStore, Store};
use soma_testkit::{BlockKind, ChainBuilder, ChainSpec, Payload};
use soma_types::{
    BlockRef, CertifiedCommit, ChainId, CommitIndex, Committee, Genesis, HashedBlock, INTENT_MESSAGE_BYTES, Intent,
    PublicKey, Scope, SignedBlock, SigningKey,
};
use soma_verify::{
    CertificateVerifier, Checks, EpochContext, SignatureBatch, TransactionError, TransactionSignatures,
    TransactionVerifier, check_blocks, check_commits, verify_blocks, verify_epoch_proof, verify_sub_dag,
};
use std::{hint::black_box, time::Duration};
use tempfile::TempDir;

/// Blocks that are checked, encoded or written together: as many as one request may ask for.
const BLOCKS: usize = 1_000;

/// Commits of one answer.
const COMMITS: usize = 100;

/// Signatures of different keys in the batches, as many as a committee has members.
const KEYS: usize = 40;

type Parts<'a> = BenchmarkGroup<'a, PerElement>;

/// Blocks of one kind, and what is needed to check them.
struct Chain {
    kind: BlockKind,
    /// Accepts what is in the blocks.
    transactions: &'static dyn TransactionVerifier,
    genesis: Genesis,
    context: EpochContext,
    /// Of one epoch; their blocks are [`BLOCKS`] or a few more.
    commits: Vec<CertifiedCommit>,
    refs: Vec<BlockRef>,
    /// The blocks as they come from a peer.
    bytes: Vec<Bytes>,
}

impl Chain {
    fn new(kind: BlockKind) -> Self {
        // One epoch, so that one committee checks all of it.
        let like = ChainSpec { commits_per_epoch: 2 * BLOCKS as u32, ..ChainSpec::default() };
        let spec = kind.spec(like).expect("a valid spec");
        let transactions: &'static dyn TransactionVerifier = match spec.payload {
            Payload::Certified => &CertificateVerifier,
            Payload::Opaque => &Anything,
        };
        let mut builder = ChainBuilder::new(spec).expect("a valid spec");
        let mut commits = Vec::new();
        let mut blocks = 0;
        while blocks < BLOCKS {
            let commit = builder.next_commit();
            blocks += commit.blocks.len();
            commits.push(commit);
        }
        let all = || commits.iter().flat_map(|commit| &commit.blocks).take(BLOCKS);
        let committee: Committee = builder.committee(0);
        Self {
            kind,
            transactions,
            context: EpochContext::new(builder.chain_id(), committee).expect("a valid committee"),
            genesis: builder.genesis().clone(),
            refs: all().map(|block| block.reference()).collect(),
            bytes: all().map(|block| block.bytes().clone()).collect(),
            commits,
        }
    }

    /// The name of one benchmark.
    fn named(&self, part: &str) -> BenchmarkId {
        BenchmarkId::new(part, self.kind)
    }

    fn blocks_in(commits: &[CertifiedCommit]) -> u64 {
        commits.iter().map(|commit| commit.blocks.len() as u64).sum()
    }
}

/// Takes every transaction: opaque ones have nothing to check.
struct Anything;

impl TransactionVerifier for Anything {
    fn verify(&self, _: &EpochContext, _: &[u8], _: &mut TransactionSignatures<'_>) -> Result<(), TransactionError> {
        Ok(())
    }
}

fn main() {
    let mut criterion = Criterion::default()
        .with_measurement(PerElement(WallTime))
        .warm_up_time(Duration::from_millis(300))
        .measurement_time(Duration::from_secs(1))
        .sample_size(10)
        .without_plots()
        .configure_from_args();
    signatures(&mut criterion);
    epoch_proofs(&mut criterion);
    let chains = BlockKind::ALL.map(Chain::new);
    for (name, part) in [
        ("digest", digest as fn(&mut Parts<'_>, &Chain)),
        ("decode", decode),
        ("verify", verify),
        ("commits", commits),
        ("sub_dag", sub_dag),
        ("wire", wire),
        ("store", store),
    ] {
        let mut group = criterion.benchmark_group(name);
        group.sampling_mode(SamplingMode::Flat);
        for chain in &chains {
            part(&mut group, chain);
        }
    }
    criterion.final_summary();
}

/// Signatures on intent messages, as blocks carry them.
struct Signed {
    keys: Vec<VerifyingKey>,
    public_keys: Vec<PublicKey>,
    messages: Vec<[u8; INTENT_MESSAGE_BYTES]>,
    signatures: Vec<Signature>,
}

impl Signed {
    fn new(count: usize) -> Self {
        let intent = Intent { scope: Scope::Block, chain: ChainId([7; 32]) };
        let keys: Vec<_> = (0..KEYS as u8).map(|number| SigningKey::from_bytes(&[number; 32])).collect();
        let mut signed =
            Self { keys: Vec::new(), public_keys: Vec::new(), messages: Vec::new(), signatures: Vec::new() };
        for (number, key) in (0..count).zip(keys.iter().cycle()) {
            let mut digest = [0; 32];
            digest[..8].copy_from_slice(&(number as u64).to_le_bytes());
            signed.keys.push(key.verifying_key());
            signed.public_keys.push(PublicKey::from(key));
            signed.messages.push(intent.message(&digest));
            signed.signatures.push(Signature::from_bytes(&intent.sign(key, &digest).0));
        }
        signed
    }

    fn batch(&self) -> SignatureBatch {
        let mut batch = SignatureBatch::new();
        let each = self.public_keys.iter().zip(&self.messages).zip(&self.signatures);
        for (owner, ((key, message), signature)) in each.enumerate() {
            batch.push(owner, key, *message, &soma_types::Signature(signature.to_bytes()));
        }
        batch
    }
}

fn signatures(criterion: &mut Criterion<PerElement>) {
    let mut group = criterion.benchmark_group("signature");
    group.sampling_mode(SamplingMode::Flat);
    let one = Signed::new(1);
    let (key, message, signature) = (one.keys[0], one.messages[0], one.signatures[0]);
    group.throughput(Throughput::Elements(1));
    group.bench_function("dalek verify", |bencher| {
        bencher.iter(|| black_box(&key).verify(black_box(&message), &signature).expect("a good signature"));
    });
    group.bench_function("dalek verify_strict", |bencher| {
        bencher.iter(|| black_box(&key).verify_strict(black_box(&message), &signature).expect("a good signature"));
    });
    for count in [64, 256, 1_024] {
        let signed = Signed::new(count);
        let messages: Vec<&[u8]> = signed.messages.iter().map(|message| message.as_slice()).collect();
        group.throughput(Throughput::Elements(count as u64));
        // The release that `soma-p2p bench` takes as its measure.
        let signatures = signed.signatures.iter().map(|signature| signature.to_bytes().into()).collect::<Vec<_>>();
        let key = |key: &VerifyingKey| ed25519_dalek_2::VerifyingKey::from_bytes(key.as_bytes()).expect("a key");
        let keys = signed.keys.iter().map(key).collect::<Vec<_>>();
        group.bench_function(BenchmarkId::new("dalek 2 verify_batch", count), |bencher| {
            bencher.iter(|| ed25519_dalek_2::verify_batch(&messages, &signatures, &keys).expect("good signatures"));
        });
        group.bench_function(BenchmarkId::new("SignatureBatch", count), |bencher| {
            bencher.iter(|| signed.batch().verify().expect("good signatures"));
        });
    }
}

/// BLAKE3 of a block: body, then body digest and signature.
fn digest(group: &mut Parts<'_>, chain: &Chain) {
    group.throughput(Throughput::Elements(chain.bytes.len() as u64));
    group.bench_function(chain.named("HashedBlock::hash_each"), |bencher| {
        bencher.iter_batched(|| chain.bytes.clone(), HashedBlock::hash_each, BatchSize::LargeInput);
    });
}

/// From bytes to a block with its name: decoding and hashing.
fn decode(group: &mut Parts<'_>, chain: &Chain) {
    group.throughput(Throughput::Elements(chain.bytes.len() as u64));
    group.bench_function(chain.named("SignedBlock::decode"), |bencher| {
        bencher.iter(|| {
            for bytes in &chain.bytes {
                drop_result(SignedBlock::decode(bytes.clone()).expect("a block"));
            }
        });
    });
}

/// All that a block is checked for by itself: digest, form, signatures; and the same without what a quorum has checked.
fn verify(group: &mut Parts<'_>, chain: &Chain) {
    group.throughput(Throughput::Elements(chain.bytes.len() as u64));
    group.bench_function(chain.named("verify_blocks"), |bencher| {
        bencher.iter_batched(
            || chain.bytes.clone(),
            |bytes| verify_blocks(&chain.context, chain.transactions, &chain.refs, bytes).expect("valid blocks"),
            BatchSize::LargeInput,
        );
    });
    group.bench_function(chain.named("check_blocks, certified"), |bencher| {
        bencher.iter_batched(
            || chain.bytes.clone(),
            |bytes| check_blocks(&chain.context, Checks::Certified, &chain.refs, bytes, &mut ()).expect("valid blocks"),
            BatchSize::LargeInput,
        );
    });
}

/// An answer to `FetchCommits`: the chain of digests, and the votes for the last commit, one by one.
fn commits(group: &mut Parts<'_>, chain: &Chain) {
    let commits = &chain.commits[..COMMITS];
    let encoded: Vec<Bytes> = commits.iter().map(|commit| commit.commit.bytes().clone()).collect();
    let certifiers: Vec<Bytes> = commits[COMMITS - 1].certifiers.iter().map(|block| block.bytes().clone()).collect();
    group.throughput(Throughput::Elements(COMMITS as u64));
    group.bench_function(chain.named("check_commits"), |bencher| {
        bencher.iter_batched(
            || (encoded.clone(), certifiers.clone()),
            |(encoded, certifiers)| {
                check_commits(&chain.context, 1, COMMITS as u32, encoded, certifiers).expect("certified commits")
            },
            BatchSize::LargeInput,
        );
    });
}

/// What holds between the blocks of a commit.
/// Ends of epochs with a committee of 100: what a node checks that begins after the latest epoch.
fn epoch_proofs(criterion: &mut Criterion<PerElement>) {
    let spec =
        ChainSpec { stakes: vec![1; 100], commits_per_epoch: 5, transactions_per_block: 0, ..ChainSpec::default() };
    let mut builder = ChainBuilder::new(spec).expect("a valid spec");
    let genesis = builder.genesis().clone();
    let store = MemStore::new(&genesis);
    store.apply(&builder.build(5)).expect("the builder's commits fit");
    let proof = store.epoch_proof(0).expect("a readable store").expect("an ended epoch");
    let context = EpochContext::new(genesis.chain_id(), genesis.committee().clone()).expect("a valid committee");
    let previous = genesis.commit();
    let mut group = criterion.benchmark_group("epochs");
    group.throughput(Throughput::Elements(1));
    group.bench_function("verify_epoch_proof, 100 validators", |bencher| {
        bencher.iter(|| verify_epoch_proof(&context, &previous, black_box(&proof)).expect("a valid proof"))
    });
    // What a committee's signatures alone cost: the votes for the commit, and those for the next committee.
    let signatures = 2 * proof.certifiers.len();
    let signed = Signed::new(signatures);
    let each = || signed.keys.iter().zip(&signed.messages).zip(&signed.signatures);
    group.bench_function(format!("{signatures} signatures, dalek verify_strict"), |bencher| {
        bencher.iter(|| {
            each().for_each(|((key, message), signature)| {
                key.verify_strict(black_box(message), signature).expect("a good signature");
            });
        })
    });
    group.finish();
}

fn sub_dag(group: &mut Parts<'_>, chain: &Chain) {
    group.throughput(Throughput::Elements(Chain::blocks_in(&chain.commits)));
    group.bench_function(chain.named("verify_sub_dag"), |bencher| {
        bencher.iter(|| {
            for commit in &chain.commits {
                let sub_dag = verify_sub_dag(&chain.context, &commit.commit, &commit.blocks);
                drop_result(sub_dag.expect("a valid sub-dag"));
            }
        });
    });
}

/// The protobuf message of one chunk, without gRPC's framing: as blocks are slices of it, decoding copies nothing.
fn wire(group: &mut Parts<'_>, chain: &Chain) {
    let chunk = FetchBlocksResponse { blocks: chain.bytes.clone() };
    let encoded = Bytes::from(chunk.encode_to_vec());
    group.throughput(Throughput::Elements(chain.bytes.len() as u64));
    group.bench_function(chain.named("encode"), |bencher| bencher.iter(|| black_box(&chunk).encode_to_vec()));
    group.bench_function(chain.named("decode"), |bencher| {
        bencher.iter(|| FetchBlocksResponse::decode(black_box(encoded.clone())).expect("a chunk"));
    });
}

/// A new store on disk: one durable batch, and what was written read back from memory.
fn store(group: &mut Parts<'_>, chain: &Chain) {
    let open = || {
        let dir = TempDir::new().expect("a temporary directory");
        let store = FjallStore::open(&dir.path().join("store"), &chain.genesis).expect("a new store");
        (store, dir)
    };
    group.throughput(Throughput::Elements(Chain::blocks_in(&chain.commits)));
    group.bench_function(chain.named("apply"), |bencher| {
        bencher.iter_batched(
            open,
            |(store, dir)| {
                drop_result(store.apply(&chain.commits).expect("commits that fit"));
                (store, dir)
            },
            BatchSize::PerIteration,
        );
    });
    let (store, _dir) = open();
    store.apply(&chain.commits).expect("commits that fit");
    // As a lagging executor reads.
    let last = chain.commits.len() as CommitIndex;
    group.bench_function(chain.named("sub_dags"), |bencher| {
        bencher.iter(|| {
            let mut next = 1;
            while next <= last {
                let read = store.sub_dags(next..=last, 1 << 20).expect("a store that can be read");
                next += read.len() as CommitIndex;
                drop_result(read);
            }
        });
    });
    group.throughput(Throughput::Elements(chain.refs.len() as u64));
    group.bench_function(chain.named("blocks"), |bencher| {
        bencher.iter(|| store.blocks(black_box(&chain.refs)).expect("a store that can be read"));
    });
}

/// Keeps the compiler from leaving out what made the value.
fn drop_result<T>(value: T) {
    drop(black_box(value));
}
