//! `soma-p2p node`

use crate::{
    admin::{Admin, router},
    control::Controls,
    error::CliError,
    executor::{self, Executed, Keep},
    feed, files,
    logging::{Log, LogFilter, LogFormat},
    node_config::{NodeConfig, RunFile},
    page::Sampler,
    process_metrics::ProcessMetrics,
    service::Notices,
};
use clap::ValueEnum;
use soma_network::ListenError;
use soma_p2p::{ActorSystem, Builder, FjallStore, Genesis, Handle, ListenAddress, ShutdownReport};
use std::{fs, net::SocketAddr, path::PathBuf, pin::Pin, process::ExitCode, sync::Arc, time::Duration};
use tokio::{
    net::TcpListener,
    signal::unix::{Signal, SignalKind, signal},
    sync::watch,
    task::JoinHandle,
    time::timeout,
};

/// How long the system may take to stop in order.
const SHUTDOWN_DEADLINE: Duration = Duration::from_secs(10);

/// When the process ends although something has not stopped, say because the disk does not answer: the system's
/// deadline, as long again for what it then cuts off, and a margin.
const END_AFTER: Duration = Duration::from_secs(25);

/// Arguments of `soma-p2p node`.
#[derive(clap::Args)]
pub struct Args {
    /// Configuration file (TOML).
    #[arg(long, value_name = "FILE")]
    config: PathBuf,
    /// Form of the log on standard error.
    #[arg(long, value_enum, default_value_t = LogFormat::Text)]
    log_format: LogFormat,
    /// What comes on standard input; the node stops at its end. For localnet.
    #[arg(long, value_enum, hide = true)]
    stdin: Option<Stdin>,
    /// Record of what the executor is given, each commit as it is; the executor goes on where it ends. For chaos.
    #[arg(long, value_name = "FILE", hide = true)]
    record: Option<PathBuf>,
}

/// What a parent process sends on standard input.
#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Stdin {
    /// Nothing: its end says that the parent is gone.
    Watch,
    /// Commits of the consensus that the parent plays.
    Commits,
}

impl Args {
    /// The arguments of a node that runs until a signal stops it.
    pub fn with_config(config: PathBuf) -> Self {
        Self { config, log_format: LogFormat::Text, stdin: None, record: None }
    }

    /// The arguments of a node that runs until standard input ends.
    pub fn watching_stdin(config: PathBuf) -> Self {
        Self { stdin: Some(Stdin::Watch), ..Self::with_config(config) }
    }
}

/// What a [`Companion`] is made from.
pub struct Parts<'a> {
    /// The node's configuration.
    pub config: &'a NodeConfig,
    /// The chain.
    pub genesis: &'a Genesis,
    /// The node's store.
    pub store: &'a Arc<FjallStore>,
}

/// A future of a companion.
pub type Running = Pin<Box<dyn Future<Output = Result<(), String>> + Send>>;

/// An executor: takes commits until the node stops, on a thread of its own, and shows how far it has got.
pub type Execute = Box<dyn FnOnce(&Handle, &watch::Sender<Executed>) + Send>;

/// What runs in the process of a node besides it.
pub struct Companion {
    /// The node that it needs.
    pub builder: Builder,
    /// Executes instead of the executor of `soma-p2p node`, which keeps a digest only.
    pub executor: Option<Execute>,
    /// Starts it. The node stops when the future ends; an error is why.
    pub run: Box<dyn FnOnce(Handle) -> Running>,
}

impl Companion {
    /// None: the node alone.
    pub fn none(builder: Builder) -> Self {
        Self { builder, executor: None, run: Box::new(|_| Box::pin(std::future::pending())) }
    }
}

pub(crate) fn run(args: &Args) -> Result<ExitCode, CliError> {
    run_in_process(args, |_, builder| Ok(Companion::none(builder)))
}

/// Runs a node as `soma-p2p node` does, with a companion.
pub fn run_in_process(
    args: &Args,
    accompany: impl FnOnce(&Parts<'_>, Builder) -> Result<Companion, CliError>,
) -> Result<ExitCode, CliError> {
    let config = NodeConfig::read(&args.config)?;
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    crate::memory::give_back_freed().map_err(CliError::failed)?;
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().map_err(CliError::failed)?;
    let log = {
        let _entered = runtime.enter();
        Log::init(args.log_format, &config.log_filter)?
    };
    let result = runtime.block_on(run_node(args, config, &log.filter, accompany));
    // Sends the last spans, for which it needs the runtime.
    drop(log);
    // Reads of standard input cannot be cancelled, nor a disk that does not answer; they are not waited for.
    runtime.shutdown_background();
    result
}

async fn run_node(
    args: &Args,
    config: NodeConfig,
    log: &LogFilter,
    accompany: impl FnOnce(&Parts<'_>, Builder) -> Result<Companion, CliError>,
) -> Result<ExitCode, CliError> {
    // Everything is read and checked before anything is written.
    let key = files::read_key(&config.key)?;
    let genesis = files::read_genesis(&config.genesis)?;
    let admin_listener = TcpListener::bind(config.admin)
        .await
        .map_err(|error| CliError::input(format!("admin = {}: cannot listen there: {error}", config.admin)))?;
    let admin_address = admin_listener.local_addr().map_err(CliError::failed)?;
    check_listen(config.p2p.listen).await?;
    let (keep, executed) = match &args.record {
        Some(path) => Keep::record(path)?,
        None => Keep::state(config.executor_file(), &config.p2p.pruning)?,
    };
    let store = FjallStore::open(&config.store_dir(), &genesis).map_err(CliError::input)?;
    keep.opened(&store)?;
    let acknowledgements = keep.clone();
    let store = Arc::new(store);
    let builder = ActorSystem::builder(genesis.clone(), key, store.clone()).config(config.p2p.clone());
    let companion = accompany(&Parts { config: &config, genesis: &genesis, store: &store }, builder)?;
    let metrics = ProcessMetrics::install()?;
    let mut system = companion.builder.start().map_err(CliError::input)?;
    drop(store);

    // From here on a signal stops it in order; whoever reads "ready" may send one.
    let mut terminate = signal(SignalKind::terminate()).map_err(CliError::failed)?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(CliError::failed)?;
    let controls = Controls::start(&args.config, &config, &system.handle(), log)?;
    let run = note_running(&config, &system, admin_address, &controls)?;
    let (progress, executing) = watch::channel(executed);
    let stream = system.handle();
    let execute = companion.executor;
    let executor = tokio::task::spawn_blocking(move || match execute {
        Some(execute) => execute(&stream, &progress),
        None => executor::run(&stream, executed, &progress, &keep),
    });
    let sampler = Sampler { system: system.handle(), executed: executing.clone(), store_dir: config.store_dir() };
    let page = sampler.start();
    let upkeep = tokio::spawn(metrics.clone().keep_up(page.frames.clone()));
    let routes = router(Admin {
        system: system.handle(),
        executed: executing,
        metrics,
        page,
        ready_within: controls.ready_within.clone(),
    })
    .await?;
    let admin = tokio::spawn(async move { axum::serve(admin_listener, routes).await });
    println!("ready: peer {} listens on {}, admin http://{admin_address}", run.peer_id, run.listen);
    let notices = Notices::ready(system.handle()).await;

    let handle = system.handle();
    let companion = tokio::spawn((companion.run)(system.handle()));
    let parent = async {
        match args.stdin {
            Some(Stdin::Watch) => feed::until_end().await,
            Some(Stdin::Commits) => feed::take_commits(&handle, &acknowledgements).await,
            None => std::future::pending().await,
        }
    };
    let failed = tokio::select! {
        _ = terminate.recv() => None,
        _ = interrupt.recv() => None,
        ended = parent => ended.err(),
        ended = companion => ended.unwrap_or_else(|panic| Err(panic.to_string())).err(),
        report = system.failed() => report.fatal.map(|fatal| fatal.to_string()),
    };
    notices.stopping(failed.as_deref()).await;
    let report = shut_down(system, executor, (terminate, interrupt), failed.as_deref()).await?;
    admin.abort();
    drop(controls);
    upkeep.abort();
    // The next node overwrites the leftovers of a node that did not stop in order.
    let _ = fs::remove_file(config.run_file());
    log_leftovers(&report);
    match failed {
        None => {
            tracing::info!("stopped");
            Ok(ExitCode::SUCCESS)
        }
        Some(reason) => Err(CliError::failed(format!("the node gave up: {reason}"))),
    }
}

/// Writes the run file.
fn note_running(
    config: &NodeConfig,
    system: &Handle,
    admin: SocketAddr,
    controls: &Controls,
) -> Result<RunFile, CliError> {
    let run = RunFile {
        pid: std::process::id(),
        admin,
        control: controls.socket.clone(),
        listen: system.address().clone(),
        peer_id: system.peer_id(),
    };
    let text = serde_json::to_vec_pretty(&run).map_err(CliError::failed)?;
    files::replace(&config.run_file(), &text).map_err(CliError::failed)?;
    Ok(run)
}

/// Stops the system in order. An error if that takes too long.
async fn shut_down(
    system: ActorSystem,
    executor: JoinHandle<()>,
    (mut terminate, mut interrupt): (Signal, Signal),
    failed: Option<&str>,
) -> Result<ShutdownReport, CliError> {
    // A second signal does not wait.
    tokio::spawn(async move {
        tokio::select! { _ = terminate.recv() => {}, _ = interrupt.recv() => {} }
        std::process::exit(130);
    });
    tracing::info!("stopping");
    let stopping = async {
        let report = system.shutdown(SHUTDOWN_DEADLINE).await;
        let _ = executor.await;
        report
    };
    timeout(END_AFTER, stopping).await.map_err(|_| {
        let reason = "threads are blocked, or the disk does not answer; nothing that was announced is lost";
        let late = format!("the node did not stop within {END_AFTER:?}: {reason}");
        CliError::failed(failed.map_or(late.clone(), |fatal| format!("the node gave up: {fatal}; {late}")))
    })
}

fn log_leftovers(report: &ShutdownReport) {
    for overdue in &report.overdue {
        tracing::warn!(overdue, "not stopped in order");
    }
    for leaked in &report.leaked {
        tracing::warn!(leaked, "left when the system had stopped");
    }
}

/// Whether the system will be able to listen. It listens only once it has a store, and an address in use must be
/// told before there is one.
async fn check_listen(address: ListenAddress) -> Result<(), CliError> {
    let Err(error) = TcpListener::bind(address.0).await else { return Ok(()) };
    let error = match error.kind() {
        std::io::ErrorKind::AddrInUse => ListenError::AddressInUse { address },
        _ => ListenError::Unusable { address, reason: error.to_string() },
    };
    Err(CliError::input(format!("p2p.listen: {error}")))
}
