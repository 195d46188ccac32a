//! The tree as operators see it.

use crate::{clock::Clock, exit::ExitReason, life::Life, strategy::Strategy};
use serde::{Deserialize, Serialize};
use std::time::Duration;
use tokio::sync::watch;

/// Where a child is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ChildState {
    /// Being made.
    Starting,
    /// Alive.
    Running,
    /// Told to stop.
    Stopping,
    /// Ended; a new one comes after the backoff.
    BackingOff,
    /// Ended for good, as wanted.
    Stopped,
    /// Ended for good: it did not stay up.
    GivenUp,
}

/// An actor, or a supervisor with its children, at one moment.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChildStatus {
    /// Its name.
    pub name: String,
    /// Where it is in its life.
    pub state: ChildState,
    /// For how long, in milliseconds.
    pub in_state_ms: u64,
    /// Restarts so far.
    pub restarts: u64,
    /// How it last ended.
    pub last_exit: Option<ExitReason>,
    /// Messages that wait in its mailbox or are being handled; of an actor that is alive.
    pub mailbox: Option<usize>,
    /// What a supervisor does when a child ends; none for an actor.
    pub strategy: Option<Strategy>,
    /// A supervisor's children, in the order in which they are started.
    pub children: Vec<ChildStatus>,
}

impl ChildStatus {
    /// The actors of this tree, in the order in which they are started.
    pub fn actors(&self) -> Vec<&ChildStatus> {
        match self.strategy {
            None => vec![self],
            Some(_) => self.children.iter().flat_map(ChildStatus::actors).collect(),
        }
    }

    /// The child of this name, wherever it is in the tree.
    pub fn find(&self, name: &str) -> Option<&ChildStatus> {
        if self.name == name {
            return Some(self);
        }
        self.children.iter().find_map(|child| child.find(name))
    }
}

/// What a child shows of itself, as it changes.
#[derive(Clone, Debug)]
pub(crate) struct Shown {
    state: ChildState,
    since: Duration,
    restarts: u64,
    last_exit: Option<ExitReason>,
    life: Option<Life>,
}

/// Where a child is shown.
#[derive(Clone)]
pub(crate) struct Display {
    clock: Clock,
    shown: watch::Sender<Shown>,
}

impl Display {
    pub(crate) fn new(clock: Clock) -> Self {
        let since = clock.now().monotonic;
        let shown = Shown { state: ChildState::Starting, since, restarts: 0, last_exit: None, life: None };
        Self { clock, shown: watch::Sender::new(shown) }
    }

    pub(crate) fn is(&self, state: ChildState) -> bool {
        self.shown.borrow().state == state
    }

    pub(crate) fn state(&self, state: ChildState) {
        self.change(|shown| shown.state = state);
    }

    pub(crate) fn running(&self, life: Option<Life>) {
        self.change(|shown| (shown.state, shown.life) = (ChildState::Running, life));
    }

    pub(crate) fn ended(&self, state: ChildState, exit: ExitReason) {
        self.change(|shown| (shown.state, shown.life, shown.last_exit) = (state, None, Some(exit)));
    }

    /// It is made, for the first time or anew.
    pub(crate) fn starting(&self) {
        self.change(|shown| {
            // A child before its first life is shown as starting.
            shown.restarts += u64::from(shown.state != ChildState::Starting);
            shown.state = ChildState::Starting;
        });
    }

    fn change(&self, change: impl FnOnce(&mut Shown)) {
        let now = self.clock.now().monotonic;
        self.shown.send_modify(|shown| {
            let before = shown.state;
            change(shown);
            if shown.state != before {
                shown.since = now;
            }
        });
    }
}

/// The way to look at a child and all below it, from any thread.
#[derive(Clone)]
pub struct Tree {
    pub(crate) name: &'static str,
    pub(crate) strategy: Option<Strategy>,
    pub(crate) children: Vec<Tree>,
    clock: Clock,
    shown: watch::Receiver<Shown>,
}

impl Tree {
    pub(crate) fn new(name: &'static str, strategy: Option<Strategy>, children: Vec<Tree>, display: &Display) -> Self {
        Self { name, strategy, children, clock: display.clock, shown: display.shown.subscribe() }
    }

    /// How it is now.
    pub fn status(&self) -> ChildStatus {
        let Shown { state, since, restarts, last_exit, life } = self.shown.borrow().clone();
        let in_state = self.clock.now().monotonic.saturating_sub(since);
        ChildStatus {
            name: self.name.into(),
            state,
            in_state_ms: u64::try_from(in_state.as_millis()).unwrap_or(u64::MAX),
            restarts,
            last_exit,
            mailbox: life.as_ref().map(Life::queued),
            strategy: self.strategy,
            children: self.children.iter().map(Tree::status).collect(),
        }
    }

    /// The child of this name, wherever it is in the tree.
    pub fn find(&self, name: &str) -> Option<&Tree> {
        if self.name == name {
            return Some(self);
        }
        self.children.iter().find_map(|child| child.find(name))
    }

    /// Resolves when every actor of this tree has run.
    pub async fn up(&self) {
        if self.strategy.is_none() {
            self.wait_until(|child| child.state == ChildState::Running).await;
        }
        for child in &self.children {
            Box::pin(child.up()).await;
        }
    }

    /// Resolves when this child is as wanted, with what it is then; at once if it is. Children of a supervisor that
    /// change do not count as a change of their supervisor.
    pub async fn wait_until(&self, wanted: impl Fn(&ChildStatus) -> bool) -> ChildStatus {
        let mut shown = self.shown.clone();
        loop {
            shown.borrow_and_update();
            let status = self.status();
            if wanted(&status) || shown.changed().await.is_err() {
                return status;
            }
        }
    }
}
