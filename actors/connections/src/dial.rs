//! One dial: connect to one of a peer's addresses and make sure that it is on our chain.

use crate::Settings;
use soma_protocol::connections::DialFailure;
use soma_transport::{DialError, Link, Transport};
use soma_types::{Address, PeerId};
use soma_wire::Call;
use std::sync::Arc;

/// Dials the addresses in order, until one answers with the right key on the right chain.
pub(crate) async fn dial(
    transport: Arc<dyn Transport>,
    settings: Settings,
    peer: PeerId,
    addresses: Vec<Address>,
) -> Result<Link, DialFailure> {
    let mut failure = DialFailure::Unreachable { reason: "no address is known".into() };
    for address in addresses {
        match transport.dial(peer, &address, settings.connect_timeout).await {
            Ok(link) => match check_chain(&settings, &link).await {
                Ok(()) => return Ok(link),
                Err(refused) => {
                    link.hang_up();
                    failure = refused;
                }
            },
            Err(error @ DialError::WrongKey { .. }) => failure = DialFailure::WrongKey { reason: error.to_string() },
            Err(error) => failure = DialFailure::Unreachable { reason: error.to_string() },
        }
    }
    Err(failure)
}

/// Index 0 tells the chain.
async fn check_chain(settings: &Settings, link: &Link) -> Result<(), DialFailure> {
    let call = Call { peer: link.peer(), chain: Some(settings.chain), remote: None, timeout: settings.connect_timeout };
    match link.api().get_commit_info(call, Some(0)).await {
        Ok(info) if info == settings.genesis_commit => Ok(()),
        Ok(info) => Err(DialFailure::OtherChain { reason: format!("its commit 0 is {}", info.digest) }),
        Err(error) if error.status == soma_wire::Status::FailedPrecondition => {
            Err(DialFailure::OtherChain { reason: error.message })
        }
        Err(error) => Err(DialFailure::Unreachable { reason: format!("the chain handshake failed: {error}") }),
    }
}
