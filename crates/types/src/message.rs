//! Messages that spread among nodes before there is a commit: proposals, votes, certificates, transactions.

use crate::{AuthorityIndex, ChainId, Epoch, Intent, MessageId, PeerId, Scope, Signature, SigningKey};
use bytes::Bytes;
use serde::{Deserialize, Serialize};
use std::fmt;

/// Bytes that the id covers before the payload: topic, epoch, and a peer as author.
const MAX_HEAD_BYTES: usize = 1 + 8 + 1 + 32;

/// Longest payload that is copied to be hashed beside others. A longer one fills the lanes of the processor alone.
const MAX_SIDE_BY_SIDE_BYTES: usize = 8 << 10;

/// What a message is about, from the most urgent to the least. A slow peer loses the last topic first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Topic {
    /// Proposals and votes: from each validator directly to all others.
    Consensus,
    /// Certificates and votes for them: to all nodes.
    Certificates,
    /// Transactions: to all nodes.
    Transactions,
}

impl Topic {
    /// Every topic, the most urgent first.
    pub const ALL: [Self; 3] = [Self::Consensus, Self::Certificates, Self::Transactions];

    /// The topic's name in settings, metrics and logs.
    pub fn name(self) -> &'static str {
        match self {
            Self::Consensus => "consensus",
            Self::Certificates => "certificates",
            Self::Transactions => "transactions",
        }
    }

    /// The topic's number in digests and on the wire.
    pub fn number(self) -> u8 {
        match self {
            Self::Consensus => 1,
            Self::Certificates => 2,
            Self::Transactions => 3,
        }
    }

    /// The topic with this number.
    pub fn from_number(number: u8) -> Option<Self> {
        Self::ALL.into_iter().find(|topic| topic.number() == number)
    }
}

impl fmt::Display for Topic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// The author of a message, who signs it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Author {
    /// A member of the committee of the message's epoch. Signs with its protocol key.
    Authority(AuthorityIndex),
    /// Any node. Signs with its network key.
    Peer(PeerId),
}

impl fmt::Display for Author {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Authority(index) => write!(f, "validator {index}"),
            Self::Peer(peer) => write!(f, "peer {}", peer.short()),
        }
    }
}

/// A message without its signature.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message {
    /// What it is about.
    pub topic: Topic,
    /// The epoch in which it has a meaning.
    pub epoch: Epoch,
    /// The author.
    pub author: Author,
    /// The content, which only the embedder understands.
    pub payload: Bytes,
}

impl Message {
    /// The message's id: the digest of topic, epoch, author and payload.
    pub fn id(&self) -> MessageId {
        let mut head = Vec::with_capacity(MAX_HEAD_BYTES);
        self.write_head(&mut head);
        MessageId::of(&[&head, &self.payload])
    }

    /// Writes what the id covers before the payload.
    fn write_head(&self, bytes: &mut Vec<u8>) {
        bytes.push(self.topic.number());
        bytes.extend_from_slice(&self.epoch.to_le_bytes());
        match &self.author {
            Author::Authority(index) => {
                bytes.push(0);
                bytes.extend_from_slice(&index.to_le_bytes());
            }
            Author::Peer(peer) => {
                bytes.push(1);
                bytes.extend_from_slice(&peer.0);
            }
        }
    }

    /// Signs the message for `chain`. `key` is the author's.
    pub fn sign(self, chain: ChainId, key: &SigningKey) -> SignedMessage {
        let id = self.id();
        let signature = Intent { scope: Scope::Message, chain }.sign(key, &id.0);
        SignedMessage { id, message: self, signature }
    }
}

/// A message with its id and its author's signature. It proves only the form: `soma-verify` checks the signature.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SignedMessage {
    id: MessageId,
    message: Message,
    signature: Signature,
}

impl SignedMessage {
    /// A received message. Hashes it.
    pub fn new(message: Message, signature: Signature) -> Self {
        Self { id: message.id(), message, signature }
    }

    /// Received messages, in order. Hashes the short ones side by side, which takes a fraction of the time.
    pub fn new_each(messages: Vec<(Message, Signature)>) -> Vec<Self> {
        let is_short = |message: &Message| message.payload.len() <= MAX_SIDE_BY_SIDE_BYTES;
        let short = || messages.iter().map(|(message, _)| message).filter(|message| is_short(message));
        let bytes = short().map(|message| MAX_HEAD_BYTES + message.payload.len()).sum();
        let (mut contents, mut ends) = (Vec::with_capacity(bytes), Vec::with_capacity(messages.len()));
        for message in short() {
            message.write_head(&mut contents);
            contents.extend_from_slice(&message.payload);
            ends.push(contents.len());
        }
        let mut begin = 0;
        let slice = |end: usize| &contents[std::mem::replace(&mut begin, end)..end];
        let slices: Vec<_> = ends.into_iter().map(slice).collect();
        let mut ids = MessageId::of_each(&slices).into_iter();
        let each = messages.into_iter().map(|(message, signature)| {
            let id = if is_short(&message) { ids.next() } else { None };
            Self { id: id.unwrap_or_else(|| message.id()), message, signature }
        });
        each.collect()
    }

    /// The message's id.
    pub fn id(&self) -> MessageId {
        self.id
    }

    /// The message.
    pub fn message(&self) -> &Message {
        &self.message
    }

    /// The message without its id and signature.
    pub fn into_message(self) -> Message {
        self.message
    }

    /// The author's signature on the id.
    pub fn signature(&self) -> &Signature {
        &self.signature
    }
}

/// What the embedder and the check of the signature say of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum MessageVerdict {
    /// It is right: it is delivered, and sent on.
    Accept {
        /// What the author may fill once in an epoch, for example the round of a proposal. Two accepted messages of one
        /// author, topic, epoch and slot show that the author equivocates.
        slot: Option<u64>,
    },
    /// It is of no use now. It is not sent on, and is nobody's fault.
    Ignore,
    /// It is wrong: its signature, or its content. It counts against the peer that sent it.
    Reject,
}
