//! `hull update`.

use super::super::Global;
use super::super::parse::Parsed;
use crate::cgroup::{Cgroup, Driver};
use crate::container::Status;
use crate::container::store::Entry;
use crate::error::{Code, Context, Error, Result};
use crate::files;
use crate::spec::resources::{BlockIo, Cpu, Memory, Pids};
use crate::spec::{self, IntelRdt, Resources};

pub(in super::super) fn run(global: &Global, parsed: &Parsed) -> Result<i32> {
    let entry = Entry::open(&global.root, parsed.arg(0))?;
    entry.lock()?;
    let mut state = entry.state()?;
    if matches!(state.status(&entry), Status::Stopped | Status::Creating) {
        return Err(
            Error::new(Code::WrongState, entry.id.as_str()).says("cannot update a container that is not running")
        );
    }
    let resources = match parsed.owned("resources") {
        Some(path) => read(&path)?,
        None => from_flags(parsed)?,
    };
    let cgroup = Cgroup::open(&state.cgroup);
    if cgroup.driver == Driver::Disabled {
        return Err(
            Error::new(Code::Unsupported, entry.id.as_str()).says("update: the container was created without cgroups")
        );
    }
    cgroup.change(&resources)?;
    let rdt = IntelRdt {
        l3_cache_schema: parsed.owned("l3-cache-schema"),
        mem_bw_schema: parsed.owned("mem-bw-schema"),
        ..IntelRdt::default()
    };
    if rdt != IntelRdt::default() {
        let clos = entry.config()?.linux.and_then(|l| l.intel_rdt).and_then(|r| r.clos_id);
        let made = crate::container::intel_rdt::update(&IntelRdt { clos_id: clos, ..rdt }, &state.id, state.pid)?;
        if made.is_some() {
            state.intel_rdt = made;
            entry.save(&state)?;
        }
    }
    Ok(0)
}

fn read(path: &str) -> Result<Resources> {
    let bytes = if path == "-" {
        let stdin =
            rustix::io::fcntl_dupfd_cloexec(rustix::stdio::stdin(), 3).context(Code::InputFile, "standard input")?;
        files::read_all(&stdin, 16 << 20).context(Code::InputFile, "standard input")?
    } else {
        files::read_at(rustix::fs::CWD, path, 16 << 20).context(Code::InputFile, path)?
    };
    spec::read(&bytes, path, "linux.resources")
}

fn from_flags(parsed: &Parsed) -> Result<Resources> {
    let bytes = |name: &str| parsed.owned(name).map(|text| parse_bytes(name, &text)).transpose();
    if bytes("kernel-memory")?.is_some() {
        crate::log::warn("--kernel-memory is ignored: the kernel has no limit of its own memory any more");
    }
    let memory = Memory {
        limit: bytes("memory")?,
        reservation: bytes("memory-reservation")?,
        swap: bytes("memory-swap")?,
        kernel_tcp: bytes("kernel-memory-tcp")?,
        ..Memory::default()
    };
    let cpu = Cpu {
        period: parsed.number("cpu-period")?,
        quota: parsed.number("cpu-quota")?,
        burst: parsed.number("cpu-burst")?,
        shares: parsed.number("cpu-share")?,
        realtime_period: parsed.number("cpu-rt-period")?,
        realtime_runtime: parsed.number("cpu-rt-runtime")?,
        cpus: parsed.owned("cpuset-cpus"),
        mems: parsed.owned("cpuset-mems"),
        idle: parsed.number("cpu-idle")?,
    };
    let weight = parsed.number("blkio-weight")?;
    let pids: Option<i64> = parsed.number("pids-limit")?;
    Ok(Resources {
        memory: (memory != Memory::default()).then_some(memory),
        cpu: (cpu != Cpu::default()).then_some(cpu),
        block_io: weight.map(|w| BlockIo { weight: Some(w), ..BlockIo::default() }),
        pids: pids.map(|limit| Pids { limit: Some(limit) }),
        ..Resources::default()
    })
}

/// Bytes as Docker's programs write them, `64m`, `1.5G`, `10 kB`, `1GiB` (always powers of 1024), or -1.
fn parse_bytes(flag: &str, text: &str) -> Result<i64> {
    const UNITS: &str = "kmgtp";
    let bad = || Error::usage(format!("--{flag}"), format!("invalid value for {flag}: {text:?}"));
    if text == "-1" {
        return Ok(-1);
    }
    let end = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, unit) = text.split_at_checked(end).ok_or_else(bad)?;
    let unit = unit.strip_prefix(' ').unwrap_or(unit).to_ascii_lowercase();
    let power = match unit.chars().next() {
        None => 0,
        Some('b') if unit.len() == 1 => 0,
        Some(letter) if matches!(unit.get(1..), Some("" | "b" | "ib")) => {
            UNITS.find(letter).and_then(|i| i.checked_add(1)).ok_or_else(bad)?
        }
        Some(_) => return Err(bad()),
    };
    let factor = (0..power).fold(1i64, |all, _| all.saturating_mul(1024));
    files::parse_decimal(number, factor).ok_or_else(bad)
}

#[cfg(test)]
mod tests {
    use super::parse_bytes;

    #[test]
    fn sizes_take_units() {
        assert_eq!(parse_bytes("m", "64m").unwrap(), 64 << 20);
        assert_eq!(parse_bytes("m", "1GiB").unwrap(), 1 << 30);
        assert_eq!(parse_bytes("m", "1.5G").unwrap(), 3 << 29);
        assert_eq!(parse_bytes("m", ".5 kB").unwrap(), 512);
        assert_eq!(parse_bytes("m", "7b").unwrap(), 7);
        assert_eq!(parse_bytes("m", "-1").unwrap(), -1);
        for bad in ["", "1.5.5G", "g", ".", "1x", "1bb", "-2", "1 000"] {
            assert!(parse_bytes("m", bad).is_err(), "{bad}");
        }
        assert!(parse_bytes("m", "x").is_err());
        assert!(parse_bytes("m", "9999999999t").is_err());
    }
}
