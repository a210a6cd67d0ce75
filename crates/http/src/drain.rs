//! The end of a listener, as a request sees it that would go on for long.

use axum::body::Body;
use axum::http::header;
use axum::response::Response;
use futures::StreamExt as _;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tokio_util::task::task_tracker::TaskTrackerToken;

/// An extension of each request that [`serve`](crate::serve::serve()) takes. A default one never begins.
#[derive(Clone, Debug, Default)]
pub struct Drain {
    begun: CancellationToken,
    held: TaskTracker,
}

impl Drain {
    pub(crate) fn of(shutdown: CancellationToken) -> Self {
        Self { begun: shutdown, held: TaskTracker::new() }
    }

    /// Returns when the listener is to close: say so to the peer, and end.
    pub async fn begun(&self) {
        self.begun.cancelled().await;
    }

    /// While it is kept, the listener waits for its owner, within the time that requests have to end. For what has left its request, as a
    /// websocket has.
    pub fn hold(&self) -> TaskTrackerToken {
        self.held.token()
    }

    /// Returns when nothing holds it.
    pub(crate) async fn released(&self) {
        self.held.close();
        self.held.wait().await;
    }

    /// Server-sent events would never end by themselves: they end, whole, when the listener is to close. Clients connect again.
    pub(crate) fn end_events(&self, response: Response) -> Response {
        let events = response
            .headers()
            .get(header::CONTENT_TYPE)
            .is_some_and(|value| value.as_bytes().starts_with(b"text/event-stream"));
        if !events {
            return response;
        }
        let begun = self.begun.clone().cancelled_owned();
        response.map(|body| Body::from_stream(body.into_data_stream().take_until(begun)))
    }
}
