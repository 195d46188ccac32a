//! gRPC on the admin endpoint: the health service that Kubernetes and load balancers ask, and reflection, with which
//! `grpcurl` finds it.
//!
//! | service name | serving while |
//! |---|---|
//! | `readiness`, or none | the node is ready, as `/readyz` says |
//! | `liveness` | the node is alive, as `/livez` says |

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

/// Longest time between two looks at the node. A node that cannot be looked at for longer is not healthy.
const LOOK_TIMEOUT: Duration = Duration::from_secs(10);

/// Routes of both services. The health follows the frames until they end.
pub(crate) fn routes(
    frames: watch::Receiver<Arc<Frame>>,
    ready_within: watch::Receiver<Option<CommitIndex>>,
) -> Result<Router, tonic_reflection::server::Error> {
    let (reporter, health) = tonic_health::server::health_reporter();
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

/// Reports each change of the node's health, until nobody looks at the node any more.
async fn follow(
    mut frames: watch::Receiver<Arc<Frame>>,
    ready_within: watch::Receiver<Option<CommitIndex>>,
    reporter: HealthReporter,
) {
    let mut reported = None;
    let mut health = (false, false);
    loop {
        if reported != Some(health) {
            let (ready, alive) = health;
            for name in READINESS {
                reporter.set_service_status(name, serving(ready)).await;
            }
            reporter.set_service_status(LIVENESS, serving(alive)).await;
            reported = Some(health);
        }
        health = match timeout(LOOK_TIMEOUT, frames.changed()).await {
            Ok(Ok(())) => {
                let within = *ready_within.borrow();
                let frame = frames.borrow_and_update().clone();
                frame.status().map_or((false, false), |status| (readiness(status, within).is_ok(), status.is_alive()))
            }
            Ok(Err(_)) => return,
            Err(_) => (false, false),
        };
    }
}

fn serving(holds: bool) -> ServingStatus {
    if holds { Serving } else { NotServing }
}
