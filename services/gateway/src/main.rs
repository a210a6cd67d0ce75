//! The gateway as a process of its own: `berth-gateway CONFIG.toml`.

use berth_gateway::{Config, Dependencies, Gateway, Nodes};
use berth_service::Parts;

fn main() -> std::process::ExitCode {
    berth_service::main("gateway", |config: Config, context| async move {
        let nodes = Nodes::Single(context.peer("node")?);
        let dependencies = Dependencies { api: context.peer("api")?, ws_manager: context.peer("ws-manager")?, nodes };
        let gateway = Gateway::new(config, dependencies)?;
        let follower = gateway.clone();
        let shutdown = context.shutdown;
        Ok(Parts {
            public: gateway.router(),
            internal: axum::Router::new(),
            callers: &[],
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
