//! Notices to the service manager that has started the node (systemd, `Type=notify`).
//!
//! - `READY=1` once the node has printed its "ready" line.
//! - `WATCHDOG=1` while every actor runs, if the unit has a `WatchdogSec`. systemd restarts a node that stays silent.
//! - `STATUS=` with the explanation of the node's status, which `systemctl status` shows.
//! - `STOPPING=1` when the node begins to stop.
//!
//! Without `NOTIFY_SOCKET` in the environment nothing is sent.

use sd_notify::NotifyState;
use soma_p2p::Handle;
use std::time::Duration;
use tokio::{
    task::{JoinHandle, spawn_blocking},
    time::{MissedTickBehavior, interval},
};

/// How often the manager hears the status. A watchdog can ask for more.
const STATUS_INTERVAL: Duration = Duration::from_secs(10);

/// Notices within the time that the watchdog allows: two may be late.
const NOTICES_PER_WATCHDOG: u32 = 3;

/// The notices of a running node.
pub(crate) struct Notices(Option<JoinHandle<()>>);

impl Notices {
    /// Tells the manager that the node is ready, and from then on how it is.
    pub(crate) async fn ready(node: Handle) -> Self {
        if std::env::var_os("NOTIFY_SOCKET").is_none() {
            return Self(None);
        }
        let status = node.status().await;
        send(Some(NotifyState::Ready), status.explanation).await;
        Self(Some(tokio::spawn(watch(node, sd_notify::watchdog_enabled()))))
    }

    /// Tells the manager that the node stops, and why if no signal has asked for it. The last notice.
    pub(crate) async fn stopping(self, failed: Option<&str>) {
        let Some(watching) = self.0 else { return };
        watching.abort();
        // Ends with the error that it was aborted.
        let _ = watching.await;
        let status = failed.map_or("stopping".to_owned(), |reason| format!("stopping: {reason}"));
        send(Some(NotifyState::Stopping), status).await;
    }
}

/// Sends notices until it is aborted. An actor system that does not answer leaves the watchdog without one.
async fn watch(node: Handle, watchdog: Option<Duration>) {
    let within = watchdog.map_or(STATUS_INTERVAL, |limit| STATUS_INTERVAL.min(limit / NOTICES_PER_WATCHDOG));
    // An interval of zero would panic.
    let mut ticks = interval(within.max(Duration::from_millis(1)));
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        let status = node.status().await;
        let feed = watchdog.is_some() && status.is_alive();
        send(feed.then_some(NotifyState::Watchdog), status.explanation).await;
    }
}

/// Sends the status, and a change if there is one, on a thread that may block: the manager's socket can be full.
async fn send(change: Option<NotifyState<'static>>, status: String) {
    let sent = spawn_blocking(move || {
        // A line ends a field.
        let status = status.replace(['\n', '\r'], " ");
        let fields: Vec<_> = change.into_iter().chain([NotifyState::Status(&status)]).collect();
        sd_notify::notify(&fields)
    });
    match sent.await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => tracing::warn!(%error, "cannot notify the service manager at NOTIFY_SOCKET"),
        Err(error) => tracing::warn!(%error, "cannot notify the service manager"),
    }
}
