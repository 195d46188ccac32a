//! One life of a supervised actor, as seen by its senders.

use actix::{Actor, Addr};
use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};
use tokio_util::sync::CancellationToken;

/// An incarnation with its address.
pub(crate) struct Incarnation<A: Actor> {
    pub(crate) address: Addr<A>,
    pub(crate) life: Life,
}

impl<A: Actor> Clone for Incarnation<A> {
    fn clone(&self) -> Self {
        Self { address: self.address.clone(), life: self.life.clone() }
    }
}

/// Whether an incarnation has ended, and how many messages it has not done with.
///
/// An actor's address can look alive when nobody will ever answer there: its thread is blocked, and a new incarnation
/// has taken its place. This says the truth.
#[derive(Clone, Debug, Default)]
pub struct Life {
    ended: CancellationToken,
    queued: Arc<AtomicUsize>,
}

impl Life {
    /// Resolves when the incarnation has ended.
    pub async fn ended(&self) {
        self.ended.cancelled().await;
    }

    /// Whether it has.
    pub fn has_ended(&self) -> bool {
        self.ended.is_cancelled()
    }

    /// Messages that wait in its mailbox or are being handled.
    pub fn queued(&self) -> usize {
        self.queued.load(Ordering::Relaxed)
    }

    pub(crate) fn end(&self) {
        self.ended.cancel();
    }

    pub(crate) fn queue(&self) -> Queued {
        self.queued.fetch_add(1, Ordering::Relaxed);
        Queued(self.queued.clone())
    }
}

/// Counts one message until it is dropped.
#[derive(Debug)]
pub(crate) struct Queued(Arc<AtomicUsize>);

impl Drop for Queued {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}
