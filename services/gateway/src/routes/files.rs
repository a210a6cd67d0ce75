//! Files in and out, as tar streams.

use axum::body::{Body, BodyDataStream};
use axum::extract::State;
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use berth_api_types::internal::WorkspaceAction;
use berth_http::{Problem, QueryWithEmpty};
use berth_supervisor_client::ClientError;
use berth_supervisor_client::protocol::{CopyIn, CopyOut, ErrorCode, FileType};
use bytes::Bytes;
use futures::{Stream, StreamExt as _, TryStreamExt as _};
use http_body::Frame;
use http_body_util::StreamBody;
use serde::Deserialize;
use serde_json::json;

use crate::Gateway;
use crate::access::{Caller, kept, problem};

/// Which file or folder.
#[derive(Debug, Deserialize, utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
pub(super) struct Download {
    /// Absolute, or below the checkout.
    path: String,
    /// User inside; the image's own when absent.
    user: Option<String>,
    /// Pack what a symbolic link points to.
    #[serde(default)]
    follow: bool,
    /// Wait for a workspace that is being started.
    #[serde(default)]
    wait: bool,
}

/// Trailer of a download: which files are missing in it, in words.
const INCOMPLETE: &str = "berth-incomplete";

/// A file or folder as a tar stream. Where some of the files cannot be read, all others come. Whoever asks with `TE: trailers` is then told why
/// in the trailer `Berth-Incomplete`; for others the stream breaks. A stream that breaks is incomplete.
#[utoipa::path(
    get, path = "/api/v1/workspaces/{workspace}/files", operation_id = "download_files", tag = "inside",
    params(("workspace" = String, Path, description = "Id or name."), Download),
    responses((status = 200, description = "A tar stream.", content_type = "application/x-tar", body = Vec<u8>), (status = "default", response = berth_http::ProblemResponse)),
)]
pub(super) async fn download(
    State(gateway): State<Gateway>,
    caller: Caller,
    headers: HeaderMap,
    QueryWithEmpty(download): QueryWithEmpty<Download>,
) -> Result<Response, Problem> {
    let access = caller.running(&gateway, WorkspaceAction::Exec, download.wait).await?;
    access.mark();
    let copy = CopyOut { path: download.path, follow: download.follow, user: download.user };
    // A missing file is reported before the answer has begun.
    access.supervisor().await?.stat(&copy.path).await.map_err(problem)?;
    let tar = access.supervisor().await?.copy_out(copy).await.map_err(problem)?;
    let trailers = headers.get(header::TE).is_some_and(|te| te.as_bytes().eq_ignore_ascii_case(b"trailers"));
    let body = if trailers { with_trailer(tar) } else { Body::from_stream(tar) };
    let headers = [(header::CONTENT_TYPE, "application/x-tar"), (header::TRAILER, INCOMPLETE)];
    Ok((headers, body).into_response())
}

/// The stream, in good order also where the workspace could not read some of the files: then the trailer says so.
fn with_trailer(tar: impl Stream<Item = Result<Bytes, ClientError>> + Send + 'static) -> Body {
    let frames = tar.map(|piece| match piece {
        Ok(bytes) => Ok(Frame::data(bytes)),
        Err(ClientError::Refused { message, .. }) => {
            let text: String = message.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
            let value = HeaderValue::from_bytes(text.as_bytes()).unwrap_or(HeaderValue::from_static("yes"));
            Ok(Frame::trailers(HeaderMap::from_iter([(HeaderName::from_static(INCOMPLETE), value)])))
        }
        Err(error) => Err(error),
    });
    Body::new(StreamBody::new(frames))
}

/// Where to.
#[derive(Debug, Deserialize, utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
pub(super) struct Upload {
    /// An existing folder to unpack into, or a new name.
    path: String,
    /// User inside; the image's own when absent.
    user: Option<String>,
    /// Keep the numeric owners of the stream.
    #[serde(default)]
    keep_owner: bool,
    /// Wait for a workspace that is being started.
    #[serde(default)]
    wait: bool,
}

/// Unpack a tar stream, as `cp` would: into `path` if it is a folder, else under that name.
#[utoipa::path(
    put, path = "/api/v1/workspaces/{workspace}/files", operation_id = "upload_files", tag = "inside",
    request_body(content = Vec<u8>, content_type = "application/x-tar", description = "A tar stream."),
    params(("workspace" = String, Path, description = "Id or name."), Upload),
    responses((status = 204, description = "It is there."), (status = "default", response = berth_http::ProblemResponse)),
)]
pub(super) async fn upload(
    State(gateway): State<Gateway>,
    caller: Caller,
    QueryWithEmpty(upload): QueryWithEmpty<Upload>,
    body: Body,
) -> Result<StatusCode, Problem> {
    let access = caller.running(&gateway, WorkspaceAction::Exec, upload.wait).await?;
    access.mark();
    let path = if upload.path.is_empty() { "." } else { upload.path.as_str() };
    let is_folder = match access.supervisor().await?.stat(path).await {
        Ok(info) => info.file_type == FileType::Directory,
        Err(error) if error.code() == Some(ErrorCode::NotFound) => false,
        Err(error) => return Err(problem(error)),
    };
    let (path, rename_to) = if is_folder { (path.to_owned(), None) } else { split(path)? };
    access.audit("workspace.upload", json!({ "path": kept(&upload.path) })).await?;
    let copy = CopyIn { path, rename_to, keep_owner: upload.keep_owner, user: upload.user };
    let content: BodyDataStream = body.into_data_stream();
    access.supervisor().await?.copy_in(copy, content.map_err(std::io::Error::other)).await.map_err(problem)?;
    Ok(StatusCode::NO_CONTENT)
}

/// Folder and new name of a path that is not an existing folder.
fn split(path: &str) -> Result<(String, Option<String>), Problem> {
    if path.ends_with('/') {
        return Err(Problem::new(StatusCode::NOT_FOUND, "not_found", format!("there is no folder {path}")));
    }
    let (folder, name) = path.rsplit_once('/').unwrap_or((".", path));
    if matches!(name, "." | "..") {
        return Err(Problem::bad_request("invalid_path", format!("{path} is not a name for a file")));
    }
    let folder = if folder.is_empty() { "/" } else { folder };
    Ok((folder.to_owned(), Some(name.to_owned())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_taken_apart_as_cp_does() {
        let parts = |path| split(path).unwrap();
        assert_eq!(parts("/a/b"), ("/a".to_owned(), Some("b".to_owned())));
        assert_eq!(parts("/b"), ("/".to_owned(), Some("b".to_owned())));
        assert_eq!(parts("b"), (".".to_owned(), Some("b".to_owned())));
        assert_eq!(parts("a/b.txt"), ("a".to_owned(), Some("b.txt".to_owned())));
        assert!(split("a/").is_err());
        assert!(split("a/..").is_err());
    }
}
