//! All services in one process, wired in memory: the same routers and the same JSON as when they run apart.

use std::sync::Arc;

use anyhow::Context as _;
use axum::Router;
use berth_api::{Api, OpenApi};
use berth_automations::Automations;
use berth_billing::Billing;
use berth_clock::{Entropy, SharedClock, SystemClock, SystemEntropy};
use berth_gateway::{Gateway, Nodes};
use berth_http::InternalClient;
use berth_kube_embedded::{ApiServer, Builder, Store, Tokens, User};
use berth_node::{Deps, NodeAgent, ScmCredentials};
use berth_scm::Scm;
use berth_ws_manager::WsManager;
use sqlx::PgPool;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::config::Config;
use super::keys::Keys;
use super::late::LateAuthenticator;
use super::metrics::ServerMetrics;

/// A built server.
pub(crate) struct Parts {
    /// Routes for users.
    pub(crate) public: Router,
    /// Routes for kubectl.
    pub(crate) kubernetes: Router,
    /// Link that makes the first administrator, as long as there is none.
    pub(crate) setup_link: Option<String>,
    /// Starts workspaces on this machine.
    pub(crate) node: NodeAgent,
    api: Api,
    automations: Automations,
    billing: Billing,
    gateway: Gateway,
    ws_manager: WsManager,
    cluster: ApiServer,
}

/// Builds everything; nothing runs yet except the embedded Kubernetes API.
pub(crate) async fn assemble(config: &Config, keys: &Keys, pool: PgPool) -> anyhow::Result<Parts> {
    let clock: SharedClock = SystemClock::shared();
    let entropy: Arc<dyn Entropy> = Arc::new(SystemEntropy);
    let cluster = cluster(keys, &pool, &clock).await?;
    let kube = |name: &'static str| kube::Client::new(cluster.router(), name);
    let ws_manager =
        WsManager::new(config.ws_manager.clone(), kube(berth_workspace_crd::NAMESPACE), Arc::clone(&clock))?;
    let to_ws_manager = InternalClient::in_process("ws-manager", ws_manager.internal_router());

    let authenticator = LateAuthenticator::default();
    let scm =
        Scm::new(&config.scm, pool.clone(), Arc::clone(&clock), Arc::clone(&entropy), Arc::new(authenticator.clone()))?;
    let to_scm = InternalClient::in_process("scm", scm.internal_router());
    let api = Api::new(
        config.api.clone(),
        pool.clone(),
        Arc::clone(&clock),
        Arc::clone(&entropy),
        to_scm.clone(),
        to_ws_manager.clone(),
    );
    authenticator.set(api.authenticator());
    let to_api = InternalClient::in_process("api", api.internal_router());

    let deps = Deps { clock: Arc::clone(&clock), credentials: Arc::new(ScmCredentials::new(to_scm)) };
    let (node_config, node_client) = (config.node.clone(), kube(berth_workspace_crd::NAMESPACE));
    // It takes over what runs and removes what does not: milliseconds of work on files and mounts.
    let node =
        tokio::task::block_in_place(|| NodeAgent::new(node_config, node_client, deps)).context("the node agent")?;
    let to_node = InternalClient::in_process("node", node.internal_router());
    let gateway = Gateway::new(
        config.gateway.clone(),
        berth_gateway::Dependencies {
            api: to_api.clone(),
            ws_manager: to_ws_manager.clone(),
            nodes: Nodes::Single(to_node.clone()),
        },
    )?;
    let billing = Billing::new(
        &config.billing,
        pool.clone(),
        Arc::clone(&clock),
        Arc::clone(&entropy),
        api.authenticator(),
        to_ws_manager.clone(),
    )?;
    let automations = Automations::new(
        &config.automations,
        pool,
        clock,
        entropy,
        berth_automations::Dependencies {
            api: to_api,
            ws_manager: to_ws_manager.clone(),
            nodes: berth_automations::Nodes::Single(to_node),
        },
    )?;

    let others =
        Router::new().merge(scm.router()).merge(gateway.router()).merge(billing.router()).merge(automations.router());
    let public = api.router_with(documents()).merge(api.protect(others));
    let public = ServerMetrics::new(to_ws_manager, &ws_manager).watch(public, api.authenticator());
    let setup_link = api.setup_link().await?;
    Ok(Parts {
        public,
        kubernetes: cluster.authenticated_router(),
        setup_link,
        api,
        automations,
        billing,
        gateway,
        ws_manager,
        node,
        cluster,
    })
}

/// The OpenAPI documents of the services behind `/api`, for one document.
pub(crate) fn documents() -> Vec<OpenApi> {
    vec![Scm::openapi(), Billing::openapi(), Automations::openapi(), Gateway::openapi()]
}

async fn cluster(keys: &Keys, pool: &PgPool, clock: &SharedClock) -> anyhow::Result<ApiServer> {
    let options = pool.connect_options();
    let mut builder = Builder::new()
        .store(Store::Postgres(Box::new((*options).clone())))
        .namespace(berth_workspace_crd::NAMESPACE)
        .authenticator(Tokens::new().token(&keys.kube_token, User::admin("kubectl")))
        .clock(Arc::clone(clock));
    for definition in berth_workspace_crd::definitions() {
        builder = builder.crd(definition);
    }
    builder.start().await.context("the embedded Kubernetes API")
}

impl Parts {
    /// Starts the jobs; each ends when `stop` does.
    pub(crate) fn spawn(&self, tasks: &mut JoinSet<(&'static str, anyhow::Result<()>)>, stop: &CancellationToken) {
        macro_rules! job {
            ($name:literal, $part:expr, $method:ident) => {{
                let (part, token) = ($part.clone(), stop.clone());
                tasks.spawn(async move {
                    part.$method(token).await;
                    ($name, Ok(()))
                });
            }};
        }
        job!("api", self.api, run_jobs);
        job!("automations", self.automations, run_jobs);
        job!("billing", self.billing, run_jobs);
        job!("gateway", self.gateway, run);
        job!("ws-manager", self.ws_manager, run);
        job!("node", self.node, run);
    }

    /// Ends what outlives the jobs.
    pub(crate) async fn shutdown(self) {
        self.cluster.shutdown().await;
    }
}
