//! One node: its core while it is up, and the state of its shell.

use super::{
    behaviour::Behaviour,
    event::{End, StreamId, Time},
    flags::HELD,
    settings::Settings,
    uplink::Uplink,
};
use soma_protocol::broadcast::{Broadcast, Config, StreamKey};
use soma_types::{Epoch, PeerId};
use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

/// Bytes of the payload of a message that a node accepts.
pub(super) const MAX_MESSAGE_BYTES: u32 = 1 << 20;

/// One simulated node.
pub(super) struct Node {
    pub(super) peer: PeerId,
    /// What it does if it is hostile.
    pub(super) behaviour: Option<Behaviour>,
    /// Its link to each other node.
    pub(super) links: BTreeMap<usize, usize>,
    /// The epoch in which it takes part.
    pub(super) epoch: Epoch,
    pub(super) starts: u32,
    /// None: it is down.
    pub(super) process: Option<Process>,
}

/// What a node loses when it leaves.
pub(super) struct Process {
    pub(super) incarnation: u32,
    pub(super) since: Time,
    pub(super) core: Broadcast,
    /// When the timer fires.
    pub(super) wake: Option<Time>,
    pub(super) uplink: Uplink,
    /// Streams with bytes that are written, of which the core has not heard.
    pub(super) unreported: Vec<(StreamId, End)>,
    /// Links of which the core knows.
    pub(super) connected: BTreeSet<usize>,
    /// Streams that this node opened (even keys) and that others opened (odd keys), each by half of its key.
    pub(super) keys: [Vec<Option<(StreamId, End)>>; 2],
    /// Frames that the core has not taken.
    pub(super) untaken: BTreeMap<u64, (StreamId, End)>,
    pub(super) last_frame: u64,
    /// When each thread is free that checks messages.
    pub(super) threads: Vec<Time>,
    /// What the node knows of each message, by the message's number.
    pub(super) messages: Vec<u8>,
}

impl Process {
    pub(super) fn new(node: &Node, settings: &Settings, seed: u64, now: Time) -> Self {
        let config = Config {
            own: node.peer,
            seed,
            relays_consensus: settings.relays_consensus,
            max_message_bytes: MAX_MESSAGE_BYTES,
            history: Duration::from_secs(30),
            history_bytes: 64 << 20,
        };
        Self {
            incarnation: node.starts,
            since: now,
            core: Broadcast::new(config),
            wake: None,
            uplink: Uplink::default(),
            unreported: Vec::new(),
            connected: BTreeSet::new(),
            keys: Default::default(),
            untaken: BTreeMap::new(),
            last_frame: 0,
            threads: vec![0; settings.check_threads.max(1)],
            messages: Vec::new(),
        }
    }

    pub(super) fn stream(&self, key: StreamKey) -> Option<(StreamId, End)> {
        *self.keys[(key.0 % 2) as usize].get((key.0 / 2) as usize)?
    }

    pub(super) fn name_stream(&mut self, key: StreamKey, stream: (StreamId, End)) {
        let keys = &mut self.keys[(key.0 % 2) as usize];
        let place = (key.0 / 2) as usize;
        if keys.len() <= place {
            keys.resize(place + 1, None);
        }
        keys[place] = Some(stream);
    }

    /// The number of the next stream that a peer opens.
    pub(super) fn next_key(&self) -> StreamKey {
        StreamKey(self.keys[1].len() as u64 * 2 + 1)
    }

    pub(super) fn knows(&self, message: u32) -> u8 {
        self.messages.get(message as usize).copied().unwrap_or(0)
    }

    pub(super) fn note(&mut self, message: u32, flags: u8) {
        let place = message as usize;
        if self.messages.len() <= place {
            self.messages.resize(place + 1, 0);
        }
        self.messages[place] |= flags;
    }

    pub(super) fn forget(&mut self, message: u32) {
        if let Some(flags) = self.messages.get_mut(message as usize) {
            *flags &= !HELD;
        }
    }

    /// Messages whose bytes the shell has.
    pub(super) fn held(&self) -> usize {
        self.messages.iter().filter(|flags| *flags & HELD != 0).count()
    }
}
