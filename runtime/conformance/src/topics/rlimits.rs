//! config.md "rlimits".

use anyhow::{Context as _, Result, ensure};
use serde_json::json;

use crate::context::Context;
use crate::suite::{Test, case, test};

pub(crate) const TESTS: &[Test] = &[
    case("as", "RLIMIT_AS", each, "AS|Max address space|100000000"),
    case("core", "RLIMIT_CORE", each, "CORE|Max core file size|0"),
    case("cpu", "RLIMIT_CPU", each, "CPU|Max cpu time|1000"),
    case("data", "RLIMIT_DATA", each, "DATA|Max data size|100000000"),
    case("fsize", "RLIMIT_FSIZE", each, "FSIZE|Max file size|100000000"),
    case("locks", "RLIMIT_LOCKS", each, "LOCKS|Max file locks|100"),
    case("memlock", "RLIMIT_MEMLOCK", each, "MEMLOCK|Max locked memory|65536"),
    case("msgqueue", "RLIMIT_MSGQUEUE", each, "MSGQUEUE|Max msgqueue size|4096"),
    case("nice", "RLIMIT_NICE", each, "NICE|Max nice priority|0"),
    case("nofile", "RLIMIT_NOFILE", each, "NOFILE|Max open files|128"),
    case("nproc", "RLIMIT_NPROC", each, "NPROC|Max processes|500"),
    case("rss", "RLIMIT_RSS", each, "RSS|Max resident set|100000000"),
    case("rtprio", "RLIMIT_RTPRIO", each, "RTPRIO|Max realtime priority|0"),
    case("rttime", "RLIMIT_RTTIME", each, "RTTIME|Max realtime timeout|100000"),
    case("sigpending", "RLIMIT_SIGPENDING", each, "SIGPENDING|Max pending signals|100"),
    case("stack", "RLIMIT_STACK", each, "STACK|Max stack size|8000000"),
    test("soft-and-hard", "soft and hard are set apart", soft_and_hard),
    test(
        "duplicate",
        "if rlimits contains duplicated entries with same type, the runtime MUST generate an error",
        duplicate,
    ),
    test(
        "unknown",
        "the runtime MUST generate an error for any values which cannot be mapped to a relevant kernel interface",
        unknown,
    ),
    test("soft-above-hard", "a soft limit above the hard one is an error", soft_above_hard),
];

fn each(context: &Context, row: &str) -> Result<()> {
    let mut fields = row.split('|');
    let (kind, label, value) = (fields.next().unwrap_or(""), fields.next().unwrap_or(""), fields.next().unwrap_or("0"));
    let mut bundle = context.bundle()?;
    let number: u64 = value.parse()?;
    bundle.set("/process/rlimits", json!([{"type": format!("RLIMIT_{kind}"), "soft": number, "hard": number}]));
    let said = bundle.run_script("cat /proc/self/limits")?;
    let line = said.lines().find(|line| line.starts_with(label)).context("no such line")?;
    let fields: Vec<&str> = line[label.len()..].split_whitespace().collect();
    ensure!(fields[0] == value && fields[1] == value, "{line}");
    Ok(())
}

fn soft_and_hard(context: &Context) -> Result<()> {
    let mut bundle = context.bundle()?;
    bundle.set("/process/rlimits", json!([{"type": "RLIMIT_NOFILE", "soft": 100, "hard": 200}]));
    let said = bundle.run_script("ulimit -Sn; ulimit -Hn")?;
    ensure!(said == "100\n200", "{said}");
    Ok(())
}

fn duplicate(context: &Context) -> Result<()> {
    let mut bundle = context.bundle()?;
    let limit = json!({"type": "RLIMIT_NOFILE", "soft": 100, "hard": 200});
    bundle.set("/process/rlimits", json!([limit, limit]));
    bundle.refused().map(drop)
}

fn unknown(context: &Context) -> Result<()> {
    let mut bundle = context.bundle()?;
    bundle.set("/process/rlimits", json!([{"type": "RLIMIT_PATIENCE", "soft": 1, "hard": 1}]));
    bundle.refused().map(drop)
}

fn soft_above_hard(context: &Context) -> Result<()> {
    let mut bundle = context.bundle()?;
    bundle.set("/process/rlimits", json!([{"type": "RLIMIT_NOFILE", "soft": 200, "hard": 100}]));
    bundle.refused().map(drop)
}
