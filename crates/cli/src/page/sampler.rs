//! Looks at the node now and then, and keeps the samples of 15 minutes.

use super::{
    Page,
    events::{self, NodeEvent},
};
use crate::{
    advice::{Verdict, advice_for},
    executor::{Executed, ExecutedText},
    node_status::NodeStatus,
    status::now_ms,
};
use serde::Serialize;
use soma_p2p::{Handle, Status};
use std::{
    collections::VecDeque,
    fs,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};
use tokio::{
    sync::watch,
    task::JoinHandle,
    time::{Instant, sleep_until},
};

/// Time between two looks while a page is open.
const EVERY_FOR_PAGES: Duration = Duration::from_secs(1);

/// The same while nothing happens. The page calls a node silent after 5 s.
const EVERY_WHILE_STILL: Duration = Duration::from_secs(3);

/// Time between two looks while no page is open. A look wakes every actor: an idle node should seldom do it.
const EVERY: Duration = Duration::from_secs(5);

/// How long a sample is kept.
const KEPT: Duration = Duration::from_secs(15 * 60);

/// Maximum number of samples that are kept: one each second.
const MAX_SAMPLES: usize = 900;

/// Events that are kept.
const MAX_EVENTS: usize = 100;

/// Time between two measurements of the disk, which read a directory with some hundred files.
const DISK_EVERY: Duration = Duration::from_secs(15);

/// The node at one moment, for the curve.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Sample {
    /// When, in milliseconds since 1970.
    pub(crate) at_ms: u64,
    /// Highest durable commit.
    pub(crate) height: u32,
    /// Highest commit that a peer claims.
    pub(crate) target: u32,
    /// Blocks fetched since StateSync started.
    pub(crate) blocks: u64,
    /// Bytes fetched since StateSync started.
    pub(crate) bytes: u64,
}

/// What the process takes from the machine.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub(crate) struct Resources {
    /// Bytes of the store's files.
    store_bytes: Option<u64>,
    /// Bytes that are free where the store is.
    free_bytes: Option<u64>,
    /// Bytes of memory that the process occupies.
    memory_bytes: Option<u64>,
}

/// All that a page shows.
#[derive(Clone, Debug, Default)]
pub(crate) struct Frame {
    /// Number of the latest look. The clock of the machine would not do: it may be set back.
    look: u64,
    seen: Option<Arc<Seen>>,
    samples: VecDeque<(u64, Sample)>,
    events: VecDeque<(u64, NodeEvent)>,
}

/// The latest look.
#[derive(Debug)]
struct Seen {
    at_ms: u64,
    status: NodeStatus,
    resources: Resources,
}

/// The data of one event for a page.
#[derive(Debug, Serialize)]
pub(super) struct News<'a> {
    at_ms: u64,
    verdict: Verdict,
    /// What to do, if there is something to do.
    advice: Option<&'static str>,
    status: &'a NodeStatus,
    resources: Resources,
    /// Those since the last news; all at first.
    samples: Vec<Sample>,
    events: Vec<&'a NodeEvent>,
}

impl Frame {
    /// Number of the latest look.
    pub(super) fn look(&self) -> u64 {
        self.look
    }

    /// The node at the latest look, if there was one.
    pub(crate) fn status(&self) -> Option<&Status> {
        self.seen.as_ref().map(|seen| &seen.status.p2p)
    }

    /// The news since the look `shown`; everything if that is 0. Nothing before the first look.
    pub(super) fn newer_than(&self, shown: u64) -> Option<News<'_>> {
        let Seen { at_ms, status, resources } = self.seen.as_deref()?;
        Some(News {
            at_ms: *at_ms,
            verdict: Verdict::of(&status.p2p),
            advice: advice_for(&status.p2p),
            status,
            resources: *resources,
            samples: since(&self.samples, shown).copied().collect(),
            events: since(&self.events, shown).collect(),
        })
    }

    /// Adds one more look. Whether something has happened since the last one.
    fn add(&mut self, seen: Seen) -> bool {
        self.look += 1;
        let p2p = &seen.status.p2p;
        let sync = p2p.state_sync.as_ref();
        let sample = Sample {
            at_ms: seen.at_ms,
            height: p2p.height,
            target: p2p.target,
            blocks: sync.map_or(0, |sync| sync.blocks_fetched),
            bytes: sync.map_or(0, |sync| sync.bytes_fetched),
        };
        let same = |before: &Sample| Sample { at_ms: before.at_ms, ..sample } == *before;
        let mut happened = !self.samples.back().is_some_and(|(_, before)| same(before));
        let oldest_ms = seen.at_ms.saturating_sub(KEPT.as_millis() as u64);
        while self.samples.front().is_some_and(|(_, sample)| sample.at_ms < oldest_ms) {
            self.samples.pop_front();
        }
        push(&mut self.samples, (self.look, sample), MAX_SAMPLES);
        let before = self.seen.as_ref().map(|before| &before.status.p2p);
        for event in events::between(before, p2p, seen.at_ms) {
            happened = true;
            push(&mut self.events, (self.look, event), MAX_EVENTS);
        }
        self.seen = Some(Arc::new(seen));
        happened
    }
}

/// Adds to the end, and takes from the front what is too many.
fn push<T>(queue: &mut VecDeque<T>, item: T, most: usize) {
    if queue.len() >= most {
        queue.pop_front();
    }
    queue.push_back(item);
}

/// The items of all looks after `shown`.
fn since<T>(queue: &VecDeque<(u64, T)>, shown: u64) -> impl Iterator<Item = &T> {
    let first = queue.partition_point(|(look, _)| *look <= shown);
    queue.range(first..).map(|(_, item)| item)
}

/// Looks at a node until it stops.
pub(crate) struct Sampler {
    pub(crate) system: Handle,
    pub(crate) executed: watch::Receiver<Executed>,
    pub(crate) store_dir: PathBuf,
}

impl Sampler {
    /// Starts to look.
    pub(crate) fn start(self) -> Page {
        let (sender, frames) = watch::channel(Arc::default());
        let page = Page { frames, open: Arc::default() };
        tokio::spawn(self.run(sender, page.open.subscribe()));
        page
    }

    fn measure_disk(&self) -> JoinHandle<Disk> {
        let store_dir = self.store_dir.clone();
        tokio::task::spawn_blocking(move || disk(&store_dir))
    }

    /// Runs until nobody can open a page any more.
    async fn run(self, frames: watch::Sender<Arc<Frame>>, mut open: watch::Receiver<usize>) {
        let mut resources = Resources::default();
        let mut measuring: Option<JoinHandle<Disk>> = None;
        let mut measured: Option<Instant> = None;
        loop {
            let looked = Instant::now();
            // A disk that does not answer delays no other figure.
            if let Some(done) = measuring.take_if(|measuring| measuring.is_finished()) {
                (resources.store_bytes, resources.free_bytes) = done.await.unwrap_or_default();
            }
            if measuring.is_none() && measured.is_none_or(|at| at.elapsed() >= DISK_EVERY) {
                (measuring, measured) = (Some(self.measure_disk()), Some(looked));
            }
            resources.memory_bytes = memory_stats::memory_stats().map(|stats| stats.physical_mem as u64);
            let executor = ExecutedText::from(*self.executed.borrow());
            let status = NodeStatus { p2p: self.system.status().await, executor };
            let seen = Seen { at_ms: now_ms(), status, resources };
            let mut happened = false;
            frames.send_modify(|frame| happened = Arc::make_mut(frame).add(seen));
            loop {
                let every = match (*open.borrow_and_update(), happened) {
                    (0, _) => EVERY,
                    (_, true) => EVERY_FOR_PAGES,
                    (_, false) => EVERY_WHILE_STILL,
                };
                tokio::select! {
                    () = sleep_until(looked + every) => break,
                    // Now the next look may be due earlier.
                    Ok(()) = open.changed() => {}
                    () = frames.closed() => return,
                }
            }
        }
    }
}

/// See [`disk`].
type Disk = (Option<u64>, Option<u64>);

/// Bytes of the files in a directory, and bytes that are free there.
fn disk(dir: &Path) -> Disk {
    (bytes_below(dir).ok(), fs4::available_space(dir).ok())
}

fn bytes_below(dir: &Path) -> std::io::Result<u64> {
    let mut total = 0;
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        // A file may go while others are counted.
        let Ok(about) = entry.metadata() else { continue };
        total += if about.is_dir() { bytes_below(&entry.path()).unwrap_or(0) } else { about.len() };
    }
    Ok(total)
}
