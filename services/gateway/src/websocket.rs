//! The upgrade to a websocket; other requests get a problem as for every other error.

use axum::extract::FromRequestParts;
use axum::extract::ws::WebSocketUpgrade;
use axum::http::request::Parts;
use axum::http::{HeaderValue, StatusCode, header};
use berth_http::Problem;
use berth_http::drain::Drain;

/// A request that becomes a websocket.
#[derive(Debug)]
pub(crate) struct Upgrade {
    pub(crate) websocket: WebSocketUpgrade,
    /// The end of the listener that it came from.
    pub(crate) drain: Drain,
}

impl<S: Send + Sync> FromRequestParts<S> for Upgrade {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        let drain = parts.extensions.get::<Drain>().cloned().unwrap_or_default();
        let websocket = WebSocketUpgrade::from_request_parts(parts, state).await;
        websocket.map(|websocket| Self { websocket, drain }).map_err(|rejection| {
            let detail = format!("this address speaks websocket (RFC 6455): {}", rejection.body_text());
            Problem::new(StatusCode::UPGRADE_REQUIRED, "websocket_required", detail)
                .with_header(header::UPGRADE, HeaderValue::from_static("websocket"))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn an_ordinary_request_is_told_to_upgrade() {
        let (mut parts, ()) = axum::http::Request::get("/").body(()).unwrap().into_parts();
        let problem = Upgrade::from_request_parts(&mut parts, &()).await.unwrap_err();
        assert_eq!((problem.status(), problem.code()), (StatusCode::UPGRADE_REQUIRED, "websocket_required"));
    }
}
