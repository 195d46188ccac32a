//! What a hostile peer does of its own accord, over any transport.

use crate::{
    address_of,
    hostile::{Behaviour, messages, node_infos},
};
use futures::{StreamExt, future::join_all, stream};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use soma_network::wire::{Call, Hello};
use soma_network::{Link, Transport};
use soma_types::{Address, ChainId, CommitIndex, PeerId, SignedNodeInfo, SigningKey, TimestampMs, Topic};
use std::{future::pending, sync::Arc, time::Duration};
use tokio::time::sleep;

/// Calls that a flood has open at once: as many as one connection carries.
const FLOOD: usize = 64;

/// Pause between two waves of a flood, and before it dials again where it was thrown out.
const PAUSE: Duration = Duration::from_millis(500);

/// How long a call or a dial may take.
const TIMEOUT: Duration = Duration::from_secs(5);

/// How far ahead of the victim's clock an info may be.
const MAX_AHEAD_MS: TimestampMs = 20_000;

/// Dials at once of those who open connections.
const DIALS: usize = 16;

/// Whom to attack.
#[derive(Clone, Debug)]
pub struct Victim {
    /// The peer.
    pub peer: PeerId,
    /// Where it listens.
    pub address: Address,
    /// Its chain.
    pub chain: ChainId,
    /// Its clock, or near it.
    pub now_ms: TimestampMs,
}

/// Attacks a node until it is dropped. `identity` makes the transport of an identity of the attacker's: 0 is `key`'s
/// own, and up to `identities` others may be asked for.
pub async fn attack(
    behaviour: Behaviour,
    victim: Victim,
    key: SigningKey,
    identity: impl Fn(u64) -> Arc<dyn Transport>,
    identities: u64,
    seed: u64,
) {
    let rng = ChaCha8Rng::seed_from_u64(seed);
    match behaviour {
        Behaviour::ConnectsAndIdles => idle(&victim, identity, identities).await,
        Behaviour::FloodsPushes => flood(&victim, &*identity(0), |link| push(&victim, link, rng.clone())).await,
        Behaviour::FloodsNodeInfos | Behaviour::InventsNodes => {
            flood(&victim, &*identity(0), |link| tell_of_itself(&victim, link, &key, rng.clone())).await;
        }
        _ if behaviour.sends_messages() => {
            let wave = |link| send_messages(behaviour, &victim, link, key.clone(), rng.clone());
            flood(&victim, &*identity(0), wave).await;
        }
        _ => {}
    }
}

/// Sends frames over one stream for as long as the victim takes them.
async fn send_messages(behaviour: Behaviour, victim: &Victim, link: Link, key: SigningKey, rng: ChaCha8Rng) {
    let topic = Topic::Transactions;
    let frames = messages::frames(behaviour, topic, victim.chain, key, rng);
    let hello = Hello { topic, max_message_bytes: 1 << 10 };
    if let Ok((_, mut taken)) = link.api().broadcast(call(victim), hello, frames).await {
        while let Some(Ok(_)) = taken.next().await {}
    }
}

/// Opens one connection after the other and keeps those that it is let.
async fn idle(victim: &Victim, identity: impl Fn(u64) -> Arc<dyn Transport>, identities: u64) {
    let dials = stream::iter(1..=identities).map(|number| {
        let transport = identity(number);
        async move { transport.dial(victim.peer, &victim.address, TIMEOUT).await.ok() }
    });
    let _links: Vec<Link> = dials.buffer_unordered(DIALS).filter_map(|link| async move { link }).collect().await;
    pending().await
}

/// Dials, and does one wave of calls after the other for as long as the link lives.
async fn flood<F: Future<Output = ()>>(victim: &Victim, transport: &dyn Transport, wave: impl Fn(Link) -> F) {
    loop {
        if let Ok(link) = transport.dial(victim.peer, &victim.address, TIMEOUT).await {
            while !link.is_closed() {
                wave(link.clone()).await;
                sleep(PAUSE).await;
            }
        }
        sleep(PAUSE).await;
    }
}

fn call(victim: &Victim) -> Call {
    Call { peer: victim.peer, chain: Some(victim.chain), remote: None, timeout: TIMEOUT }
}

async fn push(victim: &Victim, link: Link, mut rng: ChaCha8Rng) {
    let indexes: Vec<CommitIndex> = (0..FLOOD).map(|_| rng.random()).collect();
    join_all(indexes.into_iter().map(|index| link.api().push_commit(call(victim), index))).await;
}

/// Says every time that it listens elsewhere, and has the victim check the signature.
async fn tell_of_itself(victim: &Victim, link: Link, key: &SigningKey, mut rng: ChaCha8Rng) {
    let info = |port: u16| {
        let address = address_of(([192, 0, 2, 1], port).into());
        let info = node_infos::own_info(key, victim.chain, &address, victim.now_ms + u64::from(port) % MAX_AHEAD_MS);
        SignedNodeInfo::sign(info, victim.chain, key).bytes().clone()
    };
    let infos: Vec<_> = (0..FLOOD / 8).map(|_| info(rng.random_range(1..=u16::MAX))).collect();
    join_all(infos.into_iter().map(|info| link.api().get_known_peers(call(victim), info))).await;
}
