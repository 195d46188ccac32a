//! One run: makes the network and the nodes, plays the script, and waits until all is as it must be.

use crate::simulation::{
    archive::SimArchive,
    chain,
    event::Event,
    hostility::Hostility,
    identity::{peer_id, seed_peer},
    invariant::Invariant,
    journal::{Entry, Journal, Violation},
    messages::TOPICS,
    names::NodeName,
    network::SimNetwork,
    node::{Common, Node},
    replaying::{self, Found},
    report::{Failure, Report},
    scenario::{Scenario, SettingsError, Topology},
};
use soma_p2p::{ChildState, Config, PruningConfig};
use soma_replay::Recorder;
use std::{
    collections::{BTreeMap, BTreeSet},
    rc::Rc,
    sync::Arc,
    time::Duration,
};
use tokio::{
    runtime,
    task::LocalSet,
    time::{Instant, sleep, sleep_until},
};

/// How often the world looks whether everyone is there.
const LOOK_INTERVAL: Duration = Duration::from_millis(20);

/// A run that is over.
pub(super) struct Played {
    pub(super) result: Result<Report, Failure>,
    pub(super) journal: Journal,
    /// What the nodes' cores were fed, in the order in which they were.
    pub(super) trace: Vec<u8>,
}

/// Plays a scenario, and replays the traces.
pub(super) fn play(scenario: &Scenario, seed: u64) -> Result<Played, SettingsError> {
    let config = scenario.config()?;
    let chain = Rc::new(chain::of(scenario));
    let runtime = runtime::Builder::new_current_thread().enable_time().start_paused(true).build();
    // It has no I/O driver, which is what can fail.
    let runtime = runtime.expect("a runtime without I/O");
    let (recorder, mut recorded) = Recorder::in_memory(seed);
    LocalSet::new().block_on(&runtime, async move {
        let journal = Journal::new();
        let network = SimNetwork::new(seed, scenario, journal.clone());
        let archive = scenario.archive.then(|| Arc::new(SimArchive::new(journal.clone())));
        let common = Common { scenario, chain, network, journal: journal.clone(), recorder, archive, seed };
        let world = World::new(&common, &config);
        let ended = tokio::select! {
            biased;
            violation = journal.broken() => Err(violation),
            result = world.play(scenario) => result,
        };
        let trace = recorded.bytes().to_vec();
        let ended = ended.and_then(|restarted| Ok((restarted, replaying::check(&trace, scenario, &config)?)));
        let result = match ended {
            Ok((restarted, found)) => Ok(world.report(scenario, restarted, found, &trace)),
            Err(Violation { invariant, node, at, detail }) => {
                Err(Failure::Broken { invariant, node, at, seed, detail, tail: journal.tail() })
            }
        };
        Ok(Played { result, journal, trace })
    })
}

struct World {
    nodes: BTreeMap<NodeName, Rc<Node>>,
    network: SimNetwork,
    journal: Journal,
    hostility: Hostility,
    archive: Option<Arc<SimArchive>>,
}

impl World {
    fn new(common: &Common<'_>, config: &Config) -> Self {
        let names = common.scenario.nodes();
        let is_validator = |name: &NodeName| matches!(name, NodeName::Validator(_));
        let known = |position: usize| -> Vec<NodeName> {
            match common.scenario.topology {
                Topology::FullNodesKnowValidators if is_validator(&names[position]) => Vec::new(),
                Topology::KnowValidators | Topology::FullNodesKnowValidators => {
                    names.iter().copied().filter(is_validator).collect()
                }
                Topology::KnowFirst => names.first().copied().into_iter().collect(),
                Topology::Chain => position.checked_sub(1).map(|before| names[before]).into_iter().collect(),
            }
        };
        let nodes = names.iter().enumerate().map(|(position, name)| {
            let mut config = config.clone();
            if common.scenario.keeps_all == Some(*name) {
                config.pruning = PruningConfig::default();
            }
            config.seed_peers = known(position).into_iter().filter(|known| known != name).map(seed_peer).collect();
            (*name, Node::new(*name, config, common))
        });
        Self {
            nodes: nodes.collect(),
            network: common.network.clone(),
            journal: common.journal.clone(),
            hostility: Hostility::new(common),
            archive: common.archive.clone(),
        }
    }

    /// The whole story. Answers which actors were made anew.
    async fn play(&self, scenario: &Scenario) -> Result<Vec<(NodeName, String, u64)>, Violation> {
        let begun = Instant::now();
        let mut script = scenario.events.clone();
        // Stable: events of one time happen in the order of the story.
        script.sort_by_key(|(time, _)| *time);
        let (before, after): (Vec<_>, Vec<_>) = script.into_iter().partition(|(time, _)| time.is_zero());
        for (_, event) in before {
            self.happen(event).await;
        }
        for node in self.nodes.values() {
            node.start();
        }
        for (time, event) in after {
            sleep_until(begun + time).await;
            self.happen(event).await;
        }
        sleep_until(begun + scenario.quiet_from()).await;
        self.all_is_well(scenario).await?;
        let restarted = self.restarted().await;
        self.hostility.end();
        for node in self.nodes.values() {
            node.shutdown().await;
        }
        match self.journal.violation() {
            Some(violation) => Err(violation),
            None => Ok(restarted),
        }
    }

    /// The actors that were made anew, and how often.
    async fn restarted(&self) -> Vec<(NodeName, String, u64)> {
        let mut restarted = Vec::new();
        for node in self.nodes.values() {
            let Some(handle) = node.handle() else { continue };
            let tree = handle.status().await.tree;
            let actors = tree.actors().into_iter().filter(|actor| actor.restarts > 0);
            restarted.extend(actors.map(|actor| (node.name, actor.name.clone(), actor.restarts)));
        }
        restarted
    }

    async fn happen(&self, event: Event) {
        self.journal.write(Entry::Event(event.to_string()));
        let node = match event.node() {
            None => None,
            Some(name) => match self.nodes.get(&name) {
                Some(node) => Some(node),
                // Its node was taken from the scenario.
                None => return,
            },
        };
        match (event, node) {
            (Event::Crash(name), Some(node)) => {
                self.hostility.end_of(name);
                node.crash().await;
            }
            (Event::Restart(_), Some(node)) => node.start(),
            (Event::ManagePeers { peers, .. }, Some(node)) => node.manage_peers(peers),
            (Event::Shutdown(name), Some(node)) => {
                self.hostility.end_of(name);
                node.shutdown().await;
            }
            (Event::Repair(_), Some(node)) => node.repair(),
            (Event::DiskFault { operation, nth, times, fault, .. }, Some(node)) => {
                node.disk.plan(operation, nth, times, fault);
            }
            (Event::DiskTime(_, time), Some(node)) => node.set_disk_time(time),
            (Event::ExecutionTime(_, time), Some(node)) => node.set_execution_time(time),
            (Event::ClockSkew(_, milliseconds), Some(node)) => node.set_clock_skew(milliseconds),
            (Event::Hostile(name, behaviour), Some(_)) => self.hostility.begin(name, behaviour),
            (Event::ActorFault { actor, input, nth, times, fault, .. }, Some(node)) => {
                node.faults.plan(actor, input, nth, times, fault);
            }
            (Event::Partition(nodes), _) => self.network.partition(nodes.into_iter().collect()),
            (Event::Heal, _) => self.network.partition(Default::default()),
            (Event::Archive(fault), _) => {
                if let Some(archive) = &self.archive {
                    archive.set_fault(fault);
                }
            }
            (Event::Latency(latency), _) => self.network.set_latency(latency),
            (Event::LossPercent(percent), _) => self.network.set_loss_percent(percent),
            (_, None) => {}
        }
    }

    /// Waits until every honest node that is up is where it must be.
    async fn all_is_well(&self, scenario: &Scenario) -> Result<(), Violation> {
        let (quiet, deadline) = (Instant::now(), self.journal.now() + scenario.synced_within);
        let honest: Vec<_> = scenario.honest_nodes().iter().filter_map(|name| self.nodes.get(name)).collect();
        let honest: Vec<_> = honest.into_iter().filter(|node| node.is_up()).collect();
        loop {
            let Some((invariant, name, detail)) = self.what_is_missing(scenario, &honest, quiet).await else {
                return Ok(());
            };
            if self.journal.now() >= deadline {
                return Err(Violation { invariant, node: Some(name), at: self.journal.now(), detail });
            }
            sleep(LOOK_INTERVAL).await;
        }
    }

    /// The first thing that is not as it must be in the end.
    async fn what_is_missing(
        &self,
        scenario: &Scenario,
        honest: &[&Rc<Node>],
        quiet: Instant,
    ) -> Option<(Invariant, NodeName, String)> {
        if let Some(node) = self.nodes.values().find(|node| node.should_have_given_up()) {
            let detail = format!("it was to give up: {:?}", scenario.gives_up.get(&node.name));
            return Some((Invariant::GivesUpOnlyAsPlanned, node.name, detail));
        }
        if let Some(node) = honest.iter().find(|node| node.executed() < scenario.commits) {
            let status = match node.handle() {
                Some(handle) => handle.status().await.explanation,
                None => "not up yet".into(),
            };
            let detail = format!("it has executed {} of {} commits: {status}", node.executed(), scenario.commits);
            return Some((Invariant::EveryoneReachesTheHead, node.name, detail));
        }
        for node in honest {
            let Some(handle) = node.handle() else { continue };
            let tree = handle.status().await.tree;
            if let Some(actor) = tree.actors().into_iter().find(|actor| actor.state != ChildState::Running) {
                return Some((Invariant::EveryActorIsBack, node.name, format!("{actor:?}")));
            }
        }
        if scenario.messages.is_some()
            && let Some((name, detail)) = unheard(honest, quiet).await
        {
            return Some((Invariant::EveryoneIsHeard, name, detail));
        }
        if scenario.objects.is_some()
            && let Some((name, detail)) = unserved(honest, quiet).await
        {
            return Some((Invariant::EveryoneIsServed, name, detail));
        }
        match scenario.connected {
            true => {
                let (name, detail) = self.lonely(honest).await?;
                Some((Invariant::EveryoneIsConnected, name, detail))
            }
            false => None,
        }
    }

    /// The first node that is not connected to all others.
    async fn lonely(&self, nodes: &[&Rc<Node>]) -> Option<(NodeName, String)> {
        for node in nodes {
            let peers = match node.handle() {
                Some(handle) => handle.peers().await,
                None => Vec::new(),
            };
            let linked = peers.iter().filter(|peer| peer.outbound).count();
            if linked + 1 < nodes.len() {
                return Some((node.name, format!("it has links to {linked} of {} others", nodes.len() - 1)));
            }
        }
        None
    }

    /// How long after it was due each node executed each live commit.
    fn delays(&self, scenario: &Scenario) -> BTreeMap<NodeName, Vec<Duration>> {
        let mut delays: BTreeMap<_, Vec<_>> = BTreeMap::new();
        for (at, node, index) in self.journal.executed() {
            if let Some(due) = scenario.due(index) {
                delays.entry(node).or_default().push(at.saturating_sub(due));
            }
        }
        delays
    }

    fn report(
        &self,
        scenario: &Scenario,
        actors_restarted: Vec<(NodeName, String, u64)>,
        found: Found,
        trace: &[u8],
    ) -> Report {
        let counts = self.journal.counts();
        Report {
            digest: self.journal.digest(trace),
            virtual_time: self.journal.now(),
            messages: counts.messages,
            inputs: found.inputs,
            lost: counts.lost,
            executed: counts.executed,
            caught_up: self.journal.caught_up(),
            delays: self.delays(scenario),
            restarts: counts.starts.saturating_sub(self.nodes.len() as u64),
            faults: counts.faults,
            disk_faults: counts.disk_faults,
            segments_written: counts.segments_written,
            segments_read: counts.segments_read,
            gave_up: counts.gave_up,
            actors_lost: found.lost,
            actors_restarted,
            penalties: found.penalties,
        }
    }
}

/// The first node that has got no object of some other since this moment, although it has a link to it.
async fn unserved(nodes: &[&Rc<Node>], since: Instant) -> Option<(NodeName, String)> {
    for node in nodes {
        let Some(handle) = node.handle() else { continue };
        let linked: BTreeSet<_> =
            handle.peers().await.into_iter().filter(|peer| peer.outbound).map(|peer| peer.peer_id).collect();
        let lacks = |other: &&&Rc<Node>| {
            other.name != node.name
                && linked.contains(&peer_id(other.name))
                && !node.fetched.has_fetched(other.name, since)
        };
        if let Some(other) = nodes.iter().find(lacks) {
            let objects = handle.status().await.objects;
            return Some((node.name, format!("it has got no object of {}: {objects:?}", other.name)));
        }
    }
    None
}

/// The first node of which the others have heard no common message of a topic since this moment. A single message may
/// get lost with a Broadcast that ends.
async fn unheard(nodes: &[&Rc<Node>], since: Instant) -> Option<(NodeName, String)> {
    for node in nodes {
        for topic in TOPICS {
            let published = node.messages.published_after(since, topic);
            let others = || nodes.iter().filter(|other| other.name != node.name);
            if published.iter().any(|id| others().all(|other| other.messages.has_heard(*id))) {
                continue;
            }
            let broadcast = match node.handle() {
                Some(handle) => handle.status().await.broadcast,
                None => None,
            };
            let count = published.len();
            return Some((node.name, format!("all have heard none of its {count} {topic}: {broadcast:?}")));
        }
    }
    None
}
