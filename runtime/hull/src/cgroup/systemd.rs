//! The systemd driver: one transient scope per container, made by one call with all its properties.

use std::collections::BTreeMap;

use super::dbus::{Asked, Bus, Reader, Value, Writer};
use super::layout::{Layout, MOUNT_POINT};
use super::{Cgroup, Driver, Record, unit_devices, unit_properties};
use crate::error::{Code, Context, Error, Result};
use crate::files;
use crate::spec::Resources;

/// How long systemd may take.
const DEADLINE_MS: u32 = 25_000;

const MANAGER: &str = "org.freedesktop.systemd1";
const PATH: &str = "/org/freedesktop/systemd1";
const INTERFACE: &str = "org.freedesktop.systemd1.Manager";

/// Slice and unit of `slice:prefix:name`.
fn names(path: Option<&str>, id: &str, root: bool) -> Result<(String, String)> {
    let default_slice = if root { "system.slice" } else { "user.slice" };
    let text = path.filter(|p| !p.is_empty()).unwrap_or("");
    let (slice, prefix, name) = if text.is_empty() {
        ("", "hull", id)
    } else {
        let parts: Vec<&str> = text.split(':').collect();
        match parts.as_slice() {
            [slice, prefix, name] => (*slice, *prefix, *name),
            _ => {
                let what = format!("linux.cgroupsPath {text:?}: with systemd it is slice:prefix:name");
                return Err(Error::invalid("linux.cgroupsPath", what));
            }
        }
    };
    let slice = if slice.is_empty() { default_slice } else { slice };
    if !slice.ends_with(".slice") || slice.contains('/') {
        let what = format!("linux.cgroupsPath: {slice:?} is not the name of a slice");
        return Err(Error::invalid("linux.cgroupsPath", what));
    }
    let unit = if name.ends_with(".slice") {
        name.to_owned()
    } else if prefix.is_empty() {
        format!("{name}.scope")
    } else {
        format!("{prefix}-{name}.scope")
    };
    Ok((slice.to_owned(), unit))
}

/// Plans the unit; the directories are known when it runs.
pub(crate) fn plan(path: Option<&str>, id: &str) -> Result<Record> {
    let (slice, unit) = names(path, id, crate::rights::rule_the_host())?;
    Ok(Record { driver: Driver::Systemd, unit: Some(format!("{slice}/{unit}")), ..Record::default() })
}

fn split(unit: &str) -> (&str, &str) {
    unit.split_once('/').unwrap_or(("system.slice", unit))
}

/// Makes the unit around a process and gives its cgroups.
pub(crate) fn start(
    record: &Record,
    pid: i32,
    resources: &Resources,
    annotations: &BTreeMap<String, String>,
) -> Result<Cgroup> {
    let layout = Layout::detect()?;
    let full = record.unit.as_deref().unwrap_or("");
    let (slice, unit) = split(full);
    let text = |t: &str| Value::Text(t.to_owned());
    let mut properties = vec![
        ("Description".to_owned(), text(&format!("container {unit}"))),
        ("Slice".to_owned(), text(slice)),
        ("DefaultDependencies".to_owned(), Value::Bool(false)),
        ("PIDs".to_owned(), Value::U32s(vec![pid.unsigned_abs()])),
        ("Delegate".to_owned(), Value::Bool(true)),
    ];
    for name in ["MemoryAccounting", "CPUAccounting", "IOAccounting", "TasksAccounting"] {
        properties.push((name.to_owned(), Value::Bool(true)));
    }
    let mut bus = Bus::connect(DEADLINE_MS)?;
    properties.extend(unit_properties::of_resources(resources, layout.unified(), knows_idle(&mut bus, resources))?);
    properties.extend(unit_devices::properties(resources)?);
    properties.extend(unit_properties::annotated(annotations)?);
    refuse_taken(&mut bus, &layout, full)?;
    // Subscribes, so that the end of the job is signalled.
    let subscribed = bus.ask(MANAGER, PATH, INTERFACE, "Subscribe", "", Writer::default())?;
    let matched = ask_for_signals(&mut bus, "JobRemoved")?;
    // A failed unit left over under that name would be in the way; mostly there is none.
    ask_with_unit(&mut bus, "ResetFailedUnit", unit)?;
    let mut body = Writer::default();
    body.text(unit);
    body.text("replace");
    body.properties(&properties);
    body.array(8, |_| {});
    let started = ask_to_start(&mut bus, &body)?;
    // systemd takes them in their order.
    bus.answer(&subscribed)?;
    bus.answer(&matched)?;
    let answer = started_unit(&mut bus, unit, started, &body)?;
    let cgroup = match result_of_job(&mut bus, &answer) {
        Ok(result) if result == "done" => adopt(&layout, full, pid),
        Ok(result) => Err(Error::new(Code::Systemd, unit).says(format!("unit {unit} was not started: {result}"))),
        Err(error) => Err(error),
    };
    if cgroup.is_err() {
        // One that no process ever entered does not end by itself.
        let mut body = Writer::default();
        body.text(unit);
        body.text("replace");
        let stopped = bus.call(MANAGER, PATH, INTERFACE, "StopUnit", "ss", body);
        let _ = stopped.and_then(|answer| result_of_job(&mut bus, &answer));
    }
    let cgroup = cgroup?;
    if let Some(directory) = &cgroup.v2
        && layout.unified()
        && beyond_systemd(resources)
    {
        super::enable_down_to(&directory.path)?;
    }
    Ok(cgroup)
}

fn ask_for_signals(bus: &mut Bus, member: &str) -> Result<Asked> {
    let mut rule = Writer::default();
    rule.text(&format!("type='signal',interface='{INTERFACE}',member='{member}'"));
    bus.ask("org.freedesktop.DBus", "/org/freedesktop/DBus", "org.freedesktop.DBus", "AddMatch", "s", rule)
}

fn ask_to_start(bus: &mut Bus, body: &Writer) -> Result<Asked> {
    bus.ask(MANAGER, PATH, INTERFACE, "StartTransientUnit", "ssa(sv)a(sa(sv))", body.clone())
}

/// The answer to a start. A unit of that name that is on its way out is waited for: systemd answers calls before it ends the units
/// that it was told to stop.
fn started_unit(bus: &mut Bus, unit: &str, mut started: Asked, body: &Writer) -> Result<Vec<u8>> {
    // It may have gone before it was looked at, so one that seems to stay is asked for twice.
    let mut stayed = false;
    loop {
        let reply = bus.reply(&started)?;
        if stayed || reply.error != "org.freedesktop.systemd1.UnitExists" {
            return reply.into_body(&started);
        }
        let matched = ask_for_signals(bus, "UnitRemoved")?;
        bus.answer(&matched)?;
        if is_leaving(bus, unit) {
            bus.unit_removed(unit)?;
        } else {
            stayed = true;
        }
        started = ask_to_start(bus, body)?;
    }
}

/// Whether a unit is there and about to end.
fn is_leaving(bus: &mut Bus, unit: &str) -> bool {
    let read = |bus: &mut Bus| {
        let asked = ask_with_unit(bus, "GetUnit", unit).ok()?;
        let answer = bus.answer(&asked).ok()?;
        let path = Reader { bytes: &answer, at: 0 }.text()?;
        let state = property(bus, &path, "org.freedesktop.systemd1.Unit", "ActiveState")?;
        let job = property(bus, &path, "org.freedesktop.systemd1.Unit", "Job")?;
        // The job's number, and its path; 0 if there is none.
        Some(value(&state)?.text()? == "deactivating" || value(&job)?.u32()? != 0)
    };
    read(bus).unwrap_or(false)
}

/// How the job of an answer ended.
fn result_of_job(bus: &mut Bus, answer: &[u8]) -> Result<String> {
    let job = Reader { bytes: answer, at: 0 }.text().unwrap_or_default();
    bus.job_result(&job)
}

/// Whether controllers are wanted that systemd does not know: it neither switches them on for a unit, nor off again.
fn beyond_systemd(resources: &Resources) -> bool {
    let unknown = |file: &String| ["hugetlb.", "misc.", "rdma."].iter().any(|prefix| file.starts_with(prefix));
    !resources.hugepage_limits.is_empty() || !resources.rdma.is_empty() || resources.unified.keys().any(unknown)
}

/// Whether the manager supports idle groups; only asked if one is wanted.
fn knows_idle(bus: &mut Bus, resources: &Resources) -> bool {
    let wanted = resources.cpu.as_ref().is_some_and(|cpu| cpu.idle.is_some());
    (wanted || resources.unified.contains_key("cpu.idle")) && version(bus).is_some_and(|version| version >= 252)
}

/// Version of the manager, of which the text may have more: `252.38-1~deb12u1`.
fn version(bus: &mut Bus) -> Option<u32> {
    let text = manager_text(bus, "Version")?;
    let text = text.trim_start_matches(|c: char| !c.is_ascii_digit());
    files::parse_unsigned(text.split(|c: char| !c.is_ascii_digit()).next()?)
}

/// A property of the manager that is a text.
fn manager_text(bus: &mut Bus, name: &str) -> Option<String> {
    value(&property(bus, PATH, INTERFACE, name)?)?.text()
}

/// A property, as a variant.
fn property(bus: &mut Bus, path: &str, interface: &str, name: &str) -> Option<Vec<u8>> {
    let mut body = Writer::default();
    body.text(interface);
    body.text(name);
    bus.call(MANAGER, path, "org.freedesktop.DBus.Properties", "Get", "ss", body).ok()
}

/// A reader of what a variant has inside.
fn value(variant: &[u8]) -> Option<Reader<'_>> {
    let mut reader = Reader { bytes: variant, at: 0 };
    reader.signature()?;
    Some(reader)
}

fn ask_with_unit(bus: &mut Bus, member: &'static str, unit: &str) -> Result<Asked> {
    let mut body = Writer::default();
    body.text(unit);
    bus.ask(MANAGER, PATH, INTERFACE, member, "s", body)
}

/// The unit's directories, of which those of version 1 may not be there yet.
fn record(layout: &Layout, unit: &str, path: &str) -> Record {
    Record {
        driver: Driver::Systemd,
        v1: layout.v1.iter().map(|h| (h.name.clone(), format!("{MOUNT_POINT}/{}{path}", h.name))).collect(),
        v2: layout.v2.as_ref().map(|mount| format!("{mount}{path}")).filter(|p| files::exists_at(rustix::fs::CWD, p)),
        unit: Some(unit.to_owned()),
        hybrid: layout.hybrid(),
    }
}

/// Refuses a unit whose group exists already and is frozen, because the process would stop at once and never answer, or has processes of
/// another container.
fn refuse_taken(bus: &mut Bus, layout: &Layout, full: &str) -> Result<()> {
    let (slice, unit) = split(full);
    if unit.ends_with(".slice") {
        return Ok(());
    }
    let own = group_of_first_process().or_else(|| manager_text(bus, "ControlGroup")).unwrap_or_default();
    let planned = record(layout, full, &format!("{}{}/{unit}", own.trim_end_matches('/'), expanded(slice)));
    planned.refuse_frozen()?;
    Cgroup::open(&planned).must_be_empty()
}

/// The group of the system's manager, if this process would talk to that and it is the first process: it keeps itself in `init.scope`.
fn group_of_first_process() -> Option<String> {
    let text = crate::rights::rule_the_host().then(|| files::read_text("/proc/1/cgroup", 1 << 20).ok())??;
    own_group(&text)?.strip_suffix("/init.scope").map(str::to_owned)
}

/// The group that systemd keeps a process in, of the text of `/proc/PID/cgroup`: of version 2, or else the hierarchy without controllers.
fn own_group(text: &str) -> Option<&str> {
    let of = |wanted: &str| {
        text.lines().find_map(|line| {
            let (_, rest) = line.split_once(':')?;
            let (controllers, path) = rest.split_once(':')?;
            (controllers == wanted).then_some(path)
        })
    };
    of("").filter(|path| *path != "/").or_else(|| of("name=systemd"))
}

/// The path of a slice: `a-b.slice` is inside `a.slice`, and `-.slice` is the root.
fn expanded(slice: &str) -> String {
    let name = slice.strip_suffix(".slice").unwrap_or(slice);
    let ends = name.match_indices('-').map(|(at, _)| at).chain([name.len()]);
    ends.filter_map(|end| name.get(..end).filter(|part| !part.is_empty() && *part != "-"))
        .map(|part| format!("/{part}.slice"))
        .collect()
}

/// Opens the unit's directories where systemd put the process, and makes those of version 1 that it does not use.
fn adopt(layout: &Layout, unit: &str, pid: i32) -> Result<Cgroup> {
    let file = format!("/proc/{pid}/cgroup");
    let text = files::read_text(&file, 1 << 20).context(Code::CgroupRead, &file)?;
    let path = own_group(&text)
        .filter(|path| is_of_unit(path, split(unit).1))
        .ok_or_else(|| Error::new(Code::Systemd, unit).says(format!("{unit}: the process is not in it")))?;
    let record = record(layout, unit, path);
    for (name, path) in &record.v1 {
        super::make_v1(name, path)?;
        files::write_at(rustix::fs::CWD, &format!("{path}/cgroup.procs"), pid.to_string().as_bytes())
            .context(Code::CgroupJoin, path)?;
    }
    Ok(Cgroup::open(&record))
}

/// Whether a group is a unit's. A process that has ended is moved nowhere, which is no error to the kernel or to systemd: it is
/// where the runtime is, whose caller would get the container's limits and signals.
fn is_of_unit(path: &str, unit: &str) -> bool {
    // systemd escapes names that the kernel's own files could have.
    path.rsplit('/').next().is_some_and(|name| name.strip_prefix('_').unwrap_or(name) == unit)
}

/// Changes the limits of a unit, so that a later reload of systemd does not take them back.
pub(crate) fn update(unit: &str, resources: &Resources) -> Result<()> {
    let mut bus = Bus::connect(DEADLINE_MS)?;
    let properties =
        unit_properties::of_resources(resources, Layout::detect()?.unified(), knows_idle(&mut bus, resources))?;
    if properties.is_empty() {
        return Ok(());
    }
    let mut body = Writer::default();
    body.text(split(unit).1);
    body.u32(1);
    body.properties(&properties);
    bus.call(MANAGER, PATH, INTERFACE, "SetUnitProperties", "sba(sv)", body).map(drop)
}

/// Stops a unit; true if there was one.
pub(crate) fn stop(unit: &str) -> Result<bool> {
    let unit = split(unit).1;
    // Without systemd there is no unit; the directories are removed all the same.
    let left = |error: &Error| crate::log::warn(&format!("unit {unit} is left to systemd: {error}"));
    let mut bus = match Bus::connect(DEADLINE_MS) {
        Ok(bus) => bus,
        Err(error) => {
            left(&error);
            return Ok(false);
        }
    };
    let mut body = Writer::default();
    body.text(unit);
    body.text("replace");
    // Both fail for a unit that ended with its last process, which is the usual case. The second is answered last.
    let stopped = bus.ask(MANAGER, PATH, INTERFACE, "StopUnit", "ss", body)?;
    let reset = ask_with_unit(&mut bus, "ResetFailedUnit", unit)?;
    if let Err(error) = bus.answer(&reset)
        && !bus.greeted()
    {
        left(&error);
    }
    Ok(bus.answer(&stopped).is_ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn units_are_named_as_other_runtimes_do() {
        assert_eq!(names(Some("a.slice:libpod:x"), "x", true).unwrap(), ("a.slice".into(), "libpod-x.scope".into()));
        assert_eq!(names(Some(":p:n"), "x", true).unwrap(), ("system.slice".into(), "p-n.scope".into()));
        assert_eq!(names(None, "x", false).unwrap(), ("user.slice".into(), "hull-x.scope".into()));
        assert!(names(Some("/plain/path"), "x", true).is_err());
    }

    #[test]
    fn the_group_of_version_2_comes_first() {
        assert_eq!(own_group("0::/init.scope\n"), Some("/init.scope"));
        assert_eq!(own_group("5:cpu:/x\n1:name=systemd:/init.scope\n0::/\n"), Some("/init.scope"));
        assert_eq!(own_group("5:cpu:/x\n0::/\n"), None);
    }

    #[test]
    fn a_process_that_was_not_moved_is_in_no_cgroup_of_the_unit() {
        assert!(is_of_unit("/system.slice/p-n.scope", "p-n.scope"));
        assert!(is_of_unit("/system.slice/_cpu.scope", "cpu.scope"));
        for callers in ["/system.slice/containerd.service", "/", "/a.slice/n.scope (deleted)", "/n.scope/b"] {
            assert!(!is_of_unit(callers, "n.scope"), "{callers}");
        }
    }

    #[test]
    fn slices_are_inside_of_each_other() {
        assert_eq!(expanded("machine-a-b.slice"), "/machine.slice/machine-a.slice/machine-a-b.slice");
        assert_eq!(expanded("system.slice"), "/system.slice");
        assert_eq!(expanded("-.slice"), "");
    }
}
