//! Which recorded message everything follows from: carried along, so that no actor has to pass it on.
//!
//! The cause is a property of the work that is being done on a thread right now. It is set while an actor carries out
//! what its core decided, put into each message that is sent meanwhile, and kept by each future that is started then.

use soma_replay::{Cause, Origin};
use std::{
    cell::Cell,
    future::{Future, poll_fn},
    pin::pin,
};

#[derive(Clone, Copy)]
struct Current {
    cause: Option<Cause>,
    /// The actor that answered the last question in this work.
    answered_by: Option<&'static str>,
    /// Whether this work goes on after it has waited: answers that come meanwhile are its own.
    carried: bool,
}

const NOTHING: Current = Current { cause: None, answered_by: None, carried: false };

thread_local! {
    static CURRENT: Cell<Current> = const { Cell::new(NOTHING) };
}

/// Restores the previous cause, even when the work panics.
struct Restore(Current);

impl Drop for Restore {
    fn drop(&mut self) {
        CURRENT.set(self.0);
    }
}

/// The present cause.
pub fn current() -> Option<Cause> {
    CURRENT.get().cause
}

/// Does something that follows from `cause`.
pub fn following<R>(cause: Option<Cause>, work: impl FnOnce() -> R) -> R {
    let _restore = Restore(CURRENT.replace(Current { cause, ..NOTHING }));
    work()
}

/// What comes next in this work follows from an answer.
pub(crate) fn answered(by: &'static str, cause: Option<Cause>) {
    let current = CURRENT.get();
    if current.carried {
        // Where nothing is recorded at the other end, the chain goes on from the question.
        CURRENT.set(Current { cause: cause.or(current.cause), answered_by: Some(by), ..current });
    }
}

/// Work with the present cause, wherever and whenever it is polled. Its result comes with its
/// origin: the actor that answered the last question in it, or else `sender`.
pub fn carry_from<T: Future>(sender: &'static str, work: T) -> impl Future<Output = (T::Output, Origin)> {
    let mut current = Current { cause: current(), carried: true, ..NOTHING };
    async move {
        let mut work = pin!(work);
        let output = poll_fn(|context| {
            let _restore = Restore(CURRENT.replace(current));
            let polled = work.as_mut().poll(context);
            current = CURRENT.get();
            polled
        })
        .await;
        (output, Origin { sender: current.answered_by.unwrap_or(sender), cause: current.cause })
    }
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

    #[tokio::test]
    async fn work_follows_from_what_started_it_wherever_it_is_polled() {
        let work = following(FIRST, || carry(async { current() }));
        assert_eq!(current(), None);
        let polled = thread::spawn(|| futures::executor::block_on(work)).join().unwrap();
        assert_eq!(polled, FIRST);
    }

    #[test]
    fn a_panic_leaves_no_trace_on_the_thread() {
        let panicked = std::panic::catch_unwind(|| following(FIRST, || panic!("on purpose")));
        assert!(panicked.is_err());
        assert_eq!(current(), None);
    }
}
