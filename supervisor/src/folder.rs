//! The `folder` role: makes, removes and renames the checkout's folder as root, in images that may have no program for it.

use std::ffi::OsString;
use std::io;
use std::os::unix::fs::chown;
use std::path::{Path, PathBuf};

use crate::cli::complain;
use crate::launch::user::{self, UserError};

/// The folder is not as it should be.
#[derive(Debug, thiserror::Error)]
enum FolderError {
    #[error("berth-init folder wants `make PATH USER`, `remove PATH` or `rename PATH NEW`")]
    Usage,
    #[error(transparent)]
    User(#[from] UserError),
    #[error("{}: {source}", path.display())]
    File { path: PathBuf, source: io::Error },
    #[error("the user id {uid} or the group id {gid} is not among the ids of a workspace, 0 to 65535")]
    Id { uid: u32, gid: u32 },
}

/// Runs the role. Returns the exit status.
pub(crate) fn main(arguments: impl Iterator<Item = OsString>) -> i32 {
    let arguments: Vec<OsString> = arguments.collect();
    let done = match arguments.as_slice() {
        [verb, path, user] if verb == "make" => make(Path::new(path), &user.to_string_lossy()),
        [verb, path] if verb == "remove" => remove(Path::new(path)),
        [verb, path, to] if verb == "rename" => std::fs::rename(path, to).map_err(at(Path::new(path))),
        _ => Err(FolderError::Usage),
    };
    match done {
        Ok(()) => 0,
        Err(error) => {
            complain(&error.to_string());
            1
        }
    }
}

fn at(path: &Path) -> impl FnOnce(io::Error) -> FolderError {
    let path = path.to_owned();
    move |source| FolderError::File { path, source }
}

/// Makes it for a user of the image, with the folders above it, which are root's.
fn make(path: &Path, user: &str) -> Result<(), FolderError> {
    let user = user::resolve(Some(user))?;
    std::fs::create_dir_all(path).map_err(at(path))?;
    let (uid, gid) = (user.uid.as_raw(), user.gid.as_raw());
    chown(path, Some(uid), Some(gid)).map_err(|source| match source.kind() {
        // The user namespace has no such id.
        io::ErrorKind::InvalidInput => FolderError::Id { uid, gid },
        _ => at(path)(source),
    })
}

fn remove(path: &Path) -> Result<(), FolderError> {
    let removed = match path.symlink_metadata() {
        Ok(metadata) if metadata.is_dir() => std::fs::remove_dir_all(path),
        Ok(_) => std::fs::remove_file(path),
        Err(error) => Err(error),
    };
    match removed {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other.map_err(at(path)),
    }
}
