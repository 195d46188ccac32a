//! When a node is ready, for all probes.

use soma_p2p::{CommitIndex, Status};

/// Whether a node is ready, at most `within` commits behind its target. An error says why not.
pub(crate) fn readiness(status: &Status, within: Option<CommitIndex>) -> Result<(), String> {
    if !status.is_ready() {
        return Err(status.explanation.clone());
    }
    match within.and_then(|within| behind(status.height, status.target, within)) {
        Some(reason) => Err(format!("{reason}: {}", status.explanation)),
        None => Ok(()),
    }
}

/// Why a node that makes progress is not ready, if it is further behind its target than it may be.
fn behind(height: CommitIndex, target: CommitIndex, within: CommitIndex) -> Option<String> {
    let behind = target.saturating_sub(height);
    (behind > within).then(|| format!("{behind} commits behind, ready within {within}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn node_is_ready_up_to_the_configured_distance_and_says_how_far_it_is() {
        assert_eq!(behind(90, 100, 10), None);
        assert_eq!(behind(89, 100, 10).as_deref(), Some("11 commits behind, ready within 10"));
        // A node may have commits that no peer has announced yet.
        assert_eq!(behind(101, 100, 0), None);
    }
}
