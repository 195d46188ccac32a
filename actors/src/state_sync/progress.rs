//! Shows the state of the sync, or why it makes no progress: in metrics and in the log.

use super::{StateSync, metrics};
use soma_protocol::state_sync::Progress;
use std::time::Duration;

/// Whether the cause is that of a node that follows the chain: at the head each commit makes it fetch, and be synced
/// again.
fn follows(cause: Option<&'static str>) -> bool {
    cause == Some(Progress::Synced.cause()) || cause == Some(Progress::Syncing.cause())
}

impl StateSync {
    /// Shows the state of the sync, or why it makes no progress: in the metric at once, in the log now and then.
    pub(super) fn show_progress(&mut self) {
        let core = self.host.core();
        let progress = core.progress();
        if self.shown != Some(progress.cause()) {
            metrics::cause(self.shown, progress.cause());
            self.shown = Some(progress.cause());
        }
        let stuck_since_ms = core.stuck_since_ms();
        if stuck_since_ms.is_some() != self.stuck_logged {
            self.stuck_logged = stuck_since_ms.is_some();
            metrics::stuck(self.stuck_logged);
            match stuck_since_ms {
                Some(since_ms) => tracing::warn!(cause = progress.cause(), since_ms, ?progress, "the sync is stuck"),
                None => tracing::info!(cause = progress.cause(), "the sync goes on"),
            }
        }
        let (follows, followed) = (follows(self.shown), follows(self.logged));
        let now = self.host.now().monotonic;
        if follows && followed {
            self.log_summary(now);
        } else if self.logged != self.shown
            && let Some(left_out) = self.progress_logged.admit(now)
        {
            tracing::info!(cause = progress.cause(), left_out, ?progress, "state of the sync");
            self.logged = self.shown;
        }
    }

    /// Now and then says how far the node has got. At the head each commit makes it fetch and be done with it.
    fn log_summary(&mut self, now: Duration) {
        if self.summary_logged.admit(now).is_none() {
            return;
        }
        let snapshot = self.host.snapshot();
        let commits = snapshot.applied.saturating_sub(self.applied_logged);
        if commits > 0 {
            let behind = snapshot.target.saturating_sub(snapshot.applied);
            tracing::info!(commit = snapshot.applied, commits, behind, "follows the chain");
            self.applied_logged = snapshot.applied;
        }
    }
}
