//! Reaching a workspace's supervisor: a unix socket in a folder that only the host sees.

use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};

use berth_supervisor_client::SupervisorClient;
use tokio::net::UnixStream;

/// Name of the socket in an instance's folder.
const SOCKET: &str = "supervisor.sock";

/// Runs `use_path` with a path to the socket that is short enough for an address (108 bytes), wherever BERTH_HOME lies.
fn short<T>(folder: &Path, use_path: impl FnOnce(PathBuf) -> T) -> io::Result<T> {
    let handle = std::fs::File::open(folder)?;
    Ok(use_path(PathBuf::from(format!("/proc/self/fd/{}/{SOCKET}", handle.as_raw_fd()))))
}

/// Makes the listening socket. Connections to it wait until berth-init takes them.
pub(crate) fn listen(folder: &Path) -> io::Result<UnixListener> {
    match std::fs::remove_file(folder.join(SOCKET)) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let listener = short(folder, UnixListener::bind)??;
    std::fs::set_permissions(folder.join(SOCKET), std::fs::Permissions::from_mode(0o600))?;
    Ok(listener)
}

/// Connects to the supervisor of the instance in `folder`.
pub(crate) async fn connect(folder: &Path) -> io::Result<UnixStream> {
    // The folder's descriptor must live until the connection is made, which is at once for a unix socket.
    let handle = std::fs::File::open(folder)?;
    UnixStream::connect(format!("/proc/self/fd/{}/{SOCKET}", handle.as_raw_fd())).await
}

/// The same, ready for requests.
pub(crate) async fn client(folder: &Path) -> io::Result<SupervisorClient<UnixStream>> {
    connect(folder).await.map(SupervisorClient::new)
}
