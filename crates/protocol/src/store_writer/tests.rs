use super::*;
use std::time::Duration;

const NOW: Now = Now { monotonic: Duration::ZERO, unix_ms: 0 };

#[test]
fn writes_go_one_by_one_in_order_and_a_hanging_disk_gets_no_long_queue() {
    let mut core = StoreWriter::default();
    assert_eq!(core.handle(NOW, Input::Submit { job: 1 }), [Effect::Run(1)]);
    for job in 2..2 + MAX_WAITING as u64 {
        assert_eq!(core.handle(NOW, Input::Submit { job }), []);
    }
    assert_eq!(core.handle(NOW, Input::Submit { job: 99 }), [Effect::Refuse(99)]);
    let failed = Input::Done { job: 1, error: Some("disk full".into()) };
    assert_eq!(core.handle(NOW, failed), [Effect::Run(2)]);
    assert_eq!(core.snapshot().last_error.as_deref(), Some("disk full"));
    assert_eq!(core.handle(NOW, Input::Done { job: 2, error: None }), [Effect::Run(3)]);
    assert_eq!(core.snapshot().last_error, None);
}

const STEP: Result<PruneStep, String> = Ok(PruneStep { lowest_available: 7, is_complete: false });

fn at(seconds: u64) -> Now {
    Now { monotonic: Duration::from_secs(seconds), unix_ms: 0 }
}

#[test]
fn pruning_and_writes_take_turns_and_pruning_goes_on_while_nothing_waits() {
    let mut core = StoreWriter::default();
    assert_eq!(core.handle(NOW, Input::Submit { job: 1 }), [Effect::Run(1)]);
    assert_eq!(core.handle(NOW, Input::Submit { job: 2 }), []);
    assert_eq!(core.handle(NOW, Input::Stored { executor: Some(5) }), []);
    let prune = [Effect::Prune { executor: Some(5), archived: None }];
    assert_eq!(core.handle(NOW, Input::Done { job: 1, error: None }), prune);
    assert_eq!(core.handle(NOW, Input::Submit { job: 3 }), []);
    assert_eq!(core.handle(NOW, Input::Pruned { result: STEP }), [Effect::Run(2)]);
    assert_eq!(core.handle(NOW, Input::Done { job: 2, error: None }), prune);
    assert_eq!(core.handle(NOW, Input::Pruned { result: STEP }), [Effect::Run(3)]);
    assert_eq!(core.handle(NOW, Input::Done { job: 3, error: None }), prune);
    assert_eq!(core.handle(NOW, Input::Pruned { result: STEP }), prune);
    let last = PruneStep { lowest_available: 9, is_complete: true };
    assert_eq!(core.handle(NOW, Input::Pruned { result: Ok(last) }), []);
    assert_eq!(core.snapshot().lowest_available, Some(9));
}

#[test]
fn failed_pruning_is_tried_again_after_the_next_write() {
    let mut core = StoreWriter::default();
    assert_eq!(
        core.handle(NOW, Input::Stored { executor: Some(5) }),
        [Effect::Prune { executor: Some(5), archived: None }]
    );
    assert_eq!(core.handle(NOW, Input::Pruned { result: Err("disk".into()) }), []);
    assert_eq!(core.snapshot().pruning_error.as_deref(), Some("disk"));
    assert_eq!(
        core.handle(NOW, Input::Stored { executor: None }),
        [Effect::Prune { executor: Some(5), archived: None }]
    );
    assert_eq!(core.handle(NOW, Input::Pruned { result: STEP }), [Effect::Prune { executor: Some(5), archived: None }]);
    assert_eq!(core.snapshot().pruning_error, None);
}

#[test]
fn node_waits_for_its_executor_before_it_prunes_but_not_for_ever() {
    let mut core = StoreWriter::default();
    assert_eq!(core.handle(at(10), Input::Stored { executor: None }), []);
    assert_eq!(core.handle(at(69), Input::Stored { executor: None }), []);
    assert_eq!(
        core.handle(at(70), Input::Stored { executor: None }),
        [Effect::Prune { executor: None, archived: None }]
    );
}

#[test]
fn commits_that_the_archive_lacks_are_not_pruned() {
    let mut core = StoreWriter::with_archive();
    let stored = || Input::Stored { executor: Some(500) };
    assert_eq!(core.handle(NOW, stored()), [], "nothing is known of the archive");
    assert_eq!(core.handle(NOW, Input::Archived { next: 101 }), []);
    assert_eq!(core.handle(NOW, stored()), [Effect::Prune { executor: Some(500), archived: Some(101) }]);
    assert_eq!(core.handle(NOW, Input::Archived { next: 901 }), []);
    let last = PruneStep { lowest_available: 101, is_complete: true };
    assert_eq!(core.handle(NOW, Input::Pruned { result: Ok(last) }), []);
    assert_eq!(core.handle(NOW, stored()), [Effect::Prune { executor: Some(500), archived: Some(901) }]);
}
