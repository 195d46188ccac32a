//! How frames leave a node: part by part, an urgent topic first.

use super::{
    event::{End, Event, StreamId, Time},
    frame::Frame,
    stream::{REPORT_AFTER, Stream},
    uplink::Upload,
    world::World,
};
use soma_protocol::broadcast::Input;

/// Bytes after which a more urgent topic takes over: a DATA frame of HTTP/2.
const PART: u64 = 16 << 10;

impl World {
    /// Puts a frame into a node's queue.
    pub(super) fn upload(&mut self, stream: StreamId, end: End, frame: Frame) {
        let from = &mut self.streams[stream].ends[usize::from(end)];
        let node = from.node;
        if !from.stalled.is_empty() {
            from.stalled.push_back(frame);
            return;
        }
        self.enqueue(stream, end, frame);
        self.upload_next(node);
    }

    fn enqueue(&mut self, stream: StreamId, end: End, frame: Frame) {
        let topic = self.streams[stream].topic as usize;
        let node = self.streams[stream].ends[usize::from(end)].node;
        let left = frame.bytes;
        if let Some(process) = &mut self.topology.nodes[node].process {
            process.uplink.queues[topic].push_back(Upload { stream, end, frame, left });
        }
    }

    /// Starts the next part, unless one is on the wire.
    fn upload_next(&mut self, node: usize) {
        let Some(process) = &mut self.topology.nodes[node].process else { return };
        if process.uplink.busy.is_some() {
            return;
        }
        for (topic, queue) in process.uplink.queues.iter_mut().enumerate() {
            while let Some(next) = queue.pop_front() {
                let stream = &mut self.streams[next.stream];
                if !stream.can_send(next.end) {
                    continue;
                }
                let from = &mut stream.ends[usize::from(next.end)];
                if next.left == next.frame.bytes && from.credit <= 0 {
                    from.stalled.push_back(next.frame);
                    continue;
                }
                let bytes = next.left.min(PART);
                queue.push_front(next);
                process.uplink.busy = Some((topic, bytes));
                let at = self.now + bytes * 8_000_000_000 / self.settings.upload;
                let incarnation = process.incarnation;
                self.events.put(at, Event::Uploaded { node, incarnation });
                return;
            }
        }
    }

    /// A part is through.
    pub(super) fn uploaded(&mut self, node: usize) {
        let Some(process) = &mut self.topology.nodes[node].process else { return };
        let Some((topic, bytes)) = process.uplink.busy.take() else { return };
        let queue = &mut process.uplink.queues[topic];
        if let Some(first) = queue.front_mut() {
            first.left -= bytes;
        }
        let is_whole = queue.front().is_some_and(|first| first.left == 0);
        let whole = if is_whole { queue.pop_front() } else { None };
        self.upload_next(node);
        if let Some(Upload { stream: id, end, frame, .. }) = whole {
            self.sent(id, end, frame);
        }
    }

    fn sent(&mut self, id: StreamId, end: End, frame: Frame) {
        let stream = &mut self.streams[id];
        if !stream.can_send(end) {
            return;
        }
        let (bytes, counted) = (frame.bytes, frame.counted);
        let from = &mut stream.ends[usize::from(end)];
        from.credit -= bytes as i64;
        let node = from.node;
        from.queued -= counted;
        // A stream is in the list from its first unreported byte on, until the next heartbeat.
        let is_first = from.unreported == 0 && counted > 0;
        from.unreported += counted;
        let from_unreported = from.unreported;
        let at: Time = self.now + self.topology.links[stream.link].delay;
        self.events.put(at, Event::Arrive { stream: id, end: Stream::other(end), frame: Box::new(frame) });
        if from_unreported >= REPORT_AFTER {
            self.report_written(node, id, end);
        } else if is_first && let Some(process) = self.process(node) {
            process.unreported.push((id, end));
        }
    }

    /// Tells the core what is written of all streams.
    pub(super) fn report_all_written(&mut self, node: usize) {
        let unreported = self.process(node).map(|process| std::mem::take(&mut process.unreported));
        for (stream, end) in unreported.into_iter().flatten() {
            self.report_written(node, stream, end);
        }
    }

    fn report_written(&mut self, node: usize, stream: StreamId, end: End) {
        let from = &mut self.streams[stream].ends[usize::from(end)];
        let bytes = std::mem::take(&mut from.unreported);
        if let Some(stream) = from.key.filter(|_| bytes > 0) {
            self.tell(node, Input::Written { stream, bytes });
        }
    }

    /// More bytes may be sent: frames that waited for that go on.
    pub(super) fn credited(&mut self, id: StreamId, end: End, bytes: u64) {
        let stream = &mut self.streams[id];
        if !stream.can_send(end) {
            return;
        }
        let from = &mut stream.ends[usize::from(end)];
        from.credit += bytes as i64;
        let node = from.node;
        for frame in std::mem::take(&mut from.stalled) {
            self.enqueue(id, end, frame);
        }
        self.upload_next(node);
    }
}
