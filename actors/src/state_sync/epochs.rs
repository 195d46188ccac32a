//! The shell's part in epochs: tells their committees, and skips them: fetches proofs, has them verified and written.

use super::{StateSync, worker::call_outcome};
use crate::{
    connections::messages::CommitteeChanged, store_writer::messages::SkipEpochs, verifier::messages::VerifyEpochProofs,
};
use actix::Context;
use bytes::Bytes;
use soma_network::wire::{Call, CallError, EpochProofsFrom, Status};
use soma_protocol::state_sync::{EpochSummary, Input, RangeKey, Tip};
use soma_replay::Origin;
use soma_runtime::{OrderedSender, Shell};
use soma_types::{Committee, EndedEpoch, Epoch, Fault, PeerFailure, PeerId};
use soma_verify::EpochContext;
use std::sync::Arc;

impl StateSync {
    /// Asks the peer for epoch proofs, and has them verified.
    pub(super) fn fetch_epochs(&mut self, key: RangeKey, peer: PeerId, from: Epoch, context: &mut Context<Self>) {
        let (workers, settings) = (&self.mailboxes.workers, &self.settings);
        let call = Call { peer, chain: Some(settings.chain), remote: None, timeout: settings.request_timeout };
        let link = workers.links.get(peer);
        let calling = workers.io.spawn(async move {
            let link = link.ok_or_else(CallError::connection_gone)?;
            match link.api().get_epoch_proofs(call, EpochProofsFrom::new(from)).await {
                Ok(answer) => Ok(answer.proofs),
                // The peer is in that epoch, or behind it.
                Err(error) if error.status == Status::OutOfRange => Ok(Vec::new()),
                Err(error) => Err(error),
            }
        });
        let mut verifier = self.mailboxes.verify_epochs.clone();
        let (committee, previous) = (self.committees.get(&from).cloned(), self.epochs.previous.clone());
        let verifying = async move {
            let proofs: Vec<Bytes> = call_outcome(calling.await)?;
            let bytes = proofs.iter().map(|proof| proof.len() as u64).sum();
            let ours = |reason: String| PeerFailure::new(Fault::Ours, reason);
            let context = committee.ok_or_else(|| ours(format!("the committee of epoch {from} is not known")))?;
            let ask = |reply| VerifyEpochProofs { context, previous, proofs, reply };
            let verdict = verifier.ask(ask).await.map_err(|error| ours(format!("no verdict: {error}")));
            Ok((verdict.flatten()?, bytes))
        };
        let finish = move |sync: &mut Self, result: Result<(Vec<EndedEpoch>, u64), _>, origin, context: &mut _| {
            let result = result.map(|(ended, bytes)| {
                let of = |ended: &EndedEpoch| EpochSummary {
                    epoch: ended.last_commit.epoch,
                    commit: ended.last_commit.reference(),
                };
                let summaries = ended.iter().map(of).collect();
                sync.epochs.verified = ended;
                (summaries, bytes)
            });
            sync.feed(origin, Input::EpochsFetched { key, result }, context);
            sync.show_progress();
        };
        self.later(verifying, finish, context);
    }

    /// Has the first verified epochs written, and goes on from there.
    pub(super) fn skip_epochs(&mut self, key: RangeKey, count: usize, context: &mut Context<Self>) {
        let mut ended = std::mem::take(&mut self.epochs.verified);
        ended.truncate(count);
        let last = ended.last().cloned();
        let asked = self.mailboxes.skip_epochs.ask_now(move |reply| SkipEpochs { ended, reply });
        let writing = async move {
            match asked.await {
                Ok((Ok(_), _)) => last.ok_or_else(|| "no epoch to skip: a bug of this node".into()),
                Ok((Err(error), _)) => Err(error.to_string()),
                Err(error) => Err(error.to_string()),
            }
        };
        let finish =
            move |sync: &mut Self, result: Result<EndedEpoch, String>, origin: Origin, context: &mut Context<Self>| {
                let result = result.map(|last| sync.begin_after(last));
                sync.feed(origin, Input::EpochsSkipped { key, result }, context);
                sync.show_progress();
            };
        self.later(writing, finish, context);
    }

    /// Moves the chain's end to the end of an epoch.
    fn begin_after(&mut self, EndedEpoch { last_commit, next_committee, .. }: EndedEpoch) -> Tip {
        let commit = last_commit.reference();
        let tip = Tip { commit, timestamp_ms: last_commit.timestamp_ms, next_epoch: next_committee.epoch };
        self.learn_committee(next_committee);
        self.committees.retain(|known, _| *known >= tip.next_epoch);
        self.enter_epoch(tip.next_epoch);
        self.mailboxes.commit_feed.begin(commit.index);
        self.epochs.previous = last_commit;
        tracing::info!(epoch = tip.next_epoch, commit = commit.index, "skipped to the end of an epoch");
        tip
    }

    /// Keeps the committee that a verified end of epoch has handed over to.
    pub(super) fn learn_committee(&mut self, committee: Committee) {
        let epoch = committee.epoch;
        match EpochContext::new(self.settings.chain, committee) {
            Ok(context) => drop(self.committees.insert(epoch, Arc::new(context))),
            // Verified before; a committee that fails here stops the sync at its epoch, and the status says so.
            Err(error) => tracing::error!(epoch, %error, "the next committee is unusable"),
        }
    }

    /// Sends the current validators to one subscriber.
    pub(super) fn tell_committee(&self, subscriber: &OrderedSender<CommitteeChanged>) {
        let Some(context) = self.committees.get(&self.epoch) else { return };
        let validators = context.committee().authorities.iter();
        let validators = validators.map(|member| (PeerId::from(member.network_key), member.address.clone())).collect();
        // A full outbox is logged where it happens. The next handover repeats the message.
        let _ = subscriber.post(CommitteeChanged { validators, context: context.clone() });
    }

    /// Tells all subscribers the committee of the next commit's epoch, if that is another one.
    pub(super) fn enter_epoch(&mut self, next: Epoch) {
        if next != self.epoch {
            self.epoch = next;
            self.mailboxes.committee_subscribers.values().for_each(|subscriber| self.tell_committee(subscriber));
        }
    }
}
