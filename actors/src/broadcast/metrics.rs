//! What Broadcast counts.

use metrics::{counter, gauge};
use soma_types::Topic;

/// Messages are in the queues of streams.
pub(crate) fn sent(topic: Topic, messages: usize) {
    counter!("soma_messages_sent_total", "topic" => topic.name()).increment(messages as u64);
}

/// Messages are accepted.
pub(crate) fn delivered(topic: Topic, messages: usize) {
    counter!("soma_messages_delivered_total", "topic" => topic.name()).increment(messages as u64);
}

/// A reader was too slow for a message.
pub(crate) fn missed(topic: Topic) {
    counter!("soma_messages_missed_total", "topic" => topic.name()).increment(1);
}

/// An author contradicts itself.
pub(crate) fn equivocation(topic: Topic) {
    counter!("soma_equivocations_total", "topic" => topic.name()).increment(1);
}

/// Validators from which nothing has come for a while.
pub(crate) fn silent_validators(validators: usize) {
    gauge!("soma_silent_validators").set(validators as f64);
}
