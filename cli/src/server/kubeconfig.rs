//! `berth kubeconfig`.

use anyhow::Context as _;
use base64::Engine as _;

use super::config::Config;
use crate::home::Home;
use crate::output;

/// Prints a kubeconfig for the embedded Kubernetes API.
pub(crate) fn print(home: &Home) -> anyhow::Result<()> {
    let config = Config::load_default(home)?;
    let read = |name: &str| {
        let path = home.keys().join(name);
        std::fs::read_to_string(&path).with_context(|| {
            format!("cannot read {}: the server makes it at its first start; only its user may read it", path.display())
        })
    };
    let ca = base64::engine::general_purpose::STANDARD.encode(read("kube-ca.crt")?);
    let token = read("kube.token")?;
    output::write(
        format!(
            "apiVersion: v1\nkind: Config\nclusters:\n- name: berth\n  cluster:\n    server: https://{}\n    certificate-authority-data: {ca}\ncontexts:\n- name: berth\n  context:\n    cluster: berth\n    namespace: {}\n    user: admin\ncurrent-context: berth\nusers:\n- name: admin\n  user:\n    token: {}\n",
            config.kubernetes.listen,
            berth_workspace_crd::NAMESPACE,
            token.trim(),
        )
        .as_bytes(),
    )
}
