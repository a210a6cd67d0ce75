//! AppArmor profiles and SELinux contexts of the process.
//!
//! The attribute files are opened on the host's procfs before the container's mounts exist, so nothing inside can redirect the write. The
//! kernel accepts the write only from the process that opened the file.

use std::os::fd::OwnedFd;

use rustix::fs::OFlags;

use crate::error::{Code, Context, Error, Result};
use crate::files;
use crate::procfs::Proc;
use crate::spec::Process;

const APPARMOR: &str = "process.apparmorProfile";
const SELINUX: &str = "process.selinuxLabel";

#[derive(Debug)]
struct Label {
    file: OwnedFd,
    text: Vec<u8>,
    property: &'static str,
    /// For the message of a failure.
    what: String,
}

/// Labels to write, with the files they go to.
#[derive(Debug, Default)]
pub(crate) struct Labels {
    exec: Option<Label>,
}

fn kernel_has_apparmor() -> bool {
    files::read_text("/sys/module/apparmor/parameters/enabled", 16).is_ok_and(|t| t.starts_with('Y'))
}

/// Whether AppArmor is enabled, and can be managed from here.
pub(crate) fn apparmor_enabled() -> bool {
    kernel_has_apparmor() && rustix::fs::access("/sys/kernel/security/apparmor", rustix::fs::Access::EXISTS).is_ok()
}

/// Whether SELinux is on.
pub(crate) fn selinux_enabled() -> bool {
    rustix::fs::access("/sys/fs/selinux/enforce", rustix::fs::Access::EXISTS).is_ok()
}

impl Labels {
    /// Opens what will be written for a process, below `proc` or the caller's own /proc. A label for a module that is disabled is an error:
    /// without it, the container would run with more rights than asked for.
    pub(crate) fn of(proc: Option<&Proc>, process: &Process) -> Result<Self> {
        let open = |path: &str| {
            let open = |proc: &Proc| proc.file(path, OFlags::WRONLY);
            proc.map_or_else(|| open(&Proc::open()?), open).with(Code::Label, || format!("/proc/{path}"))
        };
        let apparmor = process.apparmor_profile.as_deref().filter(|p| !p.is_empty());
        let selinux = process.selinux_label.as_deref().filter(|l| !l.is_empty());
        match (apparmor, selinux) {
            (None, None) => Ok(Self::default()),
            (Some(_), Some(_)) => Err(Error::new(Code::Label, SELINUX)
                .says("there is one for AppArmor and one for SELinux, and only one of the two is in use")),
            (Some("unconfined"), None) if !apparmor_enabled() => Ok(Self::default()),
            (Some(profile), None) => {
                // Whether profiles can be loaded does not matter: Podman detaches everything below /sys/kernel before it calls for a
                // container with a user namespace.
                if !kernel_has_apparmor() {
                    return Err(Error::new(Code::Label, APPARMOR)
                        .says(format!("apparmor failed to apply profile {profile}: AppArmor is not enabled here")));
                }
                let file = open("thread-self/attr/apparmor/exec").or_else(|_| open("thread-self/attr/exec"))?;
                let what = format!("apparmor failed to apply profile {profile}");
                let text = format!("exec {profile}").into_bytes();
                Ok(Self { exec: Some(Label { file, text, property: APPARMOR, what }) })
            }
            (None, Some(label)) => {
                if !selinux_enabled() {
                    return Err(Error::new(Code::Label, SELINUX)
                        .says(label)
                        .hint("SELinux is not enabled here: leave process.selinuxLabel out"));
                }
                let (file, text) = (open("thread-self/attr/exec")?, label.as_bytes().to_vec());
                Ok(Self { exec: Some(Label { file, text, property: SELINUX, what: label.to_owned() }) })
            }
        }
    }

    /// Sets the label of the next execve.
    pub(crate) fn apply_exec(&self) -> Result<()> {
        match &self.exec {
            Some(l) => files::write_once(&l.file, &l.text).doing(Code::Label, l.property, &l.what),
            None => Ok(()),
        }
    }
}
