//! Answering a call for objects.

use super::messages::CallPermit;
use bytes::Bytes;
use futures::{StreamExt, stream};
use soma_network::wire::{
    CallError, ObjectIds, ObjectStream, Status,
    limits::{MAX_OBJECTS_PER_FETCH, MAX_SNAPSHOTS},
};
use soma_runtime::Offload;
use soma_store::{ObjectBytes, ObjectSource};
use soma_types::{
    ObjectId, ObjectKind, ObjectPart, ObjectTree, SnapshotInfo,
    limits::{MAX_OBJECT_BYTES, OBJECT_PIECE_BYTES},
};
use std::{io, ops::Range, sync::Arc};
use tokio::{
    sync::Semaphore,
    time::{Instant, timeout_at},
};

/// Bytes of short objects in one message. Reading them takes about a millisecond, so that going to a blocking thread
/// and back costs little.
const MESSAGE_BYTES: usize = 512 << 10;

/// The objects of one call, and how far they are answered.
#[derive(Clone)]
struct Position {
    kind: ObjectKind,
    ids: Arc<[ObjectId]>,
    /// Of the first object that is not answered.
    next: usize,
    /// When the present object is a long one: its bytes, and how many bytes are answered.
    long: Option<(u64, u64)>,
}

/// One answer. A message is read when the reader has taken the one before, so that a slow reader holds one.
struct ObjectAnswer {
    source: Arc<dyn ObjectSource>,
    offload: Offload,
    turns: Arc<Semaphore>,
    position: Position,
    /// Given back with the last message: the transport bounds unread bytes.
    permit: Option<CallPermit>,
    deadline: Instant,
}

/// The answer to a call.
pub(super) fn answer(
    source: Arc<dyn ObjectSource>,
    offload: Offload,
    turns: Arc<Semaphore>,
    ids: ObjectIds,
    permit: CallPermit,
    deadline: Instant,
) -> ObjectStream {
    let position = Position { kind: ids.kind(), ids: ids.into_vec().into(), next: 0, long: None };
    let answer = ObjectAnswer { source, offload, turns, position, permit: Some(permit), deadline };
    let messages = stream::unfold(Some(answer), |answer| async move {
        let mut answer = answer?;
        let message = answer.message().await.transpose()?;
        let rest = message.is_ok().then_some(answer);
        Some((message, rest))
    });
    messages.boxed()
}

/// The snapshots that a node serves, the latest first. Listing them may read whole manifests, so it has its turn.
pub(super) async fn snapshots(
    source: Arc<dyn ObjectSource>,
    offload: &Offload,
    turns: Arc<Semaphore>,
) -> Result<Vec<SnapshotInfo>, CallError> {
    // The semaphore is never closed. The turn lasts as long as the reading, even if its caller is gone.
    let turn = turns.acquire_owned().await;
    let listed = offload.run(move || {
        let _turn = turn;
        source.snapshots()
    });
    let listed = listed.await;
    let mut listed =
        listed.map_err(|exit| unreadable(exit.to_string()))?.map_err(|error| unreadable(error.to_string()))?;
    listed.truncate(MAX_SNAPSHOTS);
    Ok(listed)
}

fn unreadable(error: String) -> CallError {
    tracing::error!(error, "objects cannot be read");
    // The peer must not learn of this node's disk.
    CallError::new(Status::Unavailable, "objects cannot be read now")
}

impl ObjectAnswer {
    /// The next message, or an error, which comes last.
    async fn message(&mut self) -> Result<Option<Vec<ObjectPart>>, CallError> {
        if self.position.next == self.position.ids.len() {
            return Ok(None);
        }
        let Ok(read) = timeout_at(self.deadline, self.read()).await else {
            return Err(CallError::new(Status::DeadlineExceeded, "the answer was not read in time"));
        };
        let (parts, position) = read?;
        self.position = position;
        if let Some(permit) = &mut self.permit {
            permit.count(parts.iter().map(ObjectPart::size).sum::<usize>() as u64, 0);
        }
        if self.position.next == self.position.ids.len() {
            self.permit = None;
        }
        Ok(Some(parts))
    }

    async fn read(&self) -> Result<(Vec<ObjectPart>, Position), CallError> {
        // The semaphore is never closed. The turn lasts as long as the reading, even if its caller is gone.
        let turn = self.turns.clone().acquire_owned().await;
        let (source, mut position) = (self.source.clone(), self.position.clone());
        let reading = self.offload.run(move || {
            let _turn = turn;
            read_message(&*source, &mut position).map(|parts| (parts, position))
        });
        match reading.await {
            Ok(Ok(read)) => Ok(read),
            Ok(Err(error)) => Err(unreadable(error.to_string())),
            Err(exit) => Err(unreadable(exit.to_string())),
        }
    }
}

/// The parts of the next message.
fn read_message(source: &dyn ObjectSource, position: &mut Position) -> io::Result<Vec<ObjectPart>> {
    if let Some((total, done)) = position.long {
        return Ok(vec![read_piece(source, position, total, done)?]);
    }
    let (mut parts, mut bytes) = (Vec::new(), 0);
    while bytes < MESSAGE_BYTES && parts.len() < MAX_OBJECTS_PER_FETCH {
        let Some(id) = position.ids.get(position.next) else { break };
        match source.read(position.kind, id, 0, OBJECT_PIECE_BYTES)? {
            Some(ObjectBytes { total, .. }) if total > MAX_OBJECT_BYTES as u64 => {
                tracing::error!(kind = %position.kind, %id, total, "the object is too long to be served");
                miss(&mut parts);
            }
            Some(ObjectBytes { total, .. }) if total > OBJECT_PIECE_BYTES as u64 => {
                if parts.is_empty() {
                    let read = |range: Range<u64>| exactly(source, position.kind, id, total, range);
                    parts.push(ObjectPart::Tree(ObjectTree::of(total, read)?));
                    position.long = Some((total, 0));
                }
                // Its pieces have messages of their own.
                break;
            }
            Some(ObjectBytes { total, bytes: content }) => {
                if content.len() as u64 != total {
                    return Err(changed(id));
                }
                if bytes + content.len() > OBJECT_PIECE_BYTES {
                    break;
                }
                bytes += content.len();
                parts.push(ObjectPart::Whole(content));
            }
            None => miss(&mut parts),
        }
        position.next += 1;
    }
    Ok(parts)
}

/// One more object is missing.
fn miss(parts: &mut Vec<ObjectPart>) {
    match parts.last_mut() {
        Some(ObjectPart::Missing(count)) => *count += 1,
        _ => parts.push(ObjectPart::Missing(1)),
    }
}

fn read_piece(source: &dyn ObjectSource, position: &mut Position, total: u64, done: u64) -> io::Result<ObjectPart> {
    let end = total.min(done + OBJECT_PIECE_BYTES as u64);
    let piece = exactly(source, position.kind, &position.ids[position.next], total, done..end)?;
    if end == total {
        position.long = None;
        position.next += 1;
    } else {
        position.long = Some((total, end));
    }
    Ok(ObjectPart::Piece(piece))
}

/// Reads a range of an object that was there a moment ago.
fn exactly(
    source: &dyn ObjectSource,
    kind: ObjectKind,
    id: &ObjectId,
    total: u64,
    range: Range<u64>,
) -> io::Result<Bytes> {
    let length = (range.end - range.start) as usize;
    match source.read(kind, id, range.start, length)? {
        Some(read) if read.total == total && read.bytes.len() == length => Ok(read.bytes),
        _ => Err(changed(id)),
    }
}

fn changed(id: &ObjectId) -> io::Error {
    io::Error::other(format!("object {id} has changed while it was read"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use soma_store::MemoryObjects;
    use soma_verify::ObjectAssembly;

    const KIND: ObjectKind = ObjectKind::OBJECT;

    /// Every message of an answer.
    fn messages(source: &dyn ObjectSource, ids: &[ObjectId]) -> io::Result<Vec<Vec<ObjectPart>>> {
        let mut position = Position { kind: KIND, ids: ids.into(), next: 0, long: None };
        let mut messages = Vec::new();
        while position.next < ids.len() {
            messages.push(read_message(source, &mut position)?);
        }
        Ok(messages)
    }

    #[test]
    fn an_answer_has_every_object_in_order_and_says_what_is_missing() {
        let source = MemoryObjects::default();
        let sizes = [0, 3, 400 << 10, 700 << 10, 1 << 20, (1 << 20) + 1, (3 << 20) + 5, 7];
        let mut ids: Vec<_> = sizes.iter().map(|size| source.put(KIND, vec![*size as u8; *size])).collect();
        let lacked = [ObjectId::of(&[b"a"]), ObjectId::of(&[b"b"])];
        ids.splice(2..2, lacked);
        let mut assembly = ObjectAssembly::new(ids.clone());
        let mut answered = Vec::new();
        for message in messages(&source, &ids).expect("they can be read") {
            assert!(message.iter().map(ObjectPart::size).sum::<usize>() <= OBJECT_PIECE_BYTES);
            answered.extend(assembly.take(message).expect("the message is right"));
        }
        let found: Vec<_> = answered.iter().map(|object| object.bytes.as_ref().map(Bytes::len)).collect();
        let expected = [vec![Some(0), Some(3), None, None], sizes[2..].iter().copied().map(Some).collect()].concat();
        assert_eq!(found, expected);
        assert!(answered.iter().enumerate().all(|(at, object)| object.position == at));
    }

    #[test]
    fn many_short_objects_travel_in_one_message() {
        let source = MemoryObjects::default();
        let ids: Vec<_> = (0..500_u32).map(|number| source.put(KIND, number.to_le_bytes().to_vec())).collect();
        assert_eq!(messages(&source, &ids).expect("they can be read").len(), 1);
    }

    #[test]
    fn an_object_that_changes_while_it_is_read_ends_the_answer() {
        struct Shrinking(std::sync::atomic::AtomicU64);
        impl ObjectSource for Shrinking {
            fn read(&self, _: ObjectKind, _: &ObjectId, _: u64, most: usize) -> io::Result<Option<ObjectBytes>> {
                let total = (4 << 20) - self.0.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
                Ok(Some(ObjectBytes { total, bytes: vec![0; most].into() }))
            }
        }
        let error = messages(&Shrinking(0.into()), &[ObjectId::default()]).expect_err("it cannot be read");
        assert!(error.to_string().contains("has changed"), "{error}");
    }
}
