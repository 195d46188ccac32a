//! Behaviour on disk failures: the real store runs in a second process, with a library that makes its system calls fail
//! (`faults/disk_faults.c`, compiled here by the C compiler).

#![cfg(target_os = "linux")]

mod common;

use common::Chain;
use soma_store::{FjallStore, PeerList, Store, StoreError};
use soma_types::{CertifiedCommit, CommitIndex, PeerId};
use std::{
    fs::File,
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
    process::Command,
    sync::LazyLock,
};

/// Set for a test that runs as a second process: the directory of its stores.
const CHILD_PATH: &str = "SOMA_STORE_TEST_PATH";
/// Set with it: the plan of faults for the library.
const CHILD_PLAN: &str = "SOMA_STORE_TEST_FAULTS";

/// No space left on device.
const ENOSPC: i32 = 28;
/// Input/output error.
const EIO: i32 = 5;
/// Invalid argument: the reply of a disk that does not support a direct write.
const EINVAL: i32 = 22;

/// The fault library, compiled once.
static FAULTS: LazyLock<(tempfile::TempDir, PathBuf)> = LazyLock::new(|| {
    let directory = tempfile::tempdir().unwrap();
    let [source, library] = ["disk_faults.c", "disk_faults.so"].map(|name| directory.path().join(name));
    std::fs::write(&source, include_str!("faults/disk_faults.c")).unwrap();
    let compiled =
        Command::new("cc").args(["-shared", "-fPIC", "-o"]).args([&library, &source]).arg("-ldl").output().unwrap();
    assert!(compiled.status.success(), "{}", String::from_utf8_lossy(&compiled.stderr));
    (directory, library)
});

/// Starts faults: calls of this process on files below `directory` fail as `plan` says.
fn fail(directory: &Path, plan: &str) {
    File::open(directory.join(format!("disk-faults,{plan}"))).unwrap_err();
}

/// Ends the faults. Returns the number of calls.
fn heal(directory: &Path) -> i32 {
    let calls = File::open(directory.join("disk-faults,off")).unwrap_err().raw_os_error().unwrap() - 1_000;
    assert!(calls >= 0, "the library is not loaded");
    calls
}

/// In a second process: the directory of its stores, and the plan of faults.
fn as_child() -> Option<(PathBuf, String)> {
    Some((std::env::var_os(CHILD_PATH)?.into(), std::env::var(CHILD_PLAN).unwrap()))
}

/// Runs one test of this file as a second process at `path`, with the library. Returns its output.
fn child(test: &str, path: &Path, plan: &str) -> String {
    let output = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", test, "--nocapture"])
        .env(CHILD_PATH, path)
        .env(CHILD_PLAN, plan)
        .env("LD_PRELOAD", &FAULTS.1)
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && !errors.contains("panicked"), "{plan}: {text}{errors}");
    text
}

/// The rest of each line of `text` that begins with `name`.
fn lines<'a>(text: &'a str, name: &str) -> Vec<&'a str> {
    text.lines().filter_map(|line| line.strip_prefix(name)?.strip_prefix(' ')).collect()
}

/// Bytes of a block: small for faults of the journal, larger to fill tables soon, and largest to go to a file of blocks
/// at once.
fn block_bytes(plan: &str) -> usize {
    match plan {
        _ if plan.ends_with(",tables") => 60_000,
        _ if plan.ends_with(".blocks") => 250_000,
        _ => 3_000,
    }
}

/// The next batch, with four blocks of `size` bytes.
fn batch(chain: &mut Chain, size: usize) -> Vec<CertifiedCommit> {
    let mut batch = chain.grow(1);
    let (round, next) = (chain.round + 1, chain.clone());
    batch.push(chain.commit_of((0..4).map(|author| next.block(round, author, &[], size)).collect()));
    batch
}

/// Applies batches, with faults from the fourth on, until one fails. Then checks the visible state.
fn apply_until_it_fails(path: &Path, plan: &str) {
    let size = block_bytes(plan);
    let mut chain = Chain::new();
    let store = FjallStore::open(path, &chain.genesis).unwrap();
    let mut announced = 0;
    let error = (0..200).find_map(|number| {
        if number == 3 {
            fail(path, plan);
        }
        match store.apply(&batch(&mut chain, size)) {
            Ok(watermarks) => announced = watermarks.highest_synced.index,
            Err(error) => return Some(error),
        }
        None
    });
    println!("\nannounced {announced}");
    println!("failed {}", error.expect("a write fails"));
    // No failed write is visible, and all earlier data still is.
    assert_eq!(store.watermarks().unwrap().highest_synced.index, announced);
    for index in 1..=announced {
        assert!(store.sub_dag(index).unwrap().is_some());
    }
    assert_eq!(store.commit(announced + 1).unwrap(), None);
    // All further writes fail, even after the disk has recovered.
    for healed in [false, true] {
        if healed {
            heal(path);
        }
        let mut next = Chain::new();
        while next.last.index < announced {
            batch(&mut next, size);
        }
        for error in [
            store.apply(&batch(&mut next, size)).unwrap_err(),
            store.update_peers(PeerList::Infos, &[], &[PeerId([1; 32])]).unwrap_err(),
            store.flush().unwrap_err(),
        ] {
            assert!(error.is_fatal());
            println!("refused {error}");
        }
        assert_eq!(store.watermarks().unwrap().highest_synced.index, announced);
    }
}

/// Opens the store without faults: it holds all announced data, whole, and accepts a batch.
fn check(path: &Path, announced: CommitIndex, size: usize) {
    let mut chain = Chain::new();
    let store = FjallStore::open(path, &chain.genesis).unwrap();
    let highest = store.watermarks().unwrap().highest_synced;
    assert!(highest.index >= announced, "{highest} {announced}");
    while chain.last.index < highest.index {
        for certified in batch(&mut chain, size) {
            assert_eq!(store.sub_dag(certified.commit.index).unwrap(), Some(certified.sub_dag()));
        }
    }
    assert_eq!(chain.last, highest);
    assert_eq!(store.commit(highest.index + 1).unwrap(), None);
    store.apply(&batch(&mut chain, size)).unwrap();
}

/// Runs `test` as a second process with each of `plans`. Checks its store, and that its errors contain `says`.
fn nothing_is_lost(test: &str, plans: &[String], errno: i32, says: &[&str]) {
    for plan in plans {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("store");
        let text = child(test, &path, plan);
        let announced = lines(&text, "announced")[0].parse().unwrap();
        let failed = lines(&text, "failed")[0];
        let refused = lines(&text, "refused");
        let cause = std::io::Error::from_raw_os_error(errno).to_string();
        let cause = cause.split(" (os").next().unwrap();
        for error in refused.iter().chain([&failed]) {
            for part in says.iter().chain([&&*path.to_string_lossy(), &"restart the node"]) {
                assert!(error.contains(part), "{plan}: {error:?} does not say {part:?}");
            }
        }
        // Later errors also state the first failure.
        for error in refused {
            assert!(error.contains(&format!("takes no more writes since one failed: {failed}")), "{plan}: {error}");
        }
        assert!(plan.contains("tables") || failed.contains(cause), "{plan}: {failed}");
        check(&path, announced, block_bytes(plan));
    }
}

#[test]
fn full_disk_loses_no_announced_batch_and_the_error_has_advice() {
    if let Some((path, plan)) = as_child() {
        return apply_until_it_fails(&path, &plan);
    }
    let plans: Vec<_> = [0, 1, 3, 8].map(|after| format!("wc,{after},0,{ENOSPC},0,any")).into();
    let test = "full_disk_loses_no_announced_batch_and_the_error_has_advice";
    nothing_is_lost(test, &plans, ENOSPC, &["free space"]);
}

#[test]
fn write_that_is_cut_short_loses_no_announced_batch() {
    if let Some((path, plan)) = as_child() {
        return apply_until_it_fails(&path, &plan);
    }
    let plans: Vec<_> = [0, 1, 4].map(|after| format!("w,{after},0,{ENOSPC},1,.jnl")).into();
    nothing_is_lost("write_that_is_cut_short_loses_no_announced_batch", &plans, ENOSPC, &["free space"]);
}

#[test]
fn failed_write_or_sync_loses_no_announced_batch() {
    if let Some((path, plan)) = as_child() {
        return apply_until_it_fails(&path, &plan);
    }
    // Includes a disk that fails once and then reports success.
    let plans: Vec<_> = [("w", 0, 0), ("w", 3, 1), ("s", 0, 0), ("s", 0, 1), ("s", 2, 1)]
        .map(|(call, after, count)| format!("{call},{after},{count},{EIO},0,.jnl"))
        .into();
    nothing_is_lost("failed_write_or_sync_loses_no_announced_batch", &plans, EIO, &["the disk"]);
}

#[test]
fn table_that_cannot_be_written_loses_no_announced_batch() {
    if let Some((path, plan)) = as_child() {
        return apply_until_it_fails(&path, &plan);
    }
    let plans: Vec<_> = [("c", 0, ENOSPC), ("w", 1, ENOSPC), ("s", 0, EIO)]
        .map(|(call, after, errno)| format!("{call},{after},0,{errno},0,tables"))
        .into();
    nothing_is_lost("table_that_cannot_be_written_loses_no_announced_batch", &plans, ENOSPC, &["free space"]);
}

#[test]
fn file_of_blocks_that_cannot_be_written_loses_no_announced_batch() {
    if let Some((path, plan)) = as_child() {
        return apply_until_it_fails(&path, &plan);
    }
    let test = "file_of_blocks_that_cannot_be_written_loses_no_announced_batch";
    // Includes a write that is cut short, and a disk that fails once and then reports success.
    let full: Vec<_> = [(0, 0, 0), (2, 1, 0), (1, 0, 1)]
        .map(|(after, count, short)| format!("w,{after},{count},{ENOSPC},{short},.blocks"))
        .into();
    nothing_is_lost(test, &full, ENOSPC, &["free space"]);
    let broken: Vec<_> = [("w", 0, 1), ("s", 0, 0), ("s", 3, 1)]
        .map(|(call, after, count)| format!("{call},{after},{count},{EIO},0,.blocks"))
        .into();
    nothing_is_lost(test, &broken, EIO, &["check the disk"]);
}

/// Applies a few batches while the disk refuses direct writes; then reads all of them.
fn apply_while_direct_writes_are_refused(path: &Path, plan: &str) {
    let mut chain = Chain::new();
    let store = FjallStore::open(path, &chain.genesis).unwrap();
    let mut applied = Vec::new();
    for number in 0..4 {
        if number == 1 {
            fail(path, plan);
        }
        // Longer than one write.
        let next = batch(&mut chain, 900_000).into_iter().chain(batch(&mut chain, 900_000)).collect::<Vec<_>>();
        match store.apply(&next) {
            Ok(_) => println!("\napplied"),
            Err(error) => {
                println!("\nrefused {error}");
                break;
            }
        }
        applied.extend(next);
    }
    heal(path);
    let highest = store.watermarks().unwrap().highest_synced.index;
    assert_eq!(highest as usize, applied.len());
    for certified in applied {
        assert_eq!(store.sub_dag(certified.commit.index).unwrap(), Some(certified.sub_dag()));
    }
}

#[test]
fn disk_that_refuses_a_direct_write_is_written_through_the_page_cache() {
    if let Some((path, plan)) = as_child() {
        return apply_while_direct_writes_are_refused(&path, &plan);
    }
    let test = "disk_that_refuses_a_direct_write_is_written_through_the_page_cache";
    let directory = tempfile::tempdir().unwrap();
    let direct = rustix::fs::OFlags::DIRECT.bits() as i32;
    let mut options = std::fs::OpenOptions::new();
    if options.write(true).create(true).custom_flags(direct).open(directory.path().join("direct")).is_err() {
        return println!("{}: its file system has no direct writes to refuse", directory.path().display());
    }
    // The first or the second write of a batch fails, or every write, which the ordinary write after it shows.
    for (plan, applied, refused) in [("w,0,1", 4, 0), ("w,1,1", 4, 0), ("w,0,0", 1, 1)] {
        let text = child(test, &directory.path().join(plan), &format!("{plan},{EINVAL},0,.blocks"));
        assert_eq!(text.lines().filter(|&line| line == "applied").count(), applied, "{plan}: {text}");
        let errors = lines(&text, "refused");
        assert_eq!(errors.len(), refused, "{plan}: {text}");
        assert!(errors.iter().all(|error| error.contains("cannot write blocks: Invalid argument")), "{plan}: {text}");
    }
}

fn open_without_syncing(path: &Path) {
    // The first process stopped before it could make the new names in the store's directory durable.
    let genesis = Chain::new().genesis;
    drop(FjallStore::open(path, &genesis).unwrap());
    fail(path, &format!("s,0,1,{EIO},0,any"));
    let error = FjallStore::open(path, &genesis).err();
    heal(path);
    println!("\nrefused {}", error.expect("it does not open"));
}

#[test]
fn store_whose_name_may_not_be_durable_does_not_open_before_it_is() {
    if let Some((path, _)) = as_child() {
        return open_without_syncing(&path);
    }
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("store");
    let text = child("store_whose_name_may_not_be_durable_does_not_open_before_it_is", &path, "");
    let [error] = lines(&text, "refused")[..] else { panic!("{text}") };
    let expected = format!("{}: cannot make its entries durable: Input/output error", path.display());
    assert!(error.starts_with(&expected) && error.contains("check the disk, then restart the node"), "{error}");
}

/// Creates a store repeatedly. Each time the disk fails one call later, until no call is left to fail.
fn create_with_every_fault(directory: &Path) {
    let genesis = Chain::new().genesis;
    // One call further each time for the store's own files. The database has many similar calls, of which a stride
    // picks different ones.
    for (errno, stride) in [(ENOSPC, 83), (EIO, 211)] {
        let mut after = 0;
        loop {
            let path = directory.join(format!("{errno}-{after}"));
            fail(directory, &format!("wsc,{after},0,{errno},0,any"));
            let opened = FjallStore::open(&path, &genesis).map(drop);
            let calls = heal(directory);
            let store = FjallStore::open(&path, &genesis).unwrap();
            assert_eq!(store.watermarks().unwrap().highest_synced.index, 0, "after {after} of {calls} calls");
            drop(store);
            std::fs::remove_dir_all(&path).unwrap();
            match opened {
                Err(error @ (StoreError::Io { .. } | StoreError::Database { .. })) => {
                    println!("\nrefused {after} {error}");
                }
                Err(error) => panic!("{error}"),
                // Closing may still fail. That is harmless, because all data is written by then.
                Ok(()) if calls > after => {}
                Ok(()) => break,
            }
            after += if after < 12 { 1 } else { stride };
        }
        println!("\ncalls {after}");
    }
}

#[test]
fn creation_that_fails_at_any_call_is_finished_by_the_next_open() {
    if let Some((path, _)) = as_child() {
        return create_with_every_fault(&path);
    }
    let directory = tempfile::tempdir().unwrap();
    let text = child("creation_that_fails_at_any_call_is_finished_by_the_next_open", directory.path(), "");
    for error in lines(&text, "refused") {
        assert!(error.contains(&*directory.path().to_string_lossy()), "{error}");
        assert!(error.contains("free space") || error.contains("check the disk"), "{error}");
    }
    assert!(lines(&text, "calls").iter().all(|calls| calls.parse::<i32>().unwrap() > 50), "{text}");
}
