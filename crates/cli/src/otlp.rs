//! Export of spans to a collector by OTLP over gRPC. Compiled with the feature `otlp`.
//!
//! The environment configures it, with the variables of OpenTelemetry. Without an endpoint nothing is exported.

use crate::error::CliError;
use opentelemetry::trace::TracerProvider;
use opentelemetry_otlp::SpanExporter;
use opentelemetry_sdk::{Resource, trace::SdkTracerProvider};
use soma_p2p::FLOW_TARGET;
use std::env;
use tracing::{Level, Subscriber};
use tracing_subscriber::{Layer, filter::Targets, registry::LookupSpan};

/// Variables of which one must name the collector, such as `http://127.0.0.1:4317`.
const ENDPOINT: [&str; 2] = ["OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT"];

/// Name of this service, unless `OTEL_SERVICE_NAME` has another.
const SERVICE: &str = "soma-p2p";

/// A running export. Dropping it sends what is left.
pub(crate) struct Export(SdkTracerProvider);

impl Export {
    /// Begins to export, if the environment names a collector. Needs a runtime of tokio, which carries the connection.
    pub(crate) fn start() -> Result<Option<Self>, CliError> {
        let Some(name) = ENDPOINT.into_iter().find(|name| env::var_os(name).is_some()) else { return Ok(None) };
        let exporter = SpanExporter::builder().with_tonic().build();
        let exporter = exporter
            .map_err(|error| CliError::input(format!("no spans can go to the collector of {name}: {error}")))?;
        let resource = Resource::builder();
        let resource = match env::var_os("OTEL_SERVICE_NAME") {
            Some(_) => resource,
            None => resource.with_service_name(SERVICE),
        };
        let provider = SdkTracerProvider::builder().with_batch_exporter(exporter).with_resource(resource.build());
        Ok(Some(Self(provider.build())))
    }

    /// Takes the spans of flows, and no others.
    pub(crate) fn layer<S: Subscriber + for<'a> LookupSpan<'a>>(&self) -> impl Layer<S> + use<S> {
        let flows = Targets::new().with_target(FLOW_TARGET, Level::DEBUG);
        tracing_opentelemetry::layer().with_tracer(self.0.tracer(SERVICE)).with_filter(flows)
    }
}

impl Drop for Export {
    fn drop(&mut self) {
        if let Err(error) = self.0.shutdown() {
            tracing::warn!(%error, "the last spans may not have reached the collector");
        }
    }
}
