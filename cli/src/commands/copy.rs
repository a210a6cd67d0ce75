//! `berth cp`: files and folders into or out of a workspace, as a tar stream.

use std::path::{Path, PathBuf};
use std::process::Stdio;

use anyhow::{Context as _, bail};
use bytes::Bytes;
use futures::TryStreamExt as _;
use http::Method;
use http_body_util::{BodyExt as _, StreamBody};
use hyper::body::Frame;
use tokio::io::AsyncWriteExt as _;
use tokio_util::io::ReaderStream;

use super::special_files::{self, SpecialFile};
use super::{Context, encode};
use crate::args::Output;
use crate::output;

/// One end of a copy.
#[derive(Debug, PartialEq, Eq)]
enum End {
    Here(PathBuf),
    Workspace { workspace: String, path: String },
}

impl End {
    /// `WORKSPACE:PATH` unless a slash comes before the colon, as with `scp`.
    fn parse(text: &str) -> Self {
        match text.split_once(':') {
            Some((workspace, path)) if !workspace.is_empty() && !workspace.contains('/') => {
                Self::Workspace { workspace: workspace.to_owned(), path: path.to_owned() }
            }
            _ => Self::Here(PathBuf::from(text)),
        }
    }
}

/// Copies.
pub(crate) async fn run(context: &Context, from: &str, to: &str) -> anyhow::Result<()> {
    let passed_over = match (End::parse(from), End::parse(to)) {
        (End::Here(from), End::Workspace { workspace, path }) => upload(context, &from, &workspace, &path).await?,
        (End::Workspace { workspace, path }, End::Here(to)) => download(context, &workspace, &path, &to).await?,
        (End::Here(_), End::Here(_)) => bail!("neither path is in a workspace: write WORKSPACE:PATH"),
        (End::Workspace { .. }, End::Workspace { .. }) => {
            bail!("both paths are in workspaces: copy to this machine first")
        }
    };
    match context.output {
        Output::Json => {
            let paths: Vec<_> = passed_over.iter().map(|file| file.path.to_string_lossy()).collect();
            let copied = serde_json::json!({ "from": from, "to": to, "passed_over": paths });
            output::result(Output::Json, &copied, |_| String::new())
        }
        Output::Text => {
            for SpecialFile { path, kind } in &passed_over {
                // Quoted: a name in a workspace may contain control characters, which a terminal obeys.
                output::note(format!("passed over {path:?}: it is {kind}"));
            }
            output::note(format!("copied {from} to {to}"));
            Ok(())
        }
    }
}

/// Sends a file or folder; returns what was skipped.
async fn upload(context: &Context, from: &Path, workspace: &str, path: &str) -> anyhow::Result<Vec<SpecialFile>> {
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
    Ok(passed_over)
}

/// Fetches a file or folder; returns what was skipped.
async fn download(context: &Context, workspace: &str, path: &str, to: &Path) -> anyhow::Result<Vec<SpecialFile>> {
    let request = format!("/api/v1/workspaces/{}/files?path={}", encode(workspace), encode(path));
    let mut body = context.client.send(Method::GET, &request, Vec::new(), &[]).await?.into_body();
    let (folder, rename) = if to.is_dir() {
        (to.to_owned(), None)
    } else {
        let parent = to.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
        anyhow::ensure!(parent.is_dir(), "{} is not a folder", parent.display());
        (parent.to_owned(), Some(to))
    };
    // Unpacked into a folder beside its place first: an interrupted copy leaves nothing half done, and a name in the stream cannot climb out.
    let scratch = folder.join(format!(".berth-cp-{}", std::process::id()));
    tokio::fs::create_dir(&scratch).await.with_context(|| format!("cannot write to {}", folder.display()))?;
    let result = unpack(&mut body, &scratch).await.and_then(|passed_over| {
        place(&scratch, &folder, rename)?;
        Ok(passed_over)
    });
    tokio::fs::remove_dir_all(&scratch).await?;
    result
}

/// Unpacks the stream, which is untrusted: even for root, no file belongs to somebody else, is setuid, or is a device.
async fn unpack(body: &mut hyper::body::Incoming, scratch: &Path) -> anyhow::Result<Vec<SpecialFile>> {
    let mut tar = tokio::process::Command::new("tar")
        .args(["--extract", "--file=-", "--no-same-owner", "--no-same-permissions", "--directory"])
        .arg(scratch)
        .stdin(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .context("tar is not installed")?;
    let mut stdin = tar.stdin.take().context("tar's input")?;
    while let Some(frame) = body.frame().await {
        let frame: Frame<Bytes> = frame.context("the copy broke off")?;
        if let Some(data) = frame.data_ref() {
            stdin.write_all(data).await.context("tar ended early")?;
        }
    }
    drop(stdin);
    let status = tar.wait().await?;
    anyhow::ensure!(status.success(), "the copy could not be unpacked");
    let mut passed_over = special_files::find(scratch);
    for file in &mut passed_over {
        std::fs::remove_file(&file.path).with_context(|| format!("cannot remove {}", file.path.display()))?;
        file.path = file.path.strip_prefix(scratch).unwrap_or(&file.path).to_owned();
    }
    Ok(passed_over)
}

fn place(scratch: &Path, folder: &Path, rename: Option<&Path>) -> anyhow::Result<()> {
    let entries = std::fs::read_dir(scratch)?.collect::<Result<Vec<_>, _>>()?;
    anyhow::ensure!(!entries.is_empty(), "nothing was copied");
    for entry in entries {
        let target = rename.map_or_else(|| folder.join(entry.file_name()), Path::to_owned);
        std::fs::rename(entry.path(), &target)
            .with_context(|| format!("cannot put {} in its place: remove what is there first", target.display()))?;
    }
    Ok(())
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
    }
}
