//! How long a message takes from one node to another one.

use super::{
    super::{chain_cache::ChainCache, message_load::Load, session::Session},
    Kind,
    pair::exchange,
    record::MessageRecord,
};
use soma_p2p::Topic;
use soma_p2p_cli::CliError;

pub(super) const KIND: Kind = Kind { cases, run };

const TOPICS: [Topic; 2] = [Topic::Consensus, Topic::Certificates];

/// Messages in a second.
const RATE: u32 = 1_000;

const GOAL: &str = "p50 < 1 ms, p99 < 5 ms, 0 lost";

fn name(topic: Topic) -> String {
    format!("broadcast/hop/{topic}")
}

fn cases(_: bool) -> Vec<String> {
    TOPICS.map(name).into()
}

/// Messages of 1 KiB, 1,000 a second.
pub(super) fn load(topic: Topic, quick: bool) -> Load {
    let seconds = if quick { 3 } else { 10 };
    Load {
        number: 0,
        topic,
        payload_bytes: 1 << 10,
        messages: seconds * RATE,
        per_second: Some(RATE),
        signed_ahead: false,
    }
}

/// A hop of a message of this topic.
pub(super) fn measure(session: &Session, case: &str, topic: Topic) -> Result<MessageRecord, CliError> {
    let load = load(topic, session.args.quick);
    let exchange = exchange(session, vec![vec![load]])?;
    Ok(exchange.record(case, "1 KiB, 1,000/s", load.number)?.with_goal(GOAL))
}

fn run(session: &Session, _: &mut ChainCache, case: &str) -> Result<Vec<MessageRecord>, CliError> {
    let topics = TOPICS.into_iter().filter(|topic| name(*topic) == case);
    topics.map(|topic| measure(session, case, topic)).collect()
}
