//! The graph of connections, without their direction.

use std::collections::VecDeque;

/// An undirected graph of nodes 0 to n.
#[derive(Clone, Debug)]
pub struct Graph {
    neighbours: Vec<Vec<usize>>,
}

impl Graph {
    /// A graph without edges.
    pub fn new(nodes: usize) -> Self {
        Self { neighbours: vec![Vec::new(); nodes] }
    }

    /// Joins two nodes.
    pub fn join(&mut self, one: usize, other: usize) {
        self.neighbours[one].push(other);
        self.neighbours[other].push(one);
    }

    /// The connected components among `members`, and the largest diameter of a component.
    pub fn parts_and_diameter(&self, members: &[usize]) -> (usize, usize) {
        let mut is_member = vec![false; self.neighbours.len()];
        members.iter().for_each(|member| is_member[*member] = true);
        let mut first_seen = vec![false; self.neighbours.len()];
        let (mut parts, mut diameter) = (0, 0);
        for member in members {
            let hops = self.hops_from(*member, &is_member);
            if !first_seen[*member] {
                parts += 1;
            }
            for (node, hops) in hops.iter().enumerate() {
                let Some(hops) = hops else { continue };
                first_seen[node] = true;
                diameter = diameter.max(*hops);
            }
        }
        (parts, diameter)
    }

    fn hops_from(&self, start: usize, is_member: &[bool]) -> Vec<Option<usize>> {
        let mut hops = vec![None; self.neighbours.len()];
        let mut open = VecDeque::from([start]);
        hops[start] = Some(0);
        while let Some(node) = open.pop_front() {
            for next in &self.neighbours[node] {
                if is_member[*next] && hops[*next].is_none() {
                    hops[*next] = hops[node].map(|hops| hops + 1);
                    open.push_back(*next);
                }
            }
        }
        hops
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_and_diameter_cover_only_the_members() {
        let mut graph = Graph::new(6);
        for (one, other) in [(0, 1), (1, 2), (2, 3), (4, 5)] {
            graph.join(one, other);
        }
        assert_eq!(graph.parts_and_diameter(&[0, 1, 2, 3, 4, 5]), (2, 3));
        assert_eq!(graph.parts_and_diameter(&[0, 1, 2, 3]), (1, 3));
        assert_eq!(graph.parts_and_diameter(&[0, 1, 3]), (2, 1), "without 2 there is no way to 3");
        assert_eq!(graph.parts_and_diameter(&[]), (0, 0));
    }
}
