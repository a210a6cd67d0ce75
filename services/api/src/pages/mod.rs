//! What a browser sees at `/` and at the set-up link, until there is a dashboard: make the first administrator, sign in, make a token.
//!
//! Three static files on the API's own origin, under a content security policy that lets them run and call nothing else.

use axum::Router;
use axum::http::{HeaderName, HeaderValue, header};
use axum::routing::get;
use tower_http::set_header::SetResponseHeaderLayer;

const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src data:; \
                      base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

const HEADERS: [(HeaderName, &str); 4] = [
    (header::CONTENT_SECURITY_POLICY, POLICY),
    (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
    (header::REFERRER_POLICY, "no-referrer"),
    (header::CACHE_CONTROL, "no-cache"),
];

/// The page and its files.
pub(crate) fn router() -> Router {
    let page = file("text/html; charset=utf-8", include_str!("welcome.html"));
    let mut router = Router::new()
        .route("/", page.clone())
        .route("/setup", page)
        .route("/welcome.css", file("text/css", include_str!("welcome.css")))
        .route("/welcome.js", file("text/javascript", include_str!("welcome.js")));
    for (name, value) in HEADERS {
        router = router.layer(SetResponseHeaderLayer::if_not_present(name, HeaderValue::from_static(value)));
    }
    router
}

fn file(content_type: &'static str, text: &'static str) -> axum::routing::MethodRouter {
    get(move || std::future::ready(([(header::CONTENT_TYPE, content_type)], text)))
}
