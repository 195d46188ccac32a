//! What urgent messages suffer from a flood of less urgent ones.
//!
//! Two variants: the flood takes all that the cores give, and the flood takes all of a link of 50 Mbit/s with 20 ms one
//! way, which leaves the cores idle.

use super::{
    super::{chain_cache::ChainCache, message_load::Load, session::Session},
    Kind,
    pair::{Hearing, exchange_over},
    record::MessageRecord,
    throttle::Link,
};
use soma_p2p::Topic;
use soma_p2p_cli::CliError;
use std::time::Duration;

pub(super) const KIND: Kind = Kind { cases, run };

const CPU: &str = "broadcast/flood/cpu";
const LINK: &str = "broadcast/flood/link";

/// As between nodes of the simulations.
const SLOW: Link = Link { bytes_per_second: 50_000_000 / 8, delay: Duration::from_millis(20) };

/// Messages of consensus in a second.
const RATE: u32 = 100;

/// Their time without a flood, in seconds.
const ALONE_SECONDS: u32 = 10;

fn cases(quick: bool) -> Vec<String> {
    if quick { Vec::new() } else { vec![CPU.into(), LINK.into()] }
}

fn run(session: &Session, _: &mut ChainCache, case: &str) -> Result<Vec<MessageRecord>, CliError> {
    // About ten seconds each.
    let (link, transactions) = if case == LINK { (Some(SLOW), 80_000) } else { (None, 500_000) };
    let urgent = |number, messages| Load {
        number,
        topic: Topic::Consensus,
        payload_bytes: 1 << 10,
        messages,
        per_second: Some(RATE),
        signed_ahead: false,
    };
    let flood = Load {
        number: 2,
        topic: Topic::Transactions,
        payload_bytes: 512,
        messages: transactions,
        per_second: None,
        signed_ahead: true,
    };
    // The second load of consensus ends with the flood.
    let steps = vec![vec![urgent(0, ALONE_SECONDS * RATE)], vec![urgent(1, u32::MAX), flood]];
    let exchange = exchange_over(session, steps, Hearing::Validator, link)?;
    let alone = exchange.record(case, "consensus alone", 0)?;
    let mut beside = exchange.record(case, "consensus beside the flood", 1)?.with_goal("p99 grows by less than 2");
    if let (Some(before), Some(now)) = (alone.p99_ms, beside.p99_ms) {
        beside = beside.with_ratio("p99 to alone", now / before);
    }
    let flood = exchange.record(case, "flood of transactions", 2)?;
    Ok(vec![alone, beside, flood])
}
