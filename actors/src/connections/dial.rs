//! One dial: connect to one of a peer's addresses and make sure that it is on our chain.
//!
//! Several addresses are tried as RFC 8305 ("Happy Eyeballs") has it: families in turn, the next one as soon as one has
//! failed or a moment after the last one began, and the first that proves to be the peer on our chain wins. So a peer
//! with a dead address costs a moment and not a timeout.

use futures::{StreamExt, stream::FuturesUnordered};
use soma_network::wire::Call;
use soma_network::{DialError, Link, Transport};
use soma_protocol::connections::{DialFailure, Endpoint};
use soma_types::{Address, ChainId, CommitRef, PeerId};
use std::{sync::Arc, time::Duration};
use tokio::time::{Instant, sleep_until};

/// How long after the beginning of one attempt the next one begins, if none has ended: RFC 8305, section 8.
const NEXT_ATTEMPT_AFTER: Duration = Duration::from_millis(250);

/// What a dial needs to know.
#[derive(Clone, Debug)]
pub struct Settings {
    /// This node's chain.
    pub chain: ChainId,
    /// Its commit 0, which every peer of the chain answers.
    pub genesis_commit: CommitRef,
    /// How long one dial to one address may take.
    pub connect_timeout: Duration,
}

/// How a dial ended.
pub(crate) struct Dialled {
    /// The link and where it goes, or why there is none.
    pub(crate) result: Result<(Link, Endpoint), DialFailure>,
    /// Addresses that did not work.
    pub(crate) failed: Vec<Address>,
}

/// Dials the addresses, best first, until one answers with the right key on the right chain. Attempts that are under
/// way then are given up, and what they have connected is dropped, which ends it.
pub(crate) async fn dial(
    transport: Arc<dyn Transport>,
    settings: Settings,
    peer: PeerId,
    addresses: Vec<Address>,
) -> Dialled {
    let mut failure = DialFailure::Unreachable { reason: "no address is known".into() };
    let mut failed = Vec::new();
    let mut waiting = interleaved(addresses).into_iter();
    let mut attempts = FuturesUnordered::new();
    let mut next_at = Instant::now();
    loop {
        if attempts.is_empty() || next_at <= Instant::now() {
            match waiting.next() {
                Some(address) => {
                    attempts.push(attempt(&transport, &settings, peer, address));
                    next_at = Instant::now() + NEXT_ATTEMPT_AFTER;
                }
                None if attempts.is_empty() => return Dialled { result: Err(failure), failed },
                None => {}
            }
        }
        tokio::select! {
            biased;
            Some((address, result)) = attempts.next() => match result {
                Ok(link) => {
                    let ip = link.remote().or_else(|| address.ip());
                    return Dialled { result: Ok((link, Endpoint { address, ip })), failed };
                }
                Err(why) => {
                    failed.push(address);
                    // The most telling failure: a wrong key tells more than silence.
                    if !is_telling(&failure) {
                        failure = why;
                    }
                    next_at = Instant::now();
                }
            },
            () = sleep_until(next_at), if waiting.len() > 0 => {}
        }
    }
}

fn is_telling(failure: &DialFailure) -> bool {
    matches!(failure, DialFailure::WrongKey { .. } | DialFailure::OtherChain { .. })
}

/// The families in turn, beginning with that of the first; each in its own order. A name may be of either: it goes
/// with IPv4.
fn interleaved(addresses: Vec<Address>) -> Vec<Address> {
    let is_v6 = |address: &Address| address.ip().is_some_and(|ip| ip.is_ipv6());
    let begins_with_v6 = addresses.first().is_some_and(is_v6);
    let (first, second): (Vec<_>, Vec<_>) = addresses.into_iter().partition(|address| is_v6(address) == begins_with_v6);
    let (mut first, mut second) = (first.into_iter(), second.into_iter());
    let mut order = Vec::new();
    while first.len() + second.len() > 0 {
        order.extend(first.next());
        order.extend(second.next());
    }
    order
}

async fn attempt(
    transport: &Arc<dyn Transport>,
    settings: &Settings,
    peer: PeerId,
    address: Address,
) -> (Address, Result<Link, DialFailure>) {
    let result = match transport.dial(peer, &address, settings.connect_timeout).await {
        Ok(link) => match check_chain(settings, &link).await {
            Ok(()) => Ok(link),
            Err(refused) => {
                link.hang_up();
                Err(refused)
            }
        },
        Err(error @ DialError::WrongKey { .. }) => Err(DialFailure::WrongKey { reason: error.to_string() }),
        Err(error @ DialError::Refused { .. }) => Err(DialFailure::Refused { reason: error.to_string() }),
        Err(error) => Err(DialFailure::Unreachable { reason: error.to_string() }),
    };
    (address, result)
}

/// Index 0 tells the chain.
async fn check_chain(settings: &Settings, link: &Link) -> Result<(), DialFailure> {
    let call = Call { peer: link.peer(), chain: Some(settings.chain), remote: None, timeout: settings.connect_timeout };
    match link.api().get_commit_info(call, Some(0)).await {
        Ok(info) if info == settings.genesis_commit => Ok(()),
        Ok(info) => Err(DialFailure::OtherChain { reason: format!("its commit 0 is {}", info.digest) }),
        Err(error) if error.status == soma_network::wire::Status::FailedPrecondition => {
            Err(DialFailure::OtherChain { reason: error.message })
        }
        Err(error) if error.status == soma_network::wire::Status::DeadlineExceeded => {
            Err(DialFailure::Unreachable { reason: format!("the chain handshake failed: {error}") })
        }
        // Whoever has the key was there: the client's side of TLS is done before the other one decides whom it lets in.
        Err(error) => Err(DialFailure::Refused { reason: format!("the chain handshake failed: {error}") }),
    }
}

#[cfg(test)]
mod tests;
