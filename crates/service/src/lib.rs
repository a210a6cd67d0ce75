//! A service as a process of its own: configuration, logs, database, two listeners, a clean stop. Each service's `main.rs` is a call of [`main`].
//!
//! The public listener serves users: the gateway's directly, the others' through the services before them (`routes`, [`Parts::proxies`]).
//! The internal one serves the other services, which prove themselves with short-lived tokens (`berth_http::service_auth`). The one-machine server does not use this crate: it wires the same routers in memory.

mod together;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::Context as _;
use axum::Router;
use axum::routing::MethodRouter;
use berth_clock::{Entropy, SharedClock, SystemClock, SystemEntropy};
use berth_http::service_auth::{RequireService, ServiceKeys, ServiceTokens};
use berth_http::{InternalClient, Listener, ServeOptions, proxy, serve};
use futures::future::BoxFuture;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use sqlx::PgPool;
use tokio::net::TcpListener;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

pub use together::Together;

/// The configuration file of a service: these keys, and the service's own under `[service]`.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Settings<C> {
    /// Where users are served, `ADDRESS:PORT`; empty: nowhere.
    pub listen: String,
    /// Certificate chain of `listen`, PEM; `None`: plain HTTP, for loopback and for the installation's own networks.
    pub tls_cert: Option<PathBuf>,
    /// Its private key, PEM.
    pub tls_key: Option<PathBuf>,
    /// Where the other services are served.
    pub internal_listen: String,
    /// `postgres://…`; empty for services without a database. The password may stand in the file that PGPASSFILE names instead.
    pub database_url: String,
    /// Folder with `services.key` and `services.pub`, the installation's Ed25519 pair in PEM.
    pub keys: PathBuf,
    /// Internal address of each other service: `api = "http://api:7081"`.
    pub peers: BTreeMap<String, String>,
    /// Public address of each service whose routes this one passes on: `api = "http://api:7080"`.
    pub routes: BTreeMap<String, String>,
    /// `text` or `json`.
    pub log_format: berth_telemetry::LogFormat,
    /// For example `info`.
    pub log_filter: Option<String>,
    /// The service's own settings.
    pub service: C,
}

/// What a service is built from.
#[derive(Clone, Debug)]
pub struct Context {
    name: &'static str,
    pool: Option<PgPool>,
    keys: ServiceKeys,
    tokens: ServiceTokens,
    peers: BTreeMap<String, String>,
    routes: BTreeMap<String, String>,
    /// The machine's clock.
    pub clock: SharedClock,
    /// The machine's random source.
    pub entropy: Arc<dyn Entropy>,
    /// Ends when the process must.
    pub shutdown: CancellationToken,
}

impl Context {
    /// The database, migrated.
    ///
    /// # Errors
    /// When `database_url` is not set.
    pub fn pool(&self) -> anyhow::Result<PgPool> {
        self.pool.clone().with_context(|| format!("{} needs a database: set database_url", self.name))
    }

    /// A client of another service.
    ///
    /// # Errors
    /// When `peers` does not say where it is.
    pub fn peer(&self, service: &'static str) -> anyhow::Result<InternalClient> {
        let base = self
            .peers
            .get(service)
            .with_context(|| format!("{} needs {service}: set peers.{service} to its internal address", self.name))?;
        Ok(InternalClient::remote(service, base, self.tokens.clone())?)
    }

    /// A route that forwards requests to another service's public listener.
    ///
    /// # Errors
    /// When `routes` does not say where that is.
    pub fn proxy(&self, service: &'static str) -> anyhow::Result<MethodRouter> {
        let base = self.routes.get(service).with_context(|| {
            format!("{} passes requests on to {service}: set routes.{service} to its public address", self.name)
        })?;
        Ok(proxy::to(service, base, self.tokens.clone())?)
    }

    /// Tokens that prove this service's identity to others.
    #[must_use]
    pub fn tokens(&self) -> ServiceTokens {
        self.tokens.clone()
    }

    /// Verifies tokens that `callers` have for `audience`.
    #[must_use]
    pub fn verifier(&self, audience: &'static str, callers: &'static [&'static str]) -> RequireService {
        RequireService::new(self.keys.clone(), Arc::clone(&self.clock), audience, callers)
    }

    /// Authentication by asking api.
    ///
    /// # Errors
    /// When `peers` does not say where api is.
    pub fn authenticator(&self) -> anyhow::Result<Arc<dyn berth_authz::Authenticator>> {
        Ok(Arc::new(berth_authz::RemoteAuthenticator::new(self.peer("api")?)))
    }
}

/// A background job; it ends when the context's `shutdown` does.
pub type Job = BoxFuture<'static, anyhow::Result<()>>;

/// A built service.
pub struct Parts {
    /// Routes for users.
    pub public: Router,
    /// Routes for other services.
    pub internal: Router,
    /// Services that may call the internal routes.
    pub callers: &'static [&'static str],
    /// Services that forward users' requests to the public routes: they say where those come from.
    pub proxies: &'static [&'static str],
    /// Background jobs by name.
    pub jobs: Vec<(&'static str, Job)>,
}

impl std::fmt::Debug for Parts {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Parts").field("callers", &self.callers).finish_non_exhaustive()
    }
}

/// Runs a service: reads the file that the first argument names (without one: defaults and environment), builds it, serves until SIGTERM or
/// SIGINT.
pub fn main<C, F, Fut>(name: &'static str, build: F) -> ExitCode
where
    C: Clone + Default + Serialize + DeserializeOwned + Send + 'static,
    F: FnOnce(C, Context) -> Fut,
    Fut: Future<Output = anyhow::Result<Parts>>,
{
    let file = std::env::args_os().nth(1).map(PathBuf::from);
    match start(name, file.as_deref(), build) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!(service = name, error = %format!("{error:#}"), "the service ends");
            ExitCode::FAILURE
        }
    }
}

fn start<C, F, Fut>(name: &'static str, file: Option<&Path>, build: F) -> anyhow::Result<()>
where
    C: Clone + Default + Serialize + DeserializeOwned + Send + 'static,
    F: FnOnce(C, Context) -> Fut,
    Fut: Future<Output = anyhow::Result<Parts>>,
{
    let settings: anyhow::Result<Settings<C>> = berth_config::load(file).map_err(Into::into);
    let (format, filter) = match &settings {
        Ok(settings) => (settings.log_format, settings.log_filter.clone()),
        Err(_) => Default::default(),
    };
    // Logging comes first: errors in the configuration are reported through it.
    berth_telemetry::install_logs(format, filter.as_deref().unwrap_or("info"))?;
    let settings = settings?;
    berth_http::install_crypto();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().thread_name(name).build()?;
    runtime.block_on(run(name, settings, build))
}

async fn run<C, F, Fut>(name: &'static str, settings: Settings<C>, build: F) -> anyhow::Result<()>
where
    F: FnOnce(C, Context) -> Fut,
    Fut: Future<Output = anyhow::Result<Parts>>,
{
    let keys = read_keys(&settings.keys)?;
    let clock = SystemClock::shared();
    let shutdown = CancellationToken::new();
    let pool = database(&settings.database_url).await?;
    let context = Context {
        name,
        pool: pool.clone(),
        keys: keys.clone(),
        tokens: ServiceTokens::for_service(name, keys, Arc::clone(&clock)),
        peers: settings.peers,
        routes: settings.routes,
        clock,
        entropy: Arc::new(SystemEntropy),
        shutdown: shutdown.clone(),
    };
    let parts = build(settings.service, context.clone()).await?;
    let tls = match (&settings.tls_cert, &settings.tls_key) {
        (Some(certificate), Some(key)) => Some(serve::tls_config(certificate, key)?),
        (None, None) => None,
        _ => anyhow::bail!("tls_cert and tls_key belong together: set both, or neither"),
    };
    let public = proxy::behind(context.verifier(name, parts.proxies), parts.public);
    let internal = context.verifier(name, parts.callers).protect(parts.internal);
    let mut tasks: JoinSet<Ended> = JoinSet::new();
    for (what, address, router, tls) in
        [("public", &settings.listen, public, tls), ("internal", &settings.internal_listen, internal, None)]
    {
        if address.is_empty() {
            continue;
        }
        let listener =
            TcpListener::bind(address).await.with_context(|| format!("cannot listen on {address} ({what})"))?;
        tracing::info!(service = name, what, address = %listener.local_addr()?, "serving");
        let token = shutdown.clone();
        let listener = match tls {
            Some(tls) => Listener::Tls(listener, tls),
            None => Listener::Tcp(listener),
        };
        tasks.spawn(async move {
            serve::serve(listener, router, ServeOptions::default(), token).await;
            (what, Ok(()))
        });
    }
    for (job, future) in parts.jobs {
        tasks.spawn(async move { (job, future.await) });
    }
    let ended = until_the_end(name, tasks, &shutdown).await;
    if let Some(pool) = pool {
        pool.close().await;
    }
    ended
}

/// A part of a service that has ended, and how.
type Ended = (&'static str, anyhow::Result<()>);

/// Waits for a signal, or for a part that ends by itself, which is an error; then ends all parts.
async fn until_the_end(
    name: &'static str,
    mut tasks: JoinSet<Ended>,
    shutdown: &CancellationToken,
) -> anyhow::Result<()> {
    let mut terminate = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate())?;
    let died = tokio::select! {
        _ = terminate.recv() => None,
        _ = tokio::signal::ctrl_c() => None,
        ended = tasks.join_next() => ended,
    };
    shutdown.cancel();
    while let Some(ended) = tasks.join_next().await {
        if let Ok((part, Err(error))) = ended {
            tracing::error!(service = name, part, error = %format!("{error:#}"), "a part ended with an error");
        }
    }
    match died {
        None => Ok(()),
        Some(ended) => {
            let (part, result) = ended.context("a part of the service panicked")?;
            result.with_context(|| format!("{part} failed"))?;
            anyhow::bail!("{part} ended by itself")
        }
    }
}

fn read_keys(folder: &Path) -> anyhow::Result<ServiceKeys> {
    let read = |file: &str| {
        let path = folder.join(file);
        std::fs::read(&path).with_context(|| {
            format!("cannot read {}: `keys` names the folder of the installation's key pair", path.display())
        })
    };
    Ok(ServiceKeys::from_pem(&read("services.key")?, &read("services.pub")?)?)
}

/// The database, migrated; `None` for services without one.
async fn database(url: &str) -> anyhow::Result<Option<PgPool>> {
    if url.is_empty() {
        return Ok(None);
    }
    let pool = berth_db::connect(&berth_db::DatabaseConfig { url: url.to_owned(), max_connections: 16 }).await?;
    berth_db::migrate(&pool).await?;
    Ok(Some(pool))
}
