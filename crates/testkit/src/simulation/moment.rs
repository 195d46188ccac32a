//! The verbs of the scenario language: one method for each event.

use crate::{
    hostile::Behaviour,
    simulation::{
        event::{ActorFault, ArchiveFault, DiskFault, DiskOperation, Event},
        names::NodeName,
        scenario::Scenario,
    },
};
use std::{ops::Range, time::Duration};

/// A point of the story, at which something is about to happen.
#[derive(Clone, Debug)]
pub struct Moment {
    pub(super) scenario: Scenario,
    pub(super) time: Duration,
}

impl Moment {
    /// Any event.
    pub fn event(mut self, event: Event) -> Scenario {
        self.scenario.events.push((self.time, event));
        self.scenario
    }

    /// The node's process is gone, with everything that was not durable.
    pub fn crash(self, node: NodeName) -> Scenario {
        self.event(Event::Crash(node))
    }

    /// The node starts again from its disk.
    pub fn restart(self, node: NodeName) -> Scenario {
        self.event(Event::Restart(node))
    }

    /// The node stops in order; then its process is gone.
    pub fn shutdown(self, node: NodeName) -> Scenario {
        self.event(Event::Shutdown(node))
    }

    /// The node's operator changes its chosen peers, disconnects the first peer, and bans the second for a moment.
    pub fn manage_peers(self, node: NodeName, peers: [NodeName; 2]) -> Scenario {
        self.event(Event::ManagePeers { node, peers })
    }

    /// The node's disk fails at each of `times` such operations, from the `nth` from now on.
    pub fn disk_fault(
        self,
        node: NodeName,
        operation: DiskOperation,
        nth: u32,
        times: u32,
        fault: DiskFault,
    ) -> Scenario {
        self.event(Event::DiskFault { node, operation, nth, times, fault })
    }

    /// Cancels the planned faults of the node's actors and its disk.
    pub fn repair(self, node: NodeName) -> Scenario {
        self.event(Event::Repair(node))
    }

    /// These nodes and the others do not reach each other any more.
    pub fn partition(self, nodes: impl IntoIterator<Item = NodeName>) -> Scenario {
        self.event(Event::Partition(nodes.into_iter().collect()))
    }

    /// Everyone reaches everyone again.
    pub fn heal(self) -> Scenario {
        self.event(Event::Heal)
    }

    /// From now on the archive has this fault.
    pub fn archive_fault(self, fault: ArchiveFault) -> Scenario {
        self.event(Event::Archive(Some(fault)))
    }

    /// The archive has no fault any more.
    pub fn archive_works(self) -> Scenario {
        self.event(Event::Archive(None))
    }

    /// From now on a message is this long on its way.
    pub fn latency(self, latency: Range<Duration>) -> Scenario {
        self.event(Event::Latency(latency))
    }

    /// From now on this many messages of a hundred are lost.
    pub fn loss_percent(self, percent: f64) -> Scenario {
        self.event(Event::LossPercent(percent))
    }

    /// From now on each read and write of the node's disk takes this long.
    pub fn disk_time(self, node: NodeName, time: Duration) -> Scenario {
        self.event(Event::DiskTime(node, time))
    }

    /// From now on the node's executor takes this long for each commit.
    pub fn execution_time(self, node: NodeName, time: Duration) -> Scenario {
        self.event(Event::ExecutionTime(node, time))
    }

    /// The node's wall clock is off by this many milliseconds from its next start on.
    pub fn clock_skew(self, node: NodeName, milliseconds: i64) -> Scenario {
        self.event(Event::ClockSkew(node, milliseconds))
    }

    /// The node behaves so from now on.
    pub fn hostile(self, node: NodeName, behaviour: Behaviour) -> Scenario {
        self.event(Event::Hostile(node, behaviour))
    }

    /// An actor of the node panics when it takes an input of this kind for the `nth` time from now on.
    pub fn panic(self, node: NodeName, actor: &str, input: &str, nth: u32) -> Scenario {
        self.actor_fault(node, actor, input, nth, ActorFault::Panic)
    }

    /// An actor of the node does nothing ever more when it takes an input of this kind for the `nth` time from now on.
    pub fn hang(self, node: NodeName, actor: &str, input: &str, nth: u32) -> Scenario {
        self.actor_fault(node, actor, input, nth, ActorFault::Hang)
    }

    /// Something goes wrong with an actor of the node when it takes an input of this kind for the `nth` time from now
    /// on.
    pub fn actor_fault(self, node: NodeName, actor: &str, input: &str, nth: u32, fault: ActorFault) -> Scenario {
        self.actor_faults(node, actor, input, nth, 1, fault)
    }

    /// Something goes wrong with an actor of the node at each of `times` inputs of this kind, from the `nth` from now
    /// on.
    pub fn actor_faults(
        self,
        node: NodeName,
        actor: &str,
        input: &str,
        nth: u32,
        times: u32,
        fault: ActorFault,
    ) -> Scenario {
        self.event(Event::ActorFault { node, actor: actor.into(), input: input.into(), nth, times, fault })
    }
}

impl Scenario {
    /// Begins to tell what happens at a time since the start. What happens at zero happens before any node starts.
    pub fn at(self, time: Duration) -> Moment {
        Moment { scenario: self, time }
    }
}
