//! The log of a node on standard error: its form, and a filter that can change while the node runs.

use crate::error::CliError;
use clap::ValueEnum;
use std::{env, sync::Arc};
use tracing_subscriber::{EnvFilter, Layer, fmt, layer::SubscriberExt, reload, util::SubscriberInitExt};

/// The default filter: the database logs more than an operator can act on.
pub(crate) const DEFAULT_LOG_FILTER: &str = "error,soma=info,fjall=warn,lsm_tree=warn,h2=off,hyper=off,rustls=off";

/// Added to every filter: changes by an operator are always in the log.
const AUDIT: &str = "audit=info";

/// Form of a line of the log.
#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum LogFormat {
    /// For people.
    Text,
    /// An object of JSON, for programs.
    Json,
}

/// Sets the filter of the log.
#[derive(Clone)]
pub(crate) struct LogFilter(Arc<dyn Fn(EnvFilter) -> Result<(), String> + Send + Sync>);

/// The log of this process. Dropping it ends the export of spans.
pub(crate) struct Log {
    pub(crate) filter: LogFilter,
    #[cfg(feature = "otlp")]
    _export: Option<crate::otlp::Export>,
}

impl Log {
    /// Starts the log with the filter of `RUST_LOG`, or else of the configuration. The features that export need the
    /// runtime of tokio.
    pub(crate) fn init(format: LogFormat, configured: &str) -> Result<Self, CliError> {
        let filter = match env::var("RUST_LOG") {
            Ok(directives) if !directives.is_empty() => {
                parse(&directives).map_err(|error| CliError::input(format!("RUST_LOG: {error}")))?
            }
            _ => parse(configured).map_err(CliError::input)?,
        };
        let (filter, reload) = reload::Layer::new(filter);
        let lines = fmt::layer().with_writer(std::io::stderr).with_ansi(false);
        let lines = match format {
            LogFormat::Text => lines.boxed(),
            LogFormat::Json => lines.json().flatten_event(true).boxed(),
        };
        let log = tracing_subscriber::registry().with(lines.with_filter(filter));
        #[cfg(all(feature = "tokio-console", tokio_unstable))]
        let log = log.with(console_subscriber::spawn());
        #[cfg(all(feature = "tokio-console", not(tokio_unstable)))]
        return Err(CliError::input("the feature tokio-console needs a build with RUSTFLAGS=\"--cfg tokio_unstable\""));
        #[cfg(feature = "otlp")]
        let export = crate::otlp::Export::start()?;
        #[cfg(feature = "otlp")]
        let log = log.with(export.as_ref().map(crate::otlp::Export::layer));
        log.init();
        Ok(Self {
            filter: LogFilter(Arc::new(move |filter| reload.reload(filter).map_err(|error| error.to_string()))),
            #[cfg(feature = "otlp")]
            _export: export,
        })
    }
}

impl LogFilter {
    /// Replaces the filter.
    pub(crate) fn set(&self, directives: &str) -> Result<(), String> {
        (self.0)(parse(directives)?)
    }
}

/// A filter in the form of `RUST_LOG`.
pub(crate) fn parse(directives: &str) -> Result<EnvFilter, String> {
    let wrong = |error: String| format!("log filter {directives:?}: {error}; write for example \"error,soma=debug\"");
    let filter = EnvFilter::try_new(directives).map_err(|error| wrong(error.to_string()))?;
    let audit = AUDIT.parse().map_err(|error: tracing_subscriber::filter::ParseError| wrong(error.to_string()))?;
    Ok(filter.add_directive(audit))
}
