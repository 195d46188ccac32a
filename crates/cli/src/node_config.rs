//! The configuration file of a node.

use crate::{error::CliError, files};
use serde::{Deserialize, Serialize};
use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
};

/// What a node needs. Paths are relative to the file's directory.
#[derive(Clone, Debug, Serialize, Deserialize)]
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
    pub admin: SocketAddr,
    /// The networking subsystem.
    #[serde(default)]
    pub p2p: soma_p2p::Config,
}

pub(crate) fn default_admin() -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], 9184))
}

impl NodeConfig {
    /// Reads and checks a file.
    pub fn read(path: &Path) -> Result<Self, CliError> {
        let text = files::read_text(path, "config file", "docs/operating.md shows one")?;
        let wrong = |reason: String| CliError::input(format!("config file {}: {reason}", path.display()));
        let mut config: Self = toml::from_str(&text).map_err(|error| wrong(one_line(&text, &error)))?;
        config.p2p.validate().map_err(|error| wrong(format!("p2p.{error}")))?;
        if !config.admin.ip().is_loopback() {
            return Err(wrong(format!(
                "admin = {}: must be a loopback address, it has no authentication",
                config.admin
            )));
        }
        let base = path.parent().unwrap_or(Path::new("."));
        for entry in [&mut config.data_dir, &mut config.genesis, &mut config.key] {
            *entry = base.join(&*entry);
        }
        if let Some(trace) = &mut config.p2p.trace {
            trace.directory = base.join(&trace.directory);
        }
        if let soma_p2p::Start::Checkpoint(file) = &mut config.p2p.start {
            *file = base.join(&*file);
        }
        if let Some(place) = config.p2p.archive.place.as_mut().filter(|place| !place.contains("://")) {
            *place = base.join(&*place).display().to_string();
        }
        Ok(config)
    }

    /// The store's directory.
    pub fn store_dir(&self) -> PathBuf {
        self.data_dir.join("store")
    }

    /// Says where a running node answers; gone when it has stopped in order.
    pub fn run_file(&self) -> PathBuf {
        self.data_dir.join("run.json")
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
    /// What peers connect to.
    pub listen: soma_p2p::Address,
    /// The node as its peers know it.
    pub peer_id: soma_p2p::PeerId,
}
