//! What the nodes of a run recorded, fed to their cores again.
//!
//! Every run is a test of recording and replaying, too; and what must hold of a core is checked after each of its
//! messages, not only when the monitor looks.

use crate::simulation::{
    identity::peer_id,
    invariant::Invariant,
    journal::Violation,
    names::NodeName,
    report::{LostActor, Penalty},
    scenario::Scenario,
};
use soma_p2p::{Config, ExitReason};
use soma_protocol::{
    Core,
    connections::{Connections, most_dials},
    grpc_adapter::Serving,
    peer_heights::PeerHeights,
    state_sync::{StateSync, most_workers},
    verifier::Verifier,
};
use soma_replay::{Item, Options, Record, Step, Trace, json, replay};
use std::collections::BTreeMap;

/// Facts about a run, from its trace.
pub(super) struct Found {
    /// Messages to cores.
    pub(super) inputs: u64,
    pub(super) lost: Vec<LostActor>,
    pub(super) penalties: Vec<Penalty>,
}

/// Replays a trace, and looks at each core after each of its messages.
pub(super) fn check(trace: &[u8], scenario: &Scenario, config: &Config) -> Result<Found, Violation> {
    let different = |detail: String| Violation {
        invariant: Invariant::ReplayIsIdentical,
        node: None,
        at: Default::default(),
        detail,
    };
    let trace = Trace::from_bytes(trace).map_err(|error| different(error.to_string()))?;
    let mut violation = None;
    let mut inputs = 0;
    let names: BTreeMap<String, NodeName> = scenario.nodes().into_iter().map(|name| (name.in_traces(), name)).collect();
    let honest: BTreeMap<_, _> = scenario.honest_nodes().into_iter().map(|name| (peer_id(name), name)).collect();
    let mut failures: BTreeMap<(NodeName, NodeName), u32> = BTreeMap::new();
    let mut look = |step: &Step<'_>| {
        inputs += 1;
        let node = names.get(step.node).copied();
        if let (Some(by), Some(core)) = (node, step.core::<PeerHeights>()) {
            for peer in core.snapshot().peers.into_iter().filter(|peer| peer.failures > 0) {
                if let Some(of) = honest.get(&peer.peer) {
                    let worst = failures.entry((by, *of)).or_default();
                    *worst = peer.failures.max(*worst);
                }
            }
        }
        if violation.is_none()
            && let Some(detail) = over_limit(step, config)
        {
            let detail = format!("after message #{} to {}: {detail}", step.entry.number, step.name);
            let at = step.entry.at.monotonic;
            violation = Some(Violation { invariant: Invariant::WithinLimits, node, at, detail });
        }
    };
    let report = replay(&trace, &Options::default(), &mut look).map_err(|error| different(error.to_string()))?;
    if !report.is_identical() {
        return Err(different(report.to_string()));
    }
    if let Some(violation) = violation {
        return Err(violation);
    }
    let penalties = failures.into_iter().map(|((by, of), failures)| Penalty { by, of, failures }).collect();
    Ok(Found { inputs, lost: lost(&trace, &names), penalties })
}

/// Actors that ended otherwise than in order, as they did.
fn lost(trace: &Trace, names: &BTreeMap<String, NodeName>) -> Vec<LostActor> {
    let ended = trace.items.iter().filter_map(|item| match item {
        Item::Record(Record::Ended(ended)) => Some(ended),
        _ => None,
    });
    let in_order = ExitReason::Normal.to_string();
    let lost = ended.filter(|ended| ended.exit != in_order).filter_map(|ended| {
        let node = *names.get(&ended.node)?;
        Some(LostActor { node, actor: ended.name.clone(), exit: ended.exit.clone() })
    });
    lost.collect()
}

/// What a core has too much of.
fn over_limit(step: &Step<'_>, config: &Config) -> Option<String> {
    let over = |what: &str, value: u64, limit: u64| (value > limit).then(|| format!("{what}: {value} of {limit}"));
    let (sync, connections) = (&config.state_sync, &config.connections);
    if let Some(core) = step.core::<StateSync>() {
        let snapshot = core.snapshot();
        // Commits of the node's own consensus may take one range's share beyond the budget.
        over("bytes in flight", snapshot.bytes_in_flight, sync.bytes_in_flight + sync.bytes_per_range)
            .or_else(|| over("workers", snapshot.workers as u64, most_workers(sync.max_workers) as u64))
    } else if let Some(core) = step.core::<Verifier>() {
        // The simulated pool is the actor thread itself: one job at a time.
        over("checks at once", core.snapshot().running as u64, 1)
    } else if let Some(core) = step.core::<Serving>() {
        over("calls answered at once", core.snapshot().active as u64, config.serving.max_calls as u64)
    } else if let Some(core) = step.core::<Connections>() {
        let snapshot = core.snapshot();
        over("outbound connections", snapshot.outbound.len() as u64, connections.max_outbound as u64)
            .or_else(|| over("inbound connections", snapshot.inbound.len() as u64, connections.max_inbound as u64))
            .or_else(|| over("dials at once", snapshot.dialling as u64, most_dials(connections.max_dials) as u64))
    } else {
        None
    }
}

/// The first record in which two traces differ, as both have it.
pub(super) fn difference(first: &[u8], second: &[u8]) -> Option<(String, String)> {
    if first == second {
        return None;
    }
    let lines = |trace: &[u8]| -> Vec<String> {
        Trace::from_bytes(trace).map(|trace| json(&trace).map(|line| line.to_string()).collect()).unwrap_or_default()
    };
    let (first, second) = (lines(first), lines(second));
    let differs = (0..).find(|index| first.get(*index) != second.get(*index) || first.len() <= *index)?;
    let at = |lines: &[String]| lines.get(differs).cloned().unwrap_or("nothing".into());
    Some((at(&first), at(&second)))
}
