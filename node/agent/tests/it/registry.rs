//! Pulls from a real registry (Debian's docker-registry), and from one that lies.

use std::collections::BTreeMap;
use std::io::Write as _;
use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::StatusCode;
use axum::response::Response;
use berth_http::{Listener, ServeOptions, serve};
use berth_node::image::layout::Limits;
use berth_node::image::{Digest, ImageStore};
use berth_node::instance::Node;
use berth_testkit::GitServer;
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use crate::support::{TestNode, request, run, steps};

/// A registry on a loopback port; its folder and process are gone when it is dropped.
struct Registry {
    child: Child,
    address: SocketAddr,
    _folder: tempfile::TempDir,
}

impl Registry {
    async fn start() -> Option<Self> {
        let folder = tempfile::tempdir().unwrap();
        let address = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let config = folder.path().join("config.yml");
        let data = folder.path().join("data");
        let text = format!(
            "version: 0.1\nlog: {{ level: error }}\nstorage: {{ filesystem: {{ rootdirectory: {data:?} }} }}\nhttp: {{ addr: \"{address}\" }}\n"
        );
        std::fs::write(&config, text).unwrap();
        let child = Command::new("docker-registry")
            .arg("serve")
            .arg(&config)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn();
        let Ok(child) = child else {
            eprintln!("skipped: no docker-registry in the path (apt-get install docker-registry)");
            return None;
        };
        let this = Self { child, address, _folder: folder };
        let up = async {
            while tokio::net::TcpStream::connect(address).await.is_err() {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(20), up).await.unwrap();
        Some(this)
    }

    async fn put_blob(&self, name: &str, bytes: &[u8]) -> Digest {
        let digest = Digest::of(bytes);
        let client = client();
        let begun = client.post(format!("http://{}/v2/{name}/blobs/uploads/", self.address)).send().await.unwrap();
        assert_eq!(begun.status(), StatusCode::ACCEPTED);
        let mut place: url::Url = begun.headers()["location"].to_str().unwrap().parse().unwrap();
        place.query_pairs_mut().append_pair("digest", &digest.to_string());
        let done =
            client.put(place).header("content-type", "application/octet-stream").body(bytes.to_vec()).send().await;
        assert_eq!(done.unwrap().status(), StatusCode::CREATED);
        digest
    }

    /// Pushes an image of these layers; the digest of its manifest.
    async fn push(&self, name: &str, layers: &[Layer], diff_ids: &[Digest]) -> Digest {
        let config = json!({
            "architecture": "amd64", "os": "linux", "config": { "Env": ["PUSHED=yes"] },
            "rootfs": { "type": "layers", "diff_ids": diff_ids },
        });
        let config = config.to_string();
        let config_digest = self.put_blob(name, config.as_bytes()).await;
        let mut descriptors = Vec::new();
        for layer in layers {
            let digest = self.put_blob(name, &layer.bytes).await;
            descriptors.push(json!({ "mediaType": layer.media_type, "digest": digest, "size": layer.bytes.len() }));
        }
        let manifest = json!({
            "schemaVersion": 2, "mediaType": "application/vnd.oci.image.manifest.v1+json",
            "config": { "mediaType": "application/vnd.oci.image.config.v1+json", "digest": config_digest, "size": config.len() },
            "layers": descriptors,
        });
        self.put_manifest(name, "1", "application/vnd.oci.image.manifest.v1+json", &manifest).await
    }

    async fn put_manifest(&self, name: &str, tag: &str, media_type: &str, manifest: &Value) -> Digest {
        let bytes = manifest.to_string();
        let put = client()
            .put(format!("http://{}/v2/{name}/manifests/{tag}", self.address))
            .header("content-type", media_type)
            .body(bytes.clone())
            .send()
            .await
            .unwrap();
        let status = put.status();
        assert_eq!(status, StatusCode::CREATED, "{}", put.text().await.unwrap());
        Digest::of(bytes.as_bytes())
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[expect(
    clippy::disallowed_methods,
    reason = "the test speaks to its own registry on loopback, which the guarded client refuses"
)]
fn client() -> reqwest::Client {
    berth_http::install_crypto();
    reqwest::Client::builder().build().unwrap()
}

struct Layer {
    media_type: &'static str,
    bytes: Vec<u8>,
}

fn gzip(tar: &[u8]) -> Layer {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(tar).unwrap();
    Layer { media_type: "application/vnd.oci.image.layer.v1.tar+gzip", bytes: encoder.finish().unwrap() }
}

fn zstd(tar: &[u8]) -> Layer {
    Layer { media_type: "application/vnd.oci.image.layer.v1.tar+zstd", bytes: zstd::encode_all(tar, 1).unwrap() }
}

/// An archive whose names and links are written as they are.
pub fn archive(entries: &[(&str, tar::EntryType, &str, &[u8])]) -> Vec<u8> {
    let mut builder = tar::Builder::new(Vec::new());
    for (name, kind, link, content) in entries {
        let mut header = tar::Header::new_gnu();
        header.as_mut_bytes()[..name.len()].copy_from_slice(name.as_bytes());
        header.as_mut_bytes()[157..157 + link.len()].copy_from_slice(link.as_bytes());
        header.set_entry_type(*kind);
        header.set_mode(0o755);
        header.set_uid(0);
        header.set_gid(0);
        header.set_size(content.len() as u64);
        header.set_cksum();
        builder.append(&header, *content).unwrap();
    }
    builder.into_inner().unwrap()
}

/// The base image's own layer, as tar: what makes a pushed image one that a workspace can live in.
async fn base_layer(node: &Node) -> Vec<u8> {
    let store = node.config().home.join("node/images/blobs/sha256");
    let base = node.prepare(Arc::new(|_| {})).await.unwrap();
    let manifest: Value = serde_json::from_slice(&std::fs::read(store.join(base.digest.hex())).unwrap()).unwrap();
    let digest: Digest = manifest["layers"][0]["digest"].as_str().unwrap().parse().unwrap();
    std::fs::read(store.join(digest.hex())).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn images_are_pulled_whole_or_not_at_all() {
    let Some(registry) = Registry::start().await else { return };
    let lies = Lies::start(registry.address).await;
    let allowed = vec![registry.address.to_string(), lies.address.to_string()];
    let Some(t) =
        TestNode::with(|config| config.allow_private_registries = allowed, Arc::new(berth_node::NoCredentials)).await
    else {
        return;
    };
    let git = GitServer::start().await.unwrap();
    let repository = git.repository("acme", "hello", &[("README.md", "hi\n")]).unwrap();
    let file = tar::EntryType::Regular;
    let base = base_layer(&t.node).await;
    let second = archive(&[("pushed-gzip", file, "", b"one\n")]);
    let third = archive(&[("pushed-zstd", file, "", b"two\n")]);
    let diff_ids = [&base, &second, &third].map(|tar| Digest::of(tar));

    // Layers of every compression, by tag and by digest, also through a list of platforms.
    let layers = [zstd(&base), gzip(&second), zstd(&third)];
    let digest = registry.push("team/app", &layers, &diff_ids).await;
    let index = json!({
        "schemaVersion": 2, "mediaType": "application/vnd.oci.image.index.v1+json",
        "manifests": [{
            "mediaType": "application/vnd.oci.image.manifest.v1+json", "digest": digest,
            "size": manifest_size(&registry, "team/app", &digest).await,
            "platform": { "os": "linux", "architecture": "amd64" },
        }],
    });
    registry.put_manifest("team/app", "multi", "application/vnd.oci.image.index.v1+json", &index).await;
    let at = registry.address;
    for (number, name) in
        [format!("{at}/team/app:1"), format!("{at}/team/app@{digest}"), format!("{at}/team/app:multi")]
            .into_iter()
            .enumerate()
    {
        let mut wanted = request(u32::try_from(number).unwrap(), &repository, "main");
        wanted.image = Some(name.clone());
        let id = wanted.instance_id.clone();
        let ready =
            t.node.start(wanted, &steps(), &Default::default()).await.unwrap_or_else(|error| panic!("{name}: {error}"));
        assert_eq!(ready.image, digest.to_string(), "{name}");
        assert_eq!(run(&t.node, &id, &["cat", "/pushed-gzip", "/pushed-zstd"]).await.unwrap(), "one\ntwo");
        assert_eq!(run(&t.node, &id, &["printenv", "PUSHED"]).await.unwrap(), "yes");
        t.node.stop(&id, Duration::ZERO).await;
        t.node.forget(&id);
    }

    // A registry that cannot be asked is no reason not to start from what is here.
    let fourth = archive(&[("pushed-last", file, "", b"four\n")]);
    let busy = format!("{}/honest/app:1", lies.address);
    let first = registry.push("honest/app", &[gzip(&fourth)], &[Digest::of(&fourth)]).await;
    let get = async || t.node.images().get(&busy, &guard(lies.address), Arc::new(|_| {})).await;
    assert_eq!(get().await.unwrap().digest, first);
    lies.busy.store(true, Ordering::Relaxed);
    let again = ImageStore::open(t.node.config().home.join("node/images"), Limits::default(), Duration::ZERO).unwrap();
    let image = again.get(&busy, &guard(lies.address), Arc::new(|_| {})).await.unwrap();
    assert_eq!(image.digest, first);
    lies.busy.store(false, Ordering::Relaxed);

    // What is not there, or not what it says.
    let wrong = Digest::of(b"another");
    registry.push("team/diff", &[gzip(&second)], &[wrong]).await;
    let fresh = registry.push("team/fresh", &[gzip(&second)], &[Digest::of(&second)]).await;
    let cases: [(String, &str); 8] = [
        (format!("{at}/team/nothing:1"), "does not exist"),
        (format!("{at}/team/app:9"), "does not exist"),
        (format!("{at}/team/app@{wrong}"), "does not exist"),
        (format!("{at}/team/diff:1"), "diff id"),
        (format!("{}/blobs/app:1", lies.address), "digest"),
        (format!("{}/manifests/fresh@{fresh}", lies.address), "digest"),
        (format!("{}/foreign/fresh:1", lies.address), "foreign layers"),
        (format!("{}/many/fresh:1", lies.address), "119 layers; at most 118"),
    ];
    registry.push("blobs/app", &[gzip(&third)], &[Digest::of(&third)]).await;
    for (name, part) in cases {
        refused(&t.node, &name, part).await;
    }
    // What the node has by this digest it need not ask for: no lie reaches it.
    let known = format!("{}/manifests/app@{digest}", lies.address);
    let image = t.node.images().get(&known, &guard(lies.address), Arc::new(|_| {})).await.unwrap();
    assert_eq!(image.digest, digest);

    // Layers that would write outside their folder.
    let secret = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(secret.path(), "the host's").unwrap();
    let path = secret.path().to_str().unwrap();
    let (link, hard) = (tar::EntryType::Symlink, tar::EntryType::Link);
    let up = format!("../../../../../../../../../..{path}");
    let below = format!("way{path}");
    let hostile: BTreeMap<&str, Vec<u8>> = [
        ("dots", archive(&[(&up, file, "", b"theirs")])),
        ("absolute", archive(&[(path, file, "", b"theirs")])),
        ("symlink", archive(&[("way", link, "/", b""), (&below, file, "", b"theirs")])),
        ("hardlink", archive(&[("mine", hard, &up, b""), ("mine", file, "", b"theirs")])),
    ]
    .into();
    for (name, tar) in hostile {
        registry.push(&format!("hostile/{name}"), &[gzip(&tar)], &[Digest::of(&tar)]).await;
        let outcome = t.node.images().get(&format!("{at}/hostile/{name}:1"), &guard(at), Arc::new(|_| {})).await;
        eprintln!("{name}: {:?}", outcome.as_ref().map(|image| &image.layers).map_err(ToString::to_string));
        assert_eq!(std::fs::read_to_string(path).unwrap(), "the host's", "{name}");
        if let Ok(image) = outcome {
            // Taken as a path below the layer's own folder: harmless.
            assert!(image.layers.iter().all(|layer| layer.starts_with(&t.node.config().home)), "{name}");
        }
    }
    t.close().await;
}

fn guard(address: SocketAddr) -> berth_http::outbound::Guard {
    berth_http::outbound::Guard::new([address.to_string().as_str()]).unwrap()
}

async fn refused(node: &Node, name: &str, part: &str) {
    let address: SocketAddr = name.split('/').next().unwrap().parse().unwrap();
    let error = node.images().get(name, &guard(address), Arc::new(|_| {})).await.unwrap_err();
    assert!(error.to_string().contains(part), "{name}: no {part:?} in {error}");
    let layout = node.config().home.join("node/images");
    let left = std::fs::read_dir(layout.join("tmp")).unwrap().count();
    assert_eq!(left, 0, "{name} left something half done");
}

async fn manifest_size(registry: &Registry, name: &str, digest: &Digest) -> usize {
    let url = format!("http://{}/v2/{name}/manifests/{digest}", registry.address);
    let accept = "application/vnd.oci.image.manifest.v1+json";
    client().get(url).header("accept", accept).send().await.unwrap().bytes().await.unwrap().len()
}

/// Passes on what the registry says with one byte changed: in blobs of `blobs/…`, in manifests of `manifests/…`, which are `team/…` there.
/// Manifests of `foreign/…` have their layers elsewhere, those of `many/…` have more than can be mounted.
struct Lies {
    address: SocketAddr,
    /// It answers nothing but that it has too much to do.
    busy: Arc<AtomicBool>,
    shutdown: CancellationToken,
}

impl Lies {
    async fn start(registry: SocketAddr) -> Self {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let shutdown = CancellationToken::new();
        let busy = Arc::new(AtomicBool::new(false));
        let router = Router::new().fallback(lie).with_state((registry, busy.clone()));
        tokio::spawn(serve(Listener::Tcp(listener), router, ServeOptions::default(), shutdown.clone()));
        Self { address, busy, shutdown }
    }
}

impl Drop for Lies {
    fn drop(&mut self) {
        self.shutdown.cancel();
    }
}

async fn lie(State((registry, busy)): State<(SocketAddr, Arc<AtomicBool>)>, request: Request) -> Response {
    if busy.load(Ordering::Relaxed) {
        let mut response = Response::new(Body::empty());
        *response.status_mut() = StatusCode::TOO_MANY_REQUESTS;
        return response;
    }
    let asked_for = request.uri().path();
    let (foreign, many) = (asked_for.starts_with("/v2/foreign/"), asked_for.starts_with("/v2/many/"));
    let path = ["manifests", "foreign", "many"]
        .iter()
        .fold(asked_for.to_owned(), |path, name| path.replace(&format!("/v2/{name}/"), "/v2/team/"));
    let mut asked = client().get(format!("http://{registry}{path}"));
    if let Some(accept) = request.headers().get("accept") {
        asked = asked.header("accept", accept);
    }
    let answer = asked.send().await.unwrap();
    let (status, kind) = (answer.status(), answer.headers().get("content-type").cloned());
    let mut bytes = answer.bytes().await.unwrap().to_vec();
    let is_manifest = path.contains("/manifests/");
    if is_manifest && (foreign || many) {
        let mut manifest: Value = serde_json::from_slice(&bytes).unwrap();
        let layers = manifest["layers"].as_array_mut().unwrap();
        if foreign {
            layers[0]["urls"] = json!(["http://127.0.0.1:9/layer"]);
        } else {
            *layers = vec![layers[0].clone(); 119];
        }
        bytes = manifest.to_string().into_bytes();
    }
    let tampered = if path.starts_with("/v2/blobs/") { path.contains("/blobs/sha256") } else { is_manifest };
    if tampered
        && !asked_for.starts_with("/v2/honest/")
        && !foreign
        && !many
        && let Some(last) = bytes.last_mut()
    {
        *last ^= 1;
    }
    let mut response = Response::new(Body::from(bytes));
    *response.status_mut() = status;
    if let Some(kind) = kind {
        response.headers_mut().insert("content-type", kind);
    }
    response
}
