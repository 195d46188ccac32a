//! Connections: which peers this node dials, which it admits, and which are connected.
//!
//! ```text
//!   Dial --> waiting --> dial --> Link:  registry, Connected ... Lost      (outbound.rs, failed_addresses.rs)
//!                             \-> Probe: handed to Discovery, which ends it
//!   Inbound --> admitted, in another's place if there is no room, or refused (inbound.rs)
//! ```
//!
//! A connection has a direction: its maker asks over it. A peer may have an outbound link (we ask over it) and
//! inbound connections (it asks us); the two live and die independently, so two nodes that dial each other at once end
//! with one link each way and neither is a duplicate of the other. Always:
//! - At most one dial or link for a peer, and one dial waiting for each purpose; at most [`Config::max_dials`] dials.
//!   Besides trusted peers at most [`Config::max_outbound`] links, [`Config::max_outbound_per_group`] of them to one
//!   network that is not near by, and [`Config::max_waiting_dials`] dials that wait.
//! - A probe is a dial and never a link: it counts as a dial only, and only Discovery hears of it.
//! - An address that failed is left alone for a pause that doubles; a banned or denied peer is neither dialled nor
//!   let in.
//! - Inbound has its own limit, in all, for each peer and for each source address, so neither side can take the other's
//!   slots. Only trusted peers go beyond the one in all.
//! - Trusted are the allowlist and the validators of the current committee: their number is bounded, so they need no
//!   other bound, and no newcomer takes their place.

mod failed_addresses;
mod inbound;
mod interface;
mod outbound;
mod stalls;

pub use interface::{
    BannedPeer, Config, ConnectionEnd, DialFailure, DialPurpose, Effect, Endpoint, InboundEnd, Input, LinkId, Snapshot,
};

use crate::{
    chosen_peers::ChosenPeers,
    core::{Core, LostReason, Now},
};
use failed_addresses::FailedAddresses;
use inbound::InboundTable;
pub use outbound::most_dials;
use outbound::{Links, Waiting};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use serde::{Deserialize, Serialize};
use soma_types::{Fault, PeerId, TimestampMs};
use stalls::Stalls;
use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

/// Maximum remembered bans. Beyond it, the ban that ends first is forgotten.
const MAX_BANS: usize = 4_096;

/// Bytes of the reason of a ban that are kept.
const MAX_BAN_REASON_BYTES: usize = 256;

/// A ban.
#[derive(Serialize, Deserialize)]
struct KeptOut {
    until: Duration,
    /// The same for people, in milliseconds since 1970.
    until_ms: TimestampMs,
    reason: String,
}

impl KeptOut {
    fn snapshot(&self, peer: PeerId) -> BannedPeer {
        BannedPeer { peer, until_ms: self.until_ms, reason: self.reason.clone() }
    }
}

/// The core of Connections.
#[derive(Serialize, Deserialize)]
pub struct Connections {
    config: Config,
    rng: ChaCha8Rng,
    validators: BTreeSet<PeerId>,
    links: Links,
    waiting: Waiting,
    inbound: InboundTable,
    failed_addresses: FailedAddresses,
    banned: BTreeMap<PeerId, KeptOut>,
    stalls: Stalls,
    last_now: Duration,
}

impl Connections {
    /// Starts without connections, and without a committee.
    pub fn new(config: Config) -> Self {
        let mut rng = ChaCha8Rng::seed_from_u64(config.seed);
        Self {
            inbound: InboundTable::new(rng.random()),
            rng,
            config,
            validators: BTreeSet::new(),
            links: Links::default(),
            waiting: Waiting::default(),
            failed_addresses: FailedAddresses::default(),
            banned: BTreeMap::new(),
            stalls: Stalls::default(),
            last_now: Duration::ZERO,
        }
    }

    fn is_trusted(&self, peer: PeerId) -> bool {
        self.config.allowlist.contains(&peer) || self.validators.contains(&peer)
    }

    /// Why the peer must stay out, if it must.
    fn kept_out(&self, now: Now, peer: PeerId) -> Option<DialFailure> {
        if self.config.denylist.contains(&peer) {
            return Some(DialFailure::Denied);
        }
        self.banned.get(&peer).is_some_and(|ban| ban.until > now.monotonic).then_some(DialFailure::Banned)
    }

    /// A peer that floods a connection proves itself hostile, whichever of the two made it.
    fn on_flooded(&self, peer: PeerId, end: ConnectionEnd, effects: &mut Vec<Effect>) {
        if end == ConnectionEnd::Flooded {
            let reason = "it flooded its connection with HTTP/2 frames".into();
            effects.push(Effect::Report { peer, fault: Fault::Malformed, reason });
        }
    }

    fn on_ban(&mut self, peer: PeerId, ban: KeptOut, effects: &mut Vec<Effect>) {
        if self.banned.len() >= MAX_BANS
            && let Some(first) = self.banned.iter().min_by_key(|(_, ban)| ban.until).map(|(peer, _)| *peer)
        {
            self.banned.remove(&first);
        }
        self.banned.insert(peer, ban);
        self.refuse_waiting(peer, effects);
        self.end_connections(peer, LostReason::Banned, InboundEnd::Banned, effects);
    }

    /// Ends the link to the peer, and every connection that the peer made.
    fn end_connections(&mut self, peer: PeerId, lost: LostReason, end: InboundEnd, effects: &mut Vec<Effect>) {
        self.end_link(peer, lost, effects);
        for connection in self.inbound.remove_peer(peer) {
            effects.push(Effect::HangUpInbound { connection, reason: end });
        }
    }

    /// A peer that is no longer trusted keeps its connections, as a validator of the last committee does.
    fn on_chosen_peers(&mut self, chosen: &ChosenPeers, effects: &mut Vec<Effect>) {
        let before = self.trusted();
        self.config = self.config.clone().with_chosen_peers(chosen);
        self.favour_newly_trusted(&before, effects);
    }

    /// The allowlist and the validators.
    fn trusted(&self) -> BTreeSet<PeerId> {
        self.config.allowlist.union(&self.validators).copied().collect()
    }
}

impl Core for Connections {
    type Input = Input;
    type Effect = Effect;
    type Snapshot = Snapshot;

    const NAME: &'static str = "connections";

    fn handle(&mut self, now: Now, input: Input) -> Vec<Effect> {
        self.last_now = now.monotonic;
        let mut effects = Vec::new();
        match input {
            Input::Wake => self.banned.retain(|_, ban| ban.until > now.monotonic),
            Input::Dial { peer, addresses, purpose } => self.on_dial(now, peer, addresses, purpose, &mut effects),
            Input::Dialled { link, peer, result, failed } => {
                self.on_dialled(now, link, peer, result, failed, &mut effects);
            }
            Input::LinkClosed { link, peer, end } => {
                self.on_flooded(peer, end, &mut effects);
                self.on_link_closed(now, link, peer, &mut effects);
            }
            Input::Inbound { connection, peer, source } => {
                self.on_inbound(now, connection, peer, source, &mut effects);
            }
            Input::InboundClosed { connection, end } => self.on_inbound_closed(now, connection, end, &mut effects),
            Input::Ban { peer, duration, mut reason } => {
                let end = (0..=MAX_BAN_REASON_BYTES).rev().find(|end| reason.is_char_boundary(*end)).unwrap_or(0);
                reason.truncate(end);
                let milliseconds = u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
                let until_ms = now.unix_ms.saturating_add(milliseconds);
                let ban = KeptOut { until: now.monotonic.saturating_add(duration), until_ms, reason };
                self.on_ban(peer, ban, &mut effects);
            }
            Input::Committee { validators } => self.on_committee(validators, &mut effects),
            Input::Useful { peers } => self.on_useful(now, peers, &mut effects),
            Input::WhoIsConnected { subscriber } => {
                effects.push(Effect::TellConnected { subscriber, peers: self.links.connected().collect() });
            }
            Input::ChosenPeers(chosen) => self.on_chosen_peers(&chosen, &mut effects),
            Input::Disconnect { peer } => {
                self.end_connections(peer, LostReason::Disconnected, InboundEnd::Disconnected, &mut effects);
            }
            Input::Unban { peer } => drop(self.banned.remove(&peer)),
        }
        self.start_dials(now, &mut effects);
        effects
    }

    fn wake() -> Option<Input> {
        Some(Input::Wake)
    }

    fn next_wake(&self) -> Option<Duration> {
        let late = self.links.late_at().filter(|_| !self.waiting.is_empty());
        self.banned.values().map(|ban| ban.until).chain(late).filter(|at| *at > self.last_now).min()
    }

    fn snapshot(&self) -> Snapshot {
        Snapshot {
            outbound: self.links.connected().collect(),
            inbound: self.inbound.peers().collect(),
            dialling: self.links.dials(),
            banned: self.banned.iter().map(|(peer, ban)| ban.snapshot(*peer)).collect(),
            trusted: self.trusted().into_iter().collect(),
        }
    }
}

#[cfg(test)]
mod tests;
