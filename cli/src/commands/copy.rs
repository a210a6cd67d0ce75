//! `berth cp`: files and folders into or out of a workspace, as a tar stream; `-` is the content of one file, as a stream of its own.

use std::path::{Path, PathBuf};
use std::process::Stdio;

use anyhow::{Context as _, bail};
use bytes::Bytes;
use futures::TryStreamExt as _;
use http::Method;
use http_body_util::{BodyExt as _, StreamBody};
use hyper::body::Frame;
use tokio::io::AsyncWriteExt as _;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::io::ReaderStream;

use super::special_files::{self, SpecialFile};
use super::{Context, encode};
use crate::args::Output;
use crate::exit::{self, Exit};
use crate::output;

/// What standard input is called in a folder that was meant to be a file.
const STDIN_NAME: &str = "stdin";

/// One end of a copy.
#[derive(Debug, PartialEq, Eq)]
enum End {
    Here(PathBuf),
    /// Standard input or output.
    Stream,
    Workspace {
        workspace: String,
        path: String,
    },
}

impl End {
    /// `WORKSPACE:PATH` unless a slash comes before the colon, as with `scp`.
    fn parse(text: &str) -> Self {
        match text.split_once(':') {
            Some((workspace, path)) if !workspace.is_empty() && !workspace.contains('/') => {
                // Nothing behind the colon is where one is: the checkout.
                let path = if path.is_empty() { "." } else { path };
                Self::Workspace { workspace: workspace.to_owned(), path: path.to_owned() }
            }
            None if text == "-" => Self::Stream,
            _ => Self::Here(PathBuf::from(text)),
        }
    }
}

/// Copies. Interrupted, it leaves nothing half done.
pub(crate) async fn run(context: &Context, from: &str, to: &str) -> anyhow::Result<()> {
    let (mut interrupt, mut terminate) = (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?);
    tokio::select! {
        copied = copy(context, from, to) => copied,
        _ = interrupt.recv() => Err(Exit::silent(130).into()),
        _ = terminate.recv() => Err(Exit::silent(143).into()),
    }
}

async fn copy(context: &Context, from: &str, to: &str) -> anyhow::Result<()> {
    let Copied { passed_over, missing } = match (End::parse(from), End::parse(to)) {
        (End::Here(from), End::Workspace { workspace, path }) => upload(context, &from, &workspace, &path).await?,
        (End::Workspace { workspace, path }, End::Here(to)) => download(context, &workspace, &path, &to).await?,
        (End::Stream, End::Workspace { workspace, path }) => upload_stream(context, &workspace, &path).await?,
        (End::Workspace { workspace, path }, End::Stream) => {
            // Its content is all that is to be seen there.
            return download_stream(context, &workspace, &path).await;
        }
        (End::Here(_) | End::Stream, End::Here(_) | End::Stream) => {
            bail!(Exit::new(exit::USAGE, "neither path is in a workspace: write WORKSPACE:PATH"))
        }
        (End::Workspace { .. }, End::Workspace { .. }) => {
            bail!(Exit::new(exit::USAGE, "both paths are in workspaces: copy to this machine first"))
        }
    };
    match context.output {
        Output::Json => {
            let paths: Vec<_> = passed_over.iter().map(|file| file.path.to_string_lossy()).collect();
            let copied = serde_json::json!({ "from": from, "to": to, "passed_over": paths, "missing": missing });
            output::result(Output::Json, &copied, |_| String::new())?;
        }
        Output::Text => {
            for SpecialFile { path, kind } in &passed_over {
                // Quoted: a name in a workspace may contain control characters, which a terminal obeys.
                output::note(format!("passed over {path:?}: it is {kind}"));
            }
            output::note(format!("copied {from} to {to}"));
        }
    }
    missing.map_or(Ok(()), |missing| Err(anyhow::anyhow!("{missing}; everything else was copied")))
}

/// What was left out of a copy.
#[derive(Debug, Default)]
struct Copied {
    passed_over: Vec<SpecialFile>,
    /// Why files of the workspace are missing, in its words.
    missing: Option<String>,
}

/// Sends standard input as a file.
async fn upload_stream(context: &Context, workspace: &str, path: &str) -> anyhow::Result<Copied> {
    anyhow::ensure!(
        path != "." && !path.ends_with('/'),
        "{path} is a folder: name the file that standard input becomes"
    );
    // A tar stream says how big a file is before it comes.
    let scratch = Scratch::new(&std::env::temp_dir()).await?;
    let file = scratch.0.join(STDIN_NAME);
    let mut out = tokio::fs::File::create_new(&file).await?;
    tokio::io::copy(&mut tokio::io::stdin(), &mut out).await.context("standard input")?;
    out.flush().await?;
    upload(context, &file, workspace, path).await
}

/// Sends a file or folder.
async fn upload(context: &Context, from: &Path, workspace: &str, path: &str) -> anyhow::Result<Copied> {
    let from = from.canonicalize().with_context(|| format!("cannot read {}", from.display()))?;
    let passed_over = special_files::find(&from);
    if let [SpecialFile { path, kind }] = &passed_over[..]
        && *path == from
    {
        bail!("{} is {kind}: only files, folders and links can be copied", from.display());
    }
    let (folder, name) = match (from.parent(), from.file_name()) {
        (Some(folder), Some(name)) => (folder, name),
        _ => bail!("{} cannot be copied whole", from.display()),
    };
    let mut tar = tokio::process::Command::new("tar")
        // Skipped files are named by us, not by tar.
        .args(["--create", "--file=-", "--owner=0", "--group=0", "--numeric-owner", "--warning=no-file-ignored"])
        .arg("--directory")
        .arg(folder)
        .arg("--")
        .arg(name)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .context("tar is not installed")?;
    let stdout = tar.stdout.take().context("tar's output")?;
    let body = StreamBody::new(ReaderStream::new(stdout).map_ok(Frame::data));
    let request = format!("/api/v1/workspaces/{}/files?path={}", encode(workspace), encode(path));
    context.client.send_body(Method::PUT, &request, body, &[("content-type", "application/x-tar")]).await?;
    let status = tar.wait().await?;
    anyhow::ensure!(status.success(), "tar could not read all of {}", from.display());
    Ok(Copied { passed_over, missing: None })
}

/// The tar stream of a file or folder; of a link, what it leads to, as with uploads.
async fn fetch(context: &Context, workspace: &str, path: &str) -> anyhow::Result<hyper::body::Incoming> {
    let request = format!("/api/v1/workspaces/{}/files?follow=true&path={}", encode(workspace), encode(path));
    Ok(context.client.send(Method::GET, &request, Vec::new(), &[("te", "trailers")]).await?.into_body())
}

/// Fetches a file or folder.
async fn download(context: &Context, workspace: &str, path: &str, to: &Path) -> anyhow::Result<Copied> {
    let (folder, rename) = if to.is_dir() {
        (to.to_owned(), None)
    } else {
        let parent = to.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
        anyhow::ensure!(parent.is_dir(), "{} is not a folder", parent.display());
        (parent.to_owned(), Some(to))
    };
    let mut body = fetch(context, workspace, path).await?;
    // Unpacked beside its place first: a broken copy leaves nothing half done, and a name inside cannot climb out of the folder.
    let scratch = Scratch::new(&folder).await?;
    let copied = unpack(&mut body, &scratch.0).await?;
    if let [SpecialFile { path: it, kind }] = &copied.passed_over[..]
        && it.components().count() == 1
        && std::fs::read_dir(&scratch.0)?.next().is_none()
    {
        bail!("{path} is {kind}: only files, folders and links can be copied");
    }
    place(&scratch.0, &folder, rename)?;
    Ok(copied)
}

/// Writes a file to standard output.
async fn download_stream(context: &Context, workspace: &str, path: &str) -> anyhow::Result<()> {
    let mut body = fetch(context, workspace, path).await?;
    let scratch = Scratch::new(&std::env::temp_dir()).await?;
    let copied = unpack(&mut body, &scratch.0).await?;
    if let Some(missing) = copied.missing {
        bail!(missing);
    }
    let entries = std::fs::read_dir(&scratch.0)?.collect::<Result<Vec<_>, _>>()?;
    match &entries[..] {
        [only] if only.file_type()?.is_file() => output::copy(&mut std::fs::File::open(only.path())?),
        _ => bail!("{path} is not a file: only a file's content can go to standard output"),
    }
}

/// Unpacks the stream, which is untrusted: even for root, no file belongs to somebody else, is setuid, or is a device.
async fn unpack(body: &mut hyper::body::Incoming, scratch: &Path) -> anyhow::Result<Copied> {
    let mut tar = tokio::process::Command::new("tar")
        .args(["--extract", "--file=-", "--no-same-owner", "--no-same-permissions", "--directory"])
        .arg(scratch)
        .stdin(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .context("tar is not installed")?;
    let mut stdin = tar.stdin.take().context("tar's input")?;
    let mut missing = None;
    while let Some(frame) = body.frame().await {
        let frame: Frame<Bytes> = frame.context("the copy broke off")?;
        if let Some(data) = frame.data_ref() {
            stdin.write_all(data).await.context("tar ended early")?;
        }
        if let Some(why) = frame.trailers_ref().and_then(|trailers| trailers.get("berth-incomplete")) {
            missing = Some(String::from_utf8_lossy(why.as_bytes()).into_owned());
        }
    }
    drop(stdin);
    let status = tar.wait().await?;
    anyhow::ensure!(status.success(), "the copy could not be unpacked");
    let mut passed_over = special_files::find(scratch);
    for file in &mut passed_over {
        std::fs::remove_file(&file.path).with_context(|| format!("cannot remove {}", file.path.display()))?;
        file.path = file.path.strip_prefix(scratch).unwrap_or(&file.path).to_owned();
        // The workspace sends all of these as pipes.
        file.kind = "a named pipe, a socket or a device";
    }
    Ok(Copied { passed_over, missing })
}

fn place(scratch: &Path, folder: &Path, rename: Option<&Path>) -> anyhow::Result<()> {
    let entries = std::fs::read_dir(scratch)?.collect::<Result<Vec<_>, _>>()?;
    anyhow::ensure!(!entries.is_empty(), "nothing was copied");
    for entry in entries {
        let target = rename.map_or_else(|| folder.join(entry.file_name()), Path::to_owned);
        if rename.is_some() && target.as_os_str().as_encoded_bytes().ends_with(b"/") && !entry.file_type()?.is_dir() {
            bail!(Exit::new(exit::NOT_FOUND, format!("there is no folder {}", target.display())));
        }
        put(&entry.path(), &target)?;
    }
    Ok(())
}

/// Moves a file or folder to its place. A folder that is there already gets what is new, as with every `cp`; a file is replaced.
fn put(from: &Path, to: &Path) -> anyhow::Result<()> {
    let (is_folder, there) = (from.symlink_metadata()?.is_dir(), to.symlink_metadata().ok());
    match (is_folder, there.is_some_and(|there| there.is_dir())) {
        (true, true) => {
            for entry in std::fs::read_dir(from)? {
                let entry = entry?;
                put(&entry.path(), &to.join(entry.file_name()))?;
            }
            Ok(())
        }
        (false, true) => bail!("{} is a folder, and what comes is a file: remove or rename it first", to.display()),
        (true, false) if to.symlink_metadata().is_ok() => {
            bail!("{} is a file, and what comes is a folder: remove or rename it first", to.display())
        }
        (_, false) => std::fs::rename(from, to).with_context(|| format!("cannot put {} in its place", to.display())),
    }
}

/// A folder for what is on its way; gone when it is dropped.
struct Scratch(PathBuf);

impl Scratch {
    async fn new(beside: &Path) -> anyhow::Result<Self> {
        let path = beside.join(format!(".berth-cp-{}", std::process::id()));
        let mut builder = tokio::fs::DirBuilder::new();
        builder.mode(0o700).create(&path).await.with_context(|| format!("cannot write to {}", beside.display()))?;
        Ok(Self(path))
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        // What stays is of no use, and no reason to fail.
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_colon_before_any_slash_names_a_workspace() {
        let inside = |workspace: &str, path: &str| End::Workspace { workspace: workspace.into(), path: path.into() };
        assert_eq!(End::parse("cargo:/etc/hosts"), inside("cargo", "/etc/hosts"));
        assert_eq!(End::parse("./a:b"), End::Here("./a:b".into()));
        assert_eq!(End::parse("a/b"), End::Here("a/b".into()));
        assert_eq!(End::parse("cargo:"), inside("cargo", "."));
        assert_eq!((End::parse("-"), End::parse("./-")), (End::Stream, End::Here("./-".into())));
    }

    #[test]
    fn a_folder_that_is_there_gets_what_is_new() {
        let root = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| {
            let path = root.path().join(name);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        };
        let read = |name: &str| std::fs::read_to_string(root.path().join(name)).unwrap();
        write("new/d/same", "new");
        write("new/d/below/added", "new");
        write("old/d/same", "old");
        write("old/d/below/kept", "old");
        place(&root.path().join("new"), &root.path().join("old"), None).unwrap();
        assert_eq!([read("old/d/same"), read("old/d/below/added"), read("old/d/below/kept")], ["new", "new", "old"]);
        // Never one for the other, nor through a link.
        write("again/d", "a file");
        let refused =
            |from: &str, to: &str| place(&root.path().join(from), &root.path().join(to), None).unwrap_err().to_string();
        assert!(refused("again", "old").contains("is a folder"));
        write("folders/x/y", "new");
        std::fs::create_dir(root.path().join("links")).unwrap();
        std::os::unix::fs::symlink(root.path().join("old"), root.path().join("links/x")).unwrap();
        assert!(refused("folders", "links").contains("is a file"));
        let nowhere = root.path().join("nowhere/");
        let error = place(&root.path().join("again"), root.path(), Some(&nowhere)).unwrap_err();
        assert!(error.to_string().starts_with("there is no folder "), "{error}");
    }
}
