//! Checks of what a SyncWorker has received, by the Verifier.

use super::{
    SyncWorker,
    failure::{ours, shortfall, verdict},
};
use crate::verifier::messages::{BlocksAnswer, Rejection, SubDagsAnswer, VerifyBlocks, VerifyCommits, VerifySubDags};
use actix::Context;
use soma_protocol::state_sync::worker::{Certified, Input};
use soma_runtime::{AskError, Shell};
use soma_types::{CertifiedCommit, CommitIndex, Fault, PeerFailure, TrustedCommit};
use soma_verify::CheckedCommits;

impl SyncWorker {
    /// Waits for an answer of the Verifier, and feeds the result of `finish`.
    fn verify<R: 'static>(
        &mut self,
        asking: impl Future<Output = Result<R, AskError>> + 'static,
        finish: impl FnOnce(&mut Self, Result<R, Rejection>) -> Input + 'static,
        context: &mut Context<Self>,
    ) {
        // A check takes as long as it takes. The Verifier answers, or ends, and then there is no answer.
        let asking = soma_runtime::while_waiting(asking);
        let finish = move |worker: &mut Self, answer: Result<R, AskError>, origin, context: &mut Context<Self>| {
            // No answer: the check was refused, or the Verifier is being restarted. Ours to try again.
            let no_answer = |error| Rejection::Failed(PeerFailure::new(Fault::Ours, format!("no verdict: {error}")));
            let input = finish(worker, answer.map_err(no_answer));
            worker.feed(origin, input, context);
        };
        self.later(asking, finish, context);
    }

    pub(super) fn check_commits(&mut self, start: CommitIndex, end: CommitIndex, context: &mut Context<Self>) {
        let mut verifier = self.mailboxes.verify_commits.clone();
        let Some(fetched) = self.fetched.remove(&start) else {
            let result = Err(ours("the answer to check is not here".into()).into());
            return self.feed_later(Input::CommitsChecked { start, result }, context);
        };
        let committee = self.committee.clone();
        let asking = async move {
            let ask = |reply| VerifyCommits { context: committee, start, end, fetched, reply };
            verifier.ask(ask).await
        };
        let finish = move |worker: &mut Self, result: Result<Result<CheckedCommits, Rejection>, Rejection>| {
            let result = result.flatten().map_err(shortfall).map(|mut checked| {
                let wanted = (worker.task.end - start) as usize + 1;
                if checked.commits.len() > wanted {
                    // The rest has proved the range, and so have the votes, which are for its end.
                    checked.commits.truncate(wanted);
                    checked.certifiers.clear();
                }
                let summary = summarize(&checked.commits);
                worker.checked.insert(start, checked);
                summary
            });
            // Answers without commits do not pass.
            let nothing = || Err(ours("checked commits are none".into()).into());
            Input::CommitsChecked { start, result: result.and_then(|summary| summary.map_or_else(nothing, Ok)) }
        };
        self.verify(asking, finish, context);
    }

    pub(super) fn check_blocks(&mut self, from: u32, context: &mut Context<Self>) {
        if let Some(blocks) = self.taken.remove(&from) {
            let verified = blocks.len() as u32;
            self.keep(from, blocks);
            return self.feed_later(Input::BlocksChecked { from, verified, failure: None }, context);
        }
        let blocks = self.received.remove(&from).unwrap_or_default();
        let rest = blocks.clone();
        let refs = self.refs[from as usize..from as usize + blocks.len()].to_vec();
        let (mut verifier, committee) = (self.mailboxes.verify_blocks.clone(), self.committee.clone());
        let asking = async move {
            let ask = |reply| VerifyBlocks { context: committee, refs, blocks, reply };
            verifier.ask(ask).await
        };
        let finish = move |worker: &mut Self, answer: Result<BlocksAnswer, Rejection>| {
            let BlocksAnswer { blocks, rejection } =
                answer.unwrap_or_else(|no_answer| BlocksAnswer { blocks: Vec::new(), rejection: Some(no_answer) });
            let verified = blocks.len() as u32;
            let mut failure = rejection.map(verdict);
            if failure.is_none() && blocks.is_empty() {
                failure = Some(ours("the check was interrupted".into()));
            }
            if failure.is_none() && blocks.len() < rest.len() {
                worker.received.insert(from + verified, rest[blocks.len()..].to_vec());
            }
            worker.keep(from, blocks);
            Input::BlocksChecked { from, verified, failure }
        };
        self.verify(asking, finish, context);
    }

    /// Joins the first commits with their blocks and has them checked together. If the last of them was not the last
    /// of an answer, it is proved by the answer that it is a part of, and has no votes.
    pub(super) fn check_sub_dags(&mut self, count: u32, context: &mut Context<Self>) {
        let mut blocks = std::mem::take(&mut self.blocks).into_values().flatten();
        let commits: Vec<_> = std::mem::take(&mut self.commits)
            .into_iter()
            .take(count as usize)
            .map(|(commit, certifiers)| {
                let blocks = blocks.by_ref().take(commit.blocks.len()).collect();
                CertifiedCommit { commit, blocks, certifiers }
            })
            .collect();
        let (mut verifier, committee) = (self.mailboxes.verify_sub_dags.clone(), self.committee.clone());
        let asking = async move {
            let ask = |reply| VerifySubDags { context: committee, commits, reply };
            verifier.ask(ask).await
        };
        let finish = |worker: &mut Self, answer: Result<SubDagsAnswer, Rejection>| {
            let SubDagsAnswer { range, rejection } =
                answer.unwrap_or_else(|no_answer| SubDagsAnswer { range: None, rejection: Some(no_answer) });
            let verified = range.as_ref().map(|range| range.summary);
            worker.range = range;
            Input::SubDagsChecked { verified, failure: rejection.map(verdict) }
        };
        self.verify(asking, finish, context);
    }
}

/// What the core is to know of certified commits; there is at least one.
fn summarize(commits: &[TrustedCommit]) -> Option<Certified> {
    let (first, last) = commits.first().zip(commits.last())?;
    Some(Certified {
        previous: first.previous_digest,
        last: last.reference().digest,
        blocks: commits.iter().map(|commit| commit.blocks.len() as u32).collect(),
    })
}
