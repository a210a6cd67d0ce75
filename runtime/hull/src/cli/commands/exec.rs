//! `hull exec`.

use super::super::Global;
use super::super::parse::Parsed;
use crate::cgroup::SubGroup;
use crate::container::exec::{self, ExecOptions, Target};
use crate::container::foreground::{self, Signals};
use crate::container::session;
use crate::error::{Code, Context, Error, Result};
use crate::files;
use crate::process::caps;
use crate::spec::{self, Capabilities, Process};
use crate::timeline;

pub(in super::super) fn run(global: &Global, parsed: &Parsed) -> Result<i32> {
    let detach = parsed.is("detach");
    let session = parsed.is("session");
    if !session && parsed.owned("process").is_none() && parsed.args.len() < 2 {
        return Err(Error::usage("exec", "process args cannot be empty"));
    }
    let target = Target::open(&global.root, parsed.arg(0))?;
    let preserve_fds = super::create::preserve_fds(parsed)?;
    let options = ExecOptions {
        process: if session { Process::default() } else { process(&target, parsed)? },
        console_socket: parsed.owned("console-socket"),
        tells: super::create::tells(parsed),
        preserve_fds,
        ignore_paused: parsed.is("ignore-paused"),
        cgroups: cgroups(parsed)?,
        foreground: !detach,
        wasm_config: global.wasm_config.clone(),
    };
    if session {
        return session::begin(target, &options).map(|()| 0);
    }
    let signals = if detach { None } else { Some(Signals::catch()?) };
    let executed = exec::exec(target, &options)?;
    timeline::mark("started");
    match signals {
        Some(signals) => foreground::attend(&executed.pidfd, &signals, executed.terminal.as_ref(), None),
        None => Ok(0),
    }
}

/// Each `controller[,controller…]:path`, or one path for all controllers.
fn cgroups(parsed: &Parsed) -> Result<Vec<SubGroup>> {
    let mut out: Vec<SubGroup> = Vec::new();
    for text in parsed.all("cgroup") {
        let (controllers, path) = text.split_once(':').unwrap_or(("", text));
        let controllers: Vec<String> = controllers.split(',').filter(|c| !c.is_empty()).map(str::to_owned).collect();
        let several = controllers.is_empty() || out.iter().any(|before| before.controllers.is_empty());
        if several && !out.is_empty() {
            let text = format!("--cgroup {text}: a path for all controllers stands alone");
            return Err(Error::usage("--cgroup", text));
        }
        let earlier: Vec<&String> = out.iter().flat_map(|before| &before.controllers).collect();
        if let Some(twice) = controllers.iter().find(|c| earlier.contains(c)) {
            return Err(Error::usage("--cgroup", format!("--cgroup: controller {twice} is given twice")));
        }
        out.push(SubGroup { controllers, path: path.to_owned() });
    }
    Ok(out)
}

/// The process from a file, or the container's own with what the flags change.
fn process(target: &Target, parsed: &Parsed) -> Result<Process> {
    if let Some(path) = parsed.owned("process") {
        let bytes = files::read_at(rustix::fs::CWD, &path, 16 << 20).context(Code::InputFile, &path)?;
        return spec::read(&bytes, &path, "process");
    }
    let mut process = target.spec.process.clone().unwrap_or_default();
    process.args = parsed.args.get(1..).unwrap_or(&[]).to_vec();
    // As runc: the process is the container's own except for what the flags change.
    if let Some(cwd) = parsed.owned("cwd") {
        process.cwd = cwd;
    }
    if let Some(profile) = parsed.owned("apparmor") {
        process.apparmor_profile = Some(profile);
    }
    if let Some(label) = parsed.owned("process-label") {
        process.selinux_label = Some(label);
    }
    let added: Vec<String> = parsed.all("cap").map(str::to_owned).collect();
    if !added.is_empty() {
        add_capabilities(process.capabilities.get_or_insert_default(), &added);
    }
    process.env.extend(parsed.all("env").map(str::to_owned));
    process.terminal = parsed.is("tty");
    if let Some(value) = parsed.get("no-new-privs") {
        process.no_new_privileges = value == "true";
    }
    if let Some(user) = parsed.owned("user") {
        let (uid, gid) = parse_user(&user)?;
        process.user.uid = uid;
        if let Some(gid) = gid {
            process.user.gid = gid;
        }
    }
    let groups: Vec<&str> = parsed.all("additional-gids").collect();
    for group in groups {
        let gid = files::parse_unsigned(group).ok_or_else(|| id_error("additional-gids", group))?;
        process.user.additional_gids.push(gid);
    }
    Ok(process)
}

/// Adds to the effective, permitted and bounding sets, never to the inheritable one (CVE-2022-29162). An unknown name is
/// logged later, with those of the configuration.
fn add_capabilities(capabilities: &mut Capabilities, added: &[String]) {
    for name in added {
        let sets = [&mut capabilities.bounding, &mut capabilities.effective, &mut capabilities.permitted];
        for set in sets {
            set.push(name.clone());
        }
        // Ambient is what the container lets pass over execve anyway; without it a user other than 0 would not get it.
        if capabilities.inheritable.iter().any(|held| caps::bit(held) == caps::bit(name)) {
            capabilities.ambient.push(name.clone());
        }
    }
}

fn id_error(flag: &str, text: &str) -> Error {
    Error::usage(format!("--{flag}"), format!("--{flag} {text:?} is not a number from 0 to 4294967295"))
}

/// Numbers only: the container's /etc/passwd decides nothing (CVE-2016-3697, CVE-2026-30892).
fn parse_user(text: &str) -> Result<(u32, Option<u32>)> {
    let (uid, gid) = match text.split_once(':') {
        Some((uid, gid)) => (uid, Some(gid)),
        None => (text, None),
    };
    let number =
        |n: &str| files::parse_unsigned::<u32>(n).filter(|n| *n != u32::MAX).ok_or_else(|| id_error("user", n));
    Ok((number(uid)?, gid.map(number).transpose()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn users_are_strict_numbers() {
        assert_eq!(parse_user("1").unwrap(), (1, None));
        assert_eq!(parse_user("1:2").unwrap(), (1, Some(2)));
        for bad in ["", " 1", "1x", "4294967295", "4294967296", "-1", "root", "1:", ":1"] {
            assert!(parse_user(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn added_capabilities_are_not_inheritable() {
        let mut c = Capabilities::default();
        add_capabilities(&mut c, &["CAP_NET_RAW".into()]);
        assert_eq!(c.permitted, ["CAP_NET_RAW"]);
        assert!(c.inheritable.is_empty() && c.ambient.is_empty());
        c.inheritable.push("CAP_KILL".into());
        add_capabilities(&mut c, &["CAP_KILL".into(), "CAP_CHOWN".into()]);
        assert_eq!((c.inheritable, c.ambient), (vec!["CAP_KILL".to_owned()], vec!["CAP_KILL".to_owned()]));
    }
}
