//! This project and libp2p's gossipsub on the same work, one after the other: messages of 512 bytes as fast as possible,
//! and 1,000 of 1 KiB in a second. Both sign each message when it is published, and check each signature.

use super::{
    super::{
        chain_cache::ChainCache,
        child::BenchNode,
        message_load::{GossipsubSetup, Load},
        session::Session,
    },
    Kind, hop, link,
    pair::{Exchange, collect, exchange},
    record::MessageRecord,
};
use soma_p2p::Topic;
use soma_p2p_cli::CliError;

pub(super) const KIND: Kind = Kind { cases, run };

const CASE: &str = "broadcast/gossipsub";

const COMMAND: &str = "bench-gossipsub-node";

const GOAL: &str = "faster than gossipsub";

/// The topic with the same work: its signatures are checked.
const TOPIC: Topic = Topic::Certificates;

fn cases(quick: bool) -> Vec<String> {
    if quick { Vec::new() } else { vec![CASE.into()] }
}

fn run(session: &Session, _: &mut ChainCache, case: &str) -> Result<Vec<MessageRecord>, CliError> {
    let small = Load { signed_ahead: false, ..link::load(TOPIC, session.args.quick) };
    let large = Load { number: 1, ..hop::load(TOPIC, session.args.quick) };
    let ours = |load: Load| exchange(session, vec![vec![load]]);
    let (our_small, our_large) = (ours(small)?, ours(large)?);
    let theirs = gossipsub(session, vec![small, large])?;

    let record = |exchange: &Exchange, load: &Load, variant| exchange.record(case, variant, load.number);
    let their_link = record(&theirs, &small, "gossipsub: 512 bytes, signed and checked")?.of_gossipsub();
    let our_link = record(&our_small, &small, "512 bytes, signed and checked")?;
    let speed = our_link.per_s / their_link.per_s;
    let our_link = our_link.with_ratio("messages/s to gossipsub", speed).with_goal(GOAL);
    let their_hop = record(&theirs, &large, "gossipsub: 1 KiB, 1,000/s")?.of_gossipsub();
    let mut our_hop = record(&our_large, &large, "1 KiB, 1,000/s")?;
    if let (Some(ours), Some(theirs)) = (our_hop.p50_ms(), their_hop.p50_ms()) {
        our_hop = our_hop.with_ratio("speed by p50 to gossipsub", theirs / ours).with_goal(GOAL);
    }
    Ok(vec![our_link, their_link, our_hop, their_hop])
}

fn gossipsub(session: &Session, loads: Vec<Load>) -> Result<Exchange, CliError> {
    let start = |name: &str, setup: &GossipsubSetup| BenchNode::start_command(session, name, COMMAND, setup);
    let sending_setup = GossipsubSetup { key: [1; 32], dial: None, spread: loads.clone() };
    let mut sending = start("gossipsub-sending", &sending_setup)?;
    let port = sending.ready(session)?.address.host_and_port().1;
    let mut hearing =
        start("gossipsub-hearing", &GossipsubSetup { key: [2; 32], dial: Some(port), spread: Vec::new() })?;
    hearing.ready(session)?;
    collect(session, loads.into_iter().map(|load| vec![load]).collect(), sending, hearing)
}
