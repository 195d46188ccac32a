//! The invariants of every run.

use std::fmt;

/// Something that must hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Invariant {
    /// The executor is given exactly the chain's commits, once each, in order.
    ExecutedInOrder,
    /// Nothing reaches executor, operators or peers before it is durable.
    DurableBeforeTold,
    /// A commit is pruned only once the executor has taken it, and the archive has it if the node writes one.
    PrunedIsNotNeeded,
    /// Bytes in flight, workers, calls, permits and connections stay within their limits.
    WithinLimits,
    /// An honest peer is never banned.
    HonestPeersAreNotBanned,
    /// No actor ends but by a planned fault, no check panics, no write fails but on a disk that was made to.
    NothingFailsUnplanned,
    /// A system gives up when a scenario says so, for the reason that it says, and otherwise never.
    GivesUpOnlyAsPlanned,
    /// A node without a fault stops in order in time, and of one that has stopped no actor and no connection is left.
    NothingIsLeft,
    /// Actors never keep each other busy without a pause.
    TimePasses,
    /// A commit of a node's own consensus is taken sooner or later.
    LocalCommitsAreTaken,
    /// Every core decides the same in a replay of its recorded inputs.
    ReplayIsIdentical,
    /// When faults have stopped every honest node reaches the head in time.
    EveryoneReachesTheHead,
    /// When faults have stopped every actor of every honest node lives again in time.
    EveryActorIsBack,
    /// When faults have stopped everyone is connected to everyone in time.
    EveryoneIsConnected,
    /// When faults have stopped every honest node hears the messages of every other in time.
    EveryoneIsHeard,
    /// When faults have stopped every honest node gets objects of every honest peer in time.
    EveryoneIsServed,
}

impl fmt::Display for Invariant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::ExecutedInOrder => "the executor is given exactly the chain's commits, once each, in order",
            Self::DurableBeforeTold => "nothing is told before it is durable",
            Self::PrunedIsNotNeeded => "what is pruned is executed, and archived if the node writes an archive",
            Self::WithinLimits => "everything stays within its limits",
            Self::HonestPeersAreNotBanned => "an honest peer is never banned",
            Self::NothingFailsUnplanned => "nothing fails that was not made to",
            Self::GivesUpOnlyAsPlanned => "a system gives up as planned and otherwise never",
            Self::NothingIsLeft => "nothing is left of a node that has stopped",
            Self::TimePasses => "actors never keep each other busy without a pause",
            Self::LocalCommitsAreTaken => "a commit of a node's own consensus is taken",
            Self::ReplayIsIdentical => "every core decides the same when it is fed again",
            Self::EveryoneReachesTheHead => "when faults have stopped every honest node reaches the head in time",
            Self::EveryActorIsBack => "when faults have stopped every actor lives again in time",
            Self::EveryoneIsConnected => "when faults have stopped everyone is connected to everyone in time",
            Self::EveryoneIsHeard => "when faults have stopped every honest node hears every other in time",
            Self::EveryoneIsServed => {
                "when faults have stopped every honest node gets objects of every honest peer in time"
            }
        })
    }
}
