//! Spans follow a commit from the peer's push to the executor, and a call of a peer through the actors.

use soma_tests::{PATIENCE, chain, config, expect_commits, mem_store, node, start};
use std::{collections::BTreeMap, sync::Arc};
use tokio::{sync::watch, time::timeout};
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

/// The spans of the process.
#[derive(Default)]
struct Spans {
    /// The paths of those that have ended.
    ended: Vec<Path>,
    open: usize,
}

/// Follows all spans.
#[derive(Clone)]
struct Follower(Arc<watch::Sender<Spans>>);

#[derive(Clone, Default)]
struct Fields(BTreeMap<&'static str, String>);

impl Visit for Fields {
    fn record_debug(&mut self, field: &Field, value: &dyn std::fmt::Debug) {
        self.0.insert(field.name(), format!("{value:?}").replace('"', ""));
    }
}

impl<S: Subscriber + for<'a> LookupSpan<'a>> Layer<S> for Follower {
    fn on_new_span(&self, attributes: &Attributes<'_>, id: &Id, context: Context<'_, S>) {
        let mut fields = Fields(BTreeMap::from([("name", attributes.metadata().name().to_owned())]));
        attributes.record(&mut fields);
        context.span(id).unwrap().extensions_mut().insert(fields);
        self.0.send_modify(|spans| spans.open += 1);
    }

    fn on_record(&self, id: &Id, values: &Record<'_>, context: Context<'_, S>) {
        values.record(context.span(id).unwrap().extensions_mut().get_mut::<Fields>().unwrap());
    }

    fn on_close(&self, id: Id, context: Context<'_, S>) {
        let scope = context.span_scope(&id).unwrap().from_root();
        let path = scope.map(|span| span.extensions().get::<Fields>().unwrap().0.clone()).collect();
        self.0.send_modify(|spans| {
            spans.open -= 1;
            spans.ended.push(path);
        });
    }
}

/// The actors on a path, each once.
fn actors(path: &Path) -> Vec<&str> {
    let mut actors: Vec<_> = path.iter().filter_map(|span| span.get("actor")).map(String::as_str).collect();
    actors.dedup();
    actors
}

/// Waits for a span to end.
async fn until(spans: &watch::Sender<Spans>, wanted: impl Fn(&Path) -> bool) -> Path {
    let mut seen = spans.subscribe();
    let found = timeout(PATIENCE, seen.wait_for(|spans| spans.ended.iter().any(&wanted))).await;
    let found = found.map(|spans| spans.unwrap().ended.iter().find(|path| wanted(path)).cloned());
    found.ok().flatten().unwrap_or_else(|| panic!("no such span among {:#?}", spans.borrow().ended))
}

#[tokio::test]
async fn spans_follow_a_commit_to_the_executor_and_a_call_to_its_end() {
    let spans = Arc::new(watch::Sender::default());
    let flows = Targets::new().with_target("p2p_flow", tracing::Level::DEBUG);
    let follower_of_spans = Follower(spans.clone()).with_filter(flows);
    // Of the whole process: the actors have threads of their own. No other test is in this one.
    tracing::subscriber::set_global_default(tracing_subscriber::registry().with(follower_of_spans)).unwrap();

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
        until(&spans, |path| is(&path[0], "rpc", "PushCommit") && is(path.last().unwrap(), "name", "executor takes"));
    let pushed = pushed.await;
    assert!(is(&pushed[0], "commit", "6"), "{pushed:#?}");
    assert!(is(pushed.last().unwrap(), "highest", "6"), "{pushed:#?}");
    assert_eq!(actors(&pushed), ["peer-heights", "state-sync"], "{pushed:#?}");
    // What is done for an answer stands beside the way on, below the question.
    for actor in ["sync-worker", "verifier", "store-writer"] {
        until(&spans, |path| is(&path[0], "rpc", "PushCommit") && actors(path).last() == Some(&actor)).await;
    }
    until(&spans, |path| is(&path[0], "rpc", "FetchBlocks") && is(path.last().unwrap(), "input", "Finished")).await;
    until(&spans, |path| is(&path[0], "name", "send_commit") && actors(path).contains(&"state-sync")).await;
    // The links last, and no flow lasts as long as they. What the executor has taken is let go when it asks for more.
    let more = tokio::spawn(async move { executor.next().await });
    let mut seen = spans.subscribe();
    assert!(
        timeout(PATIENCE, seen.wait_for(|spans| spans.open == 0)).await.is_ok(),
        "{} are open",
        spans.borrow().open
    );
    follower.stop().await;
    validator.stop().await;
    assert!(more.await.unwrap().is_none());
}
