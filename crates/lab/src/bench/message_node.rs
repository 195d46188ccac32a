//! A node that sends or hears messages, seen from inside.
//!
//! ```text
//!   sign ahead --> ready --> wait for streams --> warm-up --> step 1: its loads at once --> step 2 --> ... --> Sent
//!   a thread for each topic heard --> Tally --> Heard, when the node is asked to stop
//! ```

use super::{
    message_load::{Load, MessageWork, Sent, Tally, WARM_UP, now_ns, payload},
    node_io::{Event, tell},
    usage,
};
use soma_p2p::{Handle, MessageEvent, PublishError, SignedMessage, Topic};
use soma_p2p_cli::CliError;
use std::{
    collections::BTreeSet,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::{Duration, Instant},
};
use tokio::runtime;

/// How long nodes may take to open their streams.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(30);

/// How long the node may take to learn its committee.
const COMMITTEE_TIMEOUT: Duration = Duration::from_secs(10);

/// Between two questions for it.
const ASK_AGAIN: Duration = Duration::from_millis(10);

/// After the streams are open: both sides may have opened some, and close the second ones.
const SETTLE: Duration = Duration::from_millis(1_500);

/// Messages of each topic before anything is measured.
const WARM_UP_MESSAGES: u32 = 200;

/// Time between them.
const WARM_UP_INTERVAL: Duration = Duration::from_millis(2);

/// Messages that are published at once.
const BATCH: usize = 256;

/// A load with a rate wakes at most so often, and then sends all that is due.
const SHORTEST_SLEEP: Duration = Duration::from_millis(1);

/// Time between two steps; what is in queues is sent meanwhile.
const BETWEEN_STEPS: Duration = Duration::from_millis(500);

/// Counts what the node hears.
pub(crate) struct Hearing(Vec<Arc<Mutex<Tally>>>);

impl Hearing {
    /// Begins to listen to topics.
    pub(crate) fn start(handle: &Handle, topics: &[Topic]) -> Self {
        Self(topics.iter().map(|topic| hear(handle, *topic)).collect())
    }

    /// Tells what was heard until now.
    pub(crate) fn tell(&self) -> Result<(), CliError> {
        if self.0.is_empty() {
            return Ok(());
        }
        let sums = self.0.iter().flat_map(|tally| tally.lock().unwrap_or_else(PoisonError::into_inner).sums());
        tell(&Event::Heard { loads: sums.collect() })
    }
}

fn hear(handle: &Handle, topic: Topic) -> Arc<Mutex<Tally>> {
    let (mut messages, tally) = (handle.messages(topic), Arc::new(Mutex::new(Tally::default())));
    let shared = tally.clone();
    // Ends with the system.
    thread::spawn(move || {
        while let Some(event) = messages.blocking_next() {
            let now_ns = now_ns();
            // Locked by another thread only when the node tells.
            let mut tally = shared.lock().unwrap_or_else(PoisonError::into_inner);
            match event {
                MessageEvent::Message(message) => {
                    tally.heard(&message.message().payload, now_ns, usage::process_cpu_s);
                }
                MessageEvent::Gap { missed } => tally.missed(missed.max(1)),
                MessageEvent::Equivocation { .. } => {}
            }
        }
    });
    tally
}

/// A load with the messages that are signed already.
struct Prepared {
    load: Load,
    ahead: Vec<SignedMessage>,
}

/// What the node will send.
pub(crate) struct Spreading {
    handle: Handle,
    at_once: bool,
    steps: Vec<Vec<Prepared>>,
}

impl Spreading {
    /// Signs ahead what is to be.
    pub(crate) fn prepare(handle: Handle, work: &MessageWork) -> Result<Self, CliError> {
        let prepare = |load: &Load| {
            let ahead = if load.signed_ahead { sign_ahead(&handle, load)? } else { Vec::new() };
            Ok(Prepared { load: *load, ahead })
        };
        let steps = work.spread.iter().map(|step| step.iter().map(prepare).collect());
        let steps = steps.collect::<Result<_, CliError>>()?;
        Ok(Self { handle, at_once: work.at_once, steps })
    }

    /// Sends it all on a thread of its own, and tells what was sent. An error ends the process.
    pub(crate) fn start(self) {
        if self.steps.is_empty() {
            return;
        }
        thread::spawn(move || {
            if let Err(error) = self.run() {
                eprintln!("{error}");
                std::process::exit(1);
            }
        });
    }

    fn run(self) -> Result<(), CliError> {
        let Self { handle, at_once, steps } = self;
        let topics: BTreeSet<Topic> = steps.iter().flatten().map(|prepared| prepared.load.topic).collect();
        connect(&handle, &topics)?;
        if !at_once {
            thread::sleep(SETTLE);
            for topic in topics {
                warm_up(&handle, topic)?;
            }
            thread::sleep(BETWEEN_STEPS);
        }
        for step in steps {
            let sent = run_step(&handle, step)?;
            thread::sleep(BETWEEN_STEPS);
            for (sent, cpu_s) in sent {
                tell(&Event::Sent(Sent { cpu_s: usage::process_cpu_s() - cpu_s, ..sent }))?;
            }
        }
        tell(&Event::AllSent)
    }
}

fn current_thread() -> Result<runtime::Runtime, CliError> {
    runtime::Builder::new_current_thread().enable_time().build().map_err(CliError::failed)
}

/// Waits until there is a stream of every topic.
fn connect(handle: &Handle, topics: &BTreeSet<Topic>) -> Result<(), CliError> {
    let has_streams = |status: &soma_p2p::Status| {
        let known = status.broadcast.as_ref().map(|broadcast| &broadcast.topics);
        topics.iter().all(|topic| known.and_then(|known| known.get(topic)).is_some_and(|topic| topic.peers > 0))
    };
    current_thread()?.block_on(async {
        let connecting = tokio::time::timeout(CONNECT_TIMEOUT, handle.wait_until(has_streams));
        connecting.await.map(drop).map_err(|_| CliError::failed("the other node has no stream for messages"))
    })
}

fn warm_up(handle: &Handle, topic: Topic) -> Result<(), CliError> {
    let runtime = current_thread()?;
    for message in 0..WARM_UP_MESSAGES {
        let publishing = handle.publish(topic, payload(WARM_UP, message, 0, 64));
        runtime.block_on(publishing).map_err(CliError::failed)?;
        thread::sleep(WARM_UP_INTERVAL);
    }
    Ok(())
}

fn sign(handle: &Handle, load: &Load, message: u32, at_ns: u64) -> Result<SignedMessage, PublishError> {
    handle.sign(load.topic, payload(load.number, message, at_ns, load.payload_bytes).into())
}

/// Signs all messages of a load, on every core.
fn sign_ahead(handle: &Handle, load: &Load) -> Result<Vec<SignedMessage>, CliError> {
    let deadline = Instant::now() + COMMITTEE_TIMEOUT;
    // A node that has just started does not know its committee.
    while sign(handle, load, 0, 0) == Err(PublishError::Unavailable) && Instant::now() < deadline {
        thread::sleep(ASK_AGAIN);
    }
    let share = load.messages.div_ceil(usage::cores() as u32).max(1);
    let parts = thread::scope(|scope| {
        let threads = (0..load.messages).step_by(share as usize).map(|first| {
            let part = first..load.messages.min(first + share);
            scope.spawn(move || part.map(|message| sign(handle, load, message, 0)).collect::<Result<Vec<_>, _>>())
        });
        let threads: Vec<_> = threads.collect();
        threads.into_iter().map(thread::ScopedJoinHandle::join).collect::<Vec<_>>()
    });
    let mut messages = Vec::new();
    for part in parts {
        let part = part.map_err(|_| CliError::failed("a thread that signs has panicked"))?;
        messages.extend(part.map_err(CliError::failed)?);
    }
    Ok(messages)
}

/// Sends the loads of one step. Returns each with the CPU time of the process at its start.
fn run_step(handle: &Handle, step: Vec<Prepared>) -> Result<Vec<(Sent, f64)>, CliError> {
    let flooded = AtomicBool::new(false);
    let floods = step.iter().filter(|prepared| prepared.load.per_second.is_none()).count();
    let results = thread::scope(|scope| {
        let flooded = &flooded;
        let threads = step.into_iter().map(|prepared| {
            scope.spawn(move || match prepared.load.per_second {
                Some(rate) => pace(handle, prepared, rate, flooded),
                None => {
                    let sent = flood(handle, prepared);
                    flooded.store(floods == 1, Ordering::Relaxed);
                    sent
                }
            })
        });
        let threads: Vec<_> = threads.collect();
        threads.into_iter().map(thread::ScopedJoinHandle::join).collect::<Vec<_>>()
    });
    let panicked = |_| CliError::failed("a thread that sends has panicked");
    results.into_iter().map(|result| result.map_err(panicked)?).collect()
}

/// Sends messages as fast as their queues take them.
fn flood(handle: &Handle, prepared: Prepared) -> Result<(Sent, f64), CliError> {
    let mut sending = Sending::new(handle, prepared)?;
    while sending.left() > 0 {
        sending.send(BATCH)?;
    }
    Ok(sending.sent())
}

/// Sends each message when it is due, or as soon as its queue takes it.
fn pace(handle: &Handle, prepared: Prepared, rate: u32, flooded: &AtomicBool) -> Result<(Sent, f64), CliError> {
    let mut sending = Sending::new(handle, prepared)?;
    let interval = Duration::from_secs(1) / rate.max(1);
    let started = Instant::now();
    while sending.left() > 0 && !flooded.load(Ordering::Relaxed) {
        let due = (started.elapsed().as_secs_f64() * f64::from(rate)) as u32 + 1;
        let due = due.saturating_sub(sending.next) as usize;
        if due > 0 {
            sending.send(due.min(BATCH))?;
        }
        if due <= BATCH {
            let next = (interval * sending.next).saturating_sub(started.elapsed());
            thread::sleep(next.max(SHORTEST_SLEEP.min(interval.max(SHORTEST_SLEEP / 2))));
        }
    }
    Ok(sending.sent())
}

/// A load on its way.
struct Sending<'a> {
    handle: &'a Handle,
    load: Load,
    ahead: std::vec::IntoIter<SignedMessage>,
    runtime: runtime::Runtime,
    /// The number of the next message.
    next: u32,
    first_ns: u64,
    cpu_s: f64,
}

impl<'a> Sending<'a> {
    fn new(handle: &'a Handle, Prepared { load, ahead }: Prepared) -> Result<Self, CliError> {
        let (runtime, ahead) = (current_thread()?, ahead.into_iter());
        Ok(Self { handle, load, ahead, runtime, next: 0, first_ns: now_ns(), cpu_s: usage::process_cpu_s() })
    }

    fn left(&self) -> u32 {
        self.load.messages - self.next
    }

    /// Publishes the next messages at once.
    fn send(&mut self, count: usize) -> Result<(), CliError> {
        let count = count.min(self.left() as usize);
        let mut batch: Vec<SignedMessage> = self.ahead.by_ref().take(count).collect();
        let is_ahead = !batch.is_empty();
        for position in 0..count {
            // Of those that are signed ahead, the first one is signed again: with the time.
            if is_ahead && position > 0 {
                break;
            }
            let message = sign(self.handle, &self.load, self.next + position as u32, now_ns());
            let message = message.map_err(CliError::failed)?;
            match batch.get_mut(position) {
                Some(place) => *place = message,
                None => batch.push(message),
            }
        }
        self.runtime.block_on(self.handle.publish_signed(batch)).map_err(CliError::failed)?;
        self.next += count as u32;
        Ok(())
    }

    fn sent(&self) -> (Sent, f64) {
        let (number, messages) = (self.load.number, self.next);
        (Sent { number, messages, first_ns: self.first_ns, last_ns: now_ns(), cpu_s: 0.0 }, self.cpu_s)
    }
}
