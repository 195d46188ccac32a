//! Messages of the node that embeds this, and those of others.

use crate::{
    handle::Handle,
    publishing::{PublishError, Publishing},
    shared::Shared,
};
use bytes::Bytes;
use futures::Stream;
use soma_actors::broadcast::{
    Publisher,
    messages::{FollowMessages, MessageEvent, MessageQueue, MessageReader, Publish},
};
use soma_runtime::Mailbox;
use soma_types::{Author, Message, MessageId, SignedMessage, Topic};
use std::{
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

/// How long to wait for a Broadcast that is being restarted before it is asked again.
const ASK_AGAIN: Duration = Duration::from_millis(50);

impl Handle {
    /// Signs a message and spreads it: to every validator (`consensus`), or to all nodes. Other nodes deliver it once
    /// their [`MessageValidator`](crate::MessageValidator) accepts it. It is not delivered to this node itself.
    ///
    /// The author is this validator if the node has been given a protocol key of the present committee, else this
    /// peer. Returns when the message is in the queues to peers, and waits while all of them are full.
    ///
    /// # Errors
    ///
    /// The message was not spread. [`PublishError`] says why.
    pub async fn publish(&self, topic: Topic, payload: impl Into<Bytes>) -> Result<MessageId, PublishError> {
        let message = self.sign(topic, payload.into())?;
        let id = message.id();
        self.publish_signed(vec![message]).await?;
        Ok(id)
    }

    /// Spreads messages that are signed already: by their author elsewhere, or by [`sign`](Self::sign). Their
    /// signatures are not checked here. A wrong one makes peers ban this node.
    ///
    /// # Errors
    ///
    /// No message was spread. [`PublishError`] says why.
    pub async fn publish_signed(&self, messages: Vec<SignedMessage>) -> Result<(), PublishError> {
        let publishing = self.publishing()?;
        for message in &messages {
            publishing.check_size(message.message().topic, message.message().payload.len())?;
        }
        let mut mailbox = publishing.publish.clone();
        mailbox.ask(|reply| Publish { messages, reply }).await.map_err(|_| PublishError::Unavailable)
    }

    /// Signs a message as [`publish`](Self::publish) does, and does not spread it.
    ///
    /// # Errors
    ///
    /// The message cannot be spread now. [`PublishError`] says why.
    pub fn sign(&self, topic: Topic, payload: Bytes) -> Result<SignedMessage, PublishError> {
        let publishing = self.publishing()?;
        publishing.check_size(topic, payload.len())?;
        let Publisher { epoch, authority } = (*publishing.publisher.borrow()).ok_or(PublishError::Unavailable)?;
        let (author, key) = match authority.and_then(|(index, key)| Some((index, publishing.protocol_keys.get(key)?))) {
            Some((index, key)) => (Author::Authority(index), key),
            None if topic == Topic::Consensus => return Err(PublishError::NotValidator { epoch }),
            None => (Author::Peer(self.peer_id()), &*publishing.network_key),
        };
        Ok(Message { topic, epoch, author, payload }.sign(self.chain_id(), key))
    }

    /// Accepted messages of other nodes, from now on.
    ///
    /// No actor waits for a slow reader. A reader with 32,768 unread messages, or 32 MiB of them, gets a
    /// [`MessageEvent::Gap`] in the place of those that it missed. The stream ends with the system; it is empty if
    /// `broadcast.enabled` is off.
    pub fn messages(&self, topic: Topic) -> Messages {
        Messages::start(&self.shared, topic)
    }

    fn publishing(&self) -> Result<&Publishing, PublishError> {
        self.shared.publishing.as_ref().ok_or(PublishError::Disabled)
    }
}

/// Messages of one topic, in the order in which they were accepted.
///
/// A [`Stream`], and an iterator of sorts for threads outside any runtime.
#[derive(Debug)]
pub struct Messages {
    reader: MessageReader,
}

impl Messages {
    fn start(shared: &Arc<Shared>, topic: Topic) -> Self {
        let (queue, reader) = MessageQueue::new();
        if let Some(publishing) = &shared.publishing {
            let (follow, closing) = (publishing.follow.clone(), shared.closing.clone());
            shared.io.detach(async move {
                let closed = queue.clone();
                tokio::select! {
                    biased;
                    () = closing.cancelled() => {}
                    () = closed.closed() => {}
                    () = keep_following(follow, topic, queue) => {}
                }
            });
        }
        Self { reader }
    }

    /// The next event; `None` when the system has stopped.
    pub async fn next(&mut self) -> Option<MessageEvent> {
        self.reader.next().await
    }

    /// The next event, for threads outside any async runtime. Panics inside one, as blocking there would.
    pub fn blocking_next(&mut self) -> Option<MessageEvent> {
        self.reader.blocking_next()
    }
}

impl Stream for Messages {
    type Item = MessageEvent;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<MessageEvent>> {
        self.reader.poll_next(context)
    }
}

/// Gives the queue to one Broadcast after the other.
async fn keep_following(mut follow: Mailbox<FollowMessages>, topic: Topic, queue: MessageQueue) {
    let mut was_followed = false;
    loop {
        if was_followed {
            // Whatever spreads now is missing.
            queue.push(MessageEvent::Gap { missed: 0 });
        }
        let given = queue.clone();
        match follow.ask_one(|reply| FollowMessages { topic, queue: given, reply }).await {
            Ok(((), life)) => {
                life.ended().await;
                was_followed = true;
            }
            Err(_) => {
                was_followed = false;
                tokio::time::sleep(ASK_AGAIN).await;
            }
        }
    }
}
