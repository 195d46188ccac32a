//! Which messages of one topic are checked next.
//!
//! At most [`MAX_CHECKS`] checks run at once. What comes meanwhile joins the next one, so the batches of signatures grow
//! under load.

use super::messages::Sequence;
use serde::{Deserialize, Serialize};
use std::{
    collections::{BTreeMap, VecDeque},
    time::Duration,
};

/// Checks of one topic at once: a slow validator of one topic holds this many threads.
const MAX_CHECKS: usize = 2;

/// Messages of one check, for each attempt. A message that breaks the validator takes fewer others with it each time.
const MAX_MESSAGES: [usize; 3] = [1_024, 32, 1];

/// Bytes of payload of one check: a check of large messages is a short one, too.
const MAX_BYTES: u64 = 4 << 20;

/// Wait before a failed check is repeated: the Verifier restarts meanwhile.
const RETRY_AFTER: Duration = Duration::from_millis(200);

#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(super) struct Queued {
    pub(super) sequence: Sequence,
    pub(super) bytes: u32,
    /// Whether its signature is checked.
    pub(super) signature: bool,
}

#[derive(Default, Serialize, Deserialize)]
pub(super) struct Checks {
    queue: VecDeque<Queued>,
    running: BTreeMap<u64, Running>,
    /// Parts of failed checks, the earliest first.
    retries: VecDeque<Retry>,
}

#[derive(Serialize, Deserialize)]
struct Running {
    attempt: usize,
    messages: Vec<Queued>,
}

#[derive(Serialize, Deserialize)]
struct Retry {
    at: Duration,
    attempt: usize,
    messages: Vec<Queued>,
}

/// A check that has come back.
pub(super) struct Finished {
    pub(super) attempt: usize,
    pub(super) messages: Vec<Queued>,
}

impl Checks {
    pub(super) fn push(&mut self, queued: Queued) {
        self.queue.push_back(queued);
    }

    /// The messages of a check that may start now.
    pub(super) fn start(&mut self, now: Duration, number: &mut u64) -> Option<(u64, &[Queued])> {
        if self.running.len() >= MAX_CHECKS {
            return None;
        }
        let is_due = self.retries.front().is_some_and(|retry| retry.at <= now);
        let due = if is_due { self.retries.pop_front() } else { None };
        let (attempt, messages) = match due {
            Some(retry) => (retry.attempt, retry.messages),
            None => (0, self.next_batch()),
        };
        if messages.is_empty() {
            return None;
        }
        *number += 1;
        let running = self.running.entry(*number).or_insert(Running { attempt, messages });
        Some((*number, &running.messages))
    }

    fn next_batch(&mut self) -> Vec<Queued> {
        let Some(first) = self.queue.front().copied() else { return Vec::new() };
        let mut bytes = 0;
        let fitting = self.queue.iter().take(MAX_MESSAGES[0]).take_while(|queued| {
            bytes += u64::from(queued.bytes);
            queued.signature == first.signature && bytes <= MAX_BYTES
        });
        let count = fitting.count().max(1);
        self.queue.drain(..count).collect()
    }

    pub(super) fn runs(&self, number: u64) -> bool {
        self.running.contains_key(&number)
    }

    pub(super) fn finish(&mut self, number: u64) -> Option<Finished> {
        self.running.remove(&number).map(|Running { attempt, messages }| Finished { attempt, messages })
    }

    /// Repeats a failed check in smaller parts. Returns the messages if it failed too often.
    pub(super) fn retry(&mut self, now: Duration, failed: Finished) -> Vec<Queued> {
        let attempt = failed.attempt + 1;
        let Some(size) = MAX_MESSAGES.get(attempt) else { return failed.messages };
        for part in failed.messages.chunks(*size) {
            self.retries.push_back(Retry { at: now + RETRY_AFTER, attempt, messages: part.to_vec() });
        }
        Vec::new()
    }

    /// When a failed check is to be repeated.
    pub(super) fn next_retry(&self) -> Option<Duration> {
        self.retries.front().filter(|_| self.running.len() < MAX_CHECKS).map(|retry| retry.at)
    }
}
