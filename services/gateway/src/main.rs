//! The gateway as a process of its own, and the installation's one public address: `berth-gateway CONFIG.toml`.
//! It carries the connections into workspaces itself and passes everything else on to api.

use axum::extract::{Request, State};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::{IntoResponse as _, Response};
use axum::routing::{MethodRouter, get};
use berth_http::hosts::Hosts;
use berth_http::proxy::Forwarded;
use http::Method;
use tower::ServiceExt as _;

use berth_gateway::{Config, Dependencies, Gateway, Nodes};
use berth_service::Parts;

/// Every public operation, whichever service has it; the committed document, which the build checks.
const OPENAPI: &str = include_str!("../../../openapi/berth.json");

fn main() -> std::process::ExitCode {
    berth_service::main("gateway", |config: Config, context| async move {
        let nodes = Nodes::Single(context.peer("node")?);
        let dependencies = Dependencies { api: context.peer("api")?, ws_manager: context.peer("ws-manager")?, nodes };
        let proxy = context.proxy("api")?;
        let hosts = Hosts::of(&config.allowed_origins);
        let gateway = Gateway::at_the_edge(config, dependencies)?;
        let follower = gateway.clone();
        let shutdown = context.shutdown;
        let own = gateway.router().layer(from_fn_with_state(proxy.clone(), by_way_of_api));
        let public = own.route("/openapi.json", get(openapi)).fallback_service(proxy);
        Ok(Parts {
            public: hosts.only(public),
            internal: axum::Router::new(),
            callers: &[],
            proxies: &["api"],
            jobs: vec![(
                "instances",
                Box::pin(async move {
                    follower.run(shutdown).await;
                    Ok(())
                }),
            )],
        })
    })
}

/// A change goes by way of api, which knows the answers of idempotency keys, and comes back from there. The connections that last do not:
/// a restart of api must not cut them.
async fn by_way_of_api(State(api): State<MethodRouter>, request: Request, next: Next) -> Response {
    let changes = request.method() == Method::POST && request.extensions().get::<Forwarded>().is_none();
    if changes { api.oneshot(request).await.into_response() } else { next.run(request).await }
}

async fn openapi() -> impl axum::response::IntoResponse {
    ([(http::header::CONTENT_TYPE, "application/json")], OPENAPI)
}
