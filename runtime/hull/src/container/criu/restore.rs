//! Restoring a container's processes.

use std::os::fd::{AsRawFd, OwnedFd};

use rustix::fs::{CWD, Mode, OFlags};

use super::dump::DESCRIPTORS;
use super::wire::Message;
use super::worker::{self, Notice, Worker};
use super::{Options, external, failure, image, joined, make_dir};
use crate::cgroup::Cgroup;
use crate::error::{Code, Context, Result};
use crate::files;
use crate::spec::Spec;

/// A CRIU process that waits for its request: it can be put into a cgroup, in which everything that it restores will be.
#[derive(Debug)]
pub(crate) struct Restorer {
    worker: Worker,
    namespaces: Vec<(&'static str, OwnedFd)>,
}

/// What is restored, and where.
#[derive(Debug)]
pub(crate) struct Source<'a> {
    pub(crate) spec: &'a Spec,
    pub(crate) bundle: &'a str,
    pub(crate) rootfs: &'a str,
}

impl Restorer {
    /// Starts CRIU, in `cgroup` if it is there already.
    pub(crate) fn start(spec: &Spec, cgroup: Option<&Cgroup>) -> Result<Self> {
        let mut namespaces = Vec::new();
        for (_, name, path) in joined(spec) {
            let fd = rustix::fs::open(path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())
                .context(Code::NamespaceJoin, path)?;
            namespaces.push((name, fd));
        }
        let kept: Vec<&OwnedFd> = namespaces.iter().map(|(_, fd)| fd).collect();
        let worker = Worker::start(cgroup, &kept, true)?;
        Ok(Self { worker, namespaces })
    }

    pub(crate) fn pid(&self) -> i32 {
        self.worker.pid
    }

    /// Restores; returns the id of the container's first process, which is a child of the caller.
    pub(crate) fn restore(
        self,
        options: &Options,
        source: &Source<'_>,
        notice: &mut dyn FnMut(Notice) -> Result<()>,
    ) -> Result<i32> {
        const LOG: &str = "restore.log";
        let work = make_dir(options.work())?;
        let own = image::open(&options.image)?;
        let image = image::readable(&own, &options.image, source.spec)?;
        let mut message = options.message(image.as_ref().unwrap_or(&own), &work, LOG)?;
        message.flag(6, true).flag(12, true).flag(26, true).text(13, source.rootfs);
        // Names that are not in the image do no harm.
        for mount in external(source.spec, &|_| true)? {
            let from = if mount.source.starts_with('/') {
                mount.source
            } else {
                format!("{}/{}", source.bundle, mount.source)
            };
            message.text(37, &format!("mnt[{}]:{from}", mount.destination));
        }
        for (name, fd) in &self.namespaces {
            message.message(27, &inherited(name, fd.as_raw_fd()));
        }
        for (number, name) in saved_pipes(&own) {
            message.message(27, &inherited(&name, number));
        }
        for (controller, path) in own_cgroups(self.worker.pid)? {
            let mut root = Message::default();
            root.text(1, &controller).text(2, &path);
            message.message(25, &root);
        }
        if let Some(profile) = &options.lsm_profile {
            message.text(53, profile);
        }
        if let Some(context) = &options.lsm_mount_context {
            message.text(63, context);
        }
        self.worker
            .request(worker::RESTORE, &message, notice)
            .map_err(|error| failure("restore", (&work, options.work()), LOG, &error))
    }
}

fn inherited(name: &str, fd: i32) -> Message {
    let mut out = Message::default();
    out.text(1, name).id(2, fd);
    out
}

/// Names of the saved streams; the image is not trusted, so only what looks like a pipe is used.
fn saved_pipes(image: &OwnedFd) -> Vec<(i32, String)> {
    let Ok(bytes) = files::read_at(image, DESCRIPTORS, 65536) else { return Vec::new() };
    let names: Vec<String> = serde_json::from_slice(&bytes).unwrap_or_default();
    let is_pipe = |n: &str| {
        n.strip_prefix("pipe:[")
            .and_then(|n| n.strip_suffix(']'))
            .is_some_and(|n| files::parse_unsigned::<u64>(n).is_some())
    };
    (0..).zip(names).take(3).filter(|(_, n)| is_pipe(n)).collect()
}

/// Tells CRIU the container's cgroups: groups below the saved container's are restored below these.
fn own_cgroups(pid: i32) -> Result<Vec<(String, String)>> {
    let file = format!("/proc/{pid}/cgroup");
    let text = files::read_text_at(CWD, &file, 1 << 20).context(Code::CgroupRead, &file)?;
    let mut out = Vec::new();
    for line in text.lines() {
        let Some((controllers, path)) = line.split_once(':').and_then(|(_, rest)| rest.split_once(':')) else {
            continue;
        };
        out.extend(controllers.split(',').map(|c| (c.to_owned(), path.to_owned())));
    }
    Ok(out)
}
