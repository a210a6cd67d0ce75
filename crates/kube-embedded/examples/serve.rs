//! Serves the API on TLS and writes a kubeconfig, to try kubectl and to measure.
//!
//!     cargo run --release -p berth-kube-embedded --example serve -- FOLDER [PORT] [POSTGRES-URL]
//!
//! FOLDER/kubeconfig is ready when it appears; tokens: `admin`, and `plain` without rights. The database gets its schema if it has none.

use std::path::PathBuf;
use std::str::FromStr as _;
use std::sync::Arc;

use anyhow::Context as _;
use berth_kube_embedded::{Builder, MIGRATION, Store, Tokens, User};
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::service::TowerToHyperService;
use sqlx::Connection as _;
use sqlx::postgres::{PgConnectOptions, PgConnection};
use tokio_rustls::TlsAcceptor;

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let mut arguments = std::env::args().skip(1);
    let folder = PathBuf::from(arguments.next().context("usage: serve FOLDER [PORT] [POSTGRES-URL]")?);
    let port: u16 = arguments.next().map_or(Ok(0), |port| port.parse())?;
    let store = match arguments.next() {
        None => Store::Memory,
        Some(url) => {
            let mut connection = PgConnection::connect(&url).await?;
            let present: bool = sqlx::query_scalar("SELECT to_regclass('kube.revision') IS NOT NULL")
                .fetch_one(&mut connection)
                .await?;
            if !present {
                sqlx::raw_sql(MIGRATION).execute(&mut connection).await?;
            }
            Store::Postgres(Box::new(PgConnectOptions::from_str(&url)?))
        }
    };
    let tokens = Tokens::new().token("admin", User::admin("admin")).token("plain", User::with_rules("plain", vec![]));
    let server = Builder::new().store(store).authenticator(tokens).start().await?;

    let certified = rcgen::generate_simple_self_signed(["localhost".to_owned(), "127.0.0.1".to_owned()])?;
    let key = rustls::pki_types::PrivateKeyDer::try_from(certified.signing_key.serialize_der())
        .map_err(|error| anyhow::anyhow!("the key: {error}"))?;
    let mut tls = rustls::ServerConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_safe_default_protocol_versions()?
        .with_no_client_auth()
        .with_single_cert(vec![certified.cert.der().clone()], key)?;
    tls.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    let acceptor = TlsAcceptor::from(Arc::new(tls));
    let listener = tokio::net::TcpListener::bind(("127.0.0.1", port)).await?;
    let address = listener.local_addr()?;
    std::fs::create_dir_all(&folder)?;
    std::fs::write(folder.join("ca.crt"), certified.cert.pem())?;
    let kubeconfig = serde_json::json!({
        "apiVersion": "v1", "kind": "Config", "current-context": "berth",
        "clusters": [{ "name": "berth", "cluster": {
            "server": format!("https://{address}"), "certificate-authority": folder.canonicalize()?.join("ca.crt") } }],
        "users": [{ "name": "admin", "user": { "token": "admin" } }],
        "contexts": [{ "name": "berth", "context": { "cluster": "berth", "user": "admin" } }],
    });
    std::fs::write(folder.join("kubeconfig"), kubeconfig.to_string())?;

    let router = server.authenticated_router();
    loop {
        let (socket, _) = tokio::select! {
            accepted = listener.accept() => accepted?,
            _ = tokio::signal::ctrl_c() => break,
        };
        socket.set_nodelay(true)?;
        let (acceptor, router) = (acceptor.clone(), router.clone());
        tokio::spawn(async move {
            if let Ok(stream) = acceptor.accept(socket).await {
                let builder = hyper_util::server::conn::auto::Builder::new(TokioExecutor::new());
                // A client that goes away is no error of ours.
                let _ = builder
                    .serve_connection_with_upgrades(TokioIo::new(stream), TowerToHyperService::new(router))
                    .await;
            }
        });
    }
    server.shutdown().await;
    Ok(())
}
