//! One call: reads an answer and checks it, message by message.

use futures::{StreamExt, future::LocalBoxFuture};
use soma_network::{
    Link,
    wire::{Call, CallError, ObjectIds, Status},
};
use soma_runtime::{ExitReason, Offload};
use soma_types::{Fault, ObjectPart, PeerFailure};
use soma_verify::{AnsweredObject, ObjectAssembly};
use std::sync::Arc;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};

/// Bytes of all incomplete long objects together.
pub(super) const LONG_OBJECT_BYTES: usize = 128 << 20;

/// How a call ended.
#[derive(Debug)]
pub(super) struct CallEnd {
    /// What went wrong.
    pub(super) failure: Option<PeerFailure>,
    /// Whether the peer has no objects at all.
    pub(super) is_unsupported: bool,
}

impl CallEnd {
    pub(super) fn of(error: &CallError) -> Self {
        Self { failure: Some(error.failure()), is_unsupported: error.status == Status::Unimplemented }
    }

    pub(super) fn failed(fault: Fault, reason: impl Into<String>) -> Self {
        Self { failure: Some(PeerFailure::new(fault, reason)), is_unsupported: false }
    }
}

/// Objects on their way from a peer to the actor.
#[derive(Debug)]
pub(super) struct AnswerPart {
    pub(super) objects: Vec<AnsweredObject>,
    /// How the call ended, if these are its last.
    pub(super) end: Option<CallEnd>,
}

/// A call that is being answered. Dropping it ends the call.
pub(super) struct Answering {
    pub(super) parts: mpsc::Receiver<AnswerPart>,
    pub(super) reading: LocalBoxFuture<'static, Result<(), ExitReason>>,
}

/// What a call needs of this node.
#[derive(Clone)]
pub(super) struct CallResources {
    pub(super) offload: Offload,
    /// Room for long objects.
    pub(super) room: Arc<Semaphore>,
}

/// Asks, and hands on the objects of each message. What came before a failure counts.
pub(super) async fn answer(
    link: Option<Link>,
    call: Call,
    ids: Result<ObjectIds, CallError>,
    resources: CallResources,
    parts: &mpsc::Sender<AnswerPart>,
) {
    let Some(link) = link else { return end(parts, CallEnd::of(&CallError::connection_gone())).await };
    let ids = match ids {
        Ok(ids) => ids,
        // This node has asked for something that no peer may be asked for.
        Err(error) => return end(parts, CallEnd::failed(Fault::Ours, error.to_string())).await,
    };
    let mut assembly = ObjectAssembly::new(ids.as_slice().to_vec());
    let mut room = None;
    let mut answer = match link.api().fetch_objects(call, ids).await {
        Ok(answer) => answer,
        Err(error) => return end(parts, CallEnd::of(&error)).await,
    };
    while let Some(message) = answer.next().await {
        let message = match message {
            Ok(message) => message,
            Err(error) => return end(parts, CallEnd::of(&error)).await,
        };
        if let Some(bytes) = message.iter().find_map(long_object) {
            // The long object before ends in this message. Calls that hold room while they wait for more would block
            // each other.
            drop(room.take());
            room = reserve(&resources.room, bytes).await;
        }
        let check = move || {
            let taken = assembly.take(message);
            (assembly, taken)
        };
        let taken;
        (assembly, taken) = match resources.offload.run(check).await {
            Ok(checked) => checked,
            Err(exit) => return end(parts, CallEnd::failed(Fault::Ours, format!("the check {exit}"))).await,
        };
        let (objects, failure) = match taken {
            Ok(objects) => (objects, None),
            Err((objects, failure)) => (objects, Some(failure)),
        };
        let end = failure.map(|failure| CallEnd { failure: Some(failure), is_unsupported: false });
        let is_over = end.is_some();
        if !assembly.is_in_pieces() {
            room = None;
        }
        if objects.is_empty() && !is_over {
            // A long object is not complete.
            continue;
        }
        let is_gone = parts.send(AnswerPart { objects, end }).await.is_err();
        if is_gone || is_over {
            return;
        }
    }
    drop(room);
    end(parts, CallEnd { failure: None, is_unsupported: false }).await;
}

async fn end(parts: &mpsc::Sender<AnswerPart>, end: CallEnd) {
    // An actor that no longer waits needs no end.
    let _ = parts.send(AnswerPart { objects: Vec::new(), end: Some(end) }).await;
}

fn long_object(part: &ObjectPart) -> Option<u64> {
    match part {
        ObjectPart::Tree(tree) => Some(tree.bytes()),
        _ => None,
    }
}

/// Waits for room for a long object, in units of KiB.
async fn reserve(room: &Arc<Semaphore>, bytes: u64) -> Option<OwnedSemaphorePermit> {
    let units = u32::try_from(bytes.div_ceil(1 << 10)).unwrap_or(u32::MAX);
    // The semaphore is never closed.
    room.clone().acquire_many_owned(units).await.ok()
}

/// Room for long objects, in units of KiB.
pub(super) fn room() -> Arc<Semaphore> {
    Arc::new(Semaphore::new(LONG_OBJECT_BYTES >> 10))
}
