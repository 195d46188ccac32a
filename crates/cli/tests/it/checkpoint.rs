//! `checkpoint` writes a file at which a node begins.

use crate::stored;
use std::fs;

#[test]
fn checkpoint_names_the_last_commit_of_the_last_ended_epoch() {
    let home = stored(250, 100);
    let digest = home.run(["inspect", "store", "commit", "200", "--json"]).json()["digest"].clone();
    let exported = home.run(["checkpoint", "export", "store", "--out", "c.bin", "--json"]).json();
    assert_eq!((&exported["epoch"], &exported["commit"]["index"]), (&1.into(), &200.into()));
    assert_eq!(exported["commit"]["digest"], digest);
    let shown = home.run(["checkpoint", "show", "c.bin", "--genesis", "genesis.bin"]).ok();
    assert!(shown.contains("start = { checkpoint = \"c.bin\" }"), "{shown}");
    assert!(shown.contains(&format!("start = {{ commit = 200, digest = {digest} }}")), "{shown}");
    // The proof outlives the commits.
    home.run(["store", "prune", "store", "--commits", "100"]).ok();
    home.run(["checkpoint", "export", "store", "--out", "d.bin", "--epoch", "0"]).ok();
    let first = home.run(["checkpoint", "show", "d.bin", "--genesis", "genesis.bin", "--json"]).json();
    assert_eq!(first["commit"]["index"], 100);
}

#[test]
fn checkpoint_that_cannot_be_written_or_read_is_refused_with_the_reason() {
    let home = stored(250, 100);
    home.run(["checkpoint", "export", "store", "--out", "c.bin", "--epoch", "2"]).refused(&["in epoch 2"]);
    fs::write(home.path("c.bin"), b"mine").unwrap();
    home.run(["checkpoint", "export", "store", "--out", "c.bin"]).refused(&["c.bin is there already"]);
    assert_eq!(fs::read(home.path("c.bin")).unwrap(), b"mine");
    home.run(["checkpoint", "show", "c.bin", "--genesis", "genesis.bin"]).refused(&["checkpoint c.bin"]);
}
