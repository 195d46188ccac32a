//! The metrics of the whole process, as `/metrics` shows them: the system's, the process's, and the build.

use crate::error::CliError;
use metrics::{describe_gauge, gauge};
use metrics_exporter_prometheus::{PrometheusBuilder, PrometheusHandle};
use metrics_process::Collector;

/// Names the build.
const BUILD_INFO: &str = "soma_build_info";

/// What renders them.
#[derive(Clone)]
pub(crate) struct ProcessMetrics {
    recorder: PrometheusHandle,
    process: Collector,
}

impl ProcessMetrics {
    /// Becomes the recorder of the process.
    pub(crate) fn install() -> Result<Self, CliError> {
        let recorder = PrometheusBuilder::new().install_recorder().map_err(CliError::failed)?;
        let process = Collector::default();
        process.describe();
        describe_gauge!(BUILD_INFO, "Always 1. The label version is that of the program.");
        gauge!(BUILD_INFO, "version" => env!("CARGO_PKG_VERSION")).set(1.0);
        Ok(Self { recorder, process })
    }

    /// All metrics now, in the text format of Prometheus.
    pub(crate) fn render(&self) -> String {
        self.process.collect();
        self.recorder.render()
    }
}
