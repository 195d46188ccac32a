//! A page of the whole network: nodes, links, heights and current transfers.

use axum::{
    Router,
    extract::State,
    http::{HeaderValue, header},
    response::{IntoResponse, Sse, sse::Event},
    routing::get,
};
use futures::{Stream, StreamExt, future::join_all};
use serde::Serialize;
use soma_p2p_cli::{CliError, fetch_status, node_config::RunFile, node_status::NodeStatus};
use std::{
    convert::Infallible,
    fs,
    net::{SocketAddr, TcpListener},
    path::{Path, PathBuf},
    sync::Arc,
    thread,
    time::{Duration, SystemTime, UNIX_EPOCH},
};
use tokio::{sync::watch, time::interval};
use tokio_stream::wrappers::WatchStream;

/// Time between two looks at the nodes.
const EVERY: Duration = Duration::from_secs(1);

/// A node as it was seen.
#[derive(Debug, Serialize)]
struct Node {
    name: String,
    admin: SocketAddr,
    is_well: bool,
    /// None if it did not answer.
    status: Option<NodeStatus>,
}

/// All nodes at one moment.
#[derive(Debug, Default, Serialize)]
struct Seen {
    at_ms: u64,
    nodes: Vec<Node>,
}

/// Serves the page until the process ends. Returns where.
pub(super) fn serve(address: SocketAddr, dir: &Path) -> Result<SocketAddr, CliError> {
    let failed = |error: std::io::Error| CliError::input(format!("--page {address}: {error}"));
    let listener = TcpListener::bind(address).map_err(failed)?;
    listener.set_nonblocking(true).map_err(failed)?;
    let found = listener.local_addr().map_err(failed)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(failed)?;
    let dir = dir.to_owned();
    let run = move || {
        runtime.block_on(async move {
            let (sender, seen) = watch::channel(Arc::default());
            tokio::spawn(look(dir, sender));
            match tokio::net::TcpListener::from_std(listener) {
                Ok(listener) => axum::serve(listener, routes(seen)).await,
                Err(error) => Err(error),
            }
        })
    };
    thread::Builder::new().name("page".into()).spawn(run).map_err(failed)?;
    Ok(found)
}

fn routes(seen: watch::Receiver<Arc<Seen>>) -> Router {
    let text = |kind: &'static str, text: &'static str| {
        get(move || async move { ([(header::CONTENT_TYPE, HeaderValue::from_static(kind))], text) })
    };
    Router::new()
        .route("/", text("text/html; charset=utf-8", include_str!("../../page/index.html")))
        .route("/network.css", text("text/css; charset=utf-8", include_str!("../../page/network.css")))
        .route("/network.js", text("text/javascript; charset=utf-8", include_str!("../../page/network.js")))
        .route("/events", get(events))
        .with_state(seen)
        .merge(soma_p2p_cli::common_page_routes())
}

async fn events(State(seen): State<watch::Receiver<Arc<Seen>>>) -> impl IntoResponse {
    Sse::new(stream(seen))
}

fn stream(seen: watch::Receiver<Arc<Seen>>) -> impl Stream<Item = Result<Event, Infallible>> {
    WatchStream::new(seen).filter_map(|seen| async move {
        let event = Event::default().event("network");
        // Before the first look there is nothing to show.
        if seen.nodes.is_empty() { None } else { event.json_data(&*seen).ok().map(Ok) }
    })
}

/// Looks at all nodes once a second, while a page is open.
async fn look(dir: PathBuf, sender: watch::Sender<Arc<Seen>>) {
    let mut ticks = interval(EVERY);
    loop {
        ticks.tick().await;
        // The routes have one receiver, each page another.
        if sender.receiver_count() < 2 {
            continue;
        }
        let nodes = join_all(run_files(&dir).into_iter().map(|(name, run)| ask(name, run.admin))).await;
        let at_ms = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |now| now.as_millis() as u64);
        sender.send_replace(Arc::new(Seen { at_ms, nodes }));
    }
}

async fn ask(name: String, admin: SocketAddr) -> Node {
    let status = tokio::task::spawn_blocking(move || fetch_status(admin).ok()).await.ok().flatten();
    let is_well = status.as_ref().is_some_and(|status| status.p2p.is_ready());
    Node { name, admin, is_well, status }
}

/// Nodes that run, or were killed, by name.
fn run_files(dir: &Path) -> Vec<(String, RunFile)> {
    let entries = fs::read_dir(dir).into_iter().flatten().filter_map(Result::ok);
    let mut found: Vec<_> = entries
        .filter_map(|entry| {
            let run = fs::read(entry.path().join("data/run.json")).ok()?;
            Some((entry.file_name().to_string_lossy().into_owned(), serde_json::from_slice(&run).ok()?))
        })
        .collect();
    found.sort_by(|(a, _): &(String, RunFile), (b, _)| a.cmp(b));
    found
}
