//! The shell: turns messages into jobs and jobs into answers.

use crate::verifier::messages::{
    BlocksAnswer, Rejection, SubDagsAnswer, VerifiedRange, VerifyBlocks, VerifyCertificates, VerifyCommits,
    VerifyEpochProofs, VerifyLocalCommit, VerifyMessages, VerifyNodeInfos, VerifySubDags,
};
use crate::verifier::{
    epoch_checks::verify_epochs,
    message_checks::judge_messages,
    metrics,
    pool::{CpuPool, JobEvent, JobWatch, PoolError, PoolSize, RunningJob, SLOW_MESSAGE_CHECK, Sliced, Whole},
};
use actix::{Actor, Context, Handler};
use serde::{Deserialize, Serialize};
use soma_protocol::{
    Core,
    state_sync::{LocalCommitError, RangeSummary},
    verifier::{Config, Effect, Input, Priority, Snapshot, Verifier as VerifierCore},
};
use soma_replay::Origin;
use soma_runtime::{Clock, CoreHost, Envelope, Keyed, LogLimit, Reply, RuntimeContext, Shell, observe, stop_at_once};
use soma_types::{CertifiedCommit, ChainId, PeerFailure, TimestampMs, Topic};
use soma_verify::{
    BlocksError, BlocksVerdict, CertifiedCommitError, CheckedBlocks, CheckedCommits, Checks, CommitsError,
    EpochContext, MessageValidator, SubDagsVerdict, TransactionVerifier, check_blocks, check_certificates,
    check_commits, verify_certified_commit, verify_node_info, verify_sub_dags,
};
use std::{collections::BTreeMap, sync::Arc, time::Duration};

/// Jobs that may wait for a permit or for their signatures: more than all workers and Discovery have at once.
const MAX_WAITING: usize = 2_048;

/// Signatures that are enough for a batch: what [`soma_verify::BATCH_GROUP`] takes at once.
const BATCH_SIGNATURES: usize = soma_verify::BATCH_GROUP;

/// How long signatures wait for others while a thread is idle: negligible compared with a round trip to a peer.
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

impl Verification {
    fn checks(self, transactions: &dyn TransactionVerifier) -> Checks<'_> {
        match self {
            Self::Full => Checks::Full(transactions),
            Self::Certified => Checks::Certified,
        }
    }
}

/// A check on its way to the pool.
enum Job {
    /// A check with one asker.
    Whole(Box<dyn FnOnce(&mut JobWatch) + Send>),
    /// A check of messages, which returns how often the embedder's validator panicked.
    Messages(Box<dyn FnOnce(&mut JobWatch) -> usize + Send>),
    /// The first half of a check of blocks.
    Blocks(Box<dyn FnOnce(&mut JobWatch) -> HalfChecked + Send>),
}

/// What the first half of a check of blocks leaves.
struct HalfChecked {
    /// Blocks with unchecked signatures. None if the answer has been given.
    unsigned: Option<Unsigned>,
    /// What the node's own transaction verifier said when it panicked, and where.
    panic: Option<String>,
}

/// Blocks that passed all checks but their signatures, and the asker.
struct Unsigned {
    blocks: CheckedBlocks,
    reply: Reply<BlocksAnswer>,
}

/// The actor.
pub struct Verifier {
    // Configuration
    chain: ChainId,
    verification: Verification,
    transactions: Arc<dyn TransactionVerifier>,
    validator: Arc<dyn MessageValidator>,
    pool: CpuPool,
    // State
    host: CoreHost<VerifierCore>,
    jobs: Keyed<Job>,
    unsigned: BTreeMap<u64, Unsigned>,
    panics_logged: LogLimit,
    slow_logged: LogLimit,
}

impl Verifier {
    /// A verifier for one chain, with a CPU pool of its own.
    pub fn new(
        chain: ChainId,
        verification: Verification,
        transactions: Arc<dyn TransactionVerifier>,
        validator: Arc<dyn MessageValidator>,
        pool: PoolSize,
        runtime_context: RuntimeContext,
    ) -> Result<Self, PoolError> {
        let pool = pool.build(&runtime_context)?;
        let config = Config {
            threads: pool.threads(),
            permits: pool.permits(),
            max_waiting: MAX_WAITING,
            batch_signatures: BATCH_SIGNATURES,
            batch_delay: BATCH_DELAY,
        };
        let host = CoreHost::new(VerifierCore::new(config), runtime_context);
        Ok(Self {
            chain,
            verification,
            transactions,
            validator,
            pool,
            host,
            jobs: Keyed::default(),
            unsigned: BTreeMap::new(),
            panics_logged: LogLimit::default(),
            slow_logged: LogLimit::default(),
        })
    }

    fn submit(&mut self, origin: Origin, priority: Priority, job: Job, context: &mut Context<Self>) {
        let job = self.jobs.insert(job);
        self.feed(origin, Input::Submit { job, priority }, context);
    }

    /// Follows some work on the pool and feeds what `finish` makes of its result; there is none of a panic. `job` is
    /// the job's number in the core, unless it is a batch.
    fn follow<R: Send + 'static>(
        &mut self,
        job: Option<u64>,
        running: RunningJob<R>,
        finish: impl FnOnce(&mut Self, Option<R>) -> Input + 'static,
        context: &mut Context<Self>,
    ) {
        let next = move |verifier: &mut Self, event, origin, context: &mut Context<Self>| {
            let result = match event {
                JobEvent::Done(result) => Some(result),
                JobEvent::Panicked => {
                    tracing::error!(actor = VerifierCore::NAME, "a check panicked; the caller gets no answer");
                    None
                }
                JobEvent::Slow { at, job: running } => {
                    if let Some(left_out) = verifier.slow_logged.admit(verifier.host.now().monotonic) {
                        let at = at.map_or_else(|| "a check".into(), |at| at.to_string());
                        tracing::warn!(left_out, "{at} has been at work for long; others go on, and it is waited for");
                    }
                    if let Some(job) = job {
                        verifier.feed(origin, Input::Slow { job, at }, context);
                    }
                    return verifier.follow(job, running, finish, context);
                }
            };
            let input = finish(verifier, result);
            verifier.feed(origin, input, context);
        };
        self.later(running.next(), next, context);
    }

    /// Reports a panic of the node's own transaction verifier.
    fn report_panic(&mut self, panic: &str) {
        metrics::transaction_verifier_panicked();
        self.log_panic(panic);
    }

    fn log_panic(&mut self, panic: &str) {
        if let Some(left_out) = self.panics_logged.admit(self.host.now().monotonic) {
            tracing::error!(left_out, "{panic}");
        }
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
            Effect::Run(job) => match self.jobs.remove(job) {
                Some(Job::Whole(work)) => {
                    let finish = move |_: &mut Self, end: Option<()>| Input::Done { job, panicked: end.is_none() };
                    let running = self.pool.run(work);
                    self.follow(Some(job), running, finish, context);
                }
                Some(Job::Messages(work)) => {
                    let finish = move |verifier: &mut Self, panics: Option<usize>| {
                        if panics.is_some_and(|panics| panics > 0) {
                            metrics::message_validator_panicked();
                            verifier.log_panic("the message validator panicked; the message is ignored");
                        }
                        Input::Done { job, panicked: panics != Some(0) }
                    };
                    let running = self.pool.run(work).slow_after(SLOW_MESSAGE_CHECK);
                    self.follow(Some(job), running, finish, context);
                }
                Some(Job::Blocks(work)) => {
                    let finish = move |verifier: &mut Self, end: Option<HalfChecked>| {
                        let Some(HalfChecked { unsigned, panic }) = end else {
                            return Input::Done { job, panicked: true };
                        };
                        if let Some(panic) = &panic {
                            verifier.report_panic(panic);
                        }
                        let Some(unsigned) = unsigned else {
                            return Input::Done { job, panicked: panic.is_some() };
                        };
                        let signatures = unsigned.blocks.signatures();
                        verifier.unsigned.insert(job, unsigned);
                        Input::Checked { job, signatures }
                    };
                    let running = self.pool.run(work);
                    self.follow(Some(job), running, finish, context);
                }
                None => {}
            },
            Effect::RunBatch { batch, jobs } => {
                let unsigned: Vec<_> = jobs.iter().filter_map(|job| self.unsigned.remove(job)).collect();
                let finish = move |_: &mut Self, end: Option<()>| Input::BatchDone { batch, panicked: end.is_none() };
                let clock = self.host.clock();
                let running = self.pool.run(move |_| verify_signatures(unsigned, clock));
                self.follow(None, running, finish, context);
            }
            Effect::Refuse(job) => {
                metrics::refused();
                self.jobs.remove(job);
            }
        }
    }
}

/// Checks the signatures of several answers together, and answers each asker.
fn verify_signatures(unsigned: Vec<Unsigned>, clock: Clock) {
    let (blocks, replies): (Vec<_>, Vec<_>) =
        unsigned.into_iter().map(|Unsigned { blocks, reply }| (blocks, reply)).unzip();
    let signatures = blocks.iter().map(CheckedBlocks::signatures).sum();
    let begun = clock.monotonic();
    let verdicts = CheckedBlocks::verify_all(blocks);
    metrics::batch(signatures, clock.monotonic().saturating_sub(begun));
    for (reply, verdict) in replies.into_iter().zip(verdicts) {
        answer_blocks(reply, verdict);
    }
}

fn answer_blocks(reply: Reply<BlocksAnswer>, BlocksVerdict { blocks, error }: BlocksVerdict) {
    metrics::blocks_verified(blocks.len());
    let rejected = |error: BlocksError| {
        metrics::rejected("blocks");
        Rejection::Failed(PeerFailure::new(error.fault(), error.to_string()))
    };
    reply.send(BlocksAnswer { blocks, rejection: error.map(rejected) });
}

/// Answers, and counts what did not pass.
fn answer<T>(what: &'static str, reply: Reply<Result<T, Rejection>>, result: Result<T, Rejection>) {
    // The end of an epoch is no rejection.
    if matches!(result, Err(Rejection::Failed(_))) {
        metrics::rejected(what);
    }
    reply.send(result);
}

impl Handler<Envelope<VerifyCommits>> for Verifier {
    type Result = ();

    fn handle(&mut self, envelope: Envelope<VerifyCommits>, context: &mut Context<Self>) {
        let VerifyCommits { context: epoch, start, end, fetched, reply } = envelope.message;
        let job = move |_: &mut JobWatch| {
            let result = check_commits(&epoch, start, end, fetched.commits, fetched.certifier_blocks);
            if matches!(result, Ok(CheckedCommits { breach: Some(_), .. })) {
                metrics::rejected("commits");
            }
            answer("commits", reply, result.map_err(reject_commits));
        };
        self.submit(envelope.origin, Priority::High, Job::Whole(Box::new(job)), context);
    }
}

fn reject_commits(error: CommitsError) -> Rejection {
    match error {
        CommitsError::OtherEpoch { index, found, .. } => Rejection::OtherEpoch { index, found },
        other => Rejection::Failed(PeerFailure::new(other.fault(), other.to_string())),
    }
}

impl Handler<Envelope<VerifyBlocks>> for Verifier {
    type Result = ();

    fn handle(&mut self, envelope: Envelope<VerifyBlocks>, context: &mut Context<Self>) {
        let VerifyBlocks { context: epoch, refs, blocks, reply } = envelope.message;
        let (transactions, verification) = (self.transactions.clone(), self.verification);
        let job = move |watch: &mut JobWatch| {
            let checks = verification.checks(&*transactions);
            let checked = match check_blocks(&epoch, checks, &refs, blocks, &mut Sliced(watch)) {
                Ok(checked) => checked,
                Err(error) => {
                    answer_blocks(reply, BlocksVerdict { blocks: Vec::new(), error: Some(error) });
                    return HalfChecked { unsigned: None, panic: None };
                }
            };
            let panic = checked.error().filter(|error| error.is_verifier_panic()).map(ToString::to_string);
            if checked.signatures() > 0 {
                return HalfChecked { unsigned: Some(Unsigned { blocks: checked, reply }), panic };
            }
            answer_blocks(reply, CheckedBlocks::verify_all(vec![checked]).remove(0));
            HalfChecked { unsigned: None, panic }
        };
        self.submit(envelope.origin, Priority::Normal, Job::Blocks(Box::new(job)), context);
    }
}

impl Handler<Envelope<VerifySubDags>> for Verifier {
    type Result = ();

    fn handle(&mut self, envelope: Envelope<VerifySubDags>, context: &mut Context<Self>) {
        let VerifySubDags { context: epoch, commits, reply } = envelope.message;
        let job = move |_: &mut JobWatch| reply.send(verify_range(&epoch, commits));
        self.submit(envelope.origin, Priority::Normal, Job::Whole(Box::new(job)), context);
    }
}

/// Checks consecutive commits with their blocks, and sums up those that pass.
fn verify_range(epoch: &EpochContext, mut commits: Vec<CertifiedCommit>) -> SubDagsAnswer {
    let SubDagsVerdict { verified, first_leader_timestamp_ms, end_of_epoch, error } = verify_sub_dags(epoch, &commits);
    commits.truncate(verified);
    let rejection = error.map(|error| {
        metrics::rejected("sub-dags");
        Rejection::Failed(PeerFailure::new(error.fault(), error.to_string()))
    });
    let next_committee = end_of_epoch.map(|end| end.next_committee);
    let range = summarize(&commits, first_leader_timestamp_ms, next_committee.is_some()).map(|summary| VerifiedRange {
        summary,
        commits,
        next_committee,
    });
    SubDagsAnswer { range, rejection }
}

/// What StateSync is to know of verified commits; none of no commits.
fn summarize(
    commits: &[CertifiedCommit],
    first_leader_timestamp_ms: TimestampMs,
    ends_epoch: bool,
) -> Option<RangeSummary> {
    let (first, last) = commits.first().zip(commits.last())?;
    Some(RangeSummary {
        first: first.commit.index,
        last: last.commit.reference(),
        previous: first.commit.previous_digest,
        first_timestamp_ms: first.commit.timestamp_ms,
        first_leader_timestamp_ms,
        last_timestamp_ms: last.commit.timestamp_ms,
        epoch: first.commit.epoch,
        ends_epoch,
        bytes: commits.iter().map(|commit| commit.size() as u64).sum(),
        blocks: commits.iter().map(|commit| commit.blocks.len() as u64).sum(),
    })
}

impl Handler<Envelope<VerifyLocalCommit>> for Verifier {
    type Result = ();

    fn handle(&mut self, envelope: Envelope<VerifyLocalCommit>, context: &mut Context<Self>) {
        let VerifyLocalCommit { context: epoch, commits, reply } = envelope.message;
        let (transactions, verification) = (self.transactions.clone(), self.verification);
        let job = move |watch: &mut JobWatch| {
            let checks = verification.checks(&*transactions);
            let verdict = match &commits[..] {
                [commit] => verify_local(&epoch, checks, commit, watch),
                // StateSync asks for one at a time.
                _ => Err(LocalCommitError::Unavailable),
            };
            reply.send(verdict);
        };
        self.submit(envelope.origin, Priority::High, Job::Whole(Box::new(job)), context);
    }
}

/// Checks a commit of the node's own consensus as every peer will.
fn verify_local(
    epoch: &EpochContext,
    checks: Checks<'_>,
    commit: &CertifiedCommit,
    watch: &mut JobWatch,
) -> Result<RangeSummary, LocalCommitError> {
    let index = commit.commit.index;
    let refused = |error: CertifiedCommitError| {
        let reason = error.to_string();
        match error {
            CertifiedCommitError::Interrupted => LocalCommitError::Unavailable,
            CertifiedCommitError::Commit(error) if error.is_about_votes() => {
                LocalCommitError::NotCertified { index, reason }
            }
            _ => LocalCommitError::Invalid { index, reason },
        }
    };
    let sub_dag = verify_certified_commit(epoch, checks, commit, &mut Whole(watch)).map_err(refused)?;
    summarize(std::slice::from_ref(commit), sub_dag.leader_timestamp_ms, sub_dag.end_of_epoch.is_some())
        // One commit is never none.
        .ok_or(LocalCommitError::Unavailable)
}

impl Handler<Envelope<VerifyEpochProofs>> for Verifier {
    type Result = ();

    fn handle(&mut self, envelope: Envelope<VerifyEpochProofs>, context: &mut Context<Self>) {
        let VerifyEpochProofs { context: epoch, previous, proofs, reply } = envelope.message;
        let job = move |_: &mut JobWatch| {
            let verdict = verify_epochs(epoch, previous, &proofs);
            if verdict.is_err() {
                metrics::rejected("epoch-proofs");
            }
            reply.send(verdict);
        };
        self.submit(envelope.origin, Priority::High, Job::Whole(Box::new(job)), context);
    }
}

impl Handler<Envelope<VerifyMessages>> for Verifier {
    type Result = ();

    fn handle(&mut self, envelope: Envelope<VerifyMessages>, context: &mut Context<Self>) {
        let VerifyMessages { topic, contexts, messages, signatures, reply } = envelope.message;
        let (chain, validator) = (self.chain, self.validator.clone());
        let priority = if topic == Topic::Consensus { Priority::High } else { Priority::Normal };
        let job = move |watch: &mut JobWatch| {
            let (verdicts, panics) = judge_messages(chain, &contexts, &messages, signatures, &*validator, watch);
            reply.send(verdicts);
            panics
        };
        self.submit(envelope.origin, priority, Job::Messages(Box::new(job)), context);
    }
}

impl Handler<Envelope<VerifyCertificates>> for Verifier {
    type Result = ();

    fn handle(&mut self, envelope: Envelope<VerifyCertificates>, context: &mut Context<Self>) {
        let VerifyCertificates { contexts, certificates, reply } = envelope.message;
        let transactions = self.transactions.clone();
        let job = move |_: &mut JobWatch| {
            let verdicts = check_certificates(&contexts, &*transactions, &certificates);
            if verdicts.iter().any(Result::is_err) {
                metrics::rejected("certificates");
            }
            reply.send(verdicts);
        };
        self.submit(envelope.origin, Priority::Normal, Job::Whole(Box::new(job)), context);
    }
}

impl Handler<Envelope<VerifyNodeInfos>> for Verifier {
    type Result = ();

    fn handle(&mut self, envelope: Envelope<VerifyNodeInfos>, context: &mut Context<Self>) {
        let VerifyNodeInfos { infos, now_ms, reply } = envelope.message;
        let chain = self.chain;
        let job = move |_: &mut JobWatch| {
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

observe!(Verifier, Snapshot);
// Waiting jobs are dropped: their askers have been stopped before.
stop_at_once!(Verifier);
