//! The systemd driver: a transient scope a container.

use std::collections::BTreeMap;

use super::{Cgroup, Record};
use crate::error::{Code, Error, Result};
use crate::spec::Resources;

pub(crate) fn plan(_path: Option<&str>, _id: &str) -> Result<Record> {
    Err(Error::new(Code::Unsupported, "the systemd cgroup driver"))
}

pub(crate) fn start(_record: &Record, _pid: i32, _resources: &Resources, _annotations: &BTreeMap<String, String>) -> Result<Cgroup> {
    Err(Error::new(Code::Unsupported, "the systemd cgroup driver"))
}

pub(crate) fn stop(_unit: &str) -> Result<()> {
    Ok(())
}

pub(crate) fn update(_unit: &str, _resources: &Resources) -> Result<()> {
    Err(Error::new(Code::Unsupported, "the systemd cgroup driver"))
}
