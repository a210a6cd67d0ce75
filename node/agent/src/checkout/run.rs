//! Makes the checkout inside the workspace, through its supervisor.

use std::path::Path;
use std::time::Duration;

use berth_supervisor_client::{ClientError, Output};
use berth_supervisor_protocol::{ErrorCode, Exec, ExitStatus, Kind};
use berth_workspace_crd::Checkout;
use futures::future::BoxFuture;

use super::devcontainer::{self, Unusable};
use super::git::{self, BadCheckout};
use crate::container::config::INIT;
use crate::supervisor;

/// How often a checkout is tried when the network fails.
const TRIES: u32 = 4;
/// How much of .gitattributes is looked at.
const MAX_ATTRIBUTES: u64 = 64 * 1024;
/// How much of git's error output is kept.
const MAX_OUTPUT: usize = 64 * 1024;

/// The content could not be made.
#[derive(Debug, thiserror::Error)]
pub enum CheckoutError {
    /// It must not be tried.
    #[error(transparent)]
    Bad(#[from] BadCheckout),
    /// git says no.
    #[error("{0}")]
    Git(String),
    /// git takes too long.
    #[error("the checkout of {url} took longer than {} seconds and was interrupted, at: {at}", limit.as_secs())]
    Timeout {
        /// The repository.
        url: String,
        /// The limit.
        limit: Duration,
        /// Git's last word.
        at: String,
    },
    /// The image has no git.
    #[error("the image has no git, which the checkout needs: choose an image with git in it")]
    NoGit,
    /// Preparing the folder failed.
    #[error("the folder {path} for the checkout cannot be made: {complaint}")]
    Folder {
        /// The folder.
        path: String,
        /// What was written.
        complaint: String,
    },
    /// The supervisor is gone or refuses.
    #[error("the checkout cannot be made, the workspace's supervisor does not answer")]
    Supervisor(#[from] ClientError),
    /// Its socket.
    #[error("the workspace's supervisor cannot be reached")]
    Socket(#[from] std::io::Error),
}

/// Makes the checkout in the workspace whose folder on the host is `folder`. `user` is the image's user, empty for root. What an earlier try
/// left is removed first.
///
/// # Errors
/// See [`CheckoutError`].
pub fn run<'a>(
    folder: &'a Path,
    checkout: &'a Checkout,
    user: &'a str,
    allow_private: &'a [String],
    limit: Duration,
    tell: &'a (dyn Fn(String) + Send + Sync),
) -> BoxFuture<'a, Result<(), CheckoutError>> {
    Box::pin(bounded(folder, checkout, user, allow_private, limit, tell))
}

async fn bounded(
    folder: &Path,
    checkout: &Checkout,
    user: &str,
    allow_private: &[String],
    limit: Duration,
    tell: &(dyn Fn(String) + Send + Sync),
) -> Result<(), CheckoutError> {
    git::check(checkout, |host, port| allow_private.iter().any(|entry| is_entry(entry, host, port)))?;
    let at = std::sync::Mutex::new("waiting for the workspace's supervisor".to_owned());
    let note = |text: String| {
        *at.lock().unwrap_or_else(std::sync::PoisonError::into_inner) = text.clone();
        tell(text);
    };
    let work = async {
        let mut attempt = 1;
        loop {
            match once(folder, checkout, user, attempt > 1, &note).await {
                Err(Failure::Transient(error)) if attempt < TRIES => {
                    note(format!("trying again: {error}"));
                    tokio::time::sleep(Duration::from_millis(500) * 2_u32.pow(attempt)).await;
                    attempt += 1;
                }
                Err(Failure::Transient(error) | Failure::Permanent(error)) => return Err(error),
                Ok(()) => return Ok(()),
            }
        }
    };
    match tokio::time::timeout(limit, work).await {
        Ok(result) => result,
        Err(_) => {
            let at = at.lock().unwrap_or_else(std::sync::PoisonError::into_inner).clone();
            Err(CheckoutError::Timeout { url: checkout.repository.clone_url.clone(), limit, at })
        }
    }
}

fn is_entry(entry: &str, host: &str, port: u16) -> bool {
    entry.rsplit_once(':').is_some_and(|(h, p)| h.eq_ignore_ascii_case(host) && p.parse() == Ok(port))
}

enum Failure {
    Transient(CheckoutError),
    Permanent(CheckoutError),
}

impl<E: Into<CheckoutError>> From<E> for Failure {
    fn from(error: E) -> Self {
        Self::Permanent(error.into())
    }
}

fn once<'a>(
    folder: &'a Path,
    checkout: &'a Checkout,
    user: &'a str,
    again: bool,
    note: &'a (dyn Fn(String) + Send + Sync),
) -> BoxFuture<'a, Result<(), Failure>> {
    Box::pin(try_once(folder, checkout, user, again, note))
}

async fn try_once(
    folder: &Path,
    checkout: &Checkout,
    user: &str,
    again: bool,
    note: &(dyn Fn(String) + Send + Sync),
) -> Result<(), Failure> {
    let path = &checkout.path;
    if again {
        clean(folder, path).await?;
    }
    if !is_root(user) {
        make_folder(folder, path, user).await?;
    }
    for command in git::commands(checkout) {
        if let Some((file, line)) = &command.done_if
            && has_line(folder, file, line).await
        {
            continue;
        }
        let exec = Exec { argv: command.argv, env: git::environment(), cwd: Some("/".to_owned()), ..Exec::default() };
        let client = supervisor::client(folder).await?;
        let output = client
            .run_with(exec, &[], MAX_OUTPUT, |kind, bytes| {
                if kind == Kind::Stderr
                    && let Some(line) = git::progress(&String::from_utf8_lossy(bytes))
                {
                    note(line);
                }
            })
            .await
            .map_err(|error| match error.code() {
                Some(ErrorCode::NotFound) => CheckoutError::NoGit,
                _ => error.into(),
            })?;
        if output.status != ExitStatus::Code(0) && !command.may_fail {
            let diagnosis = git::diagnose(&String::from_utf8_lossy(&output.stderr), checkout);
            let error = CheckoutError::Git(diagnosis.message);
            return Err(if diagnosis.transient { Failure::Transient(error) } else { Failure::Permanent(error) });
        }
    }
    Ok(())
}

/// Whether a file inside has this line alone. One that cannot be read has not.
async fn has_line(folder: &Path, file: &str, line: &str) -> bool {
    let Ok(mut client) = supervisor::client(folder).await else { return false };
    client.read_file(file, 1024).await.is_ok_and(|(_, content)| content.trim_ascii_end() == line.as_bytes())
}

fn is_root(user: &str) -> bool {
    matches!(user.split(':').next().unwrap_or_default(), "" | "root" | "0")
}

/// Removes what an interrupted checkout left.
///
/// # Errors
/// When the supervisor does not answer.
pub async fn clean(folder: &Path, path: &str) -> Result<(), CheckoutError> {
    run_folder(folder, &["remove", path]).await.map(drop)
}

async fn make_folder(folder: &Path, path: &str, user: &str) -> Result<(), CheckoutError> {
    succeeded(path, &run_folder(folder, &["make", path, user]).await?)
}

fn succeeded(path: &str, output: &Output) -> Result<(), CheckoutError> {
    if output.status == ExitStatus::Code(0) {
        return Ok(());
    }
    let complaint = String::from_utf8_lossy(&output.stderr);
    let complaint = complaint.trim().trim_start_matches("berth-init: ").chars().take(500).collect();
    Err(CheckoutError::Folder { path: path.to_owned(), complaint })
}

/// Has berth-init do it, as root: the image may have no program for it.
fn run_folder<'a>(folder: &'a Path, arguments: &[&str]) -> BoxFuture<'a, Result<Output, CheckoutError>> {
    let exec = Exec {
        argv: [INIT, "folder"].iter().chain(arguments).map(|argument| (*argument).to_owned()).collect(),
        cwd: Some("/".to_owned()),
        user: Some("0:0".to_owned()),
        ..Exec::default()
    };
    Box::pin(async move { Ok(supervisor::client(folder).await?.run(exec, &[], MAX_OUTPUT).await?) })
}

/// What the checkout asks for, beside its files.
#[derive(Debug, Default)]
pub struct Wishes {
    /// The image of devcontainer.json.
    pub image: Option<String>,
    /// What the user should know.
    pub notes: Vec<String>,
}

/// Looks for what the checkout asks for. A file that cannot be used is no reason not to start: the receipt says what is wrong with it, and the
/// base image is used.
///
/// # Errors
/// When the supervisor does not answer.
pub async fn wishes(folder: &Path, checkout: &Checkout, image_wanted: bool) -> Result<Wishes, CheckoutError> {
    let image = async { if image_wanted { wanted_image(folder, checkout).await } else { Ok(Ok(None)) } };
    // Side by side: each is a process of the supervisor's.
    let (image, modules, attributes) = tokio::try_join!(
        image,
        read(folder, checkout, ".gitmodules", 1),
        read(folder, checkout, ".gitattributes", MAX_ATTRIBUTES)
    )?;
    let mut wishes = Wishes::default();
    match image {
        Ok(image) => wishes.image = image,
        Err(note) => wishes.notes.push(note),
    }
    if matches!(modules, Ok(Some(_))) {
        wishes.notes.push("submodules are not fetched: `git submodule update --init --recursive`".to_owned());
    }
    if matches!(attributes, Ok(Some((text, _))) if text.contains("filter=lfs")) {
        let note = "files in Git LFS are pointers: `git lfs install && git lfs pull`, with the package git-lfs";
        wishes.notes.push(note.to_owned());
    }
    Ok(wishes)
}

/// The beginning of a file of the checkout, and whether there is more of it; nothing when it is not there, or why it cannot be read.
async fn read(
    folder: &Path,
    checkout: &Checkout,
    name: &str,
    max_bytes: u64,
) -> Result<Result<Option<(String, bool)>, String>, CheckoutError> {
    let mut client = supervisor::client(folder).await?;
    match client.read_file(&format!("{}/{name}", checkout.path), max_bytes).await {
        Ok((info, content)) => Ok(Ok(Some((String::from_utf8_lossy(&content).into_owned(), info.truncated)))),
        Err(error) if error.code() == Some(ErrorCode::NotFound) => Ok(Ok(None)),
        Err(ClientError::Refused { message, .. }) => Ok(Err(message)),
        Err(error) => Err(error.into()),
    }
}

/// The image of devcontainer.json, or what the user should know of it.
async fn wanted_image(folder: &Path, checkout: &Checkout) -> Result<Result<Option<String>, String>, CheckoutError> {
    for name in devcontainer::PATHS {
        let image = match read(folder, checkout, name, devcontainer::MAX_BYTES).await? {
            Ok(None) => continue,
            Ok(Some((_, true))) => Err(Unusable::TooLong),
            Ok(Some((text, false))) => devcontainer::image(&text),
            Err(message) => Err(Unusable::Unreadable(message)),
        };
        return Ok(image.map_err(|unusable| format!("in the base image, since {name} {unusable}")));
    }
    Ok(Ok(None))
}

/// Moves whatever is at `path` out of the way of a checkout, to a name with the time in it; does nothing if there is nothing.
///
/// # Errors
/// When it cannot be moved.
pub async fn set_aside(folder: &Path, path: &str, unix_seconds: i64) -> Result<(), CheckoutError> {
    let mut client = supervisor::client(folder).await?;
    match client.stat(path).await {
        Ok(_) => {}
        Err(error) if error.code() == Some(ErrorCode::NotFound) => return Ok(()),
        Err(error) => return Err(error.into()),
    }
    let aside = format!("{path}.interrupted-{unix_seconds}");
    succeeded(path, &run_folder(folder, &["rename", path, &aside]).await?)
}
