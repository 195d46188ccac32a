//! Runs the network from start to end.

use super::{
    args::Args,
    chain, directory,
    full_node::FullNode,
    page,
    process::{self, NodeFiles, NodeProcess},
    progress::Display,
    report::{NodeReport, Report, ValidatorKillReport, ValidatorReport},
    validator_kill::ValidatorKill,
    validators::Validators,
};
use crate::interrupt::{self, Stop};
use soma_p2p::{CommitIndex, Config, FjallStore, Genesis, SigningKey, Store, types::AuthorityIndex};
use soma_p2p_cli::CliError;
use soma_testkit::ChainBuilder;
use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Path, PathBuf},
    process::ExitCode,
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::{Duration, Instant},
};

/// How often nodes are asked how they are doing.
const POLL: Duration = Duration::from_millis(100);

/// How long nodes may take to reach the very last commit.
const SETTLE_TIMEOUT: Duration = Duration::from_secs(30);

/// How long all must have the same commits, once no more are made: what is in flight takes less.
const SETTLED_FOR: Duration = Duration::from_secs(1);

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

/// All processes.
struct Nodes {
    genesis: Genesis,
    validators: Validators,
    /// A full node that keeps the whole chain, where the validators do not.
    reference: Option<(NodeFiles, NodeProcess)>,
    full_nodes: Vec<FullNode>,
}

impl Network<'_> {
    fn run(&self) -> Result<Report, Stop> {
        let args = self.args;
        if let Some(address) = args.page {
            let address = page::serve(address, self.dir)?;
            self.display.say(&format!("page of the network: http://{address}/"));
        }
        let mut nodes = self.start_validators()?;
        self.wait_until_pruned(&mut nodes.validators)?;
        let seed = nodes.validators.seed().ok_or_else(|| CliError::failed("the first validator is gone"))?;
        for index in 0..args.full_nodes {
            let node = FullNode::start((args, self.dir, self.display), index, &nodes.genesis, &seed)?;
            let admin = node.process.run.admin;
            self.display.say(&format!("status page of {}: http://{admin}/", node.files.name));
            nodes.full_nodes.push(node);
            self.check_interrupted()?;
        }
        self.display.say(&format!(
            "{} validators with {} commits go on at {}/s; {} full node(s) know one seed peer",
            args.validators,
            args.history(),
            args.rate,
            args.full_nodes
        ));
        let ended = self.follow(&mut nodes).and_then(|kill| {
            nodes.validators.stop_consensus();
            Ok((self.settle(&mut nodes)?, kill))
        });
        match ended {
            Ok((head, kill)) => Ok(self.stop_and_compare(head, kill, nodes)?),
            Err(stop) => {
                // All are asked before any is waited for, which dropping them does.
                nodes.validators.ask_to_stop();
                nodes.full_nodes.iter_mut().for_each(|node| node.process.ask_to_stop());
                Err(stop)
            }
        }
    }

    fn check_interrupted(&self) -> Result<(), Stop> {
        if self.interrupted.load(Ordering::Relaxed) { Err(Stop::Interrupted) } else { Ok(()) }
    }

    /// Writes the history and starts the validators, which go on from there.
    fn start_validators(&self) -> Result<Nodes, Stop> {
        let args = self.args;
        let mut builder = chain::builder(args.work().chain_spec())?;
        let genesis = builder.genesis().clone();
        let mut validators = Validators::write_files(args, self.dir, &builder)?;
        let reference = if args.validators_prune() { Some(self.reference_files(&genesis)?) } else { None };
        let mut stores = validators.stores();
        stores.extend(reference.as_ref().map(|files| files.config.store_dir()));
        self.write_history(&mut builder, &stores)?;
        for index in 0..args.validators {
            validators.start(index)?;
            self.check_interrupted()?;
        }
        let reference = match (reference, validators.seed()) {
            (Some(mut files), Some(seed)) => {
                files.set_seed_peers(vec![seed])?;
                let process = NodeProcess::start(&files)?;
                Some((files, process))
            }
            _ => None,
        };
        Ok(Nodes { genesis, validators, reference, full_nodes: Vec::new() })
    }

    fn reference_files(&self, genesis: &Genesis) -> Result<NodeFiles, CliError> {
        let key = SigningKey::from_bytes(&[0xfe; 32]);
        let p2p = Config::listening_on(process::loopback().into());
        NodeFiles::write(self.dir, "reference".into(), &key, genesis, p2p)
    }

    fn write_history(&self, builder: &mut ChainBuilder, stores: &[PathBuf]) -> Result<(), Stop> {
        let history = self.args.history();
        let mut task = self.display.task("history", history);
        let mut stopped = false;
        let written = chain::write_history(builder, history, stores, |batch| {
            let done = batch.last().map_or(0, |last| last.commit.index);
            task.show(done, history, "built, signed and written to the validators' stores");
            stopped = self.interrupted.load(Ordering::Relaxed);
            if stopped { Err(CliError::failed("interrupted")) } else { Ok(()) }
        });
        if stopped {
            return Err(Stop::Interrupted);
        }
        written?;
        task.finish();
        Ok(())
    }

    /// Waits until no validator has the first commits any more.
    fn wait_until_pruned(&self, validators: &mut Validators) -> Result<(), Stop> {
        if !self.args.validators_prune() || self.args.history() <= 2 * self.args.prune.unwrap_or(0) {
            return Ok(());
        }
        let started = Instant::now();
        loop {
            self.check_interrupted()?;
            validators.look()?;
            if let Some(lowest) = validators.lowest() {
                self.display.say(&format!("the archive has the past; validators begin with commit {lowest} or later"));
                return Ok(());
            }
            if started.elapsed() > Duration::from_secs(self.args.timeout) {
                let reason = format!("validators did not prune within {} s; see their node.log", self.args.timeout);
                return Err(Stop::Failed(CliError::failed(reason)));
            }
            thread::sleep(POLL);
        }
    }

    /// Watches until every full node has caught up and followed the head for a while, and validators that are to be
    /// killed have returned.
    fn follow(&self, nodes: &mut Nodes) -> Result<Option<ValidatorKillReport>, Stop> {
        let args = self.args;
        let started = Instant::now();
        let mut followed_since: Option<Instant> = None;
        let mut kill = args.kill_validators.map(|count| ValidatorKill::new(count, args.validators, &nodes.genesis));
        loop {
            self.check_interrupted()?;
            if started.elapsed() > Duration::from_secs(args.timeout) {
                let reason = format!("no end after {} s; see each node's node.log", args.timeout);
                return Err(Stop::Failed(CliError::failed(reason)));
            }
            nodes.validators.look()?;
            let head = nodes.validators.head();
            for node in &mut nodes.full_nodes {
                node.advance(args, head, self.display)?;
            }
            if nodes.full_nodes.iter().all(|node| node.caught_up.is_some()) {
                if let Some(kill) = &mut kill {
                    kill.advance(&mut nodes.validators, self.display)?;
                }
                let report = kill.as_ref().map(ValidatorKill::report);
                if !matches!(report, Some(None)) {
                    let since = followed_since.get_or_insert_with(Instant::now);
                    if since.elapsed() >= Duration::from_secs(args.seconds) {
                        return Ok(report.flatten().cloned());
                    }
                }
            }
            thread::sleep(POLL);
        }
    }

    /// Waits until everybody has the last commit and has executed it. Returns its index.
    fn settle(&self, nodes: &mut Nodes) -> Result<CommitIndex, Stop> {
        let started = Instant::now();
        let mut settled: Option<(CommitIndex, Instant)> = None;
        while started.elapsed() < SETTLE_TIMEOUT {
            self.check_interrupted()?;
            nodes.validators.look()?;
            let head = nodes.validators.head();
            let mut are_equal = nodes.validators.are_at(head);
            for node in &mut nodes.full_nodes {
                node.look()?;
                node.show(head);
                are_equal &= node.sample.executed == head;
            }
            if let Some((_, process)) = &nodes.reference {
                are_equal &= process.status().is_ok_and(|status| status.p2p.height == head);
            }
            settled = settled.filter(|(index, _)| are_equal && *index == head);
            if are_equal && settled.get_or_insert_with(|| (head, Instant::now())).1.elapsed() >= SETTLED_FOR {
                break;
            }
            thread::sleep(POLL);
        }
        Ok(nodes.validators.head())
    }

    fn stop_and_compare(
        &self,
        head: CommitIndex,
        kill: Option<ValidatorKillReport>,
        nodes: Nodes,
    ) -> Result<Report, CliError> {
        let Nodes { genesis, mut validators, reference, mut full_nodes } = nodes;
        // All are asked before any is waited for.
        validators.ask_to_stop();
        full_nodes.iter_mut().for_each(|node| node.process.ask_to_stop());
        let epochs = full_nodes.iter().map(|node| node.sample.epoch + 1).max().unwrap_or(0);
        let mut stopped_in_order = validators.wait_stopped();
        let mut reports = Vec::new();
        for node in full_nodes {
            reports.push(node.stop(head)?);
        }
        let stores = match reference {
            Some((files, process)) => {
                stopped_in_order &= process.wait_stopped();
                vec![files.config.store_dir()]
            }
            None => validators.stores(),
        };
        compare(&mut reports, &stores)?;
        validators.compare_states(&mut reports)?;
        let validator_nodes = match stores.first() {
            Some(store) => self.validator_reports(&validators, store, head, kill.as_ref())?,
            None => Vec::new(),
        };
        let ok = reports.iter().all(NodeReport::is_ok);
        let agree = validator_nodes.iter().all(|node| node.digest_equal);
        Ok(Report {
            chain: genesis.chain_id().to_string(),
            validators: validator_nodes.len(),
            head,
            epochs,
            history: self.args.history(),
            full_nodes: reports,
            validator_nodes,
            validator_kill: kill,
            data: self.dir.display().to_string(),
            ok: ok && agree && stopped_in_order,
        })
    }

    /// What each validator did, by the chain in `store`.
    fn validator_reports(
        &self,
        validators: &Validators,
        store: &Path,
        head: CommitIndex,
        kill: Option<&ValidatorKillReport>,
    ) -> Result<Vec<ValidatorReport>, CliError> {
        let expected = chain::digests(store, 1, &[head])?.get(&head).map(ToString::to_string);
        let all = authors_after(store, self.args.history(), head)?;
        let returned_at = kill.map_or(head, |kill| kill.height + kill.commits_meanwhile);
        let after = authors_after(store, returned_at, head)?;
        let count = |authors: &BTreeMap<AuthorityIndex, u64>, index| authors.get(&index).copied().unwrap_or(0);
        let reports = (0..).zip(validators.all()).map(|(index, validator)| {
            let name = validator.files.name.clone();
            let was_killed = kill.is_some_and(|kill| kill.validators.contains(&name));
            ValidatorReport {
                committed_blocks: count(&all, index),
                committed_after_kill: was_killed.then(|| count(&after, index)),
                digest: validator.digest.clone(),
                digest_equal: validator.executed == head && Some(&validator.digest) == expected.as_ref(),
                name,
            }
        });
        Ok(reports.collect())
    }
}

/// Compares what executors of full nodes were given with each store.
fn compare(nodes: &mut [NodeReport], stores: &[PathBuf]) -> Result<(), CliError> {
    for store in stores {
        for first in nodes.iter().map(|node| node.digest_from()).collect::<BTreeSet<_>>() {
            let heights = nodes.iter().filter(|node| node.digest_from() == first).map(|node| node.height);
            let digests = chain::digests(store, first, &heights.collect::<Vec<_>>())?;
            for node in nodes.iter_mut().filter(|node| node.digest_from() == first) {
                let digest = digests.get(&node.height).map(ToString::to_string);
                node.digests_equal &= digest.as_ref() == Some(&node.digest);
            }
        }
    }
    Ok(())
}

/// Blocks of each author in the commits after `index`.
fn authors_after(
    store: &Path,
    index: CommitIndex,
    head: CommitIndex,
) -> Result<BTreeMap<AuthorityIndex, u64>, CliError> {
    let store = FjallStore::open_existing(store).map_err(CliError::failed)?;
    let mut authors = BTreeMap::new();
    for index in index + 1..=head {
        let commit = store.commit(index).map_err(CliError::failed)?;
        for block in commit.iter().flat_map(|commit| &commit.blocks) {
            *authors.entry(block.author).or_default() += 1;
        }
    }
    Ok(authors)
}
