//! The shell: turns messages into jobs and jobs into answers.

use crate::{
    metrics,
    pool::{CpuPool, Job, JobEnd, PoolError, PoolSize},
};
use actix::{Actor, ActorContext, Context, Handler};
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
use soma_types::{CertifiedCommit, ChainId, Fault};
use soma_verify::{
    CommitsError, EpochContext, TransactionVerifier, check_commits, verify_blocks, verify_node_info, verify_sub_dag,
};
use std::{collections::BTreeMap, sync::Arc};

/// Jobs that may wait for a permit: more than all workers and Discovery have at once.
const MAX_WAITING: usize = 256;

/// The actor.
pub struct Verifier {
    // Configuration
    chain: ChainId,
    transactions: Arc<dyn TransactionVerifier>,
    pool: CpuPool,
    // State
    host: CoreHost<VerifierCore>,
    jobs: BTreeMap<u64, Job>,
    next_job: u64,
}

impl Verifier {
    /// A verifier for one chain, with a CPU pool of its own.
    pub fn new(
        chain: ChainId,
        transactions: Arc<dyn TransactionVerifier>,
        pool: PoolSize,
        environment: Environment,
    ) -> Result<Self, PoolError> {
        let pool = pool.build()?;
        let config = Config { permits: pool.permits(), max_waiting: MAX_WAITING };
        let host = CoreHost::new(VerifierCore::new(config), environment);
        Ok(Self { chain, transactions, pool, host, jobs: BTreeMap::new(), next_job: 0 })
    }

    fn submit(&mut self, origin: Origin, priority: Priority, job: Job, context: &mut Context<Self>) {
        self.next_job += 1;
        self.jobs.insert(self.next_job, job);
        self.feed(origin, Input::Submit { job: self.next_job, priority }, context);
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
            Effect::Run(job) => {
                let Some(work) = self.jobs.remove(&job) else { return };
                let census = self.host.environment().census().clone();
                let running = self.pool.clone().run(work, census);
                let finish = move |verifier: &mut Self, end, origin, context: &mut Context<Self>| {
                    if let JobEnd::Blocked { thread } = end {
                        // The next incarnation has a pool of its own; who asked this one asks again.
                        return verifier.give_up(format!("a check does not end; it blocks thread {thread}"), context);
                    }
                    let panicked = end == JobEnd::Panicked;
                    if panicked {
                        tracing::error!(actor = VerifierCore::NAME, "a check panicked; whoever asked gets no answer");
                    }
                    verifier.feed(origin, Input::Done { job, panicked }, context);
                };
                self.later(running, finish, context);
            }
            Effect::Refuse(job) => {
                metrics::refused();
                self.jobs.remove(&job);
            }
        }
    }
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
        self.submit(envelope.origin, Priority::High, Box::new(job), context);
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
        let transactions = self.transactions.clone();
        let job = move || {
            let result = verify_blocks(&epoch, &*transactions, &refs, blocks);
            if let Ok(blocks) = &result {
                metrics::blocks_verified(blocks.len());
            }
            let rejected = result.map_err(|error| Rejection::Fault { fault: error.fault(), reason: error.to_string() });
            answer("blocks", reply, rejected);
        };
        self.submit(envelope.origin, Priority::Normal, Box::new(job), context);
    }
}

impl Handler<Envelope<VerifySubDags>> for Verifier {
    type Result = ();

    fn handle(&mut self, envelope: Envelope<VerifySubDags>, context: &mut Context<Self>) {
        let VerifySubDags { context: epoch, commits, reply } = envelope.message;
        let job = move || answer("sub-dags", reply, verify_range(&epoch, commits));
        self.submit(envelope.origin, Priority::Normal, Box::new(job), context);
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
                    tracing::debug!(%error, "node info dropped");
                    None
                }
            });
            reply.send(verified.collect());
        };
        self.submit(envelope.origin, Priority::Normal, Box::new(job), context);
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
