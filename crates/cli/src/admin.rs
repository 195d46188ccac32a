//! The admin endpoint: HTTP and JSON on loopback, and gRPC for health (`grpc_health.rs`).
//!
//! - `GET /`: the status page; `GET /events`: server-sent events for that page.
//! - `GET /livez`: 200 when all parts of the node run, 503 when not.
//! - `GET /readyz`, `/healthz`: 200 when the node makes progress or has nothing to do, else 503 with the reason. Also
//!   503 when it is further behind than `ready_within_commits`.
//! - `GET /status`: everything that `soma-p2p status` shows.
//! - `GET /peers`: everything that `soma-p2p peers` shows.
//! - `GET /metrics`: metrics of the system and of the process, for Prometheus.

use crate::{
    error::CliError,
    executor::{Executed, ExecutedText},
    grpc_health,
    node_status::NodeStatus,
    page::{self, Page},
    process_metrics::ProcessMetrics,
    readiness::readiness,
};
use axum::{Json, Router, extract::State, http::StatusCode, routing::get};
use serde::{Deserialize, Serialize};
use soma_p2p::{BookEntry, CommitIndex, Handle, PeerStatus};
use std::cmp::Reverse;
use tokio::sync::watch;

/// What the endpoint answers from.
#[derive(Clone)]
pub(crate) struct Admin {
    pub(crate) system: Handle,
    pub(crate) executed: watch::Receiver<Executed>,
    pub(crate) metrics: ProcessMetrics,
    pub(crate) page: Page,
    /// Commits that a ready node may be behind its target.
    pub(crate) ready_within: watch::Receiver<Option<CommitIndex>>,
}

/// Answer of `/peers`.
#[derive(Debug, Serialize, Deserialize)]
pub struct NodePeers {
    /// Peers connected in either direction.
    pub connected: Vec<PeerStatus>,
    /// The address book: connected peers first, then those seen live last.
    pub known: Vec<BookEntry>,
}

/// Routes of the endpoint.
pub(crate) async fn router(admin: Admin) -> Result<Router, CliError> {
    let page = page::routes(admin.page.clone());
    let health =
        grpc_health::routes(admin.page.frames.clone(), admin.ready_within.clone()).await.map_err(CliError::failed)?;
    let router = Router::new()
        .route("/livez", get(livez))
        .route("/readyz", get(readyz))
        .route("/healthz", get(readyz))
        .route("/status", get(status))
        .route("/peers", get(peers))
        .route("/metrics", get(metrics))
        .with_state(admin)
        .merge(page)
        .merge(health);
    Ok(router)
}

async fn livez(State(admin): State<Admin>) -> (StatusCode, String) {
    let status = admin.system.status().await;
    answer(status.is_alive(), &status.explanation)
}

async fn readyz(State(admin): State<Admin>) -> (StatusCode, String) {
    let status = admin.system.status().await;
    let within = *admin.ready_within.borrow();
    match readiness(&status, within) {
        Ok(()) => answer(true, &status.explanation),
        Err(reason) => answer(false, &reason),
    }
}

fn answer(holds: bool, explanation: &str) -> (StatusCode, String) {
    let code = if holds { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    (code, format!("{explanation}\n"))
}

async fn status(State(admin): State<Admin>) -> Json<NodeStatus> {
    let executor = ExecutedText::from(*admin.executed.borrow());
    Json(NodeStatus { p2p: admin.system.status().await, executor })
}

async fn peers(State(admin): State<Admin>) -> Json<NodePeers> {
    let (connected, mut known) = tokio::join!(admin.system.peers(), admin.system.known_peers());
    known.sort_by_key(|entry| (Reverse(entry.connected), Reverse(entry.seen_live_ms), entry.peer));
    Json(NodePeers { connected, known })
}

async fn metrics(State(admin): State<Admin>) -> String {
    admin.metrics.render()
}
