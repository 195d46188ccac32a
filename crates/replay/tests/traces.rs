//! Recording and replaying of real cores.

use proptest::prelude::*;
use soma_protocol::{
    Core, Now, peer_heights,
    state_sync::{self, StateSync, Tip},
    store_writer::{self, StoreWriter},
};
use soma_replay::{
    Decision, Difference, Header, Item, Options, Origin, Record, Recorder, Report, RingConfig, Trace, TraceWriter,
    Track, json, replay,
};
use soma_types::{CommitDigest, CommitRef, PeerId};
use std::{fs, path::Path, time::Duration};
use tempfile::TempDir;

fn target(highest: u32) -> state_sync::Input {
    state_sync::Input::Target(peer_heights::Target { highest, proven: 0, doubt: None })
}

fn at(ms: u64) -> Now {
    Now { monotonic: Duration::from_millis(ms), unix_ms: 1_000 + ms }
}

fn state_sync() -> StateSync {
    let genesis = CommitRef { index: 0, digest: CommitDigest([0; 32]) };
    StateSync::new(state_sync::Config::default(), Tip { commit: genesis, timestamp_ms: 0, next_epoch: 0 })
}

/// A core that is recorded.
struct Recorded<C> {
    core: C,
    track: Track,
    time: u64,
}

impl<C: Core> Recorded<C> {
    fn new(core: C, recorder: &Recorder) -> Self {
        Self { core, track: recorder.track::<C>().expect("all cores are recorded"), time: 0 }
    }

    fn feed(&mut self, origin: Origin, input: C::Input) -> (Origin, Vec<C::Effect>) {
        self.time += 1;
        let (cause, effects) = self.track.handle(&mut self.core, at(self.time), origin, input);
        (Origin { cause: Some(cause), ..Origin::root(C::NAME) }, effects)
    }
}

/// StateSync gets a target, plans `ranges` ranges, and gets failures to find a peer for them.
fn story(recorder: &Recorder, ranges: u32, failures: u64) {
    let mut sync = Recorded::new(state_sync(), recorder);
    let (mut origin, effects) = sync.feed(Origin::root("peer-heights"), target(ranges * 100));
    let keys: Vec<_> = effects.iter().filter_map(picked).collect();
    assert!(!keys.is_empty());
    for failure in 0..failures {
        let key = keys[failure as usize % keys.len()];
        let peer =
            if failure % 2 == 0 { Ok(PeerId([7; 32])) } else { Err(soma_protocol::peer_heights::NoPeer::NotConnected) };
        origin = sync.feed(Origin { sender: "peer-heights", ..origin }, state_sync::Input::Picked { key, peer }).0;
    }
}

fn picked(effect: &state_sync::Effect) -> Option<state_sync::RangeKey> {
    match effect {
        state_sync::Effect::Pick { key, .. } => Some(*key),
        _ => None,
    }
}

/// The story as the bytes of a trace.
fn recorded_story() -> Vec<u8> {
    let (recorder, mut trace) = Recorder::in_memory(1);
    story(&recorder, 4, 40);
    trace.bytes().to_vec()
}

fn run(trace: &Trace) -> Report {
    replay(trace, &Options::default(), &mut |_| ()).expect("records of this version")
}

fn header() -> Header {
    Header { software: "test".into(), run: 1, file: 0 }
}

fn figures<'r>(report: &'r Report, name: &str) -> &'r soma_replay::ActorReport {
    &report.actors[&(String::new(), name.to_owned())]
}

#[test]
fn recorded_messages_replay_as_identical_and_all_are_counted() {
    let trace = Trace::from_bytes(&recorded_story()).unwrap();
    let report = run(&trace);
    assert!(report.is_identical(), "{report}");
    assert_eq!(figures(&report, "state-sync").replayed, 41);
    assert_eq!(figures(&report, "state-sync").incarnations, 1);
    assert!(report.to_string().starts_with("identical: 41 messages of 1 actors in 1 incarnations"), "{report}");
}

#[test]
fn changed_decision_is_reported_with_its_causal_chain() {
    let trace = Trace::from_bytes(&recorded_story()).unwrap();
    let mut records: Vec<Record> = trace.records().cloned().collect();
    let changed = records.iter_mut().rev().find_map(|record| match record {
        Record::Entry(entry) => Some(entry),
        _ => None,
    });
    let changed = changed.unwrap();
    let Decision::Effects { digest, .. } = &mut changed.decision else { panic!("{changed:?}") };
    digest.0[0] ^= 1;
    let number = changed.number;
    let report = run(&Trace::from_bytes(&Trace::write(&header(), &records)).unwrap());
    let divergence = report.divergence.as_ref().expect("a divergence");
    assert_eq!((divergence.record, divergence.actor.as_str()), (number, "state-sync"));
    assert_eq!(divergence.chain.len(), 20, "{report}");
    assert!(divergence.chain[19].contains("Picked"), "{report}");
    assert!(!report.is_identical());
}

#[test]
fn changed_message_is_reported_at_the_first_different_decision() {
    let trace = Trace::from_bytes(&recorded_story()).unwrap();
    let mut records: Vec<Record> = trace.records().cloned().collect();
    // Replace the target by the other story's.
    let (recorder, mut other) = Recorder::in_memory(1);
    story(&recorder, 1, 0);
    let other = Trace::from_bytes(other.bytes()).unwrap();
    let input_of = |records: &[Record]| {
        records.iter().find_map(|record| match record {
            Record::Entry(entry) => Some((entry.number, entry.input.clone())),
            _ => None,
        })
    };
    let (number, _) = input_of(&records).unwrap();
    let (_, input) = input_of(&other.records().cloned().collect::<Vec<_>>()).unwrap();
    for record in &mut records {
        if let Record::Entry(entry) = record
            && entry.number == number
        {
            entry.input = input.clone();
        }
    }
    let report = run(&Trace::from_bytes(&Trace::write(&header(), &records)).unwrap());
    let divergence = report.divergence.expect("a divergence");
    assert_eq!(divergence.record, number);
    let Difference::Decision { message, expected, got } = &divergence.difference else { panic!("{divergence}") };
    assert_eq!(message["Target"]["highest"], 100);
    assert!(expected.as_array().unwrap().len() > got.as_array().unwrap().len(), "{divergence}");
}

#[test]
fn bit_flip_on_disk_is_found_and_its_record_named() {
    let mut bytes = recorded_story();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 0x10;
    let report = run(&Trace::from_bytes(&bytes).unwrap());
    assert!(!report.is_identical());
    let text = report.to_string();
    assert!(text.contains("was changed after it was written"), "{text}");
    assert!(text.contains("#") && text.contains(" of state-sync "), "{text}");
}

#[test]
fn change_of_any_byte_before_the_last_record_is_found() {
    let bytes = recorded_story();
    let torn = Trace::from_bytes(&bytes[..bytes.len() - 1]).unwrap();
    let Some(Item::Torn { bytes: last, .. }) = torn.items.last() else { panic!("a torn end") };
    for place in (0..bytes.len() - last - 1).step_by(3) {
        let mut changed = bytes.clone();
        changed[place] ^= 0x10;
        let found = Trace::from_bytes(&changed).map_or(true, |trace| !run(&trace).is_identical());
        assert!(found, "the change of byte {place} of {}", bytes.len());
    }
}

#[test]
fn torn_end_loses_only_the_last_record() {
    let bytes = recorded_story();
    let whole = Trace::from_bytes(&bytes).unwrap().records().count();
    for cut in 1..20 {
        let trace = Trace::from_bytes(&bytes[..bytes.len() - cut]).unwrap();
        assert_eq!(trace.records().count(), whole - 1, "{cut} bytes cut");
        assert!(matches!(trace.items.last(), Some(Item::Torn { .. })));
        let report = run(&trace);
        assert!(report.is_identical() && report.torn.len() == 1, "{report}");
    }
}

#[test]
fn restart_is_replayed_as_a_restart() {
    let (recorder, mut trace) = Recorder::in_memory(1);
    let mut first = Recorded::new(StoreWriter::default(), &recorder);
    first.feed(Origin::root("state-sync"), store_writer::Input::Submit { job: 1 });
    recorder.ended(StoreWriter::NAME, at(2), &"panicked: on purpose");
    let mut second = Recorded::new(StoreWriter::default(), &recorder);
    // For the first incarnation this would be a second job, which waits.
    let (_, effects) = second.feed(Origin::root("state-sync"), store_writer::Input::Submit { job: 1 });
    assert_eq!(effects, [store_writer::Effect::Run(1)]);
    let report = run(&Trace::from_bytes(trace.bytes()).unwrap());
    assert!(report.is_identical(), "{report}");
    assert_eq!(figures(&report, "store-writer").incarnations, 2);
}

#[test]
fn messages_of_several_nodes_are_told_apart() {
    let (recorder, mut trace) = Recorder::in_memory(1);
    for node in ["north", "south"] {
        story(&recorder.for_node(node), 1, 3);
    }
    let trace = Trace::from_bytes(trace.bytes()).unwrap();
    let only = Options { actor: Some("south/state-sync".into()), until: None };
    let report = replay(&trace, &only, &mut |step| assert_eq!(step.node, "south")).unwrap();
    let replayed: Vec<_> = report.actors.iter().map(|((node, _), actor)| (node.as_str(), actor.replayed)).collect();
    assert_eq!(replayed, [("south", 4)]);
}

#[test]
fn replay_stops_after_the_requested_record_and_shows_states() {
    let trace = Trace::from_bytes(&recorded_story()).unwrap();
    let until = Options { actor: None, until: Some(10) };
    let mut last = 0;
    let report = replay(&trace, &until, &mut |step| last = step.entry.number).unwrap();
    assert_eq!(last, 10);
    let state = figures(&report, "state-sync").state.as_ref().expect("a state");
    assert_eq!(state["target"], 400);
}

#[test]
fn every_record_is_shown_as_one_json_object_with_its_cause() {
    let trace = Trace::from_bytes(&recorded_story()).unwrap();
    let lines: Vec<_> = json(&trace).collect();
    assert_eq!(lines.len(), trace.items.len());
    let last = lines.last().unwrap();
    assert_eq!(last["actor"], "state-sync");
    assert_eq!(last["sender"], "peer-heights");
    assert_eq!(last["cause"], last["record"].as_u64().unwrap() - 1);
    assert_eq!(last["span"], 1);
    assert!(last["message"]["Picked"].is_object(), "{last}");
}

fn record_into(directory: &Path, max_bytes: u64, tell: impl FnOnce(&Recorder)) {
    let config = RingConfig { directory: directory.into(), max_bytes, only: Vec::new() };
    let (recorder, writer) = TraceWriter::start(config).unwrap();
    tell(&recorder);
    writer.finish();
}

fn bytes_in(directory: &Path) -> u64 {
    fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().metadata().unwrap().len()).sum()
}

#[test]
fn finished_trace_on_disk_is_complete() {
    let dir = TempDir::new().unwrap();
    record_into(dir.path(), 1 << 20, |recorder| story(recorder, 4, 40));
    let report = run(&Trace::read(dir.path()).unwrap());
    assert!(report.is_identical(), "{report}");
    assert_eq!(figures(&report, "state-sync").replayed, 41);
}

#[test]
fn two_runs_in_one_directory_are_replayed_in_order() {
    let dir = TempDir::new().unwrap();
    for _ in 0..2 {
        record_into(dir.path(), 1 << 20, |recorder| story(recorder, 4, 40));
    }
    let report = run(&Trace::read(dir.path()).unwrap());
    assert!(report.is_identical(), "{report}");
    assert_eq!(figures(&report, "state-sync").replayed, 82);
}

#[test]
fn ring_keeps_its_size_and_the_remaining_files_replay() {
    const MAX: u64 = 64 << 10;
    let dir = TempDir::new().unwrap();
    fs::write(dir.path().join("mine.trace"), [0; 100]).unwrap();
    record_into(dir.path(), MAX, |recorder| {
        for _ in 0..20 {
            story(recorder, 4, 100);
        }
    });
    assert!(bytes_in(dir.path()) <= MAX + MAX / 4, "{} bytes", bytes_in(dir.path()));
    assert!(dir.path().join("mine.trace").exists(), "the ring dropped a file that is not its own");
    let trace = Trace::read(dir.path()).unwrap();
    let first = trace.records().next().unwrap().number();
    assert!(first > 0, "nothing was dropped");
    let report = run(&trace);
    assert!(report.is_identical(), "{report}");
    assert!(figures(&report, "state-sync").replayed > 0, "{report}");
}

#[test]
fn missed_records_are_counted_as_a_gap_and_replay_continues_after_it() {
    let dir = TempDir::new().unwrap();
    record_into(dir.path(), 1 << 20, |recorder| {
        let mut sync = Recorded::new(state_sync(), recorder);
        sync.feed(Origin::root("test"), target(100));
        // Longer than the whole queue.
        let reason = "x".repeat(9 << 20);
        sync.feed(Origin::root("test"), state_sync::Input::WorkerFailed { key: state_sync::RangeKey(0), reason });
        sync.feed(Origin::root("test"), target(200));
    });
    let report = run(&Trace::read(dir.path()).unwrap());
    assert!(report.is_identical(), "{report}");
    let sync = figures(&report, "state-sync");
    assert_eq!((sync.replayed, sync.missed, sync.incarnations), (2, 1, 1));
    assert!(report.to_string().contains("1 missed by the recorder"), "{report}");
}

#[test]
fn unwritable_directory_is_an_error_at_the_start() {
    let dir = TempDir::new().unwrap();
    let file = dir.path().join("file");
    fs::write(&file, b"").unwrap();
    let config = RingConfig { directory: file, max_bytes: 1 << 20, only: Vec::new() };
    assert!(TraceWriter::start(config).is_err());
}

#[test]
fn only_the_selected_actors_are_recorded() {
    let dir = TempDir::new().unwrap();
    let config = RingConfig { directory: dir.path().into(), max_bytes: 1 << 20, only: vec!["verifier".into()] };
    let (recorder, writer) = TraceWriter::start(config).unwrap();
    assert!(recorder.track::<StateSync>().is_none());
    assert!(recorder.track::<soma_protocol::verifier::Verifier>().is_some());
    recorder.ended(StateSync::NAME, at(0), &"stopped");
    writer.finish();
    assert_eq!(Trace::read(dir.path()).unwrap().records().count(), 0);
}

#[test]
fn file_that_is_no_trace_is_refused_with_the_reason() {
    let dir = TempDir::new().unwrap();
    let refused = |path: &Path| Trace::read(path).unwrap_err().to_string();
    assert!(refused(&dir.path().join("nowhere")).contains("nowhere"));
    assert!(refused(dir.path()).contains("no trace files"));
    let file = dir.path().join("notes.txt");
    fs::write(&file, b"these are notes, no trace, and quite a few bytes of them, so that it cannot be a torn header")
        .unwrap();
    assert!(refused(&file).contains("not a trace"));
    let mut other = recorded_story();
    other[8] = 99;
    fs::write(&file, other).unwrap();
    assert!(refused(&file).contains("format version 99"));
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 256, ..ProptestConfig::default() })]

    #[test]
    fn damaged_trace_is_read_and_replayed_without_a_panic(
        flips in prop::collection::vec((any::<prop::sample::Index>(), 1u8..), 1..4),
        cut in any::<prop::sample::Index>(),
    ) {
        let mut bytes = recorded_story();
        let cut = cut.index(bytes.len()) + 1;
        for (place, mask) in flips {
            let place = place.index(bytes.len());
            bytes[place] ^= mask;
        }
        for bytes in [&bytes[..], &bytes[..cut]] {
            if let Ok(trace) = Trace::from_bytes(bytes) {
                let _ = replay(&trace, &Options::default(), &mut |_| ());
                let _ = json(&trace).count();
            }
        }
    }
}

#[test]
fn greatest_file_number_and_overflowing_gaps_are_read_and_replayed() {
    // A forged trace once overflowed both the next file's number and the sum of missed messages.
    let header = Header { file: u64::MAX, ..header() };
    let recorded = Trace::from_bytes(&recorded_story()).unwrap();
    let state = recorded.records().next().unwrap().clone();
    let Record::State(first) = &state else { panic!("a trace begins with a state") };
    let gap = |number| Record::Gap(soma_replay::Gap { number, actor: first.actor, missed: u64::MAX });
    let bytes = Trace::write(&header, [&state, &gap(1), &gap(2)]);
    let trace = Trace::from_bytes(&bytes).unwrap();
    assert_eq!(trace.records().count(), 3);
    assert_eq!(figures(&run(&trace), "state-sync").missed, u64::MAX);
}
