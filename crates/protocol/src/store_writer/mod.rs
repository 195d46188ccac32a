//! StoreWriter: one write at a time, in the order asked, and a bound on what waits.
//!
//! Address-book updates wait behind commits; both go through here, so the store has one writer.

use crate::core::{Core, Now};
use serde::{Deserialize, Serialize};
use std::collections::VecDeque;
use strum::VariantNames;

/// Writes waiting behind the one at work. StateSync asks for two batches at a time and Discovery for one update each
/// interval, so more than a few means that the disk hangs.
const MAX_WAITING: usize = 16;

/// What can happen to the StoreWriter.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, VariantNames)]
pub enum Input {
    /// From StateSync and Discovery: write this.
    Submit {
        /// Under which the shell keeps data and answer's address.
        job: u64,
    },
    /// From the disk.
    Done {
        /// Which.
        job: u64,
        /// The store's error, if it failed.
        error: Option<String>,
    },
}

/// What the shell is to do.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Effect {
    /// Write.
    Run(u64),
    /// Tell the asker that too many writes wait.
    Refuse(u64),
}

/// The StoreWriter as operators see it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Snapshot {
    /// Writes under way (0 or 1) and waiting.
    pub queued: usize,
    /// Writes done since start.
    pub done: u64,
    /// Writes failed since start.
    pub failed: u64,
    /// The last error, until a write succeeds.
    pub last_error: Option<String>,
}

/// The core of the StoreWriter.
#[derive(Default, Serialize, Deserialize)]
pub struct StoreWriter {
    running: Option<u64>,
    waiting: VecDeque<u64>,
    done: u64,
    failed: u64,
    last_error: Option<String>,
}

impl Core for StoreWriter {
    type Input = Input;
    type Effect = Effect;
    type Snapshot = Snapshot;

    const NAME: &'static str = "store-writer";

    fn handle(&mut self, _now: Now, input: Input) -> Vec<Effect> {
        match input {
            Input::Submit { job } if self.waiting.len() >= MAX_WAITING => return vec![Effect::Refuse(job)],
            Input::Submit { job } => self.waiting.push_back(job),
            Input::Done { job, error } => {
                if self.running == Some(job) {
                    self.running = None;
                }
                self.done += 1;
                self.failed += u64::from(error.is_some());
                self.last_error = error;
            }
        }
        if self.running.is_some() {
            return Vec::new();
        }
        self.running = self.waiting.pop_front();
        self.running.map(Effect::Run).into_iter().collect()
    }

    fn snapshot(&self) -> Snapshot {
        Snapshot {
            queued: self.waiting.len() + usize::from(self.running.is_some()),
            done: self.done,
            failed: self.failed,
            last_error: self.last_error.clone(),
        }
    }
}

#[cfg(test)]
mod tests;
