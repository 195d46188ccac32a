//! What a system leaves in its process. A test binary of its own: it looks at the whole process.
#![cfg(target_os = "linux")]

use soma_tests::{PATIENCE, chain, config, disk_store, expect_commits, node, start};
use std::fs;
use tokio::time::timeout;

/// The process' threads and open files, by name.
fn left() -> (Vec<String>, Vec<String>) {
    let entries = |path: &str| fs::read_dir(path).unwrap().filter_map(|entry| Some(entry.ok()?.path()));
    let mut threads: Vec<_> = entries("/proc/self/task")
        .filter_map(|task| fs::read_to_string(task.join("comm")).ok())
        .map(|name| name.trim().to_owned())
        .collect();
    // The handle with which this list is read is gone by the time it is looked up.
    let mut files: Vec<_> = entries("/proc/self/fd")
        .filter_map(|file| Some(fs::read_link(file).ok()?.to_string_lossy().into_owned()))
        .map(|name| name.split(':').next().unwrap_or_default().to_owned())
        .collect();
    threads.sort();
    files.sort();
    (threads, files)
}

/// A server and a client that syncs from it, both on disk, from start to end.
async fn whole_life() {
    let (builder, commits) = chain(30);
    let genesis = builder.genesis().clone();
    let (server_disk, _server_dir) = disk_store(&genesis, &commits);
    let (client_disk, _client_dir) = disk_store(&genesis, &[]);
    let server = start(node(1, &genesis, server_disk, config(&[])));
    let client = start(node(2, &genesis, client_disk, config(&[&server])));
    expect_commits(&client, &commits).await;
    client.stop().await;
    server.stop().await;
}

#[tokio::test]
async fn a_system_that_has_stopped_leaves_no_thread_and_no_file_behind() {
    let before = left();
    for _ in 0..3 {
        whole_life().await;
    }
    // A thread pool ends its threads on its own time once nobody has it any more.
    let settled = async {
        while left() != before {
            tokio::task::yield_now().await;
        }
    };
    // What is left after all is shown below.
    let _ = timeout(PATIENCE, settled).await;
    assert_eq!(left(), before);
}
