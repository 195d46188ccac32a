//! A chain that goes on at a given rate.

use crate::ChainBuilder;
use soma_types::CertifiedCommit;
use std::time::Duration;
use tokio::time::{Interval, MissedTickBehavior, interval};

/// Makes commits at a steady rate. A late caller gets the missed ones at once, so the rate holds on average.
pub struct LiveSource {
    builder: ChainBuilder,
    interval: Interval,
}

impl LiveSource {
    /// Goes on where `builder` is, with `commits_per_second` (at least 1).
    pub fn new(builder: ChainBuilder, commits_per_second: u32) -> Self {
        let mut interval = interval(Duration::from_secs(1) / commits_per_second.max(1));
        interval.set_missed_tick_behavior(MissedTickBehavior::Burst);
        Self { builder, interval }
    }

    /// The next commit, when it is due.
    pub async fn next(&mut self) -> CertifiedCommit {
        self.interval.tick().await;
        self.builder.next_commit()
    }
}
