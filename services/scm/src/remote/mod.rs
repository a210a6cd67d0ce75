//! Asks a git host for refs over smart HTTP (gitprotocol-http(5), gitprotocol-v2(5)), natively: no `git` runs in the service.
//!
//! Every address goes through the outbound guard; redirects are followed on the same host only; answers and times are bounded.

mod error;
mod pkt;
mod refs;
mod together;

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use berth_http::outbound::{Guard, Refused};
use reqwest::{Client, StatusCode, header};
use secrecy::{ExposeSecret as _, SecretString};
use url::Url;

pub use error::RemoteError;
pub use pkt::BadPkt;
pub use refs::{ProtocolError, Refs, RemoteRef};
pub(crate) use together::Together;

use refs::{Advertisement, advertisement, ls_refs, ls_refs_request};

/// Longest list of refs that is read; in the old protocol the largest public repositories advertise less than this.
const MAX_ANSWER_BYTES: usize = 64 << 20;
/// Longest answer of a provider's API.
const MAX_API_BYTES: usize = 1 << 20;
/// Redirects on the same host (renamed repositories).
const MAX_REDIRECTS: usize = 3;
/// Clients kept.
const MAX_CLIENTS: usize = 64;

/// User name and password, or token, for basic authentication.
#[derive(Clone, Debug)]
pub struct Login {
    /// User name.
    pub username: String,
    /// Password or token.
    pub password: SecretString,
}

/// What came of a listing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listing {
    /// The refs.
    pub refs: Refs,
    /// The clone URL after redirects on the same host.
    pub url: String,
}

/// Queries git hosts. Keeps connections to hosts that were queried before.
#[derive(Debug)]
pub struct Remote {
    guard: Guard,
    timeout: Duration,
    clients: Mutex<BTreeMap<(String, Vec<SocketAddr>), Client>>,
    /// Origins that are known to speak version 2: the first request to them can be skipped.
    version_2: Mutex<BTreeSet<String>>,
}

impl Remote {
    /// Queries through a guard; one complete listing may take `timeout`.
    #[must_use]
    pub fn new(guard: Guard, timeout: Duration) -> Self {
        Self { guard, timeout, clients: Mutex::default(), version_2: Mutex::default() }
    }

    /// The guard.
    #[must_use]
    pub const fn guard(&self) -> &Guard {
        &self.guard
    }

    /// Lists `HEAD` and the refs that begin with one of `prefixes`. Old servers send all refs.
    ///
    /// # Errors
    /// See [`RemoteError`].
    pub async fn list(
        &self,
        clone_url: &str,
        prefixes: &[String],
        login: Option<&Login>,
    ) -> Result<Listing, RemoteError> {
        let url = Url::parse(clone_url).map_err(|_| RemoteError::Url { url: clone_url.to_owned() })?;
        let host = host_of(&url);
        let mut asked = vec!["HEAD".to_owned()];
        asked.extend_from_slice(prefixes);
        tokio::time::timeout(self.timeout, self.list_within(url, &host, &asked, login))
            .await
            .unwrap_or_else(|_| Err(self.too_slow("waiting for", &host)))
    }

    async fn list_within(
        &self,
        url: Url,
        host: &str,
        prefixes: &[String],
        login: Option<&Login>,
    ) -> Result<Listing, RemoteError> {
        let client = self.client(&url).await?;
        let origin = url.origin().ascii_serialization();
        let known = self.version_2.lock().unwrap_or_else(PoisonError::into_inner).contains(&origin);
        if known {
            // Whatever is wrong, the ordinary request finds out and reports it.
            if let Ok(refs) = self.ask_v2(&client, &url, host, ls_refs_request(prefixes, true, "sha1"), login).await {
                return Ok(Listing { refs, url: url.into() });
            }
        }
        let (answer, url) = self.first_question(&client, url, host, login).await?;
        let protocol = |source| RemoteError::Protocol { host: host.to_owned(), source };
        let refs = match advertisement(&answer).map_err(protocol)? {
            Advertisement::V0(refs) => refs,
            Advertisement::V2 { unborn, object_format } => {
                let question = ls_refs_request(prefixes, unborn, &object_format);
                let refs = self.ask_v2(&client, &url, host, question, login).await?;
                if unborn {
                    self.version_2.lock().unwrap_or_else(PoisonError::into_inner).insert(origin);
                }
                refs
            }
        };
        Ok(Listing { refs, url: url.into() })
    }

    /// `GET info/refs`, following redirects on the same host; the answer and the clone URL it came from.
    async fn first_question(
        &self,
        client: &Client,
        mut url: Url,
        host: &str,
        login: Option<&Login>,
    ) -> Result<(Vec<u8>, Url), RemoteError> {
        const STEP: &str = "asking";
        for _ in 0..=MAX_REDIRECTS {
            let mut question = endpoint(&url, "info/refs");
            question.set_query(Some("service=git-upload-pack"));
            let request = client
                .get(question.clone())
                .header("Git-Protocol", "version=2")
                .header(header::ACCEPT, "application/x-git-upload-pack-advertisement, */*;q=0.1");
            let response = with_login(request, login).send().await.map_err(|source| self.failed(STEP, host, source))?;
            let status = response.status();
            if status.is_redirection() {
                url = redirected(&question, &response, host, &url, login.is_some())?;
                continue;
            }
            self.accept(status, host, &url, login.is_some())?;
            let content_type = response.headers().get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok());
            if content_type != Some("application/x-git-upload-pack-advertisement") {
                return Err(RemoteError::NotGit { host: host.to_owned(), repository: url.to_string() });
            }
            let answer = self.body(response, STEP, host, MAX_ANSWER_BYTES).await?;
            return Ok((answer, url));
        }
        Err(RemoteError::Redirects { host: host.to_owned() })
    }

    /// Asks the question that [`ls_refs_request`] made.
    async fn ask_v2(
        &self,
        client: &Client,
        url: &Url,
        host: &str,
        question: Vec<u8>,
        login: Option<&Login>,
    ) -> Result<Refs, RemoteError> {
        const STEP: &str = "reading the refs of";
        let request = client
            .post(endpoint(url, "git-upload-pack"))
            .header("Git-Protocol", "version=2")
            .header(header::CONTENT_TYPE, "application/x-git-upload-pack-request")
            .header(header::ACCEPT, "application/x-git-upload-pack-result")
            .body(question);
        let response = with_login(request, login).send().await.map_err(|source| self.failed(STEP, host, source))?;
        self.accept(response.status(), host, url, login.is_some())?;
        let answer = self.body(response, STEP, host, MAX_ANSWER_BYTES).await?;
        ls_refs(&answer).map_err(|source| RemoteError::Protocol { host: host.to_owned(), source })
    }

    /// Asks a provider's API for JSON.
    ///
    /// # Errors
    /// See [`RemoteError`].
    pub async fn json(&self, url: &str, login: Option<&Login>) -> Result<serde_json::Value, RemoteError> {
        const STEP: &str = "asking the API of";
        let url = Url::parse(url).map_err(|_| RemoteError::Url { url: url.to_owned() })?;
        let host = host_of(&url);
        let client = self.client(&url).await?;
        let request = client.get(url.clone()).header(header::ACCEPT, "application/json");
        let response = with_login(request, login).send().await.map_err(|source| self.failed(STEP, &host, source))?;
        self.accept(response.status(), &host, &url, login.is_some())?;
        let body = self.body(response, STEP, &host, MAX_API_BYTES).await?;
        serde_json::from_slice(&body).map_err(|_| RemoteError::Protocol { host, source: ProtocolError::Line })
    }

    /// A client pinned to the host's addresses as they are now.
    async fn client(&self, url: &Url) -> Result<Client, RemoteError> {
        let host = url.host_str().unwrap_or_default();
        let port = url.port_or_known_default().unwrap_or(443);
        if url.scheme() != "https" && !self.guard.allows(host, port) {
            return Err(Refused::Plain { host: host.to_owned(), port }.into());
        }
        let mut addresses = self.guard.check(host, port).await?;
        addresses.sort_unstable();
        let key = (url.origin().ascii_serialization(), addresses);
        let mut clients = self.clients.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(client) = clients.get(&key) {
            return Ok(client.clone());
        }
        if clients.len() >= MAX_CLIENTS {
            clients.clear();
        }
        let client = Guard::pinned(host, &key.1, self.timeout)?;
        clients.insert(key, client.clone());
        Ok(client)
    }

    /// Reads a body up to a limit.
    async fn body(
        &self,
        mut response: reqwest::Response,
        step: &'static str,
        host: &str,
        limit: usize,
    ) -> Result<Vec<u8>, RemoteError> {
        let mut body = Vec::new();
        while let Some(chunk) = response.chunk().await.map_err(|source| self.failed(step, host, source))? {
            if body.len() + chunk.len() > limit {
                return Err(RemoteError::TooLarge { host: host.to_owned(), limit_mib: limit >> 20 });
            }
            body.extend_from_slice(&chunk);
        }
        Ok(body)
    }

    fn accept(&self, status: StatusCode, host: &str, url: &Url, had_login: bool) -> Result<(), RemoteError> {
        match status.as_u16() {
            200 => Ok(()),
            // Azure DevOps answers 203 with a page to sign in.
            203 | 401 | 403 | 404 | 410 => {
                Err(RemoteError::NoAccess { host: host.to_owned(), repository: url.to_string(), had_login })
            }
            status => Err(RemoteError::Status { host: host.to_owned(), status }),
        }
    }

    fn failed(&self, step: &'static str, host: &str, source: reqwest::Error) -> RemoteError {
        // The URL in the error may contain what must not be logged.
        let source = source.without_url();
        if source.is_timeout() {
            self.too_slow(step, host)
        } else if source.is_connect() {
            RemoteError::Connect { host: host.to_owned(), source }
        } else {
            RemoteError::Broken { step, host: host.to_owned(), source }
        }
    }

    fn too_slow(&self, step: &'static str, host: &str) -> RemoteError {
        RemoteError::Timeout { step, host: host.to_owned(), seconds: self.timeout.as_secs().max(1) }
    }
}

fn host_of(url: &Url) -> String {
    let host = url.host_str().unwrap_or_default();
    url.port().map_or_else(|| host.to_owned(), |port| format!("{host}:{port}"))
}

fn with_login(request: reqwest::RequestBuilder, login: Option<&Login>) -> reqwest::RequestBuilder {
    match login {
        Some(login) => request.basic_auth(&login.username, Some(login.password.expose_secret())),
        None => request,
    }
}

/// A path below the clone URL.
fn endpoint(url: &Url, path: &str) -> Url {
    let mut endpoint = url.clone();
    let base = url.path().trim_end_matches('/');
    endpoint.set_path(&format!("{base}/{path}"));
    endpoint
}

/// The clone URL that a redirect of `info/refs` leads to, if it stays on the host.
fn redirected(
    question: &Url,
    response: &reqwest::Response,
    host: &str,
    clone_url: &Url,
    had_login: bool,
) -> Result<Url, RemoteError> {
    let not_git = || RemoteError::NotGit { host: host.to_owned(), repository: clone_url.to_string() };
    let location =
        response.headers().get(header::LOCATION).and_then(|value| value.to_str().ok()).ok_or_else(not_git)?;
    let target = question.join(location).map_err(|_| not_git())?;
    if target.origin() != question.origin() {
        return Err(RemoteError::Redirect { host: host.to_owned(), to: host_of(&target) });
    }
    match target.path().strip_suffix("/info/refs") {
        Some(path) => {
            let mut url = clone_url.clone();
            url.set_path(path);
            Ok(url)
        }
        // A page to sign in.
        None => Err(RemoteError::NoAccess { host: host.to_owned(), repository: clone_url.to_string(), had_login }),
    }
}
