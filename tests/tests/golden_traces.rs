//! Golden traces: what the nodes of a few small networks once were fed and decided. Every change of a core's decisions
//! shows here first. Only `make bless-traces` writes them, and shows what has changed.

use soma_replay::{Options, Record, Report, Trace, core_names, json, replay};
use soma_testkit::simulation::golden;
use std::collections::BTreeSet;

fn replayed(name: &str) -> (Trace, Report) {
    let path = golden::path(name);
    let trace = Trace::read(&path).unwrap_or_else(|error| panic!("{error}; `make bless-traces` makes it"));
    let report = replay(&trace, &Options::default(), &mut |_| ()).unwrap_or_else(|error| panic!("{name}: {error}"));
    assert!(report.is_identical(), "{name}: {report}\n`make bless-traces` shows the change, if it is meant");
    (trace, report)
}

/// Messages to all actors of this name.
fn messages(report: &Report, actor: &str) -> u64 {
    report.actors.iter().filter(|((_, name), _)| name == actor).map(|(_, figures)| figures.replayed).sum()
}

/// Whether a message of this name was handed to an actor.
fn tells_of(trace: &Trace, actor: &str, message: &str) -> bool {
    json(trace).any(|line| line["actor"] == actor && !line["message"][message].is_null())
}

/// How actors ended, if they did.
fn ends(trace: &Trace) -> Vec<(&str, &str)> {
    let ended = trace.records().filter_map(|record| match record {
        Record::Ended(ended) => Some((ended.name.as_str(), ended.exit.as_str())),
        _ => None,
    });
    ended.collect()
}

#[test]
fn every_golden_trace_replays_as_identical_and_tells_its_story() {
    let mut actors = BTreeSet::new();
    for scenario in golden::scenarios() {
        let (trace, report) = replayed(&scenario.name);
        actors.extend(core_names().filter(|actor| messages(&report, actor) > 0));
        let nodes: BTreeSet<_> = report.actors.keys().map(|(node, _)| node).collect();
        assert_eq!(nodes.len(), scenario.nodes().len(), "{}: {nodes:?}", scenario.name);
        let panics: Vec<_> = ends(&trace).into_iter().filter(|(_, exit)| exit.contains("panicked")).collect();
        let expected = if scenario.name == "worker crash" { 2 } else { 0 };
        assert_eq!(panics.len(), expected, "{}: {panics:?}", scenario.name);
    }
    assert_eq!(actors, core_names().collect(), "every core has its part in some story");
}

#[test]
fn the_lying_peer_is_found_out_and_the_partition_is_noticed() {
    let (lying, _) = replayed("lying peer");
    assert!(tells_of(&lying, "connections", "Ban"), "nobody banned the peer that lies");
    let (partition, _) = replayed("partition and heal");
    let lost = json(&partition).filter(|line| line["message"]["Peer"]["Lost"].is_object()).count();
    assert!(lost > 0, "nobody noticed the partition");
}

#[test]
fn there_is_no_golden_trace_without_its_scenario() {
    let expected: BTreeSet<_> = golden::scenarios().iter().map(|scenario| golden::path(&scenario.name)).collect();
    assert_eq!(golden::files(), expected);
}
