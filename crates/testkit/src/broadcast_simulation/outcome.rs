//! The result of a simulation.

use super::{figures::Phase, messages::Record, settings::Settings, world::World};
use serde::Serialize;
use soma_protocol::Core;
use soma_types::Topic;
use std::collections::BTreeMap;

/// What a simulation measured.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Outcome {
    /// Mean one-way delay of the links that the settings allow, in milliseconds.
    pub mean_delay_ms: f64,
    /// Deliveries of the measured messages, by the name of the topic.
    pub topics: BTreeMap<&'static str, Delivery>,
    /// What honest nodes received while it was measured.
    pub traffic: Traffic,
    /// The same before it was measured, while the overlay takes shape.
    pub warm_up: Traffic,
    /// Messages that came only after they had been asked for, of all honest nodes that are up at the end.
    pub recovered: u64,
    /// Messages that slow peers lost, of the same nodes.
    pub dropped: u64,
    /// The longest queue of a stream of each topic, in bytes.
    pub longest_queue: BTreeMap<&'static str, u64>,
    /// Most messages that a node keeps at the end, of all topics.
    pub most_kept: usize,
    /// Reports about hostile nodes.
    pub penalties: BTreeMap<String, u64>,
    /// Reports about honest nodes: there must be none.
    pub wrong_penalties: u64,
    /// Equivocations that honest nodes noticed.
    pub equivocations: usize,
    /// Nodes that left.
    pub left: u64,
    /// Links that broke, apart from those of nodes that left.
    pub broken_links: u64,
    /// What the core did that it must not do, the first few in words.
    pub broken: Vec<String>,
    /// How often it did.
    pub broken_count: u64,
    /// Events of the simulation.
    pub events: u64,
    /// Digest of all effects of all cores.
    pub digest: u64,
}

/// Deliveries of one topic, to honest nodes that were up all the while.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Delivery {
    /// Messages.
    pub messages: usize,
    /// Deliveries.
    pub deliveries: usize,
    /// Deliveries that did not happen.
    pub missing: usize,
    /// Time in which half of the deliveries happen, in milliseconds.
    pub p50_ms: f64,
    /// Time in which 99 % of them happen.
    pub p99_ms: f64,
    /// Time in which all of them happen that happen at all.
    pub p100_ms: f64,
    /// Time until 99 % of the nodes have a message: the mean of all messages.
    pub message_p99_mean_ms: f64,
    /// The same: of the message for which it takes longest.
    pub message_p99_worst_ms: f64,
}

/// What honest nodes received, in multiples of what they had to.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Traffic {
    /// Bytes of frames for each byte of a delivered payload.
    pub bytes_ratio: f64,
    /// Bytes of payloads for each byte of a delivered payload.
    pub payload_ratio: f64,
    /// Copies of messages for each delivery.
    pub copies: f64,
    /// Copies that came again, for each delivery.
    pub duplicates: f64,
    /// Ids for each delivery.
    pub ids: f64,
}

impl From<Phase> for Traffic {
    fn from(phase: Phase) -> Self {
        let share = |part: u64, whole: u64| if whole == 0 { 0.0 } else { part as f64 / whole as f64 };
        Self {
            bytes_ratio: share(phase.bytes, phase.delivered_bytes),
            payload_ratio: share(phase.payload_bytes, phase.delivered_bytes),
            copies: share(phase.messages, phase.deliveries),
            duplicates: share(phase.duplicates, phase.deliveries),
            ids: share(phase.ids, phase.deliveries),
        }
    }
}

/// The least value that at least `share` of the sorted values do not exceed, in milliseconds.
fn percentile(sorted_us: &[u32], share: f64) -> f64 {
    let place = (sorted_us.len() as f64 * share).ceil() as usize;
    sorted_us.get(place.max(1) - 1).map_or(0.0, |us| f64::from(*us) / 1_000.0)
}

impl Delivery {
    fn of<'a>(records: impl Iterator<Item = &'a Record>) -> Self {
        let mut delivery = Self::default();
        let mut all = Vec::new();
        let mut sum = 0.0;
        for record in records {
            let mut delays = record.delays.clone();
            delays.sort_unstable();
            let p99 = percentile(&delays, 0.99);
            delivery.messages += 1;
            delivery.missing += record.missing;
            delivery.message_p99_worst_ms = delivery.message_p99_worst_ms.max(p99);
            sum += p99;
            all.append(&mut delays);
        }
        all.sort_unstable();
        delivery.deliveries = all.len();
        delivery.message_p99_mean_ms = sum / delivery.messages.max(1) as f64;
        delivery.p50_ms = percentile(&all, 0.5);
        delivery.p99_ms = percentile(&all, 0.99);
        delivery.p100_ms = percentile(&all, 1.0);
        delivery
    }
}

impl Outcome {
    /// Plays a simulation.
    pub fn of(settings: Settings) -> Self {
        let mut world = World::new(settings);
        world.run();
        world.outcome()
    }
}

impl World {
    fn outcome(mut self) -> Outcome {
        let mut topics = BTreeMap::new();
        for topic in Topic::ALL {
            let records = self.messages.all().iter().filter(|record| record.is_measured && record.topic == topic);
            let delivery = Delivery::of(records);
            if delivery.messages > 0 {
                topics.insert(topic.name(), delivery);
            }
        }
        let (mut recovered, mut dropped, mut most_kept) = (0, 0, 0);
        for (number, node) in self.topology.nodes.iter().enumerate().filter(|(_, node)| node.behaviour.is_none()) {
            let Some(process) = &node.process else { continue };
            let topics = process.core.snapshot().topics;
            recovered += topics.values().map(|topic| topic.recovered).sum::<u64>();
            dropped += topics.values().map(|topic| topic.dropped).sum::<u64>();
            let kept = topics.values().map(|topic| topic.kept + topic.checking).sum();
            most_kept = most_kept.max(kept);
            let held = process.held();
            if held > kept {
                self.figures.broken(format!("node {number}'s shell holds {held} messages, its core keeps {kept}"));
            }
        }
        let figures = self.figures;
        let penalties =
            figures.penalties.iter().map(|((behaviour, fault), count)| (format!("{behaviour:?}: {fault}"), *count));
        Outcome {
            mean_delay_ms: self.settings.mean_delay().as_secs_f64() * 1_000.0,
            topics,
            traffic: figures.measured.into(),
            warm_up: figures.warm_up.into(),
            recovered,
            dropped,
            longest_queue: Topic::ALL
                .into_iter()
                .map(|topic| (topic.name(), figures.longest_queue[topic as usize]))
                .collect(),
            most_kept,
            penalties: penalties.collect(),
            wrong_penalties: figures.wrong_penalties,
            equivocations: figures.equivocations.len(),
            left: figures.left,
            broken_links: figures.broken_links,
            broken: figures.broken,
            broken_count: figures.broken_count,
            events: figures.events,
            digest: figures.digest,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::percentile;

    #[test]
    fn percentile_is_the_least_value_that_the_share_does_not_exceed() {
        let hundred: Vec<u32> = (1..=100).map(|value| value * 1_000).collect();
        assert_eq!(percentile(&hundred, 0.5), 50.0);
        assert_eq!(percentile(&hundred, 0.99), 99.0);
        assert_eq!(percentile(&hundred, 1.0), 100.0);
        assert_eq!(percentile(&hundred[..1], 0.5), 1.0);
        assert_eq!(percentile(&[], 0.99), 0.0);
    }
}
