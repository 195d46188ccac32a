//! Commands that change a running node, through a Unix socket in its data directory.
//!
//! ```text
//!   soma-p2p control --control.sock--> server: one request, one answer --> Handle, log filter, Reloader
//!   SIGHUP ------------------------------------------------------------------------------^
//! ```
//!
//! - Only the owner of the socket's file may connect.
//! - A connection carries one request, a line of JSON, and one answer, another line.
//! - Each command is logged with the target `audit`: user id and process id of the sender, and the result.

mod client;
mod messages;
mod reload;
mod server;

pub(crate) use client::{Args, run};

use crate::{error::CliError, logging::LogFilter, node_config::NodeConfig};
use reload::Reloader;
use soma_p2p::{CommitIndex, Handle};
use std::path::{Path, PathBuf};
use tokio::{
    signal::unix::{SignalKind, signal},
    sync::{mpsc, watch},
    task::JoinHandle,
};

/// Requests for a reload that wait.
const RELOADS: usize = 1;

/// What changes a running node: the control socket, and SIGHUP.
pub(crate) struct Controls {
    /// The socket, unless it could not be made.
    pub(crate) socket: Option<PathBuf>,
    /// The setting `ready_within_commits` as it is now.
    pub(crate) ready_within: watch::Receiver<Option<CommitIndex>>,
    tasks: Vec<JoinHandle<()>>,
}

impl Controls {
    /// Starts to take commands and signals.
    pub(crate) fn start(file: &Path, config: &NodeConfig, system: &Handle, log: &LogFilter) -> Result<Self, CliError> {
        let hang_up = signal(SignalKind::hangup()).map_err(CliError::failed)?;
        let (set_ready_within, ready_within) = watch::channel(config.ready_within_commits);
        let (reload, reloads) = mpsc::channel(RELOADS);
        let reloader = Reloader::new(file, config, system.clone(), log.clone(), set_ready_within);
        let mut tasks = vec![tokio::spawn(reloader.run(hang_up, reloads))];
        let path = config.control_socket();
        let socket = match server::bind(&path) {
            Ok(listener) => {
                let control = server::Control { system: system.clone(), log: log.clone(), reload };
                tasks.push(tokio::spawn(server::serve(listener, control)));
                Some(std::path::absolute(&path).unwrap_or(path))
            }
            Err(error) => {
                let path = path.display();
                tracing::warn!(%path, %error, "no control socket; a path of at most 107 bytes is needed");
                None
            }
        };
        Ok(Self { socket, ready_within, tasks })
    }
}

impl Drop for Controls {
    fn drop(&mut self) {
        self.tasks.iter().for_each(JoinHandle::abort);
        // The next node overwrites the socket of a node that did not stop in order.
        let _ = self.socket.as_ref().map(std::fs::remove_file);
    }
}
