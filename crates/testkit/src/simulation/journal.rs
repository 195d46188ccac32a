//! The journal of one run: every event with its virtual time, and the first invariant that broke.
//!
//! It is the one place from which a run's digest is made.

use crate::simulation::{
    event::{ActorFault, DiskFault, DiskOperation},
    invariant::Invariant,
    names::NodeName,
    report::{Digest, Taken},
};
use soma_types::{CommitDigest, CommitIndex};
use std::{
    collections::BTreeMap,
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};
use tokio::{sync::Notify, time::Instant};

/// Entries before a failure that go into its report.
const TAIL: usize = 30;

/// Inputs that the actors of one node may take at one moment of virtual time. A whole sync without latency takes some
/// tens of thousands; more means that actors keep each other busy without end.
const INPUTS_AT_ONCE: u64 = 300_000;

/// An event of the journal.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Entry {
    /// Part of the script was played.
    Event(String),
    /// A node is up, with what its disk holds.
    Started { node: NodeName, durable: CommitIndex },
    /// A node asked another to take its connection.
    Connected { from: NodeName, to: NodeName, admitted: bool },
    /// An admitted connection ended.
    Disconnected { from: NodeName, to: NodeName },
    /// A message was sent.
    Message { from: NodeName, to: NodeName, what: &'static str, fate: Fate },
    /// A node's executor executed a commit.
    Executed { node: NodeName, index: CommitIndex, digest: CommitDigest },
    /// Something went wrong with an actor, as planned.
    Fault { node: NodeName, actor: &'static str, fault: ActorFault },
    /// A fault of a disk was injected.
    DiskFault { node: NodeName, operation: DiskOperation, fault: DiskFault },
    /// A node wrote a segment into the archive. `is_new`: no other node was faster.
    Archived { first: CommitIndex, last: CommitIndex, is_new: bool },
    /// A node read a segment of the archive.
    ReadArchive { first: CommitIndex, last: CommitIndex },
    /// A node's system gave up.
    GaveUp { node: NodeName, reason: String },
    /// A node has stopped in order, except for actors that did not stop in time.
    Stopped { node: NodeName, overdue: Vec<String> },
}

/// What becomes of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fate {
    /// It arrives after this time, unless a partition comes between.
    Arrives(Duration),
    /// It is lost.
    Lost,
    /// There is no way to the receiver.
    CutOff,
}

impl fmt::Display for Entry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Event(event) => write!(f, "{event}"),
            Self::Started { node, durable } => write!(f, "{node} is up, {durable} commits on its disk"),
            Self::Connected { from, to, admitted } => {
                write!(f, "{from} -> {to}: {}", if *admitted { "connected" } else { "not admitted" })
            }
            Self::Disconnected { from, to } => write!(f, "{from} -> {to}: connection ended"),
            Self::Message { from, to, what, fate } => write!(f, "{from} -> {to}: {what}, {fate:?}"),
            Self::Executed { node, index, digest } => write!(f, "{node} executed commit {index}, {digest:?}"),
            Self::Fault { node, actor, fault } => write!(f, "{node}: {fault:?} of {actor}, as planned"),
            Self::DiskFault { node, operation, fault } => {
                write!(f, "{node}: {fault:?} of the disk's {operation:?}, as planned")
            }
            Self::Archived { first, last, is_new } => write!(f, "archive: {first} to {last} written, new: {is_new}"),
            Self::ReadArchive { first, last } => write!(f, "archive: {first} to {last} read"),
            Self::GaveUp { node, reason } => write!(f, "{node} gave up: {reason}"),
            Self::Stopped { node, overdue } => write!(f, "{node} has stopped; overdue: {overdue:?}"),
        }
    }
}

/// An invariant that broke.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Violation {
    pub(super) invariant: Invariant,
    pub(super) node: Option<NodeName>,
    pub(super) at: Duration,
    pub(super) detail: String,
}

/// Counts of what the journal holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Counts {
    pub(super) messages: u64,
    pub(super) lost: u64,
    pub(super) executed: u64,
    pub(super) starts: u64,
    pub(super) faults: u64,
    pub(super) disk_faults: u64,
    pub(super) segments_written: u64,
    pub(super) segments_read: u64,
    pub(super) gave_up: u64,
}

/// Written by all parts of a run.
#[derive(Clone)]
pub(super) struct Journal {
    shared: Arc<Shared>,
}

struct Shared {
    started: Instant,
    pages: Mutex<Pages>,
    broken: Notify,
}

#[derive(Default)]
struct Pages {
    entries: Vec<(Duration, Entry)>,
    counts: Counts,
    /// Of each node: the last moment at which its actors took inputs, and how many then.
    inputs: BTreeMap<NodeName, (Duration, u64)>,
    taken: BTreeMap<Taken, u64>,
    violation: Option<Violation>,
}

impl Journal {
    /// An empty journal; its time begins now.
    pub(super) fn new() -> Self {
        let shared = Shared { started: Instant::now(), pages: Mutex::default(), broken: Notify::new() };
        Self { shared: Arc::new(shared) }
    }

    /// Virtual time since the start.
    pub(super) fn now(&self) -> Duration {
        self.shared.started.elapsed()
    }

    pub(super) fn write(&self, entry: Entry) {
        let at = self.now();
        let mut pages = self.pages();
        match &entry {
            Entry::Message { fate, .. } => {
                pages.counts.messages += 1;
                pages.counts.lost += u64::from(!matches!(fate, Fate::Arrives(_)));
            }
            Entry::Executed { .. } => pages.counts.executed += 1,
            Entry::Started { .. } => pages.counts.starts += 1,
            Entry::Fault { .. } => pages.counts.faults += 1,
            Entry::DiskFault { .. } => pages.counts.disk_faults += 1,
            Entry::Archived { is_new, .. } => pages.counts.segments_written += u64::from(*is_new),
            Entry::ReadArchive { .. } => pages.counts.segments_read += 1,
            Entry::GaveUp { .. } => pages.counts.gave_up += 1,
            Entry::Event(_) | Entry::Connected { .. } | Entry::Disconnected { .. } | Entry::Stopped { .. } => {}
        }
        pages.entries.push((at, entry));
    }

    /// Counts an input that an actor takes.
    pub(super) fn input(&self, node: NodeName, actor: &'static str, kind: &str) {
        let now = self.now();
        let mut pages = self.pages();
        *pages.taken.entry(Taken { node, actor, kind: kind.into() }).or_default() += 1;
        let (moment, inputs) = pages.inputs.entry(node).or_default();
        if *moment != now {
            (*moment, *inputs) = (now, 0);
        }
        *inputs += 1;
        if *inputs == INPUTS_AT_ONCE {
            drop(pages);
            let detail = format!("its actors take input after input while no time passes, {actor} now");
            self.violated(Invariant::TimePasses, Some(node), detail);
        }
    }

    /// Notes a broken invariant; the first one ends the run.
    pub(super) fn violated(&self, invariant: Invariant, node: Option<NodeName>, detail: impl Into<String>) {
        let violation = Violation { invariant, node, at: self.now(), detail: detail.into() };
        self.pages().violation.get_or_insert(violation);
        self.shared.broken.notify_one();
    }

    /// Notes a broken invariant unless it `holds`.
    pub(super) fn check(&self, holds: bool, invariant: Invariant, node: NodeName, detail: impl FnOnce() -> String) {
        if !holds {
            self.violated(invariant, Some(node), detail());
        }
    }

    /// The invariant that broke first.
    pub(super) fn violation(&self) -> Option<Violation> {
        self.pages().violation.clone()
    }

    /// Resolves when an invariant has broken.
    pub(super) async fn broken(&self) -> Violation {
        loop {
            if let Some(violation) = self.violation() {
                return violation;
            }
            self.shared.broken.notified().await;
        }
    }

    /// How many inputs of which kind were taken.
    pub(super) fn taken(&self) -> BTreeMap<Taken, u64> {
        self.pages().taken.clone()
    }

    /// When each node executed its last commit.
    pub(super) fn caught_up(&self) -> BTreeMap<NodeName, Duration> {
        let pages = self.pages();
        let executed = pages.entries.iter().filter_map(|(at, entry)| match entry {
            Entry::Executed { node, .. } => Some((*node, *at)),
            _ => None,
        });
        // Of several for one node the last stays.
        executed.collect()
    }

    /// When each node executed which commit.
    pub(super) fn executed(&self) -> Vec<(Duration, NodeName, CommitIndex)> {
        let pages = self.pages();
        let executed = pages.entries.iter().filter_map(|(at, entry)| match entry {
            Entry::Executed { node, index, .. } => Some((*at, *node, *index)),
            _ => None,
        });
        executed.collect()
    }

    pub(super) fn counts(&self) -> Counts {
        self.pages().counts
    }

    /// The last entries, in words.
    pub(super) fn tail(&self) -> Vec<String> {
        let pages = self.pages();
        let from = pages.entries.len().saturating_sub(TAIL);
        pages.entries[from..].iter().map(in_words).collect()
    }

    /// All entries, in words.
    pub(super) fn in_words(&self) -> Vec<String> {
        self.pages().entries.iter().map(in_words).collect()
    }

    /// Digest of all entries, and of the recorded traces.
    pub(super) fn digest(&self, trace: &[u8]) -> Digest {
        let mut hasher = blake3::Hasher::new();
        for entry in &self.pages().entries {
            hasher.update(in_words(entry).as_bytes());
            hasher.update(b"\n");
        }
        hasher.update(trace);
        Digest(*hasher.finalize().as_bytes())
    }

    /// The first entry in which two runs differ, in the words of both.
    pub(super) fn difference(&self, other: &Self) -> Option<(String, String)> {
        let (own, others) = (self.pages(), other.pages());
        let at = |pages: &Pages, index: usize| pages.entries.get(index).map_or("nothing".into(), in_words);
        let length = own.entries.len().max(others.entries.len());
        let differs = (0..length).find(|index| own.entries.get(*index) != others.entries.get(*index))?;
        Some((at(&own, differs), at(&others, differs)))
    }

    fn pages(&self) -> MutexGuard<'_, Pages> {
        // A panicked writer wrote whole entries.
        self.shared.pages.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn in_words((at, entry): &(Duration, Entry)) -> String {
    format!("{:9.3} {entry}", at.as_secs_f64())
}
