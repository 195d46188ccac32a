//! `soma-lab bench-node`: one node of a benchmark, a process of its own.
//!
//! It reads its setup, one line of JSON, from standard input, and tells events as lines of JSON on standard output.
//! The end of its standard input stops it: so it never outlives the benchmark.

use super::{
    head_node,
    message_node::{Hearing, Spreading},
    node_io::{Event, Role, Sample, Setup, Synced, tell},
    usage,
};
use soma_p2p::{
    ActorSystem, CertificateVerifier, CommitIndex, EpochContext, FjallStore, SigningKey, SubDagDigest,
    TransactionError, TransactionSignatures, TransactionVerifier,
};
use soma_p2p_cli::{CliError, files};
use std::{
    io::{self, BufRead, Read},
    process::ExitCode,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
        mpsc::{self, Receiver},
    },
    thread,
    time::{Duration, Instant},
};

/// How long the system may take to stop in order.
const SHUTDOWN_DEADLINE: Duration = Duration::from_secs(10);

/// When the process ends although something has not stopped.
const END_AFTER: Duration = Duration::from_secs(15);

/// Time between two events of progress, and between two samples of the plot.
const SAMPLE_INTERVAL: Duration = Duration::from_millis(50);

/// A server is at rest after this long with less than a tenth of a core.
const AT_REST: Duration = Duration::from_millis(50);

/// Longest that a server is waited for until it is at rest.
const REST_PATIENCE: Duration = Duration::from_secs(5);

/// Takes every transaction as it is: no signature is in it.
struct OpaqueTransactions;

impl TransactionVerifier for OpaqueTransactions {
    fn verify(&self, _: &EpochContext, _: &[u8], _: &mut TransactionSignatures<'_>) -> Result<(), TransactionError> {
        Ok(())
    }
}

/// Runs a node to its end.
pub(crate) fn run() -> Result<ExitCode, CliError> {
    let filter = tracing_subscriber::EnvFilter::try_from_default_env().unwrap_or_else(|_| "warn".into());
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(io::stderr).with_ansi(false).init();
    let mut line = String::new();
    io::stdin().lock().read_line(&mut line).map_err(CliError::input)?;
    let setup: Setup = serde_json::from_str(&line).map_err(CliError::input)?;
    let genesis = files::read_genesis(&setup.genesis)?;
    let store = FjallStore::open(&setup.store, &genesis).map_err(CliError::input)?;
    let transactions: Arc<dyn TransactionVerifier> =
        if setup.opaque { Arc::new(OpaqueTransactions) } else { Arc::new(CertificateVerifier) };
    let mut builder = ActorSystem::builder(genesis, SigningKey::from_bytes(&setup.key), Arc::new(store))
        .config(setup.config)
        .transaction_verifier(transactions);
    if let Some(key) = &setup.messages.protocol_key {
        builder = builder.protocol_key(SigningKey::from_bytes(key));
    }

    let done = Arc::new(AtomicBool::new(false));
    let stop = watch_stdin((!matches!(setup.role, Role::Serve | Role::Start)).then(|| done.clone()));
    // The start of a node includes the opening of its store.
    let cpu = if matches!(setup.role, Role::Start) { 0.0 } else { usage::process_cpu_s() };
    let (mut cpu, started) = (cpu, Instant::now());
    let system = builder.start().map_err(CliError::input)?;
    let hearing = Hearing::start(&system, &setup.messages.hear);
    let spreading = Spreading::prepare(system.handle(), &setup.messages)?;
    if matches!(setup.role, Role::Serve) {
        cpu = rest();
    }
    tell(&Event::Ready { peer_id: system.peer_id(), address: system.address().clone() })?;
    spreading.start();
    match setup.role {
        Role::Serve | Role::Start => {}
        Role::Sync { last } | Role::Execute { last } => {
            let executor = Executor { digest: matches!(setup.role, Role::Execute { .. }).then(SubDagDigest::default) };
            let end = executor.follow(&system, last, started)?;
            let cpu_s = usage::process_cpu_s() - cpu;
            done.store(true, Ordering::Relaxed);
            tell(&Event::Synced(Synced { end, cpu_s, peak_rss_mib: usage::peak_rss_mib() }))?;
            // What comes later did not come beside the sync.
            hearing.tell()?;
        }
        Role::Propose(rate) => {
            head_node::propose(&system, rate)?;
            done.store(true, Ordering::Relaxed);
        }
        Role::Take { last } => {
            head_node::take(&system, last)?;
            done.store(true, Ordering::Relaxed);
        }
    }
    // An error is the end of standard input, too.
    let _ = stop.recv();
    if matches!(setup.role, Role::Serve) {
        hearing.tell()?;
    }
    let cpu_s = usage::process_cpu_s() - cpu;
    tell(&Event::Stopped { cpu_s, peak_rss_mib: usage::peak_rss_mib() })?;
    let runtime = tokio::runtime::Builder::new_current_thread().build().map_err(CliError::failed)?;
    runtime.block_on(system.shutdown(SHUTDOWN_DEADLINE));
    Ok(ExitCode::SUCCESS)
}

/// Waits until this process is at rest: the database moves to tables what it found in its journal, which is no part of
/// serving. CPU seconds that the process has used by then.
fn rest() -> f64 {
    let deadline = Instant::now() + REST_PATIENCE;
    loop {
        let before = usage::process_cpu_s();
        thread::sleep(AT_REST);
        let now = usage::process_cpu_s();
        if now - before < AT_REST.as_secs_f64() / 10.0 || Instant::now() > deadline {
            return now;
        }
    }
}

/// An executor.
struct Executor {
    /// Over all that it was given, as that of `soma-p2p node` keeps it. Without one it costs nothing.
    digest: Option<SubDagDigest>,
}

impl Executor {
    /// Takes commits up to the last: from the first, or with a digest from the first that the node has.
    fn follow(mut self, system: &ActorSystem, last: CommitIndex, started: Instant) -> Result<Sample, CliError> {
        let mut commits = system.synced_commits(if self.digest.is_some() { 0 } else { 1 });
        let mut sample = Sample::default();
        let mut told = started;
        let measured = |sample: Sample| Sample {
            seconds: started.elapsed().as_secs_f64(),
            cpu_s: usage::process_cpu_s(),
            ..sample
        };
        while sample.commit < last {
            let commit = commits.blocking_next().ok_or_else(|| CliError::failed("the system has stopped"))?;
            let commit = commit.map_err(CliError::failed)?;
            let (got, before) = (commit.commit_ref.index, sample.commit);
            let is_next = got == before + 1 || (before == 0 && self.digest.is_some());
            if !is_next {
                return Err(CliError::failed(format!("the executor was given commit {got} after {before}")));
            }
            if let Some(digest) = &mut self.digest {
                digest.push(&commit);
            }
            sample.commit = got;
            sample.blocks += commit.blocks.len() as u64;
            sample.bytes += commit.blocks.iter().map(|block| block.bytes().len() as u64).sum::<u64>();
            if told.elapsed() >= SAMPLE_INTERVAL && sample.commit < last {
                told = Instant::now();
                tell(&Event::Progress(measured(sample)))?;
            }
        }
        Ok(measured(sample))
    }
}

/// Says when standard input ends, and ends the process a while later if nothing else does: at once if it is `busy`
/// with something whose result nobody waits for any more.
pub(super) fn watch_stdin(busy: Option<Arc<AtomicBool>>) -> Receiver<()> {
    let (sender, receiver) = mpsc::sync_channel(1);
    thread::spawn(move || {
        let mut ignored = [0; 256];
        while io::stdin().lock().read(&mut ignored).is_ok_and(|count| count > 0) {}
        if busy.is_some_and(|done| !done.load(Ordering::Relaxed)) {
            std::process::exit(1);
        }
        let _ = sender.send(());
        thread::sleep(END_AFTER);
        std::process::exit(1);
    });
    receiver
}
