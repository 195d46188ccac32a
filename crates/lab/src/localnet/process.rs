//! One node as a child process.

use crate::{ledger::Execution, validator::Work};
use soma_p2p::{Config, Genesis, NodeRole, SeedPeer, SigningKey};
use soma_p2p_cli::{
    CliError, fetch_status, files,
    node_config::{NodeConfig, RunFile},
    node_status::NodeStatus,
};
use std::{
    fs::{self, File},
    io::{BufRead, BufReader, Write},
    net::SocketAddr,
    ops::{Deref, DerefMut},
    os::unix::process::CommandExt,
    path::{Path, PathBuf},
    process::{Child, ChildStdin, Command, ExitStatus, Stdio},
    sync::mpsc::{self, Receiver, RecvTimeoutError},
    thread,
    time::{Duration, Instant},
};

/// How long a node may take to listen.
pub(crate) const START_TIMEOUT: Duration = Duration::from_secs(60);

/// How long a node may take to stop before it is killed.
const STOP_TIMEOUT: Duration = Duration::from_secs(20);

/// How often a child that is to end is looked at.
const POLL: Duration = Duration::from_millis(20);

/// The files of one node.
pub(crate) struct NodeFiles {
    pub(crate) name: String,
    pub(crate) config_file: PathBuf,
    pub(crate) config: NodeConfig,
    pub(crate) log_file: PathBuf,
    /// Where it writes down what its executor is given, if it is to.
    pub(crate) record: Option<PathBuf>,
    /// Its command and the arguments before its files.
    command: Vec<String>,
}

/// A port of this machine alone, chosen by the system.
pub(crate) fn loopback() -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], 0))
}

impl NodeFiles {
    /// Writes key, genesis and configuration of a node into `dir/name`.
    pub(crate) fn write(
        dir: &Path,
        name: String,
        key: &SigningKey,
        genesis: &Genesis,
        p2p: Config,
    ) -> Result<Self, CliError> {
        let dir = dir.join(&name);
        fs::create_dir_all(&dir).map_err(|error| CliError::input(format!("{}: {error}", dir.display())))?;
        files::write_key(&dir.join("node.key"), key)?;
        files::replace(&dir.join("genesis.bin"), &genesis.encode()).map_err(CliError::failed)?;
        let mut config = NodeConfig::new("data".into(), "genesis.bin".into(), "node.key".into());
        config.admin = loopback();
        config.p2p = p2p;
        let config_file = dir.join("node.toml");
        let text = toml::to_string(&config).map_err(CliError::failed)?;
        files::replace(&config_file, text.as_bytes()).map_err(CliError::failed)?;
        let config = NodeConfig::read(&config_file)?;
        let stdin = if config.p2p.role == NodeRole::Validator { "commits" } else { "watch" };
        let command = ["node", "--stdin", stdin].map(str::to_owned).to_vec();
        fs::create_dir_all(&config.data_dir).map_err(CliError::failed)?;
        Ok(Self { name, config_file, config, log_file: dir.join("node.log"), record: None, command })
    }

    /// Has the node make blocks with this key, and execute them.
    pub(crate) fn make_blocks(&mut self, key: &SigningKey, work: &Work, execution: Execution) -> Result<(), CliError> {
        let file = self.config_file.with_file_name("protocol.key");
        files::write_key(&file, key)?;
        self.command = vec!["validator".to_owned(), "--protocol-key".to_owned(), file.display().to_string()];
        self.command.extend(work.to_args().into_iter().chain(execution.to_args()));
        Ok(())
    }

    /// Has the full node execute commits.
    pub(crate) fn execute(&mut self, execution: Execution) {
        self.command = [vec!["full-node".to_owned()], execution.to_args()].concat();
    }

    /// Changes the peers that the node begins with.
    pub(crate) fn set_seed_peers(&mut self, seed_peers: Vec<SeedPeer>) -> Result<(), CliError> {
        let text = fs::read_to_string(&self.config_file).map_err(CliError::failed)?;
        let mut config: NodeConfig = toml::from_str(&text).map_err(CliError::failed)?;
        config.p2p.seed_peers = seed_peers;
        let text = toml::to_string(&config).map_err(CliError::failed)?;
        files::replace(&self.config_file, text.as_bytes()).map_err(CliError::failed)
    }
}

/// A node's process, which may not listen yet. Stopped when dropped, so that none outlives this process, however it
/// comes to its end; should this process be killed itself, the end of their standard input stops them.
pub(crate) struct Spawned {
    child: Child,
    stdin: Option<ChildStdin>,
    /// Whether it has said that it is ready, or has closed its output without.
    listening: Receiver<bool>,
}

impl Spawned {
    /// Starts a node.
    pub(crate) fn start(node: &NodeFiles) -> Result<Self, CliError> {
        let failed = |error: String| CliError::failed(format!("{} cannot be started: {error}", node.name));
        let log = File::options().create(true).append(true).open(&node.log_file);
        let log = log.map_err(|error| failed(format!("{}: {error}", node.log_file.display())))?;
        let program = std::env::current_exe().map_err(|error| failed(error.to_string()))?;
        let mut command = Command::new(program);
        command.args(&node.command).arg("--config").arg(&node.config_file);
        if let Some(record) = &node.record {
            command.arg("--record").arg(record);
        }
        // A group of its own: Ctrl-C is for this process, which then stops the others in order.
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(log).process_group(0);
        let mut child = command.spawn().map_err(|error| failed(error.to_string()))?;
        let stdin = child.stdin.take();
        let lines = child.stdout.take();
        let (ready, listening) = mpsc::sync_channel(1);
        thread::spawn(move || {
            let mut lines = lines.map(BufReader::new).into_iter().flat_map(BufRead::lines);
            let found = lines.by_ref().map_while(Result::ok).any(|line| line.starts_with("ready"));
            let _ = ready.send(found);
            // Its further output must not fill the pipe.
            lines.for_each(drop);
        });
        Ok(Self { child, stdin, listening })
    }

    /// Waits at most this long for it to listen; `None` if it does not yet.
    pub(crate) fn ready(&mut self, node: &NodeFiles, wait: Duration) -> Result<Option<RunFile>, CliError> {
        match self.listening.recv_timeout(wait) {
            Ok(true) => {}
            Ok(false) | Err(RecvTimeoutError::Disconnected) => return Err(self.did_not_start(node)),
            Err(RecvTimeoutError::Timeout) => return Ok(None),
        }
        let file = node.config.run_file();
        let failed = |error: String| CliError::failed(format!("{}: {}: {error}", node.name, file.display()));
        let run = fs::read_to_string(&file).map_err(|error| failed(error.to_string()))?;
        serde_json::from_str(&run).map(Some).map_err(|error| failed(error.to_string()))
    }

    /// Ends one that does not come to listen, and says why, as far as its log tells.
    pub(crate) fn did_not_start(&mut self, node: &NodeFiles) -> CliError {
        let _ = self.kill();
        let log = fs::read_to_string(&node.log_file).unwrap_or_default();
        let last = log.lines().last().unwrap_or("its log is empty");
        CliError::failed(format!("{}: did not start: {last} (log: {})", node.name, node.log_file.display()))
    }

    /// Its standard input, for the consensus.
    pub(crate) fn take_stdin(&mut self) -> Option<ChildStdin> {
        self.stdin.take()
    }

    /// How it ended, if it has.
    pub(crate) fn ended(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().ok().flatten()
    }

    /// Ends it without a word, as a power cut would; how it ended, for it may have been faster.
    pub(crate) fn kill(&mut self) -> Result<ExitStatus, CliError> {
        self.child.kill().map_err(CliError::failed)?;
        self.child.wait().map_err(CliError::failed)
    }

    /// Ends its consensus, and not the node.
    pub(crate) fn stop_consensus(&mut self) {
        // One that is gone has stopped.
        let _ = self.stdin.as_mut().map(|stdin| stdin.write_all(b"stop\n"));
    }

    /// Asks it to stop, by the end of its standard input.
    pub(crate) fn ask_to_stop(&mut self) {
        self.stdin = None;
    }

    /// Waits until it has stopped; `false` if it had to be killed or reported a failure.
    pub(crate) fn wait_stopped(mut self) -> bool {
        self.stop()
    }

    fn stop(&mut self) -> bool {
        self.ask_to_stop();
        let deadline = Instant::now() + STOP_TIMEOUT;
        while Instant::now() < deadline {
            if let Some(status) = self.ended() {
                return status.success();
            }
            thread::sleep(POLL);
        }
        let _ = self.kill();
        false
    }
}

impl Drop for Spawned {
    fn drop(&mut self) {
        self.stop();
    }
}

/// A node that listens.
pub(crate) struct NodeProcess {
    spawned: Spawned,
    pub(crate) run: RunFile,
}

impl NodeProcess {
    /// Starts a node and waits until it listens.
    pub(crate) fn start(node: &NodeFiles) -> Result<Self, CliError> {
        let mut spawned = Spawned::start(node)?;
        match spawned.ready(node, START_TIMEOUT)? {
            Some(run) => Ok(Self { spawned, run }),
            None => Err(spawned.did_not_start(node)),
        }
    }

    /// Asks it how it is doing.
    pub(crate) fn status(&self) -> Result<NodeStatus, String> {
        fetch_status(self.run.admin).map_err(|error| error.to_string())
    }

    /// Waits until it has stopped; `false` if it had to be killed or reported a failure.
    pub(crate) fn wait_stopped(self) -> bool {
        self.spawned.wait_stopped()
    }
}

impl Deref for NodeProcess {
    type Target = Spawned;

    fn deref(&self) -> &Spawned {
        &self.spawned
    }
}

impl DerefMut for NodeProcess {
    fn deref_mut(&mut self) -> &mut Spawned {
        &mut self.spawned
    }
}
