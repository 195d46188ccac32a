//! The actor of docs/adding-an-actor.md, under a real supervisor. A test of the documents compares the two.
#![allow(unreachable_pub, reason = "in the crate the items are public")]

use soma_actors::connections::messages::PeerChanged;
use soma_protocol::{Core, LostReason, Now, PeerEvent};
use soma_runtime::{Clock, Observe, RuntimeContext, Slot, Strategy, Supervisor};
use soma_types::PeerId;
use std::time::Duration;
use tokio::task::LocalSet;

// crates/protocol/src/link_losses/mod.rs
mod link_losses {
    //! LinkLosses: how often the link to each peer was lost.

    use serde::{Deserialize, Serialize};
    use soma_protocol::{Core, Now, PeerEvent};
    use soma_types::PeerId;
    use std::collections::BTreeMap;

    /// Peers that are counted. Beyond, a new peer is not counted.
    const MAX_PEERS: usize = 1_024;

    /// Losses of one peer's link after which the operator is told, and how often then.
    const TOLD_EVERY: u64 = 10;

    /// What can happen to LinkLosses.
    #[derive(Clone, Debug, Serialize, Deserialize)]
    pub enum Input {
        /// From Connections: a link was made, or is lost.
        Peer(PeerEvent),
    }

    /// What the shell is to do.
    #[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
    pub enum Effect {
        /// Tell the operator that the link to the peer does not last.
        Log {
            /// The peer.
            peer: PeerId,
            /// How often its link was lost.
            losses: u64,
        },
    }

    /// The state.
    #[derive(Default, Serialize, Deserialize)]
    pub struct LinkLosses {
        losses: BTreeMap<PeerId, u64>,
    }

    impl Core for LinkLosses {
        type Input = Input;
        type Effect = Effect;
        type Snapshot = BTreeMap<PeerId, u64>;

        const NAME: &'static str = "link-losses";

        fn handle(&mut self, _: Now, input: Input) -> Vec<Effect> {
            let Input::Peer(PeerEvent::Lost { peer, .. }) = input else { return Vec::new() };
            if self.losses.len() >= MAX_PEERS && !self.losses.contains_key(&peer) {
                return Vec::new();
            }
            let losses = self.losses.entry(peer).or_default();
            *losses += 1;
            if losses.is_multiple_of(TOLD_EVERY) { vec![Effect::Log { peer, losses: *losses }] } else { Vec::new() }
        }

        fn snapshot(&self) -> BTreeMap<PeerId, u64> {
            self.losses.clone()
        }
    }
}

// actors/src/link_losses/shell.rs
mod shell {
    use super::link_losses::{Effect, Input, LinkLosses as LinkLossesCore};
    use actix::{Actor, Context};
    use soma_actors::connections::messages::PeerChanged;
    use soma_protocol::Core;
    use soma_runtime::{CoreHost, RuntimeContext, Shell, forward, observe, stop_at_once};
    use soma_types::PeerId;
    use std::collections::BTreeMap;

    /// The actor.
    pub struct LinkLosses {
        host: CoreHost<LinkLossesCore>,
    }

    impl LinkLosses {
        /// An actor that has counted nothing yet.
        pub fn new(runtime_context: RuntimeContext) -> Self {
            Self { host: CoreHost::new(LinkLossesCore::default(), runtime_context) }
        }
    }

    impl Actor for LinkLosses {
        type Context = Context<Self>;
    }

    impl Shell for LinkLosses {
        type Core = LinkLossesCore;

        fn host(&mut self) -> &mut CoreHost<LinkLossesCore> {
            &mut self.host
        }

        fn perform(&mut self, effect: Effect, _: &mut Context<Self>) {
            match effect {
                Effect::Log { peer, losses } => {
                    tracing::warn!(actor = LinkLossesCore::NAME, peer = %peer.short(), losses, "the link does not last");
                }
            }
        }
    }

    forward! {
        LinkLosses {
            PeerChanged(event) => Input::Peer(event),
        }
    }

    observe!(LinkLosses, BTreeMap<PeerId, u64>);
    stop_at_once!(LinkLosses);
}

// actors/src/link_losses/wiring.rs
mod wiring {
    use super::shell::LinkLosses;
    use soma_runtime::{ChildSpec, RuntimeContext, Slot};

    /// How LinkLosses is made, each time that it starts.
    pub fn spec(
        slot: Slot<LinkLosses>,
        mailbox_capacity: usize,
        runtime_context: RuntimeContext,
    ) -> ChildSpec<LinkLosses> {
        ChildSpec::new(slot, mailbox_capacity, move || {
            let actor = LinkLosses::new(runtime_context.clone());
            async move { Ok(actor) }
        })
    }
}

// The tests
const PEER: PeerId = PeerId([7; 32]);

/// The core alone: no actor, no clock, no thread.
#[test]
fn the_core_tells_the_operator_of_every_tenth_loss() {
    let now = Now { monotonic: Duration::ZERO, unix_ms: 0 };
    let mut core = link_losses::LinkLosses::default();
    let lost = || link_losses::Input::Peer(PeerEvent::Lost { peer: PEER, reason: LostReason::Closed });
    let told: Vec<_> = (1..=20).filter(|_| !core.handle(now, lost()).is_empty()).collect();
    assert_eq!(told, [10, 20]);
    assert_eq!(core.snapshot(), [(PEER, 20)].into());
}

/// The actor under a supervisor, in virtual time.
#[tokio::test(start_paused = true)]
async fn the_actor_takes_messages_and_shows_what_it_has_counted() {
    LocalSet::new()
        .run_until(async {
            let runtime_context = RuntimeContext::new(Clock::simulated(0));
            let slot = Slot::<shell::LinkLosses>::new(link_losses::LinkLosses::NAME);
            let actor = slot.reference();
            let mut supervisor = Supervisor::new("root", Strategy::OneForOne, runtime_context.clone(), 1);
            supervisor.actor(wiring::spec(slot, 50, runtime_context));
            let supervision = supervisor.start();

            let changes = actor.ordered_sender::<PeerChanged>("test");
            let mut observer = actor.mailbox::<Observe<_>>("test");
            for _ in 0..3 {
                let _ = changes.post(PeerChanged(PeerEvent::Lost { peer: PEER, reason: LostReason::Closed }));
            }
            while observer.ask(Observe).await.unwrap_or_default() != [(PEER, 3)].into() {
                tokio::task::yield_now().await;
            }
            supervision.shutdown(Duration::from_secs(5)).await;
        })
        .await;
}
