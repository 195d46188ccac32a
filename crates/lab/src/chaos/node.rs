//! One node and its lives.

use super::watcher::Look;
use crate::localnet::process::{NodeFiles, START_TIMEOUT, Spawned};
use soma_p2p::{CommitIndex, Genesis, NodeRole, PeerId, SeedPeer, SigningKey};
use soma_p2p_cli::{
    CliError,
    node_config::RunFile,
    record::{self, Entry, Record},
};
use soma_testkit::address_of;
use std::{
    net::{SocketAddr, TcpListener},
    os::unix::process::ExitStatusExt,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

/// The signal that ends a process without a word.
const SIGKILL: i32 = 9;

/// Ports for nodes to keep over their lives: below those that systems give to connections, so that a connection of
/// another node does not take the port of one that is down.
const PORTS: std::ops::Range<u16> = 10_000..32_000;

/// How many ports are tried for each that is needed.
const PORT_TRIES: usize = 200;

/// Ports that are free.
pub(super) fn ports(count: usize) -> Result<Vec<SocketAddr>, CliError> {
    let mut held = Vec::new();
    for _ in 0..count * PORT_TRIES {
        if held.len() == count {
            break;
        }
        let mut random = [0; 2];
        getrandom::fill(&mut random).map_err(CliError::failed)?;
        let port = PORTS.start + u16::from_be_bytes(random) % (PORTS.end - PORTS.start);
        // Held until all are found, so that none is found twice.
        held.extend(TcpListener::bind(("127.0.0.1", port)));
    }
    if held.len() < count {
        return Err(CliError::failed(format!(
            "of the ports {PORTS:?} of 127.0.0.1 fewer than {count} seem to be free"
        )));
    }
    held.iter().map(|listener| listener.local_addr().map_err(CliError::failed)).collect()
}

enum Life {
    /// Has not joined yet.
    Absent,
    Down {
        until: Instant,
    },
    Starting {
        process: Spawned,
        since: Instant,
    },
    Up {
        process: Spawned,
    },
}

/// A node of the network.
pub(super) struct Node {
    pub(super) files: NodeFiles,
    pub(super) peer: PeerId,
    pub(super) role: NodeRole,
    /// What its store had when it was last started.
    pub(super) opened: CommitIndex,
    /// When this start is cut off, if ever.
    pub(super) cut_off: Option<Instant>,
    record: PathBuf,
    life: Life,
}

impl Node {
    pub(super) fn new(
        dir: &Path,
        name: String,
        key: &SigningKey,
        genesis: &Genesis,
        p2p: soma_p2p::Config,
    ) -> Result<Self, CliError> {
        let role = p2p.role;
        let mut files = NodeFiles::write(dir, name, key, genesis, p2p)?;
        let record = dir.join(&files.name).join("record.log");
        files.record = Some(record.clone());
        Ok(Self { files, peer: PeerId::from(key), role, opened: 0, cut_off: None, record, life: Life::Absent })
    }

    pub(super) fn name(&self) -> &str {
        &self.files.name
    }

    pub(super) fn record(&self) -> &Path {
        &self.record
    }

    pub(super) fn is_validator(&self) -> bool {
        self.role == NodeRole::Validator
    }

    pub(super) fn is_absent(&self) -> bool {
        matches!(self.life, Life::Absent)
    }

    pub(super) fn is_starting(&self) -> bool {
        matches!(self.life, Life::Starting { .. })
    }

    pub(super) fn is_up(&self) -> bool {
        matches!(self.life, Life::Up { .. })
    }

    /// Whether it is down and its time has come.
    pub(super) fn is_due(&self) -> bool {
        matches!(self.life, Life::Down { until } if Instant::now() >= until)
    }

    /// Starts it. Its earlier announcements are recorded first: its disk must have them.
    pub(super) fn start(&mut self, look: &Look) -> Result<(), CliError> {
        let record = Record::open(&self.record)?;
        for (to, index) in &look.announced {
            record.append(&Entry::Announced { index: *index, to: to.clone() })?;
        }
        self.life = Life::Starting { process: Spawned::start(&self.files)?, since: Instant::now() };
        Ok(())
    }

    /// Looks after it; where it answers, if it has just come up.
    pub(super) fn look_after(&mut self) -> Result<Option<RunFile>, CliError> {
        if let Life::Starting { process, since } = &mut self.life {
            match process.ready(&self.files, Duration::ZERO)? {
                Some(run) => {
                    let entries = record::read(&self.record)?.into_iter();
                    let opened = entries.rev().find_map(|entry| match entry {
                        Entry::Opened { height } => Some(height),
                        _ => None,
                    });
                    self.opened = opened.unwrap_or_default();
                    if let Life::Starting { process, .. } = std::mem::replace(&mut self.life, Life::Absent) {
                        self.life = Life::Up { process };
                    }
                    return Ok(Some(run));
                }
                None if since.elapsed() > START_TIMEOUT => return Err(process.did_not_start(&self.files)),
                None => {}
            }
        }
        if let Life::Up { process } = &mut self.life
            && let Some(status) = process.ended()
        {
            return Err(self.ended_by_itself(status));
        }
        Ok(None)
    }

    /// Kills it with SIGKILL; it is started again after a while.
    pub(super) fn kill(&mut self, number: u32, down: Duration) -> Result<(), CliError> {
        let (Life::Starting { process, .. } | Life::Up { process }) = &mut self.life else {
            return Err(CliError::failed(format!("{} is to be killed, and does not run", self.name())));
        };
        let status = process.kill()?;
        if status.signal() != Some(SIGKILL) {
            return Err(self.ended_by_itself(status));
        }
        Record::open(&self.record)?.append(&Entry::Killed { number })?;
        self.life = Life::Down { until: Instant::now() + down };
        self.cut_off = None;
        Ok(())
    }

    fn ended_by_itself(&self, status: std::process::ExitStatus) -> CliError {
        CliError::failed(format!("{} ended by itself: {status} (log: {})", self.name(), self.files.log_file.display()))
    }

    /// Its standard input, for its consensus.
    pub(super) fn take_stdin(&mut self) -> Option<std::process::ChildStdin> {
        match &mut self.life {
            Life::Up { process } => process.take_stdin(),
            _ => None,
        }
    }

    /// Asks it to stop, if it runs.
    pub(super) fn ask_to_stop(&mut self) {
        if let Life::Starting { process, .. } | Life::Up { process } = &mut self.life {
            process.ask_to_stop();
        }
    }

    /// Waits until it has stopped; `false` if it had to be killed or reported a failure.
    pub(super) fn wait_stopped(&mut self) -> bool {
        match std::mem::replace(&mut self.life, Life::Absent) {
            Life::Starting { process, .. } | Life::Up { process } => process.wait_stopped(),
            Life::Absent | Life::Down { .. } => true,
        }
    }
}

/// The seed peer that such a node is to others.
pub(super) fn seed_peer(key: &SigningKey, address: SocketAddr) -> SeedPeer {
    SeedPeer { peer_id: PeerId::from(key), address: address_of(address) }
}
