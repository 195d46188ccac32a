//! One full node, which syncs the chain.

use super::{
    args::{Args, JoinArg, StartArg},
    process::{self, NodeFiles, NodeProcess},
    progress::{Display, Task},
    report::{KillReport, NodeReport},
    sample::Sample,
};
use crate::ledger::{Ledger, ledger_dir};
use soma_p2p::{Config, FjallStore, Genesis, SeedPeer, SigningKey, Start, Store, TraceConfig};
use soma_p2p_cli::CliError;
use std::{
    path::Path,
    time::{Duration, Instant},
};

struct Kill {
    durable: u32,
    in_flight: u32,
}

/// The node, over all its lives.
pub(super) struct FullNode {
    pub(super) files: NodeFiles,
    pub(super) process: NodeProcess,
    task: Task,
    started: Instant,
    looked: Instant,
    pub(super) sample: Sample,
    pub(super) caught_up: Option<Duration>,
    /// Blocks and bytes fetched by incarnations that were killed, as last seen.
    fetched_before: (u64, u64),
    fetched_at_catch_up: (u64, u64),
    /// Commits that killed incarnations got from the archive.
    archived_before: u64,
    kill: Option<Kill>,
}

impl FullNode {
    /// Starts the node with this number, which knows one seed peer.
    pub(super) fn start(
        (args, dir, display): (&Args, &Path, &Display),
        index: usize,
        genesis: &Genesis,
        seed: &SeedPeer,
    ) -> Result<Self, CliError> {
        let name = format!("full-node-{index}");
        let mut key = [0xf0; 32];
        key[..8].copy_from_slice(&(index as u64).to_be_bytes());
        key[8..16].copy_from_slice(&args.seed.to_be_bytes());
        let key = SigningKey::from_bytes(&key);
        let mut p2p = Config::listening_on(process::loopback().into());
        p2p.seed_peers = vec![seed.clone()];
        // What a late starter keeps is all that its executor was given.
        p2p.pruning.commits = args.prune.filter(|_| args.start() == StartArg::Genesis);
        p2p.archive.place = args.archive.clone();
        p2p.start = args.start().into();
        p2p.trace = args.trace.as_ref().map(|dir| TraceConfig::new(dir.join(&name)));
        let mut files = NodeFiles::write(dir, name, &key, genesis, p2p)?;
        files.execute(args.execution(args.join));
        let process = NodeProcess::start(&files)?;
        Ok(Self {
            task: display.task(&files.name, args.history()),
            files,
            process,
            started: Instant::now(),
            looked: Instant::now(),
            sample: Sample::default(),
            caught_up: None,
            fetched_before: (0, 0),
            fetched_at_catch_up: (0, 0),
            archived_before: 0,
            kill: None,
        })
    }

    /// Looks at it, and kills it if that is due.
    pub(super) fn advance(&mut self, args: &Args, head: u32, display: &Display) -> Result<(), CliError> {
        self.look()?;
        self.task.show_node(&self.sample, head);
        let killed_at = args.kill_after.filter(|_| self.files.name == "full-node-0" && self.kill.is_none());
        if killed_at.is_some_and(|index| self.sample.height >= index) {
            self.kill_and_restart(display)?;
        }
        // With a snapshot, a node has the last commits before it has a state.
        let reached = if args.join == JoinArg::Snapshot { self.sample.executed } else { self.sample.height };
        // Within a second of the head; what the node lacks then is on its way.
        let near = reached + args.rate.max(1) >= head;
        if self.caught_up.is_none() && near && reached >= args.history() {
            self.caught_up = Some(self.started.elapsed());
            self.fetched_at_catch_up = self.fetched();
        }
        Ok(())
    }

    /// Shows where it is.
    pub(super) fn show(&mut self, head: u32) {
        self.task.show_node(&self.sample, head);
    }

    pub(super) fn look(&mut self) -> Result<(), CliError> {
        if let Some(status) = self.process.ended() {
            return Err(CliError::failed(format!("{} ended by itself: {status}; see its node.log", self.files.name)));
        }
        // A node that is busy starting answers a little later.
        if let Ok(status) = self.process.status() {
            let elapsed = self.looked.elapsed();
            self.looked = Instant::now();
            self.sample.update(&status, elapsed);
        }
        Ok(())
    }

    /// Blocks and bytes fetched so far, by all incarnations.
    fn fetched(&self) -> (u64, u64) {
        (self.fetched_before.0 + self.sample.blocks_fetched, self.fetched_before.1 + self.sample.bytes_fetched)
    }

    fn kill_and_restart(&mut self, display: &Display) -> Result<(), CliError> {
        let fetched = self.sample.commits_fetched as u32;
        self.fetched_before = self.fetched();
        self.archived_before += self.sample.commits_from_archive;
        self.process.kill()?;
        let durable = {
            let store = FjallStore::open_existing(&self.files.config.store_dir()).map_err(CliError::failed)?;
            store.watermarks().map_err(CliError::failed)?.highest_synced.index
        };
        let in_flight = fetched.saturating_sub(durable);
        self.kill = Some(Kill { durable, in_flight });
        self.process = NodeProcess::start(&self.files)?;
        self.sample = Sample { height: durable, ..Sample::default() };
        display.say(&format!("{} killed (SIGKILL) with {durable} commits on disk, and started again", self.files.name));
        Ok(())
    }

    pub(super) fn stop(self, head: u32) -> Result<NodeReport, CliError> {
        let seconds = self.caught_up.unwrap_or_else(|| self.started.elapsed()).as_secs_f64();
        let (blocks, bytes) = self.fetched_at_catch_up;
        let kill = self.kill.as_ref().map(|kill| KillReport {
            durable: kill.durable,
            in_flight: kill.in_flight,
            fetched_twice: self.sample.commits_fetched.saturating_sub(u64::from(self.sample.height - kill.durable)),
        });
        let stopped_in_order = self.process.wait_stopped();
        self.task.finish();
        let config = &self.files.config;
        let ledger = Ledger::open(&ledger_dir(&config.data_dir), &config.p2p.pruning)?;
        let first = match (ledger.joined(), &config.p2p.start) {
            (Some(snapshot), _) => snapshot + 1,
            (None, Start::Genesis) => 1,
            (None, _) => {
                let store = FjallStore::open_existing(&config.store_dir()).map_err(CliError::failed)?;
                store.watermarks().map_err(CliError::failed)?.lowest_available
            }
        };
        Ok(NodeReport {
            name: self.files.name,
            first,
            snapshot: ledger.joined(),
            state: ledger.digest(),
            height: self.sample.executed,
            seconds,
            blocks_per_second: blocks as f64 / seconds,
            megabytes_per_second: bytes as f64 / seconds / 1e6,
            from_archive: self.archived_before + self.sample.commits_from_archive,
            peers: self.sample.peers,
            kill,
            digest: self.sample.digest,
            digests_equal: true,
            state_equal: None,
            reached_head: self.sample.executed >= head && self.caught_up.is_some(),
            stopped_in_order,
        })
    }
}
