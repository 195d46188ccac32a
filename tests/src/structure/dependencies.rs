//! Which package may use which: the layers of docs/architecture.md.

use cargo_metadata::{DependencyKind, Package};
use std::collections::{BTreeMap, BTreeSet};

/// Our crates from the bottom up: each may depend on those in layers below it, and within its own layer on none.
const LAYERS: &[&[&str]] = &[
    &["soma-types"],
    &["soma-network", "soma-store", "soma-verify", "soma-protocol"],
    &["soma-replay", "soma-archive"],
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
    ("fjall", &["soma-store", "soma-lab"]),
    // The benchmark measures a bare TLS stream, to say what the transport costs above it.
    // The archive chooses the cryptography of the HTTP client.
    ("rustls", &["soma-network", "soma-archive", "soma-lab"]),
    ("soma-testkit", &["soma-lab", "soma-tests"]),
];

/// What a pure core must not know.
const NEVER_IN_PROTOCOL: &[&str] =
    &["actix", "actix-rt", "tokio", "tonic", "futures", "async-trait", "getrandom", "tracing"];

/// A package, and what it is built from. Tests may use what they like.
struct Built<'a> {
    name: &'a str,
    uses: Vec<&'a str>,
}

pub(super) fn violations(packages: &[Package]) -> Vec<String> {
    let built = packages.iter().map(|package| {
        let normal = package.dependencies.iter().filter(|used| used.kind == DependencyKind::Normal);
        Built { name: package.name.as_str(), uses: normal.map(|used| used.name.as_str()).collect() }
    });
    check(&built.collect::<Vec<_>>())
}

fn check(packages: &[Built<'_>]) -> Vec<String> {
    let layers = LAYERS.iter().enumerate();
    let layer_of: BTreeMap<&str, usize> =
        layers.flat_map(|(layer, names)| names.iter().map(move |name| (*name, layer))).collect();
    let mut wrong = Vec::new();
    for package in packages {
        match layer_of.get(package.name) {
            Some(layer) => check_layers(package, *layer, &layer_of, &mut wrong),
            None => wrong.push(format!("{} is in no layer: add it to {}", package.name, file!())),
        }
        check_outside(package, &mut wrong);
    }
    let names: BTreeSet<&str> = packages.iter().map(|package| package.name).collect();
    let gone = layer_of.keys().filter(|name| !names.contains(*name));
    wrong.extend(gone.map(|name| format!("{name} is gone: remove it from {}", file!())));
    wrong
}

fn check_layers(package: &Built<'_>, layer: usize, layers: &BTreeMap<&str, usize>, wrong: &mut Vec<String>) {
    for used in &package.uses {
        if layers.get(used).is_some_and(|below| *below >= layer) {
            wrong.push(format!("{} must not depend on {used}", package.name));
        }
    }
}

fn check_outside(package: &Built<'_>, wrong: &mut Vec<String>) {
    for used in &package.uses {
        let allowed = ONLY.iter().find(|(name, _)| name == used);
        if allowed.is_some_and(|(_, users)| !users.contains(&package.name)) {
            wrong.push(format!("{} must not use {used}", package.name));
        }
        if package.name == "soma-protocol" && NEVER_IN_PROTOCOL.contains(used) {
            wrong.push(format!("the pure cores must not use {used}"));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(name: &'static str, uses: &[&'static str]) -> Vec<String> {
        let others = LAYERS.iter().flat_map(|names| names.iter()).filter(|other| **other != name);
        let mut packages: Vec<_> = others.map(|name| Built { name, uses: Vec::new() }).collect();
        packages.push(Built { name, uses: uses.to_vec() });
        check(&packages)
    }

    #[test]
    fn a_package_may_use_those_of_lower_layers_only() {
        assert_eq!(found("soma-store", &["soma-types"]), Vec::<String>::new());
        assert_eq!(found("soma-store", &["soma-verify"]), ["soma-store must not depend on soma-verify"]);
        assert_eq!(found("soma-types", &["soma-actors"]), ["soma-types must not depend on soma-actors"]);
    }

    #[test]
    fn only_the_named_packages_may_use_what_could_undo_the_design() {
        assert_eq!(found("soma-network", &["tonic"]), Vec::<String>::new());
        assert_eq!(found("soma-actors", &["tonic"]), ["soma-actors must not use tonic"]);
        assert_eq!(found("soma-protocol", &["tokio"]), ["the pure cores must not use tokio"]);
    }

    #[test]
    fn a_package_in_no_layer_and_a_layer_without_its_package_are_reported() {
        let found = check(&[Built { name: "soma-new", uses: Vec::new() }]);
        assert!(found[0].starts_with("soma-new is in no layer"), "{found:?}");
        assert!(found.iter().any(|line| line.starts_with("soma-types is gone")), "{found:?}");
    }
}
