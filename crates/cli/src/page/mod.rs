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
use tokio::sync::watch;
use tokio_stream::wrappers::WatchStream;

/// Pages that may be open at the same time. Each gets the whole status up to once a second.
const MAX_OPEN_PAGES: usize = 16;

/// Nothing from elsewhere, and nothing inline.
const POLICY: HeaderValue = HeaderValue::from_static("default-src 'self'; base-uri 'none'; frame-ancestors 'none'");

/// What the page is served from.
#[derive(Clone)]
pub(crate) struct Page {
    /// What the sampler has seen.
    pub(crate) frames: watch::Receiver<Arc<Frame>>,
    /// Number of open pages.
    open: Arc<watch::Sender<usize>>,
}

/// One of the open pages, for as long as it lives.
struct OpenPage(Arc<watch::Sender<usize>>);

impl OpenPage {
    /// None if there are too many.
    fn open(page: &Page) -> Option<Self> {
        let one_more = |open: &mut usize| {
            let has_place = *open < MAX_OPEN_PAGES;
            *open += usize::from(has_place);
            has_place
        };
        page.open.send_if_modified(one_more).then(|| Self(page.open.clone()))
    }
}

impl Drop for OpenPage {
    fn drop(&mut self) {
        self.0.send_modify(|open| *open -= 1);
    }
}

/// Routes of the page.
pub(crate) fn routes(page: Page) -> Router {
    Router::new()
        .route("/", get(|| asset("text/html; charset=utf-8", include_str!("../../page/index.html"))))
        .route("/page.js", get(|| asset("text/javascript; charset=utf-8", include_str!("../../page/page.js"))))
        .route("/events", get(events))
        .with_state(page)
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

/// One event for each look at the node. The first has the whole history, and the others only new samples and events.
async fn events(State(page): State<Page>) -> Response {
    let Some(open) = OpenPage::open(&page) else {
        let reason = format!("{MAX_OPEN_PAGES} pages are open already; close one\n");
        return (StatusCode::SERVICE_UNAVAILABLE, reason).into_response();
    };
    Sse::new(stream(page.frames, open)).keep_alive(KeepAlive::default()).into_response()
}

fn stream(frames: watch::Receiver<Arc<Frame>>, open: OpenPage) -> impl Stream<Item = Result<Event, Infallible>> {
    let mut shown = 0;
    WatchStream::new(frames).filter_map(move |frame| {
        // The page counts as open for as long as its stream lives.
        let _ = &open;
        let event = frame.newer_than(shown).map(|news| Event::default().event("node").json_data(news));
        shown = frame.look();
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
