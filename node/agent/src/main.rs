//! The node agent as a process of its own: `berth-node CONFIG.toml`. Speaks to the Kubernetes API that KUBECONFIG or the cluster names.

use std::sync::Arc;

use anyhow::Context as _;
use berth_node::{Config, Deps, NodeAgent, ScmCredentials};
use berth_service::Parts;

fn main() -> std::process::ExitCode {
    berth_service::main("node", |config: Config, context| async move {
        config.validate()?;
        let client = kube::Client::try_default().await.context("no Kubernetes API: set KUBECONFIG")?;
        let deps =
            Deps { clock: context.clock.clone(), credentials: Arc::new(ScmCredentials::new(context.peer("scm")?)) };
        let agent = tokio::task::block_in_place(|| NodeAgent::new(config, client, deps))?;
        let internal = agent.internal_router();
        let shutdown = context.shutdown;
        let job = Box::pin(async move {
            agent.run(shutdown).await;
            Ok(())
        });
        let callers = &["gateway", "automations"];
        Ok(Parts { public: axum::Router::new(), internal, callers, jobs: vec![("agent", job)] })
    })
}
