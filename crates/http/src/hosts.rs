//! Which names a public listener answers to. A page whose own name is made to point at this machine (DNS rebinding) asks by that name, and
//! learns nothing; addresses and `localhost` cannot be pointed elsewhere.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::Arc;

use axum::Router;
use axum::extract::{Request, State};
use axum::http::uri::Authority;
use axum::http::{StatusCode, header};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::Response;

use crate::Problem;

/// The names; none are known when nobody said where users reach the server, and then every name is answered.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Hosts(Option<BTreeSet<String>>);

impl Hosts {
    /// The hosts of these origins, for example `https://berth.example.org`. One that stands for every address (`0.0.0.0`) names nothing.
    #[must_use]
    pub fn of<'a>(origins: impl IntoIterator<Item = &'a String>) -> Self {
        let host = |origin: &String| url::Url::parse(origin).ok()?.host_str().map(str::to_ascii_lowercase);
        let names: BTreeSet<String> = origins.into_iter().filter_map(host).collect();
        let anywhere = names.iter().any(|name| address(name).is_some_and(|address| address.is_unspecified()));
        Self((!names.is_empty() && !anywhere).then_some(names))
    }

    fn answers_to(&self, host: &str) -> bool {
        let Some(names) = &self.0 else { return true };
        let host = host.to_ascii_lowercase();
        host == "localhost" || address(&host).is_some() || names.contains(&host)
    }

    /// The router for requests by these names; others are told that they came to the wrong server.
    pub fn only(self, router: Router) -> Router {
        router.layer(from_fn_with_state(Arc::new(self), check))
    }
}

/// An address, with or without the brackets that a URL puts around one of IPv6.
fn address(host: &str) -> Option<IpAddr> {
    let bare = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
    bare.parse().ok()
}

async fn check(State(hosts): State<Arc<Hosts>>, request: Request, next: Next) -> Result<Response, Problem> {
    let header = || request.headers().get(header::HOST).and_then(|host| host.to_str().ok()?.parse::<Authority>().ok());
    match request.uri().authority().cloned().or_else(header) {
        Some(authority) if hosts.answers_to(authority.host()) => Ok(next.run(request).await),
        Some(authority) => {
            let detail = format!(
                "this server does not go by the name {}: set api.public_url (apart: gateway.allowed_origins) to the URL that users reach it by",
                authority.host()
            );
            Err(Problem::new(StatusCode::MISDIRECTED_REQUEST, "unknown_host", detail))
        }
        None => {
            Err(Problem::bad_request("no_host", "the request names no host that can be read: send one Host header"))
        }
    }
}

#[cfg(test)]
mod tests {
    use axum::body::Body;
    use axum::routing::get;
    use tower::ServiceExt as _;

    use super::*;

    async fn status(hosts: &Hosts, host: &str) -> u16 {
        let router = hosts.clone().only(Router::new().route("/", get(|| async {})));
        let request = axum::http::Request::get("/").header("host", host).body(Body::empty()).unwrap();
        router.oneshot(request).await.unwrap().status().as_u16()
    }

    #[tokio::test]
    async fn other_names_are_misdirected() {
        let hosts = Hosts::of(&["https://Berth.example.org:8443".to_owned()]);
        for own in
            ["berth.example.org", "BERTH.example.org:443", "localhost:7070", "127.0.0.1:7070", "[::1]", "192.0.2.7"]
        {
            assert_eq!(status(&hosts, own).await, 200, "{own}");
        }
        for other in [
            "evil.example",
            "berth.example.org.evil.example",
            "xberth.example.org",
            "localhost.evil.example",
            "127.0.0.1.nip.io",
        ] {
            assert_eq!(status(&hosts, other).await, 421, "{other}");
        }
        assert_eq!(status(&hosts, "a b").await, 400);
        // Nobody has said where users reach it.
        for unknown in
            [Hosts::of(&[]), Hosts::of(&["https://0.0.0.0:443".to_owned()]), Hosts::of(&["https://[::]".to_owned()])]
        {
            assert_eq!(status(&unknown, "berth.example.org").await, 200);
        }
    }
}
