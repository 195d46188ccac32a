//! Nodes that leave and return, and links that break and return.

use super::{event::Event, world::World};
use rand::{RngExt, seq::IteratorRandom};
use std::time::Duration;

impl World {
    /// A node at random leaves, and returns later.
    pub(super) fn leave_next(&mut self) {
        let Some(unrest) = self.settings.unrest.clone().filter(|_| !self.is_finished) else { return };
        let nodes = self.topology.nodes.len() as f64;
        self.after_share(nodes * unrest.leaves_per_minute, Event::Leave);
        let up = (0..self.topology.nodes.len()).filter(|node| self.topology.nodes[*node].process.is_some());
        let Some(node) = up.choose(&mut self.random.unrest) else { return };
        self.crash(node);
        let away = self.random.unrest.random_range(unrest.away_s);
        self.after(Duration::from_secs(away), Event::Start { node });
    }

    /// A link at random breaks, and returns soon.
    pub(super) fn break_next(&mut self) {
        let Some(unrest) = self.settings.unrest.clone().filter(|_| !self.is_finished) else { return };
        let links = self.topology.links.len() as f64;
        self.after_share(links * unrest.breaks_per_minute, Event::Break);
        let up = (0..self.topology.links.len()).filter(|link| self.topology.links[*link].is_up);
        let Some(link) = up.choose(&mut self.random.unrest) else { return };
        self.break_link(link);
        self.figures.broken_links += 1;
        self.dial_soon(link, 1_000..3_000);
    }

    /// Queues an event that happens so many times in a minute.
    fn after_share(&mut self, per_minute: f64, event: Event) {
        if per_minute > 0.0 {
            let wait = 60.0 / per_minute * self.random.unrest.random_range(0.5..1.5);
            self.after(Duration::from_secs_f64(wait), event);
        }
    }

    fn crash(&mut self, node: usize) {
        let links: Vec<_> = self.topology.nodes[node].links.values().copied().collect();
        for link in links {
            for stream in self.topology.links[link].streams.clone() {
                let ends = &mut self.streams[stream].ends;
                ends.iter_mut().filter(|end| end.node == node).for_each(|end| end.end());
            }
            self.break_link(link);
        }
        self.topology.nodes[node].process = None;
        self.figures.left += 1;
    }
}
