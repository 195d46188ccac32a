//! A deterministic network of validators. Every commit that one hands over is checked as a peer would check it, and all
//! validators must make one chain.

use crate::consensus::{
    Config, Input, Machine, Output, Start,
    interface::GC_ROUNDS,
    payload::{Payload, validate},
};
use bytes::Bytes;
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use soma_p2p::{
    BlockRef, CertificateVerifier, CertifiedCommit, Commit, CommitIndex, CommitRef, Committee, EpochContext, Genesis,
    MessageVerdict, TransactionBytes, VerifiedBlock,
    types::{AuthorityIndex, Epoch, Round},
    verify::{Checks, verify_certified_commit},
};
use soma_testkit::{ChainBuilder, ChainSpec};
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

/// How often a validator asks the others for commits, as sync does.
const SYNC_EVERY_MS: u64 = 100;

/// Time between two blocks of a validator.
pub(super) const PACE_MS: u64 = 50;

enum Event {
    Message { to: usize, epoch: Epoch, author: AuthorityIndex, payload: Bytes },
    Wake { to: usize },
    Durable { to: usize, incarnation: u32, commit: CertifiedCommit },
    Sync { to: usize },
}

pub(super) struct Node {
    pub(super) authority: AuthorityIndex,
    machine: Option<Machine>,
    incarnation: u32,
    log: Vec<VerifiedBlock>,
    pub(super) store: Vec<CertifiedCommit>,
    durable_ms: u64,
    wake_ms: u64,
}

pub(super) struct World {
    pub(super) now_ms: u64,
    pub(super) nodes: Vec<Node>,
    pub(super) rng: ChaCha8Rng,
    /// Greatest delay of a message.
    pub(super) delay_ms: u64,
    /// Who does not hear whom: (from, to).
    pub(super) cut: BTreeSet<(usize, usize)>,
    /// Of a hundred messages of twins to one node, how many are lost.
    pub(super) twins_lose_percent: u32,
    builder: ChainBuilder,
    genesis: Genesis,
    commits_per_epoch: u32,
    transactions: u32,
    queue: BTreeMap<(u64, u64), Event>,
    sequence: u64,
    contexts: BTreeMap<Epoch, Arc<EpochContext>>,
    verdicts: BTreeMap<(Epoch, AuthorityIndex, Bytes), MessageVerdict>,
    /// Commits with their votes that have been checked, and the timestamp of the leader.
    checked: BTreeMap<(CommitRef, Vec<BlockRef>), u64>,
    chain: Vec<CommitRef>,
    proposed: BTreeMap<(Epoch, Round, AuthorityIndex), Bytes>,
}

impl World {
    pub(super) fn new(seed: u64, size: usize, commits_per_epoch: u32) -> Self {
        let spec = ChainSpec { stakes: vec![1; size], committee_is_fixed: true, ..ChainSpec::default() };
        let builder = ChainBuilder::new(spec).unwrap();
        let genesis = builder.genesis().clone();
        let mut world = Self {
            now_ms: 1_700_000_100_000,
            nodes: Vec::new(),
            rng: ChaCha8Rng::seed_from_u64(seed),
            delay_ms: 60,
            cut: BTreeSet::new(),
            twins_lose_percent: 50,
            genesis,
            builder,
            commits_per_epoch,
            transactions: 0,
            queue: BTreeMap::new(),
            sequence: 0,
            contexts: BTreeMap::new(),
            verdicts: BTreeMap::new(),
            checked: BTreeMap::new(),
            chain: Vec::new(),
            proposed: BTreeMap::new(),
        };
        for authority in 0..size {
            world.add(authority as AuthorityIndex);
        }
        world
    }

    pub(super) fn with_transactions(mut self, transactions: u32) -> Self {
        self.transactions = transactions;
        self
    }

    /// Adds a validator, which does not run yet. A second one of an authority is its twin: together they equivocate.
    pub(super) fn add(&mut self, authority: AuthorityIndex) -> usize {
        self.nodes.push(Node {
            authority,
            machine: None,
            incarnation: 0,
            log: Vec::new(),
            store: Vec::new(),
            durable_ms: 0,
            wake_ms: u64::MAX,
        });
        self.nodes.len() - 1
    }

    pub(super) fn start_all(&mut self) {
        (0..self.nodes.len()).for_each(|node| self.start(node));
    }

    /// Starts a validator with what is on its disk.
    pub(super) fn start(&mut self, index: usize) {
        let epoch = self.epoch(index);
        let context = self.context(epoch);
        let transactions = self.transactions(index);
        let node = &self.nodes[index];
        let first = node.store.iter().rposition(|commit| commit.end_of_epoch().is_some());
        let first = first.map_or(1, |last| last as CommitIndex + 2);
        let genesis = self.genesis.commit();
        let tip = node.store.last().map_or(&genesis, |last| &last.commit);
        let of_epoch = node.store.iter().filter(|commit| commit.commit.epoch == epoch);
        let skipped = of_epoch.clone().count().saturating_sub(GC_ROUNDS as usize);
        let start = Start {
            context,
            first,
            tip: tip.reference(),
            timestamp_ms: tip.timestamp_ms,
            recent: of_epoch.skip(skipped).map(CertifiedCommit::sub_dag).collect(),
            logged: node.log.clone(),
        };
        let config = Config {
            own: node.authority,
            key: self.builder.protocol_key(0, node.authority),
            commits_per_epoch: self.commits_per_epoch,
            pace_ms: PACE_MS,
        };
        let node = &mut self.nodes[index];
        node.machine = Some(Machine::new(config, start, transactions));
        node.incarnation += 1;
        node.wake_ms = u64::MAX;
        self.push(0, Event::Sync { to: index });
        self.feed(index, Input::Wake);
    }

    fn transactions(&self, index: usize) -> Box<dyn FnMut(Epoch) -> Vec<TransactionBytes> + Send> {
        let (mut users, count) = (self.builder.users(index as u64), self.transactions);
        Box::new(move |epoch| (0..count).map(|_| users.transaction(epoch)).collect())
    }

    /// Kills a validator. Of its messages on the way, some are lost.
    pub(super) fn kill(&mut self, index: usize) {
        self.nodes[index].machine = None;
        let author = self.nodes[index].authority;
        let mut queue = std::mem::take(&mut self.queue);
        queue.retain(|_, event| match event {
            Event::Message { author: of, .. } => *of != author || self.rng.random_ratio(1, 2),
            _ => true,
        });
        self.queue = queue;
    }

    pub(super) fn is_alive(&self, index: usize) -> bool {
        self.nodes[index].machine.is_some()
    }

    pub(super) fn committee(&self) -> Committee {
        self.genesis.committee().clone()
    }

    /// The context of an epoch.
    pub(super) fn context(&mut self, epoch: Epoch) -> Arc<EpochContext> {
        let (chain, committee) = (self.genesis.chain_id(), Committee { epoch, ..self.committee() });
        let context = || Arc::new(EpochContext::new(chain, committee).unwrap());
        self.contexts.entry(epoch).or_insert_with(context).clone()
    }

    /// The epoch of a node's next commit.
    pub(super) fn epoch(&self, index: usize) -> Epoch {
        let last = self.nodes[index].store.last();
        last.map_or(0, |last| last.commit.epoch + u64::from(last.end_of_epoch().is_some()))
    }

    pub(super) fn height(&self, index: usize) -> usize {
        self.nodes[index].store.len()
    }

    /// The lowest height of the validators that live.
    pub(super) fn lowest(&self) -> usize {
        (0..self.nodes.len()).filter(|node| self.is_alive(*node)).map(|node| self.height(node)).min().unwrap()
    }

    /// Blocks of an authority in commits after `height`.
    pub(super) fn committed_blocks(&self, authority: AuthorityIndex, height: usize) -> usize {
        let longest = self.nodes.iter().map(|node| &node.store).max_by_key(|store| store.len()).unwrap();
        let blocks = longest.iter().skip(height).flat_map(|commit| &commit.blocks);
        blocks.filter(|block| block.author == authority).count()
    }

    fn push(&mut self, delay_ms: u64, event: Event) {
        self.sequence += 1;
        self.queue.insert((self.now_ms + delay_ms, self.sequence), event);
    }

    /// Runs for so long.
    pub(super) fn run(&mut self, duration_ms: u64) {
        let end = self.now_ms + duration_ms;
        while let Some(entry) = self.queue.first_entry().filter(|entry| entry.key().0 <= end) {
            let ((at, _), event) = entry.remove_entry();
            self.now_ms = at;
            self.handle(event);
        }
        self.now_ms = end;
    }

    fn handle(&mut self, event: Event) {
        match event {
            Event::Message { to, epoch, author, payload } => {
                // As Broadcast does: the current epoch and the one before.
                let current = self.epoch(to);
                if !self.is_alive(to) || epoch > current || epoch + 1 < current {
                    return;
                }
                let key = (epoch, author, payload);
                let context = self.context(epoch);
                let verdict = *self.verdicts.entry(key.clone()).or_insert_with(|| validate(&context, author, &key.2));
                assert_ne!(verdict, MessageVerdict::Reject, "an honest validator sent {:?}", Payload::decode(&key.2));
                if verdict != MessageVerdict::Ignore {
                    self.feed(to, Input::Message { author, payload: key.2 });
                }
            }
            Event::Wake { to } => {
                if self.nodes[to].wake_ms <= self.now_ms {
                    self.nodes[to].wake_ms = u64::MAX;
                    self.feed(to, Input::Wake);
                }
            }
            Event::Durable { to, incarnation, commit } => {
                if self.nodes[to].incarnation == incarnation {
                    self.feed(to, Input::Committed(commit.sub_dag()));
                }
            }
            Event::Sync { to } => self.sync(to),
        }
    }

    /// Takes commits that others have.
    fn sync(&mut self, to: usize) {
        if !self.is_alive(to) {
            return;
        }
        self.push(SYNC_EVERY_MS, Event::Sync { to });
        let height = self.height(to);
        let hears = |from: &usize| self.is_alive(*from) && !self.cut.contains(&(*from, to));
        let from = (0..self.nodes.len()).filter(hears).max_by_key(|from| self.height(*from));
        let Some(from) = from else { return };
        let commits: Vec<_> = self.nodes[from].store.iter().skip(height).take(20).cloned().collect();
        for commit in commits {
            self.store(to, commit);
        }
    }

    /// Checks and stores a commit, if it is the next one.
    fn store(&mut self, index: usize, certified: CertifiedCommit) {
        let commit = &certified.commit;
        if commit.index as usize != self.height(index) + 1 {
            return;
        }
        let context = self.context(self.epoch(index));
        // The signatures of one block in four, for speed: the others are checked in the messages that bring the blocks.
        let is_full = commit.index.is_multiple_of(4);
        let checks = if is_full { Checks::Full(&CertificateVerifier) } else { Checks::Certified };
        let votes = certified.certifiers.iter().map(|block| block.reference()).collect();
        let check = || verify_certified_commit(&context, checks, &certified, &mut ()).unwrap().leader_timestamp_ms;
        let leader_ms = *self.checked.entry((commit.reference(), votes)).or_insert_with(check);
        let genesis = self.genesis.commit();
        let previous = self.nodes[index].store.last().map_or(&genesis, |last| &last.commit);
        assert_eq!(commit.previous_digest, previous.reference().digest);
        let expected_ms = Commit::timestamp_after(leader_ms, previous.timestamp_ms);
        assert_eq!(commit.timestamp_ms, expected_ms);
        match self.chain.get(commit.index as usize - 1) {
            Some(known) => assert_eq!(*known, commit.reference(), "one chain"),
            None => self.chain.push(commit.reference()),
        }
        let delay_ms = self.rng.random_range(1..10);
        let node = &mut self.nodes[index];
        node.store.push(certified.clone());
        node.durable_ms = node.durable_ms.max(self.now_ms + delay_ms);
        let (at_ms, incarnation) = (node.durable_ms, node.incarnation);
        self.push(at_ms - self.now_ms, Event::Durable { to: index, incarnation, commit: certified });
    }

    fn feed(&mut self, index: usize, input: Input) {
        let (now_ms, is_twin) = (self.now_ms, self.is_twin(index));
        let node = &mut self.nodes[index];
        let Some(machine) = &mut node.machine else { return };
        let outputs = machine.handle(now_ms, input);
        let wake_ms = machine.next_wake();
        if wake_ms < node.wake_ms {
            node.wake_ms = wake_ms;
            self.push(wake_ms - now_ms, Event::Wake { to: index });
        }
        let author = self.nodes[index].authority;
        for output in outputs {
            match output {
                Output::Persist(blocks) => {
                    let own = blocks.last().unwrap();
                    assert_eq!(own.author, author);
                    let place = (own.epoch, own.round, author);
                    let first = self.proposed.entry(place).or_insert_with(|| own.bytes().clone());
                    assert!(is_twin || first == own.bytes(), "{} equivocates", own.reference());
                    self.nodes[index].log.extend(blocks);
                }
                Output::Publish(payload) => {
                    let epoch = self.epoch(index);
                    self.publish(index, epoch, payload);
                }
                Output::Commit(commit) => self.store(index, *commit),
                Output::Failed(reason) => panic!("validator {index}: {reason}"),
            }
        }
    }

    fn is_twin(&self, index: usize) -> bool {
        let authority = self.nodes[index].authority;
        self.nodes.iter().filter(|node| node.authority == authority).count() > 1
    }

    fn publish(&mut self, from: usize, epoch: Epoch, payload: Bytes) {
        let author = self.nodes[from].authority;
        for to in 0..self.nodes.len() {
            let is_lost = self.is_twin(from) && self.rng.random_ratio(self.twins_lose_percent, 100);
            if to != from && !is_lost && !self.cut.contains(&(from, to)) {
                let delay_ms = self.rng.random_range(1..=self.delay_ms);
                self.push(delay_ms, Event::Message { to, epoch, author, payload: payload.clone() });
            }
        }
    }
}
