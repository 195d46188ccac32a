//! The recording side: what a shell does instead of calling its core directly.

use crate::{
    Cause, Origin,
    cores::panic_message,
    encoding::encode,
    format::put_record,
    record::{Decision, Ended, Entry, Gap, Header, Record, State},
    ring::Queue,
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

/// Effects are kept whole up to this many bytes, so that a divergence can be shown; longer ones as their digest.
const MAX_EFFECTS_BYTES: usize = 4 << 10;

/// Records the cores of one node, or with [`for_node`](Self::for_node) of several. Cheap to clone.
#[derive(Clone)]
pub struct Recorder {
    shared: Arc<Shared>,
    node: Arc<str>,
}

struct Shared {
    sink: Sink,
    /// Names of the cores to record; empty: all.
    only: Vec<String>,
    next_record: AtomicU64,
    next_actor: AtomicU64,
}

enum Sink {
    Ring(Queue),
    Memory(mpsc::Sender<Vec<u8>>),
}

impl Sink {
    /// Counts the files begun: in each, the state of a core comes before its first entry.
    fn file(&self) -> u64 {
        match self {
            Self::Ring(queue) => queue.file(),
            Self::Memory(_) => 0,
        }
    }

    /// Takes encoded records, or not; never waits.
    fn put(&self, records: Vec<u8>) -> bool {
        match self {
            Self::Ring(queue) => queue.put(records),
            Self::Memory(kept) => kept.send(records).is_ok(),
        }
    }
}

/// What was recorded in memory: all of it, for tests and simulation.
pub struct MemoryTrace {
    header: Header,
    records: mpsc::Receiver<Vec<u8>>,
    file: Vec<u8>,
}

impl MemoryTrace {
    /// The trace so far, as the bytes of a file.
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

    /// Keeps everything in memory. `run` names the run in the trace's header.
    pub fn in_memory(run: u64) -> (Self, MemoryTrace) {
        let (kept, records) = mpsc::channel();
        let header = Header { software: env!("CARGO_PKG_VERSION").into(), run, file: 0 };
        (Self::new(Sink::Memory(kept), Vec::new()), MemoryTrace { header, records, file: Vec::new() })
    }

    fn new(sink: Sink, only: Vec<String>) -> Self {
        let shared = Shared { sink, only, next_record: AtomicU64::new(0), next_actor: AtomicU64::new(0) };
        Self { shared: Arc::new(shared), node: "".into() }
    }

    /// The same recorder, for the cores of the node of this name.
    pub fn for_node(&self, node: &str) -> Self {
        Self { shared: self.shared.clone(), node: node.into() }
    }

    /// Begins to record one incarnation of an actor, if its core is one of those to record.
    pub fn track<C: Core>(&self) -> Option<Track> {
        self.records(C::NAME).then(|| Track {
            recorder: self.clone(),
            actor: self.shared.next_actor.fetch_add(1, Ordering::Relaxed),
            file: None,
            missed: 0,
        })
    }

    /// Notes the end of an actor, in words.
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
    /// The file in which the state was last written down.
    file: Option<u64>,
    /// Entries missed since then.
    missed: u64,
}

impl Track {
    /// Has the core handle an input, and records both. The cause is that of whatever follows.
    ///
    /// A panic of the core is recorded with the input that led to it, and goes on.
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
