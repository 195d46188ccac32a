//! How messages spread in a network of cores.

use super::network::{Network, message, ms};
use crate::broadcast::{Config, MessageVerdict};
use soma_types::{Author, MessageId, Topic};
use std::time::Duration;

/// Messages of one size, one every 20 ms, from one validator after the other.
struct Traffic {
    topic: Topic,
    validators: u64,
    bytes: u32,
    next: u64,
}

impl Traffic {
    fn new(topic: Topic, validators: u64, bytes: u32) -> Self {
        Self { topic, validators, bytes, next: 0 }
    }

    /// Publishes and lets the last ones arrive. Returns their ids and when they were published.
    fn run(&mut self, network: &mut Network, count: u64) -> Vec<(MessageId, Duration)> {
        let mut published = Vec::new();
        for _ in 0..count {
            let author = self.next % self.validators;
            let message = message(Author::Authority(author as u32), self.next, self.bytes);
            self.next += 1;
            published.push((message.id, network.now));
            network.publish(author as usize, self.topic, message);
            network.run_for(ms(20));
        }
        network.run_for(ms(3_000));
        published
    }
}

/// A network of nodes with 20 links each.
fn network(nodes: usize, validators: usize, seed: u64) -> Network {
    let mut network = Network::new(nodes, validators, seed, |config| config);
    network.link_at_random(validators, 20);
    network.run_for(ms(3_000));
    network
}

fn received(network: &Network) -> u64 {
    network.nodes.iter().map(|node| node.received_bytes).sum()
}

/// All nodes but `without` got all messages. Returns the longest time.
fn assert_reached(network: &Network, published: &[(MessageId, Duration)], without: &[usize]) -> Duration {
    let mut longest = Duration::ZERO;
    for (index, node) in network.nodes.iter().enumerate().filter(|(index, _)| !without.contains(index)) {
        for (id, since) in published {
            let delivered = node.delivered.get(id).unwrap_or_else(|| panic!("node {index} lacks {id}"));
            longest = longest.max(delivered.saturating_sub(*since));
        }
    }
    assert!(network.nodes.iter().all(|node| node.reports.is_empty()), "nobody is blamed");
    assert_eq!(network.leaked(), 0);
    longest
}

#[test]
fn every_node_gets_every_message_once_when_the_trees_have_formed() {
    let mut network = network(100, 10, 1);
    let mut traffic = Traffic::new(Topic::Certificates, 10, 1_024);
    let first = traffic.run(&mut network, 100);
    assert_reached(&network, &first, &[]);
    let before = received(&network);
    let later = traffic.run(&mut network, 300);
    let longest = assert_reached(&network, &later, &[]);
    assert!(longest < ms(700), "{longest:?}");
    let ratio = (received(&network) - before) as f64 / (300.0 * 1_024.0 * 99.0);
    assert!(ratio < 1.4, "{ratio}");
}

#[test]
fn large_messages_come_once_even_before_there_is_a_tree() {
    let mut network = network(100, 10, 1);
    let before = received(&network);
    let mut traffic = Traffic::new(Topic::Certificates, 10, 128 << 10);
    let published = traffic.run(&mut network, 40);
    assert_reached(&network, &published, &[]);
    let ratio = (received(&network) - before) as f64 / (40.0 * f64::from(128 << 10) * 99.0);
    assert!(ratio < 1.15, "{ratio}");
}

#[test]
fn two_runs_from_one_seed_are_equal() {
    let [one, other] = [(); 2].map(|()| {
        let mut network = network(40, 4, 7);
        Traffic::new(Topic::Transactions, 4, 500).run(&mut network, 50);
        network.trace()
    });
    assert_eq!(one, other);
}

#[test]
fn messages_reach_all_nodes_while_links_break_and_return() {
    for seed in 1..=5 {
        let mut network = network(60, 4, seed);
        let mut traffic = Traffic::new(Topic::Certificates, 4, 1_000);
        let mut published = traffic.run(&mut network, 20);
        for round in 0..30 {
            // A node loses half of its links in the middle of the traffic, and gets them back.
            let node = 4 + (round * 7) % 56;
            let neighbours = network.neighbours(node);
            let lost = &neighbours[..neighbours.len() / 2];
            lost.iter().for_each(|other| network.cut(node, *other));
            published.extend(traffic.run(&mut network, 5));
            lost.iter().for_each(|other| network.link(node, *other, ms(50)));
        }
        assert_reached(&network, &published, &[]);
    }
}

#[test]
fn node_that_was_away_for_a_short_time_lacks_nothing() {
    let mut network = network(30, 4, 3);
    let mut traffic = Traffic::new(Topic::Transactions, 4, 1_000);
    let mut published = traffic.run(&mut network, 20);
    let neighbours = network.neighbours(20);
    neighbours.iter().for_each(|other| network.cut(20, *other));
    published.extend(traffic.run(&mut network, 10));
    neighbours.iter().for_each(|other| network.link(20, *other, ms(50)));
    network.run_for(ms(3_000));
    assert_reached(&network, &published, &[]);
}

#[test]
fn nodes_that_send_nothing_keep_no_message_from_others() {
    for seed in 1..=5 {
        let mut network = network(60, 4, seed);
        let mute: Vec<usize> = (10..60).step_by(5).collect();
        let mut traffic = Traffic::new(Topic::Certificates, 4, 1_000);
        // They are part of the trees, then stop.
        let mut published = traffic.run(&mut network, 40);
        mute.iter().for_each(|node| network.nodes[*node].is_mute = true);
        published.extend(traffic.run(&mut network, 100));
        assert_reached(&network, &published, &mute);
    }
}

#[test]
fn consensus_messages_go_to_each_validator_directly_and_to_no_full_node() {
    let mut network = network(30, 10, 5);
    let before = received(&network);
    let published = Traffic::new(Topic::Consensus, 10, 10_000).run(&mut network, 50);
    let full_nodes: Vec<usize> = (10..30).collect();
    let longest = assert_reached(&network, &published, &full_nodes);
    assert!(longest < ms(160), "one hop: {longest:?}");
    assert!(published.iter().all(|(id, _)| network.reached(id).0 == 10));
    let ratio = (received(&network) - before) as f64 / (50.0 * 10_000.0 * 9.0);
    assert!(ratio < 1.05, "{ratio}");
}

#[test]
fn consensus_messages_reach_full_nodes_if_they_are_to() {
    let mut network = Network::new(40, 4, 6, |config| Config { relays_consensus: true, ..config });
    network.link_at_random(4, 16);
    network.run_for(ms(3_000));
    let published = Traffic::new(Topic::Consensus, 4, 1_000).run(&mut network, 50);
    assert_reached(&network, &published, &[]);
}

#[test]
fn consensus_message_that_its_author_sent_to_one_validator_reaches_all() {
    let mut network = Network::new(10, 10, 7, |config| config);
    for a in 0..10 {
        // The author is linked to one other validator only.
        (0..a).filter(|b| *b > 0 || a == 1).for_each(|b| network.link(a, b, ms(50)));
    }
    network.run_for(ms(3_000));
    let proposal = message(Author::Authority(0), 1, 10_000);
    let published = vec![(proposal.id, network.now)];
    network.publish(0, Topic::Consensus, proposal);
    network.run_for(ms(3_000));
    assert_reached(&network, &published, &[]);
}

#[test]
fn both_messages_of_a_contradicting_author_become_evidence_at_every_node() {
    let mut network = network(40, 4, 8);
    network.verdict = |_, _| MessageVerdict::Accept { slot: Some(1) };
    let [one, other] = [1, 2].map(|number| message(Author::Authority(0), number, 1_000));
    network.publish(0, Topic::Certificates, one);
    network.publish(0, Topic::Certificates, other);
    network.run_for(ms(3_000));
    for node in &network.nodes[1..] {
        assert_eq!(node.evidence.len(), 1);
        assert!(node.delivered.contains_key(&one.id) != node.delivered.contains_key(&other.id));
    }
}

#[test]
fn silent_validators_are_named_in_a_validator() {
    let mut network = network(8, 4, 9);
    let silent = |network: &Network, node: usize| network.nodes[node].core.snapshot_of().silent_validators;
    assert!(silent(&network, 0).is_empty());
    let mut traffic = Traffic::new(Topic::Consensus, 3, 1_000);
    traffic.run(&mut network, 300);
    let named: Vec<u32> = silent(&network, 0).into_iter().map(|(index, _)| index).collect();
    assert_eq!(named, [3]);
    assert!(silent(&network, 6).is_empty(), "not in a full node");
}
