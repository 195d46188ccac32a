use super::*;
use soma_types::{CommitDigest, CommitRef};

const NOW: Now = Now { monotonic: std::time::Duration::ZERO, unix_ms: 0 };
const MIB: u64 = 1 << 20;

fn worker(max_bytes: u64) -> SyncWorker {
    let config =
        Config { start: 1, end: 4, max_bytes, holds_any_answer: true, blocks_per_request: 10, max_requests: 2 };
    let mut core = SyncWorker::new(config);
    assert_eq!(core.handle(NOW, Input::Start), [Effect::FetchCommits]);
    assert_eq!(core.handle(NOW, Input::CommitsFetched(Ok(100))), [Effect::CheckCommits]);
    core
}

fn fetched(core: &mut SyncWorker, from: u32, received: u32, failure: Option<Failure>) -> Vec<Effect> {
    core.handle(NOW, Input::BlocksFetched { from, received, bytes: 1_000, ended: true, failure })
}

fn checked(core: &mut SyncWorker, from: u32) -> Vec<Effect> {
    core.handle(NOW, Input::BlocksChecked { from, result: Ok(()) })
}

fn slow() -> Failure {
    Failure { fault: Fault::Slow, reason: "timed out".into(), retry_after: None }
}

fn verified(last: u32) -> Verified {
    let digest = CommitDigest::default();
    Verified {
        first: 1,
        last: CommitRef { index: last, digest },
        previous: digest,
        first_timestamp_ms: 0,
        last_timestamp_ms: 0,
        epoch: 0,
        ends_epoch: false,
        bytes: 1,
        blocks: 1,
    }
}

#[test]
fn blocks_are_asked_for_only_after_the_votes_are_checked_and_two_requests_run_at_once() {
    let mut core = worker(100 * MIB);
    let effects = core.handle(NOW, Input::CommitsChecked(Ok(vec![8, 8, 8, 8])));
    let asked: Vec<_> = effects
        .iter()
        .map(|effect| match effect {
            Effect::FetchBlocks { from, to, .. } => (*from, *to),
            other => panic!("{other:?}"),
        })
        .collect();
    assert_eq!(asked, [(0, 10), (10, 20)]);
    let effects = fetched(&mut core, 0, 10, None);
    assert_eq!(effects[0], Effect::CheckBlocks { from: 0 });
    assert!(matches!(effects[1], Effect::FetchBlocks { from: 20, to: 30, .. }), "the next is fetched meanwhile");
}

#[test]
fn a_whole_range_is_delivered_without_a_shortfall() {
    let mut core = worker(100 * MIB);
    core.handle(NOW, Input::CommitsChecked(Ok(vec![5, 5, 5, 5])));
    fetched(&mut core, 0, 10, None);
    fetched(&mut core, 10, 10, None);
    assert_eq!(checked(&mut core, 10), []);
    assert_eq!(checked(&mut core, 0), [Effect::CheckSubDags { commits: 4 }]);
    let effects = core.handle(NOW, Input::SubDagsChecked(Ok(verified(4))));
    assert_eq!(effects, [Effect::Finish { verified: Some(verified(4)), shortfall: None }]);
}

#[test]
fn what_verified_before_a_failure_is_delivered_with_the_reason() {
    let mut core = worker(100 * MIB);
    core.handle(NOW, Input::CommitsChecked(Ok(vec![5, 5, 5, 5])));
    // The second request brings 3 of 10 blocks: the third commit is not whole.
    fetched(&mut core, 0, 10, None);
    fetched(&mut core, 10, 3, Some(slow()));
    checked(&mut core, 0);
    assert_eq!(checked(&mut core, 10), [Effect::CheckSubDags { commits: 2 }]);
    let effects = core.handle(NOW, Input::SubDagsChecked(Ok(verified(2))));
    let shortfall = Some(Shortfall::Fault { fault: Fault::Slow, reason: "timed out".into(), retry_after: None });
    assert_eq!(effects, [Effect::Finish { verified: Some(verified(2)), shortfall }]);
}

#[test]
fn blocks_that_do_not_verify_end_the_range_before_them() {
    let mut core = worker(100 * MIB);
    core.handle(NOW, Input::CommitsChecked(Ok(vec![5, 5, 5, 5])));
    fetched(&mut core, 0, 10, None);
    fetched(&mut core, 10, 10, None);
    let lie = Failure { fault: Fault::ProvableLie, reason: "wrong block".into(), retry_after: None };
    core.handle(NOW, Input::BlocksChecked { from: 0, result: Err(lie.clone()) });
    let effects = checked(&mut core, 10);
    assert_eq!(effects, [Effect::Finish { verified: None, shortfall: Some(lie.into()) }]);
}

#[test]
fn fewer_commits_than_asked_for_are_a_cut_and_no_fault() {
    let mut core = worker(100 * MIB);
    core.handle(NOW, Input::CommitsChecked(Ok(vec![5, 5])));
    fetched(&mut core, 0, 10, None);
    assert_eq!(checked(&mut core, 0), [Effect::CheckSubDags { commits: 2 }]);
    let effects = core.handle(NOW, Input::SubDagsChecked(Ok(verified(2))));
    assert_eq!(effects, [Effect::Finish { verified: Some(verified(2)), shortfall: Some(Shortfall::Cut) }]);
}

#[test]
fn a_request_that_reached_its_bytes_goes_on_where_it_was_cut_while_the_budget_lasts() {
    let mut core = worker(8 * MIB);
    let effects = core.handle(NOW, Input::CommitsChecked(Ok(vec![5, 5])));
    let [Effect::FetchBlocks { from: 0, to: 10, max_bytes }] = effects[..] else { panic!("{effects:?}") };
    assert_eq!(max_bytes, 8 * MIB - 100, "the only request may have all");
    let bytes = 4 * MIB;
    let effects = core.handle(NOW, Input::BlocksFetched { from: 0, received: 4, bytes, ended: true, failure: None });
    let [Effect::CheckBlocks { from: 0 }, Effect::FetchBlocks { from: 4, to: 10, .. }] = effects[..] else {
        panic!("{effects:?}")
    };
    // What is left does not hold a block any more: the range ends with the first commit.
    core.handle(NOW, Input::BlocksFetched { from: 4, received: 3, bytes: 4 * MIB - 200, ended: true, failure: None });
    checked(&mut core, 0);
    assert_eq!(checked(&mut core, 4), [Effect::CheckSubDags { commits: 1 }]);
}

#[test]
fn blocks_are_checked_as_they_come_and_not_only_when_all_of_a_request_have() {
    let mut core = worker(8 * MIB);
    core.handle(NOW, Input::CommitsChecked(Ok(vec![4, 6])));
    let part = |from, received, ended| Input::BlocksFetched { from, received, bytes: 1_000, ended, failure: None };
    assert_eq!(core.handle(NOW, part(0, 3, false)), [Effect::CheckBlocks { from: 0 }]);
    assert_eq!(checked(&mut core, 0), [], "the request goes on");
    assert_eq!(core.handle(NOW, part(3, 2, false)), [Effect::CheckBlocks { from: 3 }]);
    // The connection ends: what had come is kept.
    let broken = Input::BlocksFetched { from: 5, received: 0, bytes: 0, ended: true, failure: Some(slow()) };
    assert_eq!(core.handle(NOW, broken), [Effect::TellDownloaded], "nothing more comes");
    assert_eq!(checked(&mut core, 3), [Effect::CheckSubDags { commits: 1 }]);
}

#[test]
fn a_block_that_does_not_fit_into_what_is_left_cuts_the_range_before_it_and_blames_nobody() {
    let mut core = worker(MIB);
    core.handle(NOW, Input::CommitsChecked(Ok(vec![1, 1])));
    let effects = core.handle(NOW, Input::BlocksFetched { from: 0, received: 0, bytes: 0, ended: true, failure: None });
    assert_eq!(effects, [Effect::Finish { verified: None, shortfall: Some(Shortfall::Cut) }]);
}

#[test]
fn who_cannot_serve_within_less_than_the_protocol_allows_may_have_the_commits_all_the_same() {
    let missing = || Failure { fault: Fault::DoesNotHave, reason: "not here".into(), retry_after: None };
    for (holds_any_answer, shortfall) in [(false, Shortfall::Cut), (true, missing().into())] {
        let config =
            Config { start: 1, end: 4, max_bytes: MIB, holds_any_answer, blocks_per_request: 10, max_requests: 2 };
        let mut core = SyncWorker::new(config);
        core.handle(NOW, Input::Start);
        let effects = core.handle(NOW, Input::CommitsFetched(Err(missing())));
        assert_eq!(effects, [Effect::Finish { verified: None, shortfall: Some(shortfall) }]);
    }
}

#[test]
fn the_bytes_allowed_to_requests_never_add_up_to_more_than_the_range_may_hold() {
    for budget in [2 * MIB, 3 * MIB, 10 * MIB, 100 * MIB] {
        let mut core = worker(budget);
        let effects = core.handle(NOW, Input::CommitsChecked(Ok(vec![1_000; 4])));
        let allowed: u64 = effects
            .iter()
            .map(|effect| match effect {
                Effect::FetchBlocks { max_bytes, .. } => *max_bytes,
                other => panic!("{other:?}"),
            })
            .sum();
        assert!(allowed + 100 <= budget, "{allowed} of {budget}");
    }
}

#[test]
fn commits_that_are_refused_end_the_range_at_once() {
    let mut core = worker(MIB);
    let other = Shortfall::OtherEpoch { index: 1, found: 3 };
    let effects = core.handle(NOW, Input::CommitsChecked(Err(other.clone())));
    assert_eq!(effects, [Effect::Finish { verified: None, shortfall: Some(other) }]);
}
