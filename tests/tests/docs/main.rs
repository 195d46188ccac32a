//! The documents are true where a machine can tell.

mod book;
mod figures;

use soma_testkit::hostile::{Behaviour, Consequence};
use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
};

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// The Rust files below a folder.
fn rust_files(folder: &Path) -> Vec<PathBuf> {
    let paths = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let below = paths.flat_map(|path| if path.is_dir() { rust_files(&path) } else { vec![path] });
    below.filter(|path| path.extension().is_some_and(|extension| extension == "rs")).collect()
}

/// What a document has between backticks and looks like the name of a test: a sentence.
fn tests_named_in(document: &str) -> BTreeSet<&str> {
    let is_sentence = |name: &&str| {
        name.matches('_').count() >= 4
            && name.chars().all(|letter| letter.is_ascii_lowercase() || letter.is_ascii_digit() || letter == '_')
    };
    document.split('`').skip(1).step_by(2).filter(is_sentence).collect()
}

#[test]
fn every_test_that_the_guarantees_name_exists() {
    let [semantics, testing] = ["runtime-semantics", "testing"]
        .map(|name| fs::read_to_string(root().join(format!("docs/{name}.md"))).unwrap());
    let files = ["crates", "actors", "tests"].map(|folder| rust_files(&root().join(folder)));
    let code: String = files.concat().into_iter().map(|file| fs::read_to_string(file).unwrap()).collect();
    let words: BTreeSet<&str> = code.split(|letter: char| !(letter.is_ascii_alphanumeric() || letter == '_')).collect();
    let mut named = tests_named_in(&semantics);
    assert!(named.len() > 60, "only {} names were found", named.len());
    named.extend(tests_named_in(&testing));
    // Metrics are named by strings in the code, tests by functions: both are words of it.
    let missing: Vec<_> = named.into_iter().filter(|name| !words.contains(name)).collect();
    assert_eq!(missing, Vec::<&str>::new(), "named in the documents and nowhere in the code");
}

#[test]
fn every_hostile_behaviour_is_told_of_with_what_comes_of_it() {
    let document = fs::read_to_string(root().join("docs/testing.md")).unwrap();
    for behaviour in Behaviour::ALL {
        let row = document.lines().find(|line| line.starts_with(&format!("| `{behaviour}` |")));
        let consequence = match behaviour.consequence() {
            Consequence::Banned => "**banned**",
            Consequence::Doubted => "**doubted**",
            Consequence::NotConnected => "**not connected**",
            Consequence::WithoutEffect => "**no effect**",
        };
        assert!(row.is_some_and(|row| row.contains(consequence)), "{behaviour}: {row:?}, not {consequence}");
    }
}

#[test]
fn code_of_the_page_on_actors_is_that_of_its_test() {
    let page = fs::read_to_string(root().join("docs/adding-an-actor.md")).unwrap();
    let test = fs::read_to_string(root().join("actors/tests/adding_an_actor.rs")).unwrap();
    let trimmed = |text: &str| text.lines().map(str::trim).collect::<Vec<_>>().join("\n");
    let blocks: Vec<_> = page.split("```rust\n").skip(1).map(|block| block.split("```").next().unwrap()).collect();
    assert_eq!(blocks.len(), 4);
    for block in blocks {
        assert!(trimmed(&test).contains(trimmed(block).trim()), "the test does not have this:\n{block}");
    }
}
