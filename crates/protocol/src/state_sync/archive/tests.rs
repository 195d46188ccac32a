use super::{
    super::{
        Config, Input, StopReason,
        tests::{EPOCH, at, core, digest, target, verified},
    },
    *,
};
use crate::core::Core;
use crate::peer_heights::Outcome;
use soma_types::{ChainId, CommitRef, PeerId};
use std::collections::VecDeque;

const PEER: PeerId = PeerId([1; 32]);

/// Commits of a segment here.
const SEGMENT: CommitIndex = 10;

fn segment(first: CommitIndex, last: CommitIndex) -> SegmentName {
    SegmentName { chain: ChainId([0; 32]), epoch: u64::from((first - 1) / EPOCH), first, last }
}

/// A core with an archive, one peer and a disk, each as the test wants.
struct World {
    core: StateSync,
    ms: u64,
    /// The last commit of the archive.
    archived: CommitIndex,
    /// What the archive answers instead of segments.
    outage: Option<String>,
    /// The archive answers no listing.
    listing_hangs: bool,
    /// A segment that breaks a rule.
    bad: Option<SegmentName>,
    /// A segment that is valid by itself, and of another chain.
    forked: Option<SegmentName>,
    /// The first and the last commit of the peer.
    peer: Option<(CommitIndex, CommitIndex)>,
    /// The peer does not answer; the keys of its ranges.
    hangs: Option<Vec<RangeKey>>,
    /// Ranges that came from the archive, and from the peer.
    from_archive: Vec<(CommitIndex, CommitIndex)>,
    from_peer: Vec<(CommitIndex, CommitIndex)>,
    listings: Vec<CommitIndex>,
    faults: Vec<String>,
    reports: Vec<Outcome>,
}

impl World {
    fn new(archive: ArchiveUse, archived: CommitIndex) -> Self {
        let config = Config { archive, commits_per_fetch: 10, ..Config::default() };
        Self {
            core: core(config),
            ms: 0,
            archived,
            outage: None,
            listing_hangs: false,
            bad: None,
            forked: None,
            peer: None,
            hangs: None,
            from_archive: Vec::new(),
            from_peer: Vec::new(),
            listings: Vec::new(),
            faults: Vec::new(),
            reports: Vec::new(),
        }
    }

    /// The peer has these commits, and says so.
    fn with_peer(mut self, lowest: CommitIndex, highest: CommitIndex) -> Self {
        self.peer = Some((lowest, highest));
        self.handle(target(highest));
        self
    }

    fn handle(&mut self, input: Input) {
        let mut effects: VecDeque<Effect> = self.core.handle(at(self.ms), input).into();
        while let Some(effect) = effects.pop_front() {
            if let Some(answer) = self.answer(effect) {
                effects.extend(self.core.handle(at(self.ms), answer));
            }
        }
    }

    /// Wakes the core at its own times, until this time has passed.
    fn pass(&mut self, ms: u64) {
        let end = self.ms + ms;
        while let Some(wake) = self.core.next_wake().map(|wake| wake.as_millis() as u64).filter(|wake| *wake <= end) {
            self.ms = wake;
            self.handle(Input::Wake);
        }
        self.ms = end;
    }

    fn answer(&mut self, effect: Effect) -> Option<Input> {
        match effect {
            Effect::Pick { key, start, .. } => {
                let peer = match self.peer {
                    None => Err(NoPeer::NotConnected),
                    Some((lowest, _)) if start < lowest => Err(NoPeer::AllPruned { peers: 1, lowest }),
                    Some(_) => Ok(PEER),
                };
                Some(Input::Picked { key, peer })
            }
            Effect::Fetch { key, start, end, .. } => {
                self.from_peer.push((start, end));
                if let Some(hanging) = &mut self.hangs {
                    hanging.push(key);
                    return None;
                }
                // Of its own epoch only.
                let end = end.min((start - 1) / EPOCH * EPOCH + EPOCH);
                Some(Input::WorkerDone { key, verified: Some(verified(start, end, 100)), shortfall: None })
            }
            Effect::ListArchive { key, epoch, next, avoid } => {
                self.listings.push(next);
                if self.listing_hangs {
                    return None;
                }
                Some(Input::ArchiveListed { key, result: self.list(epoch, next, &avoid) })
            }
            Effect::FetchSegment { key, segment, start, end, .. } => {
                if self.bad == Some(segment) {
                    let failure = PeerFailure::new(Fault::ProvableLie, "block 3 has a wrong signature");
                    let shortfall = Some(StopReason::Failed(failure));
                    return Some(Input::WorkerDone { key, verified: None, shortfall });
                }
                self.from_archive.push((start, end));
                let mut verified = verified(start, end, 100);
                if self.forked == Some(segment) {
                    verified.previous = digest(77);
                }
                Some(Input::WorkerDone { key, verified: Some(verified), shortfall: None })
            }
            Effect::Write(keys) => {
                assert!(!keys.is_empty());
                let last = self.core.snapshot().linked;
                Some(Input::Written(Ok(CommitRef { index: last, digest: digest(last) })))
            }
            Effect::SegmentFault { reason, .. } => {
                self.faults.push(reason);
                None
            }
            Effect::Report { outcome, .. } => {
                self.reports.push(outcome);
                None
            }
            _ => None,
        }
    }

    fn list(&self, epoch: Epoch, next: CommitIndex, avoid: &[SegmentName]) -> Result<ArchiveRoute, String> {
        if let Some(outage) = &self.outage {
            return Err(outage.clone());
        }
        let first = epoch as u32 * EPOCH + 1;
        let all = (first..first + EPOCH).step_by(SEGMENT as usize).map(|first| segment(first, first + SEGMENT - 1));
        let there = all.filter(|name| name.last <= self.archived && name.last >= next && !avoid.contains(name));
        let there: Vec<_> = there.map(|name| (name, 1_000)).collect();
        let leads_on = there.first().is_some_and(|(name, _)| name.first <= next);
        let has_gap = !leads_on && !there.is_empty();
        Ok(ArchiveRoute { segments: if leads_on { there } else { Vec::new() }, has_gap })
    }

    fn progress(&self) -> Progress {
        self.core.progress()
    }
}

#[test]
fn commits_that_all_peers_have_pruned_come_from_the_archive_and_no_others() {
    let mut world = World::new(ArchiveUse::WhenNeeded, 100).with_peer(45, 95);
    world.pass(2_000);
    assert_eq!((world.core.snapshot().applied, world.progress()), (95, Progress::Synced));
    assert_eq!(world.from_archive, [(1, 10), (11, 20), (21, 30), (31, 40), (41, 50)]);
    assert_eq!(world.core.snapshot().commits_from_archive, 50);
    assert!(world.from_peer.iter().all(|(start, _)| *start > 44), "{:?}", world.from_peer);
    assert_eq!(world.listings, [1, 31], "once for each epoch");
}

#[test]
fn peers_that_have_everything_leave_the_archive_alone() {
    let mut world = World::new(ArchiveUse::WhenNeeded, 100).with_peer(1, 95);
    world.pass(60_000);
    assert_eq!((world.core.snapshot().applied, world.from_archive.len(), world.listings.len()), (95, 0, 0));
}

#[test]
fn node_without_any_peer_begins_with_the_archive_after_a_while() {
    let mut world = World::new(ArchiveUse::WhenNeeded, 60);
    world.handle(Input::Wake);
    world.pass(PEER_PATIENCE.as_millis() as u64 - 1);
    assert_eq!(world.listings, [], "peers have their time");
    world.pass(1);
    assert_eq!(world.core.snapshot().applied, 60);
    let alone = Progress::NoPeer { needed: 61, reason: NoPeer::NotConnected };
    assert_eq!(world.progress(), alone, "the archive leads no further");
    // A node that writes the archive goes on.
    world.archived = 90;
    world.pass(LIST_AGAIN.as_millis() as u64);
    assert_eq!(world.core.snapshot().applied, 90);
}

#[test]
fn archive_comes_first_if_the_node_is_set_up_so() {
    let mut world = World::new(ArchiveUse::First, 80).with_peer(1, 95);
    world.pass(1_000);
    assert_eq!((world.core.snapshot().applied, world.progress()), (95, Progress::Synced));
    assert_eq!(world.from_archive.last(), Some(&(71, 80)));
    assert!(world.from_peer.iter().all(|(start, _)| *start > 80), "{:?}", world.from_peer);
    // At the head the archive is not asked.
    let listings = world.listings.len();
    world.peer = Some((1, 97));
    world.handle(target(97));
    world.pass(120_000);
    assert_eq!((world.core.snapshot().applied, world.listings.len()), (97, listings));
}

#[test]
fn unreachable_archive_is_named_and_peers_are_still_asked() {
    let mut world = World::new(ArchiveUse::WhenNeeded, 100);
    world.outage = Some("archive s3://history: cannot list it: 503".into());
    world = world.with_peer(45, 95);
    world.pass(5_000);
    let reason = world.outage.clone().unwrap();
    assert_eq!(world.progress(), Progress::ArchiveUnreachable { needed: 1, reason });
    assert!((3..12).contains(&world.listings.len()), "with backoff: {:?}", world.listings);
    // A peer that has the commits is enough.
    let mut with_peer = world;
    with_peer.peer = Some((1, 95));
    with_peer.pass(2_000);
    assert_eq!((with_peer.core.snapshot().applied, with_peer.from_archive.len()), (95, 0));
}

#[test]
fn archive_that_failed_and_answers_slowly_holds_up_no_peer() {
    let mut world = World::new(ArchiveUse::First, 100);
    world.outage = Some("503".into());
    world.handle(Input::Wake);
    world.listing_hangs = true;
    world.pass(1_000);
    assert_eq!(world.listings.len(), 2, "it is tried again");
    world = world.with_peer(1, 95);
    world.pass(1_000);
    assert_eq!((world.core.snapshot().applied, world.from_archive.len()), (95, 0));
}

#[test]
fn archive_that_returns_is_used_again() {
    let mut world = World::new(ArchiveUse::WhenNeeded, 100);
    world.outage = Some("503".into());
    world = world.with_peer(45, 95);
    world.pass(5_000);
    world.outage = None;
    world.pass(RETRY.max.as_millis() as u64);
    assert_eq!((world.core.snapshot().applied, world.progress()), (95, Progress::Synced));
}

#[test]
fn range_that_fails_before_the_route_comes_from_the_archive_too() {
    let mut world = World::new(ArchiveUse::First, 90);
    (world.core.config.max_workers, world.core.config.max_executor_lag) = (2, 40);
    let executor = |world: &mut World| {
        let next = world.core.snapshot().applied + 1;
        world.handle(Input::Executor { reader: 1, at: super::super::ExecutorAt::Next(next) });
    };
    world.outage = Some("503".into());
    executor(&mut world);
    world.hangs = Some(Vec::new());
    world = world.with_peer(1, 95);
    world.pass(500);
    let hanging = world.hangs.take().unwrap();
    assert!(!hanging.is_empty() && world.core.snapshot().applied == 0, "the peer has the first ranges");
    world.outage = None;
    world.pass(5_000);
    for key in hanging {
        let shortfall = Some(StopReason::Failed(PeerFailure::new(Fault::Slow, "no answer")));
        world.handle(Input::WorkerDone { key, verified: None, shortfall });
    }
    for _ in 0..10 {
        world.pass(2_000);
        executor(&mut world);
    }
    assert_eq!((world.core.snapshot().applied, world.progress()), (95, Progress::Synced));
}

#[test]
fn segment_that_breaks_a_rule_is_named_and_left_out_and_blames_no_peer() {
    let mut world = World::new(ArchiveUse::WhenNeeded, 100);
    world.bad = Some(segment(11, 20));
    world = world.with_peer(45, 95);
    world.pass(20_000);
    assert_eq!(world.core.snapshot().applied, 10);
    assert_eq!(world.faults, ["block 3 has a wrong signature"], "once: it is left out");
    let Progress::Retrying { needed: 11, reason, .. } = world.progress() else { panic!("{:?}", world.progress()) };
    assert!(reason.contains("commit 11"), "{reason}");
    assert!(world.reports.iter().all(|outcome| !matches!(outcome, Outcome::Failed(_))), "{:?}", world.reports);
    // It is replaced, and tried again in time.
    world.bad = None;
    world.pass(AVOID_FOR.as_millis() as u64 + 60_000);
    assert_eq!((world.core.snapshot().applied, world.progress()), (95, Progress::Synced));
}

#[test]
fn segment_of_another_chain_is_rejected_where_it_is_linked() {
    let mut world = World::new(ArchiveUse::WhenNeeded, 100);
    world.forked = Some(segment(1, 10));
    world = world.with_peer(45, 95);
    world.pass(5_000);
    assert_eq!(world.core.snapshot().linked, 0);
    let [reason] = &world.faults[..] else { panic!("{:?}", world.faults) };
    assert!(reason.contains("does not follow"), "{reason}");
}

#[test]
fn segments_wait_for_the_executor_and_for_room_in_the_budget() {
    let mut world = World::new(ArchiveUse::First, 90);
    world.core.config.max_executor_lag = 25;
    world.handle(Input::Executor { reader: 1, at: super::super::ExecutorAt::Next(1) });
    world.pass(1_000);
    assert_eq!(world.core.snapshot().applied, 30, "segments that begin within the executor's lag");
    world.handle(Input::Executor { reader: 1, at: super::super::ExecutorAt::Next(31) });
    assert_eq!(world.core.snapshot().applied, 60);

    // The second and further segments leave the next one its bytes.
    let mut narrow = World::new(ArchiveUse::First, 90);
    narrow.core.config.bytes_in_flight = narrow.core.config.bytes_per_range + 1;
    narrow.handle(Input::Wake);
    assert_eq!(narrow.core.snapshot().applied, 90, "one after the other");
}
