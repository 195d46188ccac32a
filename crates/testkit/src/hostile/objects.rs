//! What hostile peers answer when they are asked for objects.

use crate::{
    flip_bit,
    hostile::{Behaviour, Consequence},
};
use bytes::Bytes;
use futures::{StreamExt, stream};
use soma_network::wire::{CallError, ObjectIds, ObjectStream, Status, limits::MAX_OBJECTS_PER_FETCH};
use soma_store::{MemoryObjects, ObjectSource};
use soma_types::{
    ObjectId, ObjectKind, ObjectPart, ObjectTree,
    limits::{MAX_OBJECT_BYTES, OBJECT_PIECE_BYTES},
    object_pieces,
};
use std::{convert::Infallible, future::pending, ops::Range, time::Duration};
use tokio::time::sleep;

/// How a peer misbehaves when it is asked for objects.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ObjectMischief {
    /// Flips a bit of each short object.
    FlipsObjects,
    /// Sends each short object in the place of the next one.
    SwapsObjects,
    /// Sends more objects than were asked for.
    SendsMore,
    /// Says that more objects are missing than were asked for.
    MissesMore,
    /// Sends an object that is longer than one message.
    SendsOversizedObjects,
    /// Announces the longest object there can be, with pieces of its own invention.
    InventsTrees,
    /// Sends the tree of a long object, and other pieces.
    SendsWrongPieces,
    /// Ends its answers after the first object.
    EndsEarly,
    /// Sends the first object, then nothing, and does not end.
    NeverFinishes,
    /// Sends an object every few seconds.
    Dribbles,
    /// Does not answer.
    NeverAnswers,
    /// Says that it has too much to do.
    SaysBusy,
    /// Fails when it is asked.
    FailsInside,
    /// Says that it lacks what it has.
    HidesObjects,
}

impl ObjectMischief {
    /// All of them.
    pub const ALL: [Self; 14] = [
        Self::FlipsObjects,
        Self::SwapsObjects,
        Self::SendsMore,
        Self::MissesMore,
        Self::SendsOversizedObjects,
        Self::InventsTrees,
        Self::SendsWrongPieces,
        Self::EndsEarly,
        Self::NeverFinishes,
        Self::Dribbles,
        Self::NeverAnswers,
        Self::SaysBusy,
        Self::FailsInside,
        Self::HidesObjects,
    ];

    /// The expected consequence.
    pub fn consequence(self) -> Consequence {
        match self {
            Self::FlipsObjects
            | Self::SwapsObjects
            | Self::SendsMore
            | Self::MissesMore
            | Self::SendsOversizedObjects
            | Self::InventsTrees
            | Self::SendsWrongPieces
            | Self::EndsEarly => Consequence::Banned,
            Self::NeverFinishes | Self::Dribbles | Self::NeverAnswers | Self::SaysBusy | Self::FailsInside => {
                Consequence::Doubted
            }
            Self::HidesObjects => Consequence::WithoutEffect,
        }
    }

    /// What a peer with this behaviour does to objects: the same as to blocks and commits, where it can.
    pub(super) fn beside(behaviour: Behaviour) -> Option<Self> {
        match behaviour {
            Behaviour::FlipsBlocks => Some(Self::FlipsObjects),
            Behaviour::SwapsBlocks => Some(Self::SwapsObjects),
            Behaviour::TruncatesBlocks => Some(Self::EndsEarly),
            Behaviour::ReordersBlocks => Some(Self::SendsMore),
            Behaviour::AnswersEmpty => Some(Self::MissesMore),
            Behaviour::SendsOversizedBlocks => Some(Self::SendsOversizedObjects),
            Behaviour::FlipsCommits => Some(Self::InventsTrees),
            Behaviour::NeverFinishes => Some(Self::NeverFinishes),
            Behaviour::DribblesBytes => Some(Self::Dribbles),
            _ => None,
        }
    }

    /// The answer to a call.
    pub(super) fn answer(self, source: &MemoryObjects, ids: &ObjectIds) -> Result<ObjectStream, CallError> {
        let mut honest: Vec<_> = ids.as_slice().iter().flat_map(|id| parts(source, ids.kind(), id)).collect();
        let asked = ids.as_slice().len() as u32;
        match self {
            Self::FlipsObjects => change_whole(&mut honest, |bytes| flip_bit(bytes, 0)),
            Self::SwapsObjects => {
                let mut last = Bytes::from_static(b"other");
                change_whole(&mut honest, |bytes| std::mem::replace(&mut last, bytes.clone()));
            }
            Self::SendsMore => honest.push(ObjectPart::Whole(Bytes::new())),
            Self::MissesMore => honest = vec![ObjectPart::Missing(asked + 1)],
            Self::SendsOversizedObjects => honest = vec![ObjectPart::Whole(vec![0; OBJECT_PIECE_BYTES + 1].into())],
            Self::InventsTrees => {
                let pieces = vec![[7; 32]; MAX_OBJECT_BYTES / OBJECT_PIECE_BYTES];
                honest = ObjectTree::new(MAX_OBJECT_BYTES as u64, pieces).map(ObjectPart::Tree).into_iter().collect();
            }
            Self::SendsWrongPieces => {
                for part in &mut honest {
                    if let ObjectPart::Piece(piece) = part {
                        *piece = flip_bit(piece, 0);
                    }
                }
            }
            Self::EndsEarly | Self::NeverFinishes => honest.truncate(1),
            Self::Dribbles => {}
            Self::NeverAnswers => honest.clear(),
            Self::SaysBusy => return Err(CallError::new(Status::ResourceExhausted, "busy")),
            Self::FailsInside => return Err(CallError::new(Status::Internal, "broken")),
            Self::HidesObjects => honest = vec![ObjectPart::Missing(asked)],
        }
        let delay = if self == Self::Dribbles { Duration::from_secs(5) } else { Duration::ZERO };
        let messages = stream::iter(messages(honest)).then(move |message| async move {
            sleep(delay).await;
            Ok(message)
        });
        let never_ends = matches!(self, Self::NeverFinishes | Self::NeverAnswers);
        Ok(if never_ends { messages.chain(stream::once(pending())).boxed() } else { messages.boxed() })
    }
}

fn change_whole(parts: &mut [ObjectPart], mut change: impl FnMut(&Bytes) -> Bytes) {
    for part in parts {
        if let ObjectPart::Whole(bytes) = part {
            *bytes = change(bytes);
        }
    }
}

/// The parts of one object, as an honest peer sends them.
fn parts(source: &MemoryObjects, kind: ObjectKind, id: &ObjectId) -> Vec<ObjectPart> {
    // Memory can be read.
    let Ok(Some(object)) = source.read(kind, id, 0, MAX_OBJECT_BYTES) else { return vec![ObjectPart::Missing(1)] };
    if object.bytes.len() <= OBJECT_PIECE_BYTES {
        return vec![ObjectPart::Whole(object.bytes)];
    }
    let slice = |range: Range<u64>| object.bytes.slice(range.start as usize..range.end as usize);
    let Ok(tree) = ObjectTree::of(object.total, |range| Ok::<_, Infallible>(slice(range)));
    let pieces = object_pieces(object.total).map(|range| ObjectPart::Piece(slice(range)));
    [ObjectPart::Tree(tree)].into_iter().chain(pieces).collect()
}

/// Messages within the limits, unless one part is over them.
fn messages(parts: Vec<ObjectPart>) -> Vec<Vec<ObjectPart>> {
    let (mut messages, mut bytes) = (Vec::<Vec<_>>::new(), 0);
    for part in parts {
        bytes += part.size();
        match messages.last_mut().filter(|last| bytes <= OBJECT_PIECE_BYTES && last.len() < MAX_OBJECTS_PER_FETCH) {
            Some(last) => last.push(part),
            None => {
                bytes = part.size();
                messages.push(vec![part]);
            }
        }
    }
    messages
}
