//! The documents are true where a machine can tell.

use soma_testkit::hostile::{Behaviour, Consequence};
use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
};

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// All Rust sources below a folder.
fn sources(folder: &Path, text: &mut String) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            sources(&path, text);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            text.push_str(&fs::read_to_string(path).unwrap());
        }
    }
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
    let mut code = String::new();
    for folder in ["crates", "actors", "tests"] {
        sources(&root().join(folder), &mut code);
    }
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
