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
const PAUSE: Duration = Duration::from_millis(20);

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
    let message = move |epoch: Epoch, number: u64| Message {
        topic,
        epoch,
        author,
        payload: number.to_le_bytes().to_vec().into(),
    };
    let right: Vec<_> = (0..2).map(|number| message(0, number).sign(chain, &key)).collect();
    stream::unfold(rng, move |mut rng| {
        let right = right.clone();
        async move {
            sleep(PAUSE).await;
            let frame = match behaviour {
                Behaviour::SpamsMessages => {
                    // Of epochs that are long over or far away. Nobody looks at their signatures.
                    let messages = (0..MESSAGES).map(|_| message(rng.random_range(100..=Epoch::MAX), rng.random()));
                    let messages = messages.map(|message| SignedMessage::new(message, Signature::ZERO));
                    Frame { messages: messages.collect(), ..Frame::default() }
                }
                Behaviour::SendsInvalidMessages => {
                    // Of every epoch that the victim may have reached: it checks those of its own only.
                    let forged = (0..MESSAGES as Epoch).map(|epoch| message(epoch, rng.random()));
                    let forged = forged.map(|message| SignedMessage::new(message, Signature::ZERO));
                    Frame { messages: forged.collect(), ..Frame::default() }
                }
                Behaviour::RepeatsMessages => {
                    let messages = right.iter().cycle().take(MESSAGES).cloned();
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
            Some((Ok(frame), rng))
        }
    })
    .boxed()
}

fn ids(count: usize, rng: &mut ChaCha8Rng) -> Vec<MessageId> {
    (0..count).map(|_| MessageId(rng.random())).collect()
}
