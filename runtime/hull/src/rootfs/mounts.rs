//! One mount of the configuration: its source as a detached tree, its attributes, its place.
//!
//! Sources and targets are descriptors, and attributes are set on the detached tree before it is attached, so that
//! there is no moment at which a mount has other rights than asked for, and no path that could be swapped.

use std::os::fd::{AsFd, OwnedFd};

use hull_sys::mount::{self as sysmount, MountAttr, mount_setattr};
use rustix::fs::{CWD, Mode, OFlags};
use rustix::io::Errno;
use rustix::mount::{FsMountFlags, FsOpenFlags, MountAttrFlags, MoveMountFlags, OpenTreeFlags};

use super::options::{self, MountOptions};
use super::resolve::{Root, clean};
use crate::error::{Code, Context, Error, Result, errno_text};
use crate::procfs::{Proc, is_procfs};
use crate::spec::{IdMapping, Mount};

/// Where a mount's contents come from.
#[derive(Debug)]
pub(crate) enum Source {
    /// A bind mount whose tree the runtime has already opened.
    Tree(OwnedFd),
    /// A bind mount that the container's process opens itself, because the runtime had no right to.
    Path(String),
    /// A link to copy (`copy-symlink`).
    Symlink(Vec<u8>),
    /// A file system of this type and source.
    Filesystem { kind: String, source: Option<String> },
    /// The cgroup hierarchies of the container; or, as `cgroup2`, version 2 alone.
    Cgroup { unified: bool },
}

/// A mount ready to be made.
#[derive(Debug)]
pub(crate) struct Prepared {
    pub(crate) destination: String,
    pub(crate) options: MountOptions,
    pub(crate) source: Source,
    pub(crate) uid_mappings: Vec<IdMapping>,
    pub(crate) gid_mappings: Vec<IdMapping>,
}

impl Prepared {
    /// Whether ids are mapped on this mount.
    pub(crate) fn wants_id_map(&self) -> bool {
        self.options.idmap.is_some() || !self.uid_mappings.is_empty()
    }

    /// Whether it is the same inside and outside of the container's cgroups: they decide which devices can be mounted, and
    /// pay for what is copied.
    pub(crate) fn is_no_matter_of_cgroups(&self) -> bool {
        match &self.source {
            Source::Filesystem { kind, .. } => {
                matches!(kind.as_str(), "proc" | "sysfs" | "devpts" | "mqueue" | "tmpfs") && !self.options.tmpcopyup
            }
            Source::Tree(_) | Source::Path(_) | Source::Symlink(_) => true,
            Source::Cgroup { .. } => false,
        }
    }
}

/// Prepares all mounts; `bundle` is what relative bind sources start from, `early` whether trees can be opened now.
pub(crate) fn prepare(mounts: &[Mount], bundle: &str, early: bool) -> Result<Vec<Prepared>> {
    let mut numbered = mounts.iter().enumerate();
    let prepare = |(n, mount)| prepare_one(mount, bundle, early).map_err(|error| error.within(&format!("mounts[{n}]")));
    numbered.by_ref().map(prepare).collect()
}

/// The path of a bind mount's source; a relative one starts from the bundle.
pub(crate) fn source_path(source: &str, bundle: &str) -> String {
    if source.starts_with('/') { source.to_owned() } else { format!("{bundle}/{source}") }
}

fn prepare_one(mount: &Mount, bundle: &str, early: bool) -> Result<Prepared> {
    let options = options::parse(mount)?;
    for text in &options.without_effect {
        crate::log::warn(text);
    }
    if mount.destination.is_empty() {
        return Err(Error::invalid("destination", "mounts: a destination is empty"));
    }
    if mount.uid_mappings.is_empty() != mount.gid_mappings.is_empty() {
        let field = if mount.uid_mappings.is_empty() { "uidMappings" } else { "gidMappings" };
        let text = format!("mount {}: uidMappings and gidMappings must be given together", mount.destination);
        return Err(Error::invalid(field, text));
    }
    let destination = clean(&mount.destination);
    if destination == "/" && !options.remount {
        return Err(Error::invalid("destination", "mounts: destination / would hide under the root file system")
            .hint("name the directory in root.path"));
    }
    let source = if options.remount {
        // Nothing new is mounted.
        Source::Path(String::new())
    } else if options.bind {
        let Some(source) = mount.source.as_deref().filter(|s| !s.is_empty()) else {
            return Err(Error::invalid("source", format!("bind mount {destination} has no source")));
        };
        bind_source(source_path(source, bundle), &options, early)?
    } else {
        let kind = mount.r#type.as_deref().unwrap_or("");
        match kind {
            "" | "none" => {
                return Err(Error::invalid("type", format!("mount {destination} has no type")));
            }
            "cgroup" | "cgroup2" => Source::Cgroup { unified: kind == "cgroup2" },
            kind => Source::Filesystem { kind: kind.to_owned(), source: mount.source.clone() },
        }
    };
    check_proc(&destination, &source)?;
    let (uid_mappings, gid_mappings) = (mount.uid_mappings.clone(), mount.gid_mappings.clone());
    Ok(Prepared { destination, options, source, uid_mappings, gid_mappings })
}

fn bind_source(path: String, options: &MountOptions, early: bool) -> Result<Source> {
    if options.copy_symlink
        && let Ok(target) = rustix::fs::readlink(path.as_str(), Vec::new())
    {
        return Ok(Source::Symlink(target.into_bytes()));
    }
    if !early {
        return Ok(Source::Path(path));
    }
    match open_bind(&path, options) {
        Ok(tree) => Ok(Source::Tree(tree)),
        Err(error) if error.errno() == Some(Errno::PERM) && error.code() == Code::MountSource => Ok(Source::Path(path)),
        Err(error) => Err(error),
    }
}

/// Clones a tree of the host, detached, with its attributes set.
fn open_bind(path: &str, options: &MountOptions) -> Result<OwnedFd> {
    let mut flags = OpenTreeFlags::OPEN_TREE_CLOEXEC | OpenTreeFlags::OPEN_TREE_CLONE;
    if options.recursive {
        flags |= OpenTreeFlags::AT_RECURSIVE;
    }
    if options.source_nofollow {
        flags |= OpenTreeFlags::AT_SYMLINK_NOFOLLOW;
    }
    let tree = rustix::mount::open_tree(CWD, path, flags).map_err(|errno| source_error(path, errno))?;
    if options.source_nofollow && is_symlink(&tree) {
        return Err(
            Error::os(Code::MountSource, path, Errno::LOOP).hint("the source is a symlink and src-nofollow was given")
        );
    }
    apply_attributes(&tree, options, path)?;
    if options.recursive && options.set & sysmount::ATTR_RDONLY != 0 && is_sysfs(&tree) {
        // The cgroup hierarchies below would stay writable (CVE-2023-25809).
        let change = MountAttr { set: sysmount::ATTR_RDONLY, recursive: true, ..MountAttr::default() };
        mount_setattr(tree.as_fd(), c"", &change).context(Code::MountAttr, path)?;
    }
    Ok(tree)
}

fn is_sysfs(fd: &OwnedFd) -> bool {
    const SYSFS_MAGIC: i64 = 0x6265_6572;
    rustix::fs::fstatfs(fd).is_ok_and(|s| s.f_type == SYSFS_MAGIC)
}

/// Names the first part of the path that is missing or denies access.
fn source_error(path: &str, errno: Errno) -> Error {
    let mut error = Error::os(Code::MountSource, path, errno);
    if matches!(errno, Errno::ACCESS | Errno::NOENT) {
        let mut prefix = String::new();
        for part in path.split('/').filter(|p| !p.is_empty()) {
            prefix.push('/');
            prefix.push_str(part);
            if let Err(e) = rustix::fs::stat(prefix.as_str()) {
                if prefix != path {
                    error = error.hint(format!("{prefix}: {}", errno_text(e)));
                }
                break;
            }
        }
    }
    error
}

fn is_symlink(fd: &OwnedFd) -> bool {
    rustix::fs::fstat(fd).is_ok_and(|s| rustix::fs::FileType::from_raw_mode(s.st_mode).is_symlink())
}

/// Sets attributes and propagation on a detached tree.
fn apply_attributes(tree: &OwnedFd, options: &MountOptions, name: &str) -> Result<()> {
    let attr = |attr: MountAttr<'_>| mount_setattr(tree.as_fd(), c"", &attr).context(Code::MountAttr, name);
    if options.propagation.is_empty() {
        attr(MountAttr { propagation: sysmount::PRIVATE, recursive: options.recursive, ..MountAttr::default() })?;
    }
    for (bit, recursive) in &options.propagation {
        attr(MountAttr { propagation: *bit, recursive: *recursive, ..MountAttr::default() })?;
    }
    if options.set | options.clear != 0 {
        attr(MountAttr { set: options.set, clear: options.clear, ..MountAttr::default() })?;
    }
    apply_recursive(tree, options, name)
}

fn apply_recursive(tree: &OwnedFd, options: &MountOptions, name: &str) -> Result<()> {
    if options.recursive_set | options.recursive_clear == 0 {
        return Ok(());
    }
    let change = MountAttr {
        set: options.recursive_set,
        clear: options.recursive_clear,
        recursive: true,
        ..MountAttr::default()
    };
    mount_setattr(tree.as_fd(), c"", &change).context(Code::MountAttr, name)
}

/// Files of /proc that an engine may replace (lxcfs and the like).
const PROC_EXCEPTIONS: &[&str] = &[
    "/proc/cpuinfo",
    "/proc/diskstats",
    "/proc/meminfo",
    "/proc/stat",
    "/proc/swaps",
    "/proc/uptime",
    "/proc/loadavg",
    "/proc/slabinfo",
    "/proc/net/dev",
    "/proc/sys/kernel/ns_last_pid",
    "/proc/sys/crypto/fips_enabled",
];

/// What is mounted over /proc decides where security labels are written, so only a procfs is allowed.
fn check_proc(destination: &str, source: &Source) -> Result<()> {
    if destination == "/proc" {
        let fine = match source {
            Source::Filesystem { kind, .. } => kind == "proc",
            Source::Tree(tree) => is_procfs(tree),
            Source::Path(path) => rustix::fs::open(path.as_str(), OFlags::PATH | OFlags::CLOEXEC, Mode::empty())
                .is_ok_and(|fd| is_procfs(&fd)),
            Source::Symlink(_) | Source::Cgroup { .. } => false,
        };
        if !fine {
            return Err(Error::invalid("destination", "only a procfs can be mounted on /proc"));
        }
    } else if destination.starts_with("/proc/") && !PROC_EXCEPTIONS.contains(&destination) {
        let text = format!("{destination} cannot be mounted because it is inside /proc");
        return Err(Error::invalid("destination", text));
    }
    Ok(())
}

/// What making mounts needs to know about the container.
pub(crate) struct MountContext<'a> {
    pub(crate) root: &'a Root,
    /// The runtime's own /proc, if the process' mounts are others.
    pub(crate) proc: Option<&'a Proc>,
    /// SELinux context of the container's own file systems.
    pub(crate) label: Option<&'a str>,
    pub(crate) cgroup: &'a super::cgroupfs::View,
    /// Whether the container's cgroup namespace was made when its process was in the container's cgroups.
    pub(crate) own_cgroup_roots: bool,
    /// Mounts that become read-only when everything below them has been made.
    pub(crate) read_only_later: Vec<OwnedFd>,
    /// The devpts instance, if one was mounted on /dev/pts.
    pub(crate) devpts: Option<OwnedFd>,
}

/// Makes one mount.
pub(crate) fn attach(cx: &mut MountContext<'_>, mount: &Prepared) -> Result<()> {
    let at = mount.destination.as_str();
    if mount.options.remount {
        return change_existing(cx.root, mount);
    }
    match &mount.source {
        Source::Tree(tree) => place_bind(cx, mount, tree),
        Source::Path(path) => {
            let tree = open_bind(path, &mount.options)?;
            place_bind(cx, mount, &tree)
        }
        Source::Symlink(target) => {
            let (parent, name) = cx.root.parent_of(at).context(Code::MountTarget, at)?;
            match rustix::fs::symlinkat(target.as_slice(), &parent, name) {
                Ok(()) => Ok(()),
                Err(Errno::EXIST) => match rustix::fs::readlinkat(&parent, name, Vec::new()) {
                    // An earlier start of the same container made it.
                    Ok(there) if there.as_bytes() == target => Ok(()),
                    _ => Err(Error::os(Code::MountTarget, at, Errno::EXIST).hint("it is not the symlink to be copied")),
                },
                Err(e) => Err(Error::os(Code::MountTarget, at, e)),
            }
        }
        Source::Cgroup { unified } => super::cgroupfs::mount(cx, at, &mount.options, *unified),
        Source::Filesystem { kind, source } => mount_filesystem(cx, mount, kind, source.as_deref()),
    }
}

/// `remount`: changes the attributes of the existing mount. What only the file system itself could change is refused.
fn change_existing(root: &Root, mount: &Prepared) -> Result<()> {
    let at = mount.destination.as_str();
    if let Some((key, _)) = mount.options.data.first() {
        let text = format!("{key} with remount of {at}: only attributes of the mount can be changed");
        return Err(Error::new(Code::MountOption, key).says(text));
    }
    let target = root.open(at).context(Code::MountTarget, at)?;
    let options = &mount.options;
    let change = MountAttr { set: options.set, clear: options.clear, ..MountAttr::default() };
    mount_setattr(target.as_fd(), c"", &change).context(Code::MountAttr, at)?;
    for (bit, recursive) in &options.propagation {
        let change = MountAttr { propagation: *bit, recursive: *recursive, ..MountAttr::default() };
        mount_setattr(target.as_fd(), c"", &change).context(Code::MountAttr, at)?;
    }
    apply_recursive(&target, options, at)
}

fn place_bind(cx: &MountContext<'_>, mount: &Prepared, tree: &OwnedFd) -> Result<()> {
    let at = mount.destination.as_str();
    let stat = rustix::fs::fstat(tree).context(Code::MountSource, at)?;
    let directory = rustix::fs::FileType::from_raw_mode(stat.st_mode).is_dir();
    let target = if mount.options.dest_nofollow {
        let (parent, name) = cx.root.parent_of(at).context(Code::MountTarget, at)?;
        rustix::fs::openat(parent, name, OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty())
            .context(Code::MountTarget, at)?
    } else {
        open_target(cx.root, at, directory)?
    };
    let onto = rustix::fs::fstat(&target).context(Code::MountTarget, at)?;
    if rustix::fs::FileType::from_raw_mode(onto.st_mode).is_dir() && !directory {
        return Err(Error::os(Code::Mount, at, Errno::NOTDIR).hint("the source is a file, what is there a directory"));
    }
    move_onto(tree, &target, at)
}

/// Opens a mount point, making it if it is missing. /proc, /sys and /dev may not be symlinks: what is masked or written
/// there later must be what was mounted.
fn open_target(root: &Root, at: &str, directory: bool) -> Result<OwnedFd> {
    if matches!(at, "/proc" | "/sys" | "/dev") {
        match root.open_no_symlinks(at) {
            Ok(fd) => return Ok(fd),
            Err(Errno::NOENT) => {}
            Err(e) => {
                return Err(Error::os(Code::MountTarget, at, e)
                    .hint("it must be a directory of the root file system, not a symlink"));
            }
        }
    }
    let made = if directory { root.make_dirs(at, Mode::from_raw_mode(0o755)) } else { root.make_file(at) };
    made.context(Code::MountTarget, at)
}

/// Attaches a detached tree onto a handle.
pub(crate) fn move_onto(tree: impl AsFd, target: impl AsFd, name: &str) -> Result<()> {
    let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH | MoveMountFlags::MOVE_MOUNT_T_EMPTY_PATH;
    rustix::mount::move_mount(tree, "", target, "", flags).context(Code::Mount, name)
}

fn mount_filesystem(cx: &mut MountContext<'_>, mount: &Prepared, kind: &str, source: Option<&str>) -> Result<()> {
    let at = mount.destination.as_str();
    let mut options = mount.options.clone();
    let inherits = kind == "tmpfs" && !options.data.iter().any(|(key, _)| key == "mode") && cx.root.open(at).is_ok();
    let target = open_target(cx.root, at, true)?;
    if inherits {
        // As runc: the mode of an existing mount point; one that is made for it gets tmpfs' default, 1777.
        let stat = rustix::fs::fstat(&target).context(Code::MountTarget, at)?;
        options.data.push(("mode".to_owned(), Some(format!("{:o}", stat.st_mode & 0o7777))));
    }
    if let Some(label) = cx.label.filter(|l| !l.is_empty() && !matches!(kind, "proc" | "sysfs")) {
        options.data.push(("context".to_owned(), Some(label.to_owned())));
    }
    // A tmpfs gets its mount points and devices first and becomes read-only at the end.
    let later = kind == "tmpfs" && options.set & sysmount::ATTR_RDONLY != 0;
    if later {
        options.set &= !sysmount::ATTR_RDONLY;
    }
    let tree = match new_filesystem(kind, source, &options, at) {
        Ok(tree) => tree,
        Err(error) if kind == "sysfs" && error.errno() == Some(Errno::PERM) => host_sysfs(&options)?,
        Err(error) if kind == "proc" => {
            return Err(error.hint("inside another container, /proc must be fully visible there; in a user namespace, the PID namespace must be its own"));
        }
        Err(error) => return Err(error),
    };
    if options.tmpcopyup {
        super::copyup::copy_tree(cx.root, at, &tree)?;
    }
    for (bit, recursive) in &options.propagation {
        let change = MountAttr { propagation: *bit, recursive: *recursive, ..MountAttr::default() };
        mount_setattr(tree.as_fd(), c"", &change).context(Code::MountAttr, at)?;
    }
    apply_recursive(&tree, &options, at)?;
    move_onto(&tree, &target, at)?;
    if kind == "devpts" && at == "/dev/pts" {
        cx.devpts = Some(tree);
    } else if later {
        cx.read_only_later.push(tree);
    }
    Ok(())
}

/// A user namespace without a network namespace of its own may not mount sysfs: the host's, read-only all the way down.
fn host_sysfs(options: &MountOptions) -> Result<OwnedFd> {
    let mut options = options.clone();
    options.data.clear();
    options.recursive = true;
    options.recursive_set |= sysmount::ATTR_RDONLY | options.set;
    options.recursive_clear &= !sysmount::ATTR_RDONLY;
    open_bind("/sys", &options)
}

/// Makes a new instance of a file system, detached.
pub(crate) fn new_filesystem(kind: &str, source: Option<&str>, options: &MountOptions, at: &str) -> Result<OwnedFd> {
    let failed = |reason: &str, errno| {
        let text = if reason.is_empty() { format!("{kind} on {at}") } else { format!("{kind} on {at}: {reason}") };
        Error::os(Code::Mount, at, errno).says(text)
    };
    let context = rustix::mount::fsopen(kind, FsOpenFlags::FSOPEN_CLOEXEC)
        .map_err(|errno| failed("file system type is not known here", errno))?;
    let fs_error = |key: &str, errno| failed(&reason(&context, key), errno);
    if let Some(source) = source {
        rustix::mount::fsconfig_set_string(&context, "source", source).map_err(|e| fs_error("source", e))?;
    }
    for (key, value) in &options.data {
        match value {
            Some(value) => rustix::mount::fsconfig_set_string(&context, key.as_str(), value.as_str()),
            None => rustix::mount::fsconfig_set_flag(&context, key.as_str()),
        }
        .map_err(|e| fs_error(key, e))?;
    }
    rustix::mount::fsconfig_create(&context).map_err(|e| fs_error("", e))?;
    let attr = MountAttrFlags::from_bits_retain(u32::try_from(options.set).unwrap_or(0));
    rustix::mount::fsmount(&context, FsMountFlags::FSMOUNT_CLOEXEC, attr).map_err(|e| fs_error("", e))
}

/// The kernel tells the reason on the context's descriptor.
fn reason(context: &OwnedFd, key: &str) -> String {
    let mut text = String::from(key);
    let mut line = [0u8; 512];
    while let Ok(n) = rustix::io::read(context, &mut line) {
        if n == 0 {
            break;
        }
        let part = String::from_utf8_lossy(line.get(..n).unwrap_or(&[]));
        if !text.is_empty() {
            text.push_str(": ");
        }
        text.push_str(part.trim_end().trim_start_matches("e ").trim_start_matches("w "));
    }
    text
}
