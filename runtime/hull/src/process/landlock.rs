//! Landlock rules by annotation (`dev.hull.landlock`): a JSON object with lists of paths and ports.
//!
//! `{"readOnly": ["/usr"], "readWrite": ["/tmp"], "execute": ["/usr/bin"], "bindPorts": [8080], "connectPorts": [443]}`:
//! what is not named is refused. The rules can only take rights away, so the annotation is safe to honour.

use std::os::fd::BorrowedFd;

use rustix::fs::{Mode, OFlags};
use serde::Deserialize;

use crate::error::{Code, Context, Error, Result};
use crate::rootfs::resolve::is_below;

/// The annotation that holds the rules.
pub(crate) const ANNOTATION: &str = "dev.hull.landlock";
/// Its name in errors.
const RULES: &str = "annotations[dev.hull.landlock]";

/// Rules as written.
#[derive(Debug, Default, Clone, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub(crate) struct Rules {
    read_only: Vec<String>,
    read_write: Vec<String>,
    execute: Vec<String>,
    bind_ports: Option<Vec<u16>>,
    connect_ports: Option<Vec<u16>>,
}

const EXECUTE: u64 = 1;
const WRITE_FILE: u64 = 1 << 1;
const READ_FILE: u64 = 1 << 2;
const READ_DIR: u64 = 1 << 3;
const BIND_TCP: u64 = 1;
const CONNECT_TCP: u64 = 2;

/// File access rights that a kernel of this version knows.
fn all_rights(abi: u32) -> u64 {
    match abi {
        0 | 1 => (1 << 13) - 1,
        2 => (1 << 14) - 1,
        3 | 4 => (1 << 15) - 1,
        _ => (1 << 16) - 1,
    }
}

/// Rights that make sense on something that is no directory.
const FILE_RIGHTS: u64 = EXECUTE | WRITE_FILE | READ_FILE | 1 << 14 | 1 << 15;

impl Rules {
    /// Reads the annotation.
    pub(crate) fn parse(text: &str) -> Result<Self> {
        crate::spec::from_slice(text.as_bytes())
            .map_err(|e| Error::invalid(RULES, format!("annotation {ANNOTATION}: {e}")))
    }

    /// What the rules refuse of a path, in words; nothing if they refuse nothing.
    pub(crate) fn explain(&self, path: &str) -> String {
        let named = |list: &[String]| list.iter().any(|at| is_below(path, at));
        let (reads, writes, executes) = (named(&self.read_only), named(&self.read_write), named(&self.execute));
        let kinds = [("reading", reads || writes || executes), ("writing", writes), ("executing", executes)];
        let refused: Vec<&str> = kinds.into_iter().filter(|(_, allowed)| !allowed).map(|(what, _)| what).collect();
        if refused.is_empty() {
            return String::new();
        }
        format!("  annotation {ANNOTATION}: {} fails with EACCES\n", refused.join(", "))
    }

    /// Applies the rules to the caller; paths are those of the container. `handler` is a program from outside that runs the process.
    pub(crate) fn apply(&self, handler: Option<BorrowedFd<'_>>) -> Result<()> {
        let abi = hull_sys::landlock::abi().doing(Code::Landlock, RULES, "this kernel does not have it")?;
        let all = all_rights(abi);
        let mut net = 0;
        if self.bind_ports.is_some() {
            net |= BIND_TCP;
        }
        if self.connect_ports.is_some() {
            net |= CONNECT_TCP;
        }
        if net != 0 && abi < 4 {
            return Err(
                Error::new(Code::Landlock, RULES).says(format!("port rules need version 4, this kernel has {abi}"))
            );
        }
        let ruleset = hull_sys::landlock::create(all, net, 0).doing(Code::Landlock, RULES, "creating the rule set")?;
        let lists = [
            (&self.read_only, READ_FILE | READ_DIR),
            (&self.read_write, all & !EXECUTE),
            (&self.execute, EXECUTE | READ_FILE | READ_DIR),
        ];
        use std::os::fd::AsFd as _;
        for (paths, rights) in lists {
            for path in paths {
                let fd = rustix::fs::open(path.as_str(), OFlags::PATH | OFlags::CLOEXEC, Mode::empty())
                    .context(Code::Landlock, path)?;
                let stat = rustix::fs::fstat(&fd).context(Code::Landlock, path)?;
                let directory = rustix::fs::FileType::from_raw_mode(stat.st_mode).is_dir();
                let rights = if directory { rights } else { rights & FILE_RIGHTS } & all;
                hull_sys::landlock::allow_path(ruleset.as_fd(), fd.as_fd(), rights).context(Code::Landlock, path)?;
            }
        }
        if let Some(program) = handler {
            hull_sys::landlock::allow_path(ruleset.as_fd(), program, EXECUTE | READ_FILE)
                .context(Code::Landlock, "hull-wasm")?;
        }
        let ports = [(&self.bind_ports, BIND_TCP), (&self.connect_ports, CONNECT_TCP)];
        for (ports, rights) in ports {
            for port in ports.iter().flatten() {
                hull_sys::landlock::allow_port(ruleset.as_fd(), u64::from(*port), rights).doing(
                    Code::Landlock,
                    RULES,
                    "port rule",
                )?;
            }
        }
        // Without no_new_privs this needs CAP_SYS_ADMIN; setting it here only takes rights away.
        hull_sys::prctl::set_no_new_privs().context(Code::Landlock, "no_new_privs")?;
        hull_sys::landlock::restrict_self(ruleset.as_fd()).doing(Code::Landlock, RULES, "restricting")
    }
}
