//! The container's cgroups: version 1, version 2, and both beside each other.
//!
//! In the hybrid layout the limits are in version 1 directories, while a version 2 directory is used for what only it can do: start a process
//! inside (`CLONE_INTO_CGROUP`), kill and freeze all of them, report pressure.

mod changes;
mod dbus;
pub(crate) mod devices;
pub(crate) mod freeze;
mod join;
pub(crate) mod layout;
pub(crate) mod oom;
pub(crate) mod ownership;
pub(crate) mod stats;
pub(crate) mod systemd;
mod tree;
mod unit_devices;
mod unit_io;
mod unit_properties;
mod v1;
pub(crate) mod v2;

use std::fmt::Display;
use std::os::fd::{AsFd, OwnedFd};

use rustix::fs::{AtFlags, CWD, Mode, OFlags, unlinkat};
use rustix::io::Errno;
use serde::{Deserialize, Serialize};

use crate::error::{Code, Context, Error, Result};
use crate::files;
use crate::rootfs::cgroupfs;
use crate::spec::resources::{Rdma, Resources};
pub(crate) use join::SubGroup;
use layout::{Layout, MOUNT_POINT};
use tree::{collect_processes, enable_down_to, remove_tree};

/// Who makes the directories.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Driver {
    /// The runtime itself.
    #[default]
    Cgroupfs,
    /// systemd, by a transient scope.
    Systemd,
    /// Nobody: the container stays in its creator's cgroup.
    Disabled,
}

/// A directory of one hierarchy.
#[derive(Debug)]
pub(crate) struct Directory {
    /// Name of the hierarchy's mount; empty for version 2.
    pub(crate) name: String,
    /// Controllers of the hierarchy.
    pub(crate) controllers: Vec<String>,
    /// Full path on the host.
    pub(crate) path: String,
    pub(crate) fd: OwnedFd,
}

/// A limit of -1 is none.
fn or_max(limit: i64) -> String {
    if limit < 0 { "max".to_owned() } else { limit.to_string() }
}

/// The container always has a process, and systemd accepts no limit below one.
fn max_pids(limit: i64) -> String {
    or_max(if limit == 0 { 1 } else { limit })
}

fn rdma_line(device: &str, limit: &Rdma) -> String {
    use std::fmt::Write as _;
    let mut line = device.to_owned();
    if let Some(handles) = limit.hca_handles {
        let _ = write!(line, " hca_handle={handles}");
    }
    if let Some(objects) = limit.hca_objects {
        let _ = write!(line, " hca_object={objects}");
    }
    line
}

impl Directory {
    pub(crate) fn error(&self, file: &str, value: &str, errno: Errno) -> Error {
        let path = format!("{}/{file}", self.path);
        let text = format!("{value:?} to {path}");
        let error = Error::os(Code::CgroupWrite, path, errno).says(text);
        match errno {
            Errno::NOENT => error.hint("this kernel, or this cgroup, does not have that limit"),
            Errno::BUSY if file.starts_with("memory") => error.hint("the group uses more than that"),
            _ => error,
        }
    }

    fn try_write(&self, file: &str, value: impl Display) -> Result<(), Errno> {
        files::write_at(&self.fd, file, value.to_string().as_bytes())
    }

    fn write(&self, file: &str, value: impl Display) -> Result<()> {
        let value = value.to_string();
        files::write_at(&self.fd, file, value.as_bytes()).map_err(|e| self.error(file, &value, e))
    }

    fn write_if_there(&self, file: &str, value: impl Display) -> Result<()> {
        let value = value.to_string();
        match files::write_at(&self.fd, file, value.as_bytes()) {
            Ok(()) | Err(Errno::NOENT) => Ok(()),
            Err(e) => Err(self.error(file, &value, e)),
        }
    }

    fn has(&self, file: &str) -> bool {
        files::exists_at(&self.fd, file)
    }

    pub(crate) fn read_text(&self, file: &str) -> Result<String> {
        files::read_text_at(&self.fd, file, 4 << 20).with(Code::CgroupRead, || format!("{}/{file}", self.path))
    }

    pub(crate) fn read_number<T: std::str::FromStr>(&self, file: &str) -> Result<T> {
        self.read_text(file)?.trim().parse().map_err(|_| {
            let path = format!("{}/{file}", self.path);
            Error::new(Code::CgroupRead, path.as_str()).says(format!("{path}: not a number"))
        })
    }
}

/// What the state file keeps about the cgroups.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Record {
    pub(crate) driver: Driver,
    /// Version 1 directories: hierarchy name and full path.
    pub(crate) v1: Vec<(String, String)>,
    /// Version 2 directory.
    pub(crate) v2: Option<String>,
    /// Unit of the systemd driver.
    pub(crate) unit: Option<String>,
    /// Whether limits lie in version 1.
    pub(crate) hybrid: bool,
}

impl Record {
    /// What the container sees.
    pub(crate) fn view(&self, namespace: bool) -> cgroupfs::View {
        let v1 = self.v1.iter().map(|(name, path)| cgroupfs::Hierarchy {
            name: name.clone(),
            controllers: controllers_of(name),
            path: path.clone(),
        });
        cgroupfs::View { v1: v1.collect(), v2: self.v2.clone(), namespace }
    }
}

/// The container's cgroups.
#[derive(Debug)]
pub(crate) struct Cgroup {
    pub(crate) driver: Driver,
    pub(crate) v1: Vec<Directory>,
    pub(crate) v2: Option<Directory>,
    pub(crate) unit: Option<String>,
}

/// Where the directories will be, before they exist.
pub(crate) fn plan(layout: &Layout, path: Option<&str>, id: &str) -> Result<Record> {
    let relative = path.filter(|p| !p.is_empty()).unwrap_or(id);
    let inner = crate::rootfs::resolve::clean(relative);
    if inner == "/" {
        return Err(Error::invalid("linux.cgroupsPath", "linux.cgroupsPath names the root cgroup"));
    }
    let absolute = relative.starts_with('/');
    let join = |own: &str| {
        let own = own.trim_end_matches('/');
        if absolute || own.contains("/..") { inner.clone() } else { format!("{own}{inner}") }
    };
    let v1 = layout.v1.iter().map(|h| (h.name.clone(), format!("{MOUNT_POINT}/{}{}", h.name, join(&h.own)))).collect();
    // Our own version 2 group holds processes, so a group with controllers must be beside it, not inside.
    let beside = layout.own_v2.rsplit_once('/').map_or("", |(parent, _)| parent);
    let own_v2 = if layout.unified() { beside } else { layout.own_v2.as_str() };
    let v2 = layout.v2.as_ref().map(|mount| format!("{mount}{}", join(own_v2)));
    Ok(Record { driver: Driver::Cgroupfs, v1, v2, unit: None, hybrid: layout.hybrid() })
}

/// Removes the directories of a record if nothing is inside; false if something may be.
pub(crate) fn remove_empty(record: &Record) -> bool {
    let mut paths = record.v1.iter().map(|(_, path)| path).chain(&record.v2);
    record.driver != Driver::Systemd
        && paths.all(|path| matches!(unlinkat(CWD, path.as_str(), AtFlags::REMOVEDIR), Ok(()) | Err(Errno::NOENT)))
}

fn controllers_of(name: &str) -> Vec<String> {
    if name == "systemd" {
        return vec![layout::SYSTEMD.to_owned()];
    }
    name.split(',').map(str::to_owned).collect()
}

fn open_directory(path: &str) -> Result<OwnedFd, Errno> {
    // Not O_PATH: clone3 requires a descriptor that is open for reading.
    rustix::fs::open(path, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC | OFlags::NOFOLLOW, Mode::empty())
}

/// Makes a directory and its parents; true if it did not exist before.
fn make_directory(path: &str) -> Result<bool, Errno> {
    match rustix::fs::mkdirat(CWD, path, Mode::from_raw_mode(0o755)) {
        Ok(()) => Ok(true),
        Err(Errno::EXIST) => Ok(false),
        Err(Errno::NOENT) => {
            let (parent, _) = path.rsplit_once('/').ok_or(Errno::NOENT)?;
            if parent.len() <= MOUNT_POINT.len() {
                return Err(Errno::NOENT);
            }
            make_directory(parent)?;
            make_directory(path)
        }
        Err(e) => Err(e),
    }
}

/// Initialises what a version 1 directory needs before a process can be in it.
fn prepare(controllers: &[String], path: &str) -> Result<(), Errno> {
    if controllers.iter().any(|c| c == "cpuset") { v1::fill_cpuset(path) } else { Ok(()) }
}

/// Makes a version 1 directory with its parents.
fn make_v1(name: &str, path: &str) -> Result<()> {
    make_directory(path).and_then(|_| prepare(&controllers_of(name), path)).context(Code::CgroupCreate, path)
}

/// Makes a directory and records it in `made`, or uses an existing one that has no processes.
fn make<'a>(name: String, controllers: Vec<String>, path: &'a str, made: &mut Vec<&'a str>) -> Result<Directory> {
    let fresh = make_directory(path);
    if fresh == Ok(true) {
        made.push(path);
    }
    let fresh = fresh.and_then(|fresh| prepare(&controllers, path).map(|()| fresh)).map_err(|e| {
        let error = Error::os(Code::CgroupCreate, path, e);
        match e {
            Errno::ACCESS | Errno::PERM | Errno::ROFS => error.hint("without root, a cgroup must be delegated to the user (systemd user manager), or use --cgroup-manager=disabled"),
            _ => error,
        }
    })?;
    let fd = open_directory(path).context(Code::CgroupCreate, path)?;
    let directory = Directory { name, controllers, path: path.to_owned(), fd };
    if !fresh {
        directory.must_be_empty()?;
    }
    Ok(directory)
}

/// Makes directories, and takes those away again that it made before it failed.
fn or_undone<'a, T>(make: impl FnOnce(&mut Vec<&'a str>) -> Result<T>) -> Result<T> {
    let mut made = Vec::new();
    let result = make(&mut made);
    if result.is_err() {
        for path in made {
            let _ = unlinkat(CWD, path, AtFlags::REMOVEDIR);
        }
    }
    result
}

impl Cgroup {
    /// For a container that stays in the cgroup of its creator.
    pub(crate) fn disabled() -> Self {
        Self { driver: Driver::Disabled, v1: Vec::new(), v2: None, unit: None }
    }

    /// Makes the directories of a plan. Existing ones must be empty of processes; what was made is removed again if one of the others cannot
    /// be made.
    pub(crate) fn create(record: &Record) -> Result<Self> {
        or_undone(|made| {
            let mut out = Self::make_v2(record, made)?;
            out.make_v1(record, made)?;
            Ok(out)
        })
    }

    /// Makes only what a process is born into, the directory of version 2: the rest can be made while the process, which
    /// enters version 1 by itself, is at other work ([`Cgroup::make_rest`]).
    pub(crate) fn begin(record: &Record) -> Result<Self> {
        or_undone(|made| Self::make_v2(record, made))
    }

    /// Makes the directories of the plan that are not there yet.
    pub(crate) fn make_rest(&mut self, record: &Record) -> Result<()> {
        if self.v1.is_empty() { or_undone(|made| self.make_v1(record, made)) } else { Ok(()) }
    }

    fn make_v2<'a>(record: &'a Record, made: &mut Vec<&'a str>) -> Result<Self> {
        // Checked before anything is made: a process that enters a frozen group stops at once, and would never answer.
        record.refuse_frozen()?;
        let mut out = Self { driver: record.driver, v1: Vec::new(), v2: None, unit: record.unit.clone() };
        if let Some(path) = &record.v2 {
            out.v2 = Some(make(String::new(), Vec::new(), path, made)?);
            if !record.hybrid {
                enable_down_to(path)?;
            }
        }
        Ok(out)
    }

    fn make_v1<'a>(&mut self, record: &'a Record, made: &mut Vec<&'a str>) -> Result<()> {
        for (name, path) in &record.v1 {
            self.v1.push(make(name.clone(), controllers_of(name), path, made)?);
        }
        Ok(())
    }

    /// Otherwise another container's processes would get its limits and signals.
    pub(crate) fn must_be_empty(&self) -> Result<()> {
        self.v1.iter().chain(&self.v2).try_for_each(Directory::must_be_empty)
    }

    /// Opens the directories that exist; missing ones are left out.
    pub(crate) fn open(record: &Record) -> Self {
        let open = |name: &str, path: &str| {
            let fd = open_directory(path).ok()?;
            Some(Directory { name: name.to_owned(), controllers: controllers_of(name), path: path.to_owned(), fd })
        };
        Self {
            driver: record.driver,
            v1: record.v1.iter().filter_map(|(name, path)| open(name, path)).collect(),
            v2: record.v2.as_ref().and_then(|path| open("", path)),
            unit: record.unit.clone(),
        }
    }

    /// The cgroups through which a process joins a running container. The container's own version 2 group may be gone if its first process
    /// was moved elsewhere: then that process' group is used, so that nothing is started outside the container.
    pub(crate) fn of_running(record: &Record, first: i32) -> Result<Self> {
        let mut this = Self::open(record);
        if let (Some(gone), None) = (&record.v2, &this.v2) {
            this.v2 = Some(join::of_process(first).with(Code::CgroupJoin, || gone.clone())?);
        }
        Ok(this)
    }

    /// Whether limits lie in version 1.
    pub(crate) fn hybrid(&self) -> bool {
        !self.v1.is_empty()
    }

    /// The directory whose hierarchy has that controller.
    pub(crate) fn with_controller(&self, controller: &str) -> Option<&Directory> {
        self.v1.iter().find(|d| d.controllers.iter().any(|c| c == controller))
    }

    /// Writes all limits but that of tasks.
    pub(crate) fn apply(&self, resources: &Resources) -> Result<()> {
        self.refuse_missing(resources)?;
        // Otherwise the next reload of systemd would reset them.
        let of_unit = (self.driver == Driver::Systemd).then(|| unit_properties::as_of_unit(resources));
        let resources = of_unit.as_ref().unwrap_or(resources);
        for directory in &self.v1 {
            v1::apply(directory, resources)?;
        }
        if let Some(directory) = &self.v2 {
            v2::apply(directory, resources, self.hybrid())?;
        }
        Ok(())
    }

    /// Writes the device rules (without any configured ones, the default ones).
    pub(crate) fn apply_devices(&self, resources: Option<&Resources>) -> Result<()> {
        let rules = resources.map_or(&[][..], |r| &r.devices);
        if let Some(directory) = self.with_controller("devices") {
            return devices::apply_v1(directory, rules);
        }
        match &self.v2 {
            Some(directory) if !self.hybrid() => devices::apply_v2(directory.fd.as_fd(), &directory.path, rules),
            _ => Ok(()),
        }
    }

    /// Writes the limit of tasks: last, when the runtime needs no more forks inside.
    pub(crate) fn apply_pids(&self, resources: &Resources) -> Result<()> {
        for directory in &self.v1 {
            v1::apply_pids(directory, resources)?;
        }
        match &self.v2 {
            Some(directory) if !self.hybrid() => v2::apply_pids(directory, resources),
            _ => Ok(()),
        }
    }

    /// Limits that say nothing are an error, too.
    fn refuse_empty(resources: &Resources) -> Result<()> {
        let invalid = |property: String, either: &str| {
            let text = format!("{property}: neither {either} is given");
            Err(Error::invalid(property, text))
        };
        if let Some((name, _)) = resources.rdma.iter().find(|(_, limit)| **limit == Rdma::default()) {
            return invalid(format!("linux.resources.rdma[{name}]"), "hcaHandles nor hcaObjects");
        }
        let mut devices = resources.block_io.iter().flat_map(|io| &io.weight_device);
        match devices.position(|device| device.weight.is_none() && device.leaf_weight.is_none()) {
            Some(n) => invalid(format!("linux.resources.blockIO.weightDevice[{n}]"), "weight nor leafWeight"),
            None => Ok(()),
        }
    }

    /// A limit whose controller is missing is an error; it is never ignored.
    fn refuse_missing(&self, resources: &Resources) -> Result<()> {
        Self::refuse_empty(resources)?;
        if !self.hybrid() && self.v2.is_some() {
            return Ok(());
        }
        let missing = |controller: &str, field: &str| -> Result<()> {
            if self.with_controller(controller).is_some() {
                return Ok(());
            }
            let property = format!("linux.resources.{field}");
            let text = format!("{property}: the {controller} cgroup controller is not available");
            Err(Error::new(Code::Unsupported, property).says(text))
        };
        if resources.memory.as_ref().is_some_and(|m| *m != crate::spec::resources::Memory::default()) {
            missing("memory", "memory")?;
        }
        if let Some(cpu) = &resources.cpu {
            let sets =
                cpu.cpus.as_ref().is_some_and(|c| !c.is_empty()) || cpu.mems.as_ref().is_some_and(|m| !m.is_empty());
            if sets {
                missing("cpuset", "cpu.cpus")?;
            }
            let times = [cpu.shares, cpu.period, cpu.burst, cpu.realtime_period].into_iter().flatten().any(|n| n != 0);
            let signed = [cpu.quota, cpu.realtime_runtime, cpu.idle].into_iter().flatten().any(|n| n != 0);
            if times || signed {
                missing("cpu", "cpu")?;
            }
        }
        if resources.pids.as_ref().is_some_and(|p| p.limit.is_some_and(|l| l != 0)) {
            missing("pids", "pids")?;
        }
        if resources.block_io.as_ref().is_some_and(|b| *b != crate::spec::resources::BlockIo::default()) {
            missing("blkio", "blockIO")?;
        }
        if !resources.hugepage_limits.is_empty() && self.v2.is_none() {
            missing("hugetlb", "hugepageLimits")?;
        }
        if resources.network.as_ref().is_some_and(|n| n.class_id.is_some()) {
            missing("net_cls", "network.classID")?;
        }
        if resources.network.as_ref().is_some_and(|n| !n.priorities.is_empty()) {
            missing("net_prio", "network.priorities")?;
        }
        if !resources.rdma.is_empty() {
            missing("rdma", "rdma")?;
        }
        if !resources.unified.is_empty() && self.v2.is_none() {
            return Err(Error::new(Code::Unsupported, "linux.resources.unified")
                .says("linux.resources.unified: there is no cgroup version 2 here"));
        }
        Ok(())
    }

    /// What the state file keeps.
    pub(crate) fn record(&self) -> Record {
        Record {
            driver: self.driver,
            v1: self.v1.iter().map(|d| (d.name.clone(), d.path.clone())).collect(),
            v2: self.v2.as_ref().map(|d| d.path.clone()),
            unit: self.unit.clone(),
            hybrid: self.hybrid(),
        }
    }

    /// Ids of all processes inside, including those of sub-groups. A process is in version 2 from its beginning and joins version 1 itself,
    /// so both are read.
    pub(crate) fn processes(&self) -> Result<Vec<i32>> {
        let v1 = self.v1.iter().find(|d| d.name == "pids").or(self.v1.first());
        let mut out = Vec::new();
        for directory in v1.into_iter().chain(&self.v2) {
            collect_processes(directory.fd.as_fd(), &mut out).with(Code::CgroupRead, || directory.path.clone())?;
        }
        out.sort_unstable();
        out.dedup();
        Ok(out)
    }

    /// Kills everything inside, in one step where the kernel has one.
    pub(crate) fn kill_all(&self) -> Result<()> {
        if let Some(directory) = &self.v2 {
            match files::write_at(&directory.fd, "cgroup.kill", b"1") {
                Ok(()) => return Ok(()),
                // If the directory is gone, there is nothing left to signal.
                Err(Errno::NOENT | Errno::NODEV | Errno::OPNOTSUPP) => {}
                Err(e) => {
                    let text = format!("all processes of {}", directory.path);
                    return Err(Error::os(Code::Signal, directory.path.as_str(), e).says(text));
                }
            }
        }
        self.signal_all(9)
    }

    /// Sends a signal to every process inside; frozen meanwhile if possible, so that none escapes by forking.
    pub(crate) fn signal_all(&self, signal: i32) -> Result<()> {
        let frozen = self.freeze().is_ok();
        let result = self.processes().map(|pids| {
            for pid in pids {
                // A process that ended meanwhile needs no signal.
                let _ = hull_sys::signal::send(pid, signal);
            }
        });
        if frozen {
            self.thaw()?;
        }
        result
    }

    /// Removes the directories with everything below them; false if processes are still inside.
    pub(crate) fn remove(&self) -> Result<()> {
        for directory in self.v1.iter().chain(self.v2.as_ref()) {
            remove_tree(&directory.path)?;
        }
        Ok(())
    }

    /// Removes the directories, and the unit they belong to; true if there was such a unit still.
    pub(crate) fn remove_all(&self) -> Result<bool> {
        let stopped = match &self.unit {
            Some(unit) if self.driver == Driver::Systemd => systemd::stop(unit)?,
            _ => false,
        };
        self.remove().map(|()| stopped)
    }

    /// Whether the kernel killed something inside for lack of memory.
    pub(crate) fn had_oom_kill(&self) -> bool {
        let counted = |text: &str, key: &str| {
            text.lines().any(|l| l.strip_prefix(key).is_some_and(|n| n.trim().parse::<u64>().is_ok_and(|n| n > 0)))
        };
        if let Some(directory) = self.with_controller("memory") {
            return files::read_text_at(&directory.fd, "memory.oom_control", 4096)
                .is_ok_and(|t| counted(&t, "oom_kill "));
        }
        self.v2
            .as_ref()
            .and_then(|d| files::read_text_at(&d.fd, "memory.events", 4096).ok())
            .is_some_and(|t| counted(&t, "oom_kill "))
    }

    /// Waits until no process is left inside, at most that long.
    pub(crate) fn wait_empty(&self, milliseconds: u32) -> Result<bool> {
        freeze::wait_event(self.v2.as_ref(), "populated 0", milliseconds, &|| {
            self.processes().is_ok_and(|p| p.is_empty())
        })
    }
}

impl Directory {
    fn must_be_empty(&self) -> Result<()> {
        let mut pids = Vec::new();
        collect_processes(self.fd.as_fd(), &mut pids).with(Code::CgroupRead, || self.path.clone())?;
        if pids.is_empty() {
            return Ok(());
        }
        let list: Vec<String> = pids.iter().take(8).map(ToString::to_string).collect();
        Err(Error::new(Code::CgroupCreate, self.path.as_str())
            .says(format!("{}: container's cgroup is not empty", self.path))
            .hint(format!("processes are inside: {}; give another linux.cgroupsPath or end them", list.join(", "))))
    }
}
