//! How far the nodes of a simulation have got.

use super::{event::Party, graph::Graph, node::Process, world::World};
use soma_protocol::Core;
use std::time::Duration;

/// How far the honest nodes that are up have got.
#[derive(Clone, Debug, PartialEq)]
pub struct Progress {
    /// Virtual time.
    pub at: Duration,
    /// Nodes that are up.
    pub up: usize,
    /// Lowest share of the other honest nodes (up or down) that a node knows, in percent.
    pub known_least: f64,
    /// Mean share of the other honest nodes that a node knows, in percent.
    pub known_mean: f64,
    /// Fewest links of a node.
    pub links_least: usize,
    /// Mean links of a node.
    pub links_mean: f64,
    /// Nodes that have reached their target number of links.
    pub at_target: usize,
    /// Most links that any node has to the attacker.
    pub attacker_links_most: usize,
    /// Fewest links of a node to honest peers.
    pub honest_least: usize,
    /// Connected components of the graph of the honest nodes that are up.
    pub parts: usize,
    /// Largest diameter of a component, in hops.
    pub diameter: usize,
}

impl World {
    /// How far the nodes have got.
    pub fn progress(&self) -> Progress {
        let up: Vec<usize> = (0..self.machines.len()).filter(|node| self.machines[*node].process.is_some()).collect();
        let mut graph = Graph::new(self.machines.len());
        let (mut links, mut honest) = (vec![0; self.machines.len()], vec![0; self.machines.len()]);
        for (node, process) in self.processes() {
            for peer in process.connected.keys() {
                links[node] += 1;
                match self.by_peer.get(peer) {
                    Some(Party::Honest(other)) => {
                        honest[node] += 1;
                        graph.join(node, *other);
                    }
                    Some(Party::Attacker(_)) | None => {}
                }
            }
        }
        let others = (self.machines.len() - 1).max(1);
        let known = |process: &Process| {
            if self.attackers.is_empty() {
                return process.discovery.snapshot().known as f64 * 100.0 / others as f64;
            }
            let book = process.discovery.book();
            let honest = book.iter().filter(|entry| matches!(self.by_peer.get(&entry.peer), Some(Party::Honest(_))));
            honest.count() as f64 * 100.0 / others as f64
        };
        let known: Vec<f64> = self.processes().map(|(_, process)| known(process)).collect();
        let of_up = |counts: &[usize]| up.iter().map(|node| counts[*node]).collect::<Vec<_>>();
        let links = of_up(&links);
        let count = up.len().max(1) as f64;
        let (parts, diameter) = graph.parts_and_diameter(&up);
        Progress {
            at: self.now,
            up: up.len(),
            known_least: known.iter().copied().fold(f64::INFINITY, f64::min),
            known_mean: known.iter().sum::<f64>() / count,
            links_least: links.iter().copied().min().unwrap_or(0),
            links_mean: links.iter().sum::<usize>() as f64 / count,
            at_target: links.iter().filter(|links| **links >= self.settings.target_connections).count(),
            attacker_links_most: self.attacker_links_most,
            honest_least: of_up(&honest).into_iter().min().unwrap_or(0),
            parts,
            diameter,
        }
    }
}
