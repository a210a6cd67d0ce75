//! The git commands of a checkout, and what their output means. Pure: `run` executes them.
//!
//! The repository is untrusted: no protocol but https (and http where the administrator allowed the host), no hooks, no submodules, no
//! configuration of the image or the user, no prompts. What a user entered is never an option and never part of a shell string.

use std::collections::BTreeMap;

use berth_workspace_crd::Checkout;

/// What git shall not be told.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BadCheckout {
    /// The URL.
    #[error(
        "the repository's URL {0:?} cannot be cloned: only https (or http to a host that is allowed) without credentials"
    )]
    Url(String),
    /// A ref, branch or commit.
    #[error("{0:?} is not a name that git takes for a ref or commit")]
    Name(String),
    /// The folder.
    #[error("{0:?} is not an absolute folder for a checkout")]
    Path(String),
}

fn has_control(text: &str) -> bool {
    text.chars().any(|c| c.is_control() || c == '\u{7f}')
}

/// git-check-ref-format(1), as far as it keeps options and other syntax out.
fn is_name(name: &str) -> bool {
    !name.is_empty()
        && name.len() <= 512
        && !name.starts_with(['-', '/', '.'])
        && !name.ends_with(['/', '.'])
        && !name.contains("..")
        && !name.contains("@{")
        && !name.contains("//")
        && !name
            .chars()
            .any(|c| c.is_control() || matches!(c, ' ' | '~' | '^' | ':' | '?' | '*' | '[' | '\\' | '\u{7f}'))
}

fn is_commit(commit: &str) -> bool {
    matches!(commit.len(), 40 | 64) && commit.chars().all(|c| c.is_ascii_hexdigit())
}

/// Refuses what must not reach git's command line. It was checked when the context was parsed; it is checked again where it is used.
///
/// # Errors
/// See [`BadCheckout`].
pub fn check(checkout: &Checkout, plain_http_allowed: impl Fn(&str, u16) -> bool) -> Result<(), BadCheckout> {
    let url = &checkout.repository.clone_url;
    let bad_url = || BadCheckout::Url(url.chars().take(200).collect());
    let parsed = url::Url::parse(url).map_err(|_| bad_url())?;
    let plain = parsed.scheme() == "http"
        && parsed.host_str().is_some_and(|host| plain_http_allowed(host, parsed.port_or_known_default().unwrap_or(80)));
    if has_control(url)
        || !(parsed.scheme() == "https" || plain)
        || !parsed.username().is_empty()
        || parsed.password().is_some()
    {
        return Err(bad_url());
    }
    for name in [&checkout.reference, &checkout.branch].into_iter().flatten() {
        if !is_name(name) {
            return Err(BadCheckout::Name(name.chars().take(200).collect()));
        }
    }
    if let Some(commit) = checkout.commit.as_ref().filter(|commit| !is_commit(commit)) {
        return Err(BadCheckout::Name(commit.chars().take(200).collect()));
    }
    let path = &checkout.path;
    if !path.starts_with('/')
        || path == "/"
        || has_control(path)
        || path.split('/').any(|part| part == ".." || part == ".")
    {
        return Err(BadCheckout::Path(path.chars().take(200).collect()));
    }
    Ok(())
}

/// Environment of git during a checkout.
#[must_use]
pub fn environment() -> BTreeMap<String, String> {
    [
        ("GIT_CONFIG_NOSYSTEM", "1"),
        ("GIT_CONFIG_GLOBAL", "/dev/null"),
        ("GIT_TERMINAL_PROMPT", "0"),
        ("GIT_ASKPASS", ""),
        ("SSH_ASKPASS", ""),
        ("GIT_LFS_SKIP_SMUDGE", "1"),
        ("LC_ALL", "C"),
    ]
    .into_iter()
    .map(|(name, value)| (name.to_owned(), value.to_owned()))
    .collect()
}

fn git(plain_http: bool) -> Vec<String> {
    let mut settings = vec![
        "protocol.allow=never",
        "protocol.https.allow=always",
        "core.hooksPath=/dev/null",
        "core.fsmonitor=false",
        // The whole disk is synced before its content counts as there.
        "core.fsync=none",
        "submodule.recurse=false",
        "http.lowSpeedLimit=1000",
        "http.lowSpeedTime=60",
        "gc.auto=0",
        "maintenance.auto=false",
        "advice.detachedHead=false",
        // The empty value discards helpers that were configured before.
        "credential.helper=",
        "credential.helper=/.berth/bin/berth-init git-credential",
    ];
    if plain_http {
        settings.push("protocol.http.allow=always");
    }
    let mut argv = vec!["git".to_owned()];
    for setting in settings {
        argv.extend(["-c".to_owned(), setting.to_owned()]);
    }
    argv
}

/// One git command.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Command {
    /// Program and arguments.
    pub argv: Vec<String>,
    /// When it fails, the checkout has not failed.
    pub may_fail: bool,
    /// It does nothing when this file has this line alone.
    pub done_if: Option<(String, String)>,
}

/// The commands that make the checkout, in order.
#[must_use]
pub fn commands(checkout: &Checkout) -> Vec<Command> {
    let plain_http = checkout.repository.clone_url.starts_with("http://");
    let url = checkout.repository.clone_url.clone();
    let path = checkout.path.clone();
    let command = |arguments: &[&str]| {
        let mut argv = git(plain_http);
        argv.extend(arguments.iter().map(|argument| (*argument).to_owned()));
        Command { argv, may_fail: false, done_if: None }
    };
    let clone = |options: &[&str]| {
        let mut arguments = vec!["clone", "--progress", "--no-recurse-submodules"];
        arguments.extend(options);
        arguments.extend(["--", &url, &path]);
        command(&arguments)
    };
    let Some(commit) = &checkout.commit else {
        // An empty repository.
        return vec![clone(&[])];
    };
    let of_branch = checkout.reference.as_deref().and_then(|reference| reference.strip_prefix("refs/heads/"));
    if let (Some(branch), Some(wanted)) = (of_branch, &checkout.branch)
        && branch == wanted
    {
        // The usual case is one command; in case the branch has moved since it was resolved, one more.
        let done_if = Some((format!("{path}/.git/refs/heads/{branch}"), commit.clone()));
        let reset = command(&["-C", &path, "reset", "--quiet", "--hard", commit, "--"]);
        return vec![clone(&["--branch", branch]), Command { done_if, ..reset }];
    }
    let mut list = vec![clone(&["--no-checkout"])];
    let fetch =
        |what: &str| command(&["-C", &path, "fetch", "--progress", "--no-recurse-submodules", "--", "origin", what]);
    match &checkout.reference {
        // Branches and tags came with the clone.
        Some(reference) if reference.starts_with("refs/heads/") || reference.starts_with("refs/tags/") => {}
        Some(reference) => list.push(fetch(reference)),
        // A commit that no branch leads to: many servers send it; if not, the checkout reports it as missing.
        None => list.push(Command { may_fail: true, ..fetch(commit) }),
    }
    match &checkout.branch {
        Some(branch) => list.push(command(&["-C", &path, "checkout", "--quiet", "-B", branch, commit, "--"])),
        None => list.push(command(&["-C", &path, "checkout", "--quiet", "--detach", commit, "--"])),
    }
    list
}

/// What a failure of git means for the user.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Diagnosis {
    /// For the user.
    pub message: String,
    /// Whether trying again may help.
    pub transient: bool,
}

/// Reads git's complaint.
#[must_use]
pub fn diagnose(stderr: &str, checkout: &Checkout) -> Diagnosis {
    let host = &checkout.repository.host;
    let url = &checkout.repository.clone_url;
    let has = |text: &str| stderr.contains(text);
    let permanent = |message: String| Diagnosis { message, transient: false };
    // When the disk fills while files are written, git names the file, but not the reason.
    if has("No space left on device") || has("Disk quota exceeded") || has("error: unable to write file") {
        return permanent(
            "the workspace's disk is too small for the repository: choose a class with a bigger disk".to_owned(),
        );
    }
    if has("Authentication failed")
        || has("could not read Username")
        || has("could not read Password")
        || has("returned error: 401")
        || has("returned error: 403")
    {
        return permanent(format!(
            "{host} wants credentials for {url}: add one with `berth git-credential add {host}`, or check that the repository exists and yours may read it"
        ));
    }
    if (has("remote: ") && has("not found")) || has("returned error: 404") || (has("repository '") && has("not found"))
    {
        return permanent(format!(
            "{url} does not exist, or {host} hides it from those without credentials: check the URL, or `berth git-credential add {host}`"
        ));
    }
    if has("Remote branch") && has("not found") || has("couldn't find remote ref") {
        let name = checkout.branch.as_deref().or(checkout.reference.as_deref()).unwrap_or_default();
        return permanent(format!("{url} has no {name} any more"));
    }
    if has("reference is not a tree")
        || has("Could not parse object")
        || has("unable to read tree")
        || has("not our ref")
    {
        let commit = checkout.commit.as_deref().unwrap_or_default();
        return permanent(format!(
            "the commit {commit} is not in {url}: check it, or, if it was there once, whether a forced push has replaced it"
        ));
    }
    let transient = [
        "Could not resolve host",
        "Failed to connect",
        "Connection refused",
        "Connection reset",
        "Connection timed out",
        "early EOF",
        "RPC failed",
        "unexpected disconnect",
        "the remote end hung up",
        "Operation too slow",
        "returned error: 5",
        "returned error: 429",
        "gnutls_handshake",
    ]
    .iter()
    .any(|text| has(text));
    let lines: Vec<&str> = stderr
        .lines()
        .map(|line| line.rsplit('\r').next().unwrap_or(line).trim())
        .filter(|line| !line.is_empty())
        .collect();
    let important: Vec<&str> =
        lines.iter().copied().filter(|line| line.starts_with("fatal:") || line.starts_with("error:")).collect();
    let shown = if important.is_empty() { lines } else { important };
    let text: String = printable(&shown.iter().rev().take(3).rev().copied().collect::<Vec<_>>().join("; ")).collect();
    Diagnosis { message: format!("git could not clone {url}: {text}"), transient }
}

/// What a host says is shown on terminals: control characters, which they would obey, are removed.
fn printable(text: &str) -> impl Iterator<Item = char> {
    text.chars().map(|c| if c.is_control() { '\u{fffd}' } else { c })
}

/// The newest progress line in a piece of git's standard error.
#[must_use]
pub fn progress(piece: &str) -> Option<String> {
    piece
        .split(['\r', '\n'])
        .rev()
        .map(str::trim)
        .find(|line| line.contains('%') || line.starts_with("Cloning into"))
        .map(|line| printable(line).take(120).collect())
}

#[cfg(test)]
#[path = "git_tests.rs"]
mod tests;
