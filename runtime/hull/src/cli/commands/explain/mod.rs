//! `hull explain`: what a container may and may not do, and why.

mod ask;

use std::fmt::Write as _;

use rustix::io::Errno;

use crate::cgroup::devices;
use crate::cli::parse::Parsed;
use crate::cli::{Global, print};
use crate::container::bundle::Bundle;
use crate::container::store::Entry;
use crate::error::{Code, Result};
use crate::process::launch::KEEP_GROUPS;
use crate::process::wasm::{self, config::Config};
use crate::process::{caps, landlock};
use crate::spec::seccomp::{Action, Arg, Op};
use crate::spec::{IdMapping, Linux, NamespaceType, Process, Spec};

pub(in crate::cli) fn run(global: &Global, parsed: &Parsed) -> Result<i32> {
    let spec = find(global, parsed.arg(0))?;
    let mut questions = String::new();
    if let Some(path) = parsed.owned("path") {
        questions.push_str(&ask::path(&spec, &path)?);
    }
    if let Some(name) = parsed.owned("syscall") {
        questions.push_str(&ask::syscall(&spec, &name)?);
    }
    if let Some(name) = parsed.owned("cap") {
        questions.push_str(&ask::capability(&spec, &name)?);
    }
    if questions.is_empty() {
        questions = overview(&spec, &Config::load(global.wasm_config.as_deref())?);
    }
    print(&questions)
}

/// A container's configuration, or a bundle's.
fn find(global: &Global, name: &str) -> Result<Spec> {
    if name.contains('/') || name == "." {
        return Ok(Bundle::load(name)?.spec);
    }
    match Entry::open(&global.root, name) {
        Ok(entry) => entry.config(),
        Err(error) if error.code() == Code::NotFound => match Bundle::load(name) {
            Ok(bundle) => Ok(bundle.spec),
            Err(_) => Err(error),
        },
        Err(error) => Err(error),
    }
}

fn linux(spec: &Spec) -> Linux {
    spec.linux.clone().unwrap_or_default()
}

fn overview(spec: &Spec, wasm: &Config) -> String {
    let linux = linux(spec);
    let process = spec.process.clone().unwrap_or_default();
    let mut out = String::new();
    program(&mut out, spec, &process, wasm);
    identity(&mut out, spec, &linux, &process);
    namespaces(&mut out, &linux);
    capabilities(&mut out, &process);
    files(&mut out, spec, &linux);
    device_rules(&mut out, &linux);
    filter(&mut out, &linux);
    let _ = writeln!(out, "\nAsk further: --path PATH, --syscall NAME, --cap CAPABILITY");
    out
}

fn program(out: &mut String, spec: &Spec, process: &Process, wasm: &Config) {
    let _ = writeln!(out, "PROGRAM\n  {}", process.args.join(" "));
    for line in wasm::explain(spec, process, wasm) {
        let _ = writeln!(out, "  {line}");
    }
}

fn identity(out: &mut String, spec: &Spec, linux: &Linux, process: &Process) {
    let user = &process.user;
    let groups = if spec.annotations.contains_key(KEEP_GROUPS) {
        format!("of the runtime's caller ({KEEP_GROUPS})")
    } else {
        format!("{:?}", user.additional_gids)
    };
    let _ = writeln!(out, "\nIDENTITY\n  runs as user {}, group {}, groups {groups}", user.uid, user.gid);
    let joined = linux.namespaces.iter().find(|n| n.r#type == NamespaceType::User).and_then(|n| n.path.clone());
    match (linux.uid_mappings.is_empty(), joined) {
        (_, Some(path)) if !path.is_empty() => {
            let _ = writeln!(out, "  ids are mapped by the user namespace {path}");
        }
        (true, _) => {
            let _ = writeln!(out, "  ids are the host's: user 0 inside is root outside, held only by what follows");
        }
        (false, _) => {
            for (what, maps) in [("user", &linux.uid_mappings), ("group", &linux.gid_mappings)] {
                for m in maps {
                    let _ = writeln!(
                        out,
                        "  {what}s {} are {} outside",
                        range(m.container_id, m.size),
                        range(m.host_id, m.size)
                    );
                }
            }
            let _ = writeln!(out, "  user {} is {} outside", user.uid, outside(&linux.uid_mappings, user.uid));
        }
    }
    let privileges = if process.no_new_privileges {
        "cannot gain rights by setuid programs"
    } else {
        "can gain rights by setuid programs"
    };
    let _ = writeln!(out, "  {privileges} (noNewPrivileges)");
}

fn range(first: u32, size: u32) -> String {
    if size == 1 { first.to_string() } else { format!("{first}-{}", first.saturating_add(size.saturating_sub(1))) }
}

fn outside(mappings: &[IdMapping], id: u32) -> String {
    mappings.iter().find(|m| (m.container_id..m.container_id.saturating_add(m.size)).contains(&id)).map_or_else(
        || "nobody (not mapped)".to_owned(),
        |m| m.host_id.saturating_add(id.saturating_sub(m.container_id)).to_string(),
    )
}

fn namespaces(out: &mut String, linux: &Linux) {
    const ALL: &[(NamespaceType, &str)] = &[
        (NamespaceType::Pid, "sees and signals the host's processes"),
        (NamespaceType::Network, "uses the host's network, its loopback services too"),
        (NamespaceType::Mount, "shares the host's mounts"),
        (NamespaceType::Ipc, "shares the host's System V IPC and message queues"),
        (NamespaceType::Uts, "has the host's name"),
        (NamespaceType::User, "has the host's users"),
        (NamespaceType::Cgroup, "sees the host's cgroup paths"),
        (NamespaceType::Time, "has the host's clocks"),
    ];
    let _ = writeln!(out, "\nNAMESPACES");
    for (kind, without) in ALL {
        let text = match linux.namespaces.iter().find(|n| n.r#type == *kind) {
            Some(n) => match n.path.as_deref().filter(|p| !p.is_empty()) {
                Some(path) => format!("joins {path}"),
                None => "own".to_owned(),
            },
            None => format!("none: {without}"),
        };
        let _ = writeln!(out, "  {:8} {text}", format!("{kind:?}").to_lowercase());
    }
}

/// The capabilities that the program has once it runs: a user other than 0 keeps over execve those that are ambient.
fn in_force(process: &Process) -> u64 {
    let bits = caps::resolve(process.capabilities.as_ref());
    if process.user.uid == 0 {
        bits.effective & bits.permitted
    } else {
        bits.ambient & bits.permitted & bits.inheritable
    }
}

fn capabilities(out: &mut String, process: &Process) {
    let _ = writeln!(out, "\nCAPABILITIES");
    let bits = caps::resolve(process.capabilities.as_ref());
    let list = |bits: u64| {
        let names: Vec<&str> = caps::names(bits).map(|n| n.strip_prefix("CAP_").unwrap_or(n)).collect();
        if names.is_empty() { "none".to_owned() } else { names.join(" ") }
    };
    let effective = in_force(process);
    let _ = writeln!(out, "  in force     {}\n  can be had   {} (bounding)", list(effective), list(bits.bounding));
    let _ = writeln!(out, "  dropped      {}", list(caps::known_by_kernel() & !bits.bounding));
    if process.user.uid != 0 && effective == 0 && bits.permitted != 0 {
        let _ =
            writeln!(out, "  a user other than 0 keeps none over execve but those that are ambient and inheritable");
    }
}

fn files(out: &mut String, spec: &Spec, linux: &Linux) {
    let _ = writeln!(out, "\nFILES");
    let root = if spec.root.as_ref().is_some_and(|r| r.readonly) { "read-only" } else { "writable" };
    let _ = writeln!(out, "  /  {root}");
    for mount in &spec.mounts {
        let kind = mount.r#type.as_deref().unwrap_or("bind");
        let from = if mount.options.iter().any(|o| o == "bind" || o == "rbind") {
            format!("{} of the host", mount.source.as_deref().unwrap_or("?"))
        } else {
            kind.to_owned()
        };
        let _ = writeln!(out, "  {}  {from} ({})", mount.destination, mount.options.join(","));
    }
    for path in &linux.masked_paths {
        let _ = writeln!(out, "  {path}  masked: reads as empty");
    }
    for path in &linux.readonly_paths {
        let _ = writeln!(out, "  {path}  read-only");
    }
    if let Some(text) = spec.annotations.get(landlock::ANNOTATION) {
        let _ = writeln!(out, "  landlock  {text}");
    }
}

fn device_rules(out: &mut String, linux: &Linux) {
    let _ = writeln!(out, "\nDEVICES");
    let configured = linux.resources.as_ref().map(|r| r.devices.clone()).unwrap_or_default();
    let Ok(rules) = devices::rules(&configured) else { return };
    let number = |n: Option<u32>| n.map_or_else(|| "*".to_owned(), |n| n.to_string());
    for rule in rules {
        let _ = writeln!(
            out,
            "  {}  {} {}:{} {}",
            if rule.allow { "allow" } else { "deny " },
            rule.kind,
            number(rule.major),
            number(rule.minor),
            rule.access
        );
    }
}

fn filter(out: &mut String, linux: &Linux) {
    let _ = writeln!(out, "\nSYSTEM CALLS");
    let Some(seccomp) = &linux.seccomp else {
        let _ = writeln!(out, "  no filter: all are allowed");
        return;
    };
    let _ = writeln!(out, "  by default: {}", action(seccomp.default_action, seccomp.default_errno_ret));
    for rule in &seccomp.syscalls {
        let condition = conditions(&rule.args);
        let shown: Vec<&str> = rule.names.iter().take(6).map(String::as_str).collect();
        let more = rule.names.len().saturating_sub(shown.len());
        let more = if more > 0 { format!(" and {more} more") } else { String::new() };
        let _ = writeln!(out, "  {}: {}{more}{condition}", action(rule.action, rule.errno_ret), shown.join(" "));
    }
}

fn action(action: Action, errno: Option<u32>) -> String {
    match action {
        Action::Kill | Action::KillThread => "kill the thread".to_owned(),
        Action::KillProcess => "kill the process".to_owned(),
        Action::Trap => "send SIGSYS".to_owned(),
        Action::Errno => match Errno::from_raw_os_error(i32::try_from(errno.unwrap_or(1)).unwrap_or(1)) {
            Errno::PERM => "fail with EPERM".to_owned(),
            Errno::NOSYS => "fail with ENOSYS".to_owned(),
            other => format!("fail with error {}", other.raw_os_error()),
        },
        Action::Trace => "ask the tracer".to_owned(),
        Action::Allow => "allow".to_owned(),
        Action::Log => "allow and log".to_owned(),
        Action::Notify => "ask the listener".to_owned(),
    }
}

fn conditions(args: &[Arg]) -> String {
    let parts: Vec<String> = args
        .iter()
        .map(|a| {
            let n = a.index;
            match a.op {
                Op::Ne => format!("argument {n} is not {:#x}", a.value),
                Op::Lt => format!("argument {n} < {:#x}", a.value),
                Op::Le => format!("argument {n} <= {:#x}", a.value),
                Op::Eq => format!("argument {n} is {:#x}", a.value),
                Op::Ge => format!("argument {n} >= {:#x}", a.value),
                Op::Gt => format!("argument {n} > {:#x}", a.value),
                Op::MaskedEq => format!("argument {n} & {:#x} is {:#x}", a.value, a.value_two),
            }
        })
        .collect();
    if parts.is_empty() { String::new() } else { format!(" when {}", parts.join(" and ")) }
}
