//! The configuration file of a node.

use crate::{
    error::CliError,
    files,
    logging::{self, DEFAULT_LOG_FILTER},
    overrides::{Overrides, WrongSetting},
};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use soma_p2p::CommitIndex;
use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
};

/// What a node needs. Paths are relative to the file's directory.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct NodeConfig {
    /// Where the node keeps its store and its small state files.
    pub data_dir: PathBuf,
    /// The chain's genesis file.
    pub genesis: PathBuf,
    /// The node's network key.
    pub key: PathBuf,
    /// Where the admin endpoint listens: loopback only; port 0 lets the system choose.
    #[serde(default = "default_admin")]
    #[schemars(with = "String")]
    pub admin: SocketAddr,
    /// The filter of the log, in the form of `RUST_LOG`, which counts instead if it is set.
    #[serde(default = "default_log_filter")]
    pub log_filter: String,
    /// Commits that a ready node may be behind its target. Without it, a node that is behind and fetches is ready.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ready_within_commits: Option<CommitIndex>,
    /// The networking subsystem.
    #[serde(default)]
    pub p2p: soma_p2p::Config,
}

fn default_admin() -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], 9184))
}

fn default_log_filter() -> String {
    DEFAULT_LOG_FILTER.into()
}

impl NodeConfig {
    /// The defaults, and these paths, which have no default.
    pub fn new(data_dir: PathBuf, genesis: PathBuf, key: PathBuf) -> Self {
        Self {
            data_dir,
            genesis,
            key,
            admin: default_admin(),
            log_filter: default_log_filter(),
            ready_within_commits: None,
            p2p: soma_p2p::Config::default(),
        }
    }

    /// Reads and checks a file, with the settings of the environment in place of its own.
    pub fn read(path: &Path) -> Result<Self, CliError> {
        Self::read_with(path, &Overrides::of_process()?)
    }

    /// The same with these settings of the environment.
    pub(crate) fn read_with(path: &Path, overrides: &Overrides) -> Result<Self, CliError> {
        let text = files::read_text(path, "config file", "docs/operating/configuration.md shows one")?;
        let wrong = |reason: String| CliError::input(format!("config file {}: {reason}", path.display()));
        let mut config = Self::parse(&text, overrides).map_err(|error| match error {
            WrongSetting::Variable(error) => error,
            WrongSetting::File(reason) => wrong(reason),
        })?;
        let check = |key: &str, reason: String| overrides.blame(key, &reason).unwrap_or_else(|| wrong(reason));
        config.p2p.validate().map_err(|error| {
            // Some keys have a word behind them, such as "(count)".
            let key = error.key.split(' ').next().unwrap_or_default();
            check(&format!("p2p.{key}"), format!("p2p.{error}"))
        })?;
        if !config.admin.ip().is_loopback() {
            let reason = format!("admin = {}: must be a loopback address, it has no authentication", config.admin);
            return Err(check("admin", reason));
        }
        logging::parse(&config.log_filter).map_err(|reason| check("log_filter", format!("log_filter: {reason}")))?;
        config.resolve(path);
        Ok(config)
    }

    fn parse(text: &str, overrides: &Overrides) -> Result<Self, WrongSetting> {
        let in_file = |error: toml::de::Error| WrongSetting::File(one_line(text, &error));
        if overrides.is_empty() {
            return toml::from_str(text).map_err(in_file);
        }
        let table: toml::Table = toml::from_str(text).map_err(in_file)?;
        overrides.merge(table).map_err(|error| match (error, toml::from_str::<Self>(text)) {
            // Only parsing the file itself gives the line of an error. The environment may set a missing field.
            (WrongSetting::File(_), Err(error)) if !error.message().starts_with("missing field") => in_file(error),
            (error, _) => error,
        })
    }

    /// Makes its paths relative to the directory of its file.
    fn resolve(&mut self, path: &Path) {
        let base = path.parent().unwrap_or(Path::new("."));
        for entry in [&mut self.data_dir, &mut self.genesis, &mut self.key] {
            *entry = base.join(&*entry);
        }
        if let Some(trace) = &mut self.p2p.trace {
            trace.directory = base.join(&trace.directory);
        }
        if let soma_p2p::Start::Checkpoint(file) = &mut self.p2p.start {
            *file = base.join(&*file);
        }
        if let Some(place) = self.p2p.archive.place.as_mut().filter(|place| !place.contains("://")) {
            *place = base.join(&*place).display().to_string();
        }
    }

    /// The store's directory.
    pub fn store_dir(&self) -> PathBuf {
        self.data_dir.join("store")
    }

    /// Says where a running node answers; gone when it has stopped in order.
    pub fn run_file(&self) -> PathBuf {
        self.data_dir.join("run.json")
    }

    /// Takes commands while the node runs.
    pub fn control_socket(&self) -> PathBuf {
        self.data_dir.join("control.sock")
    }

    /// How far the executor has got.
    pub fn executor_file(&self) -> PathBuf {
        self.data_dir.join("executor.json")
    }
}

/// The problem and its line, without the quoted excerpt.
fn one_line(text: &str, error: &toml::de::Error) -> String {
    let before = error.span().and_then(|span| text.get(..span.start));
    let line = before.map(|before| before.matches('\n').count() + 1);
    let message = error.message().replace('\n', " ");
    match line {
        Some(line) => format!("line {line}: {message}"),
        None => message,
    }
}

/// Where a running node answers.
#[derive(Debug, Serialize, Deserialize)]
pub struct RunFile {
    /// The process.
    pub pid: u32,
    /// The admin endpoint.
    pub admin: SocketAddr,
    /// The socket for commands that change the node; none if it could not be made.
    #[serde(default)]
    pub control: Option<PathBuf>,
    /// What peers connect to.
    pub listen: soma_p2p::Address,
    /// The node as its peers know it.
    pub peer_id: soma_p2p::PeerId,
}
