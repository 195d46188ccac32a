//! Costs of the store's layout: CPU and wall time per block of writing and reading, and bytes written to files.
//!
//! ```sh
//! cargo bench -p soma-store --bench layout              # all kinds of chains
//! cargo bench -p soma-store --bench layout -- S/4 C/40  # only these
//! ```
//!
//! A kind is a block length (S 600 B, C 1.5 KB, L 4 KB) and the number of blocks per commit. CPU time is that of the
//! whole process with the database's threads, so that background work counts.
//!
//! - `raw`: the calibration: the same blocks appended to a file, 4 MiB at once, and synced each time.
//! - `apply`: a sync: batches of about 4 MiB, with the certifier blocks of the last commit every 1,000 blocks.
//! - `head`: one batch per commit, with its certifier blocks, which the next commit commits.
//! - `cold`: requests for 1,000 blocks by reference, in the chain's order, each block once, from a newly opened store.
//!   The database has nothing in memory, but the operating system has: the case measures finding, reading and checking.
//! - `warm`: the same requests for the same 2,000 blocks, repeated.
//! - `sub_dag`: the executor's reads: every commit, decoded with its blocks, from a newly opened store.
//! - `serve`: ranges of 250 commits with their certifier blocks.

use bytes::Bytes;
use soma_store::{FjallStore, Store, serve_commits};
use soma_types::{
    Authority, Block, BlockRef, CertifiedCommit, Commit, CommitRef, Committee, Genesis, PublicKey, Round, Signature,
    Signed, SignedBlock, SigningKey, TransactionBytes, TrustedCommit, VerifiedBlock,
};
use std::{
    fs::File,
    hint::black_box,
    io::Write,
    path::Path,
    time::{Duration, Instant},
};

/// Number of authorities; each makes a block in every round.
const AUTHORITIES: u32 = 4;
/// Approximate bytes of a write batch of a sync.
const BATCH_BYTES: usize = 4 << 20;
/// Blocks per set of certifier blocks of a sync, and per request of a peer.
const RANGE_BLOCKS: usize = 1_000;
/// Number of commits in the case `head`.
const HEAD_COMMITS: usize = 300;

const KINDS: [(&str, usize, u32); 6] = [
    ("S/4", 600, 1),
    ("S/40", 600, 10),
    ("C/4", 1_500, 1),
    ("C/40", 1_500, 10),
    ("L/4", 4_096, 1),
    ("L/40", 4_096, 10),
];

fn main() {
    let chosen: Vec<String> = std::env::args().skip(1).filter(|argument| !argument.starts_with("--")).collect();
    println!("us per block; CPU of the whole process, wall in brackets; `written` in bytes per byte of block");
    println!(
        "{:5} {:>8} {:>15} {:>15} {:>8} {:>15} {:>8} {:>15} {:>15} {:>15} {:>15}",
        "chain", "blocks", "raw", "apply", "written", "head", "written", "cold", "warm", "sub_dag", "serve"
    );
    for (name, block_bytes, rounds_per_commit) in KINDS {
        if chosen.is_empty() || chosen.iter().any(|wanted| wanted == name) {
            measure(name, block_bytes, rounds_per_commit);
        }
    }
}

fn measure(name: &str, block_bytes: usize, rounds_per_commit: u32) {
    let mut chain = Chain::new(block_bytes, rounds_per_commit);
    let blocks = (100_000_000 / block_bytes).min(80_000);
    let commits = blocks / (AUTHORITIES * rounds_per_commit) as usize;
    let synced = batches(chain.build(commits), BATCH_BYTES);
    let head: Vec<_> = chain.build(HEAD_COMMITS);
    let refs = |commits: &[CertifiedCommit]| -> Vec<BlockRef> {
        commits.iter().flat_map(|certified| certified.commit.blocks.clone()).collect()
    };
    let synced_refs: Vec<BlockRef> = synced.iter().flat_map(|batch| refs(batch)).collect();
    let head_blocks = refs(&head).len();
    let directory = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let path = directory.path().join("store");

    let raw = Cost::of(synced_refs.len(), || {
        let mut file = File::create(directory.path().join("raw")).unwrap();
        for batch in &synced {
            let blocks = batch.iter().flat_map(|certified| &certified.blocks);
            let bytes = blocks.map(|block| &block.bytes()[..]).collect::<Vec<_>>().concat();
            file.write_all(&bytes).unwrap();
            file.sync_data().unwrap();
        }
    });
    let open = |path: &Path| FjallStore::open(path, &chain.genesis).unwrap();
    let store = open(&path);
    let apply = Cost::of(synced_refs.len(), || {
        for batch in &synced {
            store.apply(batch).unwrap();
        }
        settle();
    });
    drop(store);
    drop(synced);

    let store = open(&path);
    let cold = Cost::of(synced_refs.len(), || {
        for refs in synced_refs.chunks(RANGE_BLOCKS) {
            let blocks = store.blocks(refs).unwrap();
            assert!(black_box(&blocks).iter().all(Option::is_some));
        }
    });
    let few = &synced_refs[synced_refs.len() / 3..][..2 * RANGE_BLOCKS];
    let rounds = 20;
    let warm = Cost::of(rounds * few.len(), || {
        for refs in few.chunks(RANGE_BLOCKS).cycle().take(2 * rounds) {
            assert!(black_box(store.blocks(refs).unwrap()).iter().all(Option::is_some));
        }
    });
    drop(store);

    let store = open(&path);
    let last = store.watermarks().unwrap().highest_synced.index;
    let sub_dag = Cost::of(synced_refs.len(), || {
        for index in 1..=last {
            assert!(black_box(store.sub_dag(index).unwrap()).is_some());
        }
    });
    let serve = Cost::of(synced_refs.len(), || {
        let mut start = 1;
        while start <= last {
            let served = serve_commits(&store, start, start + 249, 4 << 20).unwrap();
            let Ok(served) = served else { break };
            start += served.commits.len() as u32;
        }
    });

    let head = Cost::of(head_blocks, || {
        for certified in &head {
            store.apply(std::slice::from_ref(certified)).unwrap();
        }
        settle();
    });
    let written = |cost: &Cost| format!("{:.2}", cost.written / block_bytes as f64);
    println!(
        "{name:5} {:>8} {:>15} {:>15} {:>8} {:>15} {:>8} {:>15} {:>15} {:>15} {:>15}",
        synced_refs.len(),
        raw.shown(false),
        apply.shown(true),
        written(&apply),
        head.shown(true),
        written(&head),
        cold.shown(false),
        warm.shown(false),
        sub_dag.shown(false),
        serve.shown(false),
    );
}

/// Gives the database's threads time to finish.
fn settle() {
    std::thread::sleep(SETTLE);
}

const SETTLE: Duration = Duration::from_millis(700);

/// Costs per block: microseconds of CPU and wall time, and bytes written.
struct Cost {
    cpu: f64,
    wall: f64,
    settled_wall: f64,
    written: f64,
}

impl Cost {
    fn of(blocks: usize, work: impl FnOnce()) -> Self {
        let (before, written, started) = (cpu_seconds(), bytes_written(), Instant::now());
        work();
        let wall = started.elapsed().as_secs_f64();
        let per_block = |seconds: f64| seconds * 1e6 / blocks as f64;
        Self {
            cpu: per_block(cpu_seconds() - before),
            wall: per_block(wall),
            settled_wall: per_block(wall - SETTLE.as_secs_f64()),
            written: (bytes_written() - written) / blocks as f64,
        }
    }

    fn shown(&self, settled: bool) -> String {
        format!("{:.2} ({:.2})", self.cpu, if settled { self.settled_wall } else { self.wall })
    }
}

/// CPU seconds of this process, with a resolution of 10 ms.
fn cpu_seconds() -> f64 {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap();
    // The fields after the name, which is in brackets.
    let fields: Vec<&str> = stat.rsplit_once(')').unwrap().1.split_whitespace().collect();
    let ticks: f64 = [fields[11], fields[12]].iter().map(|ticks| ticks.parse::<f64>().unwrap()).sum();
    ticks / 100.0
}

/// Bytes that this process has written to files.
fn bytes_written() -> f64 {
    let io = std::fs::read_to_string("/proc/self/io").unwrap();
    io.lines().find_map(|line| line.strip_prefix("wchar: ")).unwrap().parse().unwrap()
}

/// Cuts a chain into batches like a sync: only the last commit of each response keeps its certifier blocks.
fn batches(commits: Vec<CertifiedCommit>, batch_bytes: usize) -> Vec<Vec<CertifiedCommit>> {
    let (mut batches, mut batch, mut bytes, mut blocks) = (Vec::new(), Vec::new(), 0, 0);
    let count = commits.len();
    for (number, mut certified) in (1..).zip(commits) {
        blocks += certified.blocks.len();
        let ends = blocks >= RANGE_BLOCKS || number == count;
        if ends {
            blocks = 0;
        } else {
            certified.certifiers.clear();
        }
        bytes += certified.size();
        batch.push(certified);
        if ends && (bytes >= batch_bytes || number == count) {
            batches.push(std::mem::take(&mut batch));
            bytes = 0;
        }
    }
    batches
}

/// Grows a chain with a valid structure but invalid signatures, which the store does not check.
struct Chain {
    genesis: Genesis,
    block_bytes: usize,
    rounds_per_commit: u32,
    last: CommitRef,
    round: Round,
    latest: Vec<BlockRef>,
    /// Blocks that are made but not committed.
    open: Vec<VerifiedBlock>,
    noise: u64,
}

impl Chain {
    fn new(block_bytes: usize, rounds_per_commit: u32) -> Self {
        let key = |seed: u32| PublicKey::from(&SigningKey::from_bytes(&[seed as u8; 32]));
        let authorities = (0..AUTHORITIES).map(|index| Authority {
            stake: 1,
            protocol_key: key(index),
            network_key: key(100 + index),
            address: "/ip4/127.0.0.1/tcp/9000".parse().unwrap(),
        });
        let committee = Committee { epoch: 0, authorities: authorities.collect() };
        let genesis = Genesis::new("bench", 1, committee).unwrap();
        let last = genesis.commit().reference();
        let mut chain = Self {
            genesis,
            block_bytes,
            rounds_per_commit,
            last,
            round: 0,
            latest: Vec::new(),
            open: Vec::new(),
            noise: 7,
        };
        chain.make_round(&[]);
        chain
    }

    fn make_round(&mut self, votes: &[CommitRef]) {
        self.round += 1;
        let ancestors = std::mem::take(&mut self.latest);
        for author in 0..AUTHORITIES {
            let overhead = 240 + BlockRef::BYTES * ancestors.len() + 36 * votes.len();
            let payload = (0..self.block_bytes.saturating_sub(overhead) / 8).flat_map(|_| {
                self.noise = self.noise.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                (self.noise ^ self.noise >> 31).to_le_bytes()
            });
            let payload = Bytes::from(payload.collect::<Vec<u8>>());
            let block = Block {
                epoch: 0,
                round: self.round,
                author,
                timestamp_ms: u64::from(self.round),
                ancestors: ancestors.clone(),
                transactions: vec![TransactionBytes(payload)],
                commit_votes: votes.to_vec(),
                end_of_epoch: None,
            };
            let block = SignedBlock::from(Signed::with_signature(block, Signature::ZERO));
            self.latest.push(block.reference());
            self.open.push(VerifiedBlock::assume_verified(block));
        }
    }

    /// The next commits: each has the leader of the last round and all earlier uncommitted blocks.
    fn build(&mut self, count: usize) -> Vec<CertifiedCommit> {
        let mut commits = Vec::with_capacity(count);
        for _ in 0..count {
            let leader = self.round % AUTHORITIES;
            let (later, blocks): (Vec<_>, Vec<_>) =
                self.open.drain(..).partition(|block| block.round == self.round && block.author != leader);
            self.open = later;
            let commit = TrustedCommit::assume_trusted(Commit {
                index: self.last.index + 1,
                previous_digest: self.last.digest,
                timestamp_ms: u64::from(self.round),
                leader: blocks.last().unwrap().reference(),
                blocks: blocks.iter().map(|block| block.reference()).collect(),
                epoch: 0,
            });
            self.last = commit.reference();
            self.make_round(&[self.last]);
            let certifiers = self.open.iter().filter(|block| block.round == self.round).cloned().collect();
            for _ in 1..self.rounds_per_commit {
                self.make_round(&[]);
            }
            commits.push(CertifiedCommit { commit, blocks, certifiers });
        }
        commits
    }
}
