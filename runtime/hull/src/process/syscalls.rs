//! The system calls of the last steps of a container's process, behind a trait, so that their order can be tested without privileges.

use std::ffi::CStr;
use std::os::fd::{BorrowedFd, RawFd};

use hull_sys::process::StringVector;
use hull_sys::{fd as sysfd, prctl, process, signal};
use rustix::fs::{CWD, Gid, Mode, OFlags, Uid};
use rustix::io::Errno;

use super::caps::{self, CapabilityBits};
use super::labels::Labels;
use super::{landlock, limits, notify};
use crate::error::{Code, Context, Result};
use crate::seccomp::Program;
use crate::spec::Rlimit;

/// Calls that change the caller's identity and rights.
pub(crate) trait Syscalls {
    fn set_limits(&mut self, limits: &[Rlimit]) -> Result<()>;
    fn install_filter(&mut self, filter: &Program, listener: Option<notify::Listener>) -> Result<()>;
    fn limit_bounding(&mut self, bits: &CapabilityBits) -> Result<()>;
    fn keep_capabilities(&mut self) -> Result<()>;
    fn enter_directory(&mut self, path: &str) -> Result<(), Errno>;
    /// The working directory's path as the kernel sees it.
    fn directory(&mut self) -> Result<Vec<u8>, Errno>;
    fn set_groups(&mut self, gids: &[u32]) -> Result<(), Errno>;
    fn set_gid(&mut self, gid: u32) -> Result<(), Errno>;
    fn set_uid(&mut self, uid: u32) -> Result<(), Errno>;
    fn set_capabilities(&mut self, bits: &CapabilityBits) -> Result<()>;
    fn label_exec(&mut self, labels: &Labels) -> Result<()>;
    fn set_no_new_privs(&mut self) -> Result<()>;
    /// Allows executing a program of the runtime's even so.
    fn restrict_paths(&mut self, rules: &landlock::Rules, program: Option<BorrowedFd<'_>>) -> Result<()>;
    /// Default actions for all signals, none blocked.
    fn reset_signals(&mut self) -> Result<()>;
    fn close_on_exec_from(&mut self, first: u32) -> Result<()>;
    fn keep_over_exec(&mut self, fd: RawFd) -> Result<(), Errno>;
    /// Returns only on failure.
    fn execve(&mut self, program: &CStr, argv: &StringVector, envp: &StringVector) -> Errno;
}

/// The real ones.
#[derive(Debug)]
pub(crate) struct Kernel;

impl Syscalls for Kernel {
    fn set_limits(&mut self, limits: &[Rlimit]) -> Result<()> {
        limits::set_limits(limits)
    }

    fn install_filter(&mut self, filter: &Program, listener: Option<notify::Listener>) -> Result<()> {
        match listener {
            Some(listener) => listener.install(filter),
            None => hull_sys::seccomp::install(&filter.instructions, filter.flags).map(drop).doing(
                Code::Seccomp,
                "linux.seccomp",
                "installing the filter",
            ),
        }
    }

    fn limit_bounding(&mut self, bits: &CapabilityBits) -> Result<()> {
        caps::limit_bounding(bits)
    }

    fn keep_capabilities(&mut self) -> Result<()> {
        prctl::keep_capabilities(true).doing(
            Code::Capabilities,
            "process.capabilities",
            "that are to outlive the change of user",
        )
    }

    /// Never through a magic link such as /proc/self/fd/7, which leads to wherever a descriptor of the runtime is.
    fn enter_directory(&mut self, path: &str) -> Result<(), Errno> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        match rustix::fs::openat2(CWD, path, flags, Mode::empty(), rustix::fs::ResolveFlags::NO_MAGICLINKS) {
            Ok(directory) => rustix::process::fchdir(directory),
            // An old filter is already on; what is left of the protection is the check of the path.
            Err(Errno::NOSYS | Errno::PERM) => rustix::process::chdir(path),
            Err(e) => Err(e),
        }
    }

    fn directory(&mut self) -> Result<Vec<u8>, Errno> {
        rustix::process::getcwd(Vec::new()).map(std::ffi::CString::into_bytes)
    }

    fn set_groups(&mut self, gids: &[u32]) -> Result<(), Errno> {
        let groups: Vec<Gid> = gids.iter().map(|g| Gid::from_raw(*g)).collect();
        rustix::thread::set_thread_groups(&groups)
    }

    fn set_gid(&mut self, gid: u32) -> Result<(), Errno> {
        let gid = Gid::from_raw(gid);
        rustix::thread::set_thread_res_gid(gid, gid, gid)
    }

    fn set_uid(&mut self, uid: u32) -> Result<(), Errno> {
        let uid = Uid::from_raw(uid);
        rustix::thread::set_thread_res_uid(uid, uid, uid)
    }

    fn set_capabilities(&mut self, bits: &CapabilityBits) -> Result<()> {
        caps::apply(bits)
    }

    fn label_exec(&mut self, labels: &Labels) -> Result<()> {
        labels.apply_exec()
    }

    fn set_no_new_privs(&mut self) -> Result<()> {
        prctl::set_no_new_privs().doing(Code::Identity, "process.noNewPrivileges", "no_new_privs")
    }

    fn restrict_paths(&mut self, rules: &landlock::Rules, program: Option<BorrowedFd<'_>>) -> Result<()> {
        rules.apply(program)
    }

    fn reset_signals(&mut self) -> Result<()> {
        // In this order: signals that came while blocked and are ignored are discarded. A hook that did not read the state leaves such a
        // SIGPIPE.
        signal::unblock_all().context(Code::Internal, "sigprocmask")?;
        signal::reset_dispositions();
        Ok(())
    }

    fn close_on_exec_from(&mut self, first: u32) -> Result<()> {
        sysfd::cloexec_from(first).context(Code::Descriptors, "close_range")
    }

    fn keep_over_exec(&mut self, fd: RawFd) -> Result<(), Errno> {
        sysfd::keep_over_exec(fd)
    }

    fn execve(&mut self, program: &CStr, argv: &StringVector, envp: &StringVector) -> Errno {
        process::execve(program, argv, envp)
    }
}

#[cfg(test)]
pub(crate) use recorder::Recorder;

#[cfg(test)]
mod recorder {
    use super::*;
    use crate::error::Error;

    /// Calls that are only recorded; the one with a given number fails.
    #[derive(Debug, Default)]
    pub(crate) struct Recorder {
        pub(crate) calls: Vec<String>,
        pub(crate) failing: Option<usize>,
        pub(crate) directory: String,
    }

    impl Recorder {
        fn note(&mut self, call: impl Into<String>) -> Result<(), Errno> {
            self.calls.push(call.into());
            if self.failing == Some(self.calls.len() - 1) { Err(Errno::PERM) } else { Ok(()) }
        }

        fn step(&mut self, call: &str) -> Result<()> {
            self.note(call).map_err(|errno| Error::os(Code::Internal, call, errno))
        }
    }

    impl Syscalls for Recorder {
        fn set_limits(&mut self, limits: &[Rlimit]) -> Result<()> {
            self.step(&format!("limits {}", limits.len()))
        }

        fn install_filter(&mut self, _: &Program, _: Option<notify::Listener>) -> Result<()> {
            self.step("filter")
        }

        fn limit_bounding(&mut self, _: &CapabilityBits) -> Result<()> {
            self.step("bounding")
        }

        fn keep_capabilities(&mut self) -> Result<()> {
            self.step("keep capabilities")
        }

        fn enter_directory(&mut self, path: &str) -> Result<(), Errno> {
            self.note(format!("directory {path}"))
        }

        fn directory(&mut self) -> Result<Vec<u8>, Errno> {
            self.note("verify directory").map(|()| self.directory.clone().into_bytes())
        }

        fn set_groups(&mut self, gids: &[u32]) -> Result<(), Errno> {
            self.note(format!("groups {gids:?}"))
        }

        fn set_gid(&mut self, gid: u32) -> Result<(), Errno> {
            self.note(format!("gid {gid}"))
        }

        fn set_uid(&mut self, uid: u32) -> Result<(), Errno> {
            self.note(format!("uid {uid}"))
        }

        fn set_capabilities(&mut self, _: &CapabilityBits) -> Result<()> {
            self.step("capabilities")
        }

        fn label_exec(&mut self, _: &Labels) -> Result<()> {
            self.step("label")
        }

        fn set_no_new_privs(&mut self) -> Result<()> {
            self.step("no_new_privs")
        }

        fn restrict_paths(&mut self, _: &landlock::Rules, _: Option<BorrowedFd<'_>>) -> Result<()> {
            self.step("landlock")
        }

        fn reset_signals(&mut self) -> Result<()> {
            self.step("signals")
        }

        fn close_on_exec_from(&mut self, first: u32) -> Result<()> {
            self.step(&format!("close from {first}"))
        }

        fn keep_over_exec(&mut self, fd: RawFd) -> Result<(), Errno> {
            self.note(format!("keep {fd}"))
        }

        fn execve(&mut self, program: &CStr, _: &StringVector, _: &StringVector) -> Errno {
            self.calls.push(format!("execve {}", program.to_string_lossy()));
            Errno::NOEXEC
        }
    }
}
