//! Which recorded message everything follows from, and to which flow it belongs: carried along, so that no actor has to
//! pass it on.
//!
//! Both are a property of the work that is being done on a thread right now. They are set while an actor carries
//! out what its core decided, put into each message that is sent meanwhile, and kept by each future that is started then.

use soma_replay::{Cause, Flow, Origin};
use std::{
    cell::RefCell,
    future::{Future, poll_fn},
    mem,
    pin::pin,
};

#[derive(Clone)]
struct Current {
    cause: Option<Cause>,
    flow: Flow,
    /// The actor that answered the last question in this work.
    answered_by: Option<&'static str>,
    /// Whether this work goes on after it has waited: answers that come meanwhile are its own.
    carried: bool,
}

const NOTHING: Current = Current { cause: None, flow: Flow::NONE, answered_by: None, carried: false };

thread_local! {
    static CURRENT: RefCell<Current> = const { RefCell::new(NOTHING) };
}

/// Restores the previous cause, even when the work panics.
struct Restore(Current);

impl Drop for Restore {
    fn drop(&mut self) {
        // Dropped here, where nothing borrows: the last of a flow tells a subscriber that it ends.
        drop(CURRENT.replace(mem::replace(&mut self.0, NOTHING)));
    }
}

/// The present cause.
pub(crate) fn current() -> Option<Cause> {
    CURRENT.with_borrow(|current| current.cause)
}

/// The origin of what `sender` sends now.
pub fn origin(sender: &'static str) -> Origin {
    CURRENT.with_borrow(|current| Origin { sender, cause: current.cause, flow: current.flow.clone() })
}

/// The present flow.
pub fn flow() -> Flow {
    CURRENT.with_borrow(|current| current.flow.clone())
}

/// Does something that belongs to no flow, because it may last as long as a link. The flow would last as long, too. The
/// cause stays.
pub fn outside_flow<R>(work: impl FnOnce() -> R) -> R {
    let outside = CURRENT.with_borrow(|current| Current { flow: Flow::NONE, ..current.clone() });
    let _restore = Restore(CURRENT.replace(outside));
    work()
}

/// Does something that follows from what `origin` follows from.
pub fn following<R>(origin: Origin, work: impl FnOnce() -> R) -> R {
    let Origin { cause, flow, .. } = origin;
    let _restore = Restore(CURRENT.replace(Current { cause, flow, ..NOTHING }));
    work()
}

/// What comes next in this work follows from an answer.
pub(crate) fn answered(by: &'static str, cause: Option<Cause>) {
    CURRENT.with_borrow_mut(|current| {
        if current.carried {
            // Where nothing is recorded at the other end, the chain goes on from the question.
            (current.cause, current.answered_by) = (cause.or(current.cause), Some(by));
        }
    });
}

/// Work with the present cause, wherever and whenever it is polled. Its result comes with its
/// origin: the actor that answered the last question in it, or else `sender`.
pub fn carry_from<T: Future>(sender: &'static str, work: T) -> impl Future<Output = (T::Output, Origin)> {
    let present = CURRENT.with_borrow(|current| Current { carried: true, answered_by: None, ..current.clone() });
    carry_current(sender, present, work)
}

async fn carry_current<T: Future>(sender: &'static str, mut current: Current, work: T) -> (T::Output, Origin) {
    let mut work = pin!(work);
    let output = poll_fn(|context| {
        let restore = Restore(CURRENT.replace(mem::replace(&mut current, NOTHING)));
        let polled = work.as_mut().poll(context);
        current = CURRENT.replace(NOTHING);
        drop(restore);
        polled
    })
    .await;
    let sender = current.answered_by.unwrap_or(sender);
    (output, Origin { sender, cause: current.cause, flow: current.flow })
}

/// Work that begins a flow.
pub async fn in_flow<T: Future>(flow: Flow, work: T) -> T::Output {
    carry_current("", Current { flow, carried: true, ..NOTHING }, work).await.0
}

/// Work with the present cause, wherever and whenever it is polled.
pub fn carry<T: Future>(work: T) -> impl Future<Output = T::Output> {
    let carried = carry_from("", work);
    async move { carried.await.0 }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::thread;

    const FIRST: Option<Cause> = Some(Cause { record: 1, span: 1 });

    fn from(cause: Option<Cause>) -> Origin {
        Origin { cause, ..Origin::root("test") }
    }

    #[tokio::test]
    async fn work_follows_from_what_started_it_wherever_it_is_polled() {
        let work = following(from(FIRST), || carry(async { current() }));
        assert_eq!(current(), None);
        let polled = thread::spawn(|| futures::executor::block_on(work)).join().unwrap();
        assert_eq!(polled, FIRST);
    }

    #[test]
    fn a_panic_leaves_no_trace_on_the_thread() {
        let panicked = std::panic::catch_unwind(|| following(from(FIRST), || panic!("on purpose")));
        assert!(panicked.is_err());
        assert_eq!(current(), None);
    }
}
