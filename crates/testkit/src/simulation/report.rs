//! What comes of a run.

use crate::simulation::{invariant::Invariant, names::NodeName, scenario::SettingsError};
use std::{collections::BTreeMap, fmt, time::Duration};

/// Digest of everything that happened in a run.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Digest(pub [u8; 32]);

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0[..8].iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// A kind of input that an actor takes.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Taken {
    /// Where.
    pub node: NodeName,
    /// Name of the actor's core.
    pub actor: &'static str,
    /// The input's variant.
    pub kind: String,
}

/// An actor that ended otherwise than in order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LostActor {
    /// Where.
    pub node: NodeName,
    /// Its name.
    pub actor: String,
    /// How it ended.
    pub exit: String,
}

/// What a node has against an honest peer, at the worst moment of a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Penalty {
    /// The accuser.
    pub by: NodeName,
    /// The accused.
    pub of: NodeName,
    /// Failures in a row that it holds the peer responsible for. Each costs the peer a tenth of its standing and a
    /// pause, and what is not counted here costs it nothing.
    pub failures: u32,
}

/// A run in which every invariant held.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Report {
    /// Of everything that happened: equal for two runs with one seed.
    pub digest: Digest,
    /// How long it took in virtual time.
    pub virtual_time: Duration,
    /// Messages sent.
    pub messages: u64,
    /// Inputs of cores: all were recorded, and replayed with the same outcome.
    pub inputs: u64,
    /// Messages that did not arrive.
    pub lost: u64,
    /// Commits executed, by all nodes.
    pub executed: u64,
    /// When each node executed its last commit, in virtual time since the start.
    pub caught_up: BTreeMap<NodeName, Duration>,
    /// Of the commits that were made one after the other: how long after it was due each node executed each, in order.
    pub delays: BTreeMap<NodeName, Vec<Duration>>,
    /// Starts of nodes after the first of each.
    pub restarts: u64,
    /// Faults of actors injected.
    pub faults: u64,
    /// Faults of disks injected.
    pub disk_faults: u64,
    /// Segments that the archive took.
    pub segments_written: u64,
    /// Segments that nodes read from the archive.
    pub segments_read: u64,
    /// Systems that gave up.
    pub gave_up: u64,
    /// Actors that ended otherwise than in order, sync workers included.
    pub actors_lost: Vec<LostActor>,
    /// Actors that were made anew in the process that is up at the end, and how often: those that were lost, and those
    /// that go with them.
    pub actors_restarted: Vec<(NodeName, String, u64)>,
    /// Who has ever held what against whom, by who has: found in what the nodes recorded, after each message.
    pub penalties: Vec<Penalty>,
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            digest,
            virtual_time,
            messages,
            inputs,
            lost,
            executed,
            caught_up: _,
            delays: _,
            restarts,
            faults,
            disk_faults,
            segments_written,
            segments_read,
            gave_up,
            actors_lost,
            actors_restarted: _,
            penalties,
        } = self;
        let seconds = virtual_time.as_secs_f64();
        write!(
            f,
            "{digest} {seconds:.1} s virtual, {messages} messages ({lost} lost), {inputs} inputs replayed, {executed} commits executed, \
             {segments_written} segments archived, {segments_read} read, {restarts} restarts, {faults} faults of actors, {disk_faults} of disks, {gave_up} gave up, {} actors lost, {} penalties",
            actors_lost.len(),
            penalties.len()
        )
    }
}

/// A run in which something was not as it must be.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    /// The scenario describes no network.
    #[error("the scenario cannot be played: {0}")]
    Settings(#[from] SettingsError),
    /// An invariant broke.
    #[error("{}", broken(.invariant, .node, .at, .seed, .detail))]
    Broken {
        /// Which.
        invariant: Invariant,
        /// Where, if at one node.
        node: Option<NodeName>,
        /// When, in virtual time since the start.
        at: Duration,
        /// With which seed.
        seed: u64,
        /// The finding.
        detail: String,
        /// The last that happened before.
        tail: Vec<String>,
    },
    /// Two runs with one seed went different ways.
    #[error("two runs with seed {seed} differ; the first difference is\n  {first}\n  {second}")]
    Diverged {
        /// The seed.
        seed: u64,
        /// What happened in the first run.
        first: String,
        /// What happened in the second run instead.
        second: String,
    },
}

impl Failure {
    /// Whether it is the same failure, as far as shrinking is concerned.
    pub fn is_like(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Broken { invariant, .. }, Self::Broken { invariant: others, .. }) => invariant == others,
            (Self::Diverged { .. }, Self::Diverged { .. }) => true,
            _ => false,
        }
    }
}

fn broken(invariant: &Invariant, node: &Option<NodeName>, at: &Duration, seed: &u64, detail: &str) -> String {
    let place = node.map(|node| format!(" at {node}")).unwrap_or_default();
    let seconds = at.as_secs_f64();
    format!("broken with seed {seed}{place} after {seconds:.3} s: {invariant}: {detail}")
}
