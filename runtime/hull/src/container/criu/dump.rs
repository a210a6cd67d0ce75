//! Saving a running container.

use std::os::fd::{AsRawFd as _, OwnedFd};

use rustix::fs::{CWD, FileType, Mode, OFlags};

use super::wire::Message;
use super::worker::{self, Worker};
use super::{Options, can_be_named, external, failure, joined, make_dir};
use crate::cgroup::Cgroup;
use crate::error::{Code, Context, Error, Result};
use crate::files;
use crate::rootfs::resolve::Root;
use crate::spec::Spec;

/// The file beside the image that records what the standard streams were.
pub(super) const DESCRIPTORS: &str = "descriptors.json";

/// Where a mount is: its destination may lead through symlinks of the image.
fn mount_point(root: &Root, destination: &str) -> String {
    let real = root.open(destination).ok().and_then(|mount| {
        let link = format!("/proc/self/fd/{}", mount.as_raw_fd());
        rustix::fs::readlinkat(CWD, link, Vec::new()).ok()?.into_string().ok()
    });
    real.filter(|path| path.starts_with('/') && can_be_named(path)).unwrap_or_else(|| destination.to_owned())
}

/// Saves a container's processes, the first of which is `pid`.
pub(crate) fn dump(options: &Options, spec: &Spec, pid: i32, cgroup: &Cgroup) -> Result<()> {
    let (image, work) = (make_dir(&options.image)?, make_dir(options.work())?);
    let (kind, what, log) = if options.pre_dump {
        (worker::PRE_DUMP, "pre-dump", "pre-dump.log")
    } else {
        (worker::DUMP, "dump", "dump.log")
    };
    let mut message = options.message(&image, &work, log)?;
    message.id(2, pid).flag(3, options.leave_running);
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let root = rustix::fs::open(format!("/proc/{pid}/root"), flags, Mode::empty());
    let root = Root::new(root.with(Code::Checkpoint, || format!("the root of process {pid}"))?);
    let is_file = |path: &str| {
        let found = root.open(path).and_then(rustix::fs::fstat);
        found.is_ok_and(|stat| !FileType::from_raw_mode(stat.st_mode).is_dir())
    };
    for mount in external(spec, &is_file)? {
        message.text(37, &format!("mnt[{}]:{}", mount_point(&root, &mount.destination), mount.destination));
    }
    for (kind, name, path) in joined(spec) {
        let stat = rustix::fs::stat(path).doing(Code::Checkpoint, path, &format!("cannot find namespace {path}"))?;
        message.text(37, &format!("{kind}[{}]:{name}", stat.st_ino));
    }
    // All tasks then stop at once, and a paused container can be saved too.
    if let Some(path) = cgroup.freezer() {
        message.text(44, path);
    }
    if let Some(parent) = &options.parent {
        check_parent(&image, &options.image, parent)?;
        message.text(14, parent);
    }
    message.flag(15, options.pre_dump || options.parent.is_some());
    if let Some(fd) = options.status_fd {
        message.number(49, fd.into());
    }
    if let Some(address) = &options.page_server {
        message.message(11, &page_server(address)?);
    }
    if !options.pre_dump {
        save_descriptors(&image, pid).doing(
            Code::Checkpoint,
            &options.image,
            &format!("cannot write {DESCRIPTORS} to {}", options.image),
        )?;
    }
    let worker = Worker::start(None, &[], false)?;
    worker
        .request(kind, &message, &mut |_| Ok(()))
        .map(drop)
        .map_err(|error| failure(what, (&work, options.work()), log, &error))
}

/// CRIU resolves the path of the previous image relative to this one, and does not complain about a missing one.
fn check_parent(image: &OwnedFd, path: &str, parent: &str) -> Result<()> {
    if parent.starts_with('/') {
        return Err(Error::usage("--parent-path", "--parent-path must be relative to --image-path"));
    }
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    rustix::fs::openat(image, parent, flags, Mode::empty()).map(drop).doing(
        Code::Usage,
        "--parent-path",
        &format!("invalid --parent-path {path}/{parent}"),
    )
}

fn page_server(address: &str) -> Result<Message> {
    let parts = address.rsplit_once(':').and_then(|(host, port)| Some((host, files::parse_unsigned::<u16>(port)?)));
    let (host, port) = parts.ok_or_else(|| Error::usage("--page-server", "--page-server wants ADDRESS:PORT"))?;
    let mut out = Message::default();
    out.text(1, host).number(2, port.into());
    Ok(out)
}

/// Records what the standard streams were, so that restore can replace them.
fn save_descriptors(image: &OwnedFd, pid: i32) -> Result<(), rustix::io::Errno> {
    let name = |n| {
        let link = rustix::fs::readlinkat(CWD, format!("/proc/{pid}/fd/{n}"), Vec::new());
        link.map(|l| l.to_string_lossy().into_owned()).unwrap_or_default()
    };
    let names: Vec<String> = (0..3).map(name).collect();
    let bytes = serde_json::to_vec(&names).map_err(|_| rustix::io::Errno::INVAL)?;
    files::replace_at(image, DESCRIPTORS, &bytes, Mode::from_raw_mode(0o600))
}
