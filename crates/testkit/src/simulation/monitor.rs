//! Checks the invariants of one node.

use crate::simulation::{
    archive::SimArchive,
    invariant::Invariant,
    journal::{Entry, Journal},
    names::NodeName,
};
use soma_p2p::{CommitIndex, Config, Handle, Start, Status, Store};
use std::{cell::Cell, rc::Rc, sync::Arc, time::Duration};
use tokio::time::sleep;

/// How often the monitor looks.
const LOOK_INTERVAL: Duration = Duration::from_millis(50);

/// What the monitor of one node knows.
pub(super) struct Monitor {
    pub(super) node: NodeName,
    pub(super) config: Config,
    pub(super) store: Arc<dyn Store>,
    pub(super) archive: Option<Arc<SimArchive>>,
    /// The last commit that its executor has taken.
    pub(super) executed: Rc<Cell<CommitIndex>>,
    pub(super) honest: Vec<soma_p2p::PeerId>,
    /// Whether an actor of this node is made to fail at some time.
    pub(super) may_fail: bool,
    /// Whether its disk is.
    pub(super) disk_may_fail: bool,
    /// What the reason why its system gives up has in it, if it is to.
    pub(super) gives_up: Option<String>,
    pub(super) gave_up: Rc<Cell<bool>>,
    pub(super) journal: Journal,
}

impl Monitor {
    /// Looks again and again, for as long as the node's process lives.
    pub(super) async fn watch(self, handle: Handle) {
        loop {
            // Asked before the store is, so that a height that moves meanwhile is no violation.
            let status = handle.status().await;
            self.check(&status);
            sleep(LOOK_INTERVAL).await;
        }
    }

    fn check(&self, status: &Status) {
        self.check_durable(status);
        self.check_pruned();
        self.check_limits(status);
        let banned = status.banned.iter().map(|ban| ban.peer).find(|peer| self.honest.contains(peer));
        self.expect(banned.is_none(), Invariant::HonestPeersAreNotBanned, || format!("{banned:?} is banned"));
        self.check_failures(status);
    }

    fn check_durable(&self, status: &Status) {
        let durable = self.store.watermarks().map_or(0, |watermarks| watermarks.highest_synced.index);
        let told = status.state_sync.as_ref().map_or(0, |sync| sync.applied).max(status.height);
        self.expect(told <= durable, Invariant::DurableBeforeTold, || {
            format!("commit {told} counts as applied, but {durable} is the last one on disk")
        });
    }

    /// What is pruned is executed, and archived if the node writes an archive.
    fn check_pruned(&self) {
        if self.config.start != Start::Genesis {
            return;
        }
        let lowest = self.store.watermarks().map_or(1, |watermarks| watermarks.lowest_available);
        let executed = self.executed.get();
        self.expect(lowest <= executed + 1, Invariant::PrunedIsNotNeeded, || {
            format!("commit {lowest} is the lowest one, and its executor has taken {executed}")
        });
        if let Some(archive) = self.archive.as_ref().filter(|_| self.config.archive.write) {
            let archived = archive.last_commit();
            self.expect(lowest <= archived + 1, Invariant::PrunedIsNotNeeded, || {
                format!("commit {lowest} is the lowest one, and the archive has {archived}")
            });
        }
    }

    fn check_limits(&self, status: &Status) {
        let within = |what: &str, value: u64, limit: u64| {
            self.expect(value <= limit, Invariant::WithinLimits, || format!("{what}: {value} of {limit}"));
        };
        let (sync, connections) = (&self.config.state_sync, &self.config.connections);
        if let Some(snapshot) = &status.state_sync {
            // Commits of the node's own consensus may take one range's share beyond the budget.
            within("bytes in flight", snapshot.bytes_in_flight, sync.bytes_in_flight + sync.bytes_per_range);
            within(
                "workers",
                snapshot.workers as u64,
                soma_protocol::state_sync::most_workers(sync.max_workers) as u64,
            );
            within("applied commits", snapshot.applied.into(), snapshot.linked.into());
        }
        if let Some(snapshot) = &status.serving {
            within("calls answered at once", snapshot.active as u64, self.config.serving.max_calls as u64);
        }
        if let Some(snapshot) = &status.verifier {
            // The simulated pool is the actor thread itself: one job at a time.
            within("checks at once", snapshot.running as u64, 1);
        }
        let count = |connected: fn(&soma_p2p::PeerStatus) -> bool| {
            status.peers.iter().filter(|peer| connected(peer)).count() as u64
        };
        within("outbound connections", count(|peer| peer.outbound), connections.max_outbound as u64);
        within("inbound peers", count(|peer| peer.inbound), connections.max_inbound as u64);
    }

    fn check_failures(&self, status: &Status) {
        let expect = |holds, detail: &dyn Fn() -> String| self.expect(holds, Invariant::NothingFailsUnplanned, detail);
        if let Some(reason) = &status.fatal {
            let planned = self.gives_up.as_ref().is_some_and(|text| reason.contains(text));
            self.expect(planned, Invariant::GivesUpOnlyAsPlanned, || format!("the system gave up: {reason}"));
            if !self.gave_up.replace(true) {
                self.journal.write(Entry::GaveUp { node: self.node, reason: reason.clone() });
            }
        }
        if let Some(snapshot) = &status.store_writer {
            expect(self.disk_may_fail || snapshot.failed == 0, &|| {
                format!("a write failed: {:?}", snapshot.last_error)
            });
        }
        if let Some(snapshot) = &status.verifier {
            expect(snapshot.panicked == 0, &|| "a check panicked".into());
        }
        if !self.may_fail {
            let actors = status.tree.actors();
            let restarted = actors.iter().find(|actor| actor.last_exit.is_some());
            expect(restarted.is_none(), &|| format!("{restarted:?}"));
            let workers = status.state_sync.as_ref().map_or(0, |sync| sync.worker_failures);
            expect(workers == 0, &|| format!("{workers} workers ended without a result: {}", status.explanation));
        }
    }

    fn expect(&self, holds: bool, invariant: Invariant, detail: impl FnOnce() -> String) {
        self.journal.check(holds, invariant, self.node, detail);
    }
}
