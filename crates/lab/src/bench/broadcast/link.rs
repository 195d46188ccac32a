//! How many small messages go over one link.
//!
//! The hearing node checks no signature of `consensus` messages here: their author has sent them over its own
//! connection. It checks those of `certificates`. Messages are signed before the clock starts, as a node sends on
//! mostly what others have signed.

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

fn name(topic: Topic) -> String {
    format!("broadcast/link/{topic}")
}

fn cases(_: bool) -> Vec<String> {
    TOPICS.map(name).into()
}

/// Messages of 512 bytes for about five seconds at the speed that is the goal, or one second.
pub(super) fn load(topic: Topic, quick: bool) -> Load {
    let messages = match topic {
        Topic::Consensus => 1_000_000,
        Topic::Certificates | Topic::Transactions => 300_000,
    };
    Load {
        number: 0,
        topic,
        payload_bytes: 512,
        messages: if quick { messages / 5 } else { messages },
        per_second: None,
        signed_ahead: true,
    }
}

fn run(session: &Session, _: &mut ChainCache, case: &str) -> Result<Vec<MessageRecord>, CliError> {
    let topics = TOPICS.into_iter().filter(|topic| name(*topic) == case);
    let measure = |topic| {
        let load = load(topic, session.args.quick);
        let exchange = exchange(session, vec![vec![load]], None)?;
        let (variant, goal) = match topic {
            Topic::Consensus => ("512 bytes, no check of signatures", "200,000/s, 0 lost"),
            Topic::Certificates | Topic::Transactions => ("512 bytes, signatures checked", "60,000/s, 0 lost"),
        };
        Ok(exchange.record(case, variant, load.number)?.with_goal(goal))
    };
    topics.map(measure).collect()
}
