//! Export of spans to a collector by OTLP over gRPC. Compiled with the feature `otlp`.
//!
//! The environment configures it, with the variables of OpenTelemetry. Without an endpoint nothing is exported.

use crate::error::CliError;
use opentelemetry::{Key, trace::TracerProvider};
use opentelemetry_otlp::SpanExporter;
use opentelemetry_sdk::{Resource, trace::SdkTracerProvider};
use soma_p2p::FLOW_TARGET;
use std::{env, time::Duration};
use tracing::{Level, Subscriber};
use tracing_subscriber::{Layer, filter::Targets, registry::LookupSpan};

/// Variables of which one must name the collector, such as `http://127.0.0.1:4317`.
const ENDPOINT: [&str; 2] = ["OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT"];

/// Name of this service, unless `OTEL_SERVICE_NAME` or `OTEL_RESOURCE_ATTRIBUTES` has another.
const SERVICE: &str = "soma-p2p";

/// What the library calls a service that the environment does not name.
const UNNAMED: &str = "unknown_service";

/// How long the last spans may take. A node that stops must have ended before systemd kills it.
const LAST_SPANS: Duration = Duration::from_secs(2);

/// A running export. Dropping it sends what is left.
pub(crate) struct Export(SdkTracerProvider);

impl Export {
    /// Begins to export, if the environment names a collector. Needs a runtime of tokio, which carries the connection.
    pub(crate) fn start() -> Result<Option<Self>, CliError> {
        let names_one = |name: &&str| env::var_os(name).is_some_and(|value| !value.is_empty());
        let Some(name) = ENDPOINT.into_iter().find(names_one) else { return Ok(None) };
        let exporter = SpanExporter::builder().with_tonic().build();
        let exporter = exporter
            .map_err(|error| CliError::input(format!("no spans can go to the collector of {name}: {error}")))?;
        let named = Resource::builder().build();
        let is_unnamed = |name: &opentelemetry::Value| name.as_str().starts_with(UNNAMED);
        let resource = match named.get(&Key::from_static_str("service.name")) {
            Some(name) if !is_unnamed(&name) => named,
            _ => Resource::builder().with_service_name(SERVICE).build(),
        };
        let provider = SdkTracerProvider::builder().with_batch_exporter(exporter).with_resource(resource);
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
        if let Err(error) = self.0.shutdown_with_timeout(LAST_SPANS) {
            tracing::warn!(%error, "the last spans may not have reached the collector");
        }
    }
}
