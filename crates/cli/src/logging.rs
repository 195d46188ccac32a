//! The log of a node on standard error: its form, and a filter that can change while the node runs.

use crate::error::CliError;
use clap::ValueEnum;
use std::{env, sync::Arc};
use tracing_subscriber::EnvFilter;

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

impl LogFilter {
    /// Starts the log with the filter of `RUST_LOG`, or else of the configuration.
    pub(crate) fn init(format: LogFormat, configured: &str) -> Result<Self, CliError> {
        let filter = match env::var("RUST_LOG") {
            Ok(directives) if !directives.is_empty() => {
                parse(&directives).map_err(|error| CliError::input(format!("RUST_LOG: {error}")))?
            }
            _ => parse(configured).map_err(CliError::input)?,
        };
        let log = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).with_ansi(false);
        Ok(match format {
            LogFormat::Text => {
                let log = log.with_filter_reloading();
                let handle = log.reload_handle();
                log.init();
                Self(Arc::new(move |filter| handle.reload(filter).map_err(|error| error.to_string())))
            }
            LogFormat::Json => {
                let log = log.json().flatten_event(true).with_filter_reloading();
                let handle = log.reload_handle();
                log.init();
                Self(Arc::new(move |filter| handle.reload(filter).map_err(|error| error.to_string())))
            }
        })
    }

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
