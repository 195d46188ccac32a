//! Events of a story, and their text form.

use crate::{
    hostile::Behaviour,
    simulation::names::{NodeName, Time},
};
use serde::{Deserialize, Serialize};
use std::{fmt, ops::Range, time::Duration};

/// Something that happens to the network at a stated time. What cannot happen (the crash of a node that is down) is
/// skipped, so that a scenario from which events were taken still makes sense.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Event {
    /// The node's process is gone, with everything that was not durable.
    Crash(NodeName),
    /// The node starts again from its disk.
    Restart(NodeName),
    /// The node stops in order; then its process is gone.
    Shutdown(NodeName),
    /// These nodes and the others do not reach each other any more.
    Partition(Vec<NodeName>),
    /// Everyone reaches everyone again.
    Heal,
    /// From now on a message is this long on its way, in whole milliseconds.
    Latency(Range<Duration>),
    /// From now on this many messages of a hundred are lost.
    LossPercent(f64),
    /// From now on each read and write of the node's disk takes this long.
    DiskTime(NodeName, Duration),
    /// From now on the node's executor takes this long for each commit.
    ExecutionTime(NodeName, Duration),
    /// The node's wall clock is off by this many milliseconds from its next start on.
    ClockSkew(NodeName, i64),
    /// The node behaves so from now on, towards all that ask it and, where that is what it does, towards all honest
    /// nodes.
    Hostile(NodeName, Behaviour),
    /// Something goes wrong with an actor of the node when it takes an input.
    ActorFault {
        /// Where.
        node: NodeName,
        /// Name of the actor's core, such as `sync-worker`.
        actor: String,
        /// The variant of the core's input, such as `BlocksFetched`.
        input: String,
        /// At which such input from now on; 1 is the next.
        nth: u32,
        /// Number of such inputs from there on.
        times: u32,
        /// What.
        fault: ActorFault,
    },
    /// Something goes wrong with the node's disk.
    DiskFault {
        /// Where.
        node: NodeName,
        /// When it does this.
        operation: DiskOperation,
        /// At which such operation from now on; 1 is the next.
        nth: u32,
        /// Number of such operations from there on.
        times: u32,
        /// What.
        fault: DiskFault,
    },
    /// From now on the archive has this fault, or none.
    Archive(Option<ArchiveFault>),
    /// Cancels the planned faults of the node's actors and its disk.
    Repair(NodeName),
    /// The node's operator changes its chosen peers, disconnects the first peer, and bans the second for a moment.
    ManagePeers {
        /// Where.
        node: NodeName,
        /// The peers. The second must not be an honest node: the simulation allows no ban of one.
        peers: [NodeName; 2],
    },
}

/// An operation of a disk. [`Event::DiskTime`] slows down all of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum DiskOperation {
    /// Writes commits.
    Apply,
    /// Any read.
    Read,
    /// Writes the address book.
    UpdatePeers,
    /// Flushes.
    Flush,
    /// Removes old commits.
    Prune,
}

/// A fault of the archive.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ArchiveFault {
    /// It refuses every operation.
    Unreachable,
    /// Each object that it serves has a changed bit.
    FlipsBytes,
    /// Each object that it serves has a wrong block, and a valid checksum.
    Lies,
}

/// A fault of a disk. The caller gets an error.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum DiskFault {
    /// Nothing is done.
    Error,
    /// Writes the first half, in whole commits; of one commit all.
    ShortWrite,
}

/// What goes wrong with an actor.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ActorFault {
    /// Its handler panics.
    Panic,
    /// It gives up with an error.
    Error,
    /// It does nothing for this long, and then handles the input.
    Delay(Duration),
    /// It does nothing ever more.
    Hang,
}

impl Event {
    /// The node that it happens to, if it is one.
    pub fn node(&self) -> Option<NodeName> {
        match self {
            Self::Crash(node)
            | Self::Restart(node)
            | Self::Shutdown(node)
            | Self::Repair(node)
            | Self::DiskFault { node, .. }
            | Self::DiskTime(node, _)
            | Self::ExecutionTime(node, _)
            | Self::ClockSkew(node, _)
            | Self::Hostile(node, _)
            | Self::ActorFault { node, .. }
            | Self::ManagePeers { node, .. } => Some(*node),
            Self::Partition(_) | Self::Heal | Self::Latency(_) | Self::LossPercent(_) | Self::Archive(_) => None,
        }
    }
}

impl fmt::Display for ActorFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Delay(time) => write!(f, "ActorFault::Delay({})", Time(*time)),
            other => write!(f, "ActorFault::{other:?}"),
        }
    }
}

/// Prints the call of [`Moment`](super::Moment) that makes the event.
impl fmt::Display for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Crash(node) => write!(f, "crash({node})"),
            Self::Restart(node) => write!(f, "restart({node})"),
            Self::Shutdown(node) => write!(f, "shutdown({node})"),
            Self::Repair(node) => write!(f, "repair({node})"),
            Self::ManagePeers { node, peers: [first, second] } => {
                write!(f, "manage_peers({node}, [{first}, {second}])")
            }
            Self::DiskFault { node, operation, nth, times, fault } => {
                write!(f, "disk_fault({node}, DiskOperation::{operation:?}, {nth}, {times}, DiskFault::{fault:?})")
            }
            Self::Partition(nodes) => {
                let nodes: Vec<_> = nodes.iter().map(ToString::to_string).collect();
                write!(f, "partition([{}])", nodes.join(", "))
            }
            Self::Heal => f.write_str("heal()"),
            Self::Archive(Some(fault)) => write!(f, "archive_fault(ArchiveFault::{fault:?})"),
            Self::Archive(None) => f.write_str("archive_works()"),
            Self::Latency(latency) => write!(f, "latency({}..{})", Time(latency.start), Time(latency.end)),
            Self::LossPercent(percent) => write!(f, "loss_percent({percent:?})"),
            Self::DiskTime(node, time) => write!(f, "disk_time({node}, {})", Time(*time)),
            Self::ExecutionTime(node, time) => write!(f, "execution_time({node}, {})", Time(*time)),
            Self::ClockSkew(node, milliseconds) => write!(f, "clock_skew({node}, {milliseconds})"),
            Self::Hostile(node, behaviour) => write!(f, "hostile({node}, Behaviour::{behaviour:?})"),
            Self::ActorFault { node, actor, input, nth, times, fault } => {
                let at = format!("{node}, {actor:?}, {input:?}, {nth}");
                match (times, fault) {
                    (1, ActorFault::Panic) => write!(f, "panic({at})"),
                    (1, ActorFault::Hang) => write!(f, "hang({at})"),
                    (1, fault) => write!(f, "actor_fault({at}, {fault})"),
                    (times, fault) => write!(f, "actor_faults({at}, {times}, {fault})"),
                }
            }
        }
    }
}
