//! `berth kubeconfig`.

use anyhow::Context as _;
use base64::Engine as _;

use super::config::Config;
use crate::args::Output;
use crate::home::Home;
use crate::output;

/// Prints a kubeconfig for the embedded Kubernetes API, as YAML or as the same in JSON.
pub(crate) fn print(home: &Home, format: Output) -> anyhow::Result<()> {
    let config = Config::load_default(home)?;
    let read = |name: &str| {
        let path = home.keys().join(name);
        std::fs::read_to_string(&path).with_context(|| {
            format!("cannot read {}: the server makes it at its first start; only its user may read it", path.display())
        })
    };
    let ca = base64::engine::general_purpose::STANDARD.encode(read("kube-ca.crt")?);
    let token = read("kube.token")?;
    let address = std::fs::read_to_string(home.kubernetes_address()).unwrap_or(config.kubernetes.listen);
    let server = format!("https://{address}");
    let (namespace, token) = (berth_workspace_crd::NAMESPACE, token.trim());
    let kubeconfig = serde_json::json!({
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{ "name": "berth", "cluster": { "server": server, "certificate-authority-data": ca } }],
        "contexts": [{ "name": "berth", "context": { "cluster": "berth", "namespace": namespace, "user": "admin" } }],
        "current-context": "berth",
        "users": [{ "name": "admin", "user": { "token": token } }],
    });
    output::result(format, &kubeconfig, |_| {
        format!(
            "apiVersion: v1\nkind: Config\nclusters:\n- name: berth\n  cluster:\n    server: {server}\n    certificate-authority-data: {ca}\ncontexts:\n- name: berth\n  context:\n    cluster: berth\n    namespace: {namespace}\n    user: admin\ncurrent-context: berth\nusers:\n- name: admin\n  user:\n    token: {token}\n"
        )
    })
}
