//! The listeners of a server.

use anyhow::Context as _;
use berth_http::{Listener, serve::bind_unix};
use tokio::net::TcpListener;

use super::config::{Config, Kubernetes};
use super::keys::Keys;
use crate::home::Home;

/// All of them, bound before anything is served, so that a taken port is known at once.
#[derive(Debug)]
pub(crate) struct Listeners {
    /// The administrator's socket.
    pub socket: Listener,
    /// The public API.
    pub public: Listener,
    /// kubectl's.
    pub kubernetes: Listener,
}

/// Binds them.
pub(crate) async fn bind(home: &Home, config: &Config, keys: &Keys) -> anyhow::Result<Listeners> {
    let path = home.socket();
    let socket = bind_unix(&path).with_context(|| format!("cannot listen on {}", path.display()))?;
    let public = tcp(&config.server.listen, "server.listen").await?;
    let public = match config.server.tls()? {
        Some(tls) => Listener::Tls(public, tls),
        None => Listener::Tcp(public),
    };
    let kubernetes = kubernetes(home, config).await?;
    std::fs::write(home.kubernetes_address(), kubernetes.local_addr()?.to_string())
        .context("cannot write where the Kubernetes API listens")?;
    Ok(Listeners {
        socket: Listener::Unix(socket),
        public,
        kubernetes: Listener::Tls(kubernetes, std::sync::Arc::clone(&keys.kube_tls)),
    })
}

/// Several homes on one machine need several ports. Where the configuration names none, the one of last time is asked for first, so that
/// kubeconfigs stay right; then the usual one, then any.
async fn kubernetes(home: &Home, config: &Config) -> anyhow::Result<TcpListener> {
    let listen = &config.kubernetes.listen;
    if *listen == Kubernetes::default().listen {
        let last = std::fs::read_to_string(home.kubernetes_address()).unwrap_or_default();
        for address in [last.trim(), listen, "127.0.0.1:0"] {
            if let Ok(listener) = TcpListener::bind(address).await {
                return Ok(listener);
            }
        }
    }
    tcp(listen, "kubernetes.listen").await
}

async fn tcp(address: &str, key: &str) -> anyhow::Result<TcpListener> {
    TcpListener::bind(address)
        .await
        .with_context(|| format!("cannot listen on {address}: another program may have it; choose another with {key}"))
}
