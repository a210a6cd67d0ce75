//! The change of root without pivot_root, which roots on a ramfs need (`--no-pivot`).
//!
//! The host's mounts stay in the container's mount namespace, so two ways out are closed here. The root is moved on top of
//! "/", since above a root that is attached further down, a second chroot climbs to the host's. And whole file systems of
//! kinds proc and sysfs outside the root are taken away: as long as the namespace has one, the kernel lets each new user
//! namespace mount another, without the container's masks.

use std::os::fd::OwnedFd;

use rustix::fs::{AtFlags, CWD, StatxFlags};
use rustix::io::Errno;
use rustix::mount::{MountFlags, MoveMountFlags, UnmountFlags};

use crate::error::{Code, Context, Error, Result};
use crate::procfs::Proc;

/// One line of mountinfo.
#[derive(Debug, PartialEq, Eq)]
struct Mount {
    id: u64,
    parent: u64,
    /// Whether the mount shows the file system's own root.
    whole: bool,
    point: String,
    kind: String,
}

/// Makes `root`, which is the root of an attached mount, the root directory.
pub(crate) fn change_root(root: &OwnedFd) -> Result<()> {
    let own = rustix::fs::statx(root, "", AtFlags::EMPTY_PATH, StatxFlags::MNT_ID)
        .doing(Code::Pivot, "/", "the root's mount")?
        .stx_mnt_id;
    // Held open, because its mount is one of those that are removed.
    let proc = Proc::open().context(Code::Pivot, "/proc")?;
    let at_top = take_away_outside(&proc, own)?;
    if !at_top {
        rustix::mount::move_mount(root, "", CWD, "/", MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH).doing(
            Code::Pivot,
            "/",
            "moving the root onto /",
        )?;
    }
    super::enter(root)
}

/// Removes proc and sysfs mounts outside the root; returns whether the root is on top of "/" already.
fn take_away_outside(proc: &Proc, own: u64) -> Result<bool> {
    let mut mounts = read(proc)?;
    // Each round removes one or covers it. One that is hidden by another mount cannot be reached by its path.
    for _ in 0..=mounts.len() {
        let Some(mount) = open_outside(&mounts, own).last() else {
            return Ok(mounts.iter().any(|m| m.id == own && m.point == "/"));
        };
        take_away(&mount.point)?;
        mounts = read(proc)?;
    }
    Err(Error::new(Code::Pivot, "--no-pivot")
        .says("a procfs or sysfs of the host cannot be taken away")
        .hint("leave --no-pivot out: only a root on a ramfs needs it"))
}

fn take_away(point: &str) -> Result<()> {
    match rustix::mount::unmount(point, UnmountFlags::DETACH | UnmountFlags::NOFOLLOW) {
        // Locked together with its parent, in a user namespace.
        Err(Errno::INVAL | Errno::PERM) => {
            rustix::mount::mount("tmpfs", point, "tmpfs", MountFlags::RDONLY, None::<&std::ffi::CStr>).doing(
                Code::Pivot,
                point,
                &format!("covering {point}"),
            )
        }
        other => other.doing(Code::Pivot, point, &format!("detaching {point}")),
    }
}

fn read(proc: &Proc) -> Result<Vec<Mount>> {
    let text = proc.read("self/mountinfo", 64 << 20).context(Code::Pivot, "/proc/self/mountinfo")?;
    Ok(parse(&text))
}

/// Reads `36 35 98:0 /root /mount/point options tags… - type source options` lines.
fn parse(text: &str) -> Vec<Mount> {
    let line = |line: &str| {
        let (place, file_system) = line.split_once(" - ")?;
        let mut fields = place.split(' ');
        let (id, parent) = (fields.next()?.parse().ok()?, fields.next()?.parse().ok()?);
        let whole = fields.nth(1)? == "/";
        let (point, kind) = (unescape(fields.next()?), file_system.split(' ').next()?.to_owned());
        Some(Mount { id, parent, whole, point, kind })
    };
    text.lines().filter_map(line).collect()
}

/// The kernel writes blanks, line ends and backslashes as `\040`.
fn unescape(text: &str) -> String {
    let mut parts = text.split('\\');
    let mut out = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let (code, rest) = part.split_at_checked(3).unwrap_or(("", part));
        out.extend(u8::from_str_radix(code, 8).ok().map(char::from));
        out.push_str(rest);
    }
    out
}

/// Whole file systems of the two kinds that are outside the mount `own` and that nothing covers.
fn open_outside(mounts: &[Mount], own: u64) -> impl Iterator<Item = &Mount> {
    let inside = move |mount: &Mount| {
        let mut id = mount.id;
        // No deeper than there are mounts, whatever the file claims.
        for _ in mounts {
            if id == own {
                return true;
            }
            let Some(mount) = mounts.iter().find(|m| m.id == id) else { return false };
            id = mount.parent;
        }
        false
    };
    mounts
        .iter()
        .filter(|m| m.whole && matches!(m.kind.as_str(), "proc" | "sysfs"))
        .filter(move |m| !inside(m) && !mounts.iter().any(|over| over.parent == m.id && over.point == m.point))
}

#[cfg(test)]
mod tests {
    use super::*;

    const MOUNTS: &str = "\
20 1 8:1 / / rw shared:1 - ext4 /dev/root rw
21 20 0:5 / /proc rw - proc proc rw
22 20 0:6 / /a\\040b/sys rw master:3 - sysfs sysfs rw
23 20 0:5 /sys /masked rw - proc proc ro
24 20 0:5 / /covered rw - proc proc rw
25 24 0:9 / /covered ro - tmpfs tmpfs ro
30 20 8:1 /bundle / rw - ext4 /dev/root rw
31 30 0:7 / /proc rw - proc proc rw
32 30 0:8 / /sys ro - sysfs sysfs ro
";

    #[test]
    fn whole_mounts_outside_the_root_are_found() {
        let mounts = parse(MOUNTS);
        let points: Vec<&str> = open_outside(&mounts, 30).map(|m| m.point.as_str()).collect();
        assert_eq!(points, ["/proc", "/a b/sys"]);
    }

    #[test]
    fn lines_that_are_cut_are_no_mounts() {
        assert_eq!(parse("1 2 0:1 / /x rw\n1 2\n\n"), []);
        assert_eq!((unescape("/a\\134b\\").as_str(), unescape("\\0").as_str()), ("/a\\b", "0"));
    }
}
