//! What a benchmark of messages sends, and what is known of it at either end: shared by nodes of this project and those
//! of libp2p.

use super::percentile::percentile;
use rustix::time::{ClockId, clock_gettime};
use serde::{Deserialize, Serialize};
use soma_p2p::Topic;
use std::collections::BTreeMap;

/// Bytes of a payload that say which message it is and when it was sent.
const HEADER_BYTES: usize = 24;

/// The number of messages that are sent before anything is measured.
pub(crate) const WARM_UP: u8 = u8::MAX;

/// Messages between two looks at the CPU time of the receiving process: one look costs less than a microsecond.
const CPU_EVERY: u64 = 128;

/// Messages that a node sends.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(crate) struct Load {
    /// Its number, below [`WARM_UP`].
    pub(crate) number: u8,
    /// Its topic.
    pub(crate) topic: Topic,
    /// Bytes of each payload.
    pub(crate) payload_bytes: usize,
    /// How many messages. A load with a rate ends earlier, with the last load of its step that has none.
    pub(crate) messages: u32,
    /// Messages in a second. None: as fast as possible.
    pub(crate) per_second: Option<u32>,
    /// Whether they are signed before the node is ready, as messages of other authors are. Only the first of each
    /// batch then carries a time.
    pub(crate) signed_ahead: bool,
}

/// What a node has to do with messages.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct MessageWork {
    /// The secret half of the validator's protocol key.
    pub(crate) protocol_key: Option<[u8; 32]>,
    /// Topics that it listens to.
    pub(crate) hear: Vec<Topic>,
    /// Whether it sends as soon as there is a stream, without a warm-up.
    pub(crate) at_once: bool,
    /// What it sends: the loads of one step at the same time, the steps one after the other.
    pub(crate) spread: Vec<Vec<Load>>,
}

/// The job of a node of libp2p.
#[cfg(feature = "gossipsub")]
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct GossipsubSetup {
    /// The secret half of its key.
    pub(crate) key: [u8; 32],
    /// The TCP port of the other node on loopback.
    pub(crate) dial: Option<u16>,
    /// What it sends, one after the other. A node that sends nothing listens.
    pub(crate) spread: Vec<Load>,
}

/// A load as its sender knows it.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(crate) struct Sent {
    /// The load's number.
    pub(crate) number: u8,
    /// Messages.
    pub(crate) messages: u32,
    /// When the first one was sent, on the clock that all processes of a machine share.
    pub(crate) first_ns: u64,
    /// When the last one was.
    pub(crate) last_ns: u64,
    /// CPU seconds that the process has used from the first message until its queues were empty.
    pub(crate) cpu_s: f64,
}

/// A load as a receiver knows it.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Heard {
    /// The load's number.
    pub(crate) number: u8,
    /// Different messages.
    pub(crate) messages: u32,
    /// Messages that came a second time.
    pub(crate) again: u32,
    /// Messages with lower numbers than one that came, which did not come.
    pub(crate) missing: u32,
    /// Messages of the topic that this process was too slow for.
    pub(crate) gaps: u64,
    /// When the first one came.
    pub(crate) first_ns: u64,
    /// When the last one came.
    pub(crate) last_ns: u64,
    /// CPU seconds that the process has used for so many of them.
    pub(crate) cpu: (f64, u64),
    /// Latencies of the messages that carry a time.
    pub(crate) latency: Latency,
}

/// How long messages took.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Latency {
    /// Messages with a time.
    pub(crate) timed: usize,
    /// None, if there were none.
    pub(crate) p50_ms: Option<f64>,
    pub(crate) p90_ms: Option<f64>,
    pub(crate) p99_ms: Option<f64>,
    pub(crate) max_ms: Option<f64>,
}

/// The time of `CLOCK_MONOTONIC`: all processes share it, and no program can set it.
pub(crate) fn now_ns() -> u64 {
    let now = clock_gettime(ClockId::Monotonic);
    now.tv_sec as u64 * 1_000_000_000 + now.tv_nsec as u64
}

/// The payload of a message. A message that is sent later than it is made carries the time 0.
pub(crate) fn payload(load: u8, message: u32, at_ns: u64, bytes: usize) -> Vec<u8> {
    let mut payload = vec![0; bytes.max(HEADER_BYTES)];
    payload[0] = load;
    payload[8..16].copy_from_slice(&u64::from(message).to_le_bytes());
    payload[16..24].copy_from_slice(&at_ns.to_le_bytes());
    payload
}

fn read(payload: &[u8]) -> Option<(u8, u32, u64)> {
    let (load, rest) = payload.split_first()?;
    let message = u64::from_le_bytes(rest.get(7..15)?.try_into().ok()?);
    let at_ns = u64::from_le_bytes(rest.get(15..23)?.try_into().ok()?);
    Some((*load, u32::try_from(message).ok()?, at_ns))
}

/// Counts what comes of one topic.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    loads: BTreeMap<u8, LoadTally>,
    /// The load of the last message.
    last: u8,
    /// Gaps before the first one.
    gaps: u64,
}

#[derive(Debug, Default)]
struct LoadTally {
    /// A bit for each message.
    seen: Vec<u64>,
    messages: u32,
    again: u32,
    gaps: u64,
    times: Option<(u64, u64)>,
    /// CPU of the process, and messages by then: at the first look and at the last one.
    cpu: Option<[(f64, u64); 2]>,
    latencies_ms: Vec<f64>,
}

impl Tally {
    /// A message has come. `cpu_s` tells the CPU time of the process.
    pub(crate) fn heard(&mut self, payload: &[u8], now_ns: u64, cpu_s: impl FnOnce() -> f64) {
        let Some((number, message, at_ns)) = read(payload) else { return };
        if number == WARM_UP {
            return;
        }
        self.last = number;
        let load = self.loads.entry(number).or_default();
        load.gaps += std::mem::take(&mut self.gaps);
        if !load.is_first(message) {
            load.again += 1;
            return;
        }
        load.messages += 1;
        let first_ns = load.times.map_or(now_ns, |(first, _)| first);
        load.times = Some((first_ns, now_ns));
        if at_ns > 0 {
            load.latencies_ms.push(now_ns.saturating_sub(at_ns) as f64 / 1e6);
        }
        let count = u64::from(load.messages);
        if count % CPU_EVERY == 1 {
            let look = (cpu_s(), count);
            load.cpu = Some([load.cpu.map_or(look, |[first, _]| first), look]);
        }
    }

    /// This process was too slow for so many messages.
    pub(crate) fn missed(&mut self, messages: u64) {
        match self.loads.get_mut(&self.last) {
            Some(load) => load.gaps += messages,
            None => self.gaps += messages,
        }
    }

    /// The sums, of every load.
    pub(crate) fn sums(&self) -> Vec<Heard> {
        self.loads.iter().map(|(number, load)| load.sum(*number)).collect()
    }
}

impl LoadTally {
    fn is_first(&mut self, message: u32) -> bool {
        let (word, bit) = (message as usize / 64, 1 << (message % 64));
        if self.seen.len() <= word {
            self.seen.resize(word + 1, 0);
        }
        let is_first = self.seen[word] & bit == 0;
        self.seen[word] |= bit;
        is_first
    }

    fn sum(&self, number: u8) -> Heard {
        let highest = self.seen.last().map_or(0, |word| self.seen.len() * 64 - word.leading_zeros() as usize);
        let (first_ns, last_ns) = self.times.unwrap_or_default();
        let cpu = self.cpu.map_or((0.0, 0), |[first, last]| (last.0 - first.0, last.1 - first.1));
        Heard {
            number,
            messages: self.messages,
            again: self.again,
            missing: highest as u32 - self.messages,
            gaps: self.gaps,
            first_ns,
            last_ns,
            cpu,
            latency: Latency::of(self.latencies_ms.clone()),
        }
    }
}

impl Latency {
    fn of(mut latencies_ms: Vec<f64>) -> Self {
        latencies_ms.sort_by(f64::total_cmp);
        let part = |percent| (!latencies_ms.is_empty()).then(|| percentile(&latencies_ms, percent));
        Self { timed: latencies_ms.len(), p50_ms: part(50), p90_ms: part(90), p99_ms: part(99), max_ms: part(100) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tally_counts_each_message_once_and_tells_what_is_missing() {
        let mut tally = Tally::default();
        tally.missed(3);
        for (message, now_ns) in [(0, 1_000_000), (1, 2_000_000), (1, 3_000_000), (70, 5_000_000)] {
            tally.heard(&payload(7, message, 500_000, 512), now_ns, || 1.0);
        }
        tally.heard(&payload(WARM_UP, 0, 0, 512), 9_000_000, || 1.0);
        tally.heard(b"of another kind", 9_000_000, || 1.0);
        tally.missed(2);
        let [heard] = tally.sums()[..] else { panic!("one load") };
        assert_eq!((heard.number, heard.messages, heard.again, heard.missing, heard.gaps), (7, 3, 1, 68, 5));
        assert_eq!((heard.first_ns, heard.last_ns), (1_000_000, 5_000_000));
        assert_eq!((heard.latency.p50_ms, heard.latency.max_ms), (Some(1.5), Some(4.5)));
    }

    #[test]
    fn messages_without_a_time_have_no_latency() {
        let mut tally = Tally::default();
        for message in 0..257 {
            tally.heard(&payload(0, message, 0, 64), 1, || f64::from(message));
        }
        let heard = tally.sums()[0];
        assert_eq!((heard.latency.timed, heard.latency.p50_ms), (0, None));
        assert_eq!(heard.cpu, (256.0, 256));
    }
}
