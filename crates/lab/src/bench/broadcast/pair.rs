//! Two nodes, the validators of a committee of two: one sends, the other one hears.

use super::{
    super::{
        child::BenchNode,
        head_node,
        message_load::{Heard, Load, MessageWork, Sent},
        node_io::{Event, Role, Setup},
        session::Session,
        usage,
    },
    record::MessageRecord,
    throttle::{Link, Throttle},
};
use crate::localnet::process::loopback;
use soma_p2p::{Config, PeerId, SeedPeer, SigningKey, Topic};
use soma_p2p_cli::{CliError, files};
use soma_testkit::{ChainBuilder, ChainSpec};
use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
    thread,
    time::{Duration, Instant},
};

/// How long messages may be on their way after the last one was sent. Queues are empty long before.
const DRAIN: Duration = Duration::from_secs(2);

/// The key of a full node.
const FULL_NODE_KEY: [u8; 32] = [0xf0; 32];

/// What both ends tell.
pub(super) struct Exchange {
    steps: Vec<Vec<Load>>,
    sent: BTreeMap<u8, Sent>,
    heard: BTreeMap<u8, Heard>,
    /// Of the machine while messages were sent.
    machine_cpu_share: Option<f64>,
    /// Of processes that are not part of it.
    other_cpu_share: Option<f64>,
}

impl Exchange {
    /// The record of a load.
    pub(super) fn record(&self, case: &str, variant: &str, number: u8) -> Result<MessageRecord, CliError> {
        let missing = |what| CliError::failed(format!("{case}: load {number} was not {what}"));
        let mut loads = self.steps.iter().flatten();
        let load = loads.find(|load| load.number == number).ok_or_else(|| missing("planned"))?;
        let sent = self.sent.get(&number).ok_or_else(|| missing("sent"))?;
        // A load of which nothing has come is all lost.
        let nothing = Heard { number, ..Heard::default() };
        let heard = self.heard.get(&number).unwrap_or(&nothing);
        let record = MessageRecord::new(case, variant, load, Some(sent), heard, self.machine_cpu_share);
        Ok(record.beside_others(self.other_cpu_share))
    }
}

/// The members of the committee, the one with the smaller peer id first. It opens the streams.
fn members(builder: &ChainBuilder) -> [(SigningKey, SigningKey); 2] {
    let mut members = [0, 1].map(|index| (builder.network_key(index), builder.protocol_key(0, index)));
    members.sort_by_key(|(network_key, _)| PeerId::from(network_key));
    members
}

fn setup(dir: &Path, name: &str, keys: &(SigningKey, SigningKey), seed: Option<SeedPeer>) -> Setup {
    let mut config = Config::listening_on(loopback().into());
    config.seed_peers = seed.into_iter().collect();
    Setup {
        genesis: dir.join("genesis.bin"),
        store: dir.join(name),
        key: keys.0.to_bytes(),
        config,
        opaque: true,
        messages: MessageWork { protocol_key: Some(keys.1.to_bytes()), ..MessageWork::default() },
        role: Role::Serve,
    }
}

/// Who hears.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Hearing {
    /// The other validator. It passes messages of consensus on when it is asked, so it checks their signatures.
    Validator,
    /// A full node. It passes no message of consensus on, so it checks no signature of those that come from their
    /// author.
    FullNode,
}

/// Sends the loads from one validator to the other one.
pub(super) fn exchange(session: &Session, steps: Vec<Vec<Load>>) -> Result<Exchange, CliError> {
    exchange_over(session, steps, Hearing::Validator, None)
}

/// Sends the loads from one node to another one, over `link` if there is one, else as fast as loopback is.
pub(super) fn exchange_over(
    session: &Session,
    steps: Vec<Vec<Load>>,
    hearing: Hearing,
    link: Option<Link>,
) -> Result<Exchange, CliError> {
    let dir = tempfile::tempdir_in(session.work()).map_err(CliError::failed)?;
    let spec = ChainSpec { name: "bench-broadcast".into(), stakes: vec![1; 2], ..head_node::spec()? };
    let builder = ChainBuilder::new(spec).map_err(CliError::failed)?;
    files::replace(&dir.path().join("genesis.bin"), &builder.genesis().encode()).map_err(CliError::failed)?;
    let [hearing_keys, sending_keys] = members(&builder);
    let topics: BTreeSet<Topic> = steps.iter().flatten().map(|load| load.topic).collect();

    let mut sending_setup = setup(dir.path(), "sending", &sending_keys, None);
    sending_setup.messages.spread.clone_from(&steps);
    sending_setup.config.broadcast.relay_consensus = hearing == Hearing::FullNode;
    let mut sending = BenchNode::start(session, "sending", &sending_setup)?;
    let mut seed = sending.ready(session)?;
    let throttle = link.map(|link| Throttle::start(&seed.address, link)).transpose()?;
    if let Some(throttle) = &throttle {
        seed.address = throttle.address().clone();
    }
    let mut hearing_setup = setup(dir.path(), "hearing", &hearing_keys, Some(seed));
    hearing_setup.messages.hear = topics.into_iter().collect();
    if hearing == Hearing::FullNode {
        (hearing_setup.key, hearing_setup.messages.protocol_key) = (FULL_NODE_KEY, None);
    }
    let mut hearing = BenchNode::start(session, "hearing", &hearing_setup)?;
    hearing.ready(session)?;
    let exchange = collect(session, steps, sending, hearing);
    drop(throttle);
    exchange
}

/// Waits until everything is sent, and asks both for their sums.
pub(super) fn collect(
    session: &Session,
    steps: Vec<Vec<Load>>,
    mut sending: BenchNode,
    mut hearing: BenchNode,
) -> Result<Exchange, CliError> {
    let deadline = Instant::now() + Duration::from_secs(session.args.timeout);
    let (machine, started) = (usage::machine_cpu_s(), Instant::now());
    let mut sent = BTreeMap::new();
    loop {
        match sending.next(session, deadline)? {
            Event::Sent(load) => drop(sent.insert(load.number, load)),
            Event::AllSent => break,
            other => return Err(CliError::failed(format!("the sending node says {other:?}"))),
        }
    }
    // With the pauses before and between the loads, which are short.
    let cpu_s = || machine.and_then(|before| Some(usage::machine_cpu_s()? - before));
    let share = |cpu_s: f64| cpu_s / started.elapsed().as_secs_f64() / usage::cores() as f64;
    let machine_cpu_share = cpu_s().map(share);
    thread::sleep(DRAIN);
    let heard = stop_hearing(session, &mut hearing)?;
    sending.ask_to_stop();
    let nodes_cpu_s = hearing.stop(session)?.cpu_s + sending.stop(session)?.cpu_s;
    let other_cpu_share = cpu_s().map(|cpu_s| share((cpu_s - nodes_cpu_s).max(0.0)));
    Ok(Exchange { steps, sent, heard, machine_cpu_share, other_cpu_share })
}

fn stop_hearing(session: &Session, hearing: &mut BenchNode) -> Result<BTreeMap<u8, Heard>, CliError> {
    hearing.ask_to_stop();
    let deadline = Instant::now() + Duration::from_secs(session.args.timeout);
    loop {
        if let Event::Heard { loads } = hearing.next(session, deadline)? {
            return Ok(loads.into_iter().map(|load| (load.number, load)).collect());
        }
    }
}
