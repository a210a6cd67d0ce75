//! The systemd driver: one transient scope a container, made by one call with all its properties.

use std::collections::BTreeMap;

use super::dbus::{Bus, Reader, Value, Writer};
use super::layout::{Layout, MOUNT_POINT};
use super::{Cgroup, Driver, Record, unit_devices};
use crate::error::{Code, Context, Error, Result};
use crate::files;
use crate::process::limits::parse_list;
use crate::spec::Resources;

/// How long systemd may take.
const DEADLINE_MS: u32 = 25_000;

const MANAGER: &str = "org.freedesktop.systemd1";
const PATH: &str = "/org/freedesktop/systemd1";
const INTERFACE: &str = "org.freedesktop.systemd1.Manager";

/// Annotations with this prefix become properties of the unit.
const PROPERTY: &str = "org.systemd.property.";

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
                return Err(Error::new(
                    Code::ConfigInvalid,
                    format!("linux.cgroupsPath {text:?}: with systemd it is slice:prefix:name"),
                ));
            }
        }
    };
    let slice = if slice.is_empty() { default_slice } else { slice };
    if !slice.ends_with(".slice") || slice.contains('/') {
        return Err(Error::new(
            Code::ConfigInvalid,
            format!("linux.cgroupsPath: {slice:?} is not the name of a slice"),
        ));
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

/// Limits as properties; what systemd cannot express is written to the files afterwards.
fn resource_properties(resources: &Resources, unified: bool) -> Result<Vec<(String, Value)>> {
    let mut out: Vec<(String, Value)> = Vec::new();
    let mut put = |name: &str, value: u64| out.push((name.to_owned(), Value::U64(value)));
    let bytes = |n: i64| u64::try_from(n).unwrap_or(u64::MAX);
    if let Some(memory) = &resources.memory {
        if let Some(limit) = memory.limit.filter(|l| *l != 0) {
            put(if unified { "MemoryMax" } else { "MemoryLimit" }, bytes(limit));
        }
        if unified {
            if let Some(low) = memory.reservation.filter(|l| *l != 0) {
                put("MemoryLow", bytes(low));
            }
            if let Some(swap) = memory.swap.filter(|s| *s != 0) {
                let text = super::v2::swap_max(memory.limit, swap)?;
                put("MemorySwapMax", text.parse().unwrap_or(u64::MAX));
            }
        }
    }
    if let Some(cpu) = &resources.cpu {
        if let Some(shares) = cpu.shares.filter(|s| *s != 0) {
            if unified { put("CPUWeight", super::v2::weight_of_shares(shares)) } else { put("CPUShares", shares) }
        }
        if let Some(quota) = cpu.quota.filter(|q| *q != 0) {
            let period = cpu.period.filter(|p| *p != 0).unwrap_or(100_000);
            put("CPUQuotaPerSecUSec", per_second(u64::try_from(quota).ok(), period));
            if cpu.period.is_some_and(|p| p != 0) {
                put("CPUQuotaPeriodUSec", period);
            }
        }
    }
    if let Some(limit) = resources.pids.as_ref().and_then(|p| p.limit) {
        put("TasksMax", if limit < 0 { u64::MAX } else { bytes(limit.max(1)) });
    }
    if unified && let Some(weight) = resources.block_io.as_ref().and_then(|b| b.weight).filter(|w| *w != 0) {
        put("IOWeight", super::v2::io_weight(weight));
    }
    if unified && let Some(cpu) = &resources.cpu {
        for (name, list) in [("AllowedCPUs", &cpu.cpus), ("AllowedMemoryNodes", &cpu.mems)] {
            if let Some(list) = list.as_ref().filter(|l| !l.is_empty()) {
                out.push((name.to_owned(), Value::Bytes(bit_mask(list)?)));
            }
        }
    }
    if unified {
        for (file, text) in &resources.unified {
            out.extend(unified_properties(file, text.trim())?);
        }
    }
    Ok(out)
}

/// Microseconds of each second; without a quota all of them. systemd rounds up to 10 ms a second.
fn per_second(quota: Option<u64>, period: u64) -> u64 {
    let of = |quota: u64| quota.saturating_mul(1_000_000).checked_div(period);
    quota.and_then(of).map_or(u64::MAX, |n| n.div_ceil(10_000).saturating_mul(10_000))
}

/// Files of version 2 that a property stands for. systemd would otherwise put its own value there at a reload.
const UNIFIED: &[(&str, &str)] = &[
    ("cpu.weight", "CPUWeight"),
    ("memory.high", "MemoryHigh"),
    ("memory.low", "MemoryLow"),
    ("memory.max", "MemoryMax"),
    ("memory.min", "MemoryMin"),
    ("memory.swap.max", "MemorySwapMax"),
    ("pids.max", "TasksMax"),
];

/// The properties for a file, if there are any; a text that is no number is for the kernel to refuse.
fn unified_properties(file: &str, text: &str) -> Result<Vec<(String, Value)>> {
    let one = |name: &str, value: Value| Ok(vec![(name.to_owned(), value)]);
    match file {
        "cpuset.cpus" => return one("AllowedCPUs", Value::Bytes(bit_mask(text)?)),
        "cpuset.mems" => return one("AllowedMemoryNodes", Value::Bytes(bit_mask(text)?)),
        "cpu.max" => return Ok(cpu_max(text)),
        _ => {}
    }
    let Some((_, name)) = UNIFIED.iter().find(|(known, _)| *known == file) else { return Ok(Vec::new()) };
    let number = if text == "max" { Some(u64::MAX) } else { files::parse_unsigned(text) };
    number.map_or(Ok(Vec::new()), |n| one(name, Value::U64(n)))
}

/// `cpu.max` holds a quota or `max`, and perhaps a period.
fn cpu_max(text: &str) -> Vec<(String, Value)> {
    let mut words = text.split_whitespace();
    let quota = match words.next() {
        None => return Vec::new(),
        Some("max") => None,
        Some(number) => match files::parse_unsigned(number) {
            Some(quota) => Some(quota),
            None => return Vec::new(),
        },
    };
    let period = words.next().and_then(files::parse_unsigned).unwrap_or(100_000);
    let property = |name: &str, value: u64| (name.to_owned(), Value::U64(value));
    vec![property("CPUQuotaPerSecUSec", per_second(quota, period)), property("CPUQuotaPeriodUSec", period)]
}

fn bit_mask(list: &str) -> Result<Vec<u8>> {
    let numbers = parse_list(list)
        .ok_or_else(|| Error::new(Code::ConfigInvalid, format!("{list:?} is not a list of numbers")))?;
    let mut mask = vec![0u8; 8];
    for number in numbers {
        let index = usize::try_from(number / 8).unwrap_or(0);
        if mask.len() <= index {
            mask.resize(index.saturating_add(1), 0);
        }
        if let Some(byte) = mask.get_mut(index) {
            *byte |= 1 << (number % 8);
        }
    }
    Ok(mask)
}

/// Properties by annotation, in the text form of gvariant that other runtimes take.
fn annotated(annotations: &BTreeMap<String, String>) -> Result<Vec<(String, Value)>> {
    let mut out = Vec::new();
    for (key, text) in annotations {
        let Some(name) = key.strip_prefix(PROPERTY) else { continue };
        if name.len() < 3 || !name.chars().all(|c| c.is_ascii_alphanumeric()) {
            return Err(Error::new(Code::ConfigInvalid, format!("annotation {key}: not the name of a property")));
        }
        let value = parse_variant(text)
            .ok_or_else(|| Error::new(Code::ConfigInvalid, format!("annotation {key}: cannot read {text:?}")))?;
        // In seconds for people, in microseconds on the bus.
        match (name.strip_suffix("Sec"), &value) {
            (Some(stem), Value::I32(seconds)) if !stem.ends_with('U') => {
                let micros = u64::try_from(*seconds).unwrap_or(0).saturating_mul(1_000_000);
                out.push((format!("{stem}USec"), Value::U64(micros)));
            }
            _ => out.push((name.to_owned(), value)),
        }
    }
    Ok(out)
}

fn parse_variant(text: &str) -> Option<Value> {
    let text = text.trim();
    if let Some(inner) = text.strip_prefix('[').and_then(|t| t.strip_suffix(']')) {
        let texts = inner.split(',').map(|part| match parse_variant(part) {
            Some(Value::Text(text)) => Some(text),
            _ => None,
        });
        return texts.collect::<Option<Vec<_>>>().map(Value::Texts);
    }
    for quote in ['\'', '"'] {
        if let Some(inner) = text.strip_prefix(quote).and_then(|t| t.strip_suffix(quote)) {
            return (!inner.contains(quote)).then(|| Value::Text(inner.to_owned()));
        }
    }
    match text {
        "true" => return Some(Value::Bool(true)),
        "false" => return Some(Value::Bool(false)),
        _ => {}
    }
    match text.split_once(' ') {
        Some(("uint64", n)) => n.trim().parse().ok().map(Value::U64),
        Some(("int64", n)) => n.trim().parse().ok().map(Value::I64),
        Some(("uint32", n)) => n.trim().parse().ok().map(Value::U32),
        Some(("int32", n)) => n.trim().parse().ok().map(Value::I32),
        Some(_) => None,
        None => text.parse().ok().map(Value::I32),
    }
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
    properties.extend(resource_properties(resources, layout.unified())?);
    properties.extend(unit_devices::properties(resources)?);
    properties.extend(annotated(annotations)?);
    let mut bus = Bus::connect(DEADLINE_MS)?;
    // So that the end of the job is told.
    bus.call(MANAGER, PATH, INTERFACE, "Subscribe", "", Writer::default())?;
    let mut rule = Writer::default();
    rule.text("type='signal',interface='org.freedesktop.systemd1.Manager',member='JobRemoved'");
    bus.call("org.freedesktop.DBus", "/org/freedesktop/DBus", "org.freedesktop.DBus", "AddMatch", "s", rule)?;
    // A failed unit of that name from before would be in the way.
    let _ = call_with_unit(&mut bus, "ResetFailedUnit", unit);
    let mut body = Writer::default();
    body.text(unit);
    body.text("replace");
    body.properties(&properties);
    body.array(8, |_| {});
    let answer = bus.call(MANAGER, PATH, INTERFACE, "StartTransientUnit", "ssa(sv)a(sa(sv))", body)?;
    let job = Reader { bytes: &answer, at: 0 }.text().unwrap_or_default();
    let result = bus.job_result(&job)?;
    if result != "done" {
        return Err(Error::new(Code::Systemd, format!("unit {unit} was not started: {result}")));
    }
    let cgroup = adopt(&layout, full, pid)?;
    if let Some(directory) = &cgroup.v2
        && layout.unified()
        && beyond_systemd(resources)
    {
        super::enable_down_to(&directory.path)?;
    }
    Ok(cgroup)
}

/// Whether controllers are wanted that systemd does not know: it neither switches them on for a unit, nor off again.
fn beyond_systemd(resources: &Resources) -> bool {
    let unknown = |file: &String| ["hugetlb.", "misc.", "rdma."].iter().any(|prefix| file.starts_with(prefix));
    !resources.hugepage_limits.is_empty() || !resources.rdma.is_empty() || resources.unified.keys().any(unknown)
}

fn call_with_unit(bus: &mut Bus, member: &str, unit: &str) -> Result<Vec<u8>> {
    let mut body = Writer::default();
    body.text(unit);
    bus.call(MANAGER, PATH, INTERFACE, member, "s", body)
}

/// Opens the unit's directories where systemd put the process, and makes those of version 1 that it does not use.
fn adopt(layout: &Layout, unit: &str, pid: i32) -> Result<Cgroup> {
    let file = format!("/proc/{pid}/cgroup");
    let text = files::read_text(&file, 1 << 20).context(Code::CgroupRead, &file)?;
    let of = |wanted: &str| {
        text.lines().find_map(|line| {
            let (_, rest) = line.split_once(':')?;
            let (controllers, path) = rest.split_once(':')?;
            (controllers == wanted).then_some(path)
        })
    };
    let path = of("").filter(|p| *p != "/").or_else(|| of("name=systemd")).unwrap_or("/");
    if path == "/" {
        return Err(Error::new(Code::Systemd, format!("{unit}: the process is in no cgroup of its own")));
    }
    let record = Record {
        driver: Driver::Systemd,
        v1: layout.v1.iter().map(|h| (h.name.clone(), format!("{MOUNT_POINT}/{}{path}", h.name))).collect(),
        v2: layout.v2.as_ref().map(|mount| format!("{mount}{path}")).filter(|p| files::exists_at(rustix::fs::CWD, p)),
        unit: Some(unit.to_owned()),
        hybrid: layout.hybrid(),
    };
    for (name, path) in &record.v1 {
        super::make_v1(name, path)?;
        files::write_at(rustix::fs::CWD, &format!("{path}/cgroup.procs"), pid.to_string().as_bytes())
            .context(Code::CgroupJoin, path)?;
    }
    Ok(Cgroup::open(&record))
}

/// Changes the limits of a unit, so that a later reload of systemd does not take them back.
pub(crate) fn update(unit: &str, resources: &Resources) -> Result<()> {
    let properties = resource_properties(resources, Layout::detect()?.unified())?;
    if properties.is_empty() {
        return Ok(());
    }
    let mut bus = Bus::connect(DEADLINE_MS)?;
    let mut body = Writer::default();
    body.text(split(unit).1);
    body.u32(1);
    body.properties(&properties);
    bus.call(MANAGER, PATH, INTERFACE, "SetUnitProperties", "sba(sv)", body).map(drop)
}

/// Stops a unit; one that is gone already is fine.
pub(crate) fn stop(unit: &str) -> Result<()> {
    let unit = split(unit).1;
    let mut bus = match Bus::connect(DEADLINE_MS) {
        Ok(bus) => bus,
        // Without systemd there is no unit; the directories are removed all the same.
        Err(error) => {
            crate::log::warn(&format!("unit {unit} is left to systemd: {error}"));
            return Ok(());
        }
    };
    let mut body = Writer::default();
    body.text(unit);
    body.text("replace");
    // It fails for a unit that ended with its last process, which is the usual case.
    let _ = bus.call(MANAGER, PATH, INTERFACE, "StopUnit", "ss", body);
    let _ = call_with_unit(&mut bus, "ResetFailedUnit", unit);
    Ok(())
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
    fn annotations_become_properties() {
        let map = [
            ("org.systemd.property.TimeoutStopSec".to_owned(), "5".to_owned()),
            ("org.systemd.property.After".to_owned(), "['a.service','b.service']".to_owned()),
        ]
        .into();
        let out = annotated(&map).unwrap();
        assert!(out.contains(&("TimeoutStopUSec".to_owned(), Value::U64(5_000_000))));
        assert!(out.contains(&("After".to_owned(), Value::Texts(vec!["a.service".into(), "b.service".into()]))));
        assert_eq!(parse_variant("uint64 7"), Some(Value::U64(7)));
        assert_eq!(parse_variant("{}"), None);
    }

    #[test]
    fn unified_files_become_properties() {
        assert_eq!(unified_properties("memory.high", "max").unwrap(), [("MemoryHigh".into(), Value::U64(u64::MAX))]);
        assert_eq!(unified_properties("cpuset.cpus", "0").unwrap()[0].0, "AllowedCPUs");
        assert_eq!(unified_properties("io.max", "254:0 rbps=1").unwrap(), []);
        let quota = |text| unified_properties("cpu.max", text).unwrap().into_iter().map(|(_, v)| v).collect::<Vec<_>>();
        assert_eq!(quota("10000 50000"), [Value::U64(200_000), Value::U64(50_000)]);
        assert_eq!(quota("max"), [Value::U64(u64::MAX), Value::U64(100_000)]);
    }

    #[test]
    fn cpu_lists_become_bits() {
        assert_eq!(bit_mask("0,9").unwrap(), [1, 2, 0, 0, 0, 0, 0, 0]);
    }
}
