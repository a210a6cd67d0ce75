//! `hull pause` and `hull resume`.

use super::super::Global;
use super::super::parse::Parsed;
use crate::cgroup::Cgroup;
use crate::container::Status;
use crate::container::store::Entry;
use crate::error::{Code, Error, Result};

pub(in super::super) fn pause(global: &Global, parsed: &Parsed) -> Result<i32> {
    let entry = Entry::open(&global.root, parsed.arg(0))?;
    entry.lock()?;
    let state = entry.state()?;
    match state.status(&entry) {
        Status::Running | Status::Created => Cgroup::open(&state.cgroup).freeze().map(|()| 0),
        status => Err(Error::new(Code::WrongState, entry.id.as_str())
            .says(format!("container not running or created: {}", status.as_str()))),
    }
}

pub(in super::super) fn resume(global: &Global, parsed: &Parsed) -> Result<i32> {
    let entry = Entry::open(&global.root, parsed.arg(0))?;
    entry.lock()?;
    let state = entry.state()?;
    match state.status(&entry) {
        Status::Paused => Cgroup::open(&state.cgroup).thaw().map(|()| 0),
        _ => Err(Error::new(Code::WrongState, entry.id.as_str()).says("container not paused")),
    }
}
