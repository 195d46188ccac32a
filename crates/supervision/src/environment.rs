//! What an actor is given from around it: the time, what records it, and in tests the faults planned for it.

use crate::{Clock, ExitReason};
use soma_protocol::{Core, Now};
use soma_replay::{Recorder, Track};
use std::{fmt, sync::Arc};

/// Decides whether an actor is to fail instead of taking an input, and with which panic message. It sees the name of
/// the actor's core and the input in `Debug` form.
pub type PlannedFaults = Arc<dyn Fn(&'static str, &dyn fmt::Debug) -> Option<String> + Send + Sync>;

/// What the shells of one node share. Cheap to clone.
#[derive(Clone)]
pub struct Environment {
    clock: Clock,
    recorder: Option<Recorder>,
    faults: Option<PlannedFaults>,
}

impl Environment {
    /// An environment in which nothing is recorded and nothing fails on purpose.
    pub fn new(clock: Clock) -> Self {
        Self { clock, recorder: None, faults: None }
    }

    /// Has what actors receive and decide recorded.
    pub fn with_recorder(mut self, recorder: Recorder) -> Self {
        self.recorder = Some(recorder);
        self
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

    /// Notes how an actor ended.
    pub fn record_end(&self, name: &str, exit: &ExitReason) {
        if let Some(recorder) = &self.recorder {
            recorder.ended(name, self.now(), exit);
        }
    }

    pub(crate) fn track<C: Core>(&self) -> Option<Track> {
        self.recorder.as_ref().and_then(Recorder::track::<C>)
    }

    /// Panics if a fault is planned for this input.
    pub(crate) fn fail_if_planned(&self, actor: &'static str, input: &dyn fmt::Debug) {
        if let Some(message) = self.faults.as_ref().and_then(|faults| faults(actor, input)) {
            // Asked for by a test, and by nothing else: it is what a handler with a bug does.
            panic!("{message}");
        }
    }
}
