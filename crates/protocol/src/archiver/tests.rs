use super::*;

fn at(seconds: u64) -> Now {
    Now { monotonic: Duration::from_secs(seconds), unix_ms: 1_000 * seconds }
}

fn config() -> Config {
    Config {
        place: "s3://history".into(),
        writes: true,
        max_bytes_per_second: 0,
        segment_commits: 1_000,
        segment_bytes: 16 << 20,
    }
}

fn located(config: Config, highest: CommitIndex, next: CommitIndex) -> Archiver {
    let mut core = Archiver::new(config, highest);
    assert_eq!(core.handle(at(0), Input::Wake), [Effect::Locate]);
    let effects = core.handle(at(0), Input::Located { result: Ok(next) });
    assert_eq!(effects, [Effect::Archived { next }, Effect::Write { first: next }]);
    core
}

fn segment(last: CommitIndex, bytes: u64) -> Input {
    Input::Written { result: Ok(Written::Segment { last, bytes, is_new: true }) }
}

const NOT_YET: Input = Input::Written { result: Ok(Written::NotYet) };

fn durable(highest: CommitIndex, bytes: u64, ended: Option<CommitIndex>) -> Input {
    Input::Durable { highest, bytes, ended }
}

#[test]
fn backlog_is_written_segment_after_segment_and_told_after_each() {
    let mut core = located(config(), 2_500, 1);
    for next in [1_001, 2_001] {
        let effects = core.handle(at(1), segment(next - 1, 500));
        assert_eq!(effects, [Effect::Archived { next }, Effect::Write { first: next }]);
    }
    assert_eq!(core.handle(at(2), NOT_YET), []);
    let snapshot = core.snapshot();
    assert_eq!((snapshot.state, snapshot.next, snapshot.behind), (State::UpToDate, Some(2_001), Some(500)));
    assert_eq!((snapshot.segments_written, snapshot.bytes_written), (2, 1_000));
    assert_eq!(core.next_wake(), None, "it waits for commits, not for time");
}

#[test]
fn segment_is_tried_once_its_commits_its_bytes_or_its_epoch_are_complete() {
    let told = |next| vec![Effect::Archived { next }];
    let tried = |next| vec![Effect::Archived { next }, Effect::Write { first: next }];
    let mut core = located(config(), 100, 1);
    core.handle(at(0), NOT_YET);
    assert_eq!(core.handle(at(1), durable(999, 0, None)), told(1));
    assert_eq!(core.handle(at(1), durable(1_000, 0, None)), tried(1), "enough commits");
    core.handle(at(1), segment(1_000, 1));
    core.handle(at(1), NOT_YET);
    assert_eq!(core.handle(at(2), durable(1_001, (16 << 20) - 1, None)), told(1_001));
    assert_eq!(core.handle(at(2), durable(1_002, 1, None)), tried(1_001), "enough bytes");
    core.handle(at(2), segment(1_001, 1));
    core.handle(at(2), NOT_YET);
    assert_eq!(core.handle(at(3), durable(1_003, 1, Some(1_001))), told(1_002), "that epoch is archived");
    assert_eq!(core.handle(at(3), durable(1_004, 1, Some(1_004))), tried(1_002), "the epoch has ended");
}

#[test]
fn failure_is_shown_since_its_first_time_and_retried_with_backoff() {
    let mut core = located(config(), 2_000, 1);
    let failed = |reason: &str| Input::Written { result: Err(reason.into()) };
    assert_eq!(core.handle(at(10), failed("503")), []);
    assert_eq!(core.next_wake(), Some(at(11).monotonic));
    assert_eq!(core.handle(at(11), Input::Wake), [Effect::Locate], "the archive may have changed");
    assert_eq!(core.handle(at(12), Input::Located { result: Err("504".into()) }), []);
    assert!(core.next_wake() > Some(at(13).monotonic), "the wait grows");
    let failure = Failure { reason: "504".into(), since_ms: 10_000, attempts: 2 };
    assert_eq!((core.snapshot().state, core.snapshot().failure), (State::Failing, Some(failure)));
    assert_eq!(core.handle(at(100), Input::Wake), [Effect::Locate]);
    core.handle(at(100), Input::Located { result: Ok(1) });
    assert_eq!((core.snapshot().state, core.snapshot().failure), (State::Writing, None));
}

#[test]
fn writer_that_was_slower_than_another_looks_how_far_that_one_is() {
    let mut core = located(config(), 9_000, 1);
    let exists = Input::Written { result: Ok(Written::Segment { last: 1_000, bytes: 5, is_new: false }) };
    assert_eq!(core.handle(at(1), exists), [Effect::Archived { next: 1_001 }, Effect::Locate]);
    let effects = core.handle(at(1), Input::Located { result: Ok(8_001) });
    assert_eq!(effects, [Effect::Archived { next: 8_001 }, Effect::Write { first: 8_001 }]);
    assert_eq!(core.snapshot().segments_written, 0);
}

#[test]
fn bandwidth_limit_spreads_segments_over_time() {
    let mut core = located(Config { max_bytes_per_second: 1_000, ..config() }, 9_000, 1);
    // 5,000 bytes take five seconds, of which writing took two.
    assert_eq!(core.handle(at(2), segment(1_000, 5_000)), [Effect::Archived { next: 1_001 }]);
    assert_eq!(core.next_wake(), Some(at(5).monotonic));
    assert_eq!(core.handle(at(5), Input::Wake), [Effect::Write { first: 1_001 }]);
}

#[test]
fn node_that_only_reads_writes_nothing() {
    let mut core = Archiver::new(Config { writes: false, ..config() }, 5);
    assert_eq!(core.handle(at(1), Input::Wake), []);
    assert_eq!(core.handle(at(1), durable(9_000, 1 << 30, Some(9_000))), []);
    assert_eq!((core.next_wake(), core.snapshot().state), (None, State::Off));
}

#[test]
fn reads_are_bounded_and_run_in_order() {
    let mut core = Archiver::new(Config { writes: false, ..config() }, 5);
    let runs = MAX_READS as u64;
    for job in 0..runs {
        assert_eq!(core.handle(at(0), Input::Read { job }), [Effect::Run(job)]);
    }
    let waits = runs + MAX_WAITING as u64;
    for job in runs..waits {
        assert_eq!(core.handle(at(0), Input::Read { job }), []);
    }
    assert_eq!(core.handle(at(0), Input::Read { job: waits }), [Effect::Refuse(waits)]);
    let done = Input::ReadDone { job: 3, bytes: 7, error: None };
    assert_eq!(core.handle(at(0), done.clone()), [Effect::Run(runs)]);
    assert_eq!(core.handle(at(0), done), [], "a second end frees nothing");
    let failed = Input::ReadDone { job: 4, bytes: 0, error: Some("cut".into()) };
    assert_eq!(core.handle(at(7), failed), [Effect::Run(runs + 1)]);
    let snapshot = core.snapshot();
    assert_eq!((snapshot.segments_read, snapshot.bytes_read), (1, 7));
    assert_eq!(snapshot.read_failure.map(|failure| failure.since_ms), Some(7_000));
}
