//! What a shell promises to its core.

use actix::{Actor, Addr, Context, Handler};
use serde::{Deserialize, Serialize};
use soma_protocol::{Core, Now};
use soma_replay::Origin;
use soma_runtime::Envelope;
use soma_runtime::{Clock, CoreHost, RuntimeContext, Shell};
use std::time::Duration;
use tokio::{
    task::LocalSet,
    time::{Instant, sleep_until},
};

const PERIOD: Duration = Duration::from_secs(1);

/// Wants to be woken every second, and moves that time when it is told to.
#[derive(Default, Serialize, Deserialize)]
struct Metronome {
    next: Duration,
    wakes: Vec<Duration>,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
enum Input {
    Wake,
    Restart,
}

impl Core for Metronome {
    type Input = Input;
    type Effect = ();
    type Snapshot = Vec<Duration>;

    const NAME: &'static str = "metronome";

    fn handle(&mut self, now: Now, input: Input) -> Vec<()> {
        if let Input::Wake = input {
            self.wakes.push(now.monotonic);
        }
        self.next = now.monotonic + PERIOD;
        Vec::new()
    }

    fn wake() -> Option<Input> {
        Some(Input::Wake)
    }

    fn next_wake(&self) -> Option<Duration> {
        Some(self.next)
    }

    fn snapshot(&self) -> Vec<Duration> {
        self.wakes.clone()
    }
}

struct Subject(CoreHost<Metronome>);

impl Actor for Subject {
    type Context = Context<Self>;

    fn started(&mut self, context: &mut Context<Self>) {
        self.feed(Origin::root("test"), Input::Restart, context);
    }
}

impl Shell for Subject {
    type Core = Metronome;

    fn host(&mut self) -> &mut CoreHost<Metronome> {
        &mut self.0
    }

    fn perform(&mut self, (): (), _: &mut Context<Self>) {}
}

impl Handler<Envelope<Input>> for Subject {
    type Result = ();

    fn handle(&mut self, envelope: Envelope<Input>, context: &mut Context<Self>) {
        self.feed(envelope.origin, envelope.message, context);
    }
}

/// Answers with the wakes so far.
struct Wakes;

impl actix::Message for Wakes {
    type Result = Vec<Duration>;
}

impl Handler<Wakes> for Subject {
    type Result = Vec<Duration>;

    fn handle(&mut self, _: Wakes, _: &mut Context<Self>) -> Vec<Duration> {
        self.0.snapshot()
    }
}

#[tokio::test(start_paused = true)]
async fn core_has_one_timer_even_if_messages_arrive_when_it_is_due() {
    LocalSet::new()
        .run_until(async {
            let runtime_context = RuntimeContext::new(Clock::simulated(0));
            let start = Instant::now();
            let subject: Addr<Subject> = Subject(CoreHost::new(Metronome::default(), runtime_context)).start();
            for coincidence in 1..=5 {
                // Timers of one instant fire in the order in which they were set: this one was set later.
                sleep_until(start + coincidence * PERIOD).await;
                subject.send(Envelope::new(Origin::root("test"), Input::Restart)).await.unwrap();
            }
            let before = subject.send(Wakes).await.unwrap().len();
            sleep_until(start + 15 * PERIOD + PERIOD / 2).await;
            let after = subject.send(Wakes).await.unwrap();
            assert_eq!(after.len() - before, 10, "one wake a second, from 6 s to 15 s: {after:?}");
        })
        .await;
}
