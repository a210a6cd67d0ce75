//! `hull explain --path`, `--syscall`, `--cap`: what would come of one thing.

use std::fmt::Write as _;

use super::{action, conditions, in_force, linux};
use crate::cgroup::devices;
use crate::error::{Error, Result};
use crate::process::{caps, landlock};
use crate::rootfs::resolve::{clean, is_below};
use crate::rootfs::{self, options};
use crate::seccomp;
use crate::spec::{Mount, Spec};

/// What the kernel wants of whoever calls these, whatever a filter says (capabilities(7)); and for what, where it is not for all uses.
const WANTED: &[(&str, &[&str], &str)] = &[
    (
        "CAP_SYS_ADMIN",
        &[
            "mount",
            "umount2",
            "pivot_root",
            "move_mount",
            "open_tree",
            "fsopen",
            "fspick",
            "fsconfig",
            "fsmount",
            "mount_setattr",
            "swapon",
            "swapoff",
            "sethostname",
            "setdomainname",
            "quotactl",
            "quotactl_fd",
            "fanotify_init",
        ],
        "",
    ),
    ("CAP_SYS_ADMIN", &["unshare", "setns"], " but for user namespaces"),
    ("CAP_BPF", &["bpf"], " or CAP_SYS_ADMIN"),
    ("CAP_PERFMON", &["perf_event_open"], " or CAP_SYS_ADMIN, but for what perf_event_paranoid leaves open"),
    ("CAP_SYS_CHROOT", &["chroot"], ""),
    ("CAP_MKNOD", &["mknod", "mknodat"], " for devices"),
    ("CAP_SYS_MODULE", &["init_module", "finit_module", "delete_module"], ""),
    ("CAP_SYS_BOOT", &["reboot", "kexec_load", "kexec_file_load"], ""),
    ("CAP_SYS_TIME", &["settimeofday", "stime", "clock_settime", "clock_settime64"], ""),
    ("CAP_SYS_RAWIO", &["iopl", "ioperm"], ""),
    ("CAP_SYS_PACCT", &["acct"], ""),
    ("CAP_SYS_TTY_CONFIG", &["vhangup"], ""),
    ("CAP_SYSLOG", &["syslog"], " but for what dmesg_restrict leaves open"),
    ("CAP_SYS_PTRACE", &["ptrace", "process_vm_readv", "process_vm_writev", "kcmp"], " for processes with more rights"),
    ("CAP_DAC_READ_SEARCH", &["open_by_handle_at"], ""),
    ("CAP_CHOWN", &["chown", "fchown", "lchown", "fchownat"], " for other owners than oneself"),
    ("CAP_SETGID", &["setgroups"], ""),
];

pub(super) fn syscall(spec: &Spec, name: &str) -> Result<String> {
    if !seccomp::exists(name) {
        let text = format!("--syscall {name:?}: this machine has no system call of that name");
        return Err(Error::usage("--syscall", text));
    }
    let Some(profile) = linux(spec).seccomp else {
        return Ok(format!("{name}: allowed, there is no filter\n{}", wanted(spec, name)));
    };
    let decided = seccomp::decide(&profile, name).map_err(|e| crate::container::filters::failure(&profile, &e))?;
    let mut out = String::new();
    for rule in decided.unwrap_or_default() {
        let why = if rule.args.is_empty() && !out.is_empty() {
            " otherwise"
        } else if rule.args.is_empty() && !profile.syscalls.iter().any(|r| r.names.iter().any(|n| n == name)) {
            ", no rule names it"
        } else {
            ""
        };
        let _ = writeln!(out, "{name}: {}{}{why}", action(rule.action, rule.errno_ret), conditions(&rule.args));
    }
    out.push_str(&wanted(spec, name));
    Ok(out)
}

/// The capability that the kernel wants for this call, if the program does not have it.
fn wanted(spec: &Spec, name: &str) -> String {
    let process = spec.process.clone().unwrap_or_default();
    let missing = WANTED.iter().find(|(cap, calls, _)| {
        calls.contains(&name) && caps::bit(cap).is_some_and(|bit| in_force(&process) & bit == 0)
    });
    missing.map_or_else(String::new, |(cap, _, but)| {
        format!("  the kernel wants {cap}{but}, which is not in force: it fails with EPERM then\n")
    })
}

pub(super) fn capability(spec: &Spec, name: &str) -> Result<String> {
    let bit = caps::bit(name).ok_or_else(|| Error::usage("--cap", format!("--cap {name:?} is not a capability")))?;
    let process = spec.process.clone().unwrap_or_default();
    let bits = caps::resolve(process.capabilities.as_ref());
    let text = if bits.effective & bits.permitted & bit == 0 {
        if bits.bounding & bit == 0 {
            "dropped: not in the bounding set, nothing inside can get it"
        } else {
            "not in force, but programs with that file capability get it"
        }
    } else if process.user.uid != 0 && bits.ambient & bits.inheritable & bit == 0 {
        "lost at execve: the user is not 0 and it is not ambient"
    } else {
        "in force"
    };
    Ok(format!("{name}: {text}\n"))
}

pub(super) fn path(spec: &Spec, path: &str) -> Result<String> {
    let path = clean(path);
    let linux = linux(spec);
    let covers = |at: &str| is_below(&path, at);
    if let Some(at) = linux.masked_paths.iter().find(|at| covers(at)) {
        return Ok(format!("{path}: masked by linux.maskedPaths {at}: reads as empty, cannot be written\n"));
    }
    let mount = spec.mounts.iter().rev().find(|m| covers(&m.destination));
    // Of the root, only its own mount becomes read-only.
    let read_only = linux.readonly_paths.iter().find(|at| covers(at) && (mount.is_none() || clean(at) != "/"));
    let mut out = match mount {
        Some(mount) => on_mount(&path, mount),
        None if spec.root.as_ref().is_some_and(|r| r.readonly) => {
            format!("{path}: on the root file system, read-only: writing fails with EROFS\n")
        }
        None if read_only.is_some() => format!("{path}: on the root file system\n"),
        None => format!("{path}: on the root file system, writable\n"),
    };
    if let Some(at) = read_only {
        let _ = writeln!(out, "  linux.readonlyPaths {at}: writing fails with EROFS");
    }
    if covers_devices(&path) {
        out.push_str(&device(spec, &path)?);
    }
    if let Some(text) = spec.annotations.get(landlock::ANNOTATION) {
        out.push_str(&landlock::Rules::parse(text)?.explain(&path));
    }
    Ok(out)
}

fn on_mount(path: &str, mount: &Mount) -> String {
    let source = mount.source.as_deref().unwrap_or("no source");
    let mut out = format!("{path}: on the mount {} ({source})\n", mount.destination);
    let Ok(parsed) = options::parse(mount) else { return out };
    let attrs = parsed.set | parsed.recursive_set;
    let bits = [
        (hull_sys::mount::ATTR_RDONLY, "read-only: writing fails with EROFS"),
        (hull_sys::mount::ATTR_NOEXEC, "noexec: executing fails with EACCES"),
        (hull_sys::mount::ATTR_NODEV, "nodev: opening devices fails with EACCES"),
        (hull_sys::mount::ATTR_NOSUID, "nosuid: setuid bits are ignored"),
    ];
    for (_, text) in bits.iter().filter(|(bit, _)| attrs & bit != 0) {
        let _ = writeln!(out, "  {text}");
    }
    out
}

fn covers_devices(path: &str) -> bool {
    path.starts_with("/dev/") && !["/dev/shm", "/dev/mqueue", "/dev/pts"].iter().any(|own| path.starts_with(own))
}

/// Whether there is such a device, and what the device rules say of it.
fn device(spec: &Spec, path: &str) -> Result<String> {
    let linux = linux(spec);
    let given = linux.devices.iter().find(|device| device.path == path);
    let (what, kind, major, minor) = match given {
        Some(device) => {
            let number = |n: i64| u32::try_from(n).unwrap_or(0);
            let kind = if device.r#type == "b" { 'b' } else { 'c' };
            ("a device of the configuration", kind, number(device.major), number(device.minor))
        }
        None => match rootfs::devices::DEFAULTS.iter().find(|(at, _, _)| *at == path) {
            Some((_, major, minor)) => ("one of the devices every container has", 'c', *major, *minor),
            None => {
                return Ok("  no device that hull makes; DEVICES in the overview are the rules for one made inside\n"
                    .to_owned());
            }
        },
    };
    let configured = linux.resources.map(|r| r.devices).unwrap_or_default();
    let rules = devices::rules(&configured)?;
    let refused: Vec<&str> = [("r", "reading"), ("w", "writing")]
        .into_iter()
        .filter(|(access, _)| {
            // The last rule that is about it decides.
            !rules.iter().rev().find(|rule| rule.is_about(kind, major, minor, access)).is_some_and(|rule| rule.allow)
        })
        .map(|(_, what)| what)
        .collect();
    let said = if refused.is_empty() {
        "the device rules allow to read and write it".to_owned()
    } else {
        format!("the device rules refuse {} with EPERM", refused.join(" and "))
    };
    Ok(format!("  {what} ({kind} {major}:{minor}): {said}\n"))
}
