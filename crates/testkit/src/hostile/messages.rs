//! Hostile messages: frames that a peer sends over streams of its own.

use crate::hostile::Behaviour;
use futures::{StreamExt, stream};
use rand::RngExt;
use rand_chacha::ChaCha8Rng;
use soma_network::wire::{Frame, FrameStream, limits::MAX_IDS_PER_FRAME};
use soma_types::{Author, ChainId, Epoch, Message, MessageId, PeerId, Signature, SignedMessage, SigningKey, Topic};
use std::time::Duration;
use tokio::time::sleep;

/// Pause between two frames.
const PAUSE: Duration = Duration::from_millis(5);

/// Messages in one frame.
const MESSAGES: usize = 32;

/// Frames without an end, as the behaviour has them.
pub(super) fn frames(
    behaviour: Behaviour,
    topic: Topic,
    chain: ChainId,
    key: SigningKey,
    rng: ChaCha8Rng,
) -> FrameStream {
    let author = Author::Peer(PeerId::from(&key));
    stream::unfold((key, rng), move |(key, mut rng)| async move {
        sleep(PAUSE).await;
        let message = |epoch: Epoch, number: u64| {
            let payload = number.to_le_bytes().to_vec().into();
            Message { topic, epoch, author, payload }.sign(chain, &key)
        };
        let frame = match behaviour {
            Behaviour::SpamsMessages => {
                // Of epochs that are long over or far away.
                let messages = (0..MESSAGES).map(|_| message(rng.random_range(100..=Epoch::MAX), rng.random()));
                Frame { messages: messages.collect(), ..Frame::default() }
            }
            Behaviour::SendsInvalidMessages => {
                let forged = SignedMessage::new(message(0, rng.random()).message().clone(), Signature::ZERO);
                Frame { messages: vec![forged], ..Frame::default() }
            }
            Behaviour::RepeatsMessages => {
                let messages = (0..MESSAGES as u64).map(|number| message(0, number % 2));
                Frame { messages: messages.collect(), ..Frame::default() }
            }
            Behaviour::AnnouncesMessages => Frame { have: ids(MESSAGES, &mut rng), ..Frame::default() },
            _ => Frame {
                have: ids(MAX_IDS_PER_FRAME, &mut rng),
                want: ids(MAX_IDS_PER_FRAME, &mut rng),
                do_not_send: ids(MAX_IDS_PER_FRAME, &mut rng),
                ..Frame::default()
            },
        };
        Some((Ok(frame), (key, rng)))
    })
    .boxed()
}

fn ids(count: usize, rng: &mut ChaCha8Rng) -> Vec<MessageId> {
    (0..count).map(|_| MessageId(rng.random())).collect()
}
