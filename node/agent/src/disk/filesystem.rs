//! The file system in a disk's image: made sparse, checked, attached to a loop device, mounted, trimmed.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use hull_sys::loop_device::{self, Backing};
use rustix::io::Errno;
use rustix::mount::{FsMountFlags, FsOpenFlags, MountAttrFlags, MoveMountFlags, UnmountFlags};

/// A disk cannot be made, mounted or checked.
#[derive(Debug, thiserror::Error)]
pub enum FileSystemError {
    /// A file or folder.
    #[error("{} cannot be {action}", path.display())]
    File {
        /// Which.
        path: PathBuf,
        /// What was to be done.
        action: &'static str,
        /// What the kernel said.
        #[source]
        source: io::Error,
    },
    /// mkfs.ext4 or e2fsck is missing.
    #[error("{program} cannot be started: install e2fsprogs")]
    Program {
        /// Which.
        program: &'static str,
        /// What the kernel said.
        #[source]
        source: io::Error,
    },
    /// mkfs.ext4 failed.
    #[error("mkfs.ext4 failed on {} ({status}): {output}", path.display())]
    Make {
        /// The image.
        path: PathBuf,
        /// How it ended.
        status: std::process::ExitStatus,
        /// What it wrote.
        output: String,
    },
    /// The file system has damage that cannot be repaired automatically.
    #[error(
        "the disk {} is damaged and was left as it is: look at it with `e2fsck -n`, repair a copy with `e2fsck -f` ({output})",
        path.display()
    )]
    Damaged {
        /// The image.
        path: PathBuf,
        /// What e2fsck wrote last.
        output: String,
    },
    /// No loop device.
    #[error("no loop device for {}: is the module `loop` loaded, and /dev/loop-control there?", path.display())]
    Loop {
        /// The image.
        path: PathBuf,
        /// What the kernel said.
        #[source]
        source: io::Error,
    },
    /// Another loop device has it already.
    #[error("the disk {} is already behind /dev/loop{number}: two mounts of it would destroy it; detach that one first", path.display())]
    InUse {
        /// The image.
        path: PathBuf,
        /// The device.
        number: u32,
    },
    /// The mount.
    #[error("the disk {} cannot be mounted: {step}", path.display())]
    Mount {
        /// The image.
        path: PathBuf,
        /// Which step.
        step: &'static str,
        /// What the kernel said.
        #[source]
        source: io::Error,
    },
}

fn file_error(path: &Path, action: &'static str) -> impl FnOnce(io::Error) -> FileSystemError + use<> {
    let path = path.to_owned();
    move |source| FileSystemError::File { path, action, source }
}

/// Makes a sparse image with an empty ext4. Costs the host about 4 MB, whatever its size.
pub(super) fn make(image: &Path, size_bytes: u64) -> Result<(), FileSystemError> {
    let file = File::create(image).map_err(file_error(image, "made"))?;
    file.set_len(size_bytes).map_err(file_error(image, "sized"))?;
    let output = Command::new("mkfs.ext4")
        // No blocks are reserved for root; inode tables are initialised when they are first used.
        .args([
            "-q",
            "-F",
            "-m",
            "0",
            "-E",
            "lazy_itable_init=1,lazy_journal_init=1,nodiscard,root_owner=0:0",
            "-O",
            "^metadata_csum_seed",
        ])
        .arg(image)
        .stdin(Stdio::null())
        .output()
        .map_err(|source| FileSystemError::Program { program: "mkfs.ext4", source })?;
    if output.status.success() {
        return Ok(());
    }
    let text = String::from_utf8_lossy(&output.stderr).trim().to_owned();
    Err(FileSystemError::Make { path: image.to_owned(), status: output.status, output: text })
}

/// Replays the journal and repairs what is safe to repair. A disk that was unmounted cleanly costs some milliseconds.
pub(super) fn check(image: &Path) -> Result<(), FileSystemError> {
    let output = Command::new("e2fsck")
        .arg("-p")
        .arg(image)
        .stdin(Stdio::null())
        .output()
        .map_err(|source| FileSystemError::Program { program: "e2fsck", source })?;
    // 0: clean; 1: repaired; from 4 on: damage left.
    match output.status.code() {
        Some(0..=1) => Ok(()),
        _ => {
            let text = String::from_utf8_lossy(&output.stdout);
            let last = text.lines().rev().find(|line| !line.trim().is_empty()).unwrap_or_default();
            Err(FileSystemError::Damaged { path: image.to_owned(), output: last.trim().to_owned() })
        }
    }
}

/// Mounts the image at `at` over a loop device that goes away with the mount. The image must not be behind another loop device.
pub(super) fn mount(image: &Path, at: &Path) -> Result<(), FileSystemError> {
    let file = OpenOptions::new().read(true).write(true).open(image).map_err(file_error(image, "opened"))?;
    let wanted = loop_device::identity(&file).map_err(|errno| file_error(image, "looked at")(errno.into()))?;
    if let Some(number) = find_loop(wanted) {
        return Err(FileSystemError::InUse { path: image.to_owned(), number });
    }
    let (device, path) = attach(&file, image)?;
    let step = |step: &'static str| {
        let image = image.to_owned();
        move |errno: Errno| FileSystemError::Mount { path: image, step, source: errno.into() }
    };
    let context = rustix::mount::fsopen("ext4", FsOpenFlags::FSOPEN_CLOEXEC).map_err(step("opening ext4"))?;
    let fd = context.as_fd();
    rustix::mount::fsconfig_set_string(fd, "source", &*path).map_err(step("naming its device"))?;
    // After an error of the host's disk the kernel must stop writing, so that no damage goes unnoticed. `noinit_itable`: inode tables would
    // be zeroed in the background, which costs a sparse image 1.6 % of its size.
    rustix::mount::fsconfig_set_string(fd, "errors", "remount-ro").map_err(step("setting errors=remount-ro"))?;
    rustix::mount::fsconfig_set_flag(fd, "noinit_itable").map_err(step("setting noinit_itable"))?;
    rustix::mount::fsconfig_create(fd).map_err(step("reading its file system"))?;
    let mount = rustix::mount::fsmount(fd, FsMountFlags::FSMOUNT_CLOEXEC, MountAttrFlags::MOUNT_ATTR_NODEV)
        .map_err(step("making the mount"))?;
    rustix::mount::move_mount(&mount, "", rustix::fs::CWD, at, MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH)
        .map_err(step("attaching the mount"))?;
    // Held until here: a loop device that nobody has open and nothing mounts frees itself.
    drop(device);
    Ok(())
}

fn attach(file: &File, image: &Path) -> Result<(File, String), FileSystemError> {
    let failed = |source: io::Error| FileSystemError::Loop { path: image.to_owned(), source };
    let control = OpenOptions::new().read(true).write(true).open("/dev/loop-control").map_err(failed)?;
    loop {
        let number = loop_device::free_number(control.as_fd()).map_err(|errno| failed(errno.into()))?;
        let path = format!("/dev/loop{number}");
        let device = OpenOptions::new().read(true).write(true).open(&path).map_err(failed)?;
        match loop_device::configure(device.as_fd(), file.as_fd()) {
            Ok(()) => return Ok((device, path)),
            // Somebody was faster.
            Err(Errno::BUSY) => {}
            Err(errno) => return Err(failed(errno.into())),
        }
    }
}

/// The loop device that has this file behind it.
pub(super) fn find_loop(wanted: Backing) -> Option<u32> {
    let blocks = std::fs::read_dir("/sys/block").ok()?;
    blocks.flatten().find_map(|entry| {
        let name = entry.file_name();
        let number: u32 = name.to_str()?.strip_prefix("loop")?.parse().ok()?;
        // Only bound devices have this folder; opening the others would get in the way of those who bind them.
        if !entry.path().join("loop").exists() {
            return None;
        }
        let device = File::open(format!("/dev/loop{number}")).ok()?;
        let found = loop_device::backing(device.as_fd()).ok()??;
        (found == wanted).then_some(number)
    })
}

/// The device number of what is mounted at `at`, when that is the image's own file system.
pub(super) fn mounted(image: &Path, at: &Path) -> Result<bool, FileSystemError> {
    let above = at.parent().unwrap_or(at);
    let device = |path: &Path| rustix::fs::stat(path).map(|stat| stat.st_dev);
    let (Ok(inside), Ok(outside)) = (device(at), device(above)) else { return Ok(false) };
    if inside == outside {
        return Ok(false);
    }
    // Something is mounted there: it must be a loop device with our file behind it.
    let (major, minor) = (rustix::fs::major(inside), rustix::fs::minor(inside));
    let file = File::open(image).map_err(file_error(image, "opened"))?;
    let wanted = loop_device::identity(&file).map_err(|errno| file_error(image, "looked at")(errno.into()))?;
    let behind = (major == 7).then(|| File::open(format!("/dev/loop{minor}")).ok()).flatten();
    let found = behind.and_then(|device| loop_device::backing(device.as_fd()).ok().flatten());
    if found == Some(wanted) {
        return Ok(true);
    }
    let source = io::Error::other("something else is mounted there");
    Err(FileSystemError::Mount { path: image.to_owned(), step: "looking at its mount point", source })
}

/// Whether the kernel made the mount read-only after an error.
pub(super) fn is_read_only(at: &Path) -> bool {
    rustix::fs::statvfs(at).is_ok_and(|stat| stat.f_flag.contains(rustix::fs::StatVfsMountFlags::RDONLY))
}

/// Unmounts lazily; what is still in use goes away with its last user.
pub(super) fn unmount(at: &Path) -> Result<(), FileSystemError> {
    match rustix::mount::unmount(at, UnmountFlags::DETACH) {
        // Not mounted is what was wanted.
        Ok(()) | Err(Errno::INVAL | Errno::NOENT) => Ok(()),
        Err(errno) => Err(file_error(at, "unmounted")(errno.into())),
    }
}

/// Gives the space of files that were deleted back to the host.
pub(super) fn trim(at: &Path) -> Result<(), FileSystemError> {
    File::open(at)
        .and_then(|folder| loop_device::trim(folder.as_fd()).map_err(io::Error::from))
        .map_err(file_error(at, "trimmed"))
}

/// Syncs the file system at `at`.
pub(super) fn sync(at: &Path) -> Result<(), FileSystemError> {
    File::open(at)
        .and_then(|folder| rustix::fs::syncfs(&folder).map_err(io::Error::from))
        .map_err(file_error(at, "written down"))
}
