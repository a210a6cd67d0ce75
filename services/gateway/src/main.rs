//! The gateway as a process of its own, and the installation's one public address: `berth-gateway CONFIG.toml`.
//! It carries the connections into workspaces itself and passes everything else on to api.

use axum::routing::get;

use berth_gateway::{Config, Dependencies, Gateway, Nodes};
use berth_service::Parts;

/// Every public operation, whichever service has it; the committed document, which the build checks.
const OPENAPI: &str = include_str!("../../../openapi/berth.json");

fn main() -> std::process::ExitCode {
    berth_service::main("gateway", |config: Config, context| async move {
        let nodes = Nodes::Single(context.peer("node")?);
        let dependencies = Dependencies { api: context.peer("api")?, ws_manager: context.peer("ws-manager")?, nodes };
        let proxy = context.proxy("api")?;
        let gateway = Gateway::new(config, dependencies)?;
        let follower = gateway.clone();
        let shutdown = context.shutdown;
        Ok(Parts {
            public: gateway.router().route("/openapi.json", get(openapi)).fallback_service(proxy),
            internal: axum::Router::new(),
            callers: &[],
            proxies: &[],
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

async fn openapi() -> impl axum::response::IntoResponse {
    ([(http::header::CONTENT_TYPE, "application/json")], OPENAPI)
}
