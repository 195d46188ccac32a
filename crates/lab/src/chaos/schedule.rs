//! Moments and victims: every random choice, drawn from one seed.

use rand::{RngExt, SeedableRng, seq::IndexedRandom};
use rand_chacha::ChaCha8Rng;
use std::{ops::RangeInclusive, time::Duration};

/// Milliseconds between two kills that follow the plan.
const PAUSE_MS: RangeInclusive<u64> = 50..=2_000;

/// Milliseconds for which a killed node stays down, unless it is started again at once.
const DOWN_MS: RangeInclusive<u64> = 1..=2_500;

/// Of 100 killed nodes, how many are started again at once.
const AT_ONCE_PERCENT: u32 = 25;

/// Of 100 starts, how many are cut off by another kill, and how many milliseconds after the process was made: before
/// it has read its configuration, while its store is being opened, or just after it has come up.
const CUT_OFF_PERCENT: u32 = 25;
const CUT_OFF_MS: RangeInclusive<u64> = 0..=150;

/// Of 100 kills that follow the plan, how many hit a node that is catching up, if there is one.
const SYNCING_PERCENT: u32 = 40;

/// Of 100 validators that come back, how many go on with the newest commits and have to fetch those in between.
const SKIP_PERCENT: u32 = 30;

/// The random choices.
pub(super) struct Schedule {
    rng: ChaCha8Rng,
}

impl Schedule {
    pub(super) fn new(seed: u64) -> Self {
        Self { rng: ChaCha8Rng::seed_from_u64(seed) }
    }

    /// Time to the next kill.
    pub(super) fn pause(&mut self) -> Duration {
        Duration::from_millis(self.rng.random_range(PAUSE_MS))
    }

    /// One of those that may be killed, some of which are catching up.
    pub(super) fn victim(&mut self, eligible: &[usize], syncing: &[usize]) -> Option<usize> {
        let preferred = self.percent(SYNCING_PERCENT).then(|| syncing.choose(&mut self.rng)).flatten();
        preferred.or_else(|| eligible.choose(&mut self.rng)).copied()
    }

    /// How long a killed node stays down.
    pub(super) fn down(&mut self) -> Duration {
        let at_once = self.percent(AT_ONCE_PERCENT);
        if at_once { Duration::ZERO } else { Duration::from_millis(self.rng.random_range(DOWN_MS)) }
    }

    /// How long after its start a node is killed, if this one is.
    pub(super) fn cut_off(&mut self) -> Option<Duration> {
        self.percent(CUT_OFF_PERCENT).then(|| Duration::from_millis(self.rng.random_range(CUT_OFF_MS)))
    }

    /// Whether the consensus of a validator that comes back goes on with the newest commits.
    pub(super) fn skips(&mut self) -> bool {
        self.percent(SKIP_PERCENT)
    }

    fn percent(&mut self, percent: u32) -> bool {
        self.rng.random_range(0..100) < percent
    }
}
