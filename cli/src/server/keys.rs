//! Keys that an installation makes for itself, once: the certificate of its Kubernetes API, and that API's token.

use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;
use std::sync::Arc;

use anyhow::Context as _;
use berth_clock::Entropy;

use crate::home::Home;

/// What lies in the key folder.
#[derive(Debug)]
pub(crate) struct Keys {
    /// Bearer token of its administrator.
    pub kube_token: String,
    /// TLS of its listener.
    pub kube_tls: Arc<rustls::ServerConfig>,
}

/// Reads the keys, making those that are missing.
pub(crate) fn load_or_make(home: &Home, entropy: &dyn Entropy) -> anyhow::Result<Keys> {
    let folder = home.keys();
    let certificate = folder.join("kube.crt");
    if !certificate.exists() {
        make_certificates(&folder)?;
    }
    let token_file = folder.join("kube.token");
    if !token_file.exists() {
        write_secret(&token_file, &random_hex(entropy))?;
    }
    let read = |path: &Path| std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()));
    Ok(Keys {
        kube_token: read(&token_file)?.trim().to_owned(),
        kube_tls: berth_http::serve::tls_config(&certificate, &folder.join("kube.key"))?,
    })
}

fn make_certificates(folder: &Path) -> anyhow::Result<()> {
    let ca_key = rcgen::KeyPair::generate()?;
    let mut ca = rcgen::CertificateParams::new(Vec::<String>::new())?;
    ca.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Constrained(0));
    ca.distinguished_name.push(rcgen::DnType::CommonName, "Berth Kubernetes API CA");
    ca.key_usages = vec![rcgen::KeyUsagePurpose::KeyCertSign, rcgen::KeyUsagePurpose::CrlSign];
    let ca_certificate = ca.self_signed(&ca_key)?;
    let key = rcgen::KeyPair::generate()?;
    let names = ["localhost", "127.0.0.1", "::1", "kubernetes.default.svc"].map(str::to_owned).to_vec();
    let mut leaf = rcgen::CertificateParams::new(names)?;
    leaf.distinguished_name.push(rcgen::DnType::CommonName, "berth");
    leaf.extended_key_usages = vec![rcgen::ExtendedKeyUsagePurpose::ServerAuth];
    let issuer = rcgen::Issuer::new(ca, ca_key);
    let leaf_certificate = leaf.signed_by(&key, &issuer)?;
    write_secret(&folder.join("kube-ca.crt"), &ca_certificate.pem())?;
    write_secret(&folder.join("kube.key"), &key.serialize_pem())?;
    // Written last, because its presence means that all of them are there.
    write_secret(&folder.join("kube.crt"), &leaf_certificate.pem())
}

fn write_secret(path: &Path, text: &str) -> anyhow::Result<()> {
    let fresh = path.with_extension("new");
    let context = || format!("cannot write {}", path.display());
    let mut file = std::fs::OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(&fresh)
        .with_context(context)?;
    file.write_all(text.as_bytes()).and_then(|()| file.sync_all()).with_context(context)?;
    std::fs::rename(&fresh, path).with_context(context)
}

fn random_hex(entropy: &dyn Entropy) -> String {
    let mut bytes = [0_u8; 32];
    entropy.fill(&mut bytes);
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
