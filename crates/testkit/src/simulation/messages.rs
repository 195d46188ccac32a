//! Messages of simulated nodes: what each publishes, and what it hears of the others.

use crate::simulation::names::NodeName;
use soma_p2p::{Handle, MessageEvent, MessageId, Topic};
use std::{cell::RefCell, collections::BTreeSet, time::Duration};
use tokio::time::{Instant, sleep};

/// The topics: one of each kind of spreading that a node takes part in without being a validator.
pub(super) const TOPICS: [Topic; 2] = [Topic::Certificates, Topic::Transactions];

/// What one node has published and heard, over all its processes.
#[derive(Default)]
pub(super) struct Messages {
    published: RefCell<Vec<(Instant, Topic, MessageId)>>,
    heard: RefCell<BTreeSet<MessageId>>,
}

impl Messages {
    /// Publishes a message of each topic in each interval, as long as the process lives.
    pub(super) async fn publish(&self, name: NodeName, handle: Handle, interval: Duration) {
        loop {
            sleep(interval).await;
            for topic in TOPICS {
                let number = self.published.borrow().len();
                let begun = Instant::now();
                let payload = format!("{topic} {number} of {name}").into_bytes();
                // Broadcast is being restarted otherwise.
                if let Ok(id) = handle.publish(topic, payload).await {
                    self.published.borrow_mut().push((begun, topic, id));
                }
            }
        }
    }

    /// Notes what the process hears of one topic.
    pub(super) async fn hear(&self, handle: Handle, topic: Topic) {
        let mut messages = handle.messages(topic);
        while let Some(event) = messages.next().await {
            if let MessageEvent::Message(message) = event {
                self.heard.borrow_mut().insert(message.id());
            }
        }
    }

    /// Messages of a topic that were published after this moment.
    pub(super) fn published_after(&self, moment: Instant, topic: Topic) -> Vec<MessageId> {
        let published = self.published.borrow();
        published.iter().filter(|(at, of, _)| *at >= moment && *of == topic).map(|(_, _, id)| *id).collect()
    }

    /// Whether it has heard this one.
    pub(super) fn has_heard(&self, id: MessageId) -> bool {
        self.heard.borrow().contains(&id)
    }
}
