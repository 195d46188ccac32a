//! Scenarios out of nothing but a seed, in which every limit is hit sooner or later.

use crate::{
    hostile::Behaviour,
    simulation::{
        event::{ActorFault, DiskFault, DiskOperation, Event},
        names::{NodeName, full, millis, secs, validator},
        report::Report,
        scenario::{Scenario, Topology},
    },
};
use rand::{RngExt, SeedableRng, seq::IndexedRandom};
use rand_chacha::ChaCha8Rng;
use std::time::Duration;

/// Nodes that are against one.
const HOSTILE_NODES: u32 = 9;

/// Faults begin within this time of the start.
const FAULTS_UNTIL_MS: u64 = 20_000;

/// Longest time of a temporary fault: longer than connections survive without an answer.
const FAULT_MS: u64 = 40_000;

/// How long an actor dawdles at most: less than it may give no sign of life.
const ACTOR_DELAY_MS: u64 = 6_000;

/// Actors that can be made to fail, each with inputs that it gets in the course of a sync.
const FAILING: &[(&str, &str)] = &[
    ("sync-worker", "CommitsFetched"),
    ("sync-worker", "BlocksFetched"),
    ("sync-worker", "SubDagsChecked"),
    ("state-sync", "Picked"),
    ("state-sync", "WorkerDone"),
    ("state-sync", "Written"),
    ("peer-heights", "Pick"),
    ("peer-heights", "Queried"),
    ("peer-heights", "Report"),
    ("verifier", "Submit"),
    ("verifier", "Checked"),
    ("verifier", "BatchDone"),
    ("store-writer", "Submit"),
    ("store-writer", "Done"),
    ("connections", "Dialled"),
    ("connections", "Inbound"),
    ("discovery", "Answered"),
    ("discovery", "Asked"),
    ("grpc-adapter", "Arrived"),
];

/// The scenario that `seed` makes.
pub fn scenario(seed: u64) -> Scenario {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let topologies = [Topology::KnowValidators, Topology::KnowFirst, Topology::Chain];
    let mut scenario = Scenario::named(&format!("random {seed}"))
        .validators(*[4, 4, 4, 7].choose(&mut rng).unwrap_or(&4))
        .full_nodes(rng.random_range(1..=4))
        .topology(*topologies.choose(&mut rng).unwrap_or(&Topology::KnowValidators))
        .commits(rng.random_range(20..=150))
        .commits_per_epoch(*[2, 7, 20, 50, 500].choose(&mut rng).unwrap_or(&500))
        .latency(latency(&mut rng))
        .synced_within(secs(300));
    if rng.random_ratio(1, 2) {
        scenario.live_commits = rng.random_range(1..=scenario.commits);
        scenario.commit_interval = millis(rng.random_range(50..=500));
    }
    limits(&mut scenario, &mut rng);
    if rng.random_ratio(1, 3) {
        scenario.loss_percent = f64::from(rng.random_range(1..=50_u32)) / 10.0;
        // Every message that is lost costs a whole timeout, and nothing is sent again below the calls as TCP would.
        // With the usual timeout that is half a minute each. With a request for each block no range is ever served
        // without a fault, and peers are given pauses of up to a minute although each of them serves a part.
        scenario.settings.insert("state_sync.request_timeout".into(), "2s".into());
        scenario.settings.remove("state_sync.blocks_per_fetch");
        scenario.synced_within = secs(900);
    }
    for _ in 0..rng.random_range(0..=5) {
        fault(&mut scenario, &mut rng);
    }
    scenario.events.sort_by_key(|(time, _)| *time);
    if rng.random_ratio(1, 3) {
        scenario.messages = Some(millis(rng.random_range(200..=2_000)));
    }
    if rng.random_ratio(1, 3) {
        scenario.objects = Some(millis(rng.random_range(200..=2_000)));
        // So many calls for objects leave no place for a sync at a node that serves one or two calls at a time.
        scenario.settings.remove("serving.max_calls");
        scenario.settings.remove("serving.max_calls_per_peer");
    }
    scenario
}

/// One honest node has a chain, nine hostile ones say that they do, each in its own way, and a node begins with
/// nothing: it gets the whole chain, and the honest node keeps its full score.
pub fn hostile(seed: u64) -> Scenario {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let mut scenario = Scenario::named(&format!("hostile {seed}"))
        .topology(Topology::FullNodesKnowValidators)
        .validators(1 + HOSTILE_NODES)
        .committee(4)
        .full_nodes(1)
        .commits(24)
        .commits_per_epoch(rng.random_range(5..=10))
        .latency(latency(&mut rng))
        .set("state_sync.commits_per_fetch", rng.random_range(3..=8_u32))
        .set("discovery.interval", "10s")
        .set("state_sync.request_timeout", "2s")
        .messages(secs(1))
        .objects(secs(1))
        .synced_within(secs(120));
    for number in 1..=HOSTILE_NODES {
        if let Some(behaviour) = Behaviour::ALL.choose(&mut rng) {
            scenario.events.push((Duration::ZERO, Event::Hostile(validator(number), *behaviour)));
        }
    }
    scenario
}

/// Behaviours of peers that are asked and bring nothing, or next to nothing.
const SILENT: [Behaviour; 4] =
    [Behaviour::ClaimsInSilence, Behaviour::NeverAnswers, Behaviour::NeverFinishes, Behaviour::DribblesBytes];

/// The longest time that a message is on its way in [`silent_majority`].
const LONGEST_LINK: Duration = millis(40);

/// The longest time that all messages of a commit are on their way there: a peer tells of it; commits and blocks are
/// asked for, and come.
pub const LINK_DELAYS: Duration = millis(5 * 40);

/// When the first peers fall silent there.
const SILENT_FROM: Duration = secs(2);

/// A node follows the chain at 10 commits a second, and of its 29 peers 20 fall silent, at once or one after the other.
pub fn silent_majority(seed: u64) -> Scenario {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let mut scenario = Scenario::named(&format!("silent {seed}"))
        .topology(Topology::FullNodesKnowValidators)
        .validators(29)
        .committee(4)
        .full_nodes(1)
        .commits(45)
        .live(40, millis(100))
        .latency(millis(5)..LONGEST_LINK)
        .set("discovery.target_connections", 29)
        // Enough for the one that follows; the others need not all know each other.
        .set("discovery.max_peers_in_answer", 1);
    let one_by_one = rng.random_ratio(1, 2);
    for number in 9..29 {
        if let Some(behaviour) = SILENT.choose(&mut rng) {
            let later = if one_by_one { millis(rng.random_range(0..1_500)) } else { Duration::ZERO };
            scenario.events.push((SILENT_FROM + later, Event::Hostile(validator(number), *behaviour)));
        }
    }
    scenario
}

/// A node begins with nothing among 29 peers, of which 20 are silent from the start.
pub fn fresh_among_silent(seed: u64) -> Scenario {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let mut scenario = Scenario::named(&format!("fresh among silent {seed}"))
        .topology(Topology::FullNodesKnowValidators)
        .validators(29)
        .committee(4)
        .full_nodes(1)
        .commits(2_000)
        .latency(millis(5)..LONGEST_LINK)
        // The network has no bandwidth: so a sync takes many round trips all the same.
        .set("state_sync.commits_per_fetch", 5)
        .set("state_sync.max_workers", 2)
        .set("discovery.target_connections", 29)
        .set("discovery.max_peers_in_answer", 1);
    for number in 9..29 {
        if let Some(behaviour) = SILENT.choose(&mut rng) {
            scenario.events.push((Duration::ZERO, Event::Hostile(validator(number), *behaviour)));
        }
    }
    scenario
}

/// How late the commits were at the node that were made from when the first peers fell silent in [`silent_majority`].
pub fn delays_under_attack(report: &Report, node: NodeName) -> Vec<Duration> {
    let before = (SILENT_FROM.as_millis() / 100) as usize;
    report.delays.get(&node).map_or_else(Vec::new, |delays| delays.iter().skip(before).copied().collect())
}

fn latency(rng: &mut ChaCha8Rng) -> std::ops::Range<Duration> {
    let min = rng.random_range(0..=100);
    millis(min)..millis(min + rng.random_range(1..=150))
}

/// Some settings, most of them at their minimum.
fn limits(scenario: &mut Scenario, rng: &mut ChaCha8Rng) {
    // A range's share that holds the largest commit: the smallest budget that a node accepts.
    let smallest_budget = 28 << 20;
    let numbers: &[(&str, &[u64])] = &[
        ("state_sync.commits_per_fetch", &[1, 2, 7, 20]),
        ("state_sync.blocks_per_fetch", &[1, 3, 10]),
        ("state_sync.max_workers", &[1, 2, 16]),
        ("mailbox_capacity", &[1, 2, 5]),
        ("state_sync.synced_commit_channel_capacity", &[1, 3]),
        ("state_sync.bytes_per_range", &[smallest_budget]),
        ("state_sync.bytes_in_flight", &[smallest_budget * 2, smallest_budget * 3]),
        ("serving.max_calls_per_peer", &[1, 2]),
        ("serving.max_calls", &[1, 2, 8]),
        ("connections.max_dials", &[1, 2]),
        ("discovery.peers_to_query", &[1]),
        ("discovery.max_peers_in_answer", &[1, 2]),
    ];
    for (key, values) in numbers {
        if rng.random_ratio(1, 4)
            && let Some(value) = values.choose(rng)
        {
            scenario.settings.insert((*key).into(), (*value).into());
        }
    }
    if rng.random_ratio(1, 4) {
        let outbound = rng.random_range(1..=3_u64);
        scenario.settings.insert("connections.max_outbound".into(), outbound.into());
        scenario.settings.insert("discovery.target_connections".into(), rng.random_range(1..=outbound).into());
    }
    let times: &[(&str, &[&str])] = &[
        ("discovery.interval", &["200ms", "1s", "10s"]),
        ("discovery.query_timeout", &["1s"]),
        ("state_sync.height_query_interval", &["100ms", "1s", "10s"]),
        ("state_sync.wait_when_no_peer", &["10ms", "100ms"]),
        ("state_sync.request_timeout", &["2s", "5s"]),
        ("connections.connect_timeout", &["2s"]),
    ];
    for (key, values) in times {
        if rng.random_ratio(1, 3)
            && let Some(value) = values.choose(rng)
        {
            scenario.settings.insert((*key).into(), (*value).into());
        }
    }
}

/// One thing that goes wrong, and its end where it has one.
fn fault(scenario: &mut Scenario, rng: &mut ChaCha8Rng) {
    let nodes = scenario.nodes();
    let Some(node) = nodes.choose(rng).copied() else { return };
    let from = millis(rng.random_range(1..FAULTS_UNTIL_MS));
    let until = from + millis(rng.random_range(10..FAULT_MS));
    match rng.random_range(0..13) {
        0 | 1 => {
            scenario.events.push((from, Event::Crash(node)));
            scenario.events.push((until, Event::Restart(node)));
        }
        2 => {
            let side: Vec<NodeName> = nodes.into_iter().filter(|_| rng.random_ratio(1, 2)).collect();
            scenario.events.push((from, Event::Partition(side)));
            scenario.events.push((until, Event::Heal));
        }
        3 => {
            scenario.events.push((from, Event::LossPercent(f64::from(rng.random_range(5..=50_u32)))));
            scenario.events.push((until, Event::LossPercent(scenario.loss_percent)));
        }
        4 => scenario.events.push((from, Event::Latency(latency(rng)))),
        5 => {
            let time = millis(*[1, 10, 100, 500].choose(rng).unwrap_or(&10));
            scenario.events.push((Duration::ZERO, Event::DiskTime(node, time)));
        }
        6 => {
            let time = millis(*[1, 50, 300].choose(rng).unwrap_or(&50));
            scenario.events.push((Duration::ZERO, Event::ExecutionTime(node, time)));
        }
        7 => {
            // The last node, whom nobody knows to begin with: a liar that is all that somebody knows of the network
            // keeps it out, and no protocol can help that.
            let liar = full(scenario.full_nodes - 1);
            if let Some(behaviour) = Behaviour::ALL.choose(rng) {
                scenario.events.push((Duration::ZERO, Event::Hostile(liar, *behaviour)));
            }
            let skew = rng.random_range(-90_000..=90_000);
            scenario.events.push((Duration::ZERO, Event::ClockSkew(node, skew)));
        }
        8 | 9 => {
            if let Some((actor, input)) = FAILING.choose(rng) {
                let fault = match rng.random_range(0..6) {
                    0..3 => ActorFault::Panic,
                    3 => ActorFault::Error,
                    4 => ActorFault::Delay(millis(rng.random_range(1..=ACTOR_DELAY_MS))),
                    _ => ActorFault::Hang,
                };
                let (actor, input) = ((*actor).into(), (*input).into());
                let (nth, times) = (rng.random_range(1..=20), *[1, 1, 3].choose(rng).unwrap_or(&1));
                // A hung actor is ended after a while: a few of these take longer than a scenario has.
                let times = if fault == ActorFault::Hang { 1 } else { times };
                let fault = Event::ActorFault { node, actor, input, nth, times, fault };
                scenario.events.push((Duration::ZERO, fault));
            }
        }
        10 => {
            scenario.events.push((from, Event::Shutdown(node)));
            scenario.events.push((until, Event::Restart(node)));
        }
        _ => {
            let writes = [DiskOperation::Apply, DiskOperation::UpdatePeers, DiskOperation::Flush];
            let (operation, times) = match rng.random_ratio(1, 4) {
                // A node with unreadable initial state gives up sooner or later.
                true => (DiskOperation::Read, rng.random_range(1..=3)),
                false => {
                    (*writes.choose(rng).unwrap_or(&DiskOperation::Apply), *[1, 3, 100_000].choose(rng).unwrap_or(&1))
                }
            };
            let fault = *[DiskFault::Error, DiskFault::ShortWrite].choose(rng).unwrap_or(&DiskFault::Error);
            let nth = rng.random_range(1..=10);
            scenario.events.push((from, Event::DiskFault { node, operation, nth, times, fault }));
            scenario.events.push((until, Event::Repair(node)));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_seed_makes_a_scenario_that_can_be_played() {
        for seed in 0..500 {
            let scenario = scenario(seed);
            scenario.config().unwrap();
            assert_eq!(scenario, super::scenario(seed));
        }
    }
}
