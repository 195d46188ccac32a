//! The shell: asks peers for their heights, tells them ours, keeps the addresses of answers.

use crate::connections::Links;
use crate::connections::messages::{Ban, ChosenPeersChanged, GetConnected, PeerChanged, Unban, Useful};
use crate::peer_heights::messages::{BanPeer, OwnHeight, Pick, Pushed, Report, UnbanPeer};
use crate::peer_heights::metrics;
use crate::peer_heights::push_times::PushTimes;
use crate::state_sync::messages::Target;
use crate::store_writer::messages::{PeerList, UpdatePeers};
use actix::{Actor, Context, Handler};
use bytes::Bytes;
use soma_network::wire::{Availability, Call, CallError};
use soma_protocol::{
    Core,
    peer_heights::Outcome,
    peer_heights::{Config, Effect, Input, NoPeer, PeerHeights as PeerHeightsCore, Snapshot, Standing},
};
use soma_runtime::{
    CoreHost, Envelope, ExitReason, IoTasks, Keyed, OrderedSender, Reply, RuntimeContext, Shell, acknowledge, forward,
    observe, stop_at_once,
};
use soma_types::{ChainId, CommitIndex, Fault, PeerFailure, PeerId, codec};
use std::time::Duration;

/// What became of a call.
type Answered<R> = Result<Result<R, CallError>, ExitReason>;

/// How peers are called.
#[derive(Clone, Debug)]
pub struct Settings {
    /// This node's chain.
    pub chain: ChainId,
    /// How long a query or a push may take.
    pub timeout: Duration,
}

/// Where PeerHeights sends, and where its calls run.
pub(crate) struct Mailboxes {
    /// Live links.
    pub(crate) links: Links,
    /// Where calls run.
    pub(crate) io: IoTasks,
    pub(crate) target: OrderedSender<Target>,
    pub(crate) ban: OrderedSender<Ban>,
    pub(crate) unban: OrderedSender<Unban>,
    /// Actors that prefer peers of proven use.
    pub(crate) useful: Vec<OrderedSender<Useful>>,
    pub(crate) get_connected: OrderedSender<GetConnected>,
    pub(crate) update_peers: OrderedSender<UpdatePeers>,
}

/// What the store holds when PeerHeights starts.
#[derive(Clone, Debug, Default)]
pub(crate) struct Stored {
    /// The store's watermark.
    pub own_height: CommitIndex,
    /// What peers have done.
    pub standings: Vec<(PeerId, Bytes)>,
}

/// More bytes than a stored standing has.
const MAX_STANDING_BYTES: usize = 64;

/// The actor.
pub struct PeerHeights {
    // Configuration
    settings: Settings,
    mailboxes: Mailboxes,
    // State
    host: CoreHost<PeerHeightsCore>,
    picks: Keyed<Reply<Result<PeerId, NoPeer>>>,
    push_times: PushTimes,
}

impl PeerHeights {
    /// Starts without peers and asks Connections for them.
    pub(crate) fn new(
        config: Config,
        stored: Stored,
        settings: Settings,
        mailboxes: Mailboxes,
        runtime_context: RuntimeContext,
    ) -> Self {
        let standings = stored.standings.into_iter().filter_map(|(peer, bytes)| decode_standing(peer, &bytes));
        let standings = standings.collect();
        Self {
            settings,
            mailboxes,
            host: CoreHost::new(PeerHeightsCore::new(config, stored.own_height, standings), runtime_context),
            picks: Keyed::default(),
            push_times: PushTimes::new(stored.own_height),
        }
    }

    fn call(&self, peer: PeerId) -> Call {
        Call { peer, chain: Some(self.settings.chain), remote: None, timeout: self.settings.timeout }
    }

    fn query(&mut self, peer: PeerId, context: &mut Context<Self>) {
        let (link, call) = (self.mailboxes.links.get(peer), self.call(peer));
        let asking = self.mailboxes.io.spawn(async move {
            let link = link.ok_or_else(CallError::connection_gone)?;
            link.api().get_commit_availability(call).await
        });
        let finish = move |heights: &mut Self, result: Answered<Availability>, origin, context: &mut Context<Self>| {
            let answer = match result {
                Ok(Ok(availability)) => Ok((availability.highest_synced, availability.lowest_available)),
                Ok(Err(error)) => {
                    tracing::debug!(peer = %peer.short(), %error, "height query failed");
                    Err(error.fault())
                }
                Err(_) => Err(Fault::Ours),
            };
            heights.feed(origin, Input::Queried { peer, answer }, context);
        };
        self.later(asking, finish, context);
    }

    fn push(&mut self, peer: PeerId, index: CommitIndex, context: &mut Context<Self>) {
        let (link, call) = (self.mailboxes.links.get(peer), self.call(peer));
        let telling = self.mailboxes.io.spawn(async move {
            let link = link.ok_or_else(CallError::connection_gone)?;
            link.api().push_commit(call, index).await
        });
        let finish = move |heights: &mut Self, result: Answered<()>, origin, context: &mut Context<Self>| {
            let heard = matches!(result, Ok(Ok(())));
            metrics::pushed(heard);
            heights.feed(origin, Input::PushDone { peer, heard }, context);
        };
        self.later(telling, finish, context);
    }
}

/// A standing as it is stored. One that does not decode is forgotten: a peer begins anew rather than the node not at
/// all.
fn decode_standing(peer: PeerId, bytes: &[u8]) -> Option<(PeerId, Standing)> {
    match codec::decode(bytes, "standing", MAX_STANDING_BYTES) {
        Ok(standing) => Some((peer, standing)),
        Err(error) => {
            tracing::warn!(peer = %peer.short(), %error, "the stored standing of a peer is unreadable: forgotten");
            None
        }
    }
}

impl Actor for PeerHeights {
    type Context = Context<Self>;

    fn started(&mut self, _: &mut Context<Self>) {
        // Without an answer Connections is being restarted. It announces every link that it makes.
        let _ = self.mailboxes.get_connected.post(GetConnected { subscriber: PeerHeightsCore::NAME });
    }
}

impl Shell for PeerHeights {
    type Core = PeerHeightsCore;

    fn host(&mut self) -> &mut CoreHost<PeerHeightsCore> {
        &mut self.host
    }

    fn perform(&mut self, effect: Effect, context: &mut Context<Self>) {
        match effect {
            Effect::Query(peer) => self.query(peer, context),
            Effect::Push { peer, index } => self.push(peer, index, context),
            Effect::Picked { key, peer } => {
                if let Some(reply) = self.picks.remove(key) {
                    reply.send(peer);
                }
            }
            Effect::Target(target) => {
                metrics::target(target.highest);
                // If it is lost, the next advertised height or query repeats it.
                let _ = self.mailboxes.target.post(Target(target));
            }
            Effect::SaveStandings { put, remove } => {
                let encoded = |(peer, standing): (PeerId, Standing)| (peer, codec::encode(&standing).into());
                let put = put.into_iter().map(encoded).collect();
                // A lost change is written with the peer's next one.
                let _ = self.mailboxes.update_peers.post(UpdatePeers { list: PeerList::Standings, put, remove });
            }
            // If it is lost, the next use makes up for it.
            Effect::Useful(peers) => {
                for sender in &self.mailboxes.useful {
                    // Peers that stay useful are reported again.
                    let _ = sender.post(Useful { peers: peers.clone() });
                }
            }
            Effect::Ban { peer, duration, reason } => {
                // The core has dropped the peer already; a lost ban leaves it connected and unused.
                let _ = self.mailboxes.ban.post(Ban { peer, duration, reason });
            }
            Effect::Unban { peer } => {
                // If it is lost, Connections is being restarted, and forgets all bans.
                let _ = self.mailboxes.unban.post(Unban { peer });
            }
        }
    }
}

forward! {
    PeerHeights {
        PeerChanged(event) => Input::Peer(event),
    }
}

acknowledge! {
    PeerHeights {
        ChosenPeersChanged { chosen } => Input::ChosenPeers(chosen),
        BanPeer { peer, duration, reason } => Input::Ban { peer, duration, reason },
        UnbanPeer { peer } => Input::Unban { peer },
    }
}

observe!(PeerHeights, Snapshot);
stop_at_once!(PeerHeights);

impl Handler<Envelope<OwnHeight>> for PeerHeights {
    type Result = ();

    fn handle(&mut self, envelope: Envelope<OwnHeight>, context: &mut Context<Self>) {
        let OwnHeight(index) = envelope.message;
        self.push_times.durable(self.host.now().monotonic, index).for_each(metrics::durable);
        self.feed(envelope.origin, Input::OwnHeight(index), context);
    }
}

impl Handler<Envelope<Pushed>> for PeerHeights {
    type Result = ();

    fn handle(&mut self, envelope: Envelope<Pushed>, context: &mut Context<Self>) {
        let Pushed { peer, index } = envelope.message;
        self.push_times.pushed(self.host.now().monotonic, index);
        self.feed(envelope.origin, Input::Pushed { peer, index }, context);
    }
}

impl Handler<Envelope<Pick>> for PeerHeights {
    type Result = ();

    fn handle(&mut self, envelope: Envelope<Pick>, context: &mut Context<Self>) {
        let Pick { start, tried, hedge, next, reply } = envelope.message;
        let key = self.picks.insert(reply);
        self.feed(envelope.origin, Input::Pick { key, start, tried, hedge, next }, context);
    }
}

impl Handler<Envelope<Report>> for PeerHeights {
    type Result = ();

    fn handle(&mut self, envelope: Envelope<Report>, context: &mut Context<Self>) {
        let Report { peer, start, outcome } = envelope.message;
        if let Outcome::Failed(PeerFailure { fault, reason, .. }) = &outcome {
            metrics::fault(fault.name());
            tracing::debug!(peer = %peer.short(), start, ?fault, reason, "range failed");
        }
        self.feed(envelope.origin, Input::Report { peer, start, outcome }, context);
    }
}
