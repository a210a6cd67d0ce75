//! A container whose state file is no JSON: what it may have left is where its configuration puts it.

use super::store::{Entry, State};
use crate::cgroup::{self, layout::Layout};
use crate::error::Result;

/// A journal in place of the lost one. It knows no process: those of the container are found by its cgroup.
pub(super) fn journal(entry: &Entry) -> Result<State> {
    let path = entry.config().ok().and_then(|spec| spec.linux?.cgroups_path);
    let path = path.as_deref();
    // Who made the cgroup was in the lost file, but the two write paths differently.
    let by_systemd = path.is_some_and(|path| !path.starts_with('/') && path.split(':').count() == 3);
    let cgroup = if by_systemd {
        cgroup::systemd::plan(path, &entry.id)?
    } else {
        cgroup::plan(&Layout::detect()?, path, &entry.id)?
    };
    Ok(State { id: entry.id.clone(), cgroup, ..State::default() })
}
