//! The status page: one page of HTML for people, live through server-sent events.
//!
//! The page, its style and its script are in the binary. The browser contacts no other host; the header
//! `Content-Security-Policy` has it refuse to.

mod events;
mod sampler;

pub(crate) use sampler::{Frame, Sampler};

use axum::{
    Router,
    extract::State,
    http::{HeaderName, HeaderValue, StatusCode, header},
    response::{
        IntoResponse, Response, Sse,
        sse::{Event, KeepAlive},
    },
    routing::get,
};
use futures::{Stream, StreamExt};
use std::{convert::Infallible, sync::Arc};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio_stream::wrappers::WatchStream;

/// Pages that may be open at the same time. Each gets the whole status once a second.
const MAX_OPEN_PAGES: usize = 16;

/// Nothing from elsewhere, and nothing inline.
const POLICY: HeaderValue = HeaderValue::from_static("default-src 'self'; base-uri 'none'; frame-ancestors 'none'");

/// What the page is served from.
#[derive(Clone)]
struct Page {
    frames: watch::Receiver<Arc<Frame>>,
    open: Arc<Semaphore>,
}

/// Routes of the page.
pub(crate) fn routes(frames: watch::Receiver<Arc<Frame>>) -> Router {
    Router::new()
        .route("/", get(|| asset("text/html; charset=utf-8", include_str!("../../page/index.html"))))
        .route("/page.js", get(|| asset("text/javascript; charset=utf-8", include_str!("../../page/page.js"))))
        .route("/events", get(events))
        .with_state(Page { frames, open: Arc::new(Semaphore::new(MAX_OPEN_PAGES)) })
        .merge(common())
}

/// Routes of what the pages of a node and of a network share: `/page.css`, `/common.js` and `/icon.svg`.
pub fn common() -> Router {
    Router::new()
        .route("/common.js", get(|| asset("text/javascript; charset=utf-8", include_str!("../../page/common.js"))))
        .route("/page.css", get(|| asset("text/css; charset=utf-8", include_str!("../../page/page.css"))))
        .route("/icon.svg", get(|| asset("image/svg+xml", include_str!("../../page/icon.svg"))))
}

async fn asset(kind: &'static str, text: &'static str) -> impl IntoResponse {
    let kind = (header::CONTENT_TYPE, HeaderValue::from_static(kind));
    // A newer program has another page.
    let cache = (header::CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    let policy: (HeaderName, HeaderValue) = (header::CONTENT_SECURITY_POLICY, POLICY);
    ([kind, cache, policy], text)
}

/// One event a second. The first has the whole history, and the others only new samples and events.
async fn events(State(page): State<Page>) -> Response {
    let Ok(permit) = page.open.try_acquire_owned() else {
        let reason = format!("{MAX_OPEN_PAGES} pages are open already; close one\n");
        return (StatusCode::SERVICE_UNAVAILABLE, reason).into_response();
    };
    Sse::new(stream(page.frames, permit)).keep_alive(KeepAlive::default()).into_response()
}

fn stream(
    frames: watch::Receiver<Arc<Frame>>,
    permit: OwnedSemaphorePermit,
) -> impl Stream<Item = Result<Event, Infallible>> {
    let mut shown_ms = None;
    WatchStream::new(frames).filter_map(move |frame| {
        // The page counts as open for as long as its stream lives.
        let _ = &permit;
        let event = frame.newer_than(shown_ms).map(|news| Event::default().event("node").json_data(news));
        shown_ms = frame.at_ms().or(shown_ms);
        let event = event.and_then(|event| match event {
            Ok(event) => Some(Ok(event)),
            Err(error) => {
                tracing::error!(%error, "status cannot be written as JSON");
                None
            }
        });
        std::future::ready(event)
    })
}
