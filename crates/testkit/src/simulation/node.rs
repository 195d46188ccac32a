//! One simulated machine: a disk and a process. The process can be ended at any moment; the disk stays.

use crate::{
    Payload,
    simulation::{
        archive::SimArchive,
        chain::Chain,
        disk::SimDisk,
        event::{DiskOperation, Event},
        fault_injection::PlannedActorFaults,
        identity::{address, key, part_and_number, peer_id, seed_peer},
        invariant::Invariant,
        journal::{Entry, Journal},
        messages::{Messages, TOPICS},
        monitor::Monitor,
        names::NodeName,
        network::{Host, SimNetwork},
        objects::{self, Fetched},
        scenario::Scenario,
        wire::SimTransport,
    },
};
use soma_p2p::{
    ActorSystem, Config, EpochContext, Handle, LocalCommitError, MemStore, PeerId, PeerManagementError, SigningKey,
    StartError, Store, TransactionError, TransactionSignatures, TransactionVerifier,
    testing::{Clock, LocalResources, LocalSystem, RuntimeContext},
};
use soma_replay::Recorder;
use soma_types::CommitIndex;
use std::{
    cell::{Cell, RefCell},
    rc::Rc,
    sync::Arc,
    time::Duration,
};
use tokio::{
    sync::{oneshot, watch},
    task::{JoinHandle, LocalSet, spawn_local},
    time::{sleep, sleep_until},
};

/// The wall clock of every node at the start of the simulation: a little after the chain's.
pub(super) const WALL_CLOCK_MS: u64 = 1_700_000_100_000;

/// How long a validator's consensus waits before it offers a commit again.
const OFFER_AGAIN: Duration = Duration::from_millis(100);

/// How long an executor waits before it reads on from a disk that fails.
const READ_AGAIN: Duration = Duration::from_millis(100);

/// How long a service manager waits before it starts a process again that did not come up.
const START_AGAIN: Duration = Duration::from_secs(1);

/// How long a node may take to stop in order.
const SHUTDOWN: Duration = Duration::from_secs(20);

/// How long the leftovers of a stopped node may take to end.
const GONE_AFTER: Duration = Duration::from_millis(1);

/// A machine with its disk, and with a process while it is up.
pub(super) struct Node {
    pub(super) name: NodeName,
    config: Config,
    key: SigningKey,
    seed: u64,
    chain: Rc<Chain>,
    network: SimNetwork,
    journal: Journal,
    recorder: Recorder,
    archive: Option<Arc<SimArchive>>,
    /// All commits but the last so many are there at the start; each of these is made an interval after the one before.
    live: (u32, Duration),
    honest: Vec<PeerId>,
    /// Whether transactions of its chain stay unchecked.
    opaque: bool,
    may_fail: bool,
    disk_may_fail: bool,
    gives_up: Option<String>,
    gave_up: Rc<Cell<bool>>,
    pub(super) faults: PlannedActorFaults,
    pub(super) disk: Arc<SimDisk>,
    /// Contents of the disk.
    store: Arc<MemStore>,
    disk_time: watch::Sender<Duration>,
    /// How far the executor has got: on its disk, too.
    executed: Rc<Cell<CommitIndex>>,
    execution_time: Cell<Duration>,
    clock_skew_ms: Cell<i64>,
    starts: Cell<u64>,
    process: RefCell<Option<Process>>,
    /// How often it publishes messages.
    publishes: Option<Duration>,
    pub(super) messages: Messages,
    /// How often it fetches objects, and of whom.
    fetches: Option<(Duration, Vec<NodeName>)>,
    pub(super) fetched: Fetched,
    /// Of the process, once it is up.
    handle: RefCell<Option<Handle>>,
}

/// A process that runs.
struct Process {
    task: JoinHandle<()>,
    runtime_context: RuntimeContext,
    /// Stops it in order, and returns the overdue actors.
    stop: oneshot::Sender<oneshot::Sender<Vec<String>>>,
}

/// Takes transactions that are random bytes.
struct Opaque;

impl TransactionVerifier for Opaque {
    fn verify(&self, _: &EpochContext, _: &[u8], _: &mut TransactionSignatures<'_>) -> Result<(), TransactionError> {
        Ok(())
    }
}

/// What all nodes of a run share.
pub(super) struct Common<'a> {
    pub(super) scenario: &'a Scenario,
    pub(super) chain: Rc<Chain>,
    pub(super) network: SimNetwork,
    pub(super) journal: Journal,
    pub(super) recorder: Recorder,
    pub(super) archive: Option<Arc<SimArchive>>,
    pub(super) seed: u64,
}

impl Node {
    /// A machine before its first start. A validator's disk holds the first commits, a full node's none.
    pub(super) fn new(name: NodeName, mut config: Config, common: &Common<'_>) -> Rc<Self> {
        let Common { scenario, chain, network, journal, recorder, archive, seed } = common;
        let store = MemStore::new(&chain.genesis);
        let first = chain.first(scenario.first_commits());
        if matches!(name, NodeName::Validator(_)) && !first.is_empty() {
            // The builder's commits fit, and memory does not fail.
            store.apply(&first).expect("the first commits");
        }
        let store = Arc::new(store);
        let key = key(name);
        network.attach(PeerId::from(&key), Host { name, store: store.clone(), mischief: None });
        let (_, number) = part_and_number(name);
        let any = |chosen: &dyn Fn(&Event) -> bool| {
            scenario.events.iter().any(|(_, event)| event.node() == Some(name) && chosen(event))
        };
        // Actors that cannot read the store do not start.
        let may_fail = any(&|event| {
            matches!(event, Event::ActorFault { .. } | Event::DiskFault { operation: DiskOperation::Read, .. })
        });
        config.listen = address(name).into();
        Rc::new(Self {
            name,
            config,
            key,
            seed: seed.wrapping_mul(1_000).wrapping_add(number),
            chain: chain.clone(),
            network: network.clone(),
            journal: journal.clone(),
            recorder: recorder.for_node(&name.in_traces()),
            archive: archive.clone(),
            live: (scenario.live_commits, scenario.commit_interval),
            honest: scenario.honest_nodes().into_iter().map(peer_id).collect(),
            opaque: scenario.blocks.is_some_and(|kind| kind.payload() == Payload::Opaque),
            may_fail,
            disk_may_fail: any(&|event| matches!(event, Event::DiskFault { .. })),
            gives_up: scenario.gives_up.get(&name).cloned(),
            gave_up: Rc::default(),
            faults: PlannedActorFaults::new(name, journal.clone()),
            disk: Arc::new(SimDisk::new(name, journal.clone(), store.clone())),
            store,
            disk_time: watch::Sender::new(Duration::ZERO),
            executed: Rc::default(),
            execution_time: Cell::new(Duration::ZERO),
            clock_skew_ms: Cell::new(0),
            starts: Cell::new(0),
            process: RefCell::new(None),
            publishes: scenario.messages,
            messages: Messages::default(),
            fetches: scenario.objects.map(|interval| {
                let others = scenario.honest_nodes().into_iter().filter(|other| *other != name);
                (interval, others.collect())
            }),
            fetched: Fetched::default(),
            handle: RefCell::new(None),
        })
    }

    pub(super) fn is_up(&self) -> bool {
        self.process.borrow().is_some()
    }

    pub(super) fn executed(&self) -> CommitIndex {
        self.executed.get()
    }

    /// The system's handle, while there is one.
    pub(super) fn handle(&self) -> Option<Handle> {
        self.handle.borrow().clone()
    }

    pub(super) fn set_disk_time(&self, time: Duration) {
        self.disk_time.send_replace(time);
    }

    pub(super) fn set_execution_time(&self, time: Duration) {
        self.execution_time.set(time);
    }

    pub(super) fn set_clock_skew(&self, milliseconds: i64) {
        self.clock_skew_ms.set(milliseconds);
    }

    /// Starts the process, unless it is up.
    pub(super) fn start(self: &Rc<Self>) {
        if self.is_up() {
            return;
        }
        let wall_clock = WALL_CLOCK_MS + self.journal.now().as_millis() as u64;
        let clock = Clock::simulated(wall_clock.saturating_add_signed(self.clock_skew_ms.get()));
        let runtime_context =
            RuntimeContext::new(clock).with_faults(self.faults.planned()).with_recorder(self.recorder.clone());
        let (stop, stopped) = oneshot::channel();
        let process = LocalSet::new();
        process.spawn_local(self.clone().run(runtime_context.clone(), stopped));
        *self.process.borrow_mut() = Some(Process { task: spawn_local(process), runtime_context, stop });
    }

    /// Ends the process at once: nothing runs any further, and only durable data is left.
    pub(super) async fn crash(&self) {
        let Some(process) = self.process.borrow_mut().take() else { return };
        self.end(process).await;
    }

    async fn end(&self, process: Process) {
        self.handle.borrow_mut().take();
        // Both before anyone else runs.
        process.task.abort();
        self.network.end_connections_of(self.name);
        // An aborted task ends with an error; what matters is that it has ended.
        let _ = process.task.await;
        self.expect_no_actor(&process.runtime_context);
    }

    /// Stops the process in order. One that is not up yet is ended at once.
    pub(super) async fn shutdown(&self) {
        let Some(Process { task, runtime_context, stop }) = self.process.borrow_mut().take() else { return };
        let (report, reported) = oneshot::channel();
        if self.handle.borrow_mut().take().is_some() && stop.send(report).is_ok() {
            // A process that ended without an answer has broken an invariant, which ends the run.
            let overdue = reported.await.unwrap_or_default();
            let in_time = overdue.is_empty() || self.may_fail || self.disk_may_fail;
            let expect = |holds, detail: String| {
                self.journal.check(holds, Invariant::NothingIsLeft, self.name, || detail);
            };
            expect(in_time, format!("these did not stop in time: {overdue:?}"));
            self.journal.write(Entry::Stopped { node: self.name, overdue });
            sleep(GONE_AFTER).await;
            self.expect_no_actor(&runtime_context);
            let connections = self.network.connections_of(self.name);
            expect(connections == 0, format!("it has stopped and has {connections} connections"));
        }
        let (stop, _) = oneshot::channel();
        self.end(Process { task, runtime_context, stop }).await;
    }

    fn expect_no_actor(&self, runtime_context: &RuntimeContext) {
        let actors = runtime_context.child_counts().actors();
        self.journal.check(actors == 0, Invariant::NothingIsLeft, self.name, || {
            format!("it has stopped, and {actors} of its actors live")
        });
    }

    /// Whether it is the story that its system gives up, and it has not.
    pub(super) fn should_have_given_up(&self) -> bool {
        self.gives_up.is_some() && !self.gave_up.get()
    }

    /// Has the operator use every method of the handle that manages peers, while the story goes on.
    pub(super) fn manage_peers(&self, [first, second]: [NodeName; 2]) {
        let Some(handle) = self.handle() else { return };
        spawn_local(async move {
            // A node that goes down meanwhile takes no more changes.
            let _ = manage_peers(&handle, first, second).await;
        });
    }

    /// Nothing goes wrong any more that has not yet.
    pub(super) fn repair(&self) {
        self.faults.clear();
        self.disk.repair();
    }

    /// The process, from its start on.
    async fn run(
        self: Rc<Self>,
        runtime_context: RuntimeContext,
        stop: oneshot::Receiver<oneshot::Sender<Vec<String>>>,
    ) {
        let system = loop {
            match self.start_system(runtime_context.clone()).await {
                Ok(system) => break system,
                Err(_) if self.disk_may_fail => sleep(START_AGAIN).await,
                Err(error) => {
                    let detail = format!("the node does not start: {error}");
                    return self.journal.violated(Invariant::NothingFailsUnplanned, Some(self.name), detail);
                }
            }
        };
        let handle = system.handle();
        *self.handle.borrow_mut() = Some(handle.clone());
        self.journal.write(Entry::Started { node: self.name, durable: self.durable() });
        let monitor = spawn_local(self.monitor().watch(handle.clone()));
        spawn_local(self.clone().execute(handle.clone()));
        if let Some(interval) = self.publishes {
            self.spread(&handle, interval);
        }
        if let Some((interval, others)) = self.fetches.clone() {
            let (node, handle) = (self.clone(), handle.clone());
            spawn_local(async move { node.fetched.fetch(others, handle, interval).await });
        }
        if matches!(self.name, NodeName::Validator(_)) {
            spawn_local(self.clone().make_commits(handle));
        }
        let Ok(report) = stop.await else { return };
        // From here on actors end.
        monitor.abort();
        // The caller waits for it.
        let _ = report.send(system.shutdown(SHUTDOWN).await.overdue);
    }

    async fn start_system(&self, runtime_context: RuntimeContext) -> Result<LocalSystem, StartError> {
        let start = self.starts.get();
        self.starts.set(start + 1);
        let builder = ActorSystem::builder(self.chain.genesis.clone(), self.key.clone(), self.disk.clone())
            .config(self.config.clone())
            .transport(Arc::new(SimTransport::new(self.name, PeerId::from(&self.key), self.network.clone())))
            // A node that starts again does not make the same choices again.
            .seed(self.seed.wrapping_add(start << 32));
        let builder = match self.opaque {
            true => builder.transaction_verifier(Arc::new(Opaque)),
            false => builder,
        };
        let builder = match &self.archive {
            Some(archive) => builder.archive(archive.clone()),
            None => builder,
        };
        let builder = match &self.fetches {
            Some(_) => builder.object_source(Arc::new(objects::source_of(&[self.name]))),
            None => builder,
        };
        builder
            .start_local(LocalResources { runtime_context, disk_time: self.disk_time.subscribe(), check_threads: None })
            .await
    }

    fn durable(&self) -> CommitIndex {
        self.store.watermarks().map_or(0, |watermarks| watermarks.highest_synced.index)
    }

    fn monitor(&self) -> Monitor {
        Monitor {
            node: self.name,
            config: self.config.clone(),
            store: self.store.clone(),
            archive: self.archive.clone(),
            executed: self.executed.clone(),
            honest: self.honest.clone(),
            may_fail: self.may_fail,
            disk_may_fail: self.disk_may_fail,
            gives_up: self.gives_up.clone(),
            gave_up: self.gave_up.clone(),
            journal: self.journal.clone(),
        }
    }

    /// Whether its executor has taken nothing yet, and its history need not begin with commit 1.
    fn begins_anywhere(&self) -> bool {
        self.executed.get() == 0 && self.config.start != soma_p2p::Start::Genesis
    }

    /// Whether the commit is the first of an epoch.
    fn begins_epoch(&self, index: CommitIndex) -> bool {
        let epoch = |index| self.chain.commit(index).map(|link| link.certified.commit.epoch);
        index == 1 || epoch(index) != epoch(index - 1)
    }

    /// The executor: takes commit after commit, from where it was when the process last ended.
    async fn execute(self: Rc<Self>, handle: Handle) {
        // 0: where the history of a node begins that need not begin at the genesis.
        let next = || if self.begins_anywhere() { 0 } else { self.executed.get() + 1 };
        let mut commits = handle.synced_commits(next());
        while let Some(commit) = commits.next().await {
            let expected = match &commit {
                Ok(sub_dag) if self.begins_anywhere() && self.begins_epoch(sub_dag.commit_ref.index) => {
                    sub_dag.commit_ref.index
                }
                _ => self.executed.get() + 1,
            };
            let violated = |detail| self.journal.violated(Invariant::ExecutedInOrder, Some(self.name), detail);
            let sub_dag = match commit {
                Ok(sub_dag) => sub_dag,
                Err(_) if self.disk_may_fail => {
                    sleep(READ_AGAIN).await;
                    commits = handle.synced_commits(next());
                    continue;
                }
                Err(error) => return violated(format!("commit {expected} cannot be read: {error}")),
            };
            let found = sub_dag.commit_ref;
            if self.chain.commit(expected).is_none_or(|link| link.sub_dag != *sub_dag) {
                return violated(format!("commit {expected} of the chain is due, it is given {found}"));
            }
            let durable = self.durable();
            self.journal.check(expected <= durable, Invariant::DurableBeforeTold, self.name, || {
                format!("its executor is given commit {expected}, but {durable} is the last one on its disk")
            });
            let time = self.execution_time.get();
            if !time.is_zero() {
                sleep(time).await;
            }
            self.executed.set(expected);
            self.journal.write(Entry::Executed { node: self.name, index: expected, digest: found.digest });
        }
    }

    /// Publishes messages, and hears those of others.
    fn spread(self: &Rc<Self>, handle: &Handle, interval: Duration) {
        let (node, publisher) = (self.clone(), handle.clone());
        spawn_local(async move { node.messages.publish(node.name, publisher, interval).await });
        for topic in TOPICS {
            let (node, reader) = (self.clone(), handle.clone());
            spawn_local(async move { node.messages.hear(reader, topic).await });
        }
    }

    /// The consensus: makes each commit when it is due and hands it over until it is taken.
    async fn make_commits(self: Rc<Self>, handle: Handle) {
        let (live, interval) = self.live;
        let first_live = self.chain.commits.len() as u32 - live + 1;
        let mut index = self.durable() + 1;
        let begun = tokio::time::Instant::now() - self.journal.now();
        while let Some(link) = self.chain.commit(index) {
            sleep_until(begun + interval * (index + 1).saturating_sub(first_live)).await;
            match handle.send_commit(link.certified.clone()).await {
                Ok(()) => index += 1,
                // Earlier ones are missing: the node fell behind while it was down, or was restarted. What peers
                // bring meanwhile need not be offered.
                Err(LocalCommitError::Gap { .. } | LocalCommitError::OtherEpoch { .. }) => {
                    sleep(OFFER_AGAIN).await;
                    index = self.durable() + 1;
                }
                Err(LocalCommitError::Unavailable | LocalCommitError::Busy { .. }) => sleep(OFFER_AGAIN).await,
                Err(
                    error @ (LocalCommitError::Fork { .. }
                    | LocalCommitError::Invalid { .. }
                    | LocalCommitError::NotCertified { .. }),
                ) => {
                    let detail = error.to_string();
                    return self.journal.violated(Invariant::LocalCommitsAreTaken, Some(self.name), detail);
                }
            }
        }
    }
}

async fn manage_peers(handle: &Handle, first: NodeName, second: NodeName) -> Result<(), PeerManagementError> {
    let (first_id, second_id) = (peer_id(first), peer_id(second));
    handle.add_seed(seed_peer(second)).await?;
    handle.add_trusted_peer(first_id).await?;
    handle.disconnect_peer(first_id).await?;
    handle.remove_trusted_peer(first_id).await?;
    handle.ban_peer(second_id, Duration::from_secs(3600), "planned by the simulation").await?;
    handle.unban_peer(second_id).await?;
    handle.remove_seed(second_id).await
}
