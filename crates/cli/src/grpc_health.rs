//! gRPC on the admin endpoint: the health service that Kubernetes and load balancers ask, and reflection, with which
//! `grpcurl` finds it.
//!
//! | service name | serving while |
//! |---|---|
//! | `readiness`, or none | the node is ready, as `/readyz` says |
//! | `liveness` | the node is alive, as `/livez` says |
//!
//! Both answer from the sampler's latest look. Both are "not serving" before the first look, and after the last.

use crate::{page::Frame, readiness::readiness};
use axum::Router;
use soma_p2p::CommitIndex;
use std::{sync::Arc, time::Duration};
use tokio::{sync::watch, time::timeout};
use tonic_health::{
    ServingStatus::{self, NotServing, Serving},
    pb::FILE_DESCRIPTOR_SET,
    server::HealthReporter,
};

/// Names that a probe asks for. The empty one stands for the whole node.
const READINESS: [&str; 2] = ["", "readiness"];
const LIVENESS: &str = "liveness";

/// Longest time between two looks at the node: three times the usual one. A node that cannot be looked at for longer is
/// not healthy.
const LOOK_TIMEOUT: Duration = Duration::from_secs(15);

/// Routes of both services. The health follows the frames until they end.
pub(crate) async fn routes(
    frames: watch::Receiver<Arc<Frame>>,
    ready_within: watch::Receiver<Option<CommitIndex>>,
) -> Result<Router, tonic_reflection::server::Error> {
    let (reporter, health) = tonic_health::server::health_reporter();
    let mut reporter = Reporter { reporter, ready: None, alive: None };
    reporter.report(false, false).await;
    let described =
        || tonic_reflection::server::Builder::configure().register_encoded_file_descriptor_set(FILE_DESCRIPTOR_SET);
    // Older clients, such as grpcurl before 1.9, know only v1alpha.
    let (reflection, older) = (described().build_v1()?, described().build_v1alpha()?);
    tokio::spawn(follow(frames, ready_within, reporter));
    let router = Router::new()
        .route_service("/grpc.health.v1.Health/{method}", health)
        .route_service("/grpc.reflection.v1.ServerReflection/{method}", reflection)
        .route_service("/grpc.reflection.v1alpha.ServerReflection/{method}", older);
    Ok(router)
}

/// Reports each change once.
struct Reporter {
    reporter: HealthReporter,
    ready: Option<bool>,
    alive: Option<bool>,
}

impl Reporter {
    async fn report(&mut self, ready: bool, alive: bool) {
        if self.ready.replace(ready) != Some(ready) {
            for name in READINESS {
                self.reporter.set_service_status(name, serving(ready)).await;
            }
        }
        if self.alive.replace(alive) != Some(alive) {
            self.reporter.set_service_status(LIVENESS, serving(alive)).await;
        }
    }
}

/// Reports each change of the node's health, until nobody looks at the node any more.
async fn follow(
    mut frames: watch::Receiver<Arc<Frame>>,
    ready_within: watch::Receiver<Option<CommitIndex>>,
    mut reporter: Reporter,
) {
    loop {
        let changed = timeout(LOOK_TIMEOUT, frames.changed()).await;
        let frame = frames.borrow_and_update().clone();
        match (changed, frame.status()) {
            (Ok(Ok(())), Some(status)) => {
                let within = *ready_within.borrow();
                reporter.report(readiness(status, within).is_ok(), status.is_alive()).await;
            }
            (changed, _) => {
                reporter.report(false, false).await;
                if changed.is_ok_and(|changed| changed.is_err()) {
                    return;
                }
            }
        }
    }
}

fn serving(holds: bool) -> ServingStatus {
    if holds { Serving } else { NotServing }
}
