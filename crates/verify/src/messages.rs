//! Messages that spread among nodes: their signatures, and the embedder's judgement of their content.

use crate::{EpochContext, SignatureBatch};
use soma_types::{Author, ChainId, Intent, MessageVerdict, PublicKey, Scope, SignedMessage};
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

/// Checks the signatures of messages together. A message of an epoch without a context, or of an author that its
/// committee does not have, does not pass.
///
/// Returns whether each message passes.
pub fn check_message_signatures(
    chain: ChainId,
    contexts: &[Arc<EpochContext>],
    messages: &[Arc<SignedMessage>],
) -> Vec<bool> {
    let intent = Intent { scope: Scope::Message, chain };
    let mut passed = vec![true; messages.len()];
    let mut batch = SignatureBatch::new();
    for (position, signed) in messages.iter().enumerate() {
        let message = signed.message();
        let key =
            contexts.iter().find(|context| context.epoch() == message.epoch).and_then(|context| match message.author {
                Author::Authority(index) => context.public_key(index).copied(),
                Author::Peer(peer) => Some(PublicKey::from(peer)),
            });
        match key.filter(|key| key.check_encoding().is_ok()) {
            Some(key) => batch.push(position, &key, intent.message(&signed.id().0), signed.signature()),
            None => passed[position] = false,
        }
    }
    for culprit in batch.verify().err().into_iter().flatten() {
        passed[culprit] = false;
    }
    passed
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;
    use soma_types::{Address, Authority, Committee, Message, PeerId, Signature, SigningKey, Topic};

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
    fn message_passes_only_with_the_signature_of_its_author_on_its_chain_and_in_its_epoch() {
        let peer = Author::Peer(PeerId::from(&key(3)));
        let forged = Arc::new(SignedMessage::new(signed(peer, 5, &key(3), CHAIN).message().clone(), Signature::ZERO));
        let messages = [
            (signed(Author::Authority(0), 5, &key(1), CHAIN), true),
            (signed(peer, 5, &key(3), CHAIN), true),
            (signed(Author::Authority(0), 5, &key(2), CHAIN), false),
            (signed(Author::Authority(1), 5, &key(1), CHAIN), false),
            (signed(Author::Authority(0), 6, &key(1), CHAIN), false),
            (signed(peer, 6, &key(3), CHAIN), false),
            (signed(peer, 5, &key(3), ChainId([8; 32])), false),
            (forged, false),
            (signed(Author::Peer(PeerId([0; 32])), 5, &key(3), CHAIN), false),
        ];
        let (messages, expected): (Vec<_>, Vec<_>) = messages.into_iter().unzip();
        assert_eq!(check_message_signatures(CHAIN, &[context(4), context(5)], &messages), expected);
    }

    #[test]
    fn signature_for_another_purpose_is_no_signature_of_a_message() {
        let message = signed(Author::Authority(0), 5, &key(1), CHAIN);
        let other = Intent { scope: Scope::Block, chain: CHAIN }.sign(&key(1), &message.id().0);
        let message = Arc::new(SignedMessage::new(message.message().clone(), other));
        assert_eq!(check_message_signatures(CHAIN, &[context(5)], &[message]), [false]);
    }
}
