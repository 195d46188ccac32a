//! What is counted while a simulation runs.

use super::{behaviour::Behaviour, event::Time};
use soma_protocol::broadcast::Effect;
use soma_types::Fault;
use std::collections::{BTreeMap, BTreeSet};

/// Broken promises that are kept in words.
const MAX_BROKEN: usize = 20;

/// Counters.
#[derive(Default)]
pub(super) struct Figures {
    pub(super) warm_up: Phase,
    pub(super) measured: Phase,
    pub(super) drain: Phase,
    /// The longest queue of a stream, in bytes, by topic.
    pub(super) longest_queue: [u64; 3],
    /// Reports about hostile nodes, by what these did and what they were blamed for.
    pub(super) penalties: BTreeMap<(Behaviour, &'static str), u64>,
    pub(super) wrong_penalties: u64,
    /// Equivocations that honest nodes reported: the node, and the first message.
    pub(super) equivocations: BTreeSet<(usize, u32)>,
    pub(super) left: u64,
    pub(super) broken_links: u64,
    pub(super) events: u64,
    pub(super) broken: Vec<String>,
    pub(super) broken_count: u64,
    pub(super) digest: u64,
}

/// What honest nodes received in one phase.
#[derive(Clone, Copy, Default)]
pub(super) struct Phase {
    pub(super) bytes: u64,
    pub(super) payload_bytes: u64,
    pub(super) messages: u64,
    pub(super) duplicates: u64,
    pub(super) ids: u64,
    pub(super) deliveries: u64,
    pub(super) delivered_bytes: u64,
}

impl Figures {
    /// A promise of the core does not hold.
    pub(super) fn broken(&mut self, what: String) {
        self.broken_count += 1;
        if self.broken.len() < MAX_BROKEN {
            self.broken.push(what);
        }
    }

    pub(super) fn penalty(&mut self, behaviour: Behaviour, fault: Fault) {
        *self.penalties.entry((behaviour, fault.name())).or_default() += 1;
    }

    /// Mixes what a node does into the digest of the run.
    pub(super) fn note(&mut self, now: Time, node: usize, effects: &[Effect]) {
        if effects.is_empty() {
            return;
        }
        let mut digest = self.digest ^ now ^ ((node as u64) << 40);
        for effect in effects {
            let (kind, amount) = match effect {
                Effect::Open { stream, .. } => (1, stream.0),
                Effect::Close { stream } => (2, stream.0),
                Effect::Send { stream, messages, control } => {
                    (3, stream.0 + (((messages.len() + control.have.len()) as u64) << 32))
                }
                Effect::Check { messages, .. } => (4, messages.len() as u64),
                Effect::Taken { frame } => (5, *frame),
                Effect::Deliver { messages, .. } => (6, messages.len() as u64),
                Effect::Equivocation { .. } => (7, 0),
                Effect::Forget { messages } => (8, messages.len() as u64),
                Effect::Report { .. } => (9, 0),
            };
            digest = (digest ^ kind ^ (amount << 4)).wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(23);
        }
        self.digest = digest;
    }
}
