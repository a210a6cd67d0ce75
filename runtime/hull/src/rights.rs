//! Whose rights this process has: root of the host, root of a user namespace (as with rootless Podman), or a user.

use rustix::io::Errno;

use crate::procfs::Proc;

/// Inode of the first user namespace.
const FIRST: u64 = 0xefff_fffd;

/// Whether this is the host's root, and not one of a user namespace.
pub(crate) fn rule_the_host() -> bool {
    // Without a procfs that could tell, root is assumed to be the host's.
    rustix::process::geteuid().is_root() && rustix::fs::stat("/proc/self/ns/user").map_or(true, |s| s.st_ino == FIRST)
}

/// Whether this process' user namespace lets processes set their groups; those that are made below it inherit that.
pub(crate) fn may_set_groups() -> bool {
    rule_the_host() || groups_allowed(crate::files::read_text("/proc/self/setgroups", 16))
}

/// The same by a handle of /proc, for a process whose mounts may be another's.
pub(crate) fn may_set_groups_by(proc: &Proc) -> bool {
    groups_allowed(proc.read("self/setgroups", 16))
}

/// Kernels without the file have nothing that forbids it.
fn groups_allowed(file: Result<String, Errno>) -> bool {
    file.map_or(true, |text| text.trim() != "deny")
}

/// This process' uid as seen from outside its user namespace.
pub(crate) fn outer_uid() -> u32 {
    let own = rustix::process::geteuid().as_raw();
    let map = crate::files::read_text("/proc/self/uid_map", 65536).unwrap_or_default();
    outside(&map, own).unwrap_or(own)
}

fn outside(map: &str, uid: u32) -> Option<u32> {
    map.lines().find_map(|line| {
        let numbers: Vec<u32> = line.split_whitespace().filter_map(|n| n.parse().ok()).collect();
        let [inside, outside, size] = numbers[..] else { return None };
        let offset = uid.checked_sub(inside).filter(|offset| *offset < size)?;
        outside.checked_add(offset)
    })
}

#[cfg(test)]
mod tests {
    use super::outside;

    #[test]
    fn a_map_is_followed_outwards() {
        let map = "         0       1000          1\n         1     100000      65536\n";
        assert_eq!((outside(map, 0), outside(map, 7), outside(map, 70_000)), (Some(1000), Some(100_006), None));
    }
}
