//! What an actor is given from around it: the time, and in tests the faults that are planned for it.

use crate::Clock;
use soma_protocol::Now;
use std::{fmt, sync::Arc};

/// Decides whether an actor is to fail instead of taking an input, and with which panic message. It sees the name of
/// the actor's core and the input in `Debug` form.
pub type PlannedFaults = Arc<dyn Fn(&'static str, &dyn fmt::Debug) -> Option<String> + Send + Sync>;

/// What the shells of one node share. Cheap to clone.
#[derive(Clone)]
pub struct Environment {
    clock: Clock,
    faults: Option<PlannedFaults>,
}

impl Environment {
    /// An environment in which nothing fails on purpose.
    pub fn new(clock: Clock) -> Self {
        Self { clock, faults: None }
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

    /// The clock, for those who measure spans of time only.
    pub fn clock(&self) -> Clock {
        self.clock
    }

    /// Panics if a fault is planned for this input.
    pub(crate) fn fail_if_planned(&self, actor: &'static str, input: &dyn fmt::Debug) {
        if let Some(message) = self.faults.as_ref().and_then(|faults| faults(actor, input)) {
            // What the shell of an actor does when a handler has a bug.
            panic!("{message}");
        }
    }
}
