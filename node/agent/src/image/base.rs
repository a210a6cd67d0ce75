//! The base image `berth/base`: built once on the node from the machine's own Debian packages, by mmdebstrap.

use std::io::{BufRead, BufReader};
use std::path::PathBuf;
use std::process::{Command, Stdio};

use super::import::{self, ImportError};
use super::layout::{Layout, LayoutError};
use super::reference::{Digest, Reference};

/// Its name.
pub const BASE: &str = "berth/base";
const PACKAGES: &str = "apt,bash,git,curl,openssh-client,procps,less,vim-tiny,ca-certificates,sudo";
/// The archive is the same for the same packages, whenever it is made.
const SOURCE_DATE_EPOCH: &str = "1700000000";

/// The base image cannot be built.
#[derive(Debug, thiserror::Error)]
pub enum BaseError {
    /// mmdebstrap is missing.
    #[error(
        "mmdebstrap cannot be started: install it with `apt-get install mmdebstrap`, it builds the workspaces' base image"
    )]
    Program(#[source] std::io::Error),
    /// It failed.
    #[error("mmdebstrap could not build the base image ({status}): {last}; check that apt works on this machine")]
    Failed {
        /// How it ended.
        status: std::process::ExitStatus,
        /// The last it wrote.
        last: String,
    },
    /// Its output cannot be taken in.
    #[error("the base image cannot be taken into the store")]
    Import(#[from] ImportError),
    /// A file of ours.
    #[error("the base image's archive {} cannot be read", path.display())]
    Archive {
        /// Where.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
}

impl From<LayoutError> for BaseError {
    fn from(error: LayoutError) -> Self {
        Self::Import(error.into())
    }
}

/// The name, parsed.
pub(crate) fn reference() -> Reference {
    Reference {
        registry: super::reference::LOCAL.to_owned(),
        repository: "base".to_owned(),
        tag: Some("latest".to_owned()),
        digest: None,
    }
}

/// Builds the base image when the store has none. Blocks, for a minute or so the first time.
///
/// # Errors
/// See [`BaseError`].
pub fn ensure(layout: &Layout, progress: &dyn Fn(String)) -> Result<Digest, BaseError> {
    let reference = reference();
    if let Some(digest) = layout.lookup(&reference)? {
        return Ok(digest);
    }
    progress("building the base image from Debian packages (once)".to_owned());
    let archive = layout.temporary();
    let built = run(&archive, progress).and_then(|()| {
        let file =
            std::fs::File::open(&archive).map_err(|source| BaseError::Archive { path: archive.clone(), source })?;
        let env = ["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "LANG=C.UTF-8"];
        Ok(import::from_root_file_system(layout, file, &reference, &env)?)
    });
    let _ = std::fs::remove_file(&archive);
    built
}

fn run(archive: &std::path::Path, progress: &dyn Fn(String)) -> Result<(), BaseError> {
    let mut child = Command::new("mmdebstrap")
        .args(["--mode=root", "--variant=essential", "--format=tar"])
        .arg(format!("--include={PACKAGES}"))
        // What a workspace does not need; sudo without a password for everyone inside gains nothing outside.
        .args(["--dpkgopt=path-exclude=/usr/share/man/*", "--dpkgopt=path-exclude=/usr/share/doc/*"])
        .args(["--dpkgopt=path-exclude=/usr/share/locale/*", "--dpkgopt=path-include=/usr/share/doc/*/copyright"])
        .arg("--customize-hook=echo 'ALL ALL=(ALL:ALL) NOPASSWD: ALL' > \"$1/etc/sudoers.d/berth\"; chmod 0440 \"$1/etc/sudoers.d/berth\"")
        .arg("--customize-hook=rm -f \"$1/etc/resolv.conf\" \"$1/etc/hostname\" \"$1/etc/machine-id\"; : > \"$1/etc/resolv.conf\"; : > \"$1/etc/hosts\"; : > \"$1/etc/hostname\"")
        .arg("--customize-hook=mkdir -p \"$1/workspace\" \"$1/.berth/bin\"; ln -sf vim.tiny \"$1/usr/bin/vim\"")
        .arg(release())
        .arg(archive)
        .env("SOURCE_DATE_EPOCH", SOURCE_DATE_EPOCH)
        .env("LC_ALL", "C.UTF-8")
        .env("DEBIAN_FRONTEND", "noninteractive")
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(BaseError::Program)?;
    let mut last = String::new();
    for line in
        child.stderr.take().map(BufReader::new).into_iter().flat_map(|reader| reader.lines().map_while(Result::ok))
    {
        // "I: downloading packages with apt..." and the like; the rest is noise.
        if let Some(step) = line.strip_prefix("I: ") {
            progress(format!("base image: {step}"));
        }
        if !line.trim().is_empty() {
            last = line;
        }
    }
    let status = child.wait().map_err(BaseError::Program)?;
    if status.success() { Ok(()) } else { Err(BaseError::Failed { status, last }) }
}

/// The machine's own Debian release; its apt sources are the ones that work here.
fn release() -> String {
    std::fs::read_to_string("/etc/os-release")
        .ok()
        .and_then(|text| {
            text.lines()
                .find_map(|line| line.strip_prefix("VERSION_CODENAME=").map(|name| name.trim_matches('"').to_owned()))
        })
        .unwrap_or_else(|| "stable".to_owned())
}
