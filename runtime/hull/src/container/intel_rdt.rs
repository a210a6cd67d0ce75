//! Resource director technology (`linux.intelRdt`), where the kernel has /sys/fs/resctrl.

use rustix::fs::{AtFlags, CWD, Mode};
use rustix::io::Errno;

use crate::error::{Code, Context, Error, Result};
use crate::files;
use crate::spec::IntelRdt;

const RESCTRL: &str = "/sys/fs/resctrl";

/// Puts the process in its class; gives the group if it was made here.
pub(super) fn apply(rdt: &IntelRdt, id: &str, pid: i32) -> Result<Option<String>> {
    let default = IntelRdt::default();
    if *rdt == default {
        return Ok(None);
    }
    if !files::exists_at(CWD, &format!("{RESCTRL}/schemata")) {
        return Err(Error::new(Code::Unsupported, "linux.intelRdt: resctrl is not mounted here"));
    }
    let class = rdt.clos_id.as_deref().filter(|c| !c.is_empty()).unwrap_or(id);
    if class.contains('/') && class != "/" || class == "." || class == ".." {
        return Err(Error::new(Code::ConfigInvalid, format!("linux.intelRdt.closID {class:?} is not a name")));
    }
    let group = if class == "/" { RESCTRL.to_owned() } else { format!("{RESCTRL}/{class}") };
    let made = match rustix::fs::mkdirat(CWD, group.as_str(), Mode::from_raw_mode(0o755)) {
        Ok(()) => true,
        Err(Errno::EXIST) => false,
        Err(e) => return Err(Error::os(Code::IntelRdt, group.as_str(), e)),
    };
    let lines = rdt.l3_cache_schema.iter().chain(&rdt.mem_bw_schema).chain(&rdt.schemata);
    for line in lines {
        let text = format!("{}\n", line.trim_end());
        files::write_at(CWD, &format!("{group}/schemata"), text.as_bytes())
            .with(Code::IntelRdt, || format!("schemata {line:?}"))?;
    }
    files::write_at(CWD, &format!("{group}/tasks"), pid.to_string().as_bytes()).context(Code::IntelRdt, &group)?;
    let monitor = [rdt.enable_monitoring, rdt.enable_cmt, rdt.enable_mbm].contains(&Some(true));
    let mut remove = made.then(|| group.clone());
    if monitor {
        let path = format!("{group}/mon_groups/{id}");
        rustix::fs::mkdirat(CWD, path.as_str(), Mode::from_raw_mode(0o755)).context(Code::IntelRdt, &path)?;
        files::write_at(CWD, &format!("{path}/tasks"), pid.to_string().as_bytes()).context(Code::IntelRdt, &path)?;
        remove = remove.or(Some(path));
    }
    Ok(remove)
}

/// Removes a group that was made for a container.
pub(super) fn remove(path: &str) {
    // Already gone is as good.
    let _ = rustix::fs::unlinkat(CWD, path, AtFlags::REMOVEDIR);
}

/// Changes the schemata of a container's class.
pub(crate) fn update(rdt: &IntelRdt, id: &str, pid: i32) -> Result<()> {
    apply(rdt, id, pid).map(drop)
}
