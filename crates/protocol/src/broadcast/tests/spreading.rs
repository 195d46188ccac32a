//! How messages spread in a network of cores.

use super::network::{Network, message, ms, peer};
use soma_types::{Author, Topic};
use std::time::Duration;

fn run(nodes: usize, validators: usize, seed: u64, rounds: u64, bytes: u32, topic: Topic) -> (Network, Duration, f64) {
    let mut network = Network::new(nodes, validators, seed, |config| config);
    network.link_at_random(validators, 20);
    network.run_for(ms(3_000));
    let before: u64 = network.nodes.iter().map(|node| node.received_bytes).sum();
    let mut slowest = Duration::ZERO;
    let mut published = Vec::new();
    for round in 0..rounds {
        let author = (round % validators as u64) as usize;
        let message = message(Author::Authority(author as u32), round, bytes);
        published.push((message.id, network.now));
        network.publish(author, topic, message);
        network.run_for(ms(20));
    }
    network.run_for(ms(5_000));
    eprintln!("{:?}", network.sent);
    for (id, since) in published {
        let (reached, last) = network.reached(&id);
        assert_eq!(reached, nodes, "every node gets every message");
        slowest = slowest.max(last - since);
    }
    let after: u64 = network.nodes.iter().map(|node| node.received_bytes).sum();
    let payload = rounds * u64::from(bytes) * (nodes as u64 - 1);
    assert_eq!(network.leaked(), 0);
    assert!(network.nodes.iter().all(|node| node.reports.is_empty()));
    (network, slowest, (after - before) as f64 / payload as f64)
}

#[test]
fn every_node_gets_every_message_at_little_cost() {
    let (network, slowest, ratio) = run(100, 10, 1, 400, 1_024, Topic::Certificates);
    eprintln!("slowest {slowest:?}, ratio {ratio:.3}, {:?}", network.nodes[50].core.snapshot_of());
    assert!(slowest < ms(1_000), "{slowest:?}");
    assert!(ratio < 1.5, "{ratio}");
}

#[test]
fn large_messages_come_once() {
    let (network, slowest, ratio) = run(100, 10, 1, 40, 128 << 10, Topic::Certificates);
    eprintln!("slowest {slowest:?}, ratio {ratio:.3}, {:?}", network.nodes[50].core.snapshot_of());
    assert!(ratio < 1.15, "{ratio}");
}

#[test]
fn two_runs_from_one_seed_are_equal() {
    let [one, other] = [(); 2].map(|()| run(40, 4, 7, 50, 500, Topic::Transactions).0.trace());
    assert_eq!(one, other);
    let _ = peer(0);
}
