//! Golden traces: which scenarios have one, and where it is.

use crate::simulation::{names::millis, scenario::Scenario, scenarios};
use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

/// With which seed they are played.
pub const SEED: u64 = 1;

/// The scenarios with a golden trace, cut down to what the story needs.
pub fn scenarios() -> Vec<Scenario> {
    vec![
        scenarios::startup_and_discovery(),
        messages(),
        scenarios::cold_sync().commits(40).set("state_sync.commits_per_fetch", 10),
        scenarios::worker_crash().commits(40),
        scenarios::lying_peer().full_nodes(1).set("state_sync.commits_per_fetch", 4),
        scenarios::epoch_change().full_nodes(1).commits(30).commits_per_epoch(10).live(5, Duration::from_millis(200)),
        // A node that joins late gets the past from what the others have archived.
        scenarios::past_in_the_archive_alone()
            .commits(40)
            .live(10, Duration::from_millis(500))
            .commits_per_epoch(10)
            .set("archive.read", "first"),
        scenarios::partition_and_heal().full_nodes(1).commits(50).live(40, Duration::from_secs(1)),
    ]
}

/// Three nodes publish messages.
fn messages() -> Scenario {
    Scenario::named("messages").validators(2).full_nodes(1).commits(4).messages(millis(800))
}

/// Where the golden trace of a scenario is.
pub fn path(scenario: &str) -> PathBuf {
    directory().join(format!("{}.trace", scenario.replace(' ', "-")))
}

/// All files where golden traces are.
pub fn files() -> BTreeSet<PathBuf> {
    let files = fs::read_dir(directory()).into_iter().flatten();
    files.filter_map(|file| file.ok().map(|file| file.path())).collect()
}

/// Where they all are.
pub fn directory() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/traces")
}
