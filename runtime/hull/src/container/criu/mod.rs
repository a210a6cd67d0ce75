//! Checkpoint and restore by the CRIU program.
//!
//! What CRIU is told about mounts comes from `config.json` alone, never from the image or from resolved paths (CVE-2026-119101): each mount
//! of the configuration is external under its own destination, so a restore can bind nothing that the configuration does not name.

mod dump;
mod image;
mod restore;
mod wire;
mod worker;

use std::os::fd::{AsRawFd, OwnedFd};

use rustix::fs::{CWD, Mode, OFlags};

pub(crate) use dump::dump;
pub(crate) use image::check as check_image;
pub(crate) use restore::{Restorer, Source};

use crate::error::{Code, Context, Error, Result};
use crate::files;
use crate::rootfs::devices;
use crate::spec::{NamespaceType, Spec};
use wire::Message;

/// Where CRIU is looked for; nothing is looked up in PATH.
const PATHS: &[&str] = &["/usr/sbin/criu", "/usr/bin/criu", "/usr/local/sbin/criu", "/sbin/criu"];

/// CRIU's environment: it runs iptables and the like, and gets nothing else from ours.
const CRIU_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// How much of CRIU's log goes into an error.
const LOG_LINES: usize = 8;

/// Everything: the log is read when something went wrong.
const LOG_LEVEL: u64 = 4;

/// Options of both directions, as on the command line.
#[derive(Debug, Default, Clone)]
pub(crate) struct Options {
    pub(crate) image: String,
    pub(crate) work: Option<String>,
    pub(crate) parent: Option<String>,
    pub(crate) leave_running: bool,
    pub(crate) pre_dump: bool,
    pub(crate) tcp_established: bool,
    pub(crate) tcp_close: bool,
    pub(crate) skip_in_flight: bool,
    pub(crate) link_remap: bool,
    pub(crate) unix_sockets: bool,
    pub(crate) shell_job: bool,
    pub(crate) lazy_pages: bool,
    pub(crate) file_locks: bool,
    pub(crate) auto_dedup: bool,
    pub(crate) status_fd: Option<u32>,
    pub(crate) page_server: Option<String>,
    pub(crate) cgroups_mode: Option<String>,
    pub(crate) empty_namespaces: Vec<String>,
    pub(crate) lsm_profile: Option<String>,
    pub(crate) lsm_mount_context: Option<String>,
}

/// The installed program.
pub(crate) fn find() -> Option<&'static str> {
    PATHS.iter().copied().find(|p| rustix::fs::access(*p, rustix::fs::Access::EXEC_OK).is_ok())
}

fn program() -> Result<&'static str> {
    find().ok_or_else(|| {
        Error::new(Code::Checkpoint, "criu").says("criu is not installed").hint("install the package criu")
    })
}

fn make_dir(path: &str) -> Result<OwnedFd> {
    match rustix::fs::mkdirat(CWD, path, Mode::from_raw_mode(0o700)) {
        Ok(()) | Err(rustix::io::Errno::EXIST) => {}
        Err(e) => return Err(Error::os(Code::Checkpoint, path, e).says(format!("cannot make {path}"))),
    }
    rustix::fs::open(path, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty()).doing(
        Code::Checkpoint,
        path,
        &format!("cannot open {path}"),
    )
}

/// CRIU's number of a way to treat cgroups; the default restores groups that the container made below its own.
fn cgroups_mode(name: Option<&str>) -> Result<u64> {
    match name {
        None | Some("soft") => Ok(3),
        Some("full") => Ok(4),
        Some("strict") => Ok(5),
        Some("ignore") => Ok(0),
        Some(mode) => {
            let flag = "--manage-cgroups-mode";
            Err(Error::usage(flag, format!("{flag} {mode:?}: soft, full, strict or ignore")))
        }
    }
}

impl Options {
    fn work(&self) -> &str {
        self.work.as_deref().unwrap_or(&self.image)
    }

    /// The request of both directions. CRIU opens the directories by their numbers in this process.
    fn message(&self, image: &OwnedFd, work: &OwnedFd, log: &str) -> Result<Message> {
        let mut out = Message::default();
        out.id(1, image.as_raw_fd()).id(17, work.as_raw_fd());
        out.number(9, LOG_LEVEL).text(10, log);
        out.flag(4, self.unix_sockets).flag(5, self.tcp_established).flag(7, self.shell_job);
        out.flag(8, self.file_locks).flag(16, self.auto_dedup).flag(18, self.link_remap);
        out.flag(24, true).number(34, cgroups_mode(self.cgroups_mode.as_deref())?);
        out.flag(46, self.skip_in_flight).flag(48, self.lazy_pages).flag(52, self.tcp_close);
        // A terminal whose master is outside.
        out.flag(50, true);
        for namespace in &self.empty_namespaces {
            if namespace != "network" {
                return Err(Error::usage("--empty-ns", format!("--empty-ns {namespace:?}: only network is possible")));
            }
            out.number(38, hull_sys::namespace::NETWORK);
        }
        Ok(out)
    }
}

/// A mount of the container whose content is the host's.
struct External {
    /// Where it is in the container, which is also its name in the image.
    destination: String,
    /// What it shows, on the host.
    source: String,
}

/// All mounts that CRIU shall take as external: bind mounts, masked files, devices bound from the host. Masked
/// directories show a file system of the container's own.
fn external(spec: &Spec, masks_file: &dyn Fn(&str) -> bool) -> Result<Vec<External>> {
    let mut out = Vec::new();
    let mut add = |destination: &str, source: &str| {
        let destination = crate::rootfs::resolve::clean(destination);
        if !can_be_named(&destination) {
            let text = format!("mount {destination}: CRIU cannot name a path with brackets or colons");
            return Err(Error::new(Code::Checkpoint, destination).says(text));
        }
        out.push(External { destination, source: source.to_owned() });
        Ok(())
    };
    for mount in &spec.mounts {
        if crate::rootfs::options::parse(mount)?.bind {
            add(&mount.destination, mount.source.as_deref().unwrap_or_default())?;
        }
    }
    let Some(linux) = &spec.linux else { return Ok(out) };
    for path in linux.masked_paths.iter().filter(|path| masks_file(path)) {
        add(path, "/dev/null")?;
    }
    if linux.namespaces.iter().any(|n| n.r#type == NamespaceType::User) {
        for (path, ..) in devices::DEFAULTS {
            add(path, path)?;
        }
        for device in &linux.devices {
            add(&device.path, &device.path)?;
        }
    }
    Ok(out)
}

/// Whether CRIU can read a path in the name of a mount.
fn can_be_named(path: &str) -> bool {
    !path.contains([']', '[', ':', '\n'])
}

/// Namespaces that belong to others: CRIU's name of the type, name in the image, path.
fn joined(spec: &Spec) -> Vec<(&'static str, &'static str, &str)> {
    let namespaces = spec.linux.as_ref().map_or(&[][..], |l| &l.namespaces);
    namespaces
        .iter()
        .filter_map(|n| Some((n.r#type, n.path.as_deref().filter(|p| !p.is_empty())?)))
        .filter_map(|(kind, path)| match kind {
            NamespaceType::Network => Some(("net", "extRootNetNS", path)),
            NamespaceType::Pid => Some(("pid", "extRootPidNS", path)),
            _ => None,
        })
        .collect()
}

/// CRIU's failure with what its log says about it.
fn failure(what: &str, work: (&OwnedFd, &str), log: &str, error: &Error) -> Error {
    // By descriptor: the path may now lead to the directory that was made for CRIU to read.
    let text = files::read_text_at(work.0, log, 64 << 20).unwrap_or_default();
    let errors: Vec<&str> = text.lines().filter(|l| l.contains("Error") || l.contains("Warn")).collect();
    let tail: Vec<&str> = errors.iter().skip(errors.len().saturating_sub(LOG_LINES)).copied().collect();
    let detail = if tail.is_empty() { error.to_string() } else { tail.join("; ") };
    Error::new(Code::Checkpoint, format!("{}/{log}", work.1))
        .says(format!("criu {what} failed: {detail}"))
        .hint(format!("CRIU's whole log is {}/{log}", work.1))
}
