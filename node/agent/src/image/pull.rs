//! Pulling an image from a registry (OCI distribution specification).
//!
//! Users choose the reference, so each call goes through the guarded client: resolved once, every address checked and pinned, and each
//! redirect (blobs usually lie elsewhere) is checked again and followed without the registry's credentials.

use std::io::Write;
use std::time::Duration;

use berth_http::outbound::{Guard, Refused};
use futures::future::BoxFuture;
use futures::{StreamExt, TryStreamExt};
use http::{StatusCode, header};
use serde::Deserialize;
use url::Url;

use super::document::{Descriptor, Index, Manifest};
use super::layout::{Layout, LayoutError, MAX_DOCUMENT_BYTES, MAX_LAYERS};
use super::reference::{Digest, Reference};

const MANIFEST_TYPES: &str = "application/vnd.oci.image.manifest.v1+json, application/vnd.docker.distribution.manifest.v2+json, \
     application/vnd.oci.image.index.v1+json, application/vnd.docker.distribution.manifest.list.v2+json";
/// For a whole blob: a registry that sends a byte now and then does not hold a start for ever.
const BLOB_TIMEOUT: Duration = Duration::from_secs(3600);
/// How long a registry may send nothing of a blob before the user is told.
const PATIENCE: Duration = Duration::from_secs(10);
/// How often the user is told before the pull is given up.
const PATIENCES: u32 = 6;
const DOCUMENT_TIMEOUT: Duration = Duration::from_secs(30);
const MAX_REDIRECTS: usize = 5;

/// The image cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum PullError {
    /// The registry's address must not be called.
    #[error("the registry of the image {reference} cannot be called")]
    Refused {
        /// The image.
        reference: String,
        /// Why.
        #[source]
        source: Refused,
    },
    /// The registry cannot be reached or broke off.
    #[error("the registry of the image {reference} does not answer")]
    Transport {
        /// The image.
        reference: String,
        /// Why.
        #[source]
        source: reqwest::Error,
    },
    /// It stopped in the middle of a blob.
    #[error(
        "the registry of the image {reference} has sent nothing for {seconds} seconds, after {received} of {size} bytes of {digest}"
    )]
    Stalled {
        /// The image.
        reference: String,
        /// Since when.
        seconds: u64,
        /// What it sent.
        received: u64,
        /// What there is.
        size: u64,
        /// The blob.
        digest: Digest,
    },
    /// The image does not exist, or needs credentials.
    #[error(
        "the image {reference} does not exist, or its registry wants credentials (answer {status}): check its name and tag"
    )]
    Missing {
        /// The image.
        reference: String,
        /// The registry's answer.
        status: StatusCode,
    },
    /// Anything else the registry answers.
    #[error("the registry of the image {reference} answered {status} to {what}")]
    Status {
        /// The image.
        reference: String,
        /// What was asked.
        what: String,
        /// The registry's answer.
        status: StatusCode,
    },
    /// An answer that breaks the protocol.
    #[error("the registry of the image {reference} sent something unusable: {why}")]
    Protocol {
        /// The image.
        reference: String,
        /// What is wrong.
        why: String,
    },
    /// The store.
    #[error(transparent)]
    Layout(#[from] LayoutError),
}

impl PullError {
    /// Whether the registry cannot be asked now, rather than having said no.
    pub(super) fn is_away(&self) -> bool {
        match self {
            Self::Transport { .. }
            | Self::Stalled { .. }
            | Self::Refused { source: Refused::Unresolved { .. }, .. } => true,
            Self::Status { status, .. } => status.is_server_error() || *status == StatusCode::TOO_MANY_REQUESTS,
            Self::Refused { .. } | Self::Missing { .. } | Self::Protocol { .. } | Self::Layout(_) => false,
        }
    }
}

/// One pull.
struct Puller<'a> {
    layout: &'a Layout,
    guard: &'a Guard,
    reference: &'a Reference,
    token: tokio::sync::Mutex<Option<String>>,
    progress: &'a (dyn Fn(String) + Send + Sync),
    patience: Duration,
}

/// The digest that the registry has under the reference now, without pulling it.
///
/// # Errors
/// See [`PullError`].
pub async fn resolve(layout: &Layout, guard: &Guard, reference: &Reference) -> Result<Digest, PullError> {
    Puller::new(layout, guard, reference, &|_| {}).manifest().await.map(|(digest, _)| digest)
}

/// Pulls the blobs of an image and names its manifest. `progress` hears how far it is.
///
/// # Errors
/// See [`PullError`].
pub async fn pull(
    layout: &Layout,
    guard: &Guard,
    reference: &Reference,
    progress: &(dyn Fn(String) + Send + Sync),
) -> Result<Digest, PullError> {
    Puller::new(layout, guard, reference, progress).pull().await
}

impl<'a> Puller<'a> {
    fn new(
        layout: &'a Layout,
        guard: &'a Guard,
        reference: &'a Reference,
        progress: &'a (dyn Fn(String) + Send + Sync),
    ) -> Self {
        Self { layout, guard, reference, token: tokio::sync::Mutex::new(None), progress, patience: PATIENCE }
    }

    async fn pull(&self) -> Result<Digest, PullError> {
        let (digest, manifest) = self.manifest().await?;
        self.document(&manifest.config).await?;
        self.layers(&manifest.layers).await?;
        self.layout.tag(self.reference, digest)?;
        Ok(digest)
    }

    fn name(&self) -> String {
        self.reference.to_string()
    }

    fn protocol(&self, why: impl Into<String>) -> PullError {
        PullError::Protocol { reference: self.name(), why: why.into() }
    }

    /// Plain http only for hosts the administrator named.
    fn url(&self, path: &str) -> Result<Url, PullError> {
        let (host, port) = self.reference.host_port();
        let plain = port.is_some_and(|port| self.guard.allows(&host, port));
        let scheme = if plain { "http" } else { "https" };
        Url::parse(&format!("{scheme}://{}/v2/{}/{path}", self.reference.registry, self.reference.repository))
            .map_err(|error| self.protocol(error.to_string()))
    }

    /// The image's manifest for this machine, kept as a blob.
    async fn manifest(&self) -> Result<(Digest, Manifest), PullError> {
        let wanted = match (&self.reference.digest, &self.reference.tag) {
            (Some(digest), _) => digest.to_string(),
            (None, tag) => tag.clone().unwrap_or_else(|| "latest".to_owned()),
        };
        let (digest, bytes) = self.fetch_manifest(&wanted, self.reference.digest).await?;
        if let Ok(manifest) = serde_json::from_slice::<Manifest>(&bytes) {
            self.check(&manifest)?;
            self.layout.put(&bytes)?;
            return Ok((digest, manifest));
        }
        let index: Index = serde_json::from_slice(&bytes)
            .map_err(|error| self.protocol(format!("neither a manifest nor a list of them: {error}")))?;
        let ours = architecture();
        let entry = index
            .manifests
            .iter()
            .find(|entry| entry.platform.as_ref().is_some_and(|p| p.os == "linux" && p.architecture == ours))
            .ok_or_else(|| self.protocol(format!("the image is not made for linux/{ours}")))?;
        let (digest, bytes) = self.fetch_manifest(&entry.digest.to_string(), Some(entry.digest)).await?;
        let manifest: Manifest = serde_json::from_slice(&bytes)
            .map_err(|error| self.protocol(format!("a manifest that cannot be read: {error}")))?;
        self.check(&manifest)?;
        self.layout.put(&bytes)?;
        Ok((digest, manifest))
    }

    fn check(&self, manifest: &Manifest) -> Result<(), PullError> {
        if manifest.layers.len() > MAX_LAYERS {
            return Err(self.protocol(format!("{} layers; at most {MAX_LAYERS} can be mounted", manifest.layers.len())));
        }
        // Foreign layers would make the node call any address that the image names.
        if manifest.layers.iter().any(|layer| !layer.urls.is_empty()) {
            return Err(self.protocol("it has foreign layers"));
        }
        Ok(())
    }

    async fn fetch_manifest(&self, wanted: &str, digest: Option<Digest>) -> Result<(Digest, Vec<u8>), PullError> {
        let response = self.get(&format!("manifests/{wanted}"), DOCUMENT_TIMEOUT).await?;
        let bytes = self.body(response).await?;
        let found = Digest::of(&bytes);
        match digest {
            Some(wanted) if wanted != found => Err(LayoutError::Digest { wanted, found }.into()),
            _ => Ok((found, bytes)),
        }
    }

    async fn body(&self, response: reqwest::Response) -> Result<Vec<u8>, PullError> {
        let mut bytes = Vec::new();
        let mut stream = response.bytes_stream();
        while let Some(chunk) = stream.next().await {
            let chunk = chunk.map_err(|source| PullError::Transport { reference: self.name(), source })?;
            bytes.extend_from_slice(&chunk);
            if u64::try_from(bytes.len()).unwrap_or(u64::MAX) > MAX_DOCUMENT_BYTES {
                return Err(self.protocol("a document over 4 MiB"));
            }
        }
        Ok(bytes)
    }

    async fn document(&self, descriptor: &Descriptor) -> Result<(), PullError> {
        if descriptor.size > MAX_DOCUMENT_BYTES {
            return Err(self.protocol("a configuration over 4 MiB"));
        }
        if self.layout.blob_path(&descriptor.digest).exists() {
            return Ok(());
        }
        self.blob(descriptor, &|_| {}).await
    }

    /// Three at a time: more do not make a registry faster.
    async fn layers(&self, layers: &[Descriptor]) -> Result<(), PullError> {
        let total: u64 = layers.iter().map(|layer| layer.size).sum();
        let done = std::sync::atomic::AtomicU64::new(0);
        let tell = |bytes: u64| {
            let now = done.fetch_add(bytes, std::sync::atomic::Ordering::Relaxed) + bytes;
            (self.progress)(format!("pulling {} of {} MB", now / 1_000_000, total.div_ceil(1_000_000)));
        };
        let pulls: Vec<BoxFuture<'_, Result<(), PullError>>> = layers
            .iter()
            .map(|layer| -> BoxFuture<'_, Result<(), PullError>> { Box::pin(self.layer(layer, &tell)) })
            .collect();
        futures::stream::iter(pulls).buffer_unordered(3).try_collect::<()>().await
    }

    async fn layer(&self, layer: &Descriptor, tell: &(dyn Fn(u64) + Send + Sync)) -> Result<(), PullError> {
        if self.layout.blob_path(&layer.digest).exists() {
            tell(layer.size);
            return Ok(());
        }
        self.blob(layer, tell).await
    }

    async fn blob(&self, descriptor: &Descriptor, tell: &(dyn Fn(u64) + Send + Sync)) -> Result<(), PullError> {
        let path = format!("blobs/{}", descriptor.digest);
        let response = self.unless_stalled(self.get(&path, BLOB_TIMEOUT), descriptor, 0).await??;
        let mut writer = self.layout.blob_writer()?;
        let mut stream = response.bytes_stream();
        while let Some(chunk) = self.unless_stalled(stream.next(), descriptor, writer.bytes()).await? {
            let chunk = chunk.map_err(|source| PullError::Transport { reference: self.name(), source })?;
            let count = u64::try_from(chunk.len()).unwrap_or(u64::MAX);
            if writer.bytes() + count > descriptor.size {
                return Err(LayoutError::Size { wanted: descriptor.size, found: writer.bytes() + count }.into());
            }
            writer.write_all(&chunk).map_err(|source| LayoutError::File {
                path: self.layout.blob_path(&descriptor.digest),
                action: "written",
                source,
            })?;
            tell(count);
        }
        Ok(self.layout.keep(writer, &descriptor.digest, Some(descriptor.size))?)
    }

    /// The next piece of a blob: while none comes the user is told, and after a while it is given up.
    async fn unless_stalled<T>(
        &self,
        next: impl Future<Output = T>,
        blob: &Descriptor,
        received: u64,
    ) -> Result<T, PullError> {
        let mut next = std::pin::pin!(next);
        let (size, digest) = (blob.size, blob.digest);
        for times in 1..=PATIENCES {
            if let Ok(next) = tokio::time::timeout(self.patience, &mut next).await {
                return Ok(next);
            }
            let seconds = (self.patience * times).as_secs();
            let what =
                format!("the registry has sent nothing for {seconds} s, after {received} of {size} bytes of {digest}");
            (self.progress)(what);
        }
        Err(PullError::Stalled {
            reference: self.name(),
            seconds: (self.patience * PATIENCES).as_secs(),
            received,
            size,
            digest,
        })
    }

    /// GET below the repository, with the anonymous token that the registry asks for, and redirects followed by hand.
    async fn get(&self, path: &str, timeout: Duration) -> Result<reqwest::Response, PullError> {
        let url = self.url(path)?;
        let mut response = self.send(&url, timeout, self.token.lock().await.clone()).await?;
        if response.status() == StatusCode::UNAUTHORIZED {
            let challenge = response
                .headers()
                .get(header::WWW_AUTHENTICATE)
                .and_then(|v| v.to_str().ok())
                .unwrap_or_default()
                .to_owned();
            let token = self.authenticate(&challenge).await?;
            *self.token.lock().await = Some(token.clone());
            response = self.send(&url, timeout, Some(token)).await?;
        }
        let mut here = url;
        for _ in 0..MAX_REDIRECTS {
            if !response.status().is_redirection() {
                break;
            }
            let location = response.headers().get(header::LOCATION).and_then(|v| v.to_str().ok()).unwrap_or_default();
            here = here.join(location).map_err(|error| self.protocol(format!("a redirect to nowhere: {error}")))?;
            response = self.send(&here, timeout, None).await?;
        }
        let status = response.status();
        match status {
            StatusCode::OK => Ok(response),
            StatusCode::NOT_FOUND | StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => {
                Err(PullError::Missing { reference: self.name(), status })
            }
            status => Err(PullError::Status { reference: self.name(), what: path.to_owned(), status }),
        }
    }

    async fn send(&self, url: &Url, timeout: Duration, token: Option<String>) -> Result<reqwest::Response, PullError> {
        let client = self
            .guard
            .client(url, timeout)
            .await
            .map_err(|source| PullError::Refused { reference: self.name(), source })?;
        let mut request = client.get(url.clone()).header(header::ACCEPT, MANIFEST_TYPES);
        if let Some(token) = token {
            request = request.bearer_auth(token);
        }
        request.send().await.map_err(|source| PullError::Transport { reference: self.name(), source })
    }

    /// The token flow of the distribution specification, anonymous.
    async fn authenticate(&self, challenge: &str) -> Result<String, PullError> {
        #[derive(Deserialize)]
        struct Token {
            token: Option<String>,
            access_token: Option<String>,
        }
        let missing = || PullError::Missing { reference: self.name(), status: StatusCode::UNAUTHORIZED };
        let parameters = bearer_parameters(challenge).ok_or_else(missing)?;
        let parameter =
            |name: &str| parameters.iter().find(|(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, value)| value);
        let service = parameter("service");
        let mut url = Url::parse(parameter("realm").ok_or_else(missing)?)
            .map_err(|error| self.protocol(format!("a token address that is none: {error}")))?;
        {
            let mut query = url.query_pairs_mut();
            if let Some(service) = service {
                query.append_pair("service", service);
            }
            query.append_pair("scope", &format!("repository:{}:pull", self.reference.repository));
        }
        let response = self.send(&url, DOCUMENT_TIMEOUT, None).await?;
        if response.status() != StatusCode::OK {
            return Err(PullError::Missing { reference: self.name(), status: response.status() });
        }
        let token: Token = serde_json::from_slice(&self.body(response).await?)
            .map_err(|error| self.protocol(format!("a token that is none: {error}")))?;
        token.token.or(token.access_token).ok_or_else(missing)
    }
}

/// The parameters of a `Bearer` challenge (RFC 9110 §11.2): the scheme's case does not matter, and values in quotes may hold commas.
fn bearer_parameters(challenge: &str) -> Option<Vec<(String, String)>> {
    let (scheme, rest) = challenge.trim().split_once(' ')?;
    if !scheme.eq_ignore_ascii_case("bearer") {
        return None;
    }
    let mut in_quotes = false;
    let parts = rest.split(|c| {
        in_quotes ^= c == '"';
        c == ',' && !in_quotes
    });
    let parameter = |part: &str| {
        let (key, value) = part.split_once('=')?;
        Some((key.trim().to_owned(), value.trim().trim_matches('"').to_owned()))
    };
    Some(parts.filter_map(parameter).collect())
}

/// The machine's architecture in the words of Go, which image manifests use.
pub(crate) fn architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        "powerpc64" => "ppc64le",
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    use super::*;

    #[test]
    fn challenges_of_the_wild_are_understood() {
        let parameters = bearer_parameters(
            "bearer realm=\"https://auth.example.com/token\", scope=\"repository:x:pull,push\",Service=\"a, b\"",
        )
        .unwrap();
        let expected =
            [("realm", "https://auth.example.com/token"), ("scope", "repository:x:pull,push"), ("Service", "a, b")];
        assert_eq!(parameters, expected.map(|(key, value)| (key.to_owned(), value.to_owned())));
        assert_eq!(bearer_parameters("Basic realm=\"x\""), None);
        assert_eq!(bearer_parameters(""), None);
    }

    /// Answers each request in turn with these bytes, and then leaves the connection open.
    async fn registry(answers: Vec<Vec<u8>>) -> std::net::SocketAddr {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(async move {
            let mut open = Vec::new();
            for answer in answers {
                let (mut stream, _) = listener.accept().await.unwrap();
                let mut head = Vec::new();
                while !head.ends_with(b"\r\n\r\n") {
                    head.push(stream.read_u8().await.unwrap());
                }
                stream.write_all(&answer).await.unwrap();
                open.push(stream);
            }
            std::future::pending::<()>().await
        });
        address
    }

    fn answer(length: usize, body: &[u8]) -> Vec<u8> {
        [format!("HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: {length}\r\n\r\n").as_bytes(), body].concat()
    }

    #[tokio::test]
    async fn a_registry_that_falls_silent_is_told_and_given_up() {
        berth_http::install_crypto();
        let config = b"{}";
        let layer = Digest::of(b"never sent whole");
        let manifest = serde_json::json!({
            "schemaVersion": 2,
            "config": { "mediaType": "c", "digest": Digest::of(config), "size": config.len() },
            "layers": [{ "mediaType": "l", "digest": layer, "size": 100 }],
        });
        let manifest = manifest.to_string().into_bytes();
        let documents = || vec![answer(manifest.len(), &manifest), answer(config.len(), config)];
        // In the middle of a blob, and before it says anything.
        for (last, received) in [(answer(100, b"ten bytes."), 10), (Vec::new(), 0)] {
            let address = registry([documents(), vec![last]].concat()).await;
            let folder = tempfile::tempdir().unwrap();
            let layout = Layout::open(folder.path().join("images"), crate::image::layout::Limits::default()).unwrap();
            let guard = Guard::new([address.to_string().as_str()]).unwrap();
            let reference: Reference = format!("{address}/team/app:1").parse().unwrap();
            let told = std::sync::Mutex::new(Vec::new());
            let progress = |text| told.lock().unwrap().push(text);
            let patience = Duration::from_millis(50);
            let puller = Puller { patience, ..Puller::new(&layout, &guard, &reference, &progress) };
            let error = tokio::time::timeout(Duration::from_secs(20), puller.pull()).await.unwrap().unwrap_err();
            assert!(error.is_away(), "{error}");
            let part = format!("after {received} of 100 bytes of {layer}");
            assert!(error.to_string().contains(&part), "{error}");
            let told = told.lock().unwrap();
            assert_eq!(told.iter().filter(|text| text.contains(&part)).count(), 6, "{told:?}");
        }
    }

    #[test]
    fn a_registry_that_cannot_be_asked_is_not_one_that_says_no() {
        let reference = || "registry.example.com/x:1".to_owned();
        let host = || "registry.example.com".to_owned();
        let status = |status| PullError::Status { reference: reference(), what: "manifests/1".to_owned(), status };
        let refused = |source| PullError::Refused { reference: reference(), source };
        let away = [
            status(StatusCode::TOO_MANY_REQUESTS),
            status(StatusCode::BAD_GATEWAY),
            refused(Refused::Unresolved { host: host(), source: std::io::Error::other("no") }),
        ];
        assert!(away.iter().all(PullError::is_away));
        let no = [
            status(StatusCode::IM_A_TEAPOT),
            PullError::Missing { reference: reference(), status: StatusCode::NOT_FOUND },
            refused(Refused::Plain { host: host(), port: 80 }),
        ];
        assert!(!no.iter().any(PullError::is_away));
    }
}
