//! Recording a trace of a system that runs.

use crate::{
    config::{ConfigError, TraceConfig, checks::check_trace},
    handle::Handle,
};
use soma_replay::TraceWriter;
use std::{io, path::PathBuf, time::Duration};

/// Longest time for which one call records. A node that shall always record has a section `trace`.
pub const MAX_RECORDING: Duration = Duration::from_secs(24 * 60 * 60);

/// Why no trace is recorded.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RecordTraceError {
    /// A setting is wrong.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The time is nothing or too long.
    #[error("a trace of {0:?}: must be more than 0 s and at most 24 h")]
    Duration(Duration),
    /// A trace is being recorded.
    #[error("the node is recording a trace: wait for its end, or take the one of the section [p2p.trace]")]
    Recording,
    /// The directory cannot be written.
    #[error("trace in {directory}: {source}", directory = directory.display())]
    Directory {
        /// The directory.
        directory: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The system has stopped.
    #[error("the system has stopped")]
    Stopped,
}

impl Handle {
    /// Records what the actors receive from now on, for `duration` or until the system stops. Returns when recording
    /// has begun. The trace begins with the state of each actor at its next input, so that it can be replayed.
    ///
    /// # Errors
    ///
    /// A setting or the duration is wrong, the system records already or has stopped, or the directory cannot be
    /// written.
    pub async fn record_trace(&self, trace: TraceConfig, duration: Duration) -> Result<(), RecordTraceError> {
        check_trace(&trace)?;
        if duration.is_zero() || duration > MAX_RECORDING {
            return Err(RecordTraceError::Duration(duration));
        }
        if self.shared.closing.is_cancelled() {
            return Err(RecordTraceError::Stopped);
        }
        if self.shared.record.borrow().is_some() {
            return Err(RecordTraceError::Recording);
        }
        let ring = trace.ring();
        let started = self.shared.offload.run(move || TraceWriter::start(ring)).await;
        let (recorder, writer) = started
            .map_err(|_| RecordTraceError::Stopped)?
            .map_err(|source| RecordTraceError::Directory { directory: trace.directory.clone(), source })?;
        // Two calls at once may both have come here.
        let begun = self.shared.record.send_if_modified(|now| {
            let free = now.is_none();
            if free {
                *now = Some(recorder);
            }
            free
        });
        if !begun {
            return Err(RecordTraceError::Recording);
        }
        let shared = self.shared.clone();
        tracing::info!(directory = %trace.directory.display(), ?duration, "recording a trace");
        self.shared.io.detach(async move {
            tokio::select! {
                () = tokio::time::sleep(duration) => {}
                () = shared.closing.cancelled() => {}
            }
            shared.record.send_replace(None);
            // Without the writer, which ends when the system stops first, the trace lacks its last records only.
            let _ = shared.offload.run(move || writer.finish()).await;
            tracing::info!(directory = %trace.directory.display(), "the trace is complete");
        });
        Ok(())
    }
}
