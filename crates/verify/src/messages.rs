//! Messages that spread among nodes: their signatures, and the embedder's judgement of their content.

use crate::{EpochContext, SignatureBatch};
use soma_types::{Author, ChainId, Intent, Message, MessageVerdict, PublicKey, Scope, SignedMessage};
use std::sync::Arc;

/// How the embedder judges messages before they are delivered and sent on.
///
/// It runs on the threads of the Verifier, for several messages at once. A call that takes long delays other messages
/// of the same topic, and nothing else. A panic costs the messages of that check.
pub trait MessageValidator: Send + Sync {
    /// Judges a message. Its signature is right, or its author has sent it over its own connection.
    fn validate(&self, message: &SignedMessage) -> MessageVerdict;
}

/// Accepts every message whose signature is right.
#[derive(Clone, Copy, Debug, Default)]
pub struct AcceptAll;

impl MessageValidator for AcceptAll {
    fn validate(&self, _: &SignedMessage) -> MessageVerdict {
        MessageVerdict::Accept { slot: None }
    }
}

/// What the check of a message's signature shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SignatureVerdict {
    /// It is the author's.
    Right,
    /// It is not the author's, or the committee has no such author.
    Wrong,
    /// The author is an authority of an epoch whose committee is not known here.
    UnknownEpoch,
}

/// Checks the signatures of messages together. `contexts` has the epochs whose committees are known.
///
/// Returns a verdict for each message, in order.
pub fn check_message_signatures(
    chain: ChainId,
    contexts: &[Arc<EpochContext>],
    messages: &[Arc<SignedMessage>],
) -> Vec<SignatureVerdict> {
    let intent = Intent { scope: Scope::Message, chain };
    let mut verdicts = vec![SignatureVerdict::Right; messages.len()];
    let mut batch = SignatureBatch::new();
    for (position, signed) in messages.iter().enumerate() {
        match key_of(signed.message(), contexts) {
            Ok(key) => batch.push(position, &key, intent.message(&signed.id().0), signed.signature()),
            Err(verdict) => verdicts[position] = verdict,
        }
    }
    for culprit in batch.verify().err().into_iter().flatten() {
        verdicts[culprit] = SignatureVerdict::Wrong;
    }
    verdicts
}

/// The key that has to have signed a message.
fn key_of(message: &Message, contexts: &[Arc<EpochContext>]) -> Result<PublicKey, SignatureVerdict> {
    let key = match message.author {
        Author::Peer(peer) => PublicKey::from(peer),
        Author::Authority(index) => {
            let context = contexts.iter().find(|context| context.epoch() == message.epoch);
            let context = context.ok_or(SignatureVerdict::UnknownEpoch)?;
            *context.public_key(index).ok_or(SignatureVerdict::Wrong)?
        }
    };
    key.check_encoding().map_err(|_| SignatureVerdict::Wrong)?;
    Ok(key)
}

#[cfg(test)]
mod tests {
    use super::{
        SignatureVerdict::{Right, UnknownEpoch, Wrong},
        *,
    };
    use bytes::Bytes;
    use soma_types::{Address, Authority, Committee, PeerId, Signature, SigningKey, Topic};

    const CHAIN: ChainId = ChainId([7; 32]);

    fn key(number: u8) -> SigningKey {
        SigningKey::from_bytes(&[number; 32])
    }

    /// The context of an epoch in which key 1 is authority 0.
    fn context(epoch: u64) -> Arc<EpochContext> {
        let address: Address = "/ip4/127.0.0.1/tcp/9000".parse().unwrap();
        let (protocol_key, network_key) = (PublicKey::from(&key(1)), PublicKey::from(&key(2)));
        let authorities = vec![Authority { stake: 1, protocol_key, network_key, address }];
        Arc::new(EpochContext::new(CHAIN, Committee { epoch, authorities }).unwrap())
    }

    fn signed(author: Author, epoch: u64, by: &SigningKey, chain: ChainId) -> Arc<SignedMessage> {
        let payload = Bytes::from_static(b"payload");
        Arc::new(Message { topic: Topic::Certificates, epoch, author, payload }.sign(chain, by))
    }

    #[test]
    fn signature_is_right_only_if_it_is_the_authors_for_this_chain() {
        let peer = Author::Peer(PeerId::from(&key(3)));
        let forged = Arc::new(SignedMessage::new(signed(peer, 5, &key(3), CHAIN).message().clone(), Signature::ZERO));
        let messages = [
            (signed(Author::Authority(0), 5, &key(1), CHAIN), Right),
            (signed(peer, 5, &key(3), CHAIN), Right),
            (signed(peer, 9, &key(3), CHAIN), Right),
            (signed(Author::Authority(0), 5, &key(2), CHAIN), Wrong),
            (signed(Author::Authority(1), 5, &key(1), CHAIN), Wrong),
            (signed(Author::Authority(0), 6, &key(1), CHAIN), UnknownEpoch),
            (signed(peer, 5, &key(3), ChainId([8; 32])), Wrong),
            (signed(peer, 5, &key(4), CHAIN), Wrong),
            (forged, Wrong),
            (signed(Author::Peer(PeerId([0; 32])), 5, &key(3), CHAIN), Wrong),
        ];
        let (messages, expected): (Vec<_>, Vec<_>) = messages.into_iter().unzip();
        assert_eq!(check_message_signatures(CHAIN, &[context(4), context(5)], &messages), expected);
    }

    #[test]
    fn signature_for_another_purpose_is_no_signature_of_a_message() {
        let message = signed(Author::Authority(0), 5, &key(1), CHAIN);
        let other = Intent { scope: Scope::Block, chain: CHAIN }.sign(&key(1), &message.id().0);
        let message = Arc::new(SignedMessage::new(message.message().clone(), other));
        assert_eq!(check_message_signatures(CHAIN, &[context(5)], &[message]), [Wrong]);
    }
}
