//! The threads of a system: one for the supervisors, one for each actor, a runtime for network I/O, a pool for
//! signatures.

use crate::{
    config::TraceConfig,
    handle::Handle,
    node::Node,
    node_parts::{NodeParts, NodeResources},
    shutdown_report::ShutdownReport,
    start_error::StartError,
};
use soma_actors::verifier::PoolSize;
use soma_replay::{Recorder, TraceWriter};
use soma_runtime::{ChildCounts, Clock, Escalation, ExitReason, IoTasks, Offload, RuntimeContext, Telemetry};
use soma_types::PeerId;
use std::{
    ops::Deref,
    sync::mpsc,
    thread::{self, JoinHandle},
    time::Duration,
};
use tokio::{
    runtime::{self, Runtime},
    sync::{oneshot, watch},
    time::{sleep, timeout},
};

/// Threads that encrypt and frame. More than two help only when many fast peers are served at once.
const IO_THREADS: usize = 2;

/// How long a system that is dropped, or gives up, has to stop.
const DEFAULT_DEADLINE: Duration = Duration::from_secs(10);

/// How long tasks that were told to end have for it before they count as leaked.
const TASKS_END: Duration = Duration::from_secs(1);

/// How often it is looked whether they have ended.
const LOOK_INTERVAL: Duration = Duration::from_millis(2);

/// A running system. Keep it for as long as the node runs; its [`Handle`] may be cloned and passed around.
///
/// Dropping it stops the system in the background; [`shutdown`](Self::shutdown) waits for it.
pub struct ActorSystem {
    handle: Handle,
    stop: Option<oneshot::Sender<Duration>>,
    stopped: Option<oneshot::Receiver<ShutdownReport>>,
    thread: Option<JoinHandle<()>>,
}

impl Deref for ActorSystem {
    type Target = Handle;

    fn deref(&self) -> &Handle {
        &self.handle
    }
}

impl ActorSystem {
    pub(crate) fn start(parts: NodeParts) -> Result<Self, StartError> {
        let (ready, started) = mpsc::sync_channel(1);
        let (stop, stopping) = oneshot::channel();
        let (report, stopped) = oneshot::channel();
        let run = move || run(parts, ready, stopping, report);
        let thread = thread::Builder::new()
            .name("soma-supervisor".into())
            .spawn(run)
            .map_err(|error| StartError::Runtime { what: "supervisor's thread", reason: error.to_string() })?;
        match started.recv() {
            Ok(Ok(handle)) => Ok(Self { handle, stop: Some(stop), stopped: Some(stopped), thread: Some(thread) }),
            Ok(Err(error)) => {
                let _ = thread.join();
                Err(error)
            }
            Err(_) => {
                let panic = thread.join().err();
                let reason = panic.and_then(|panic| panic.downcast_ref::<&str>().map(|text| (*text).to_owned()));
                let reason = reason.unwrap_or_else(|| "it ended while starting".into());
                Err(StartError::Runtime { what: "supervisor's thread", reason })
            }
        }
    }

    /// A handle to pass around.
    pub fn handle(&self) -> Handle {
        self.handle.clone()
    }

    /// Resolves when the system has given up because an actor did not stay up; never otherwise.
    pub async fn failed(&mut self) -> ShutdownReport {
        match &mut self.stopped {
            Some(stopped) => {
                let report = stopped.await.unwrap_or_else(|_| died());
                self.stopped = None;
                report
            }
            None => std::future::pending().await,
        }
    }

    /// Stops in order: ends connections, calls and workers, finishes the present write, flushes the store.
    /// After `deadline` the rest is ended, and named in the report.
    pub async fn shutdown(mut self, deadline: Duration) -> ShutdownReport {
        if let Some(stop) = self.stop.take() {
            // It fails when the system has given up; the report exists then, too.
            let _ = stop.send(deadline);
        }
        let report = match self.stopped.take() {
            Some(stopped) => stopped.await.unwrap_or_else(|_| died()),
            None => ShutdownReport::default(),
        };
        if let Some(thread) = self.thread.take() {
            // The report is the last thing that the thread does.
            let _ = thread.join();
        }
        report
    }
}

impl Drop for ActorSystem {
    fn drop(&mut self) {
        if let Some(stop) = self.stop.take() {
            let _ = stop.send(DEFAULT_DEADLINE);
        }
    }
}

/// The report of a supervisor that could not make one.
fn died() -> ShutdownReport {
    let exit = ExitReason::Panicked("its thread ended without a report".into());
    ShutdownReport { fatal: Some(Escalation { child: "supervisor", exit }), ..ShutdownReport::default() }
}

fn io_runtime(telemetry: Telemetry) -> Result<Runtime, StartError> {
    runtime::Builder::new_multi_thread()
        .worker_threads(IO_THREADS)
        .thread_name("soma-io")
        .on_thread_start(move || telemetry.begin_thread())
        .on_thread_stop(Telemetry::end_thread)
        .enable_all()
        .build()
        .map_err(|error| StartError::Runtime { what: "I/O runtime", reason: error.to_string() })
}

/// Threads that check, when the configuration leaves it open.
fn pool_size(threads: usize) -> PoolSize {
    let cores = || thread::available_parallelism().map_or(1, usize::from);
    PoolSize::Threads(if threads == 0 { cores() } else { threads })
}

fn start_trace(config: &TraceConfig) -> Result<(Recorder, TraceWriter), StartError> {
    TraceWriter::start(config.ring())
        .map_err(|source| StartError::Trace { directory: config.directory.clone(), source })
}

/// The supervisor's thread, from start to end.
fn run(
    parts: NodeParts,
    ready: mpsc::SyncSender<Result<Handle, StartError>>,
    stopping: oneshot::Receiver<Duration>,
    report: oneshot::Sender<ShutdownReport>,
) {
    let telemetry = Telemetry::new(&PeerId::from(&*parts.key).short(), parts.metrics);
    let _entered = telemetry.enter();
    crate::metrics::describe();
    let io = match io_runtime(telemetry.clone()) {
        Ok(io) => io,
        Err(error) => {
            let _ = ready.send(Err(error));
            return;
        }
    };
    let (recorder, trace) = match parts.config.trace.as_ref().map(start_trace).transpose() {
        Ok(trace) => trace.unzip(),
        Err(error) => {
            let _ = ready.send(Err(error));
            return;
        }
    };
    let system = actix_rt::System::with_tokio_rt(|| {
        // A current-thread runtime needs no threads and, with its drivers enabled, only fails when the process is out
        // of file handles; the panic ends this thread, and `start` reports it.
        #[allow(clippy::expect_used)]
        runtime::Builder::new_current_thread().enable_all().build().expect("out of file handles")
    });
    let clock = system.block_on(async { Clock::system() });
    let (record, recording) = watch::channel(recorder);
    let mut runtime_context =
        RuntimeContext::new(clock).with_threads().with_telemetry(telemetry).with_recording(recording);
    if let Some(faults) = parts.faults.clone() {
        runtime_context = runtime_context.with_faults(faults);
    }
    let child_counts = runtime_context.child_counts().clone();
    let node_resources = NodeResources {
        io: IoTasks::new(io.handle().clone()),
        offload: Offload::Threads(io.handle().clone()),
        pool: pool_size(parts.config.verifier.threads),
        runtime_context,
        record,
    };
    let outcome = system.block_on(async move {
        let node = match Node::start(parts, node_resources).await {
            Ok(node) => node,
            Err(error) => {
                let _ = ready.send(Err(error));
                return None;
            }
        };
        let _ = ready.send(Ok(node.handle()));
        let (deadline, fatal) = tokio::select! {
            deadline = stopping => (deadline.unwrap_or(DEFAULT_DEADLINE), None),
            fatal = node.escalated() => (DEFAULT_DEADLINE, Some(fatal)),
        };
        let overdue = node.shutdown(deadline).await;
        Some(ShutdownReport { overdue, leaked: Vec::new(), fatal })
    });
    let leaked = system.block_on(left(io.handle(), &child_counts));
    io.shutdown_timeout(DEFAULT_DEADLINE);
    if let Some(trace) = trace {
        trace.finish();
    }
    if let Some(outcome) = outcome {
        // A dropped system has no waiting owner.
        let _ = report.send(ShutdownReport { leaked, ..outcome });
    }
}

/// Leftovers of a stopped system.
async fn left(io: &runtime::Handle, child_counts: &ChildCounts) -> Vec<String> {
    let tasks = || io.metrics().num_alive_tasks();
    let ended = async {
        while tasks() > 0 || !child_counts.workers().is_empty() {
            sleep(LOOK_INTERVAL).await;
        }
    };
    // The count below says whether they have.
    let _ = timeout(TASKS_END, ended).await;
    let left = [
        (tasks(), "I/O tasks"),
        (child_counts.actors(), "actors"),
        (child_counts.threads(), "threads of actors, as they are blocked"),
    ];
    let counted = left.into_iter().filter(|(count, _)| *count > 0).map(|(count, what)| format!("{count} {what}"));
    counted.chain(child_counts.workers()).collect()
}
