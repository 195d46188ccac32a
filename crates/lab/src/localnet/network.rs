//! Runs the network from start to end.

use super::{
    args::{Args, StartArg},
    chain,
    consensus::Consensus,
    directory,
    process::{self, NodeFiles, NodeProcess},
    progress::{Display, Task},
    report::{KillReport, NodeReport, Report},
    sample::Sample,
};
use crate::interrupt::{self, Stop};
use soma_p2p::{Config, FjallStore, Genesis, NodeRole, SeedPeer, SigningKey, Start, Store, TraceConfig};
use soma_p2p_cli::CliError;
use soma_testkit::ChainBuilder;
use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
    process::{ChildStdin, ExitCode},
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::{Duration, Instant},
};

/// How often nodes are asked how they are doing.
const POLL: Duration = Duration::from_millis(100);

/// How long nodes may take to reach the very last commit.
const SETTLE_TIMEOUT: Duration = Duration::from_secs(30);

struct Kill {
    durable: u32,
    in_flight: u32,
}

struct FullNode {
    files: NodeFiles,
    process: NodeProcess,
    task: Task,
    started: Instant,
    looked: Instant,
    sample: Sample,
    caught_up: Option<Duration>,
    /// Blocks and bytes fetched by incarnations that were killed, as last seen.
    fetched_before: (u64, u64),
    fetched_at_catch_up: (u64, u64),
    /// Commits that killed incarnations got from the archive.
    archived_before: u64,
    kill: Option<Kill>,
}

pub(super) fn run(args: &Args) -> Result<ExitCode, CliError> {
    let interrupted = interrupt::on_ctrl_c()?;
    let display = Display::new(args.json);
    let _ours = directory::prepare(&args.dir)?;
    let dir = args.dir.canonicalize().map_err(CliError::failed)?;
    let network = Network { args, dir: &dir, display: &display, interrupted: &interrupted };
    match network.run() {
        Ok(report) => {
            report.print(args.json)?;
            Ok(if report.ok { ExitCode::SUCCESS } else { ExitCode::FAILURE })
        }
        Err(Stop::Interrupted) => Ok(interrupt::said(&dir)),
        Err(Stop::Failed(error)) => {
            eprintln!("data in {}", dir.display());
            Err(error)
        }
    }
}

struct Network<'a> {
    args: &'a Args,
    dir: &'a Path,
    display: &'a Display,
    interrupted: &'a AtomicBool,
}

impl Network<'_> {
    fn run(&self) -> Result<Report, Stop> {
        let args = self.args;
        let mut builder = chain::builder(args.chain_spec())?;
        let validators = self.start_validators(&mut builder)?;
        let seed = seed_of(&validators[0].1);
        let genesis = builder.genesis().clone();
        let mut validators = validators;
        let inputs = validators.iter_mut().filter_map(|(_, process)| process.take_stdin()).collect();
        let reference = self.open_reference(&genesis)?;
        let consensus = Consensus::start(builder, args.rate, args.commits, inputs, reference);
        self.wait_until_pruned(&mut validators)?;

        let mut full_nodes = Vec::new();
        for index in 0..args.full_nodes {
            let name = format!("full-node-{index}");
            let mut key = [0xf0; 32];
            key[..8].copy_from_slice(&(index as u64).to_be_bytes());
            key[8..16].copy_from_slice(&args.seed.to_be_bytes());
            let key = SigningKey::from_bytes(&key);
            let mut p2p = Config::listening_on(process::loopback().into());
            p2p.seed_peers = vec![seed.clone()];
            // What a late starter keeps is all that its executor was given.
            p2p.pruning.commits = args.prune.filter(|_| args.start == StartArg::Genesis);
            p2p.archive.place = args.archive.clone();
            p2p.start = args.start.into();
            p2p.trace = args.trace.as_ref().map(|dir| TraceConfig::new(dir.join(&name)));
            let files = NodeFiles::write(self.dir, name, &key, &genesis, p2p)?;
            let process = NodeProcess::start(&files)?;
            self.check_interrupted()?;
            full_nodes.push(FullNode {
                task: self.display.task(&files.name, args.commits),
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
            });
        }
        self.display.say(&format!(
            "{} validators with {} commits go on at {}/s; {} full node(s) know one seed peer",
            args.validators, args.commits, args.rate, args.full_nodes
        ));
        if let Err(stop) = self.follow(&consensus, &mut full_nodes, &mut validators) {
            // All are asked before any is waited for, which dropping them does.
            drop(consensus);
            full_nodes.iter_mut().for_each(|node| node.process.ask_to_stop());
            return Err(stop);
        }
        let (head, inputs) = consensus.finish()?;
        self.settle(head, &mut full_nodes, &mut validators)?;
        Ok(self.stop_and_compare(head, genesis.chain_id().to_string(), full_nodes, validators, inputs)?)
    }

    /// The store that keeps the whole chain where the validators do not. No node uses it.
    fn reference(&self) -> Option<PathBuf> {
        self.args.validators_prune().then(|| self.dir.join("reference"))
    }

    fn open_reference(&self, genesis: &Genesis) -> Result<Option<FjallStore>, CliError> {
        let open = |path: PathBuf| FjallStore::open(&path, genesis).map_err(CliError::failed);
        self.reference().map(open).transpose()
    }

    /// Waits until no validator has the first commits any more.
    fn wait_until_pruned(&self, validators: &mut [(NodeFiles, NodeProcess)]) -> Result<(), Stop> {
        if !self.args.validators_prune() || self.args.commits <= 2 * self.args.prune.unwrap_or(0) {
            return Ok(());
        }
        let started = Instant::now();
        loop {
            self.check_interrupted()?;
            check_alive(validators)?;
            let lowest = |process: &NodeProcess| process.status().ok()?.p2p.store_writer?.lowest_available;
            let all: Vec<_> = validators.iter().map(|(_, process)| lowest(process)).collect();
            if all.iter().all(|lowest| lowest.is_some_and(|lowest| lowest > 1)) {
                let highest = all.into_iter().flatten().min().unwrap_or(1);
                self.display.say(&format!("the archive has the past; validators begin with commit {highest} or later"));
                return Ok(());
            }
            if started.elapsed() > Duration::from_secs(self.args.timeout) {
                let reason = format!("validators did not prune within {} s; see their node.log", self.args.timeout);
                return Err(Stop::Failed(CliError::failed(reason)));
            }
            thread::sleep(POLL);
        }
    }

    fn check_interrupted(&self) -> Result<(), Stop> {
        if self.interrupted.load(Ordering::Relaxed) { Err(Stop::Interrupted) } else { Ok(()) }
    }

    /// Writes the history and starts the validators; the first one is the seed of the others.
    fn start_validators(&self, builder: &mut ChainBuilder) -> Result<Vec<(NodeFiles, NodeProcess)>, Stop> {
        let args = self.args;
        let genesis = builder.genesis().clone();
        let mut nodes = Vec::new();
        for index in 0..args.validators {
            let (name, key) = (format!("validator-{index}"), builder.network_key(index as u32));
            let mut p2p = Config::listening_on(process::loopback().into());
            p2p.role = NodeRole::Validator;
            if args.archive.is_some() {
                p2p.archive.place = args.archive.clone();
                p2p.archive.write = true;
                p2p.pruning.commits = args.prune;
            }
            let files = NodeFiles::write(self.dir, name, &key, &genesis, p2p)?;
            nodes.push((files, key));
        }
        let mut stores: Vec<PathBuf> = nodes.iter().map(|(files, _)| files.config.store_dir()).collect();
        stores.extend(self.reference());
        let mut task = self.display.task("history", args.commits);
        let mut stopped = false;
        let written = chain::write_history(builder, args.commits, &stores, |batch| {
            let done = batch.last().map_or(0, |last| last.commit.index);
            task.show(done, args.commits, "built, signed and written to the validators' stores");
            stopped = self.interrupted.load(Ordering::Relaxed);
            if stopped { Err(CliError::failed("interrupted")) } else { Ok(()) }
        });
        if stopped {
            return Err(Stop::Interrupted);
        }
        written?;
        task.finish();

        let mut running: Vec<(NodeFiles, NodeProcess)> = Vec::new();
        for (files, _) in nodes {
            let mut files = files;
            if let Some((_, first)) = running.first() {
                files.set_seed_peers(vec![seed_of(first)])?;
            }
            let process = NodeProcess::start(&files)?;
            running.push((files, process));
            self.check_interrupted()?;
        }
        Ok(running)
    }

    /// Watches until every full node has caught up and followed the head for a while.
    fn follow(
        &self,
        consensus: &Consensus,
        full_nodes: &mut [FullNode],
        validators: &mut [(NodeFiles, NodeProcess)],
    ) -> Result<(), Stop> {
        let started = Instant::now();
        let mut all_caught_up: Option<Instant> = None;
        loop {
            self.check_interrupted()?;
            if started.elapsed() > Duration::from_secs(self.args.timeout) {
                let reason = format!("no end after {} s; see each node's node.log", self.args.timeout);
                return Err(Stop::Failed(CliError::failed(reason)));
            }
            check_alive(validators)?;
            for node in full_nodes.iter_mut() {
                let head = consensus.head();
                node.look()?;
                node.task.show_node(&node.sample, head);
                let killed_at =
                    self.args.kill_after.filter(|_| node.files.name == "full-node-0" && node.kill.is_none());
                if killed_at.is_some_and(|index| node.sample.height >= index) {
                    node.kill_and_restart(self.display)?;
                }
                // Within a second of the head; what the node lacks then is on its way.
                let near = node.sample.height + self.args.rate.max(1) >= head;
                if node.caught_up.is_none() && near && node.sample.height >= self.args.commits {
                    node.caught_up = Some(node.started.elapsed());
                    node.fetched_at_catch_up = node.fetched();
                }
            }
            if full_nodes.iter().all(|node| node.caught_up.is_some()) {
                let since = all_caught_up.get_or_insert_with(Instant::now);
                if since.elapsed() >= Duration::from_secs(self.args.seconds) {
                    return Ok(());
                }
            }
            thread::sleep(POLL);
        }
    }

    /// Waits until everybody has the last commit and has executed it.
    fn settle(
        &self,
        head: u32,
        full_nodes: &mut [FullNode],
        validators: &mut [(NodeFiles, NodeProcess)],
    ) -> Result<(), Stop> {
        let started = Instant::now();
        while started.elapsed() < SETTLE_TIMEOUT {
            self.check_interrupted()?;
            check_alive(validators)?;
            let mut behind = false;
            for node in full_nodes.iter_mut() {
                node.look()?;
                node.task.show_node(&node.sample, head);
                behind |= node.sample.executed < head;
            }
            if !behind {
                break;
            }
            thread::sleep(POLL);
        }
        Ok(())
    }

    fn stop_and_compare(
        &self,
        head: u32,
        chain: String,
        full_nodes: Vec<FullNode>,
        validators: Vec<(NodeFiles, NodeProcess)>,
        inputs: Vec<ChildStdin>,
    ) -> Result<Report, CliError> {
        // All are asked before any is waited for.
        drop(inputs);
        let mut stopping = Vec::new();
        let mut epochs = 0;
        for mut node in full_nodes {
            node.process.ask_to_stop();
            epochs = epochs.max(node.sample.epoch + 1);
            stopping.push(node);
        }
        let count = validators.len();
        let stores: Vec<_> = match self.reference() {
            Some(reference) => vec![reference],
            None => validators.iter().map(|(files, _)| files.config.store_dir()).collect(),
        };
        let mut validators_stopped = true;
        for (_, process) in validators {
            validators_stopped &= process.wait_stopped();
        }
        let mut nodes = Vec::new();
        for node in stopping {
            nodes.push(node.stop(head)?);
        }
        for store in &stores {
            for first in nodes.iter().map(|node| node.first).collect::<BTreeSet<_>>() {
                let heights: Vec<_> = nodes.iter().filter(|node| node.first == first).map(|node| node.height).collect();
                let digests = chain::digests(store, first, &heights)?;
                for node in nodes.iter_mut().filter(|node| node.first == first) {
                    let digest = digests.get(&node.height).map(ToString::to_string);
                    node.digests_equal &= digest.as_ref() == Some(&node.digest);
                }
            }
        }
        let ok = nodes.iter().all(|node| node.digests_equal && node.reached_head && node.stopped_in_order);
        Ok(Report {
            chain,
            validators: count,
            head,
            epochs,
            full_nodes: nodes,
            data: self.dir.display().to_string(),
            ok: ok && validators_stopped,
        })
    }
}

fn check_alive(validators: &mut [(NodeFiles, NodeProcess)]) -> Result<(), CliError> {
    match validators.iter_mut().find_map(|(files, process)| Some((&files.name, process.ended()?))) {
        Some((name, status)) => Err(CliError::failed(format!("{name} ended by itself: {status}; see its node.log"))),
        None => Ok(()),
    }
}

fn seed_of(process: &NodeProcess) -> SeedPeer {
    SeedPeer { peer_id: process.run.peer_id, address: process.run.listen.clone() }
}

impl FullNode {
    fn look(&mut self) -> Result<(), CliError> {
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

    fn stop(self, head: u32) -> Result<NodeReport, CliError> {
        let seconds = self.caught_up.unwrap_or_else(|| self.started.elapsed()).as_secs_f64();
        let (blocks, bytes) = self.fetched_at_catch_up;
        let kill = self.kill.as_ref().map(|kill| KillReport {
            durable: kill.durable,
            in_flight: kill.in_flight,
            fetched_twice: self.sample.commits_fetched.saturating_sub(u64::from(self.sample.height - kill.durable)),
        });
        let stopped_in_order = self.process.wait_stopped();
        self.task.finish();
        let first = match self.files.config.p2p.start {
            Start::Genesis => 1,
            _ => {
                let store = FjallStore::open_existing(&self.files.config.store_dir()).map_err(CliError::failed)?;
                store.watermarks().map_err(CliError::failed)?.lowest_available
            }
        };
        Ok(NodeReport {
            name: self.files.name,
            first,
            height: self.sample.executed,
            seconds,
            blocks_per_second: blocks as f64 / seconds,
            megabytes_per_second: bytes as f64 / seconds / 1e6,
            from_archive: self.archived_before + self.sample.commits_from_archive,
            peers: self.sample.peers,
            kill,
            digest: self.sample.digest,
            digests_equal: true,
            reached_head: self.sample.executed >= head && self.caught_up.is_some(),
            stopped_in_order,
        })
    }
}
