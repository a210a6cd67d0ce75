//! `hull update`.

use super::super::Global;
use super::super::parse::Parsed;
use crate::cgroup::{Cgroup, Driver};
use crate::container::Status;
use crate::container::store::Entry;
use crate::error::{Code, Context, Error, Result};
use crate::files;
use crate::spec::resources::{BlockIo, Cpu, Memory, Pids};
use crate::spec::{IntelRdt, Resources};

pub(in super::super) fn run(global: &Global, parsed: &Parsed) -> Result<i32> {
    let entry = Entry::open(&global.root, parsed.arg(0))?;
    entry.lock()?;
    let state = entry.state()?;
    if matches!(state.status(&entry), Status::Stopped | Status::Creating) {
        return Err(Error::new(Code::WrongState, "cannot update a container that is not running"));
    }
    let resources = match parsed.owned("resources") {
        Some(path) => read(&path)?,
        None => from_flags(parsed)?,
    };
    let cgroup = Cgroup::open(&state.cgroup);
    if cgroup.driver == Driver::Disabled {
        return Err(Error::new(Code::Unsupported, "update: the container was created without cgroups"));
    }
    cgroup.change(&resources)?;
    let rdt = IntelRdt {
        l3_cache_schema: parsed.owned("l3-cache-schema"),
        mem_bw_schema: parsed.owned("mem-bw-schema"),
        ..IntelRdt::default()
    };
    if rdt != IntelRdt::default() {
        let clos = entry.config()?.linux.and_then(|l| l.intel_rdt).and_then(|r| r.clos_id);
        crate::container::intel_rdt::update(&IntelRdt { clos_id: clos, ..rdt }, &state.id, state.pid)?;
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
    serde_json::from_slice(&bytes).map_err(|e| Error::new(Code::ConfigInvalid, format!("{path}: {e}")))
}

fn from_flags(parsed: &Parsed) -> Result<Resources> {
    if parsed.get("kernel-memory").is_some() {
        return Err(Error::new(
            Code::Unsupported,
            "--kernel-memory: the kernel has no limit of its own memory any more",
        ));
    }
    let bytes = |name: &str| parsed.get(name).map(|text| parse_bytes(name, text)).transpose();
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

/// Bytes, with `k`, `m`, `g`, `t` (powers of 1024), or -1.
fn parse_bytes(flag: &str, text: &str) -> Result<i64> {
    let bad = || Error::new(Code::Usage, format!("invalid value for {flag}: {text:?}"));
    if text == "-1" {
        return Ok(-1);
    }
    let lower = text.to_ascii_lowercase();
    let number = lower.trim_end_matches("ib").trim_end_matches('b');
    let (digits, shift) = match number.chars().last() {
        Some('k') => (number.trim_end_matches('k'), 10),
        Some('m') => (number.trim_end_matches('m'), 20),
        Some('g') => (number.trim_end_matches('g'), 30),
        Some('t') => (number.trim_end_matches('t'), 40),
        _ => (number, 0),
    };
    let value: i64 = files::parse_unsigned(digits.trim()).ok_or_else(bad)?;
    value.checked_mul(1i64 << shift).ok_or_else(bad)
}

#[cfg(test)]
mod tests {
    use super::parse_bytes;

    #[test]
    fn sizes_take_units() {
        assert_eq!(parse_bytes("m", "64m").unwrap(), 64 << 20);
        assert_eq!(parse_bytes("m", "1GiB").unwrap(), 1 << 30);
        assert_eq!(parse_bytes("m", "-1").unwrap(), -1);
        assert!(parse_bytes("m", "x").is_err());
        assert!(parse_bytes("m", "9999999999t").is_err());
    }
}
