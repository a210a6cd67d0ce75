//! kubectl against the authenticated router, over TLS.
//!
//! The program is that of `BERTH_TEST_KUBECTL`, else the one in the path; without any the test says so and passes.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

use berth_kube_embedded::{Builder, Rule, Tokens, User};
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::service::TowerToHyperService;
use serde_json::json;
use tokio_rustls::TlsAcceptor;

use crate::support::workspace_crd;

fn program() -> Option<PathBuf> {
    let found = std::env::var_os("BERTH_TEST_KUBECTL").map(PathBuf::from).or_else(|| {
        let paths = std::env::var_os("PATH")?;
        std::env::split_paths(&paths).map(|folder| folder.join("kubectl")).find(|file| file.is_file())
    });
    if found.is_none() {
        println!("skipped: no kubectl in the path, and BERTH_TEST_KUBECTL names none");
    }
    found
}

struct Kubectl {
    program: PathBuf,
    folder: PathBuf,
    user: &'static str,
}

impl Kubectl {
    async fn run(&self, arguments: &[&str]) -> (bool, String) {
        let mut command = Command::new(&self.program);
        command
            .arg(format!("--kubeconfig={}", self.folder.join("kubeconfig").display()))
            .arg(format!("--cache-dir={}", self.folder.join("cache").display()))
            .arg(format!("--user={}", self.user))
            .args(arguments)
            .current_dir(&self.folder);
        let output = tokio::task::spawn_blocking(move || command.output()).await.unwrap().unwrap();
        let text = [output.stdout, output.stderr].concat();
        (output.status.success(), String::from_utf8_lossy(&text).into_owned())
    }

    async fn ok(&self, arguments: &[&str], contains: &[&str]) {
        let (success, text) = self.run(arguments).await;
        assert!(success, "kubectl {arguments:?}: {text}");
        for part in contains {
            assert!(text.contains(part), "kubectl {arguments:?} does not say {part:?}: {text}");
        }
    }

    async fn fails(&self, arguments: &[&str], contains: &str) {
        let (success, text) = self.run(arguments).await;
        assert!(!success && text.contains(contains), "kubectl {arguments:?}: {text}");
    }
}

async fn serve(folder: &Path, router: axum::Router) {
    let certified = rcgen::generate_simple_self_signed(["127.0.0.1".to_owned()]).unwrap();
    let key = rustls::pki_types::PrivateKeyDer::try_from(certified.signing_key.serialize_der()).unwrap();
    let mut tls = rustls::ServerConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![certified.cert.der().clone()], key)
        .unwrap();
    tls.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    let acceptor = TlsAcceptor::from(Arc::new(tls));
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    std::fs::write(folder.join("ca.crt"), certified.cert.pem()).unwrap();
    let user = |name: &str| json!({"name": name, "user": {"token": name}});
    let kubeconfig = json!({
        "apiVersion": "v1", "kind": "Config", "current-context": "berth",
        "clusters": [{"name": "berth", "cluster": {"server": format!("https://{address}"), "certificate-authority": folder.join("ca.crt")}}],
        "users": [user("admin"), user("reader"), user("stranger")],
        "contexts": [{"name": "berth", "context": {"cluster": "berth", "user": "admin"}}],
    });
    std::fs::write(folder.join("kubeconfig"), kubeconfig.to_string()).unwrap();
    tokio::spawn(async move {
        while let Ok((socket, _)) = listener.accept().await {
            let (acceptor, router) = (acceptor.clone(), router.clone());
            tokio::spawn(async move {
                if let Ok(stream) = acceptor.accept(socket).await {
                    let builder = hyper_util::server::conn::auto::Builder::new(TokioExecutor::new());
                    let service = TowerToHyperService::new(router);
                    let _ = builder.serve_connection_with_upgrades(TokioIo::new(stream), service).await;
                }
            });
        }
    });
}

const MANIFEST: &str = "\
apiVersion: berth.dev/v1
kind: Workspace
metadata:
  name: w
  labels: {team: a}
spec:
  owner: ann
---
apiVersion: v1
kind: Pod
metadata:
  name: p
spec:
  containers:
  - name: c
    image: debian
";

/// Where else it is to be had, and not that the pod is not there.
async fn what_only_a_kubelet_serves(admin: &Kubectl) {
    let running = r#"{"status":{"phase":"Running"}}"#;
    admin.ok(&["patch", "pod", "p", "--subresource=status", "--type=merge", "-p", running], &["patched"]).await;
    for (command, instead) in [
        (&["logs", "p"][..], "use `berth logs WORKSPACE`"),
        (&["logs", "-f", "p"], "use `berth logs WORKSPACE`"),
        (&["exec", "p", "--", "true"], "use `berth exec WORKSPACE -- COMMAND`"),
        (&["attach", "p"], "use `berth exec WORKSPACE -- COMMAND`"),
        (&["port-forward", "p", ":80"], "use `berth port-forward WORKSPACE PORT`"),
    ] {
        admin.fails(command, instead).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn kubectl_works() {
    let Some(program) = program() else { return };
    let folder = tempfile::tempdir().unwrap();
    let tokens = Tokens::new()
        .token("admin", User::admin("admin"))
        .token("reader", User::with_rules("reader", vec![Rule::read_only()]));
    let server = Builder::new().crd(workspace_crd()).authenticator(tokens).start().await.unwrap();
    serve(folder.path(), server.authenticated_router()).await;
    std::fs::write(folder.path().join("m.yaml"), MANIFEST).unwrap();
    let kubectl = |user| Kubectl { program: program.clone(), folder: folder.path().to_owned(), user };
    let admin = kubectl("admin");

    admin.ok(&["version"], &["Server Version: v1.36"]).await;
    admin.ok(&["api-resources"], &["workspaces", "ws", "berth.dev/v1", "configmaps", "leases"]).await;
    admin.ok(&["explain", "workspace.spec.owner"], &["owner <string>"]).await;
    admin.ok(&["explain", "pod.spec.containers"], &["image"]).await;
    admin.ok(&["apply", "-f", "m.yaml"], &["workspace.berth.dev/w created", "pod/p created"]).await;
    admin.ok(&["apply", "-f", "m.yaml"], &["workspace.berth.dev/w unchanged", "pod/p unchanged"]).await;
    admin.ok(&["get", "ws"], &["NAME", "OWNER", "PHASE", "w", "ann"]).await;
    admin.ok(&["get", "pods", "-o", "wide"], &["0/1", "Pending", "NOMINATED NODE"]).await;
    admin.ok(&["get", "ws", "w", "-o", "yaml"], &["owner: ann", "replicas: 1"]).await;
    admin.ok(&["describe", "ws", "w"], &["Owner:", "ann", "Events:"]).await;
    admin.ok(&["describe", "pod", "p"], &["debian"]).await;
    admin.ok(&["label", "ws", "w", "x=y"], &["labeled"]).await;
    admin.ok(&["annotate", "ws", "w", "note=hello"], &["annotated"]).await;
    admin.ok(&["patch", "ws", "w", "--type=merge", "-p", r#"{"spec":{"replicas":4}}"#], &["patched"]).await;
    admin
        .ok(
            &["patch", "ws", "w", "--subresource=status", "--type=merge", "-p", r#"{"status":{"phase":"Up"}}"#],
            &["patched"],
        )
        .await;
    admin.ok(&["wait", "--for=jsonpath={.status.phase}=Up", "ws/w", "--timeout=10s"], &["condition met"]).await;
    admin.ok(&["apply", "--server-side", "--force-conflicts", "-f", "m.yaml"], &["serverside-applied"]).await;
    admin.ok(&["get", "ws", "w", "-o", "jsonpath={.spec.replicas} {.metadata.labels.x}"], &["4 y"]).await;
    admin.ok(&["create", "namespace", "n"], &["created"]).await;
    admin.ok(&["create", "configmap", "m", "-n", "n", "--from-literal=a=b"], &["created"]).await;
    admin.ok(&["create", "secret", "generic", "s", "-n", "n", "--from-literal=a=b"], &["created"]).await;
    admin.ok(&["auth", "can-i", "delete", "pods"], &["yes"]).await;
    admin.ok(&["auth", "whoami"], &["admin"]).await;
    admin.ok(&["delete", "namespace", "n"], &["deleted"]).await;
    admin.fails(&["get", "namespace", "n"], "NotFound").await;

    let unknown = MANIFEST.split("---").next().unwrap_or_default().replace("kind: Workspace", "kind: Workplace");
    std::fs::write(folder.path().join("unknown.yaml"), unknown).unwrap();
    admin
        .fails(&["apply", "-f", "unknown.yaml"], "no matches for kind \"Workplace\" in version \"berth.dev/v1\"")
        .await;
    what_only_a_kubelet_serves(&admin).await;

    let reader = kubectl("reader");
    reader.ok(&["get", "ws"], &["ann"]).await;
    reader.fails(&["delete", "ws", "w"], "User \"reader\" cannot delete resource \"workspaces\" in API group \"berth.dev\" in the namespace \"default\"").await;
    kubectl("stranger").fails(&["get", "ws"], "Unauthorized").await;

    // A watch prints what happens while it runs.
    let watching = kubectl("admin");
    let watch = tokio::spawn(async move { watching.run(&["get", "ws", "-w", "--request-timeout=6s"]).await });
    admin.ok(&["delete", "-f", "m.yaml"], &["workspace.berth.dev \"w\" deleted", "pod \"p\" deleted"]).await;
    let mut again = 0;
    while !watch.is_finished() && again < 100 {
        again += 1;
        let name = format!("later-{again}");
        let manifest = MANIFEST.split("---").next().unwrap_or_default().replace("name: w", &format!("name: {name}"));
        std::fs::write(folder.path().join("later.yaml"), manifest).unwrap();
        admin.ok(&["apply", "-f", "later.yaml"], &["created"]).await;
    }
    let (_, text) = watch.await.unwrap();
    assert!(text.contains("later-"), "the watch printed: {text}");
    server.shutdown().await;
}
