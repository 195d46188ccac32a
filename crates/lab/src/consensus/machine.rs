//! One validator: a state machine that is told the time, messages and durable commits.

use super::{
    chain::{Chain, Durable},
    commit_rule::{Decision, decide, leader_of},
    dag::Dag,
    interface::{Config, Input, Output, Start},
    payload::{Payload, next_committee},
    proposer::Proposer,
    requests::{Requests, blocks_message},
};
use bytes::Bytes;
use soma_p2p::{
    CommittedSubDag, EpochContext, SignedBlock, TransactionBytes, VerifiedBlock,
    types::{AuthorityIndex, AuthoritySignature, EndOfEpoch, Epoch, QuorumSignatures, Round, Scope, Signature},
};
use std::{collections::BTreeMap, sync::Arc};

/// Time without a new block of its own after which a validator publishes its last one again, for those that missed it.
const RESEND_AFTER_MS: u64 = 1_000;

/// Makes the transactions of the next block, valid in the epoch. What does not fit into a block is lost.
pub(crate) type Transactions = Box<dyn FnMut(Epoch) -> Vec<TransactionBytes> + Send>;

/// One validator.
pub(crate) struct Machine {
    config: Config,
    transactions: Transactions,
    /// No block is made before this time: a clock that went back would break the order of timestamps and of waits.
    now_ms: u64,
    context: Arc<EpochContext>,
    dag: Dag,
    chain: Chain,
    proposer: Proposer,
    requests: Requests,
    /// Signatures on the next committee, by their authors.
    signatures: BTreeMap<AuthorityIndex, Signature>,
    /// Blocks accepted since the validator's last block: they are persisted with the next one, which builds on them.
    unlogged: Vec<VerifiedBlock>,
    resend_ms: u64,
    /// Whether blocks were accepted since commits were last made.
    has_news: bool,
    has_failed: bool,
}

impl Machine {
    /// A validator that starts, or returns.
    pub(crate) fn new(config: Config, start: Start, transactions: Transactions) -> Self {
        let Start { context, first, tip, timestamp_ms, recent, logged } = start;
        let epoch = context.epoch();
        let commits_in_epoch = (tip.index + 1).saturating_sub(first);
        let mut machine = Self {
            transactions,
            now_ms: 0,
            dag: Dag::new(epoch),
            chain: Chain::new(epoch, tip, timestamp_ms, commits_in_epoch),
            proposer: Proposer::new(),
            requests: Requests::default(),
            signatures: BTreeMap::new(),
            unlogged: Vec::new(),
            resend_ms: 0,
            has_news: true,
            has_failed: false,
            context,
            config,
        };
        for sub_dag in &recent {
            machine.chain.recall(sub_dag);
            machine.adopt(sub_dag);
        }
        for block in logged.into_iter().filter(|block| block.epoch == epoch) {
            machine.take_block(block);
        }
        machine.raise_floor();
        machine.unlogged.clear();
        machine
    }

    /// The epoch in which it makes blocks.
    pub(crate) fn epoch(&self) -> Epoch {
        self.context.epoch()
    }

    /// The round of its last block.
    pub(crate) fn round(&self) -> Round {
        self.proposer.last().map_or(0, |block| block.round)
    }

    /// Handles one input at this time, in milliseconds since the UNIX epoch.
    pub(crate) fn handle(&mut self, now_ms: u64, input: Input) -> Vec<Output> {
        self.now_ms = self.now_ms.max(now_ms);
        let mut outputs = Vec::new();
        if self.has_failed {
            return outputs;
        }
        match input {
            Input::Message { author, payload } => self.on_message(author, &payload, &mut outputs),
            Input::Committed(sub_dag) => self.on_committed(&sub_dag, &mut outputs),
            Input::Wake => {}
        }
        if !self.has_failed {
            self.advance(&mut outputs);
        }
        outputs
    }

    /// When it wants to be woken, if nothing happens before.
    pub(crate) fn next_wake(&mut self) -> u64 {
        let proposal = self.proposer.due(self.now_ms, &self.dag, self.context.committee()).map(|(due_ms, _)| due_ms);
        let due = [proposal, self.requests.next_due_ms()].into_iter().flatten();
        due.fold(self.resend_ms, u64::min).max(self.now_ms + 1)
    }

    fn on_message(&mut self, author: AuthorityIndex, payload: &Bytes, outputs: &mut Vec<Output>) {
        let Ok(message) = Payload::decode(payload) else { return };
        match &message {
            Payload::Proposal(_) | Payload::Blocks { .. } => {
                let (blocks, epoch) = (message.blocks(payload), self.context.epoch());
                for block in blocks.into_iter().filter(|block| block.epoch == epoch) {
                    self.take_block(block);
                }
            }
            Payload::NextCommittee { epoch, signature, .. } if *epoch == self.context.epoch() => {
                self.signatures.insert(author, *signature);
            }
            Payload::NextCommittee { .. } => {}
            Payload::Request { is_retry, blocks, .. } => {
                let own = self.config.own;
                let answers = self.requests.answer(&self.dag, own, self.now_ms, *is_retry, blocks);
                outputs.extend(answers.into_iter().map(Output::Publish));
            }
        }
    }

    /// Takes the blocks of a commit that this validator did not make.
    fn adopt(&mut self, sub_dag: &CommittedSubDag) {
        for block in sub_dag.blocks.iter().filter(|block| block.author == self.config.own) {
            self.proposer.note_own(block);
        }
        let accepted = self.dag.adopt(&sub_dag.blocks);
        self.unlogged.extend(accepted);
        self.has_news = true;
    }

    fn take_block(&mut self, block: VerifiedBlock) {
        // A vote counts even if the block's history is not there yet.
        self.chain.count_votes(&block);
        if block.author == self.config.own {
            self.proposer.note_own(&block);
        }
        let accepted = self.dag.offer(block);
        self.has_news |= !accepted.is_empty();
        self.unlogged.extend(accepted);
    }

    fn on_committed(&mut self, sub_dag: &CommittedSubDag, outputs: &mut Vec<Output>) {
        match self.chain.on_durable(sub_dag) {
            Durable::Old => return,
            Durable::Diverged(own) => {
                let reason = format!("this validator made commit {own}, and the chain has {}", sub_dag.commit_ref);
                return self.fail(reason, outputs);
            }
            Durable::Adopted => {
                self.adopt(sub_dag);
                self.raise_floor();
            }
            Durable::Own => {}
        }
        let end = sub_dag.blocks.iter().find_map(|block| block.end_of_epoch.as_ref());
        if let Some(end) = end {
            match EpochContext::new(self.context.chain(), end.next_committee.clone()) {
                Ok(context) => self.start_epoch(context, sub_dag),
                Err(error) => self.fail(format!("the next committee: {error}"), outputs),
            }
        }
    }

    fn fail(&mut self, reason: String, outputs: &mut Vec<Output>) {
        self.has_failed = true;
        outputs.push(Output::Failed(reason));
    }

    fn start_epoch(&mut self, context: EpochContext, last: &CommittedSubDag) {
        let epoch = context.epoch();
        self.context = Arc::new(context);
        self.dag = Dag::new(epoch);
        self.chain = Chain::new(epoch, last.commit_ref, last.timestamp_ms, 0);
        self.proposer = Proposer::new();
        self.requests = Requests::default();
        self.signatures.clear();
        self.unlogged.clear();
    }

    /// Does everything that is due.
    fn advance(&mut self, outputs: &mut Vec<Output>) {
        self.make_commits();
        if let Some((due_ms, parents)) = self.proposer.due(self.now_ms, &self.dag, self.context.committee())
            && due_ms <= self.now_ms
        {
            self.propose(parents, outputs);
            self.make_commits();
        }
        let certified = self.chain.certified(self.context.committee());
        outputs.extend(certified.into_iter().map(Box::new).map(Output::Commit));
        let requests = self.requests.due(&self.dag, self.now_ms);
        outputs.extend(requests.into_iter().map(Output::Publish));
        if self.resend_ms <= self.now_ms {
            self.resend_ms = self.now_ms + RESEND_AFTER_MS.max(2 * self.config.pace_ms);
            let last = self.proposer.last().and_then(|last| blocks_message(self.now_ms, &[last]));
            outputs.extend(last.map(Output::Publish));
        }
    }

    fn make_commits(&mut self) {
        // Without room, what there is now is looked at again when a commit has become durable.
        while self.has_news && self.chain.has_room() {
            let decisions = decide(&self.dag, self.context.committee(), self.chain.next_leader());
            let leader = decisions.into_iter().find_map(|decision| match decision {
                Decision::Commit(leader) => Some(leader),
                Decision::Skip => None,
            });
            let Some(leader) = leader else {
                self.has_news = false;
                break;
            };
            let commit = self.chain.commit(&self.dag, &leader);
            self.proposer.vote(commit);
            self.raise_floor();
        }
    }

    fn raise_floor(&mut self) {
        let accepted = self.dag.raise_floor(self.chain.floor());
        self.has_news |= !accepted.is_empty();
        self.unlogged.extend(accepted);
    }

    fn propose(&mut self, parents: Round, outputs: &mut Vec<Output>) {
        let context = self.context.clone();
        let transactions = if self.chain.has_ended() { Vec::new() } else { (self.transactions)(context.epoch()) };
        let signature = self.sign_next_committee(parents + 1);
        let end_of_epoch = self.end_of_epoch(parents + 1);
        let (view, us) = ((&self.dag, &self.chain), (&*context, &self.config));
        let block = self.proposer.make(self.now_ms, us, view, parents, transactions, end_of_epoch);
        let block = VerifiedBlock::assume_verified(SignedBlock::sign(block, context.chain(), &self.config.key));
        self.take_block(block.clone());
        self.resend_ms = self.now_ms + RESEND_AFTER_MS.max(2 * self.config.pace_ms);
        let mut unlogged = std::mem::take(&mut self.unlogged);
        unlogged.retain(|accepted| accepted.reference() != block.reference());
        unlogged.push(block.clone());
        outputs.push(Output::Persist(unlogged));
        outputs.push(Output::Publish(Payload::Proposal(block.bytes()).encode()));
        outputs.extend(signature.map(Output::Publish));
    }

    /// The message with the signature on the next committee, if the epoch has had its commits.
    fn sign_next_committee(&mut self, round: Round) -> Option<Bytes> {
        if self.chain.commits_in_epoch() + 1 < self.config.commits_per_epoch || self.chain.has_ended() {
            return None;
        }
        let digest = next_committee(&self.context).digest();
        let signature = self.context.intent(Scope::NextCommittee).sign(&self.config.key, &digest.0);
        self.signatures.insert(self.config.own, signature);
        Some(Payload::NextCommittee { epoch: self.context.epoch(), round, signature }.encode())
    }

    /// The handover, if this validator leads the round and a quorum has signed.
    fn end_of_epoch(&self, round: Round) -> Option<EndOfEpoch> {
        let committee = self.context.committee();
        let leads = leader_of(committee, round) == self.config.own;
        let is_due = self.chain.commits_in_epoch() + 1 >= self.config.commits_per_epoch && !self.chain.has_ended();
        if !leads || !is_due || !committee.is_quorum(self.signatures.keys().copied()) {
            return None;
        }
        let signatures = self.signatures.iter();
        let signatures =
            signatures.map(|(&authority, &signature)| AuthoritySignature { authority, signature }).collect();
        Some(EndOfEpoch { next_committee: next_committee(&self.context), certificate: QuorumSignatures { signatures } })
    }
}
