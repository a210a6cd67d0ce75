//! Git's system-wide configuration: a file on the workspace's disk, for packages and users to change, which includes what each start brings.

use std::fs::File;
use std::io::{self, Write as _};
use std::path::Path;

use crate::cli::complain;

/// What each start brings, mounted read-only.
const GIVEN: &str = "/.berth/gitconfig";
/// What git reads and `git config --system` writes (`GIT_CONFIG_SYSTEM`).
const SYSTEM: &str = "/.berth/system.gitconfig";

/// Makes it, once per disk: afterwards it is the user's.
pub(super) fn make() {
    if !Path::new(GIVEN).exists() {
        return;
    }
    let made = File::options()
        .write(true)
        .create_new(true)
        .open(SYSTEM)
        .and_then(|mut file| file.write_all(format!("[include]\n\tpath = {GIVEN}\n").as_bytes()));
    match made {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => complain(&format!("{SYSTEM}: {error}")),
        _ => {}
    }
}
