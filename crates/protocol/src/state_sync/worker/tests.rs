use super::*;
use soma_types::{CommitDigest, CommitRef, PeerFailure};

const NOW: Now = Now { monotonic: std::time::Duration::ZERO, unix_ms: 0 };
const MIB: u64 = 1 << 20;

trait Step {
    /// Handles an input. Returns the effects but for mere signs of progress, which most tests are not about.
    fn step(&mut self, input: Input) -> Vec<Effect>;
}

impl Step for SyncWorker {
    fn step(&mut self, input: Input) -> Vec<Effect> {
        let mut effects = self.handle(NOW, input);
        effects.retain(|effect| *effect != Effect::TellProgress { downloaded: false });
        effects
    }
}

fn config(max_bytes: u64) -> Config {
    Config {
        start: 1,
        end: 4,
        proof_end: 4,
        commits_per_fetch: 4,
        max_bytes,
        largest_answer: MIB / 2,
        blocks_per_request: 10,
        max_requests: 2,
    }
}

/// A worker that has the commits of its only answer.
fn worker(max_bytes: u64) -> SyncWorker {
    let mut core = SyncWorker::new(config(max_bytes));
    assert_eq!(core.step(Input::Start), [Effect::FetchCommits { start: 1, end: 4, max_bytes }]);
    assert_eq!(fetched_commits(&mut core, 1), [Effect::CheckCommits { start: 1, end: 4 }]);
    core
}

/// A worker for commits 1 to 10, of which one answer has four, and what it asks for.
fn worker_of_three_answers() -> SyncWorker {
    let mut core = SyncWorker::new(Config { end: 10, proof_end: 10, ..config(9 * MIB) });
    let asked = [(1, 4), (5, 8), (9, 10)].map(|(start, end)| Effect::FetchCommits { start, end, max_bytes: 3 * MIB });
    assert_eq!(core.step(Input::Start), asked);
    core
}

fn fetched_commits(core: &mut SyncWorker, start: u32) -> Vec<Effect> {
    core.step(Input::CommitsFetched { start, result: Ok(100) })
}

/// Commits with so many blocks were certified; each answer's last has the digest that the next one names.
fn certified(start: u32, blocks: Vec<u32>) -> Input {
    let digest = |index: u32| CommitDigest([index as u8; 32]);
    let last = digest(start + blocks.len() as u32 - 1);
    Input::CommitsChecked { start, result: Ok(Certified { previous: digest(start - 1), last, blocks }) }
}

fn fails(core: &mut SyncWorker, start: u32, fault: Fault) -> Vec<Effect> {
    let failure = PeerFailure::new(fault, "failed");
    core.step(Input::CommitsFetched { start, result: Err(failure) })
}

/// How many answers were joined, and which blocks are asked for.
fn joined(effects: &[Effect]) -> (usize, Vec<(u32, u32)>) {
    let (first, rest) = effects.split_first().expect("effects");
    let Effect::JoinCommits { answers } = first else { panic!("{effects:?}") };
    let asked = rest.iter().map(|effect| match effect {
        Effect::FetchBlocks { from, to, .. } => (*from, *to),
        other => panic!("{other:?}"),
    });
    (*answers, asked.collect())
}

fn fetched(core: &mut SyncWorker, from: u32, received: u32, failure: Option<PeerFailure>) -> Vec<Effect> {
    core.step(Input::BlocksFetched { from, received, bytes: 1_000, ended: true, failure })
}

fn checked(core: &mut SyncWorker, from: u32) -> Vec<Effect> {
    core.step(Input::BlocksChecked { from, verified: u32::MAX, failure: None })
}

fn slow() -> PeerFailure {
    PeerFailure::new(Fault::Slow, "timed out")
}

fn verified(last: u32) -> RangeSummary {
    let digest = CommitDigest::default();
    RangeSummary {
        first: 1,
        last: CommitRef { index: last, digest },
        previous: digest,
        first_timestamp_ms: 0,
        first_leader_timestamp_ms: 0,
        last_timestamp_ms: 0,
        epoch: 0,
        ends_epoch: false,
        bytes: 1,
        blocks: 1,
    }
}

#[test]
fn blocks_are_asked_for_after_the_votes_with_two_requests_at_once() {
    let mut core = worker(100 * MIB);
    let effects = core.step(certified(1, vec![8, 8, 8, 8]));
    assert_eq!(joined(&effects), (1, vec![(0, 10), (10, 20)]));
    let effects = fetched(&mut core, 0, 10, None);
    assert_eq!(effects[0], Effect::CheckBlocks { from: 0 });
    assert!(matches!(effects[1], Effect::FetchBlocks { from: 20, to: 30, .. }), "the next is fetched meanwhile");
}

#[test]
fn a_whole_range_is_delivered_without_a_shortfall() {
    let mut core = worker(100 * MIB);
    core.step(certified(1, vec![5, 5, 5, 5]));
    fetched(&mut core, 0, 10, None);
    fetched(&mut core, 10, 10, None);
    assert_eq!(checked(&mut core, 10), []);
    assert_eq!(checked(&mut core, 0), [Effect::CheckSubDags { commits: 4 }]);
    let effects = core.step(Input::SubDagsChecked { verified: Some(verified(4)), failure: None });
    assert_eq!(effects, [Effect::Finish { verified: Some(verified(4)), shortfall: None }]);
}

#[test]
fn what_verified_before_a_failure_is_delivered_with_the_reason() {
    let mut core = worker(100 * MIB);
    core.step(certified(1, vec![5, 5, 5, 5]));
    // The second request brings 3 of 10 blocks: the third commit is not whole.
    fetched(&mut core, 0, 10, None);
    fetched(&mut core, 10, 3, Some(slow()));
    checked(&mut core, 0);
    assert_eq!(checked(&mut core, 10), [Effect::CheckSubDags { commits: 2 }]);
    let effects = core.step(Input::SubDagsChecked { verified: Some(verified(2)), failure: None });
    let shortfall = Some(StopReason::Failed(PeerFailure::new(Fault::Slow, "timed out")));
    assert_eq!(effects, [Effect::Finish { verified: Some(verified(2)), shortfall }]);
}

#[test]
fn blocks_before_one_that_breaks_a_rule_are_delivered() {
    let mut core = worker(100 * MIB);
    core.step(certified(1, vec![5, 5, 5, 5]));
    fetched(&mut core, 0, 10, None);
    fetched(&mut core, 10, 10, None);
    let broken = PeerFailure::new(Fault::Ours, "a rule");
    // Two of the third commit's five blocks: only the commits before it are whole.
    core.step(Input::BlocksChecked { from: 10, verified: 2, failure: Some(broken.clone()) });
    assert_eq!(checked(&mut core, 0), [Effect::CheckSubDags { commits: 2 }]);
    let effects = core.step(Input::SubDagsChecked { verified: Some(verified(2)), failure: None });
    assert_eq!(effects, [Effect::Finish { verified: Some(verified(2)), shortfall: Some(broken.into()) }]);
}

#[test]
fn blocks_that_were_left_unchecked_are_checked_next() {
    let mut core = worker(100 * MIB);
    core.step(certified(1, vec![5, 5]));
    fetched(&mut core, 0, 10, None);
    let some =
        |core: &mut SyncWorker, from, verified| core.step(Input::BlocksChecked { from, verified, failure: None });
    assert_eq!(some(&mut core, 0, 4), [Effect::CheckBlocks { from: 4 }]);
    assert_eq!(some(&mut core, 4, 5), [Effect::CheckBlocks { from: 9 }]);
    assert_eq!(some(&mut core, 9, 1), [Effect::CheckSubDags { commits: 2 }]);
}

#[test]
fn commits_before_one_that_breaks_a_rule_are_delivered() {
    let mut core = worker(100 * MIB);
    core.step(certified(1, vec![1; 4]));
    fetched(&mut core, 0, 4, None);
    checked(&mut core, 0);
    let broken = PeerFailure::new(Fault::Ours, "a rule");
    let effects = core.step(Input::SubDagsChecked { verified: Some(verified(2)), failure: Some(broken.clone()) });
    assert_eq!(effects, [Effect::Finish { verified: Some(verified(2)), shortfall: Some(broken.into()) }]);
}

#[test]
fn blocks_that_do_not_verify_end_the_range_before_them() {
    let mut core = worker(100 * MIB);
    core.step(certified(1, vec![5, 5, 5, 5]));
    fetched(&mut core, 0, 10, None);
    fetched(&mut core, 10, 10, None);
    let lie = PeerFailure::new(Fault::ProvableLie, "wrong block");
    core.step(Input::BlocksChecked { from: 0, verified: 0, failure: Some(lie.clone()) });
    let effects = checked(&mut core, 10);
    assert_eq!(effects, [Effect::Finish { verified: None, shortfall: Some(lie.into()) }]);
}

#[test]
fn fewer_commits_than_asked_for_are_a_cut_and_no_fault() {
    let mut core = worker(100 * MIB);
    core.step(certified(1, vec![5, 5]));
    fetched(&mut core, 0, 10, None);
    assert_eq!(checked(&mut core, 0), [Effect::CheckSubDags { commits: 2 }]);
    let effects = core.step(Input::SubDagsChecked { verified: Some(verified(2)), failure: None });
    assert_eq!(effects, [Effect::Finish { verified: Some(verified(2)), shortfall: Some(StopReason::Cut) }]);
}

#[test]
fn request_that_reached_its_bytes_continues_while_the_budget_lasts() {
    let mut core = worker(8 * MIB);
    let effects = core.step(certified(1, vec![5, 5]));
    let [_, Effect::FetchBlocks { from: 0, to: 10, max_bytes }] = effects[..] else { panic!("{effects:?}") };
    assert_eq!(max_bytes, 8 * MIB - 100, "the only request may have all");
    let bytes = 4 * MIB;
    let effects = core.step(Input::BlocksFetched { from: 0, received: 4, bytes, ended: true, failure: None });
    let [Effect::CheckBlocks { from: 0 }, Effect::FetchBlocks { from: 4, to: 10, .. }] = effects[..] else {
        panic!("{effects:?}")
    };
    // What is left does not hold a block any more: the range ends with the first commit.
    core.step(Input::BlocksFetched { from: 4, received: 3, bytes: 4 * MIB - 200, ended: true, failure: None });
    checked(&mut core, 0);
    assert_eq!(checked(&mut core, 4), [Effect::CheckSubDags { commits: 1 }]);
}

#[test]
fn blocks_are_checked_as_they_arrive_and_not_at_the_end_of_a_request() {
    let mut core = worker(8 * MIB);
    core.step(certified(1, vec![4, 6]));
    let part = |from, received, ended| Input::BlocksFetched { from, received, bytes: 1_000, ended, failure: None };
    assert_eq!(core.step(part(0, 3, false)), [Effect::CheckBlocks { from: 0 }]);
    assert_eq!(checked(&mut core, 0), [], "the request goes on");
    assert_eq!(core.step(part(3, 2, false)), [Effect::CheckBlocks { from: 3 }]);
    // The connection ends: what had come is kept.
    let broken = Input::BlocksFetched { from: 5, received: 0, bytes: 0, ended: true, failure: Some(slow()) };
    assert_eq!(core.step(broken), [Effect::TellProgress { downloaded: true }], "nothing more comes");
    assert_eq!(checked(&mut core, 3), [Effect::CheckSubDags { commits: 1 }]);
}

#[test]
fn progress_is_told_with_each_part_and_its_end_once() {
    let told = |effects: Vec<Effect>| {
        let told = effects.into_iter().filter_map(|effect| match effect {
            Effect::TellProgress { downloaded } => Some(downloaded),
            _ => None,
        });
        told.collect::<Vec<_>>()
    };
    let mut core = SyncWorker::new(config(8 * MIB));
    assert_eq!(told(core.handle(NOW, Input::Start)), []);
    assert_eq!(told(core.handle(NOW, Input::CommitsFetched { start: 1, result: Ok(100) })), [false]);
    assert_eq!(told(core.handle(NOW, certified(1, vec![4, 6]))), []);
    let part = |from, received, ended| Input::BlocksFetched { from, received, bytes: 1_000, ended, failure: None };
    assert_eq!(told(core.handle(NOW, part(0, 3, false))), [false]);
    assert_eq!(told(core.handle(NOW, part(3, 7, true))), [true]);
}

#[test]
fn block_that_does_not_fit_cuts_the_range_before_it_without_blame() {
    let mut core = worker(MIB);
    core.step(certified(1, vec![1, 1]));
    let effects = core.step(Input::BlocksFetched { from: 0, received: 0, bytes: 0, ended: true, failure: None });
    assert_eq!(effects, [Effect::Finish { verified: None, shortfall: Some(StopReason::Cut) }]);
}

#[test]
fn slow_server_within_the_protocols_time_still_delivers_its_commits() {
    let reason = || "failed".to_owned();
    let missing = StopReason::Failed(PeerFailure::new(Fault::DoesNotHave, reason()));
    for (max_bytes, shortfall) in [(MIB / 4, StopReason::Cut), (MIB / 2, missing)] {
        let mut core = SyncWorker::new(config(max_bytes));
        core.step(Input::Start);
        let effects = fails(&mut core, 1, Fault::DoesNotHave);
        assert_eq!(effects, [Effect::Finish { verified: None, shortfall: Some(shortfall) }]);
    }
}

#[test]
fn bytes_allowed_to_requests_never_exceed_what_the_range_may_hold() {
    for budget in [2 * MIB, 3 * MIB, 10 * MIB, 100 * MIB] {
        let mut core = worker(budget);
        let effects = core.step(certified(1, vec![1_000; 4]));
        let allowed = effects.iter().map(|effect| match effect {
            Effect::FetchBlocks { max_bytes, .. } => *max_bytes,
            _ => 0,
        });
        let allowed: u64 = allowed.sum();
        assert!(allowed > 0);
        assert!(allowed + 100 <= budget, "{allowed} of {budget}");
    }
}

#[test]
fn commits_that_are_refused_end_the_range_at_once() {
    let mut core = worker(MIB);
    let other = StopReason::OtherEpoch { index: 1, found: 3 };
    let effects = core.step(Input::CommitsChecked { start: 1, result: Err(other.clone()) });
    assert_eq!(effects, [Effect::Finish { verified: None, shortfall: Some(other) }]);
}

/// Commits of a block each that are joined come whole: the worker ends with them, and with why not all.
#[track_caller]
fn delivers(core: &mut SyncWorker, commits: u32, shortfall: Option<StopReason>) {
    fetched(core, 0, commits, None);
    assert_eq!(checked(core, 0), [Effect::CheckSubDags { commits }]);
    let effects = core.step(Input::SubDagsChecked { verified: Some(verified(commits)), failure: None });
    assert_eq!(effects, [Effect::Finish { verified: Some(verified(commits)), shortfall }]);
}

#[test]
fn answers_of_one_range_are_joined_when_all_have_come_in_whatever_order() {
    let mut core = worker_of_three_answers();
    for start in [9, 1, 5] {
        fetched_commits(&mut core, start);
    }
    assert_eq!(core.step(certified(5, vec![1; 4])), []);
    assert_eq!(core.step(certified(9, vec![1; 2])), []);
    assert_eq!(joined(&core.step(certified(1, vec![1; 4]))), (3, vec![(0, 10)]), "blocks of all in one request");
    delivers(&mut core, 10, None);
}

#[test]
fn what_is_behind_an_answer_that_was_cut_is_not_waited_for() {
    let mut core = worker_of_three_answers();
    fetched_commits(&mut core, 1);
    let effects = core.step(certified(1, vec![1; 3]));
    let [Effect::JoinCommits { answers: 1 }, Effect::FetchBlocks { from: 0, to: 3, max_bytes }] = effects[..] else {
        panic!("{effects:?}")
    };
    assert_eq!(max_bytes, 9 * MIB - 100, "what the others were allowed is free");
    assert_eq!(fetched_commits(&mut core, 5), [], "one that comes all the same is not looked at");
    delivers(&mut core, 3, Some(StopReason::Cut));
}

#[test]
fn a_later_answer_that_fails_costs_what_is_behind_it_and_is_reported() {
    let lie = || StopReason::Failed(PeerFailure::new(Fault::Malformed, "failed"));
    let mut core = worker_of_three_answers();
    assert_eq!(fails(&mut core, 5, Fault::Malformed), [], "the first may still be of use");
    fetched_commits(&mut core, 1);
    assert_eq!(joined(&core.step(certified(1, vec![1; 4]))), (1, vec![(0, 4)]));
    delivers(&mut core, 4, Some(lie()));

    let mut core = worker_of_three_answers();
    let effects = fails(&mut core, 1, Fault::Malformed);
    assert_eq!(effects, [Effect::Finish { verified: None, shortfall: Some(lie()) }], "the first one's costs all");
}

#[test]
fn what_proves_a_peer_hostile_is_reported_wherever_it_comes_from() {
    let lie = Some(StopReason::Failed(PeerFailure::new(Fault::ProvableLie, "failed")));
    // Behind an answer that was cut.
    let mut core = worker_of_three_answers();
    fails(&mut core, 9, Fault::ProvableLie);
    fetched_commits(&mut core, 1);
    assert_eq!(joined(&core.step(certified(1, vec![1; 3]))), (1, vec![(0, 3)]));
    delivers(&mut core, 3, lie.clone());

    // In blocks, after an answer that was lost on the way.
    let mut core = worker_of_three_answers();
    fails(&mut core, 5, Fault::Slow);
    fetched_commits(&mut core, 1);
    core.step(certified(1, vec![1; 4]));
    fetched(&mut core, 0, 4, None);
    let failure = PeerFailure::new(Fault::ProvableLie, "failed");
    let effects = core.step(Input::BlocksChecked { from: 0, verified: 0, failure: Some(failure) });
    assert_eq!(effects, [Effect::Finish { verified: None, shortfall: lie }]);
}

#[test]
fn a_peer_need_not_have_the_commits_of_later_answers() {
    let mut core = worker_of_three_answers();
    fails(&mut core, 5, Fault::DoesNotHave);
    fetched_commits(&mut core, 1);
    core.step(certified(1, vec![1; 4]));
    delivers(&mut core, 4, Some(StopReason::Cut));
}

#[test]
fn an_epoch_that_ends_with_an_answer_ends_the_range_there() {
    let mut core = worker_of_three_answers();
    for start in [1, 5, 9] {
        fetched_commits(&mut core, start);
    }
    let next_epoch = StopReason::OtherEpoch { index: 5, found: 1 };
    core.step(Input::CommitsChecked { start: 5, result: Err(next_epoch.clone()) });
    assert_eq!(joined(&core.step(certified(1, vec![1; 4]))), (1, vec![(0, 4)]));
    delivers(&mut core, 4, Some(next_epoch));
}

#[test]
fn answer_that_does_not_follow_the_last_one_is_left_to_state_sync() {
    let mut core = worker_of_three_answers();
    for start in [1, 5, 9] {
        fetched_commits(&mut core, start);
    }
    core.step(certified(1, vec![1; 4]));
    let other = Certified { previous: CommitDigest([99; 32]), last: CommitDigest([8; 32]), blocks: vec![1; 4] };
    assert_eq!(joined(&core.step(Input::CommitsChecked { start: 5, result: Ok(other) })), (1, vec![(0, 4)]));
}

#[test]
fn commits_that_prove_the_range_are_asked_for_in_the_same_answer() {
    let mut core = SyncWorker::new(Config { proof_end: 100, ..config(MIB) });
    let effects = core.step(Input::Start);
    assert_eq!(effects, [Effect::FetchCommits { start: 1, end: 100, max_bytes: MIB }]);
}

#[test]
fn peer_that_answers_fewer_requests_at_once_is_asked_for_no_more() {
    let overloaded = || PeerFailure::new(Fault::Overloaded, "one too many");
    let mut core = worker(100 * MIB);
    core.step(certified(1, vec![8, 8, 8, 8]));
    assert_eq!(fetched(&mut core, 10, 0, Some(overloaded())), [], "the other request goes on");
    for from in [0, 10, 20, 30] {
        let received = if from == 30 { 2 } else { 10 };
        let effects = fetched(&mut core, from, received, None);
        let asked = effects.iter().filter(|effect| matches!(effect, Effect::FetchBlocks { .. })).count();
        assert_eq!(asked, usize::from(from < 30), "one at a time: {effects:?}");
        let effects = checked(&mut core, from);
        assert_eq!(effects.contains(&Effect::CheckSubDags { commits: 4 }), from == 30);
    }

    let mut core = worker(100 * MIB);
    core.step(certified(1, vec![8, 8, 8, 8]));
    fetched(&mut core, 10, 0, Some(overloaded()));
    let effects = fetched(&mut core, 0, 0, Some(overloaded()));
    assert_eq!(effects, [Effect::Finish { verified: None, shortfall: Some(overloaded().into()) }], "it answers none");
}
