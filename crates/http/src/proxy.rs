//! A reverse proxy: forwards requests unchanged to one other service of the installation. Upgrades (websockets) pass through.
//!
//! The proxy says where a request came from (`X-Forwarded-For`), and proves with a service token of its own that it may say so; [`behind`] is
//! the other end, which trusts nobody else.

use std::net::{IpAddr, SocketAddr};

use axum::Router;
use axum::body::Body;
use axum::extract::{ConnectInfo, Request, State};
use axum::middleware::Next;
use axum::response::{IntoResponse as _, Response};
use axum::routing::{MethodRouter, any};
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode, Uri, header};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioIo};

use crate::Problem;
use crate::service_auth::{RequireService, ServiceTokens};

/// Where the request came from. Replaced at the first hop: a client's own claim does not count.
const FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
/// The proxy's service token. `Authorization` is the user's.
const FORWARDED_BY: HeaderName = HeaderName::from_static("berth-forwarded-by");

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
    service: &'static str,
    authority: http::uri::Authority,
    client: Client<HttpConnector, Body>,
    tokens: ServiceTokens,
}

/// A route that passes every request to the public listener of `service`, at `base` (`http://host:port`).
///
/// # Errors
/// When `base` is not of that form.
pub fn to(service: &'static str, base: &str, tokens: ServiceTokens) -> Result<MethodRouter, BadTarget> {
    let bad = || BadTarget(base.to_owned());
    let uri: Uri = base.parse().map_err(|_| bad())?;
    let authority = uri.authority().filter(|_| uri.scheme_str() == Some("http")).cloned().ok_or_else(bad)?;
    let mut connector = HttpConnector::new();
    connector.set_nodelay(true);
    let client = Client::builder(TokioExecutor::new()).build(connector);
    Ok(any(pass).with_state(Target { service, authority, client, tokens }))
}

/// In the extensions of a request that another service of the installation passed on.
#[derive(Clone, Copy, Debug)]
pub struct Forwarded;

/// Trusts what the installation's own proxies say about a request's origin: it becomes its [`ConnectInfo`].
pub fn behind(proxies: RequireService, router: Router) -> Router {
    router.layer(axum::middleware::from_fn_with_state(proxies, believe))
}

async fn believe(State(proxies): State<RequireService>, mut request: Request, next: Next) -> Result<Response, Problem> {
    let address = request.headers_mut().remove(FORWARDED_FOR);
    if let Some(token) = request.headers_mut().remove(FORWARDED_BY) {
        proxies.verify(token.to_str().unwrap_or_default())?;
        request.extensions_mut().insert(Forwarded);
        if let Some(address) = address.and_then(|value| value.to_str().ok()?.parse::<IpAddr>().ok()) {
            request.extensions_mut().insert(ConnectInfo(SocketAddr::new(address, 0)));
        }
    }
    Ok(next.run(request).await)
}

async fn pass(State(target): State<Target>, mut request: Request) -> Response {
    let path = request.uri().path_and_query().map_or("/", http::uri::PathAndQuery::as_str).to_owned();
    let Ok(uri) = Uri::builder().scheme("http").authority(target.authority.clone()).path_and_query(path).build() else {
        return Problem::bad_request("invalid_path", "the path cannot be passed on").into_response();
    };
    *request.uri_mut() = uri;
    *request.version_mut() = http::Version::HTTP_11;
    let upgrade = request.headers().get(header::UPGRADE).cloned();
    let address = request.extensions().get::<ConnectInfo<SocketAddr>>().map(|ConnectInfo(address)| address.ip());
    let headers = request.headers_mut();
    headers.remove(FORWARDED_FOR);
    if let Some(value) = address.and_then(|address| HeaderValue::from_str(&address.to_canonical().to_string()).ok()) {
        headers.insert(FORWARDED_FOR, value);
    }
    let Ok(mut token) = HeaderValue::from_str(&target.tokens.token_for(target.service)) else {
        return Problem::internal("a service token is no header value").into_response();
    };
    token.set_sensitive(true);
    headers.insert(FORWARDED_BY, token);
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
                crate::relay(TokioIo::new(client), TokioIo::new(server)).await;
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
