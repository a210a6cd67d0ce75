//! config.md "rlimits".

use std::fs;

use anyhow::{Context as _, Result, ensure};
use rustix::process::{Resource, getrlimit};
use serde_json::json;

use super::namespaces::Holder;
use crate::bundle::Bundle;
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
        "own-hard-limit-in-user-namespace",
        "the caller's own hard limit can be set without rights, also in a user namespace of another user",
        own_hard_limit,
    ),
    test(
        "exec-own-hard-limit-in-user-namespace",
        "the caller's own hard limit can be set without rights, also in a user namespace of another user",
        exec_own_hard_limit,
    ),
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

/// A bundle that joins a user namespace which root did not make.
fn foreign<'a>(context: &'a Context, holder: &Holder) -> Result<(Bundle<'a>, u64)> {
    let mut bundle = context.bundle()?;
    bundle.chown_rootfs(100_000)?;
    bundle.namespace("user", Some(&holder.path("user")));
    let own = getrlimit(Resource::Nofile).maximum.unwrap_or(u64::MAX);
    bundle.set("/process/rlimits", json!([{"type": "RLIMIT_NOFILE", "soft": own, "hard": own}]));
    Ok((bundle, own))
}

fn own_hard_limit(context: &Context) -> Result<()> {
    let holder = Holder::user_namespace_of(100_000)?;
    let (mut bundle, own) = foreign(context, &holder)?;
    let said = bundle.run_script("ulimit -Sn; ulimit -Hn")?;
    ensure!(said == format!("{own}\n{own}"), "{said}");
    Ok(())
}

fn exec_own_hard_limit(context: &Context) -> Result<()> {
    let holder = Holder::user_namespace_of(100_000)?;
    let (mut bundle, own) = foreign(context, &holder)?;
    bundle.started()?;
    let process = json!({
        "user": {"uid": 0, "gid": 0}, "cwd": "/", "env": ["PATH=/bin"], "args": ["sh", "-c", "ulimit -Sn"],
        "rlimits": [{"type": "RLIMIT_NOFILE", "soft": own, "hard": own}],
    });
    fs::write(bundle.path.join("process.json"), process.to_string())?;
    let said = bundle.runtime(&["exec", "--process", "process.json", &bundle.id])?.ok()?;
    ensure!(said.text() == own.to_string(), "{}", said.text());
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
