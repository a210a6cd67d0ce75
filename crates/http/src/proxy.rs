//! A reverse proxy: requests as they come, to one other server of the installation. Upgrades (websockets) pass through.

use axum::Router;
use axum::body::Body;
use axum::extract::{ConnectInfo, Request, State};
use axum::response::{IntoResponse as _, Response};
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode, Uri, header};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioIo};

use crate::Problem;

/// Headers that belong to one connection (RFC 9110 §7.6.1).
const HOP_BY_HOP: [HeaderName; 6] = [
    header::CONNECTION,
    header::PROXY_AUTHENTICATE,
    header::PROXY_AUTHORIZATION,
    header::TE,
    header::TRAILER,
    header::TRANSFER_ENCODING,
];

/// An address that cannot be proxied to.
#[derive(Debug, thiserror::Error)]
#[error("{0:?} is not an address to pass requests to: write http://HOST:PORT")]
pub struct BadTarget(String);

#[derive(Clone)]
struct Target {
    authority: http::uri::Authority,
    client: Client<HttpConnector, Body>,
}

/// A router that passes everything to `base` (`http://host:port`).
///
/// # Errors
/// When `base` is not of that form.
pub fn to(base: &str) -> Result<Router, BadTarget> {
    let bad = || BadTarget(base.to_owned());
    let uri: Uri = base.parse().map_err(|_| bad())?;
    let authority = uri.authority().filter(|_| uri.scheme_str() == Some("http")).cloned().ok_or_else(bad)?;
    let client = Client::builder(TokioExecutor::new()).build_http();
    Ok(Router::new().fallback(pass).with_state(Target { authority, client }))
}

async fn pass(State(target): State<Target>, mut request: Request) -> Response {
    let path = request.uri().path_and_query().map_or("/", http::uri::PathAndQuery::as_str).to_owned();
    let Ok(uri) = Uri::builder().scheme("http").authority(target.authority.clone()).path_and_query(path).build() else {
        return Problem::bad_request("invalid_path", "the path cannot be passed on").into_response();
    };
    *request.uri_mut() = uri;
    *request.version_mut() = http::Version::HTTP_11;
    let upgrade = request.headers().get(header::UPGRADE).cloned();
    if let Some(ConnectInfo(address)) = request.extensions().get::<ConnectInfo<std::net::SocketAddr>>()
        && let Ok(value) = HeaderValue::from_str(&address.ip().to_string())
    {
        // What a client claims of itself does not count: the first trusted hop says where it came from.
        request.headers_mut().insert("x-forwarded-for", value);
    }
    let client_side = hyper::upgrade::on(&mut request);
    strip(request.headers_mut(), upgrade.as_ref());
    let mut response = match target.client.request(request).await {
        Ok(response) => response.map(Body::new),
        Err(error) => {
            return Problem::unavailable("a part of the server cannot be reached; try again")
                .with_source(error)
                .into_response();
        }
    };
    if response.status() == StatusCode::SWITCHING_PROTOCOLS {
        let server_side = hyper::upgrade::on(&mut response);
        tokio::spawn(async move {
            if let (Ok(client), Ok(server)) = tokio::join!(client_side, server_side) {
                // Either end may leave at any time.
                let _ = tokio::io::copy_bidirectional(&mut TokioIo::new(client), &mut TokioIo::new(server)).await;
            }
        });
    }
    let upgraded = response.headers().get(header::UPGRADE).cloned();
    strip(response.headers_mut(), upgraded.as_ref());
    response
}

fn strip(headers: &mut HeaderMap, upgrade: Option<&HeaderValue>) {
    for name in HOP_BY_HOP {
        headers.remove(name);
    }
    if let Some(protocol) = upgrade {
        headers.insert(header::UPGRADE, protocol.clone());
        headers.insert(header::CONNECTION, HeaderValue::from_static("upgrade"));
    }
}
