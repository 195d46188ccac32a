use super::*;
use soma_types::BlockDigest;

fn at(ms: u64) -> Now {
    Now { monotonic: Duration::from_millis(ms), unix_ms: 0 }
}

fn core(threads: usize, permits: usize, max_waiting: usize) -> Verifier {
    let batch_delay = Duration::from_millis(1);
    Verifier::new(Config { threads, permits, max_waiting, batch_signatures: 100, batch_delay })
}

fn submit(core: &mut Verifier, job: u64, priority: Priority) -> Vec<Effect> {
    core.handle(at(0), Input::Submit { job, priority })
}

fn checked(core: &mut Verifier, ms: u64, job: u64, signatures: usize) -> Vec<Effect> {
    core.handle(at(ms), Input::Checked { job, signatures })
}

#[test]
fn wanted_jobs_get_permits_first_and_jobs_beyond_the_bound_are_refused() {
    let mut core = core(1, 1, 2);
    assert_eq!(submit(&mut core, 1, Priority::Normal), [Effect::Run(1)]);
    assert_eq!(submit(&mut core, 2, Priority::Normal), []);
    assert_eq!(submit(&mut core, 3, Priority::High), []);
    assert_eq!(submit(&mut core, 4, Priority::High), [Effect::Refuse(4)]);
    assert_eq!(core.handle(at(0), Input::Done { job: 1, panicked: true }), [Effect::Run(3)]);
    assert_eq!(core.handle(at(0), Input::Done { job: 3, panicked: false }), [Effect::Run(2)]);
    let snapshot = core.snapshot();
    assert_eq!((snapshot.done, snapshot.refused, snapshot.panicked), (2, 1, 1));
}

#[test]
fn signatures_with_which_nothing_can_be_joined_are_checked_at_once() {
    let mut core = core(2, 4, 10);
    submit(&mut core, 1, Priority::Normal);
    assert_eq!(checked(&mut core, 0, 1, 3), [Effect::RunBatch { batch: 0, jobs: vec![1] }]);
    core.handle(at(1), Input::BatchDone { batch: 0, panicked: false });
    let snapshot = core.snapshot();
    assert_eq!((snapshot.running, snapshot.waiting, snapshot.done, snapshot.signatures), (0, 0, 1, 3));
}

#[test]
fn signatures_of_several_jobs_are_joined_until_there_are_enough() {
    let mut core = core(1, 4, 10);
    for job in 1..=4 {
        submit(&mut core, job, Priority::Normal);
    }
    assert_eq!(checked(&mut core, 0, 1, 40), []);
    assert_eq!(checked(&mut core, 0, 2, 40), []);
    assert_eq!(checked(&mut core, 0, 3, 40), [Effect::RunBatch { batch: 0, jobs: vec![1, 2, 3] }]);
    // The only thread is busy with the batch, so that a wait costs nothing.
    assert_eq!((checked(&mut core, 0, 4, 40), core.next_wake()), (vec![], None));
    let effects = core.handle(at(5), Input::BatchDone { batch: 0, panicked: false });
    assert_eq!(effects, [Effect::RunBatch { batch: 1, jobs: vec![4] }]);
}

#[test]
fn idle_thread_waits_for_more_signatures_no_longer_than_the_delay() {
    let mut core = core(2, 4, 10);
    submit(&mut core, 1, Priority::Normal);
    submit(&mut core, 2, Priority::Normal);
    assert_eq!(checked(&mut core, 0, 1, 40), [], "the other one may bring more");
    assert_eq!(core.next_wake(), Some(Duration::from_millis(1)));
    assert_eq!(core.handle(at(1), Input::Wake), [Effect::RunBatch { batch: 0, jobs: vec![1] }]);
    assert_eq!(core.next_wake(), None);
}

#[test]
fn slow_job_gives_back_its_permit_and_is_shown_until_it_ends() {
    let mut core = core(1, 1, 10);
    for job in [1, 2] {
        submit(&mut core, job, Priority::Normal);
    }
    let block = BlockRef { epoch: 0, round: 1, author: 2, digest: BlockDigest([3; 32]) };
    let at = |position| Some(TransactionPlace { block, position });
    let now = Now { monotonic: Duration::from_secs(60), unix_ms: 7 };
    assert_eq!(core.handle(now, Input::Slow { job: 1, at: at(3) }), [Effect::Run(2)]);
    core.handle(now, Input::Slow { job: 1, at: at(4) });
    assert_eq!(core.snapshot().slow, [SlowCheck { at: at(4), noticed_ms: 7 }]);
    assert!(at(4).unwrap().to_string().starts_with("transaction 4 of block e0r1a2:"));
    // Its verdict counts.
    checked(&mut core, 61_000, 1, 5);
    core.handle(now, Input::Done { job: 2, panicked: false });
    assert_eq!((core.snapshot().slow, core.snapshot().batches), (vec![], 1));
    core.handle(now, Input::Slow { job: 1, at: None });
    assert_eq!(core.snapshot().slow, [], "it has ended");
}

#[test]
fn a_batch_that_panics_costs_its_own_jobs() {
    let mut core = core(1, 1, 10);
    submit(&mut core, 1, Priority::Normal);
    checked(&mut core, 0, 1, 1);
    submit(&mut core, 2, Priority::Normal);
    assert_eq!(core.handle(at(0), Input::BatchDone { batch: 0, panicked: true }), [Effect::Run(2)]);
    assert_eq!((core.snapshot().done, core.snapshot().panicked), (1, 1));
}
