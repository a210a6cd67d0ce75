//! The workspaces' base image, built once per machine and shared by the tests: that takes a minute or two.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, ensure};

/// Puts the base image into the image store of the BERTH_HOME `home`. `build` makes it in the given home, unless it exists.
///
/// # Errors
/// When it cannot be built or copied.
pub fn base_image(home: &Path, build: impl FnOnce(&Path) -> anyhow::Result<()>) -> anyhow::Result<()> {
    let uid = rustix::process::getuid().as_raw();
    let shared = PathBuf::from(format!("/var/tmp/berth-test-{uid}/base-image"));
    std::fs::create_dir_all(&shared)?;
    // Tests run as many processes: the first builds it, the others wait for it.
    let lock = std::fs::File::create(shared.join("lock"))?;
    rustix::fs::flock(&lock, rustix::fs::FlockOperation::LockExclusive)?;
    build(&shared).context("the base image")?;
    drop(lock);
    let (from, to) = (shared.join("node/images"), home.join("node/images"));
    if to.join("index.json").exists() {
        return Ok(());
    }
    std::fs::create_dir_all(home.join("node"))?;
    // Hard links, if it is one file system: nobody writes to a layer.
    let copied = ["--link", "--reflink=auto"].iter().any(|how| {
        let copy = Command::new("cp").args(["--archive", how]).arg(&from).arg(&to).output();
        copy.is_ok_and(|output| output.status.success()) || std::fs::remove_dir_all(&to).is_err()
    });
    ensure!(copied && to.join("index.json").exists(), "{} cannot be copied to {}", from.display(), to.display());
    Ok(())
}
