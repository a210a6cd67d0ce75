//! The system call filter of every workspace: an allow-list. What it leaves out reaches into other namespaces, the kernel or the machine.
//!
//! A call that is not listed fails with ENOSYS, so that programs fall back as they would on an older kernel; calls for which that would be
//! misleading fail with EPERM. `clone` is allowed only without namespaces; `clone3`, whose flags a filter cannot see, fails with ENOSYS.

use hull::spec::seccomp::{Action, Arch, Arg, Op, Rule, Seccomp};

/// Names of system calls without conditions.
const ALLOWED: &str = include_str!("syscalls.txt");

/// Calls that exist but need rights that a workspace does not have: EPERM, not ENOSYS.
const REFUSED: &str = "acct add_key bpf clock_settime clock_settime64 delete_module fanotify_init finit_module fsconfig fsmount fsopen fspick \
    init_module io_uring_enter io_uring_register io_uring_setup ioperm iopl kexec_file_load kexec_load keyctl lookup_dcookie mount \
    mount_setattr move_mount move_pages migrate_pages name_to_handle_at nfsservctl open_by_handle_at open_tree perf_event_open pivot_root \
    quotactl quotactl_fd reboot request_key setdomainname sethostname setns settimeofday stime swapoff swapon syslog umount umount2 unshare \
    userfaultfd vhangup";

/// All `CLONE_NEW*` flags.
const NAMESPACE_FLAGS: u64 = 0x7E02_0080;

const EPERM: u32 = 1;
const ENOSYS: u32 = 38;
const EINVAL: u32 = 22;
const AF_NETLINK: u64 = 16;
const NETLINK_AUDIT: u64 = 9;

fn rule(names: &[&str], action: Action, errno_ret: Option<u32>, args: Vec<Arg>) -> Rule {
    Rule { names: names.iter().map(|name| (*name).to_owned()).collect(), action, errno_ret, args }
}

fn arg(index: u32, op: Op, value: u64, value_two: u64) -> Arg {
    Arg { index, value, value_two, op }
}

/// The filter.
#[must_use]
pub fn profile() -> Seccomp {
    let allowed: Vec<&str> =
        ALLOWED.split_ascii_whitespace().filter(|name| *name != "socket" && *name != "name_to_handle_at").collect();
    let refused: Vec<&str> = REFUSED.split_ascii_whitespace().filter(|name| !allowed.contains(name)).collect();
    let mut syscalls = vec![
        rule(&allowed, Action::Allow, None, Vec::new()),
        rule(&refused, Action::Errno, Some(EPERM), Vec::new()),
        rule(&["clone"], Action::Allow, None, vec![arg(0, Op::MaskedEq, NAMESPACE_FLAGS, 0)]),
        rule(&["clone3"], Action::Errno, Some(ENOSYS), Vec::new()),
        // The kernel's audit socket answers EPERM to a workspace, which makes sudo and login fail; without it they go on.
        rule(
            &["socket"],
            Action::Errno,
            Some(EINVAL),
            vec![arg(0, Op::Eq, AF_NETLINK, 0), arg(2, Op::Eq, NETLINK_AUDIT, 0)],
        ),
        rule(&["socket"], Action::Allow, None, vec![arg(2, Op::Ne, NETLINK_AUDIT, 0)]),
        rule(&["socket"], Action::Allow, None, vec![arg(0, Op::Ne, AF_NETLINK, 0)]),
    ];
    for persona in [0, 8, 0x2_0000, 0x2_0008, 0x4_0000, 0xffff_ffff] {
        syscalls.push(rule(&["personality"], Action::Allow, None, vec![arg(0, Op::Eq, persona, 0)]));
    }
    let architectures = match std::env::consts::ARCH {
        "x86_64" => vec![Arch::X86_64, Arch::X86],
        "aarch64" => vec![Arch::Aarch64, Arch::Arm],
        _ => Vec::new(),
    };
    Seccomp {
        default_action: Action::Errno,
        default_errno_ret: Some(ENOSYS),
        architectures,
        syscalls,
        ..Seccomp::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_filter_compiles_and_keeps_the_dangerous_out() {
        let profile = profile();
        hull::seccomp::compile(&profile).unwrap();
        for name in [
            "mount",
            "unshare",
            "setns",
            "bpf",
            "keyctl",
            "init_module",
            "kexec_load",
            "io_uring_setup",
            "clone",
            "reboot",
            "personality",
        ] {
            assert!(!profile.syscalls[0].names.iter().any(|allowed| allowed == name), "{name}");
        }
        for name in ["execve", "fork", "openat2", "setuid", "chroot", "inotify_add_watch", "ptrace"] {
            assert!(profile.syscalls[0].names.iter().any(|allowed| allowed == name), "{name}");
        }
    }
}
