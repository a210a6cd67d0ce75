//! The stored sign-in: `~/.config/berth/credentials.json`, readable by its owner only.

use std::os::unix::fs::OpenOptionsExt as _;
use std::path::PathBuf;

use anyhow::Context as _;
use serde::{Deserialize, Serialize};

use crate::args::Global;
use crate::client::Target;

/// What `berth login` keeps.
#[derive(Serialize, Deserialize)]
pub(crate) struct Stored {
    /// The server.
    pub url: String,
    /// The token.
    pub token: String,
    /// CA of its certificate.
    pub ca_cert: Option<PathBuf>,
}

fn file() -> Option<PathBuf> {
    let config = std::env::var_os("XDG_CONFIG_HOME")
        .map(PathBuf::from)
        .or_else(|| std::env::var_os("HOME").map(|home| PathBuf::from(home).join(".config")))?;
    Some(config.join("berth/credentials.json"))
}

/// The stored sign-in, if there is one.
pub(crate) fn load() -> anyhow::Result<Option<Stored>> {
    let Some(file) = file() else { return Ok(None) };
    match std::fs::read(&file) {
        Ok(bytes) => Ok(Some(
            serde_json::from_slice(&bytes)
                .with_context(|| format!("{} cannot be read: sign in again with `berth login URL`", file.display()))?,
        )),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error).with_context(|| format!("cannot read {}", file.display())),
    }
}

/// Stores a sign-in; returns the file.
pub(crate) fn store(stored: &Stored) -> anyhow::Result<PathBuf> {
    use std::io::Write as _;
    let file = file().context("HOME is not set: there is no place to keep the sign-in; use BERTH_TOKEN")?;
    if let Some(parent) = file.parent() {
        std::fs::create_dir_all(parent)?;
    }
    let fresh = file.with_extension("new");
    let mut out = std::fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&fresh)?;
    out.write_all(&serde_json::to_vec_pretty(stored)?)?;
    out.sync_all()?;
    std::fs::rename(&fresh, &file)?;
    Ok(file)
}

/// Forgets it; returns whether there was one.
pub(crate) fn forget() -> anyhow::Result<bool> {
    let Some(file) = file() else { return Ok(false) };
    match std::fs::remove_file(file) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error.into()),
    }
}

/// The remote server that options, environment or a stored sign-in name.
pub(crate) fn chosen(global: &Global) -> anyhow::Result<Option<Target>> {
    if let Some(url) = &global.server {
        let url = parse(url)?;
        // Compared as parsed: a slash at the end makes no other server.
        let stored = load()?.filter(|stored| parse(&stored.url).is_ok_and(|stored| stored == url));
        let token = global.token.clone().or_else(|| stored.as_ref().map(|stored| stored.token.clone()));
        let ca = global.ca_cert.clone().or_else(|| stored.and_then(|stored| stored.ca_cert));
        return Ok(Some(Target::Remote { url, token, ca }));
    }
    // --home names a server on this machine: then a sign-in elsewhere does not matter.
    if global.home.is_some() {
        return Ok(None);
    }
    let Some(stored) = load()? else { return Ok(None) };
    let token = global.token.clone().unwrap_or(stored.token);
    Ok(Some(Target::Remote {
        url: parse(&stored.url)?,
        token: Some(token),
        ca: global.ca_cert.clone().or(stored.ca_cert),
    }))
}

/// A server's URL.
pub(crate) fn parse(url: &str) -> anyhow::Result<url::Url> {
    let parsed = url::Url::parse(url).with_context(|| format!("{url:?} is not a URL: write https://host[:port]"))?;
    if !matches!(parsed.scheme(), "https" | "http") || parsed.host_str().is_none() {
        anyhow::bail!("{url:?} is not the URL of a server: write https://host[:port]");
    }
    Ok(parsed)
}
