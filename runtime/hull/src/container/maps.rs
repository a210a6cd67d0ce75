//! Writing the id maps of a new user namespace.

use std::fmt::Write as _;
use std::process::{Command, Stdio};

use rustix::io::Errno;

use crate::error::{Code, Error, Result};
use crate::procfs::Proc;
use crate::spec::{IdMapping, Linux};

fn lines(mappings: &[IdMapping]) -> String {
    let mut out = String::new();
    for m in mappings {
        let _ = writeln!(out, "{} {} {}", m.container_id, m.host_id, m.size);
    }
    out
}

/// Writes both maps for `pid`; true if the groups may be set inside.
pub(crate) fn write(pid: i32, linux: &Linux) -> Result<bool> {
    let mut set_groups = crate::rights::may_set_groups();
    let own_uid = rustix::process::geteuid().as_raw();
    let own_gid = rustix::process::getegid().as_raw();
    if own_uid != 0 && is_single(&linux.gid_mappings, own_gid) {
        // Without rights in the parent namespace, a map of the own group needs setgroups denied first.
        put(pid, "setgroups", "deny").map_err(|e| map_error(pid, "setgroups", "deny", e))?;
        set_groups = false;
    }
    write_one(pid, "gid_map", "newgidmap", &linux.gid_mappings, own_gid)?;
    write_one(pid, "uid_map", "newuidmap", &linux.uid_mappings, own_uid)?;
    Ok(set_groups)
}

fn is_single(mappings: &[IdMapping], own: u32) -> bool {
    matches!(mappings, [m] if m.size == 1 && m.host_id == own)
}

fn put(pid: i32, file: &str, text: &str) -> Result<(), Errno> {
    Proc::open()?.write(&format!("{pid}/{file}"), text.as_bytes())
}

fn map_error(pid: i32, file: &str, text: &str, errno: Errno) -> Error {
    let path = format!("/proc/{pid}/{file}");
    let error = Error::os(Code::IdMap, &path, errno).says(format!("{path}: {}", text.trim().replace('\n', ", ")));
    match errno {
        Errno::PERM => {
            error.hint("mapping ids of others needs CAP_SETUID and CAP_SETGID, mapping root also CAP_SETFCAP")
        }
        Errno::INVAL => error.hint("ranges may not overlap, and at most 340 lines are taken"),
        _ => error,
    }
}

fn write_one(pid: i32, file: &str, helper: &str, mappings: &[IdMapping], own: u32) -> Result<()> {
    let text = lines(mappings);
    match put(pid, file, &text) {
        Ok(()) => Ok(()),
        Err(Errno::PERM) if !is_single(mappings, own) => run_helper(pid, helper, mappings),
        Err(e) => Err(map_error(pid, file, &text, e)),
    }
}

/// The setuid helpers of the shadow package, by fixed paths: nothing is looked up in PATH.
fn run_helper(pid: i32, helper: &str, mappings: &[IdMapping]) -> Result<()> {
    let found = ["/usr/bin", "/bin", "/usr/local/bin"]
        .iter()
        .map(|dir| format!("{dir}/{helper}"))
        .find(|path| rustix::fs::access(path.as_str(), rustix::fs::Access::EXEC_OK).is_ok());
    let Some(path) = found else {
        return Err(Error::new(Code::IdMap, helper)
            .hint("it is not installed (package uidmap); without it only the own user can be mapped"));
    };
    let mut command = Command::new(&path);
    command.arg(pid.to_string()).env_clear().stdin(Stdio::null());
    for m in mappings {
        command.args([m.container_id.to_string(), m.host_id.to_string(), m.size.to_string()]);
    }
    let output = command.output().map_err(|e| Error::new(Code::IdMap, path.as_str()).says(format!("{path}: {e}")))?;
    if output.status.success() {
        return Ok(());
    }
    let text = String::from_utf8_lossy(&output.stderr);
    Err(Error::new(Code::IdMap, path.as_str())
        .says(format!("{path}: {}", text.trim()))
        .hint("see /etc/subuid and /etc/subgid"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_line_a_mapping() {
        let m = IdMapping { container_id: 0, host_id: 100_000, size: 65_536 };
        assert_eq!(lines(std::slice::from_ref(&m)), "0 100000 65536\n");
        assert!(!is_single(&[m], 1000));
        assert!(is_single(&[IdMapping { container_id: 0, host_id: 1000, size: 1 }], 1000));
    }
}
