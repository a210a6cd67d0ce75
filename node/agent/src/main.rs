//! The node agent as a process of its own: `berth-node CONFIG.toml`.

use std::path::PathBuf;
use std::sync::Arc;

use anyhow::Context as _;
use berth_http::service_auth::{KUBERNETES_AUDIENCE, ServiceTokens};
use berth_node::{Deps, NodeAgent, ScmCredentials};
use berth_service::Parts;
use http::{HeaderValue, header};
use kube::client::{Body, ClientBuilder};
use rustls_pki_types::{CertificateDer, pem::PemObject as _};
use serde::{Deserialize, Serialize};

/// `[service]` of the configuration.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Config {
    /// The agent's settings.
    agent: berth_node::Config,
    /// The Kubernetes API of ws-manager; `None`: the one that KUBECONFIG or the cluster names.
    kubernetes: Option<Kubernetes>,
}

/// The embedded Kubernetes API, as ws-manager serves it.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Kubernetes {
    /// `https://HOST:PORT`.
    url: String,
    /// The certificate that signed its own, or its own, PEM.
    ca_cert: PathBuf,
}

fn main() -> std::process::ExitCode {
    berth_service::main("node", |config: Config, context| async move {
        config.agent.validate()?;
        let client = match &config.kubernetes {
            None => kube::Client::try_default().await.context("no Kubernetes API: set KUBECONFIG")?,
            Some(kubernetes) => kubernetes.client(context.tokens())?,
        };
        let deps =
            Deps { clock: context.clock.clone(), credentials: Arc::new(ScmCredentials::new(context.peer("scm")?)) };
        let agent = tokio::task::block_in_place(|| NodeAgent::new(config.agent, client, deps))?;
        let internal = agent.internal_router();
        let shutdown = context.shutdown;
        let job = Box::pin(async move {
            agent.run(shutdown).await;
            Ok(())
        });
        let callers = &["gateway", "automations"];
        Ok(Parts { public: axum::Router::new(), internal, callers, proxies: &[], jobs: vec![("agent", job)] })
    })
}

impl Kubernetes {
    /// A client that shows a service token; each request takes one that is still fresh.
    fn client(&self, tokens: ServiceTokens) -> anyhow::Result<kube::Client> {
        let url =
            self.url.parse().with_context(|| format!("kubernetes.url is {:?}: write https://HOST:PORT", self.url))?;
        let certificate = CertificateDer::from_pem_file(&self.ca_cert)
            .with_context(|| format!("{} holds no certificate in PEM", self.ca_cert.display()))?;
        let mut config = kube::Config::new(url);
        config.root_cert = Some(vec![certificate.to_vec()]);
        config.default_namespace = berth_workspace_crd::NAMESPACE.to_owned();
        // A watch is silent for as long as nothing happens.
        config.read_timeout = None;
        let show = tower::util::MapRequestLayer::new(move |mut request: http::Request<Body>| {
            if let Ok(mut value) = HeaderValue::from_str(&format!("Bearer {}", tokens.token_for(KUBERNETES_AUDIENCE))) {
                value.set_sensitive(true);
                request.headers_mut().insert(header::AUTHORIZATION, value);
            }
            request
        });
        Ok(ClientBuilder::try_from(config)?.with_layer(&show).build())
    }
}
