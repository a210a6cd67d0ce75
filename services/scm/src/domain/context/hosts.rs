//! Which git host is of which kind.

use std::collections::BTreeSet;

use berth_api_types::context::Provider;

use super::error::ContextError;
use super::url::{HostPort, parse_authority, split_path};

/// A host flag or setting that could not be read.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum HostsError {
    /// There is no `=KIND`.
    #[error(
        "{flag:?} does not say which kind the host is: write NAME[:PORT][/BASE]=KIND, for example git.example.com=gitlab"
    )]
    NoKind {
        /// The flag.
        flag: String,
    },
    /// Not a kind that Berth knows.
    #[error(
        "{kind:?} is not a kind of git host: use github, gitlab, bitbucket, bitbucket-dc, azure-devops, gitea or git"
    )]
    Kind {
        /// The kind.
        kind: String,
    },
    /// The host is none.
    #[error("the git host {name:?} cannot be used")]
    Host {
        /// The host.
        name: String,
        /// Why.
        source: ContextError,
    },
}

/// One known host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct KnownHost {
    /// Lower case.
    pub(super) host: String,
    /// `None`: the default port of the scheme.
    pub(super) port: Option<u16>,
    /// Path under which the host's pages begin; empty for the root.
    pub(super) base: Vec<String>,
    /// What it is.
    pub(super) provider: Provider,
}

/// The git hosts whose kind is known: the public ones, and those of the configuration.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Hosts {
    known: Vec<KnownHost>,
    /// Host and port to which plain http is allowed.
    plain_http: BTreeSet<(String, u16)>,
}

/// Public hosts, and the names under which they answer over ssh.
const PUBLIC: [(&str, &str, Provider); 17] = [
    ("github.com", "github.com", Provider::Github),
    ("www.github.com", "github.com", Provider::Github),
    ("ssh.github.com", "github.com", Provider::Github),
    ("github.dev", "github.com", Provider::Github),
    (super::github::RAW_HOST, "github.com", Provider::Github),
    ("gitlab.com", "gitlab.com", Provider::Gitlab),
    ("www.gitlab.com", "gitlab.com", Provider::Gitlab),
    ("altssh.gitlab.com", "gitlab.com", Provider::Gitlab),
    ("bitbucket.org", "bitbucket.org", Provider::Bitbucket),
    ("www.bitbucket.org", "bitbucket.org", Provider::Bitbucket),
    ("altssh.bitbucket.org", "bitbucket.org", Provider::Bitbucket),
    ("dev.azure.com", "dev.azure.com", Provider::AzureDevops),
    ("ssh.dev.azure.com", "dev.azure.com", Provider::AzureDevops),
    ("vs-ssh.visualstudio.com", "dev.azure.com", Provider::AzureDevops),
    ("codeberg.org", "codeberg.org", Provider::Gitea),
    ("gitea.com", "gitea.com", Provider::Gitea),
    ("code.forgejo.org", "code.forgejo.org", Provider::Gitea),
];

/// What is known about a host.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Found {
    /// Its kind.
    pub(super) provider: Provider,
    /// Name to use instead of the one given.
    pub(super) host: String,
    /// Port to use.
    pub(super) port: Option<u16>,
    /// Base path.
    pub(super) base: Vec<String>,
    /// Account that the host's name carries (`account.visualstudio.com`).
    pub(super) account: Option<String>,
    /// It was found in the list, and not merely assumed to be plain git.
    pub(super) known: bool,
}

impl Hosts {
    /// The public hosts only.
    #[must_use]
    pub fn public() -> Self {
        Self::default()
    }

    /// From `--host NAME[:PORT][/BASE]=KIND` flags. Plain http is allowed for these hosts, because the user names them explicitly.
    ///
    /// # Errors
    /// When a flag is not of that form.
    pub fn from_flags<I, S>(flags: I) -> Result<Self, HostsError>
    where
        I: IntoIterator<Item = S>,
        S: AsRef<str>,
    {
        let mut hosts = Self::public();
        for flag in flags {
            hosts.add_flag(flag.as_ref())?;
        }
        Ok(hosts)
    }

    /// Adds the host of one such flag.
    ///
    /// # Errors
    /// When it is not of that form.
    pub fn add_flag(&mut self, flag: &str) -> Result<(), HostsError> {
        let (name, kind) =
            flag.rsplit_once('=').ok_or_else(|| HostsError::NoKind { flag: flag.chars().take(80).collect() })?;
        let provider =
            provider_named(kind).ok_or_else(|| HostsError::Kind { kind: kind.chars().take(40).collect() })?;
        self.add(name, provider)?;
        if let Some(last) = self.known.last().cloned() {
            for port in last.port.map_or_else(|| vec![80, 443], |port| vec![port]) {
                self.plain_http.insert((last.host.clone(), port));
            }
        }
        Ok(())
    }

    /// Adds `NAME[:PORT][/BASE]` as a host of a kind; it wins over the public host of that name.
    ///
    /// # Errors
    /// When the name is none.
    pub fn add(&mut self, name: &str, provider: Provider) -> Result<(), HostsError> {
        let bad = |source| HostsError::Host { name: name.chars().take(120).collect(), source };
        let (authority, base) = name.split_once('/').unwrap_or((name, ""));
        let HostPort { host, port } = parse_authority(authority).map_err(bad)?;
        let base = split_path(base).map_err(bad)?.segments;
        self.known.push(KnownHost { host, port: port.filter(|port| *port != 443), base, provider });
        Ok(())
    }

    /// Allows plain http to `host:port`.
    pub fn allow_plain_http(&mut self, host: &str, port: u16) {
        let host = host.trim_end_matches('.').to_ascii_lowercase();
        let host = if host.contains(':') && !host.starts_with('[') { format!("[{host}]") } else { host };
        self.plain_http.insert((host, port));
    }

    /// Whether plain http to a host is allowed.
    pub(super) fn allows_plain_http(&self, host: &str, port: u16) -> bool {
        self.plain_http.contains(&(host.to_owned(), port))
    }

    /// Looks up the host of a URL. The longest matching base path wins; an unknown host is plain git.
    pub(super) fn find(&self, host: &str, port: Option<u16>, default_port: u16, path: &[String]) -> Found {
        let asked = port.unwrap_or(default_port);
        let configured = self
            .known
            .iter()
            .filter(|known| known.host == host && known.port.unwrap_or(default_port) == asked)
            .filter(|known| path.get(..known.base.len()).is_some_and(|start| start == known.base))
            .max_by_key(|known| known.base.len());
        if let Some(known) = configured {
            return Found {
                provider: known.provider,
                host: known.host.clone(),
                port,
                base: known.base.clone(),
                account: None,
                known: true,
            };
        }
        if port.is_none()
            && default_port == 443
            && let Some(found) = public(host)
        {
            return found;
        }
        Found { provider: Provider::Git, host: host.to_owned(), port, base: Vec::new(), account: None, known: false }
    }

    /// Looks up the host of an ssh URL. Its port is ssh's, so a configured host is found by name alone and supplies the port for https.
    pub(super) fn find_for_ssh(&self, host: &str) -> Found {
        let mut configured = self.known.iter().filter(|known| known.host == host);
        if let Some(known) = configured.next() {
            return Found {
                provider: known.provider,
                host: known.host.clone(),
                port: known.port,
                base: known.base.clone(),
                account: None,
                known: true,
            };
        }
        public(host).unwrap_or_else(|| Found {
            provider: Provider::Git,
            host: host.to_owned(),
            port: None,
            base: Vec::new(),
            account: None,
            known: false,
        })
    }

    /// The name under which credentials of a host are stored: `host` or `host:port` as given, with all names of a public host mapped to one.
    /// `https://host/`, as a browser shows it, is accepted too.
    ///
    /// # Errors
    /// When the text is no host.
    pub fn credential_host(&self, text: &str) -> Result<String, ContextError> {
        let text = text.trim();
        let (name, default_port) = match (text.strip_prefix("https://"), text.strip_prefix("http://")) {
            (Some(name), _) => (name, 443),
            (_, Some(name)) => (name, 80),
            _ => (text, 443),
        };
        let HostPort { host, port } = parse_authority(name.strip_suffix('/').unwrap_or(name))?;
        let port = port.or((default_port == 80).then_some(80)).filter(|port| *port != 443);
        let host = match port {
            None => public(&host).map_or(host, |found| found.host),
            Some(_) => host,
        };
        Ok(port.map_or_else(|| host.clone(), |port| format!("{host}:{port}")))
    }

    /// Whether a text without a scheme begins with a known host, with or without a port.
    pub(super) fn knows_name(&self, authority: &str) -> bool {
        let host = match authority.rsplit_once(':') {
            Some((host, port)) if !port.is_empty() && port.bytes().all(|byte| byte.is_ascii_digit()) => host,
            _ => authority,
        };
        self.known.iter().any(|known| known.host == host) || public(host).is_some()
    }
}

/// A public host by its name.
fn public(host: &str) -> Option<Found> {
    let found = |name: &str, provider, account: Option<&str>| Found {
        provider,
        host: name.to_owned(),
        port: None,
        base: Vec::new(),
        account: account.map(str::to_owned),
        known: true,
    };
    if let Some((_, name, provider)) = PUBLIC.iter().find(|(alias, _, _)| *alias == host) {
        return Some(found(name, *provider, None));
    }
    match host.split_once('.')? {
        (account, "visualstudio.com") => Some(found("dev.azure.com", Provider::AzureDevops, Some(account))),
        // GitHub Enterprise Cloud with data residency.
        (_, "ghe.com") => Some(found(host, Provider::Github, None)),
        _ => None,
    }
}

/// A provider by the name that the API and the configuration use.
#[must_use]
pub fn provider_named(kind: &str) -> Option<Provider> {
    Some(match kind {
        "github" => Provider::Github,
        "gitlab" => Provider::Gitlab,
        "bitbucket" => Provider::Bitbucket,
        "bitbucket-dc" => Provider::BitbucketDc,
        "azure-devops" => Provider::AzureDevops,
        "gitea" | "forgejo" => Provider::Gitea,
        "git" => Provider::Git,
        _ => return None,
    })
}
