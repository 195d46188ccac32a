//! A node whose disk fails under it: the real command over a library that makes its system calls fail, the one of the
//! store's own tests, and a validator in this process for it to sync from.

use crate::{
    DEADLINE, Home, Running, config, grpc_health,
    node::{admin, get},
};
use serde_json::Value;
use soma_p2p::{ActorSystem, CertifiedCommit, Config, FjallStore, NodeRole, Store, SubDagDigest};
use soma_testkit::{ChainBuilder, ChainSpec};
use std::{
    fs,
    os::unix::fs::symlink,
    path::PathBuf,
    process::Command,
    sync::{Arc, LazyLock},
    time::Duration,
};
use tempfile::TempDir;
use tokio::runtime::{self, Runtime};
use tonic_health::pb::health_check_response::ServingStatus;

/// No space left on device.
const ENOSPC: i32 = 28;
/// Input/output error.
const EIO: i32 = 5;

/// Commits that the validator has when the node starts, and in all.
const HISTORY: u32 = 200;
const HEAD: u32 = 240;

/// The library that makes calls fail, compiled once.
static FAULTS: LazyLock<(TempDir, PathBuf)> = LazyLock::new(|| {
    let directory = tempfile::tempdir().unwrap();
    let [source, library] = ["disk_faults.c", "disk_faults.so"].map(|name| directory.path().join(name));
    fs::write(&source, include_str!("../../../store/tests/faults/disk_faults.c")).unwrap();
    let compiled =
        Command::new("cc").args(["-shared", "-fPIC", "-o"]).args([&library, &source]).arg("-ldl").output().unwrap();
    assert!(compiled.status.success(), "{}", String::from_utf8_lossy(&compiled.stderr));
    (directory, library)
});

/// A node's command over the library, which does nothing as long as nobody says that the disk fails.
fn over_faults(home: &Home, args: &[&str]) -> Command {
    let mut command = home.command(["node", "--config"]);
    // Absolute, as the library knows calls by their absolute paths.
    command.arg(home.path("node.toml")).args(args);
    command.env("LD_PRELOAD", &FAULTS.1).env("DISK_FAULTS", home.path("disk-faults"));
    command
}

/// From now on, calls on files of the node's data fail as `plan` says, until [`heal`].
fn fail(home: &Home, plan: &str) {
    let data = home.path("data").canonicalize().unwrap();
    symlink(data.join(format!("disk-faults,{plan}")), home.path("disk-faults")).unwrap();
}

fn heal(home: &Home) {
    fs::remove_file(home.path("disk-faults")).unwrap();
}

/// A validator in this process, with its consensus.
struct Validator {
    runtime: Runtime,
    system: ActorSystem,
    chain: ChainBuilder,
    /// What an executor is told of each commit so far, from the first on.
    digests: Vec<SubDagDigest>,
    _store: TempDir,
}

impl Validator {
    /// Starts one that has the history.
    fn start() -> Self {
        let mut chain = ChainBuilder::new(ChainSpec { commits_per_epoch: 50, ..ChainSpec::default() }).unwrap();
        let directory = tempfile::tempdir().unwrap();
        let store = FjallStore::open(&directory.path().join("store"), chain.genesis()).unwrap();
        let history = chain.build(HISTORY as usize);
        store.apply(&history).unwrap();
        let often = Duration::from_millis(200);
        let mut config = Config::listening_on("/ip4/127.0.0.1/tcp/0".parse().unwrap());
        config.role = NodeRole::Validator;
        config.discovery.interval = often;
        config.state_sync.height_query_interval = often;
        let system = ActorSystem::builder(chain.genesis().clone(), chain.network_key(0), Arc::new(store))
            .config(config)
            .start()
            .unwrap();
        let runtime = runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let mut validator = Self { runtime, system, chain, digests: Vec::new(), _store: directory };
        history.iter().for_each(|commit| validator.note(commit));
        validator
    }

    fn note(&mut self, commit: &CertifiedCommit) {
        let mut digest = self.digests.last().copied().unwrap_or_default();
        digest.push(&commit.sub_dag());
        self.digests.push(digest);
    }

    /// Its consensus goes on.
    fn goes_on_to(&mut self, head: u32) {
        while self.digests.len() < head as usize {
            let commit = self.chain.next_commit();
            self.note(&commit);
            self.runtime.block_on(self.system.send_commit(commit)).unwrap();
        }
    }

    /// What the only peer tells it to have, once that is at least `height`.
    fn hears_of(&self, height: u32) -> Option<u32> {
        let heard = |status: &soma_p2p::Status| status.peers.first()?.serving.as_ref()?.highest;
        let told = self.system.wait_until(|status| heard(status) >= Some(height));
        let told = self.runtime.block_on(async { tokio::time::timeout(DEADLINE, told).await });
        heard(&told.expect("the peer tells how far it has got"))
    }
}

/// A full node's files, with this validator as its seed.
fn home_of(validator: &Validator) -> Home {
    let home = Home::empty(crate::PROGRAM);
    home.run(["keygen", "--out", "node.key"]).ok();
    fs::create_dir(home.path("chain")).unwrap();
    fs::write(home.path("chain/genesis.bin"), validator.chain.genesis().encode()).unwrap();
    let seed = format!("{}@{}", validator.system.peer_id(), validator.system.address());
    home.write("node.toml", &config("", &format!("seed_peers = [\"{seed}\"]\n")));
    home
}

fn ready(node: Running) -> Running {
    node.until("it is ready", |output| output.stdout.starts_with("ready: "));
    node
}

/// The value of one of the node's metrics; 0 as long as it has none.
fn metric(home: &Home, name: &str) -> u64 {
    let (_, metrics) = get(&admin(home), "/metrics");
    let value = metrics.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    value.map_or(0, |value| value.parse().unwrap())
}

/// Asks for the node's status again and again until it is as wanted; all that was answered.
fn status_until(home: &Home, what: &str, wanted: impl Fn(&Value) -> bool) -> Vec<Value> {
    let watch = Running::start(&mut home.command(["status", "--config", "node.toml", "--watch", "--json"]));
    let answers = |stdout: &str| -> Vec<Value> {
        let whole = stdout.split_inclusive('\n').filter(|line| line.ends_with('\n'));
        whole.map(|line| serde_json::from_str(line).unwrap()).collect()
    };
    let mut all = Vec::new();
    watch.until(what, |output| {
        all = answers(&output.stdout);
        all.last().is_some_and(&wanted)
    });
    all
}

fn executed(status: &Value) -> u64 {
    status["executor"]["index"].as_u64().unwrap()
}

/// Lets a node catch up, fails its disk as `plan` says while the chain goes on, looks at it, stops it, and starts it
/// again with a disk that works. `cause` is in its log, `advice` in its status.
fn a_disk_fails(plan: &str, cause: &str, advice: &str) {
    let mut validator = Validator::start();
    let home = home_of(&validator);
    // What the executor is given is recorded elsewhere than on the disk that fails.
    let record = ["--record", "record.log"];
    let node = ready(Running::start(&mut over_faults(&home, &record)));
    let pid = node.child.id();
    status_until(&home, "it has the history", |status| executed(status) == u64::from(HISTORY));
    assert_eq!(validator.hears_of(HISTORY), Some(HISTORY));

    fail(&home, plan);
    validator.goes_on_to(HEAD);
    // It goes on trying, and fails, all the while that these ask.
    let answers = status_until(&home, "it has tried twice", |status| {
        status["progress"]["state"] == "disk" && metric(&home, "soma_store_write_errors_total") >= 2
    });
    for status in answers {
        assert_eq!((&status["height"], executed(&status)), (&HISTORY.into(), HISTORY.into()), "{status}");
    }
    assert_eq!(validator.hears_of(HISTORY), Some(HISTORY));
    let shown = home.run(["status", "--config", "node.toml"]);
    assert_eq!(shown.code(), 1, "it is not well: {shown:?}");
    let height = format!("height     {HISTORY} of {HEAD} (83 %)");
    for expected in ["state      commits cannot be stored: ", advice, ", then restart the node", &height] {
        assert!(shown.stdout.contains(expected), "{expected:?} is not in\n{shown:?}");
    }
    let (code, why) = get(&admin(&home), "/healthz");
    assert!(code == 503 && why.starts_with("commits cannot be stored: "), "{code} {why}");
    // A restart by a probe of liveness would help nothing.
    grpc_health::until(&admin(&home), "readiness", ServingStatus::NotServing);
    grpc_health::until(&admin(&home), "liveness", ServingStatus::Serving);

    // It still stops in order, although its disk does not work.
    let stopped = node.stop("TERM");
    assert_eq!(stopped.code(), 0, "{stopped:?}");
    assert!(stopped.stderr.contains(cause) && !stopped.stderr.contains("panicked"), "{stopped:?}");
    heal(&home);
    let stored = home.run(["inspect", "data/store", "--json"]).json();
    let durable = stored["highest_synced"]["index"].as_u64().unwrap();
    assert!((u64::from(HISTORY)..=u64::from(HEAD)).contains(&durable), "{stored}");

    let node = ready(Running::start(&mut over_faults(&home, &record)));
    assert_ne!(node.child.id(), pid);
    let answers = status_until(&home, "it has reached the head", |status| executed(status) == u64::from(HEAD));
    let last = answers.last().unwrap();
    assert_eq!(last["progress"]["state"], "synced", "{last}");
    assert_eq!(metric(&home, "soma_store_commits_total"), u64::from(HEAD) - durable, "only what it had not");
    node.stop("TERM").ok();
    let given: Vec<_> = validator.digests.iter().zip(1..).map(|(digest, at)| format!("given {at} {digest}")).collect();
    let record = fs::read_to_string(home.path("record.log")).unwrap();
    let opened: Vec<_> = record.lines().filter_map(|line| line.strip_prefix("opened ")).collect();
    assert_eq!(opened, ["0", &durable.to_string()]);
    let executed: Vec<_> = record.lines().filter(|line| line.starts_with("given ")).collect();
    assert_eq!(executed, given, "each commit once, in order, as the others have it");
}

#[test]
fn full_disk_is_reported_and_node_resumes_after_restart() {
    a_disk_fails(&format!("wc,0,0,{ENOSPC},0,any"), "No space left on device", "free space on it");
}

#[test]
fn disk_sync_failure_is_reported_and_node_resumes_after_restart() {
    a_disk_fails(&format!("s,0,0,{EIO},0,any"), "Input/output error", "check the disk");
}

#[test]
fn a_second_signal_ends_a_node_at_once_that_is_still_stopping() {
    for (first, second) in [("TERM", "TERM"), ("INT", "INT")] {
        let home = Home::new(crate::PROGRAM);
        let node = ready(Running::start(&mut over_faults(&home, &[])));
        // The flush of the store is the last thing that a node does in order, and here it never ends.
        fail(&home, "s,0,0,-1,0,any");
        node.signal(first);
        node.until("it is stopping", |output| output.stderr.contains("stopping"));
        let finished = node.stop(second);
        assert_eq!(finished.code(), 130, "{finished:?}");
        assert!(!finished.stderr.contains("stopped"), "{finished:?}");
    }
}

#[test]
fn a_node_whose_disk_does_not_answer_ends_all_the_same_when_it_is_told_to() {
    let home = Home::new(crate::PROGRAM);
    let node = ready(Running::start(&mut over_faults(&home, &[])));
    fail(&home, "s,0,0,-1,0,any");
    let finished = node.stop("TERM");
    assert_eq!(finished.code(), 1, "{finished:?}");
    let last = finished.stderr.lines().last().unwrap();
    assert!(last.starts_with("error: the node did not stop within 25s: ") && last.contains("the disk"), "{last}");
    heal(&home);
    home.start_node("node.toml").stop("TERM").ok();
}
