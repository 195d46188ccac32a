//! What Broadcast is told, and what it has its shell do.

use crate::core::PeerEvent;
use serde::{Deserialize, Serialize};
pub use soma_types::MessageVerdict;
use soma_types::{Author, Epoch, Fault, MessageId, PeerId, Topic};
use std::{collections::BTreeMap, time::Duration};
use strum::VariantNames;

/// One stream of one topic to one peer. The core numbers the streams that it opens 2, 4, 6 and so on. The shell numbers
/// those that peers open 1, 3, 5 and so on, and uses no number twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct StreamKey(pub u64);

/// How Broadcast works.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Config {
    /// This node.
    pub own: PeerId,
    /// Of every random choice.
    pub seed: u64,
    /// Whether this node sends messages of the topic `consensus` on to full nodes.
    pub relays_consensus: bool,
    /// Bytes of the payload of one message of the topics `certificates` and `transactions` that this node accepts.
    pub max_message_bytes: u32,
    /// For how long ids are known and messages can be asked for.
    pub history: Duration,
    /// Bytes of messages that are kept for others to ask for, of each topic.
    pub history_bytes: u64,
}

impl Config {
    /// The usual settings of a node.
    pub fn new(own: PeerId, seed: u64) -> Self {
        Self {
            own,
            seed,
            relays_consensus: false,
            max_message_bytes: 256 << 10,
            history: Duration::from_secs(30),
            history_bytes: 16 << 20,
        }
    }
}

/// What a core knows of a message. The shell has its bytes, under its id.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MessageInfo {
    /// The id.
    pub id: MessageId,
    /// The author.
    pub author: Author,
    /// The epoch.
    pub epoch: Epoch,
    /// Bytes of the payload.
    pub bytes: u32,
}

/// What one frame has besides messages.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Control {
    /// Messages that the sender has.
    pub have: Vec<MessageId>,
    /// Messages that the sender asks for.
    pub want: Vec<MessageId>,
    /// Large messages that the sender has, or is about to get.
    pub do_not_send: Vec<MessageId>,
    /// Authors whose messages the receiver is to send at once.
    pub graft: Vec<Author>,
    /// Authors of whose messages the receiver is to send ids only.
    pub prune: Vec<Author>,
}

impl Control {
    /// Whether there is nothing in it.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

/// What can happen to Broadcast.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, VariantNames)]
pub enum Input {
    /// From the shell: the time asked for has come.
    Wake,
    /// From Connections: a link was made, or is lost.
    Peer(PeerEvent),
    /// From StateSync, when it starts and at each handover: the committee of the next commit's epoch.
    Committee {
        /// The epoch.
        epoch: Epoch,
        /// Network keys of its members, by their index.
        validators: Vec<PeerId>,
        /// Whether this node can sign for its member.
        is_validator: bool,
    },
    /// From the shell: a stream that this node asked for, or that the peer opened, is ready. Both hellos are exchanged.
    Opened {
        /// The stream.
        stream: StreamKey,
        /// The peer.
        peer: PeerId,
        /// The topic.
        topic: Topic,
        /// Whether this node opened it.
        by_us: bool,
        /// Bytes of the payload of one message that the peer accepts.
        max_message_bytes: u32,
    },
    /// From the shell: a stream has ended, or could not be opened.
    Closed {
        /// The stream.
        stream: StreamKey,
        /// What the peer did wrong, if it did.
        fault: Option<Fault>,
        /// Whether the peer does not know the call: it is not asked again on this link.
        is_unsupported: bool,
    },
    /// From the shell: so many bytes of effects [`Effect::Send`] have been handed to the network.
    Written {
        /// The stream.
        stream: StreamKey,
        /// Bytes, counted as [`frame_bytes`].
        bytes: u64,
    },
    /// From the handle: this node has made a message. It is signed and valid.
    Publish {
        /// The topic.
        topic: Topic,
        /// The message.
        message: MessageInfo,
    },
    /// From the shell: a frame has arrived. Its form is right.
    Received {
        /// The stream.
        stream: StreamKey,
        /// The frame, under which the shell waits for [`Effect::Taken`] before it reads the next ones.
        frame: u64,
        /// Its messages.
        messages: Vec<MessageInfo>,
        /// The rest of it.
        control: Control,
    },
    /// From the Verifier: the result of [`Effect::Check`].
    Checked {
        /// The check.
        check: u64,
        /// A verdict for each message, in the order of the effect. `None` if the check failed: the Verifier was
        /// restarted, or refused it, or the embedder's validator panicked.
        verdicts: Option<Vec<MessageVerdict>>,
    },
}

/// What the shell is to do.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Effect {
    /// Open a stream to a peer that this node has a link to.
    Open {
        /// The number that it gets.
        stream: StreamKey,
        /// The peer.
        peer: PeerId,
        /// The topic.
        topic: Topic,
    },
    /// End a stream. Nothing of it follows.
    Close {
        /// The stream.
        stream: StreamKey,
    },
    /// Put messages and control into the queue of a stream, in this order.
    Send {
        /// The stream.
        stream: StreamKey,
        /// Messages, by their ids.
        messages: Vec<MessageId>,
        /// The rest of the frame.
        control: Control,
    },
    /// Check messages on the Verifier's pool.
    Check {
        /// The check.
        check: u64,
        /// The topic.
        topic: Topic,
        /// The messages.
        messages: Vec<MessageId>,
        /// Whether their signatures are checked. They are not if the author itself has sent the message over its own
        /// connection, and nobody gets it from this node.
        signatures: bool,
    },
    /// The core has decided about every message of the frame: read on.
    Taken {
        /// The frame.
        frame: u64,
    },
    /// Hand messages to the embedder.
    Deliver {
        /// The topic.
        topic: Topic,
        /// The messages, in order.
        messages: Vec<MessageId>,
    },
    /// Hand the embedder two messages with which an author contradicts itself.
    Equivocation {
        /// The topic.
        topic: Topic,
        /// The first message, which was delivered.
        first: MessageId,
        /// The second one, which is not delivered.
        second: MessageId,
    },
    /// Drop the bytes of these messages: nobody asks for them any more. A message is not dropped before it is in the
    /// queues of its streams.
    Forget {
        /// The messages.
        messages: Vec<MessageId>,
    },
    /// Tell PeerHeights what a peer did, if it bans; note it otherwise.
    Report {
        /// The peer.
        peer: PeerId,
        /// The fault.
        fault: Fault,
        /// Why, for logs and the status.
        reason: String,
    },
}

/// Bytes that a frame counts in the queue of a stream.
pub fn frame_bytes(payloads: u64, messages: usize, control: &Control) -> u64 {
    let ids = control.have.len() + control.want.len() + control.do_not_send.len();
    let authors = control.graft.len() + control.prune.len();
    payloads + 128 * messages as u64 + 32 * ids as u64 + 40 * authors as u64
}

/// Broadcast as operators see it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Snapshot {
    /// Each topic.
    pub topics: BTreeMap<Topic, TopicSnapshot>,
    /// The epoch whose messages are valid.
    pub epoch: Epoch,
    /// Validators from which no consensus message has come for a while: index and for how long. Only in a validator.
    pub silent_validators: Vec<(u32, Duration)>,
    /// Authors that equivocated in this epoch and the last one.
    pub equivocations: u64,
}

/// One topic as operators see it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TopicSnapshot {
    /// Peers with a stream.
    pub peers: usize,
    /// Peers that send their messages to this node at once, for at least one author.
    pub eager_peers: usize,
    /// Messages published by this node.
    pub published: u64,
    /// Messages delivered to the embedder.
    pub delivered: u64,
    /// Messages that came again.
    pub duplicates: u64,
    /// Messages that were rejected.
    pub rejected: u64,
    /// Messages that were ignored: of another epoch, or of no use.
    pub ignored: u64,
    /// Messages that came only after they had been asked for.
    pub recovered: u64,
    /// Messages that a slow peer lost.
    pub dropped: u64,
    /// Messages that are kept for others.
    pub kept: usize,
    /// Bytes of them.
    pub kept_bytes: u64,
    /// Messages on the Verifier's pool.
    pub checking: usize,
    /// The peer with the longest queue, and its bytes.
    pub slowest_peer: Option<(PeerId, u64)>,
}
