//! Spans follow a commit from the peer's push to the executor, and a call of a peer through the actors.

use soma_tests::{PATIENCE, chain, config, expect_commits, mem_store, node, start};
use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
};
use tokio::time::timeout;
use tracing::{
    Subscriber,
    field::{Field, Visit},
    span::{Attributes, Id, Record},
};
use tracing_subscriber::{
    Layer,
    filter::Targets,
    layer::{Context, SubscriberExt},
    registry::LookupSpan,
};

/// Fields of a span and of those it follows from: the first is that of the flow. A span's name is a field, too.
type Path = Vec<BTreeMap<&'static str, String>>;

/// The paths of all spans that have ended.
#[derive(Clone, Default)]
struct Ended(Arc<Mutex<Vec<Path>>>);

impl Ended {
    fn all(&self) -> Vec<Path> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

#[derive(Clone, Default)]
struct Fields(BTreeMap<&'static str, String>);

impl Visit for Fields {
    fn record_debug(&mut self, field: &Field, value: &dyn std::fmt::Debug) {
        self.0.insert(field.name(), format!("{value:?}").replace('"', ""));
    }
}

impl<S: Subscriber + for<'a> LookupSpan<'a>> Layer<S> for Ended {
    fn on_new_span(&self, attributes: &Attributes<'_>, id: &Id, context: Context<'_, S>) {
        let mut fields = Fields(BTreeMap::from([("name", attributes.metadata().name().to_owned())]));
        attributes.record(&mut fields);
        context.span(id).unwrap().extensions_mut().insert(fields);
    }

    fn on_record(&self, id: &Id, values: &Record<'_>, context: Context<'_, S>) {
        values.record(context.span(id).unwrap().extensions_mut().get_mut::<Fields>().unwrap());
    }

    fn on_close(&self, id: Id, context: Context<'_, S>) {
        let scope = context.span_scope(&id).unwrap().from_root();
        let path = scope.map(|span| span.extensions().get::<Fields>().unwrap().0.clone()).collect();
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push(path);
    }
}

/// The actors on a path, each once.
fn actors(path: &Path) -> Vec<&str> {
    let mut actors: Vec<_> = path.iter().filter_map(|span| span.get("actor")).map(String::as_str).collect();
    actors.dedup();
    actors
}

async fn until(ended: &Ended, wanted: impl Fn(&Path) -> bool) -> Path {
    let look = async {
        loop {
            if let Some(path) = ended.all().into_iter().find(&wanted) {
                return path;
            }
            tokio::task::yield_now().await;
        }
    };
    timeout(PATIENCE, look).await.unwrap_or_else(|_| panic!("no such span among {:#?}", ended.all()))
}

#[tokio::test]
async fn spans_follow_a_commit_to_the_executor_and_a_call_to_its_end() {
    let ended = Ended::default();
    let spans = ended.clone().with_filter(Targets::new().with_target("soma_flow", tracing::Level::DEBUG));
    // Of the whole process: the actors have threads of their own. No other test is in this one.
    tracing::subscriber::set_global_default(tracing_subscriber::registry().with(spans)).unwrap();

    let (mut builder, commits) = chain(5);
    let genesis = builder.genesis().clone();
    let validator = start(node(1, &genesis, mem_store(&genesis, &commits), config(&[])));
    let follower = start(node(2, &genesis, mem_store(&genesis, &[]), config(&[&validator])));
    expect_commits(&follower, &commits).await;
    let mut executor = follower.synced_commits(6);
    let commit = builder.next_commit();
    validator.send_commit(commit).await.unwrap();
    let taken = timeout(PATIENCE, executor.next()).await.unwrap().unwrap().unwrap();
    assert_eq!(taken.commit_ref.index, 6);

    let is = |span: &BTreeMap<&str, String>, field: &str, value: &str| span.get(field).is_some_and(|has| has == value);
    let pushed =
        until(&ended, |path| is(&path[0], "rpc", "PushCommit") && is(path.last().unwrap(), "name", "executor takes"));
    let pushed = pushed.await;
    assert!(is(&pushed[0], "commit", "6"), "{pushed:#?}");
    assert!(is(pushed.last().unwrap(), "highest", "6"), "{pushed:#?}");
    assert_eq!(actors(&pushed), ["peer-heights", "state-sync"], "{pushed:#?}");
    // What is done for an answer stands beside the way on, below the question.
    for actor in ["sync-worker", "verifier", "store-writer"] {
        until(&ended, |path| is(&path[0], "rpc", "PushCommit") && actors(path).last() == Some(&actor)).await;
    }
    until(&ended, |path| is(&path[0], "rpc", "FetchBlocks") && is(path.last().unwrap(), "input", "Finished")).await;
    until(&ended, |path| is(&path[0], "name", "send_commit") && actors(path).contains(&"state-sync")).await;
    follower.stop().await;
    validator.stop().await;
}
