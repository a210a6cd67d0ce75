//! Server-sent events with JSON data.

use std::convert::Infallible;
use std::time::Duration;

use axum::response::sse::{Event, KeepAlive, Sse};
use futures::{Stream, StreamExt as _};
use serde::Serialize;

/// An event stream of JSON values, with a comment every 15 s so that dead connections are noticed.
pub fn json_stream<S, T>(stream: S) -> Sse<impl Stream<Item = Result<Event, Infallible>>>
where
    S: Stream<Item = T> + Send + 'static,
    T: Serialize,
{
    let events = stream.map(|value| {
        let data = serde_json::to_string(&value).unwrap_or_else(|error| {
            tracing::error!(%error, "an event could not be written as JSON");
            "null".to_owned()
        });
        Ok(Event::default().data(data))
    });
    Sse::new(events).keep_alive(KeepAlive::new().interval(Duration::from_secs(15)))
}
