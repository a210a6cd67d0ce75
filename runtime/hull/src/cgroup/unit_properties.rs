//! Limits and annotations as properties of a unit. systemd enforces its properties whenever it applies its units anew, so whatever they can
//! express has to be given as properties.

use std::collections::BTreeMap;

use super::dbus::Value;
use super::unit_io;
use crate::error::{Error, Result};
use crate::files;
use crate::process::limits::parse_list;
use crate::spec::Resources;

/// Annotations with this prefix become properties of the unit.
const PROPERTY: &str = "org.systemd.property.";

/// Limits as properties; what systemd cannot express is written to the files afterwards. `knows_idle`: from version 252 on a weight of zero
/// means an idle group.
pub(super) fn of_resources(resources: &Resources, unified: bool, knows_idle: bool) -> Result<Vec<(String, Value)>> {
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
            if let Some(swap) = super::v2::swap_of(memory)? {
                put("MemorySwapMax", swap.parse().unwrap_or(u64::MAX));
            }
        }
    }
    if let Some(cpu) = &resources.cpu {
        let shares = cpu.shares.filter(|s| *s != 0);
        match (cpu.idle.filter(|_| unified && knows_idle), shares) {
            (Some(1), _) => put("CPUWeight", 0),
            (Some(0), None) => put("CPUWeight", u64::MAX),
            (_, Some(shares)) if unified => put("CPUWeight", super::v2::weight_of_shares(shares)),
            (_, Some(shares)) => put("CPUShares", shares),
            (_, None) => {}
        }
        let (quota, period) = (cpu.quota.filter(|q| *q != 0), cpu.period.filter(|p| *p != 0));
        if quota.is_some() || period.is_some() {
            let quota = quota.and_then(|q| u64::try_from(q).ok());
            put("CPUQuotaPerSecUSec", per_second(quota, period.unwrap_or(PERIOD)));
        }
        if let Some(period) = period {
            put("CPUQuotaPeriodUSec", period);
        }
    }
    if let Some(limit) = resources.pids.as_ref().and_then(|p| p.limit) {
        put("TasksMax", if limit < 0 { u64::MAX } else { bytes(limit.max(1)) });
    }
    if let Some(io) = &resources.block_io {
        out.extend(unit_io::of_block_io(io, unified));
    }
    if unified && let Some(cpu) = &resources.cpu {
        for (name, field, list) in [("AllowedCPUs", "cpus", &cpu.cpus), ("AllowedMemoryNodes", "mems", &cpu.mems)] {
            if let Some(list) = list.as_ref().filter(|l| !l.is_empty()) {
                let mask = bit_mask(&format!("linux.resources.cpu.{field}"), list)?;
                out.push((name.to_owned(), Value::Bytes(mask)));
            }
        }
    }
    if unified {
        for (file, text) in super::v2::unified(resources) {
            out.extend(unified_properties(file, text.trim(), knows_idle)?);
        }
    }
    Ok(out)
}

/// The limits as a unit can have them: with the quota as systemd rounds it. A quota that is too small for the kernel is kept, so that the
/// kernel refuses it.
pub(super) fn as_of_unit(resources: &Resources) -> Resources {
    let mut out = resources.clone();
    if let Some(cpu) = &mut out.cpu
        && let Some(quota) = cpu.quota.and_then(|q| u64::try_from(q).ok()).filter(|q| *q >= KERNEL_MINIMUM)
    {
        let period = cpu.period.filter(|p| *p != 0).unwrap_or(PERIOD);
        cpu.quota = i64::try_from(per_second(Some(quota), period).saturating_mul(period) / 1_000_000).ok();
    }
    out
}

/// The kernel's own period of a quota, in microseconds.
const PERIOD: u64 = 100_000;

/// The smallest quota that the kernel takes, in microseconds.
const KERNEL_MINIMUM: u64 = 1000;

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
fn unified_properties(file: &str, text: &str, knows_idle: bool) -> Result<Vec<(String, Value)>> {
    let one = |name: &str, value: Value| Ok(vec![(name.to_owned(), value)]);
    let property = || format!("linux.resources.unified[{file}]");
    match file {
        "cpuset.cpus" => return one("AllowedCPUs", Value::Bytes(bit_mask(&property(), text)?)),
        "cpuset.mems" => return one("AllowedMemoryNodes", Value::Bytes(bit_mask(&property(), text)?)),
        "cpu.max" => return Ok(cpu_max(text)),
        "io.max" => return Ok(unit_io::of_io_max(text)),
        "io.weight" => return Ok(unit_io::of_io_weight(text)),
        "cpu.idle" if knows_idle && text == "1" => return one("CPUWeight", Value::U64(0)),
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
    let period = words.next().and_then(files::parse_unsigned).unwrap_or(PERIOD);
    let property = |name: &str, value: u64| (name.to_owned(), Value::U64(value));
    vec![property("CPUQuotaPerSecUSec", per_second(quota, period)), property("CPUQuotaPeriodUSec", period)]
}

fn bit_mask(property: &str, list: &str) -> Result<Vec<u8>> {
    let numbers = parse_list(list)
        .ok_or_else(|| Error::invalid(property, format!("{property}: {list:?} is not a list of numbers")))?;
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
pub(super) fn annotated(annotations: &BTreeMap<String, String>) -> Result<Vec<(String, Value)>> {
    let mut out = Vec::new();
    for (key, text) in annotations {
        let Some(name) = key.strip_prefix(PROPERTY) else { continue };
        if name.len() < 3 || !name.chars().all(|c| c.is_ascii_alphanumeric()) {
            let text = format!("annotation {key}: not the name of a property");
            return Err(Error::invalid(format!("annotations[{key}]"), text));
        }
        let value = parse_variant(text).ok_or_else(|| {
            Error::invalid(format!("annotations[{key}]"), format!("annotation {key}: cannot read {text:?}"))
        })?;
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

#[cfg(test)]
mod tests {
    use super::*;

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
        assert_eq!(
            unified_properties("memory.high", "max", true).unwrap(),
            [("MemoryHigh".into(), Value::U64(u64::MAX))]
        );
        assert_eq!(unified_properties("cpuset.cpus", "0", true).unwrap()[0].0, "AllowedCPUs");
        assert_eq!(unified_properties("io.max", "254:0 rbps=1", true).unwrap()[0].0, "IOReadBandwidthMax");
        assert_eq!(unified_properties("io.weight", "default 7", true).unwrap()[0].0, "IOWeight");
        assert_eq!(unified_properties("io.latency", "254:0 target=1", true).unwrap(), []);
        let quota =
            |text| unified_properties("cpu.max", text, true).unwrap().into_iter().map(|(_, v)| v).collect::<Vec<_>>();
        assert_eq!(quota("10000 50000"), [Value::U64(200_000), Value::U64(50_000)]);
        assert_eq!(quota("max"), [Value::U64(u64::MAX), Value::U64(100_000)]);
    }

    #[test]
    fn quota_and_period_are_told_together() {
        let of = |quota, period| {
            let cpu = crate::spec::resources::Cpu { quota, period, ..Default::default() };
            let resources = Resources { cpu: Some(cpu), ..Resources::default() };
            let told = of_resources(&resources, true, false).unwrap().into_iter().map(|(_, v)| v);
            (told.collect::<Vec<_>>(), as_of_unit(&resources).cpu.unwrap().quota)
        };
        assert_eq!(of(Some(600_000), Some(900_000)), (vec![Value::U64(670_000), Value::U64(900_000)], Some(603_000)));
        assert_eq!(of(None, Some(50_000)), (vec![Value::U64(u64::MAX), Value::U64(50_000)], None));
        assert_eq!(of(Some(-1), None), (vec![Value::U64(u64::MAX)], Some(-1)));
        assert_eq!(of(Some(5_000), None), (vec![Value::U64(50_000)], Some(5_000)));
        assert_eq!(of(Some(5), None), (vec![Value::U64(10_000)], Some(5)));
    }

    #[test]
    fn an_idle_group_has_no_weight() {
        let of = |idle, shares, knows_idle| {
            let cpu = crate::spec::resources::Cpu { idle, shares, ..Default::default() };
            let resources = Resources { cpu: Some(cpu), ..Resources::default() };
            of_resources(&resources, true, knows_idle).unwrap()
        };
        let weight = |n| vec![("CPUWeight".to_owned(), Value::U64(n))];
        assert_eq!(of(Some(1), Some(1024), true), weight(0));
        assert_eq!(of(Some(0), None, true), weight(u64::MAX));
        assert_eq!(of(Some(0), Some(1024), true), weight(100));
        assert_eq!(of(Some(1), None, false), []);
    }

    #[test]
    fn cpu_lists_become_bits() {
        assert_eq!(bit_mask("cpuset.cpus", "0,9").unwrap(), [1, 2, 0, 0, 0, 0, 0, 0]);
    }
}
