//! The metrics of the whole process, as `/metrics` shows them: the system's, the process's, and the build.

use crate::{error::CliError, page::Frame};
use metrics::{describe_gauge, gauge};
use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusHandle};
use metrics_process::Collector;
use soma_p2p::{METRICS, MetricKind, Status};
use std::{sync::Arc, time::Duration};
use tokio::{
    sync::watch,
    time::{MissedTickBehavior, interval},
};

/// Names the build.
const BUILD_INFO: &str = "soma_build_info";

/// Whether the node is ready.
const READY: &str = "soma_ready";

/// Time between two updates of the buckets of histograms. The recorder keeps every sample until it is put into its
/// bucket, so without these updates the memory of a node without a Prometheus would grow.
const UPKEEP_INTERVAL: Duration = Duration::from_secs(10);

/// What renders them.
#[derive(Clone)]
pub(crate) struct ProcessMetrics {
    recorder: PrometheusHandle,
    process: Collector,
}

impl ProcessMetrics {
    /// Becomes the recorder of the process.
    pub(crate) fn install() -> Result<Self, CliError> {
        let mut builder = PrometheusBuilder::new();
        for metric in METRICS {
            if let MetricKind::Histogram(buckets) = metric.kind {
                let name = Matcher::Full(metric.name.into());
                builder = builder.set_buckets_for_metric(name, buckets).map_err(CliError::failed)?;
            }
        }
        let recorder = builder.install_recorder().map_err(CliError::failed)?;
        let process = Collector::default();
        process.describe();
        describe_gauge!(BUILD_INFO, "Always 1. The label version is that of the program.");
        gauge!(BUILD_INFO, "version" => env!("CARGO_PKG_VERSION")).set(1.0);
        Ok(Self { recorder, process })
    }

    /// Keeps them up to date until the task is aborted.
    pub(crate) async fn keep_up(self, mut frames: watch::Receiver<Arc<Frame>>) {
        describe_gauge!(READY, "1 while the node is ready, as `/readyz` says without `ready_within_commits`; else 0.");
        let mut due = interval(UPKEEP_INTERVAL);
        due.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                _ = due.tick() => self.recorder.run_upkeep(),
                Ok(()) = frames.changed() => {
                    let is_ready = frames.borrow_and_update().status().is_some_and(Status::is_ready);
                    gauge!(READY).set(f64::from(u8::from(is_ready)));
                }
            }
        }
    }

    /// All metrics now, in the text format of Prometheus.
    pub(crate) fn render(&self) -> String {
        self.process.collect();
        self.recorder.render()
    }
}
