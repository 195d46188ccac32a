//! One node as a child process.

use crate::{
    admin::NodeStatus,
    error::CliError,
    files,
    node_config::{NodeConfig, RunFile},
    status,
};
use soma_p2p::{Config, Genesis, NodeRole, SeedPeer, SigningKey};
use std::{
    fs::{self, File},
    io::{BufRead, BufReader},
    net::SocketAddr,
    os::unix::process::CommandExt,
    path::{Path, PathBuf},
    process::{Child, ChildStdin, Command, ExitStatus, Stdio},
    thread,
    time::{Duration, Instant},
};

/// How long a node may take to listen.
const START_TIMEOUT: Duration = Duration::from_secs(60);

/// How long a node may take to stop before it is killed.
const STOP_TIMEOUT: Duration = Duration::from_secs(20);

/// How often a child that is to end is looked at.
const POLL: Duration = Duration::from_millis(20);

/// The files of one node.
pub(super) struct NodeFiles {
    pub(super) name: String,
    pub(super) config_file: PathBuf,
    pub(super) config: NodeConfig,
    log_file: PathBuf,
    role: NodeRole,
}

impl NodeFiles {
    /// Writes key, genesis and configuration of a node into `dir/name`. It listens on loopback.
    pub(super) fn write(
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
        let loopback = SocketAddr::from(([127, 0, 0, 1], 0));
        let config = NodeConfig {
            data_dir: "data".into(),
            genesis: "genesis.bin".into(),
            key: "node.key".into(),
            admin: loopback,
            p2p: Config { listen: loopback.into(), ..p2p },
        };
        let config_file = dir.join("node.toml");
        let text = toml::to_string(&config).map_err(CliError::failed)?;
        files::replace(&config_file, text.as_bytes()).map_err(CliError::failed)?;
        let config = NodeConfig::read(&config_file)?;
        let role = config.p2p.role;
        fs::create_dir_all(&config.data_dir).map_err(CliError::failed)?;
        Ok(Self { name, config_file, config, log_file: dir.join("node.log"), role })
    }

    /// Changes the peers that the node begins with.
    pub(super) fn set_seed_peers(&mut self, seed_peers: Vec<SeedPeer>) -> Result<(), CliError> {
        let text = fs::read_to_string(&self.config_file).map_err(CliError::failed)?;
        let mut config: NodeConfig = toml::from_str(&text).map_err(CliError::failed)?;
        config.p2p.seed_peers = seed_peers;
        let text = toml::to_string(&config).map_err(CliError::failed)?;
        files::replace(&self.config_file, text.as_bytes()).map_err(CliError::failed)
    }
}

/// A running node. Stopped when dropped, so that none outlives this process, however it comes to its end; should this
/// process be killed itself, the end of their standard input stops them.
pub(super) struct NodeProcess {
    child: Child,
    stdin: Option<ChildStdin>,
    pub(super) run: RunFile,
}

impl NodeProcess {
    /// Starts a node and waits until it listens.
    pub(super) fn start(node: &NodeFiles) -> Result<Self, CliError> {
        let failed = |error: String| CliError::failed(format!("{}: {error}", node.name));
        let log = File::options().create(true).append(true).open(&node.log_file);
        let log = log.map_err(|error| failed(error.to_string()))?;
        let program = std::env::current_exe().map_err(|error| failed(error.to_string()))?;
        let stdin = if node.role == NodeRole::Validator { "commits" } else { "watch" };
        let mut child = Command::new(program)
            .args(["node", "--stdin", stdin, "--config"])
            .arg(&node.config_file)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(log)
            // A group of its own: Ctrl-C is for this process, which then stops the others in order.
            .process_group(0)
            .spawn()
            .map_err(|error| failed(error.to_string()))?;
        let stdin = child.stdin.take();
        let lines = child.stdout.take();
        let (ready, listening) = std::sync::mpsc::sync_channel(1);
        thread::spawn(move || {
            let mut lines = lines.map(BufReader::new).into_iter().flat_map(BufRead::lines);
            let found = lines.by_ref().map_while(Result::ok).any(|line| line.starts_with("ready"));
            let _ = ready.send(found);
            // Whatever else it prints must not fill the pipe.
            lines.for_each(drop);
        });
        if !matches!(listening.recv_timeout(START_TIMEOUT), Ok(true)) {
            let _ = child.kill();
            let _ = child.wait();
            let log = fs::read_to_string(&node.log_file).unwrap_or_default();
            let last = log.lines().last().unwrap_or("its log is empty");
            return Err(failed(format!("did not start: {last} (log: {})", node.log_file.display())));
        }
        let run = fs::read_to_string(node.config.run_file()).map_err(|error| failed(error.to_string()))?;
        let run = serde_json::from_str(&run).map_err(|error| failed(error.to_string()))?;
        Ok(Self { child, stdin, run })
    }

    /// Its standard input, for whoever plays its consensus.
    pub(super) fn take_stdin(&mut self) -> Option<ChildStdin> {
        self.stdin.take()
    }

    /// Asks it how it is doing.
    pub(super) fn status(&self) -> Result<NodeStatus, String> {
        status::fetch(self.run.admin).map_err(|error| error.to_string())
    }

    /// How it ended, if it has.
    pub(super) fn ended(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().ok().flatten()
    }

    /// Ends it without a word, as a power cut would.
    pub(super) fn kill(&mut self) -> Result<(), CliError> {
        self.child.kill().map_err(CliError::failed)?;
        self.child.wait().map_err(CliError::failed)?;
        Ok(())
    }

    /// Asks it to stop, by the end of its standard input.
    pub(super) fn ask_to_stop(&mut self) {
        self.stdin = None;
    }

    /// Waits until it has stopped; `false` if it had to be killed or reported a failure.
    pub(super) fn wait_stopped(mut self) -> bool {
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

impl Drop for NodeProcess {
    fn drop(&mut self) {
        self.stop();
    }
}
