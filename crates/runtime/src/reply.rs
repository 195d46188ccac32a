//! Answers to messages.

use crate::causality;
use soma_replay::Cause;
use tokio::sync::oneshot;

/// Where an answer goes. Dropping it tells the asker that none will come.
#[derive(Debug)]
pub struct Reply<R>(oneshot::Sender<Answer<R>>);

/// An answer on its way back.
#[derive(Debug)]
struct Answer<R> {
    cause: Option<Cause>,
    content: R,
}

/// Where an answer arrives.
#[derive(Debug)]
pub struct Pending<R>(oneshot::Receiver<Answer<R>>);

impl<R> Pending<R> {
    /// Waits for the answer of `by`; `None` when there will be none. What comes next follows from it.
    pub async fn answer(self, by: &'static str) -> Option<R> {
        let Answer { cause, content } = self.0.await.ok()?;
        causality::answered(by, cause);
        Some(content)
    }
}

impl<R> Reply<R> {
    /// Answers. Whether the asker still waits is its own business.
    pub fn send(self, answer: R) {
        let _ = self.0.send(Answer { cause: causality::current(), content: answer });
    }

    /// A reply and the end at which it arrives.
    pub fn channel() -> (Self, Pending<R>) {
        let (sender, receiver) = oneshot::channel();
        (Self(sender), Pending(receiver))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::causality::{carry_from, current, following};
    use soma_replay::Origin;

    const FIRST: Option<Cause> = Some(Cause { record: 1, span: 1 });
    const SECOND: Option<Cause> = Some(Cause { record: 2, span: 1 });

    fn from(cause: Option<Cause>) -> Origin {
        Origin { cause, ..Origin::root("test") }
    }

    #[tokio::test]
    async fn what_comes_after_an_answer_follows_from_the_answer() {
        let (reply, pending) = Reply::channel();
        following(from(SECOND), || reply.send("yes"));
        let work = following(from(FIRST), || carry_from("asker", async { pending.answer("answerer").await }));
        let (answer, origin) = work.await;
        assert_eq!(answer, Some("yes"));
        assert_eq!(origin, Origin { sender: "answerer", ..from(SECOND) });
    }

    #[tokio::test]
    async fn an_answer_to_work_that_nobody_follows_leaves_no_trace_on_the_thread() {
        let (reply, pending) = Reply::channel();
        following(from(SECOND), || reply.send(()));
        pending.answer("answerer").await;
        assert_eq!(current(), None);
    }
}
