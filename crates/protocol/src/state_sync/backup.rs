//! Backups: a range that takes longer than it should is asked of a second peer, and whoever delivers first wins.
//!
//! ```text
//!   worker of peer a   |------------- patience -------------|---------------- ...  cancelled
//!   worker of peer b                                        |------ delivers
//! ```
//!
//! How long a range should take is what this peer's downloads have taken, and so much more that one in twenty takes
//! longer. Only downloads count: a range that is being checked waits for this node's own processor, and a second one
//! would only add to it. The next range in order, for which all others wait, gets a backup at once, others later.

use super::{
    Effect, Outcome, RangeKey, Shortfall, StateSync,
    flow::Asked,
    plan::{Range, RangeState},
};
use crate::{core::Now, peer_heights::NoPeer};
use serde::{Deserialize, Serialize};
use soma_types::{CommitIndex, PeerId};
use std::time::Duration;

/// How many times longer a range is waited for that others do not wait for.
const PATIENCE_BEHIND: u32 = 3;

/// The second worker of a range.
#[derive(Serialize, Deserialize)]
pub(super) struct Backup {
    pub(super) key: RangeKey,
    pub(super) reserve: u64,
    /// Whom it asks, and since when. `None` while PeerHeights is choosing.
    pub(super) peer: Option<(PeerId, Asked)>,
}

impl Range {
    /// When it gets a backup, if it may get one.
    fn backup_at(&self, patience: impl Fn(PeerId) -> Duration) -> Option<Duration> {
        match &self.state {
            RangeState::Running { peer, asked, downloaded: false, .. } if self.backup.is_none() => {
                Some(asked.at.max(self.no_backup_at.unwrap_or_default()) + patience(*peer))
            }
            _ => None,
        }
    }
}

impl StateSync {
    fn patience(&self, start: CommitIndex) -> impl Fn(PeerId) -> Duration + use<'_> {
        let times = if start <= self.tip.commit.index + 1 { 1 } else { PATIENCE_BEHIND };
        move |peer| self.flow.patience(peer) * times
    }

    /// When ranges at work get backups.
    pub(super) fn backups_at(&self) -> impl Iterator<Item = Duration> {
        self.ranges.iter().filter_map(|(start, range)| range.backup_at(self.patience(*start)))
    }

    /// Asks for second peers for the ranges that are late, as far as bounds allow.
    pub(super) fn start_backups(&mut self, now: Now, effects: &mut Vec<Effect>) {
        let is_due = |start: CommitIndex, range: &Range| {
            range.backup_at(self.patience(start)).is_some_and(|at| at <= now.monotonic)
        };
        let due = self.ranges.iter().filter(|(start, range)| is_due(**start, range)).map(|(start, _)| *start);
        for start in due.collect::<Vec<_>>() {
            let (next, others) = (self.bytes_of_next(), self.bytes_of_others());
            let fits = |reserve: u64| match start <= self.tip.commit.index + 1 {
                true => others + next + reserve <= self.config.bytes_in_flight,
                false => others + reserve <= self.config.bytes_in_flight.saturating_sub(self.kept_for_next()),
            };
            let has_room = self.workers() < self.config.max_workers;
            let Some(range) = self.ranges.get(&start) else { continue };
            let RangeState::Running { peer, reserve, .. } = range.state else { continue };
            if !has_room || !fits(reserve) {
                continue;
            }
            self.next_key += 1;
            let key = RangeKey(self.next_key);
            if let Some(range) = self.ranges.get_mut(&start) {
                range.backup = Some(Backup { key, reserve, peer: None });
            }
            effects.push(Effect::Pick { key, start, avoid: Some(peer) });
        }
    }

    /// The first commit of the range whose backup has this key.
    pub(super) fn start_of_backup(&self, key: RangeKey) -> Option<CommitIndex> {
        let has = |range: &Range| range.backup.as_ref().is_some_and(|backup| backup.key == key);
        self.ranges.iter().find(|(_, range)| has(range)).map(|(start, _)| *start)
    }

    /// A peer was picked for the backup of the range at `start`, or there is none.
    pub(super) fn on_backup_picked(
        &mut self,
        now: Now,
        start: CommitIndex,
        picked: Result<PeerId, NoPeer>,
        effects: &mut Vec<Effect>,
    ) {
        let Some(range) = self.ranges.get_mut(&start) else { return };
        let Some(backup) = &mut range.backup else { return };
        match (picked, &range.state) {
            (Ok(other), RangeState::Running { peer, .. }) if other != *peer && range.end > self.tip.commit.index => {
                backup.peer = Some((other, self.flow.asked(now, other)));
                let (key, end, max_bytes) = (backup.key, range.end, backup.reserve);
                let (proof_end, epoch) = (range.proof_end(start), self.epoch_of(start));
                effects.push(Effect::Fetch { key, peer: other, start, end, proof_end, epoch, max_bytes });
            }
            (picked, _) => {
                range.backup = None;
                range.no_backup_at = Some(now.monotonic);
                if let Ok(peer) = picked {
                    effects.push(Effect::Report { peer, start: 0, outcome: Outcome::Unused });
                }
            }
        }
    }

    /// One of two workers of a range has ended. Whether the range goes on with the other one alone: then this one has
    /// been dealt with. Otherwise this one is its only one from now on, and the other is ended. `whole` tells whether it has
    /// delivered all of the range.
    pub(super) fn goes_on_without(
        &mut self,
        now: Now,
        key: RangeKey,
        failure: Option<&Outcome>,
        whole: bool,
        effects: &mut Vec<Effect>,
    ) -> bool {
        let of_backup = self.start_of_backup(key);
        let Some(start) = of_backup.or_else(|| self.start_of(key)) else { return false };
        let Some(range) = self.ranges.get_mut(&start) else { return false };
        let RangeState::Running { peer, .. } = range.state else { return false };
        let Some(backup) = range.backup.take() else { return false };
        let of_backup = of_backup.is_some();
        if let Some(outcome) = failure {
            let failed = if of_backup { backup.peer.map(|(peer, _)| peer) } else { Some(peer) };
            effects.push(Effect::Discard(key));
            effects.extend(failed.map(|peer| Effect::Report { peer, start, outcome: outcome.clone() }));
            range.no_backup_at = Some(now.monotonic);
            if !of_backup {
                range.key = backup.key;
                range.state = match backup.peer {
                    Some((peer, asked)) => {
                        RangeState::Running { peer, asked, reserve: backup.reserve, downloaded: false }
                    }
                    None => RangeState::Picking { reserve: backup.reserve },
                };
            }
            return true;
        }
        let loser = match (of_backup, backup.peer) {
            (true, Some((winner, asked))) => {
                let loser = (range.key, peer);
                range.key = key;
                range.state = RangeState::Running { peer: winner, asked, reserve: backup.reserve, downloaded: true };
                Some(loser)
            }
            (_, other) => other.map(|(other, _)| (backup.key, other)),
        };
        // A peer that is picked too late is told when it is.
        if let Some((key, peer)) = loser {
            effects.push(Effect::Cancel(key));
            // Who has less of a range is done with it sooner.
            let outcome = if whole { Outcome::Outrun } else { Outcome::Unused };
            effects.push(Effect::Report { peer, start, outcome });
        }
        false
    }
}

/// How a worker's end that delivered nothing of use is reported, if another one may still do better.
pub(super) fn failure(nothing: bool, shortfall: Option<&Shortfall>) -> Option<Outcome> {
    match shortfall {
        Some(Shortfall::Fault { fault, reason, retry_after }) => {
            Some(Outcome::Failed { fault: *fault, reason: reason.clone(), retry_after: *retry_after })
        }
        Some(Shortfall::OtherEpoch { .. } | Shortfall::Cut) if nothing => Some(Outcome::Unused),
        _ => None,
    }
}
