//! The shell: turns messages into jobs and jobs into answers.

use crate::{
    metrics,
    pool::{CpuPool, JobEnd, PoolError, PoolSize},
};
use actix::{Actor, ActorContext, Context, Handler};
use serde::{Deserialize, Serialize};
use soma_messages::{
    Envelope, Observe, Reply, Stop,
    verifier::{Rejection, VerifiedRange, VerifyBlocks, VerifyCommits, VerifyNodeInfos, VerifySubDags},
};
use soma_protocol::{
    Core,
    state_sync::Verified,
    verifier::{Config, Effect, Input, Priority, Snapshot, Verifier as VerifierCore},
};
use soma_replay::Origin;
use soma_supervision::{CoreHost, Environment, Shell};
use soma_types::{CertifiedCommit, ChainId, Fault, VerifiedBlock};
use soma_verify::{
    BlocksError, CheckedBlocks, Checks, CommitsError, EpochContext, TransactionVerifier, check_blocks, check_commits,
    verify_node_info, verify_sub_dag,
};
use std::{collections::BTreeMap, sync::Arc, time::Duration};

/// Jobs that may wait for a permit or for their signatures: more than all workers and Discovery have at once.
const MAX_WAITING: usize = 2_048;

/// Signatures that are enough for a batch: what [`soma_verify::BATCH_GROUP`] takes at once.
const BATCH_SIGNATURES: usize = soma_verify::BATCH_GROUP;

/// How long signatures wait for others while a thread has nothing to do: nothing beside a round trip to a peer.
const BATCH_DELAY: Duration = Duration::from_millis(1);

/// How much of a committed block is checked.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Verification {
    /// Digest, form, and every signature of the block and its transactions.
    #[default]
    Full,
    /// Digest and form: that a quorum has certified the digest stands for the rest.
    Certified,
}

/// A check on its way to the pool.
enum Job {
    /// One that answers whoever asked for it.
    Whole(Box<dyn FnOnce() + Send>),
    /// The first half of a check of blocks.
    Blocks(Box<dyn FnOnce() -> Option<Unsigned> + Send>),
}

/// Blocks that are right but for their signatures, and who waits for them.
struct Unsigned {
    blocks: CheckedBlocks,
    reply: BlocksReply,
}

type BlocksReply = Reply<Result<Vec<VerifiedBlock>, Rejection>>;

/// The actor.
pub struct Verifier {
    // Configuration
    chain: ChainId,
    verification: Verification,
    transactions: Arc<dyn TransactionVerifier>,
    pool: CpuPool,
    // State
    host: CoreHost<VerifierCore>,
    jobs: BTreeMap<u64, Job>,
    unsigned: BTreeMap<u64, Unsigned>,
    next_job: u64,
}

impl Verifier {
    /// A verifier for one chain, with a CPU pool of its own.
    pub fn new(
        chain: ChainId,
        verification: Verification,
        transactions: Arc<dyn TransactionVerifier>,
        pool: PoolSize,
        environment: Environment,
    ) -> Result<Self, PoolError> {
        let pool = pool.build()?;
        let config = Config {
            threads: pool.threads(),
            permits: pool.permits(),
            max_waiting: MAX_WAITING,
            batch_signatures: BATCH_SIGNATURES,
            batch_delay: BATCH_DELAY,
        };
        let host = CoreHost::new(VerifierCore::new(config), environment);
        let (jobs, unsigned) = (BTreeMap::new(), BTreeMap::new());
        Ok(Self { chain, verification, transactions, pool, host, jobs, unsigned, next_job: 0 })
    }

    fn submit(&mut self, origin: Origin, priority: Priority, job: Job, context: &mut Context<Self>) {
        self.next_job += 1;
        self.jobs.insert(self.next_job, job);
        self.feed(origin, Input::Submit { job: self.next_job, priority }, context);
    }

    /// Runs some work on the pool and feeds what `finish` makes of its result; there is none of a panic.
    fn run<R: Send + 'static>(
        &mut self,
        work: impl FnOnce() -> R + Send + 'static,
        finish: impl FnOnce(&mut Self, Option<R>) -> Input + 'static,
        context: &mut Context<Self>,
    ) {
        let census = self.host.environment().census().clone();
        let running = self.pool.clone().run(work, census);
        let finish = move |verifier: &mut Self, end, origin, context: &mut Context<Self>| {
            let result = match end {
                JobEnd::Done(result) => Some(result),
                JobEnd::Panicked => {
                    tracing::error!(actor = VerifierCore::NAME, "a check panicked; whoever asked gets no answer");
                    None
                }
                JobEnd::Blocked { thread } => {
                    // The next incarnation has a pool of its own; who asked this one asks again.
                    return verifier.give_up(format!("a check does not end; it blocks thread {thread}"), context);
                }
            };
            let input = finish(verifier, result);
            verifier.feed(origin, input, context);
        };
        self.later(running, finish, context);
    }
}

impl Actor for Verifier {
    type Context = Context<Self>;
}

impl Shell for Verifier {
    type Core = VerifierCore;

    fn host(&mut self) -> &mut CoreHost<VerifierCore> {
        &mut self.host
    }

    fn perform(&mut self, effect: Effect, context: &mut Context<Self>) {
        match effect {
            Effect::Run(job) => match self.jobs.remove(&job) {
                Some(Job::Whole(work)) => {
                    self.run(work, move |_, end| Input::Done { job, panicked: end.is_none() }, context);
                }
                Some(Job::Blocks(work)) => {
                    let finish = move |verifier: &mut Self, end: Option<Option<Unsigned>>| match end {
                        Some(Some(unsigned)) => {
                            let signatures = unsigned.blocks.signatures();
                            verifier.unsigned.insert(job, unsigned);
                            Input::Checked { job, signatures }
                        }
                        Some(None) => Input::Done { job, panicked: false },
                        None => Input::Done { job, panicked: true },
                    };
                    self.run(work, finish, context);
                }
                None => {}
            },
            Effect::RunBatch { batch, jobs } => {
                let unsigned: Vec<_> = jobs.iter().filter_map(|job| self.unsigned.remove(job)).collect();
                let finish = move |_: &mut Self, end: Option<()>| Input::BatchDone { batch, panicked: end.is_none() };
                self.run(move || verify_signatures(unsigned), finish, context);
            }
            Effect::Refuse(job) => {
                metrics::refused();
                self.jobs.remove(&job);
            }
        }
    }
}

/// Checks the signatures of several answers together, and answers those who wait for them.
fn verify_signatures(unsigned: Vec<Unsigned>) {
    let (blocks, replies): (Vec<_>, Vec<_>) =
        unsigned.into_iter().map(|Unsigned { blocks, reply }| (blocks, reply)).unzip();
    metrics::batch(blocks.iter().map(CheckedBlocks::signatures).sum());
    for (reply, verdict) in replies.into_iter().zip(CheckedBlocks::verify_all(blocks)) {
        answer_blocks(reply, verdict);
    }
}

fn answer_blocks(reply: BlocksReply, verdict: Result<Vec<VerifiedBlock>, BlocksError>) {
    if let Ok(blocks) = &verdict {
        metrics::blocks_verified(blocks.len());
    }
    let rejected = |error: BlocksError| Rejection::Fault { fault: error.fault(), reason: error.to_string() };
    answer("blocks", reply, verdict.map_err(rejected));
}

/// Answers, and counts what did not pass.
fn answer<T>(what: &'static str, reply: Reply<Result<T, Rejection>>, result: Result<T, Rejection>) {
    // The end of an epoch is no rejection.
    if matches!(result, Err(Rejection::Fault { .. })) {
        metrics::rejected(what);
    }
    reply.send(result);
}

impl Handler<Envelope<VerifyCommits>> for Verifier {
    type Result = ();

    fn handle(&mut self, envelope: Envelope<VerifyCommits>, context: &mut Context<Self>) {
        let VerifyCommits { context: epoch, start, end, fetched, reply } = envelope.message;
        let job = move || {
            let result = check_commits(&epoch, start, end, fetched.commits, fetched.certifier_blocks);
            answer("commits", reply, result.map_err(reject_commits));
        };
        self.submit(envelope.origin, Priority::High, Job::Whole(Box::new(job)), context);
    }
}

fn reject_commits(error: CommitsError) -> Rejection {
    match error {
        CommitsError::OtherEpoch { index, found, .. } => Rejection::OtherEpoch { index, found },
        other => Rejection::Fault { fault: other.fault(), reason: other.to_string() },
    }
}

impl Handler<Envelope<VerifyBlocks>> for Verifier {
    type Result = ();

    fn handle(&mut self, envelope: Envelope<VerifyBlocks>, context: &mut Context<Self>) {
        let VerifyBlocks { context: epoch, refs, blocks, reply } = envelope.message;
        let (transactions, verification) = (self.transactions.clone(), self.verification);
        let job = move || {
            let checks = match verification {
                Verification::Full => Checks::Full(&*transactions),
                Verification::Certified => Checks::Certified,
            };
            match check_blocks(&epoch, checks, &refs, blocks) {
                Ok(blocks) if blocks.signatures() > 0 => return Some(Unsigned { blocks, reply }),
                Ok(blocks) => answer_blocks(reply, CheckedBlocks::verify_all(vec![blocks]).remove(0)),
                Err(error) => answer_blocks(reply, Err(error)),
            }
            None
        };
        self.submit(envelope.origin, Priority::Normal, Job::Blocks(Box::new(job)), context);
    }
}

impl Handler<Envelope<VerifySubDags>> for Verifier {
    type Result = ();

    fn handle(&mut self, envelope: Envelope<VerifySubDags>, context: &mut Context<Self>) {
        let VerifySubDags { context: epoch, commits, reply } = envelope.message;
        let job = move || answer("sub-dags", reply, verify_range(&epoch, commits));
        self.submit(envelope.origin, Priority::Normal, Job::Whole(Box::new(job)), context);
    }
}

/// Checks consecutive commits with their blocks, and sums them up.
fn verify_range(epoch: &EpochContext, commits: Vec<CertifiedCommit>) -> Result<VerifiedRange, Rejection> {
    let ours = |reason: String| Rejection::Fault { fault: Fault::Ours, reason };
    let (Some(first), Some(last)) = (commits.first(), commits.last()) else {
        return Err(ours("a range without commits".into()));
    };
    let mut previous_timestamp = None;
    let mut next_committee = None;
    for CertifiedCommit { commit, blocks, .. } in &commits {
        if next_committee.is_some() {
            return Err(ours(format!("commit {} comes after the end of its epoch", commit.index)));
        }
        let handover = verify_sub_dag(epoch, commit, previous_timestamp, blocks)
            .map_err(|error| Rejection::Fault { fault: error.fault(), reason: error.to_string() })?;
        next_committee = handover.map(|handover| handover.next_committee);
        previous_timestamp = Some(commit.timestamp_ms);
    }
    let summary = Verified {
        first: first.commit.index,
        last: last.commit.reference(),
        previous: first.commit.previous_digest,
        first_timestamp_ms: first.commit.timestamp_ms,
        last_timestamp_ms: last.commit.timestamp_ms,
        epoch: first.commit.epoch,
        ends_epoch: next_committee.is_some(),
        bytes: commits.iter().map(|commit| commit.size() as u64).sum(),
        blocks: commits.iter().map(|commit| commit.blocks.len() as u64).sum(),
    };
    Ok(VerifiedRange { summary, commits, next_committee })
}

impl Handler<Envelope<VerifyNodeInfos>> for Verifier {
    type Result = ();

    fn handle(&mut self, envelope: Envelope<VerifyNodeInfos>, context: &mut Context<Self>) {
        let VerifyNodeInfos { infos, now_ms, reply } = envelope.message;
        let chain = self.chain;
        let job = move || {
            let verified = infos.into_iter().filter_map(|info| match verify_node_info(chain, info, now_ms) {
                Ok(info) => Some(info),
                Err(error) => {
                    metrics::rejected("node-info");
                    metrics::info_dropped(error.reason());
                    tracing::debug!(%error, "node info dropped");
                    None
                }
            });
            reply.send(verified.collect());
        };
        self.submit(envelope.origin, Priority::Normal, Job::Whole(Box::new(job)), context);
    }
}

impl Handler<Envelope<Observe<Snapshot>>> for Verifier {
    type Result = ();

    fn handle(&mut self, envelope: Envelope<Observe<Snapshot>>, _: &mut Context<Self>) {
        envelope.message.0.send(self.host.snapshot());
    }
}

impl Handler<Envelope<Stop>> for Verifier {
    type Result = ();

    fn handle(&mut self, envelope: Envelope<Stop>, context: &mut Context<Self>) {
        // Waiting jobs are dropped: those who asked have been stopped before.
        context.stop();
        envelope.message.0.send(());
    }
}
