//! Reads of the archive: a few at once, the others in order.

use super::{Effect, Failure};
use crate::core::Now;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeSet, VecDeque};

/// Reads at once. Each holds at most one segment.
pub const MAX_READS: usize = 8;

/// Reads that wait. StateSync has one listing and a few segments under way; more belong to its earlier incarnations.
pub const MAX_WAITING: usize = 64;

/// The state of reading.
#[derive(Default, Serialize, Deserialize)]
pub(super) struct Reads {
    running: BTreeSet<u64>,
    waiting: VecDeque<u64>,
    pub(super) segments: u64,
    pub(super) bytes: u64,
    pub(super) failure: Option<Failure>,
}

impl Reads {
    pub(super) fn on_read(&mut self, job: u64) -> Option<Effect> {
        if self.running.len() < MAX_READS {
            self.running.insert(job);
            return Some(Effect::Run(job));
        }
        if self.waiting.len() >= MAX_WAITING {
            return Some(Effect::Refuse(job));
        }
        self.waiting.push_back(job);
        None
    }

    pub(super) fn on_done(&mut self, now: Now, job: u64, bytes: u64, error: Option<String>) -> Option<Effect> {
        if !self.running.remove(&job) {
            return None;
        }
        self.segments += u64::from(bytes > 0);
        self.bytes += bytes;
        match error {
            Some(reason) => Failure::add(&mut self.failure, now, reason),
            None => self.failure = None,
        }
        let next = self.waiting.pop_front()?;
        self.running.insert(next);
        Some(Effect::Run(next))
    }
}
