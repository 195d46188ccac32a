//! Checks the dependency rules of docs/architecture.md against `cargo metadata`. `make lint` runs it.

use anyhow::{Context, Result, bail};
use cargo_metadata::{DependencyKind, MetadataCommand, Package};
use std::collections::{BTreeMap, BTreeSet};

/// Our crates from the bottom up: each may depend on those in layers below it, and within its own layer on none.
const LAYERS: &[&[&str]] = &[
    &["soma-types"],
    &["soma-network", "soma-store", "soma-verify", "soma-protocol"],
    &["soma-replay"],
    &["soma-runtime"],
    &["soma-actors"],
    &["soma-p2p"],
    &["soma-testkit"],
    &["soma-p2p-cli"],
    &["soma-lab", "soma-tests"],
];

/// Who may use what from outside, wherever an unguarded use would undo the design.
const ONLY: &[(&str, &[&str])] = &[
    ("actix", &["soma-runtime", "soma-actors", "soma-p2p", "soma-tests"]),
    ("actix-rt", &["soma-runtime", "soma-p2p", "soma-tests"]),
    ("tonic", &["soma-network", "soma-tests"]),
    ("prost", &["soma-network"]),
    ("fjall", &["soma-store"]),
    // The benchmark measures a bare TLS stream, to say what the transport costs above it.
    ("rustls", &["soma-network", "soma-lab"]),
    ("soma-testkit", &["soma-lab", "soma-tests"]),
];

/// What a pure core must not know.
const NEVER_IN_PROTOCOL: &[&str] =
    &["actix", "actix-rt", "tokio", "tonic", "futures", "async-trait", "getrandom", "tracing"];

fn main() -> Result<()> {
    let metadata = MetadataCommand::new().no_deps().exec().context("cargo metadata")?;
    let layer_of: BTreeMap<&str, usize> =
        LAYERS.iter().enumerate().flat_map(|(layer, names)| names.iter().map(move |name| (*name, layer))).collect();
    let mut wrong = Vec::new();
    let packages: BTreeSet<&str> = metadata.packages.iter().map(|package| package.name.as_str()).collect();
    for package in &metadata.packages {
        let Some(layer) = layer_of.get(package.name.as_str()) else {
            wrong.push(format!("{} is in no layer: add it to {}", package.name, file!()));
            continue;
        };
        check_arrows(package, *layer, &layer_of, &mut wrong);
        check_outside(package, &mut wrong);
    }
    wrong.extend(layer_of.keys().filter(|name| !packages.contains(*name)).map(|name| format!("{name} is gone")));
    if wrong.is_empty() {
        println!("dependency rules: {} packages, all in order", packages.len());
        return Ok(());
    }
    bail!("dependency rules (docs/architecture.md):\n  {}", wrong.join("\n  "))
}

fn normal(package: &Package) -> impl Iterator<Item = &str> {
    // Tests may use what they like; what is built is what the rules are for.
    package.dependencies.iter().filter(|used| used.kind == DependencyKind::Normal).map(|used| used.name.as_str())
}

fn check_arrows(package: &Package, layer: usize, layers: &BTreeMap<&str, usize>, wrong: &mut Vec<String>) {
    for used in normal(package) {
        if layers.get(used).is_some_and(|below| *below >= layer) {
            wrong.push(format!("{} must not depend on {used}", package.name));
        }
    }
}

fn check_outside(package: &Package, wrong: &mut Vec<String>) {
    let is = |pattern: &str| match pattern.strip_suffix('*') {
        Some(prefix) => package.name.starts_with(prefix),
        None => package.name.as_str() == pattern,
    };
    for used in normal(package) {
        let allowed = ONLY.iter().find(|(name, _)| *name == used);
        if allowed.is_some_and(|(_, users)| !users.iter().any(|user| is(user))) {
            wrong.push(format!("{} must not use {used}", package.name));
        }
        if package.name.as_str() == "soma-protocol" && NEVER_IN_PROTOCOL.contains(&used) {
            wrong.push(format!("the pure cores must not use {used}"));
        }
    }
}
