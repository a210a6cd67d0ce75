//! ws-manager as a process of its own: `berth-ws-manager CONFIG.toml`. In a cluster it speaks to the cluster's API server; elsewhere it serves the
//! embedded Kubernetes API itself, for the node agent and kubectl.

use std::path::PathBuf;
use std::sync::Arc;

use anyhow::Context as _;
use berth_http::service_auth::{KUBERNETES_AUDIENCE, RequireService};
use berth_http::{Listener, ServeOptions};
use berth_kube_embedded::{Authenticator, Builder, Store, Tokens, User};
use berth_service::Parts;
use berth_ws_manager::WsManager;
use serde::{Deserialize, Serialize};

/// `[service]` of the configuration.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Config {
    /// The controller's settings.
    manager: berth_ws_manager::Config,
    /// The embedded Kubernetes API; `None`: the cluster that the environment names.
    embedded: Option<Embedded>,
}

/// The embedded Kubernetes API.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Embedded {
    /// Address of its TLS listener.
    listen: String,
    /// Certificate chain, PEM.
    tls_cert: PathBuf,
    /// Private key, PEM.
    tls_key: PathBuf,
    /// File with the bearer token of administrators, for kubectl; `None`: only services get in.
    token_file: Option<PathBuf>,
}

/// Node agents authenticate as services do; an administrator has a token.
#[derive(Debug)]
struct Bearers {
    services: RequireService,
    administrator: Tokens,
}

impl Authenticator for Bearers {
    fn authenticate(&self, token: &str) -> Option<User> {
        let service = |name: String| User::admin(&format!("system:serviceaccount:berth:{name}"));
        self.administrator.authenticate(token).or_else(|| self.services.verify(token).ok().map(service))
    }
}

fn main() -> std::process::ExitCode {
    berth_service::main("ws-manager", |config: Config, context| async move {
        let mut jobs: Vec<(&'static str, berth_service::Job)> = Vec::new();
        let client = match config.embedded {
            None => {
                kube::Client::try_default().await.context("no cluster: give `service.embedded`, or a kubeconfig")?
            }
            Some(embedded) => {
                let options = context.pool()?.connect_options();
                let mut administrator = Tokens::new();
                if let Some(file) = &embedded.token_file {
                    let token =
                        std::fs::read_to_string(file).with_context(|| format!("cannot read {}", file.display()))?;
                    administrator = administrator.token(token.trim(), User::admin("berth"));
                }
                let services = context.verifier(KUBERNETES_AUDIENCE, &["node"]);
                let mut builder = Builder::new()
                    .store(Store::Postgres(Box::new((*options).clone())))
                    .namespace(config.manager.namespace.clone())
                    .authenticator(Bearers { services, administrator })
                    .clock(Arc::clone(&context.clock));
                for definition in berth_workspace_crd::definitions() {
                    builder = builder.crd(definition);
                }
                let cluster = builder.start().await.context("the embedded Kubernetes API")?;
                let tls = berth_http::serve::tls_config(&embedded.tls_cert, &embedded.tls_key)?;
                let listener = tokio::net::TcpListener::bind(&embedded.listen)
                    .await
                    .with_context(|| format!("cannot listen on {}", embedded.listen))?;
                let client = kube::Client::new(cluster.router(), config.manager.namespace.clone());
                let (router, shutdown) = (cluster.authenticated_router(), context.shutdown.clone());
                jobs.push((
                    "kubernetes",
                    Box::pin(async move {
                        berth_http::serve(Listener::Tls(listener, tls), router, ServeOptions::default(), shutdown)
                            .await;
                        cluster.shutdown().await;
                        Ok(())
                    }),
                ));
                client
            }
        };
        let manager = WsManager::new(config.manager, client, context.clock)?;
        let internal = manager.internal_router();
        let shutdown = context.shutdown;
        jobs.push((
            "controller",
            Box::pin(async move {
                manager.run(shutdown).await;
                Ok(())
            }),
        ));
        let callers = &["api", "gateway", "automations", "billing"];
        Ok(Parts { public: axum::Router::new(), internal, callers, proxies: &[], jobs })
    })
}
