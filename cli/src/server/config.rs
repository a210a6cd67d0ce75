//! The configuration of the one-machine server: one TOML file, a section per part.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::Context as _;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::args::{Global, Server as ServerArgs};
use crate::home::Home;
use crate::output;

/// Everything that can be set.
#[derive(Clone, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Config {
    /// The public listener.
    pub server: Server,
    /// What is logged, and how.
    pub log: Log,
    /// The database.
    pub database: Database,
    /// The embedded Kubernetes API.
    pub kubernetes: Kubernetes,
    /// Users, tokens, workspaces, limits of requests.
    pub api: berth_api::Config,
    /// Git hosts and credentials.
    pub scm: berth_scm::Config,
    /// Workspace classes and timeouts.
    pub ws_manager: berth_ws_manager::Config,
    /// This machine as a node.
    pub node: berth_node::Config,
    /// Usage and prices.
    pub billing: berth_billing::Config,
    /// Tasks and services.
    pub automations: berth_automations::Config,
    /// Terminals and ports.
    pub gateway: berth_gateway::Config,
}

/// The public listener.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Server {
    /// Address and port; `--listen`.
    pub listen: String,
    /// Certificate chain, PEM; without it only loopback addresses may be listened on. `--tls-cert`.
    pub tls_cert: Option<PathBuf>,
    /// Its private key, PEM; `--tls-key`.
    pub tls_key: Option<PathBuf>,
}

impl Default for Server {
    fn default() -> Self {
        Self { listen: "127.0.0.1:7070".to_owned(), tls_cert: None, tls_key: None }
    }
}

impl Server {
    /// The certificate and its key, loaded; `None`: plain http.
    ///
    /// # Errors
    /// When only one of them is given, or they cannot be used.
    pub(super) fn tls(&self) -> anyhow::Result<Option<Arc<rustls::ServerConfig>>> {
        match (&self.tls_cert, &self.tls_key) {
            (Some(certificate), Some(key)) => Ok(Some(berth_http::serve::tls_config(certificate, key)?)),
            (None, None) => Ok(None),
            _ => anyhow::bail!("server.tls_cert and server.tls_key belong together: give both or none"),
        }
    }
}

/// Logging.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Log {
    /// `text` or `json`.
    #[schemars(with = "String")]
    pub format: berth_telemetry::LogFormat,
    /// What is logged, for example `info` or `berth_node=debug,info`.
    pub filter: String,
}

impl Default for Log {
    fn default() -> Self {
        Self { format: berth_telemetry::LogFormat::Text, filter: "info".to_owned() }
    }
}

/// The database.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Database {
    /// An external Postgres, `postgres://…`; empty: a private one from the installed binaries.
    pub url: String,
    /// Folder with `postgres` and `initdb` of the private one; without it, `PATH` and Debian's folders are searched.
    pub binaries: Option<PathBuf>,
    /// System user that the private one runs as when the server is root's; made if it is missing.
    pub user: String,
    /// Most connections to the database.
    pub max_connections: u32,
}

impl Default for Database {
    fn default() -> Self {
        Self { url: String::new(), binaries: None, user: "berth-postgres".to_owned(), max_connections: 24 }
    }
}

/// The embedded Kubernetes API.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Kubernetes {
    /// Address of its TLS listener, for kubectl. While another program has the default's port, it is any that is free: `berth kubeconfig` knows it.
    pub listen: String,
}

impl Default for Kubernetes {
    fn default() -> Self {
        Self { listen: "127.0.0.1:7443".to_owned() }
    }
}

impl Config {
    /// Defaults, the home's file, the environment.
    pub(crate) fn load_default(home: &Home) -> anyhow::Result<Self> {
        let mut config = Self::read(home, home.config().as_deref())?;
        config.derive();
        Ok(config)
    }

    /// As [`Self::load_default`], for whoever is not the server's administrator and need not be allowed to read its file.
    pub(crate) fn as_far_as_readable(home: &Home) -> anyhow::Result<Self> {
        let file = home.config().filter(|file| std::fs::File::open(file).is_ok());
        Self::read(home, file.as_deref())
    }

    /// As [`Self::load_default`], with the command line's options on top.
    pub(crate) fn load(home: &Home, args: &ServerArgs) -> anyhow::Result<Self> {
        let file = args.config.clone().or_else(|| home.config());
        let mut config = Self::read(home, file.as_deref())?;
        if let Some(listen) = &args.listen {
            config.server.listen.clone_from(listen);
        }
        if args.tls_cert.is_some() {
            config.server.tls_cert.clone_from(&args.tls_cert);
            config.server.tls_key.clone_from(&args.tls_key);
        }
        config.derive();
        config.validate()?;
        Ok(config)
    }

    /// Settings that default to values derived from other settings.
    fn derive(&mut self) {
        if self.api.public_url == berth_api::Config::default().public_url {
            let scheme = if self.server.tls_cert.is_some() { "https" } else { "http" };
            self.api.public_url = format!("{scheme}://{}", self.server.listen);
        }
        if !self.gateway.allowed_origins.contains(&self.api.public_url) {
            self.gateway.allowed_origins.push(self.api.public_url.clone());
        }
        self.api.default_class.clone_from(&self.ws_manager.default_class);
    }

    fn read(home: &Home, file: Option<&Path>) -> anyhow::Result<Self> {
        let mut config: Self = berth_config::load(file)?;
        if config.scm.master_key_file.as_os_str().is_empty() {
            config.scm.master_key_file = home.keys().join("master.key");
        }
        if config.node.home == berth_node::Config::default().home {
            config.node.home = home.path().to_owned();
        }
        // The short form, for one machine.
        config.scm.allow_private_hosts.extend(private_hosts_of_environment());
        Ok(config)
    }

    /// Checks what serde cannot, section by section.
    pub(crate) fn validate(&self) -> anyhow::Result<()> {
        let address: std::net::SocketAddr = self.server.listen.parse().with_context(|| {
            format!("server.listen is {:?}: write ADDRESS:PORT, for example 127.0.0.1:7070", self.server.listen)
        })?;
        if self.server.tls()?.is_none() && !address.ip().is_loopback() {
            anyhow::bail!(
                "server.listen is {address}, which others can reach: give a certificate with --tls-cert and --tls-key, or listen on 127.0.0.1 behind a proxy"
            );
        }
        let kubernetes: std::net::SocketAddr = self
            .kubernetes
            .listen
            .parse()
            .with_context(|| format!("kubernetes.listen is {:?}: write ADDRESS:PORT", self.kubernetes.listen))?;
        if kubernetes == address {
            anyhow::bail!("server.listen and kubernetes.listen are both {address}: give them different ports");
        }
        self.api.validate()?;
        self.scm.known_hosts()?;
        self.ws_manager.validate()?;
        self.node.validate()?;
        self.gateway.validate()?;
        Ok(())
    }
}

/// The hosts of `BERTH_ALLOW_PRIVATE_HOSTS`, which are separated by commas.
pub(crate) fn private_hosts_of_environment() -> Vec<String> {
    let hosts = std::env::var("BERTH_ALLOW_PRIVATE_HOSTS").unwrap_or_default();
    hosts.split(',').map(str::trim).filter(|host| !host.is_empty()).map(str::to_owned).collect()
}

/// `berth check-config`.
pub(crate) fn check(global: &Global, file: Option<&Path>) -> anyhow::Result<()> {
    let home = Home::find(global.home.as_deref())?;
    let file = file.map(Path::to_owned).or_else(|| home.config());
    let mut config = Config::read(&home, file.as_deref())?;
    config.derive();
    config.validate()?;
    output::result(global.output, &config, |config| {
        let from = file.as_ref().map_or_else(|| "the defaults".to_owned(), |file| file.display().to_string());
        match toml::to_string_pretty(config) {
            Ok(text) => format!("# {from}: valid. What it means, defaults included:\n{text}"),
            Err(_) => format!("{from}: valid"),
        }
    })
}
