//! What an actor is given from around it: the time, what records it, and in tests the faults planned for it.

use crate::{
    child_counts::ChildCounts,
    clock::Clock,
    exit::ExitReason,
    telemetry::{Entered, Telemetry},
};
use soma_protocol::{Core, Now};
use soma_replay::{Recorder, Track};
use std::{fmt, sync::Arc, time::Duration};
use tokio::sync::watch;

/// What goes wrong with an actor when it takes an input.
#[derive(Clone)]
pub enum Fault {
    /// Its handler panics with this message.
    Panic(String),
    /// It gives up with this error.
    Error(String),
    /// It does nothing for this long, and then handles the input.
    Delay(Duration),
    /// It does nothing ever more: like a future that it waits for and that never wakes.
    Hang,
    /// Its thread does this first: like a handler that does not return. Not for simulation, where one thread runs all.
    Block(Arc<dyn Fn() + Send + Sync>),
}

impl fmt::Debug for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Panic(message) => write!(f, "Panic({message:?})"),
            Self::Error(reason) => write!(f, "Error({reason:?})"),
            Self::Delay(time) => write!(f, "Delay({time:?})"),
            Self::Hang => f.write_str("Hang"),
            Self::Block(_) => f.write_str("Block"),
        }
    }
}

/// Decides whether something is to go wrong when an actor takes an input. It sees the name of the actor's core and the
/// input in `Debug` form.
pub type PlannedFaults = Arc<dyn Fn(&'static str, &dyn fmt::Debug) -> Option<Fault> + Send + Sync>;

/// Where actors run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Placement {
    /// All on the thread of their supervisor.
    Here,
    /// Each on a thread of its own.
    Threads,
}

/// What the shells of one node share. Cheap to clone.
#[derive(Clone)]
pub struct RuntimeContext {
    clock: Clock,
    recording: watch::Receiver<Option<Recorder>>,
    faults: Option<PlannedFaults>,
    placement: Placement,
    child_counts: ChildCounts,
    telemetry: Option<Telemetry>,
}

impl RuntimeContext {
    /// A context in which nothing is recorded, nothing fails on purpose, and actors run on the thread of their
    /// supervisor.
    pub fn new(clock: Clock) -> Self {
        Self {
            clock,
            recording: watch::channel(None).1,
            faults: None,
            placement: Placement::Here,
            child_counts: ChildCounts::default(),
            telemetry: None,
        }
    }

    /// Gives each supervised actor a thread of its own, named after it, so that one whose handler does not return can
    /// be left behind.
    pub fn with_threads(mut self) -> Self {
        self.placement = Placement::Threads;
        self
    }

    /// Has what actors receive and decide recorded.
    pub fn with_recorder(self, recorder: Recorder) -> Self {
        self.with_recording(watch::channel(Some(recorder)).1)
    }

    /// The same, while there is a recorder: it may come and go. An actor that is recorded from some moment on begins
    /// with its whole state, from which replay continues.
    pub fn with_recording(mut self, recording: watch::Receiver<Option<Recorder>>) -> Self {
        self.recording = recording;
        self
    }

    /// Has every thread that is started here enter this.
    pub fn with_telemetry(mut self, telemetry: Telemetry) -> Self {
        self.telemetry = Some(telemetry);
        self
    }

    /// The current thread belongs to the node until the returned value is dropped.
    pub fn enter_thread(&self) -> Option<Entered> {
        self.telemetry.as_ref().map(Telemetry::enter)
    }

    /// Has actors fail as planned: for tests of what follows.
    pub fn with_faults(mut self, faults: PlannedFaults) -> Self {
        self.faults = Some(faults);
        self
    }

    /// The present time.
    pub fn now(&self) -> Now {
        self.clock.now()
    }

    /// What tells the time.
    pub fn clock(&self) -> Clock {
        self.clock
    }

    /// Notes how an actor ended.
    pub fn record_end(&self, name: &str, exit: &ExitReason) {
        if let Some(recorder) = &*self.recording.borrow() {
            recorder.ended(name, self.now(), exit);
        }
    }

    pub(crate) fn tracking<C: Core>(&self) -> Tracking {
        let mut tracking = Tracking { recording: self.recording.clone(), track: None };
        tracking.renew::<C>();
        tracking
    }

    /// The planned fault of this input.
    pub(crate) fn planned(&self, actor: &'static str, input: &dyn fmt::Debug) -> Option<Fault> {
        self.faults.as_ref().and_then(|faults| faults(actor, input))
    }

    pub(crate) fn placement(&self) -> Placement {
        self.placement
    }

    /// The living actors and threads.
    pub fn child_counts(&self) -> &ChildCounts {
        &self.child_counts
    }
}

/// The track of one incarnation of an actor, while there is a recorder.
pub(crate) struct Tracking {
    recording: watch::Receiver<Option<Recorder>>,
    track: Option<Track>,
}

impl Tracking {
    /// The track, if the core is recorded now.
    pub(crate) fn track<C: Core>(&mut self) -> Option<&mut Track> {
        // An error means that the recorder never changes again.
        if matches!(self.recording.has_changed(), Ok(true)) {
            self.renew::<C>();
        }
        self.track.as_mut()
    }

    fn renew<C: Core>(&mut self) {
        self.track = self.recording.borrow_and_update().as_ref().and_then(Recorder::track::<C>);
    }
}
