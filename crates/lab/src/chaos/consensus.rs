//! The consensus that this process plays: makes commits at a steady rate and offers them to each validator, from
//! wherever that validator is to go on.

use soma_p2p::{CertifiedCommit, CommitIndex, SubDagDigest};
use soma_p2p_cli::feed;
use soma_testkit::ChainBuilder;
use std::{
    collections::VecDeque,
    process::ChildStdin,
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

/// The chain as far as it has been made.
struct Chain {
    /// Commits that some validator may still need; what all have on disk is dropped.
    commits: VecDeque<Arc<CertifiedCommit>>,
    /// What an executor must have been given up to each commit, commit 1 first.
    digests: Vec<SubDagDigest>,
    /// Consensus has stopped.
    complete: bool,
    /// Validators are to stop.
    over: bool,
}

impl Chain {
    fn head(&self) -> CommitIndex {
        self.digests.len() as CommitIndex
    }

    fn first(&self) -> CommitIndex {
        self.head() + 1 - self.commits.len() as CommitIndex
    }
}

struct Shared {
    chain: Mutex<Chain>,
    changed: Condvar,
}

impl Shared {
    fn chain(&self) -> MutexGuard<'_, Chain> {
        // A panic under the lock leaves a whole chain: the chain is changed last, and in one step.
        self.chain.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Makes the commits. Validators stop when it is dropped.
pub(super) struct Consensus {
    shared: Arc<Shared>,
    maker: Option<JoinHandle<()>>,
}

impl Consensus {
    /// Continues a history with these digests.
    pub(super) fn start(mut builder: ChainBuilder, rate: u32, digests: Vec<SubDagDigest>) -> Self {
        let chain = Chain { commits: VecDeque::new(), digests, complete: false, over: false };
        let shared = Arc::new(Shared { chain: Mutex::new(chain), changed: Condvar::new() });
        let making = shared.clone();
        let interval = Duration::from_secs(1) / rate.max(1);
        let maker = thread::spawn(move || {
            let mut due = Instant::now();
            loop {
                due += interval;
                let commit = Arc::new(builder.next_commit());
                let mut chain = making.chain();
                while !chain.complete && Instant::now() < due {
                    let wait = due.saturating_duration_since(Instant::now());
                    chain = making.changed.wait_timeout(chain, wait).unwrap_or_else(PoisonError::into_inner).0;
                }
                if chain.complete {
                    return;
                }
                let mut digest = chain.digests.last().copied().unwrap_or_default();
                digest.push(&commit.sub_dag());
                chain.digests.push(digest);
                chain.commits.push_back(commit);
                making.changed.notify_all();
            }
        });
        Self { shared, maker: Some(maker) }
    }

    /// The last commit made.
    pub(super) fn head(&self) -> CommitIndex {
        self.shared.chain().head()
    }

    /// Offers a validator every commit from this one on, until it or the network is gone.
    pub(super) fn offer(&self, mut validator: ChildStdin, from: CommitIndex) {
        let shared = self.shared.clone();
        thread::spawn(move || {
            let mut next = from;
            loop {
                let mut chain = shared.chain();
                while !chain.over && chain.head() < next {
                    chain = shared.changed.wait(chain).unwrap_or_else(PoisonError::into_inner);
                }
                if chain.over {
                    return;
                }
                // Older commits are on every validator's disk.
                next = next.max(chain.first());
                let commit = chain.commits.get((next - chain.first()) as usize).cloned();
                drop(chain);
                let Some(commit) = commit else { continue };
                if feed::write_commit(&mut validator, &commit).is_err() {
                    return;
                }
                next += 1;
            }
        });
    }

    /// Drops the commits up to this one, which all validators have on disk.
    pub(super) fn forget(&self, up_to: CommitIndex) {
        let mut chain = self.shared.chain();
        while !chain.commits.is_empty() && chain.first() <= up_to {
            chain.commits.pop_front();
        }
    }

    /// Stops making commits, and returns the expected input of executors up to each commit.
    pub(super) fn complete(&mut self) -> Vec<SubDagDigest> {
        self.shared.chain().complete = true;
        self.shared.changed.notify_all();
        if let Some(maker) = self.maker.take() {
            // A panicked maker has reported it, and its commits stand.
            let _ = maker.join();
        }
        self.shared.chain().digests.clone()
    }

    /// Ends every validator's input, which asks it to stop.
    pub(super) fn end(&mut self) {
        self.complete();
        self.shared.chain().over = true;
        self.shared.changed.notify_all();
    }
}

impl Drop for Consensus {
    fn drop(&mut self) {
        self.end();
    }
}
