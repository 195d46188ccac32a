//! Separates the log lines and metrics of the nodes in one process.
//!
//! Every thread of a node enters its [`Telemetry`] before anything else.

use metrics::{LocalRecorderGuard, Recorder};
use std::{cell::RefCell, fmt};
use tracing::{Span, span::EnteredSpan};

/// Takes metrics. It lives as long as the process, as recorders do.
pub type MetricsRecorder = &'static (dyn Recorder + Sync);

/// The span of a node's log lines, and where its metrics go. Cheap to clone.
#[derive(Clone)]
pub struct Telemetry {
    span: Span,
    recorder: Option<MetricsRecorder>,
}

impl fmt::Debug for Telemetry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Telemetry").field("span", &self.span).field("recorder", &self.recorder.is_some()).finish()
    }
}

thread_local! {
    /// Of a thread that a runtime runs.
    static OF_RUNTIME: RefCell<Option<Entered>> = const { RefCell::new(None) };
}

/// The current thread belongs to a node until this is dropped.
pub struct Entered {
    _span: EnteredSpan,
    _recorder: Option<LocalRecorderGuard<'static>>,
}

impl Telemetry {
    /// For the node with this short id. Without a recorder its metrics go to the process' global one.
    pub fn new(node: &str, recorder: Option<MetricsRecorder>) -> Self {
        // Every line shows it, at any level.
        Self { span: tracing::error_span!("node", id = node), recorder }
    }

    /// From now on the current thread is the node's.
    pub fn enter(&self) -> Entered {
        Entered {
            _span: self.span.clone().entered(),
            _recorder: self.recorder.map(|recorder| metrics::set_default_local_recorder(recorder)),
        }
    }

    /// The same for a thread of a runtime, which calls this when it begins.
    pub fn begin_thread(&self) {
        OF_RUNTIME.set(Some(self.enter()));
    }

    /// A runtime calls this on each thread that ends.
    pub fn end_thread() {
        OF_RUNTIME.set(None);
    }
}
