//! Recording: a shell calls its core through a [`Track`], which records the input and the decision.

use crate::{
    Cause, Origin,
    cores::panic_message,
    encoding::encode,
    format::put_record,
    queue::Queue,
    record::{Decision, Ended, Entry, Gap, Header, Record, State},
};
use soma_protocol::{Core, Now};
use soma_types::ContentDigest;
use std::{
    panic::{AssertUnwindSafe, catch_unwind, resume_unwind},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
        mpsc,
    },
};

/// Longest encoding of effects that is recorded in full, so that a divergence can be shown. Longer effects are recorded
/// as their digest.
const MAX_EFFECTS_BYTES: usize = 4 << 10;

/// Records the cores of one node, or of several nodes (see [`for_node`](Self::for_node)). Cheap to clone.
#[derive(Clone)]
pub struct Recorder {
    shared: Arc<Shared>,
    node: Arc<str>,
}

struct Shared {
    sink: Sink,
    /// Names of the cores to record; empty means all.
    only: Vec<String>,
    next_record: AtomicU64,
    next_actor: AtomicU64,
}

enum Sink {
    Ring(Queue),
    Memory(mpsc::Sender<Vec<u8>>),
}

impl Sink {
    /// Number of the current file. Each file has a core's state before the core's first entry.
    fn file(&self) -> u64 {
        match self {
            Self::Ring(queue) => queue.file(),
            Self::Memory(_) => 0,
        }
    }

    /// Offers encoded records to the sink and returns whether it accepted them. Never waits.
    fn put(&self, records: Vec<u8>) -> bool {
        match self {
            Self::Ring(queue) => queue.put(records),
            Self::Memory(kept) => kept.send(records).is_ok(),
        }
    }
}

/// A complete trace in memory, for tests and simulation.
pub struct MemoryTrace {
    header: Header,
    records: mpsc::Receiver<Vec<u8>>,
    file: Vec<u8>,
}

impl MemoryTrace {
    /// The trace up to now, as the bytes of a file.
    pub fn bytes(&mut self) -> &[u8] {
        if self.file.is_empty() {
            self.file = crate::format::start_file(&self.header);
        }
        for records in self.records.try_iter() {
            self.file.extend_from_slice(&records);
        }
        &self.file
    }
}

impl Recorder {
    pub(crate) fn to_ring(queue: Queue, only: Vec<String>) -> Self {
        Self::new(Sink::Ring(queue), only)
    }

    /// Records everything in memory. `run` identifies the run in the trace's header.
    pub fn in_memory(run: u64) -> (Self, MemoryTrace) {
        let (kept, records) = mpsc::channel();
        let header = Header { software: env!("CARGO_PKG_VERSION").into(), run, file: 0 };
        (Self::new(Sink::Memory(kept), Vec::new()), MemoryTrace { header, records, file: Vec::new() })
    }

    fn new(sink: Sink, only: Vec<String>) -> Self {
        let shared = Shared { sink, only, next_record: AtomicU64::new(0), next_actor: AtomicU64::new(0) };
        Self { shared: Arc::new(shared), node: "".into() }
    }

    /// A recorder with the same sink for the cores of another node.
    pub fn for_node(&self, node: &str) -> Self {
        Self { shared: self.shared.clone(), node: node.into() }
    }

    /// Starts to record one incarnation of an actor. Returns `None` if its core is not recorded.
    pub fn track<C: Core>(&self) -> Option<Track> {
        self.records(C::NAME).then(|| Track {
            recorder: self.clone(),
            actor: self.shared.next_actor.fetch_add(1, Ordering::Relaxed),
            file: None,
            missed: 0,
        })
    }

    /// Records the end of an actor, with the reason.
    pub fn ended(&self, name: &str, at: Now, exit: &dyn std::fmt::Display) {
        if !self.records(name) {
            return;
        }
        let (number, node) = (self.next_number(), self.node.as_ref().into());
        let ended = Ended { number, at, name: name.into(), node, exit: exit.to_string() };
        let mut buffer = Vec::new();
        put_record(&mut buffer, &Record::Ended(ended));
        if !self.shared.sink.put(buffer) {
            missed(1);
        }
    }

    fn records(&self, name: &str) -> bool {
        self.shared.only.is_empty() || self.shared.only.iter().any(|only| only == name)
    }

    fn next_number(&self) -> u64 {
        self.shared.next_record.fetch_add(1, Ordering::Relaxed)
    }
}

fn missed(records: u64) {
    metrics::counter!("soma_trace_missed_total").increment(records);
}

/// Records one incarnation of one actor.
pub struct Track {
    recorder: Recorder,
    actor: u64,
    /// The file that has the latest recorded state.
    file: Option<u64>,
    /// Entries missed since the latest recorded state.
    missed: u64,
}

impl Track {
    /// Lets the core handle an input, and records both. Returns the cause for all messages that follow from it.
    ///
    /// # Panics
    /// Passes on a panic of the core, after it is recorded with its input.
    pub fn handle<C: Core>(
        &mut self,
        core: &mut C,
        at: Now,
        origin: Origin,
        input: C::Input,
    ) -> (Cause, Vec<C::Effect>) {
        let mut buffer = Vec::new();
        let file = self.recorder.shared.sink.file();
        if self.missed > 0 {
            let gap = Gap { number: self.recorder.next_number(), actor: self.actor, missed: self.missed };
            put_record(&mut buffer, &Record::Gap(gap));
        }
        if self.missed > 0 || self.file != Some(file) {
            let state = State {
                number: self.recorder.next_number(),
                at,
                actor: self.actor,
                name: C::NAME.into(),
                node: self.recorder.node.as_ref().into(),
                core: encode(core),
            };
            put_record(&mut buffer, &Record::State(state));
        }
        let number = self.recorder.next_number();
        let span = origin.cause.map_or(number, |cause| cause.span);
        let encoded = encode(&input);
        let decided = catch_unwind(AssertUnwindSafe(|| core.handle(at, input)));
        let decision = match &decided {
            Ok(effects) => effects_of(encode(effects)),
            Err(panic) => Decision::Panicked(panic_message(&**panic)),
        };
        let entry = Entry {
            number,
            at,
            actor: self.actor,
            sender: origin.sender.into(),
            cause: origin.cause.map(|cause| cause.record),
            span,
            input: encoded,
            decision,
        };
        put_record(&mut buffer, &Record::Entry(entry));
        if self.recorder.shared.sink.put(buffer) {
            (self.missed, self.file) = (0, Some(file));
        } else {
            self.missed += 1;
            missed(1);
        }
        match decided {
            Ok(effects) => (Cause { record: number, span }, effects),
            Err(panic) => resume_unwind(panic),
        }
    }
}

fn effects_of(effects: Vec<u8>) -> Decision {
    Decision::Effects {
        digest: ContentDigest::of(&[&effects]),
        effects: (effects.len() <= MAX_EFFECTS_BYTES).then(|| effects.into()),
    }
}
