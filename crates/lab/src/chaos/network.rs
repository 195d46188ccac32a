//! Runs the network, and kills and restarts its nodes.

use super::{
    args::Args,
    consensus::Consensus,
    node::{self, Node},
    schedule::Schedule,
    watcher::{Look, Watcher},
};
use crate::{
    interrupt::Stop,
    localnet::{
        chain,
        progress::{Display, Task},
    },
};
use soma_p2p::{CommitIndex, Config, Genesis, NodeRole, SigningKey, SubDagDigest};
use soma_p2p_cli::{
    CliError,
    record::{Entry, Record},
};
use soma_testkit::ChainBuilder;
use std::{
    fs::File,
    io::Write,
    net::SocketAddr,
    path::Path,
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::{Duration, Instant},
};

/// How often it is looked whether something is due.
const TICK: Duration = Duration::from_millis(10);

/// How often a node looks for peers and asks them for their heights.
const FIND_INTERVAL: Duration = Duration::from_millis(500);

/// How long nodes may take to reach the very last commit once nobody is killed any more: a peer that was down often is
/// given a pause of up to a minute.
const SETTLE_TIMEOUT: Duration = Duration::from_secs(180);

/// The end of the network. Its nodes have stopped.
#[derive(Default)]
pub(super) struct Outcome {
    /// Why it ended before its time, if it did.
    pub(super) stopped: Option<Stop>,
    pub(super) nodes: Vec<Node>,
    /// What an executor must have been given up to each commit, commit 1 first.
    pub(super) digests: Vec<SubDagDigest>,
    /// Nodes that did not stop in order at the end.
    pub(super) disorderly: Vec<String>,
    /// Kills that hit a node that was starting; that was catching up.
    pub(super) starting: u32,
    pub(super) syncing: u32,
}

/// Everything that goes on.
pub(super) struct Network<'a> {
    args: &'a Args,
    interrupted: &'a AtomicBool,
    story: Story<'a>,
    schedule: Schedule,
    consensus: Consensus,
    watcher: Watcher,
    nodes: Vec<Node>,
    kills: u32,
    starting: u32,
    syncing: u32,
}

impl<'a> Network<'a> {
    /// Runs it to its end.
    pub(super) fn run(args: &'a Args, dir: &Path, display: &'a Display, interrupted: &'a AtomicBool) -> Outcome {
        let mut network = match Self::set_up(args, dir, display, interrupted) {
            Ok(network) => network,
            Err(stop) => return Outcome { stopped: Some(stop), ..Outcome::default() },
        };
        let stopped = network.play().err();
        network.conclude(stopped)
    }

    /// Writes the history and every node's files. No node runs yet.
    fn set_up(args: &'a Args, dir: &Path, display: &'a Display, interrupted: &'a AtomicBool) -> Result<Self, Stop> {
        let mut builder = chain::builder(args.chain_spec())?;
        let genesis = builder.genesis().clone();
        let addresses = node::ports(args.validators + args.full_nodes)?;
        let mut nodes = Vec::new();
        for (index, address) in addresses.iter().enumerate() {
            nodes.push(make_node(args, dir, &builder, &genesis, index, *address, addresses[0])?);
        }
        let digests = write_history(args, &mut builder, &nodes[..args.validators], display, interrupted)?;
        for validator in &nodes[..args.validators] {
            Record::open(validator.record())?.append(&Entry::Stored { height: args.commits })?;
        }
        let names = nodes.iter().map(|node| (node.peer, node.name().to_owned())).collect();
        Ok(Self {
            args,
            interrupted,
            story: Story::begin(dir, display, args.kills)?,
            schedule: Schedule::new(args.seed),
            consensus: Consensus::start(builder, args.rate, digests),
            watcher: Watcher::start(names),
            nodes,
            kills: 0,
            starting: 0,
            syncing: 0,
        })
    }

    /// Kills and restarts until it is enough, then lets everybody catch up.
    fn play(&mut self) -> Result<(), Stop> {
        let deadline = Instant::now() + Duration::from_secs(self.args.timeout);
        let mut next_kill = Instant::now() + self.schedule.pause();
        loop {
            self.tick()?;
            if Instant::now() > deadline {
                let reason = format!("only {} kills in {} s; see --timeout", self.kills, self.args.timeout);
                return Err(Stop::Failed(CliError::failed(reason)));
            }
            if self.kills < self.args.kills {
                let now = Instant::now();
                let eligible = self.eligible();
                let cut_off = eligible.iter().find(|node| self.nodes[**node].cut_off.is_some_and(|at| now >= at));
                if let Some(victim) = cut_off {
                    self.kill(*victim)?;
                } else if now >= next_kill
                    && let Some(victim) = self.schedule.victim(&eligible, &self.syncing_of(&eligible))
                {
                    self.kill(victim)?;
                    next_kill = now + self.schedule.pause();
                }
            } else if self.nodes.iter().all(Node::is_up) {
                break;
            }
            thread::sleep(TICK);
        }
        self.settle()
    }

    /// Starts due nodes, and watches running ones.
    fn tick(&mut self) -> Result<(), Stop> {
        if self.interrupted.load(Ordering::Relaxed) {
            return Err(Stop::Interrupted);
        }
        for index in 0..self.nodes.len() {
            let peer = self.nodes[index].peer;
            if self.nodes[index].is_due() || (self.nodes[index].is_absent() && self.joins(index)) {
                let look = self.watcher.look(peer);
                let node = &mut self.nodes[index];
                node.start(&look)?;
                node.cut_off = self.schedule.cut_off().map(|after| Instant::now() + after);
            }
            if let Some(run) = self.nodes[index].look_after()? {
                self.watcher.ask(peer, run.admin);
                self.offer(index);
            }
        }
        let validators = self.nodes.iter().filter(|node| node.is_validator());
        let on_all_disks = validators.map(|node| node.opened.max(self.look(node).highest_announced())).min();
        self.consensus.forget(on_all_disks.unwrap_or(0));
        Ok(())
    }

    /// Full nodes join one after the other, so that one syncs from the beginning most of the time.
    fn joins(&self, index: usize) -> bool {
        match index.checked_sub(self.args.validators) {
            Some(full_node) => {
                u64::from(self.kills) * self.args.full_nodes as u64 >= full_node as u64 * u64::from(self.args.kills)
            }
            None => true,
        }
    }

    /// Those that run, but for the last validator that is up.
    fn eligible(&self) -> Vec<usize> {
        let up = self.nodes.iter().filter(|node| node.is_validator() && node.is_up()).count();
        let may_go =
            |node: &Node| if node.is_up() { !node.is_validator() || up > 1 } else { node.is_starting() && up > 0 };
        (0..self.nodes.len()).filter(|index| may_go(&self.nodes[*index])).collect()
    }

    fn syncing_of(&self, nodes: &[usize]) -> Vec<usize> {
        nodes.iter().copied().filter(|index| self.is_syncing(&self.nodes[*index])).collect()
    }

    /// Whether it runs and is more than a second behind.
    fn is_syncing(&self, node: &Node) -> bool {
        let height = self.look(node).height.max(node.opened);
        node.is_up() && self.consensus.head().saturating_sub(height) > self.args.rate
    }

    fn kill(&mut self, index: usize) -> Result<(), CliError> {
        let down = self.schedule.down();
        let number = self.kills + 1;
        let head = self.consensus.head();
        let look = self.look(&self.nodes[index]);
        let starting = self.nodes[index].is_starting();
        let syncing = self.is_syncing(&self.nodes[index]);
        let node = &mut self.nodes[index];
        node.kill(number, down)?;
        self.watcher.leave(node.peer);
        self.kills = number;
        self.starting += u32::from(starting);
        self.syncing += u32::from(syncing);
        let doing = match (starting, syncing) {
            (true, _) => "starting",
            (false, true) => "catching up",
            (false, false) => "following",
        };
        let name = node.name();
        let seen = look.highest_announced().max(node.opened);
        let down = down.as_secs_f64();
        self.story.killed(number, &format!("{name} while {doing}, seen at {seen} of {head}; down for {down:.1} s"));
        Ok(())
    }

    /// Has a validator that has come up offered the commits that it has not got: from where its store ends, or, as if
    /// its consensus had moved on meanwhile, only those that no node has on its disk.
    fn offer(&mut self, index: usize) {
        let known = self.nodes.iter().map(|node| node.opened.max(self.look(node).highest_announced())).max();
        let node = &mut self.nodes[index];
        if !node.is_validator() {
            return;
        }
        let from = if self.schedule.skips() { known.unwrap_or(node.opened) } else { node.opened };
        if let Some(stdin) = node.take_stdin() {
            self.consensus.offer(stdin, from + 1);
        }
    }

    fn look(&self, node: &Node) -> Look {
        self.watcher.look(node.peer)
    }

    /// Waits until every executor has been given the last commit.
    fn settle(&mut self) -> Result<(), Stop> {
        let head = self.consensus.complete().len() as CommitIndex;
        let deadline = Instant::now() + SETTLE_TIMEOUT;
        loop {
            self.tick()?;
            let behind = self.nodes.iter().find(|node| self.look(node).executed < head);
            let Some(node) = behind else { return Ok(()) };
            let look = self.look(node);
            let state = format!("{} has executed {} of {head}: {}", node.name(), look.executed, look.explanation);
            self.story.waits(&state);
            if Instant::now() > deadline {
                let seconds = SETTLE_TIMEOUT.as_secs();
                let log = node.files.log_file.display();
                let reason = format!("not at the head {seconds} s after the last kill: {state} (log: {log})");
                return Err(Stop::Failed(CliError::failed(reason)));
            }
            thread::sleep(TICK);
        }
    }

    /// Stops every node; all are asked before any is waited for.
    fn conclude(mut self, stopped: Option<Stop>) -> Outcome {
        self.story.finish();
        self.consensus.end();
        self.nodes.iter_mut().for_each(Node::ask_to_stop);
        let mut disorderly = Vec::new();
        for node in &mut self.nodes {
            if !node.wait_stopped() {
                disorderly.push(format!("{} (log: {})", node.name(), node.files.log_file.display()));
            }
        }
        Outcome {
            stopped,
            digests: self.consensus.complete(),
            nodes: self.nodes,
            disorderly,
            starting: self.starting,
            syncing: self.syncing,
        }
    }
}

fn make_node(
    args: &Args,
    dir: &Path,
    builder: &ChainBuilder,
    genesis: &Genesis,
    index: usize,
    address: SocketAddr,
    seed_address: SocketAddr,
) -> Result<Node, CliError> {
    let seed = builder.network_key(0);
    let (name, key, role) = match index.checked_sub(args.validators) {
        None => (format!("validator-{index}"), builder.network_key(index as u32), NodeRole::Validator),
        Some(full_node) => {
            let mut key = [0xf0; 32];
            key[..8].copy_from_slice(&(full_node as u64).to_be_bytes());
            key[8..16].copy_from_slice(&args.seed.to_be_bytes());
            (format!("full-node-{full_node}"), SigningKey::from_bytes(&key), NodeRole::FullNode)
        }
    };
    let seed_peers = if index == 0 { Vec::new() } else { vec![node::seed_peer(&seed, seed_address)] };
    let mut p2p = Config::listening_on(address.into());
    p2p.role = role;
    p2p.seed_peers = seed_peers;
    // Nodes live for seconds, so they must find each other again in less than that.
    p2p.discovery.interval = FIND_INTERVAL;
    p2p.state_sync.height_query_interval = FIND_INTERVAL;
    p2p.pruning.commits = args.prune;
    if args.archive {
        p2p.archive.place = Some(dir.join("archive").display().to_string());
        p2p.archive.write = true;
    }
    Node::new(dir, name, &key, genesis, p2p)
}

/// Builds the history and writes it into the validators' stores; what an executor must be given up to each commit.
fn write_history(
    args: &Args,
    builder: &mut ChainBuilder,
    validators: &[Node],
    display: &Display,
    interrupted: &AtomicBool,
) -> Result<Vec<SubDagDigest>, Stop> {
    let stores: Vec<_> = validators.iter().map(|node| node.files.config.store_dir()).collect();
    let mut task = display.task("history", args.commits);
    let mut digests: Vec<SubDagDigest> = Vec::new();
    let written = chain::write_history(builder, args.commits, &stores, |batch| {
        for commit in batch {
            let mut digest = digests.last().copied().unwrap_or_default();
            digest.push(&commit.sub_dag());
            digests.push(digest);
        }
        task.show(digests.len() as u32, args.commits, "built, signed and written to the validators' stores");
        if interrupted.load(Ordering::Relaxed) { Err(CliError::failed("interrupted")) } else { Ok(()) }
    });
    if interrupted.load(Ordering::Relaxed) {
        return Err(Stop::Interrupted);
    }
    written?;
    task.finish();
    Ok(digests)
}

/// What happens, told on a terminal and in a file.
struct Story<'a> {
    display: &'a Display,
    /// `None` once it has been told.
    task: Option<Task>,
    file: File,
    started: Instant,
    total: u32,
    killed: u32,
}

impl<'a> Story<'a> {
    fn begin(dir: &Path, display: &'a Display, total: u32) -> Result<Self, CliError> {
        let path = dir.join("chaos.log");
        let file = File::create(&path).map_err(|error| CliError::failed(format!("{}: {error}", path.display())))?;
        let task = Some(display.task("kills", total));
        Ok(Self { display, task, file, started: Instant::now(), total, killed: 0 })
    }

    fn killed(&mut self, number: u32, what: &str) {
        self.killed = number;
        let seconds = self.started.elapsed().as_secs_f64();
        let line = format!("[{seconds:6.1} s] kill {number} of {}: {what}", self.total);
        self.display.say(&line);
        // The story is for people; counts come from the records.
        let _ = writeln!(self.file, "{line}");
        self.waits("");
    }

    /// Shows the present wait.
    fn waits(&mut self, what: &str) {
        if let Some(task) = &mut self.task {
            task.show(self.killed, self.total, what);
        }
    }

    fn finish(&mut self) {
        if let Some(task) = self.task.take() {
            task.finish();
        }
    }
}
