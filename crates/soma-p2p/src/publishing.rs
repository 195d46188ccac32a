//! How a handle reaches Broadcast, and why a message is not published.

use soma_actors::broadcast::{
    Publisher,
    messages::{FollowMessages, Publish},
};
use soma_runtime::Mailbox;
use soma_types::{Epoch, SigningKey, Topic, limits::MAX_MESSAGE_BYTES};
use std::sync::Arc;
use tokio::sync::watch;

/// How a handle reaches Broadcast.
pub(crate) struct Publishing {
    pub(crate) publish: Mailbox<Publish>,
    pub(crate) follow: Mailbox<FollowMessages>,
    pub(crate) publisher: watch::Receiver<Option<Publisher>>,
    /// Signs messages of this peer.
    pub(crate) network_key: Arc<SigningKey>,
    /// Sign messages of this validator.
    pub(crate) protocol_keys: Vec<SigningKey>,
    /// Of the topics after `consensus`.
    pub(crate) max_message_bytes: usize,
}

/// Why a message was not published.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PublishError {
    /// The configuration has `broadcast.enabled = false`.
    #[error("this node does not spread messages: set broadcast.enabled")]
    Disabled,
    /// The message has too many bytes.
    #[error("a message of the topic {topic} has at most {limit} bytes, and this one {bytes}")]
    TooLarge {
        /// Its topic.
        topic: Topic,
        /// Bytes of its payload.
        bytes: usize,
        /// The limit.
        limit: usize,
    },
    /// Only validators have a say in the consensus.
    #[error(
        "this node is no validator of epoch {epoch}, or has not been given its protocol key (Builder::protocol_key)"
    )]
    NotValidator {
        /// The present epoch.
        epoch: Epoch,
    },
    /// The system starts, restarts Broadcast, or has stopped.
    #[error("messages cannot be spread now: Broadcast is being restarted or was stopped")]
    Unavailable,
}

impl Publishing {
    pub(crate) fn check_size(&self, topic: Topic, bytes: usize) -> Result<(), PublishError> {
        let limit = if topic == Topic::Consensus { MAX_MESSAGE_BYTES } else { self.max_message_bytes };
        if bytes > limit { Err(PublishError::TooLarge { topic, bytes, limit }) } else { Ok(()) }
    }
}
