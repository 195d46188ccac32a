//! How many small messages go over one link.
//!
//! A full node checks no signature of a `consensus` message that its author has sent over its own connection. A
//! validator does, as it passes the message on when others ask. `certificates` are always checked. Messages are signed
//! before the clock starts, as a node sends on mostly what others have signed.

use super::{
    super::{chain_cache::ChainCache, message_load::Load, session::Session},
    Kind,
    pair::{Hearing, exchange_over},
    record::MessageRecord,
};
use soma_p2p::Topic;
use soma_p2p_cli::CliError;

pub(super) const KIND: Kind = Kind { cases, run };

/// Case, topic, who hears, what is special about it, and the goal.
type Case = (&'static str, Topic, Hearing, &'static str, &'static str);

const CASES: [Case; 3] = [
    (
        "broadcast/link/unchecked",
        Topic::Consensus,
        Hearing::FullNode,
        "512 bytes, signatures not checked",
        "200,000/s, 0 lost",
    ),
    ("broadcast/link/consensus", Topic::Consensus, Hearing::Validator, "512 bytes, signatures checked", CHECKED),
    ("broadcast/link/certificates", Topic::Certificates, Hearing::Validator, "512 bytes, signatures checked", CHECKED),
];

const CHECKED: &str = "60,000/s, 0 lost";

fn cases(_: bool) -> Vec<String> {
    CASES.map(|(name, ..)| name.into()).into()
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
    let measure = |(_, topic, hearing, variant, goal): Case| {
        let load = load(topic, session.args.quick);
        let exchange = exchange_over(session, vec![vec![load]], hearing, None)?;
        Ok(exchange.record(case, variant, load.number)?.with_goal(goal))
    };
    CASES.into_iter().filter(|(name, ..)| *name == case).map(measure).collect()
}
