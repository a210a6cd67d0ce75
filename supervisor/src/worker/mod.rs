//! `berth-init worker`: one request about the workspace's files, in a process of its own, as the user who asks. PID 1 hands it the
//! connection as descriptor 3 and the request on standard input. It may take as long, and hang as much, as the file system likes.

mod copy;
mod file;
mod git;
mod wire;

use std::io::Read;
use std::os::unix::net::UnixStream;

use berth_supervisor_protocol::{ErrorCode, Event, Reply, Request};
use hull_sys::sandbox_process::take_inherited;
use rustix::process::{DumpableBehavior, set_dumpable_behavior};

use wire::Wire;

/// What went wrong, for the host.
#[derive(Debug)]
struct Problem {
    code: ErrorCode,
    message: String,
}

impl Problem {
    fn new(code: ErrorCode, message: impl Into<String>) -> Self {
        Self { code, message: message.into() }
    }

    /// An error of the file system, with what was being done to what.
    fn io(doing: &str, path: &std::path::Path, error: &std::io::Error) -> Self {
        let code = match error.kind() {
            std::io::ErrorKind::NotFound | std::io::ErrorKind::NotADirectory => ErrorCode::NotFound,
            std::io::ErrorKind::PermissionDenied | std::io::ErrorKind::ReadOnlyFilesystem => {
                ErrorCode::PermissionDenied
            }
            std::io::ErrorKind::StorageFull | std::io::ErrorKind::QuotaExceeded => ErrorCode::LimitReached,
            std::io::ErrorKind::IsADirectory | std::io::ErrorKind::InvalidInput => ErrorCode::BadRequest,
            _ => ErrorCode::Failed,
        };
        Self { code, message: format!("{doing} {} failed: {error}", path.display()) }
    }
}

/// How far a request came.
enum Stage {
    /// No reply was sent yet.
    Reply(Problem),
    /// A reply was sent.
    Event(Problem),
    /// The host is gone: there is nobody to tell.
    Gone,
}

impl From<std::io::Error> for Stage {
    fn from(_: std::io::Error) -> Self {
        Self::Gone
    }
}

/// Runs the role. Returns the exit status.
pub(crate) fn main() -> i32 {
    // Other programs of the same user must not take the connection out of this process.
    let _ = set_dumpable_behavior(DumpableBehavior::NotDumpable);
    let Ok(socket) = take_inherited(3) else { return 2 };
    let mut json = Vec::new();
    if std::io::stdin().take(1 << 20).read_to_end(&mut json).is_err() {
        return 2;
    }
    let Ok(request) = serde_json::from_slice::<Request>(&json) else { return 2 };
    // PID 1 had it non-blocking.
    if rustix::io::ioctl_fionbio(&socket, false).is_err() {
        return 2;
    }
    let mut wire = Wire::new(UnixStream::from(socket));
    let told = match serve(request, &mut wire) {
        Ok(()) => Ok(()),
        Err(Stage::Reply(Problem { code, message })) => wire.json(&Reply::Error { code, message }),
        Err(Stage::Event(Problem { code, message })) => wire.json(&Event::Failed { code, message }),
        Err(Stage::Gone) => return 1,
    };
    i32::from(told.is_err())
}

fn serve(request: Request, wire: &mut Wire) -> Result<(), Stage> {
    match request {
        Request::ReadFile { path, max_bytes, .. } => file::read(wire, path.as_ref(), max_bytes),
        Request::WriteFile(write) => file::write(wire, &write),
        Request::Stat { path, .. } => file::stat(wire, path.as_ref()),
        Request::CopyIn(copy_in) => copy::unpack(wire, &copy_in),
        Request::CopyOut(copy_out) => copy::pack(wire, &copy_out),
        Request::GitStatus { path } => git::status(wire, path.as_ref()),
        _ => Err(Stage::Reply(Problem::new(ErrorCode::BadRequest, "this is not a request about files"))),
    }
}
