//! What other projects can name changes only on purpose.

use soma_tests::public_api::{golden_file, outline, unexported};
use std::collections::BTreeSet;

#[test]
fn the_public_items_of_the_facade_are_those_of_the_golden_file() {
    let golden = std::fs::read_to_string(golden_file()).unwrap();
    let now = outline().unwrap();
    let differs = golden.lines().zip(now.lines()).position(|(golden, now)| golden != now);
    let line = differs.unwrap_or_else(|| golden.lines().count().min(now.lines().count()));
    assert!(
        golden == now,
        "public items have changed: see line {} of {}; `make public-api` writes them anew, if that is meant",
        line + 1,
        golden_file().display()
    );
}

#[test]
fn every_type_in_a_public_signature_can_be_named_by_an_embedder() {
    assert_eq!(unexported().unwrap(), BTreeSet::new());
}
