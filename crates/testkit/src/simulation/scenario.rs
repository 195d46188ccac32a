//! What a simulation is to play: plain data, written and printed as the story it tells.

use crate::{
    BlockKind,
    simulation::{
        event::Event,
        names::{NodeName, Time, full, millis, secs, validator},
    },
};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use soma_p2p::Config;
use std::{collections::BTreeMap, fmt, ops::Range, time::Duration};

/// The first peers that nodes know; they discover the rest.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Topology {
    /// Everyone knows every validator.
    KnowValidators,
    /// Every full node knows every validator. Validators know no peers.
    FullNodesKnowValidators,
    /// Everyone knows the first node only.
    KnowFirst,
    /// Everyone knows the node before it only.
    Chain,
}

/// A network, a chain, events, and the expected result.
///
/// ```
/// use soma_testkit::simulation::*;
///
/// let scenario = Scenario::named("a full node crashes in the middle of a sync")
///     .validators(4)
///     .full_nodes(2)
///     .commits(100)
///     .latency(millis(20)..millis(80))
///     .loss_percent(1.0)
///     .at(secs(1)).crash(full(0))
///     .at(secs(3)).restart(full(0))
///     .synced_within(secs(60));
/// assert_eq!(scenario.events.len(), 2);
/// ```
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Scenario {
    /// Its name.
    pub name: String,
    /// Nodes that have the first commits at the start.
    pub validators: u32,
    /// Members of the committee, where these are not as many: fewer make a chain that is cheaper to check.
    pub committee: Option<u32>,
    /// Other nodes, which start empty.
    pub full_nodes: u32,
    /// The first peers that nodes know.
    pub topology: Topology,
    /// Length of the chain at the end.
    pub commits: u32,
    /// How many of the commits the validators make while the simulation runs; they have the others at the start.
    pub live_commits: u32,
    /// Time between commits that are made while the simulation runs.
    pub commit_interval: Duration,
    /// Commits in each epoch.
    pub commits_per_epoch: u32,
    /// Certified transactions in each block: most of what nodes have to check.
    pub transactions_per_block: usize,
    /// Blocks of this kind, with its transactions.
    pub blocks: Option<BlockKind>,
    /// How long a message is on its way, in whole milliseconds.
    pub latency: Range<Duration>,
    /// Messages of a hundred that are lost.
    pub loss_percent: f64,
    /// Bytes per second of each link between two nodes in each direction: messages queue for it. No limit if `None`.
    pub bandwidth: Option<u64>,
    /// Settings of every node that are not the defaults, by key, such as `state_sync.max_workers`.
    pub settings: BTreeMap<String, Value>,
    /// Whether all nodes have one archive. The settings `archive.write` and `archive.read` say what they do with it.
    pub archive: bool,
    /// A node that keeps every commit, whatever the settings say.
    pub keeps_all: Option<NodeName>,
    /// Each node publishes a message of every topic for all nodes in each such interval; none does if `None`.
    #[serde(default)]
    pub messages: Option<Duration>,
    /// How often each node fetches objects of the others. Never if `None`.
    pub objects: Option<Duration>,
    /// What happens when.
    pub events: Vec<(Duration, Event)>,
    /// How long after the last event and the last commit made every honest node that is up must have executed all.
    pub synced_within: Duration,
    /// Whether everyone must be connected to everyone by then, too.
    pub connected: bool,
    /// Nodes whose system has to give up, each with a part of the stated reason.
    pub gives_up: BTreeMap<NodeName, String>,
}

impl Scenario {
    /// Four validators with a chain of 100 commits on a network without faults.
    pub fn named(name: &str) -> Self {
        Self {
            name: name.into(),
            validators: 4,
            committee: None,
            full_nodes: 0,
            topology: Topology::KnowValidators,
            commits: 100,
            live_commits: 0,
            commit_interval: millis(250),
            commits_per_epoch: 500,
            transactions_per_block: 1,
            blocks: None,
            latency: millis(5)..millis(20),
            loss_percent: 0.0,
            bandwidth: None,
            settings: BTreeMap::new(),
            archive: false,
            keeps_all: None,
            messages: None,
            objects: None,
            events: Vec::new(),
            synced_within: secs(30),
            connected: false,
            gives_up: BTreeMap::new(),
        }
    }

    /// This many validators.
    pub fn validators(mut self, validators: u32) -> Self {
        self.validators = validators;
        self
    }

    /// A committee of this many members, with any number of validators.
    pub fn committee(mut self, members: u32) -> Self {
        self.committee = Some(members);
        self
    }

    /// This many full nodes, which start empty.
    pub fn full_nodes(mut self, full_nodes: u32) -> Self {
        self.full_nodes = full_nodes;
        self
    }

    /// The first peers that nodes know.
    pub fn topology(mut self, topology: Topology) -> Self {
        self.topology = topology;
        self
    }

    /// A chain of this many commits at the end.
    pub fn commits(mut self, commits: u32) -> Self {
        self.commits = commits;
        self
    }

    /// The last commits, this many, are made while the simulation runs, one each `interval`.
    pub fn live(mut self, commits: u32, interval: Duration) -> Self {
        (self.live_commits, self.commit_interval) = (commits, interval);
        self
    }

    /// This many commits in each epoch.
    pub fn commits_per_epoch(mut self, commits: u32) -> Self {
        self.commits_per_epoch = commits;
        self
    }

    /// This many transactions in each block.
    pub fn transactions_per_block(mut self, transactions: usize) -> Self {
        self.transactions_per_block = transactions;
        self
    }

    /// Blocks of a kind with which speed is measured.
    pub fn blocks(mut self, kind: BlockKind) -> Self {
        self.blocks = Some(kind);
        self
    }

    /// A message is this long on its way.
    pub fn latency(mut self, latency: Range<Duration>) -> Self {
        self.latency = latency;
        self
    }

    /// This many messages of a hundred are lost. Their callers wait until the deadline.
    pub fn loss_percent(mut self, percent: f64) -> Self {
        self.loss_percent = percent;
        self
    }

    /// Each link between two nodes carries so many bytes per second in each direction, one message behind the other;
    /// chunks of a stream follow one another as far as the receiver's window goes.
    pub fn bandwidth(mut self, bytes_per_second: u64) -> Self {
        self.bandwidth = Some(bytes_per_second);
        self
    }

    /// When validators make this commit, if it is a live one: since the start.
    pub(super) fn due(&self, index: soma_types::CommitIndex) -> Option<Duration> {
        let number =
            index.checked_sub(self.commits - self.live_commits.min(self.commits)).filter(|number| *number > 0)?;
        Some(self.commit_interval * number)
    }

    /// A setting of every node, as in the configuration file: `.set("state_sync.max_workers", 1)`.
    pub fn set(mut self, key: &str, value: impl Into<Value>) -> Self {
        self.settings.insert(key.into(), value.into());
        self
    }

    /// All nodes have one archive, and write to it.
    pub fn archive(mut self) -> Self {
        self.archive = true;
        self.set("archive.write", true)
    }

    /// Each node publishes messages in each such interval. In the end every honest node hears every other.
    pub fn messages(mut self, interval: Duration) -> Self {
        self.messages = Some(interval);
        self
    }

    /// Each node has objects, and fetches those of the others in each such interval. In the end every honest node gets
    /// those of every honest peer.
    pub fn objects(mut self, interval: Duration) -> Self {
        self.objects = Some(interval);
        self
    }

    /// This node keeps every commit, whatever the settings say.
    pub fn keeps_all(mut self, node: NodeName) -> Self {
        self.keeps_all = Some(node);
        self
    }

    /// Every running honest node must have executed all commits this long after the last event and the last commit.
    pub fn synced_within(mut self, time: Duration) -> Self {
        self.synced_within = time;
        self
    }

    /// Everyone must be connected to everyone by then, too.
    pub fn and_connected(mut self) -> Self {
        self.connected = true;
        self
    }

    /// The node's system has to give up some time, with this in the reason that it states; the story restarts it.
    pub fn gives_up(mut self, node: NodeName, reason: &str) -> Self {
        self.gives_up.insert(node, reason.into());
        self
    }

    /// Every node there is, validators first.
    pub fn nodes(&self) -> Vec<NodeName> {
        (0..self.validators).map(validator).chain((0..self.full_nodes).map(full)).collect()
    }

    /// The nodes that never misbehave.
    pub fn honest_nodes(&self) -> Vec<NodeName> {
        let is_hostile = |node: &NodeName| {
            self.events.iter().any(|(_, event)| matches!(event, Event::Hostile(who, _) if who == node))
        };
        self.nodes().into_iter().filter(|node| !is_hostile(node)).collect()
    }

    /// Length of the chain that the validators have at the start.
    pub fn first_commits(&self) -> u32 {
        self.commits.saturating_sub(self.live_commits)
    }

    /// When the last fault has happened and the last commit been made.
    pub fn quiet_from(&self) -> Duration {
        let events = self.events.iter().map(|(time, _)| *time).max().unwrap_or_default();
        events.max(self.commit_interval * self.live_commits.min(self.commits))
    }

    /// The configuration of every node, without its own address and seed peers.
    pub fn config(&self) -> Result<Config, SettingsError> {
        let mut value = serde_json::to_value(Config::default())?;
        for (key, setting) in &self.settings {
            let place = key.split('.').try_fold(&mut value, |place, part| place.get_mut(part));
            *place.ok_or_else(|| SettingsError::Unknown(key.clone()))? = setting.clone();
        }
        let config: Config = serde_json::from_value(value)?;
        config.validate()?;
        Ok(config)
    }
}

/// Settings that no node takes.
#[derive(Debug, thiserror::Error)]
pub enum SettingsError {
    /// There is no such key.
    #[error("no setting is called {0:?}")]
    Unknown(String),
    /// Not of the setting's type.
    #[error("{0}")]
    Type(#[from] serde_json::Error),
    /// Out of bounds.
    #[error("{0}")]
    Value(#[from] soma_p2p::ConfigError),
}

/// Prints the Rust expression that makes the scenario: a failure's text can be pasted into a test.
impl fmt::Display for Scenario {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let usual = Self::named(&self.name);
        writeln!(f, "Scenario::named({:?})", self.name)?;
        writeln!(f, "    .validators({}).full_nodes({})", self.validators, self.full_nodes)?;
        if let Some(members) = self.committee {
            writeln!(f, "    .committee({members})")?;
        }
        if self.topology != usual.topology {
            writeln!(f, "    .topology(Topology::{:?})", self.topology)?;
        }
        writeln!(f, "    .commits({}).commits_per_epoch({})", self.commits, self.commits_per_epoch)?;
        if self.live_commits > 0 {
            writeln!(f, "    .live({}, {})", self.live_commits, Time(self.commit_interval))?;
        }
        if self.transactions_per_block != usual.transactions_per_block {
            writeln!(f, "    .transactions_per_block({})", self.transactions_per_block)?;
        }
        if let Some(kind) = self.blocks {
            writeln!(f, "    .blocks(BlockKind::{kind})")?;
        }
        writeln!(f, "    .latency({}..{})", Time(self.latency.start), Time(self.latency.end))?;
        if self.loss_percent > 0.0 {
            writeln!(f, "    .loss_percent({:?})", self.loss_percent)?;
        }
        if let Some(bandwidth) = self.bandwidth {
            writeln!(f, "    .bandwidth({bandwidth})")?;
        }
        if self.archive {
            writeln!(f, "    .archive()")?;
        }
        if let Some(node) = self.keeps_all {
            writeln!(f, "    .keeps_all({node})")?;
        }
        if let Some(interval) = self.messages {
            writeln!(f, "    .messages({})", Time(interval))?;
        }
        if let Some(interval) = self.objects {
            writeln!(f, "    .objects({})", Time(interval))?;
        }
        for (key, value) in &self.settings {
            writeln!(f, "    .set({key:?}, {value})")?;
        }
        for (time, event) in &self.events {
            writeln!(f, "    .at({}).{event}", Time(*time))?;
        }
        write!(f, "    .synced_within({})", Time(self.synced_within))?;
        if self.connected {
            write!(f, ".and_connected()")?;
        }
        for (node, reason) in &self.gives_up {
            write!(f, ".gives_up({node}, {reason:?})")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_scenario_prints_as_the_expression_that_makes_it() {
        let scenario = Scenario::named("a story")
            .full_nodes(1)
            .set("state_sync.max_workers", 1)
            .set("discovery.interval", "200ms")
            .at(secs(2))
            .partition([validator(0), full(0)])
            .at(millis(5_500))
            .heal();
        let expected = r#"Scenario::named("a story")
    .validators(4).full_nodes(1)
    .commits(100).commits_per_epoch(500)
    .latency(millis(5)..millis(20))
    .set("discovery.interval", "200ms")
    .set("state_sync.max_workers", 1)
    .at(secs(2)).partition([validator(0), full(0)])
    .at(millis(5500)).heal()
    .synced_within(secs(30))"#;
        assert_eq!(scenario.to_string(), expected);
    }

    #[test]
    fn settings_are_those_of_the_configuration_file() {
        let config = Scenario::named("").set("state_sync.max_workers", 1).set("discovery.interval", "200ms").config();
        let config = config.unwrap();
        assert_eq!((config.state_sync.max_workers, config.discovery.interval), (1, millis(200)));
        let unknown = Scenario::named("").set("state_sync.max_worker", 1).config().unwrap_err();
        assert_eq!(unknown.to_string(), "no setting is called \"state_sync.max_worker\"");
        Scenario::named("").set("state_sync.max_workers", 0).config().unwrap_err();
    }

    #[test]
    fn a_scenario_survives_serialization() {
        let scenario = Scenario::named("x").set("state_sync.max_workers", 1).at(secs(1)).loss_percent(2.5);
        let text = serde_json::to_string(&scenario).unwrap();
        assert_eq!(serde_json::from_str::<Scenario>(&text).unwrap(), scenario);
    }
}
