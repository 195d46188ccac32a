//! A peer that changes its answers on their way out.

use crate::{
    flip_bit,
    hostile::{Behaviour, ObjectMischief, node_infos},
};
use async_trait::async_trait;
use bytes::Bytes;
use futures::{StreamExt, stream};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use soma_network::wire::{
    Availability, BlockRefs, BlockStream, Call, CallError, CommitRange, EpochProofs, EpochProofsFrom, FetchedCommits,
    FrameStream, Hello, KnownPeers, ObjectIds, ObjectStream, PeerApi, Status,
};
use soma_store::MemoryObjects;
use soma_types::{
    Commit, CommitDigest, CommitIndex, CommitRef, PeerId, Signed, SignedBlock, SigningKey, UnverifiedCommit,
    limits::MAX_BLOCK_BYTES,
};
use std::{
    future::pending,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};
use tokio::time::sleep;

/// Claims every commit there can be.
const EVERYTHING: CommitIndex = CommitIndex::MAX;

/// Bytes that are cut off the end of something.
const CUT_OFF: usize = 7;

/// The means of a hostile peer, besides its behaviour.
pub struct Means {
    /// Its own key.
    pub key: SigningKey,
    /// Of all that it chooses.
    pub seed: u64,
    /// Ends its connections with a caller.
    pub hang_up: Arc<dyn Fn(PeerId) + Send + Sync>,
    /// Set when its bytes are to trickle from now on, where something below the calls sees to it; else it takes a
    /// second for each byte of an answer.
    pub trickle: Option<Arc<AtomicBool>>,
    /// Objects that it says it has, if it lies about those, too.
    pub objects: Option<MemoryObjects>,
}

/// One peer's behaviour and memory. Clones share both.
#[derive(Clone)]
pub struct Mischief(Arc<State>);

struct State {
    behaviour: Behaviour,
    means: Means,
    rng: Mutex<ChaCha8Rng>,
    acts: AtomicU64,
}

impl Mischief {
    /// A peer that behaves so from now on.
    pub fn new(behaviour: Behaviour, means: Means) -> Self {
        let rng = Mutex::new(ChaCha8Rng::seed_from_u64(means.seed));
        Self(Arc::new(State { behaviour, means, rng, acts: AtomicU64::new(0) }))
    }

    /// How it behaves.
    pub fn behaviour(&self) -> Behaviour {
        self.0.behaviour
    }

    /// How many answers it has changed, withheld or made up.
    pub fn acts(&self) -> u64 {
        self.0.acts.load(Ordering::Relaxed)
    }

    /// The peer with the honest answers of `inner`.
    pub fn wrap(&self, inner: Arc<dyn PeerApi>) -> HostilePeer {
        HostilePeer { mischief: self.clone(), inner }
    }

    /// The advertised heights when it announces a commit.
    pub fn pushed(&self, index: CommitIndex) -> CommitIndex {
        match self.0.behaviour {
            Behaviour::ClaimsEverything | Behaviour::ClaimsWithoutServing | Behaviour::ClaimsInSilence => EVERYTHING,
            _ => index,
        }
    }

    fn act(&self) {
        self.0.acts.fetch_add(1, Ordering::Relaxed);
    }

    fn below(&self, bound: usize) -> usize {
        let mut rng = self.0.rng.lock().unwrap_or_else(PoisonError::into_inner);
        rng.random_range(0..bound.max(1))
    }

    fn change_one(&self, values: &mut [Bytes], change: impl FnOnce(&Bytes) -> Bytes) {
        if let Some(value) = values.get_mut(self.below(values.len())) {
            *value = change(value);
            self.act();
        }
    }

    fn flip_one(&self, values: &mut [Bytes]) {
        self.change_one(values, |value| flip_bit(value, self.below(value.len() * 8)));
    }

    fn truncate_one(&self, values: &mut [Bytes]) {
        self.change_one(values, |value| value.slice(..value.len().saturating_sub(CUT_OFF)));
    }

    /// What comes instead of any answer with commits or blocks.
    async fn instead(&self, caller: PeerId) -> Result<(), CallError> {
        let failed = |status, message| Err(CallError::new(status, message));
        let result = match self.0.behaviour {
            Behaviour::NeverAnswers | Behaviour::ClaimsInSilence => {
                self.act();
                pending().await
            }
            Behaviour::ServesNothing | Behaviour::ClaimsWithoutServing => failed(Status::NotFound, "not here"),
            Behaviour::FailsInside => failed(Status::Internal, "broken"),
            Behaviour::SaysBusy => failed(Status::ResourceExhausted, "busy"),
            // What the caller's side makes of such bytes.
            Behaviour::SendsGarbageProtobuf => failed(Status::MalformedAnswer, "failed to decode Protobuf message"),
            Behaviour::AnnouncesHugeMessages => failed(Status::MalformedAnswer, "decoded message length too large"),
            Behaviour::ResetsConnections => {
                (self.0.means.hang_up)(caller);
                Err(CallError::connection_gone())
            }
            _ => return Ok(()),
        };
        self.act();
        result
    }

    /// Takes as long as this many bytes do.
    async fn trickle(&self, bytes: usize) {
        if self.0.behaviour == Behaviour::DribblesBytes {
            self.act();
            match &self.0.means.trickle {
                Some(trickle) => trickle.store(true, Ordering::Relaxed),
                None => sleep(Duration::from_secs(bytes as u64)).await,
            }
        }
    }

    fn change_commits(&self, answer: &mut FetchedCommits, range: CommitRange) {
        match self.0.behaviour {
            Behaviour::AnswersEmpty => {
                *answer = FetchedCommits::default();
                self.act();
            }
            Behaviour::FlipsCommits => self.flip_one(&mut answer.commits),
            Behaviour::FlipsVotes => self.flip_one(&mut answer.certifier_blocks),
            Behaviour::TruncatesCommits => self.truncate_one(&mut answer.commits),
            Behaviour::ReordersCommits if answer.commits.len() > 1 => {
                answer.commits.reverse();
                self.act();
            }
            Behaviour::WithholdsVotes => {
                answer.certifier_blocks.truncate(1);
                self.act();
            }
            Behaviour::ClaimsNextEpoch => {
                for bytes in &mut answer.commits {
                    if let Ok(commit) = UnverifiedCommit::decode(bytes.clone()) {
                        let later = Commit { epoch: commit.epoch + 1, ..(*commit).clone() };
                        *bytes = UnverifiedCommit::from(later).bytes().clone();
                    }
                }
                self.act();
            }
            Behaviour::SendsGarbage => {
                answer.commits = vec![Bytes::from_static(b"garbage"); answer.commits.len()];
                self.act();
            }
            Behaviour::SendsOversizedCommits => {
                answer.commits.push(vec![0; range.max_bytes() + 1].into());
                self.act();
            }
            _ => {}
        }
    }

    /// Changes one chunk of a stream of blocks. Answers whether the stream goes on behind it.
    fn change_chunk(&self, blocks: &mut Vec<Bytes>, first: &mut Option<Bytes>) -> bool {
        match self.0.behaviour {
            Behaviour::FlipsBlocks => self.flip_one(blocks),
            Behaviour::TruncatesBlocks => self.truncate_one(blocks),
            Behaviour::ReordersBlocks if blocks.len() > 1 => {
                blocks.reverse();
                self.act();
            }
            Behaviour::SwapsBlocks => {
                for block in blocks {
                    match first {
                        Some(first) => {
                            *block = first.clone();
                            self.act();
                        }
                        None => *first = Some(block.clone()),
                    }
                }
            }
            Behaviour::ForgesHandovers => blocks.iter_mut().for_each(|block| self.forge_handover(block)),
            Behaviour::SendsOversizedBlocks => {
                *blocks = vec![vec![0; MAX_BLOCK_BYTES + 1].into()];
                self.act();
            }
            Behaviour::EndsStreamsEarly | Behaviour::NeverFinishes => {
                blocks.truncate(1);
                self.act();
                return false;
            }
            _ => {}
        }
        true
    }

    /// Forges the next committee of an epoch's end, and keeps the signature.
    fn forge_handover(&self, bytes: &mut Bytes) {
        let Ok(block) = SignedBlock::decode(bytes.clone()) else { return };
        let mut forged = block.value().clone();
        let Some(end) = &mut forged.end_of_epoch else { return };
        for authority in &mut end.next_committee.authorities {
            authority.stake += 1;
        }
        *bytes = SignedBlock::from(Signed::with_signature(forged, *block.signature())).bytes().clone();
        self.act();
    }
}

/// Answers as an honest peer does, and changes the answers.
pub struct HostilePeer {
    mischief: Mischief,
    inner: Arc<dyn PeerApi>,
}

impl HostilePeer {
    /// Commits over the end of an epoch, within the requested range, with votes for the last one.
    async fn over_the_epochs_end(&self, call: Call, range: CommitRange) -> Result<FetchedCommits, CallError> {
        let mut answer = self.inner.fetch_commits(call, range).await?;
        let next = range.start() + answer.commits.len() as CommitIndex;
        if next <= range.end()
            && let Ok(rest) = self.inner.fetch_commits(call, CommitRange::new(next, range.end())?).await
        {
            answer.commits.extend(rest.commits);
            answer.certifier_blocks = rest.certifier_blocks;
            self.mischief.act();
        }
        Ok(answer)
    }
}

#[async_trait]
impl PeerApi for HostilePeer {
    async fn get_known_peers(&self, call: Call, own_info: Bytes) -> Result<KnownPeers, CallError> {
        let mut said = self.inner.get_known_peers(call, own_info).await?;
        let mischief = &self.mischief;
        let changed = {
            let mut rng = mischief.0.rng.lock().unwrap_or_else(PoisonError::into_inner);
            node_infos::change(mischief.0.behaviour, &mut said, call.peer, &mischief.0.means.key, &mut rng)
        };
        if changed {
            mischief.act();
        }
        Ok(said)
    }

    async fn get_commit_availability(&self, call: Call) -> Result<Availability, CallError> {
        let said = self.inner.get_commit_availability(call).await?;
        let highest_synced = self.mischief.pushed(said.highest_synced);
        if highest_synced != said.highest_synced {
            self.mischief.act();
        }
        Ok(Availability { highest_synced, ..said })
    }

    async fn get_commit_info(&self, call: Call, index: Option<CommitIndex>) -> Result<CommitRef, CallError> {
        let said = self.inner.get_commit_info(call, index).await?;
        if self.mischief.0.behaviour == Behaviour::IsOnOtherChain {
            self.mischief.act();
            return Ok(CommitRef { digest: CommitDigest([9; 32]), ..said });
        }
        Ok(said)
    }

    async fn fetch_commits(&self, call: Call, range: CommitRange) -> Result<FetchedCommits, CallError> {
        self.mischief.instead(call.peer).await?;
        let mut answer = match self.mischief.0.behaviour {
            Behaviour::SpansEpochs => self.over_the_epochs_end(call, range).await?,
            Behaviour::ReplaysOld if range.start() > 1 => {
                self.mischief.act();
                let old = CommitRange::new(1, range.end() - range.start() + 1)?.within(range.max_bytes() as u64);
                self.inner.fetch_commits(call, old).await?
            }
            _ => self.inner.fetch_commits(call, range).await?,
        };
        self.mischief.change_commits(&mut answer, range);
        self.mischief.trickle(answer.size()).await;
        Ok(answer)
    }

    async fn fetch_blocks(&self, call: Call, refs: BlockRefs) -> Result<BlockStream, CallError> {
        self.mischief.instead(call.peer).await?;
        if self.mischief.0.behaviour == Behaviour::AnswersEmpty {
            self.mischief.act();
            return Ok(stream::empty().boxed());
        }
        let inner = self.inner.fetch_blocks(call, refs).await?;
        let never_ends = self.mischief.0.behaviour == Behaviour::NeverFinishes;
        let changing = (self.mischief.clone(), Some(inner), None);
        let changed = stream::unfold(changing, move |(mischief, inner, mut first)| async move {
            let chunk = inner?;
            let (chunk, rest) = StreamExt::into_future(chunk).await;
            let mut rest = Some(rest);
            let chunk = match chunk? {
                Ok(mut blocks) => {
                    if !mischief.change_chunk(&mut blocks, &mut first) {
                        rest = None;
                    }
                    mischief.trickle(blocks.iter().map(Bytes::len).sum()).await;
                    Ok(blocks)
                }
                Err(error) => {
                    rest = None;
                    Err(error)
                }
            };
            Some((chunk, (mischief, rest, first)))
        });
        Ok(if never_ends { changed.chain(stream::pending()).boxed() } else { changed.boxed() })
    }

    async fn push_commit(&self, call: Call, index: CommitIndex) -> Result<(), CallError> {
        self.inner.push_commit(call, index).await
    }

    async fn get_epoch_proofs(&self, call: Call, request: EpochProofsFrom) -> Result<EpochProofs, CallError> {
        self.mischief.instead(call.peer).await?;
        self.inner.get_epoch_proofs(call, request).await
    }

    async fn fetch_objects(&self, call: Call, ids: ObjectIds) -> Result<ObjectStream, CallError> {
        self.mischief.instead(call.peer).await?;
        let State { behaviour, means, .. } = &*self.mischief.0;
        if let (Some(mischief), Some(objects)) = (ObjectMischief::beside(*behaviour), &means.objects) {
            self.mischief.act();
            return mischief.answer(objects, &ids);
        }
        self.inner.fetch_objects(call, ids).await
    }

    async fn broadcast(
        &self,
        call: Call,
        hello: Hello,
        frames: FrameStream,
    ) -> Result<(Hello, FrameStream), CallError> {
        if self.mischief.0.behaviour != Behaviour::DropsMessages {
            return self.inner.broadcast(call, hello, frames).await;
        }
        self.mischief.act();
        // Reads what comes, and sends nothing.
        let silent = frames.filter_map(async |frame| frame.err().map(Err));
        Ok((hello, silent.boxed()))
    }
}
