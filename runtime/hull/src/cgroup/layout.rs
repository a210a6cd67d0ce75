//! Which cgroup hierarchies this machine has.

use rustix::fs::{Mode, OFlags};

use crate::error::{Code, Context, Result};
use crate::files;

/// Where cgroup file systems are mounted.
pub(crate) const MOUNT_POINT: &str = "/sys/fs/cgroup";

const CGROUP_SUPER_MAGIC: i64 = 0x0027_e0eb;
const CGROUP2_SUPER_MAGIC: i64 = 0x6367_7270;

/// The hierarchy without controllers in which systemd, also one inside a container, keeps its groups.
pub(crate) const SYSTEMD: &str = "name=systemd";

/// One version 1 hierarchy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct V1 {
    /// Directory below [`MOUNT_POINT`].
    pub(crate) name: String,
    /// Controllers; `name=systemd` for the named one.
    pub(crate) controllers: Vec<String>,
    /// This process' own cgroup in it.
    pub(crate) own: String,
}

/// The hierarchies of this machine.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Layout {
    /// Version 1 hierarchies with controllers, and systemd's own: a container left in the root of that one would see the host's groups and,
    /// with privileges, manage them.
    pub(crate) v1: Vec<V1>,
    /// Mount point of version 2, if it is mounted.
    pub(crate) v2: Option<String>,
    /// This process' own cgroup in version 2.
    pub(crate) own_v2: String,
}

impl Layout {
    /// Whether version 2 is the only one.
    pub(crate) fn unified(&self) -> bool {
        self.v1.is_empty() && self.v2.is_some()
    }

    /// Version 2 beside version 1 limits.
    pub(crate) fn hybrid(&self) -> bool {
        !self.v1.is_empty() && self.v2.is_some()
    }

    /// Looks at the machine.
    pub(crate) fn detect() -> Result<Self> {
        let own = files::read_text("/proc/self/cgroup", 1 << 20).context(Code::CgroupRead, "/proc/self/cgroup")?;
        if is_of(MOUNT_POINT, CGROUP2_SUPER_MAGIC) {
            return Ok(Self { v1: Vec::new(), v2: Some(MOUNT_POINT.to_owned()), own_v2: own_v2(&own) });
        }
        let unified = format!("{MOUNT_POINT}/unified");
        let v2 = is_of(&unified, CGROUP2_SUPER_MAGIC).then_some(unified);
        let systemd = is_of(&format!("{MOUNT_POINT}/systemd"), CGROUP_SUPER_MAGIC);
        Ok(Self { v1: parse_v1(&own, systemd), v2, own_v2: own_v2(&own) })
    }
}

fn is_of(path: &str, magic: i64) -> bool {
    rustix::fs::open(path, OFlags::PATH | OFlags::CLOEXEC, Mode::empty())
        .and_then(rustix::fs::fstatfs)
        .is_ok_and(|s| s.f_type == magic)
}

fn own_v2(text: &str) -> String {
    text.lines().find_map(|line| line.strip_prefix("0::")).unwrap_or("/").to_owned()
}

/// Reads `/proc/self/cgroup`: lines such as `7:cpu,cpuacct:/own/path`. Named hierarchies other than systemd's are left alone.
pub(crate) fn parse_v1(text: &str, systemd: bool) -> Vec<V1> {
    let mut out = Vec::new();
    for line in text.lines() {
        let mut parts = line.splitn(3, ':');
        let (Some(_), Some(controllers), Some(own)) = (parts.next(), parts.next(), parts.next()) else { continue };
        if controllers.is_empty() || (controllers.starts_with("name=") && !(systemd && controllers == SYSTEMD)) {
            continue;
        }
        out.push(V1 {
            name: controllers.trim_start_matches("name=").to_owned(),
            controllers: controllers.split(',').map(str::to_owned).collect(),
            own: own.to_owned(),
        });
    }
    // On its own it would be taken for a place for limits.
    if out.iter().all(|hierarchy| hierarchy.controllers == [SYSTEMD]) {
        out.clear();
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn named_and_version_2_lines_are_not_limits() {
        let text = "9:name=elogind:/\n8:name=systemd:/s\n4:cpu,cpuacct:/a:b\n0::/x\n";
        let v1 = parse_v1(text, false);
        assert_eq!(v1.len(), 1);
        assert_eq!(v1[0].controllers, ["cpu", "cpuacct"]);
        assert_eq!(v1[0].own, "/a:b");
        let v1 = parse_v1(text, true);
        assert_eq!(v1.len(), 2);
        assert_eq!((v1[0].name.as_str(), v1[0].own.as_str()), ("systemd", "/s"));
        assert_eq!(super::super::controllers_of(&v1[0].name), v1[0].controllers);
        assert_eq!(parse_v1("8:name=systemd:/s\n0::/x\n", true), []);
    }
}
