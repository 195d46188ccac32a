//! Restart strategies of supervisors.

use serde::{Deserialize, Serialize};
use std::ops::Range;

/// Which children are restarted when one ends.
///
/// Groups are supervisors under supervisors:
///
/// ```
/// use soma_runtime::{Clock, RuntimeContext, Intensity, Rules, Strategy, Supervisor};
/// use std::time::Duration;
///
/// # actix_rt::System::new().block_on(async {
/// let runtime_context = RuntimeContext::new(Clock::system());
/// // A directory, and an index that is built from what the directory has told it.
/// let mut group = Supervisor::new("search", Strategy::RestForOne, runtime_context.clone(), 1);
/// // group.actor(directory); group.actor(index);
/// group = group.with_rules(Rules {
///     intensity: Intensity { max_restarts: 3, within: Duration::from_secs(60) },
///     ..Rules::default()
/// });
/// let mut root = Supervisor::new("root", Strategy::OneForOne, runtime_context, 2);
/// root.supervisor(group);
/// let supervision = root.start();
/// # assert!(supervision.shutdown(Duration::from_secs(1)).await.is_empty());
/// # });
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Strategy {
    /// That one: children do not rely on what the others remember.
    OneForOne,
    /// That one and those started after it: each relies on those before it.
    RestForOne,
    /// All: each relies on all others.
    OneForAll,
}

impl Strategy {
    /// The children that are restarted when the one at `ended` of `count` ends.
    pub(crate) fn affected(self, ended: usize, count: usize) -> Range<usize> {
        match self {
            Self::OneForOne => ended..ended + 1,
            Self::RestForOne => ended..count,
            Self::OneForAll => 0..count,
        }
    }
}
