//! The scenarios, and what must hold in each.

use super::{
    outcome::{Delivery, Outcome},
    settings::{Load, Settings, Unrest},
};
use serde::Serialize;
use soma_types::Topic;
use std::time::Duration;

/// What is played.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Scenario {
    /// Certificates of 1 KiB.
    Small,
    /// Certificates of 128 KiB.
    Large,
    /// Consensus, alone and beside a flood of transactions that saturates every upload.
    Flood,
    /// Certificates of 1 KiB while nodes leave and return, links break, and epochs end.
    Churn,
    /// Certificates of 1 KiB among hostile nodes, and without them.
    Hostile,
}

/// How large the network is, and for how long it runs.
#[derive(Clone, Debug)]
pub struct Size {
    /// Nodes.
    pub nodes: usize,
    /// Validators among them.
    pub validators: usize,
    /// Hostile nodes of [`Scenario::Hostile`].
    pub hostile: usize,
    /// What fails in [`Scenario::Churn`].
    pub unrest: Unrest,
    /// Time that is measured.
    pub measured: Duration,
    /// Seed.
    pub seed: u64,
}

/// What a scenario measured.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Played {
    /// The scenario.
    pub scenario: Scenario,
    /// Seed.
    pub seed: u64,
    /// What it measured; under "alone" what is compared.
    pub outcome: Outcome,
    /// The same network without the flood, or without the hostile nodes.
    pub alone: Option<Outcome>,
    /// What must hold.
    pub goals: Vec<Goal>,
}

const NINETY_NINE: &str = "99 % of deliveries, in one-way delays";
const ALL: &str = "all deliveries, in seconds";
const BYTES: &str = "bytes received for each byte of payload";

/// A figure, and the most that it may be.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Goal {
    /// What.
    pub what: &'static str,
    /// The figure.
    pub value: f64,
    /// The most that it may be.
    pub limit: f64,
}

impl Goal {
    /// Whether it is reached.
    pub fn is_met(&self) -> bool {
        self.value <= self.limit
    }
}

impl Scenario {
    /// Every scenario.
    pub const ALL: [Self; 5] = [Self::Small, Self::Large, Self::Flood, Self::Churn, Self::Hostile];

    /// The scenario's name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Small => "small",
            Self::Large => "large",
            Self::Flood => "flood",
            Self::Churn => "churn",
            Self::Hostile => "hostile",
        }
    }

    /// The settings of the scenario.
    pub fn settings(self, size: &Size) -> Settings {
        let Size { nodes, validators, measured, seed, .. } = *size;
        let hostile = size.hostile;
        let settings = Settings { nodes, validators, measured, seed, ..Settings::default() };
        let certificates = |payload, per_second| Load {
            topic: Topic::Certificates,
            payload,
            per_second,
            by_validators: true,
            has_slots: false,
        };
        match self {
            Self::Small => Settings { loads: vec![certificates(1 << 10, 100.0)], ..settings },
            Self::Large => Settings { loads: vec![certificates(128 << 10, 2.0)], ..settings },
            Self::Flood => {
                let consensus = Load {
                    topic: Topic::Consensus,
                    payload: 1 << 10,
                    per_second: 2.0 * validators as f64,
                    by_validators: true,
                    has_slots: true,
                };
                // More than a node can upload of what each node must upload about once.
                let payload: u32 = 8 << 10;
                let per_second = 1.2 * settings.upload as f64 / 8.0 / f64::from(payload);
                let flood =
                    Load { topic: Topic::Transactions, payload, per_second, by_validators: false, has_slots: false };
                Settings { loads: vec![consensus, flood], ..settings }
            }
            Self::Churn => Settings {
                loads: vec![certificates(1 << 10, 100.0)],
                unrest: Some(size.unrest.clone()),
                epoch_every: Some(Duration::from_secs(20)),
                ..settings
            },
            Self::Hostile => Settings {
                loads: vec![certificates(1 << 10, 20.0)],
                warm_up: Duration::from_secs(5),
                hostile,
                ..settings
            },
        }
    }

    /// Plays the scenario.
    pub fn play(self, size: &Size) -> Played {
        let settings = self.settings(size);
        let alone = match self {
            Self::Flood => Some(Settings { loads: settings.loads[..1].to_vec(), ..settings.clone() }),
            Self::Hostile => Some(Settings { hostile_absent: true, ..settings.clone() }),
            Self::Small | Self::Large | Self::Churn => None,
        };
        let alone = alone.map(Outcome::of);
        let outcome = Outcome::of(settings);
        let goals = self.goals(&outcome, alone.as_ref());
        Played { scenario: self, seed: size.seed, outcome, alone, goals }
    }

    fn goals(self, outcome: &Outcome, alone: Option<&Outcome>) -> Vec<Goal> {
        let none = Delivery::default();
        let topic = if self == Self::Flood { Topic::Consensus } else { Topic::Certificates };
        let of = |outcome: &Outcome| outcome.topics.get(topic.name()).cloned().unwrap_or_else(|| none.clone());
        let delivery = of(outcome);
        let goal = |what, value, limit| Goal { what, value, limit };
        let mut goals = vec![
            goal("broken promises of the core", outcome.broken_count as f64, 0.0),
            goal("honest peers that are penalised", outcome.wrong_penalties as f64, 0.0),
            goal("missing deliveries", delivery.missing as f64, 0.0),
        ];
        let delays = delivery.p99_ms / outcome.mean_delay_ms;
        let (seconds, bytes) = (delivery.p100_ms / 1_000.0, outcome.traffic.bytes_ratio);
        let grown = alone.map(|alone| delivery.p99_ms / of(alone).p99_ms.max(0.001));
        match self {
            Self::Small | Self::Churn => {
                // Whoever lacks a message after a link broke learns of it at a heartbeat, and asks for it: four more
                // delays.
                goals.push(goal(NINETY_NINE, delays, if self == Self::Small { 4.0 } else { 8.0 }));
                goals.push(goal(ALL, seconds, 2.0));
                goals.push(goal(BYTES, bytes, 1.5));
            }
            Self::Large => {
                // Not four delays: no schedule sends 128 KiB to a thousand nodes in less than six at 50 Mbit/s.
                goals.push(goal(ALL, seconds, 2.0));
                goals.push(goal(BYTES, bytes, 1.15));
            }
            Self::Flood => goals.push(goal("p99 with the flood, for that without", grown.unwrap_or(0.0), 2.0)),
            Self::Hostile => {
                goals.push(goal("p99 with hostile nodes, for that without", grown.unwrap_or(0.0), 1.5));
            }
        }
        goals
    }
}
