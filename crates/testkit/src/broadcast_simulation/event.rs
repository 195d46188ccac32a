//! The events of the simulation, and their queue.

use super::frame::Frame;
use std::{cmp::Reverse, collections::BinaryHeap, time::Duration};

/// Nanoseconds since the start of the simulation.
pub(super) type Time = u64;

pub(super) fn nanos(duration: Duration) -> Time {
    duration.as_nanos() as Time
}

/// One of the two ends of a link or a stream: 0 or 1.
pub(super) type End = u8;

/// A stream, at both of its ends. Never used again.
pub(super) type StreamId = usize;

/// What happens.
pub(super) enum Event {
    /// A node starts.
    Start { node: usize },
    /// A node takes part in the next epoch.
    Handover { node: usize, epoch: u64 },
    /// A core's timer fires.
    Wake { node: usize, incarnation: u32 },
    /// A dial succeeds.
    Connect { link: usize, generation: u32 },
    /// The end of a link that dialled learns of the connection.
    Connected { link: usize, generation: u32, end: End },
    /// An end of a link notices that it is broken.
    Lost { link: usize, end: End, streams: Vec<StreamId> },
    /// The hello of a new stream arrives.
    Offered { stream: StreamId },
    /// The answer to it arrives.
    Ready { stream: StreamId },
    /// An end learns that the other end has ended the stream.
    Ended { stream: StreamId, end: End },
    /// A node has uploaded a part of a frame.
    Uploaded { node: usize, incarnation: u32 },
    /// A frame arrives at an end.
    Arrive { stream: StreamId, end: End, frame: Box<Frame> },
    /// An end may send more bytes.
    Credit { stream: StreamId, end: End, bytes: u64 },
    /// A check is done.
    Checked { node: usize, incarnation: u32, check: u64, messages: Vec<u32> },
    /// The next message of a load is published.
    Publish { load: usize },
    /// Every node that was up must have the message by now.
    Review { message: u32 },
    /// A hostile node takes its turn.
    Attack { node: usize },
    /// A node leaves.
    Leave,
    /// A link breaks.
    Break,
    /// Measuring begins.
    Measure,
    /// Measuring ends, and with it all loads.
    Finish,
}

/// When an event happens, and where it is. The queue moves these around and leaves the events where they are.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Entry {
    at: Time,
    number: u64,
    place: u32,
}

/// Events in the order of their times; those of one time in the order in which they were put in.
#[derive(Default)]
pub(super) struct Queue {
    heap: BinaryHeap<Reverse<Entry>>,
    events: Vec<Option<Event>>,
    free: Vec<u32>,
    last: u64,
}

impl Queue {
    pub(super) fn put(&mut self, at: Time, event: Event) {
        self.last += 1;
        let place = self.free.pop().unwrap_or_else(|| {
            self.events.push(None);
            self.events.len() as u32 - 1
        });
        self.events[place as usize] = Some(event);
        self.heap.push(Reverse(Entry { at, number: self.last, place }));
    }

    /// The next event, if it happens until `until`.
    pub(super) fn next(&mut self, until: Time) -> Option<(Time, Event)> {
        if self.heap.peek()?.0.at > until {
            return None;
        }
        let Entry { at, place, .. } = self.heap.pop()?.0;
        self.free.push(place);
        self.events[place as usize].take().map(|event| (at, event))
    }
}
