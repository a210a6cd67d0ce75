//! Compiles `linux.seccomp` to the classic BPF program that seccomp(2) takes.
//!
//! The rules mean what they mean under runc and crun, that is to libseccomp: an architecture that the profile does not
//! list kills the thread, names that an architecture does not have are skipped, an unconditional rule for a call
//! replaces conditional ones, and socket and IPC calls of 32-bit x86 also get their rules in `socketcall` and `ipc`.
//! Where rules of different actions overlap, the first of the profile wins. As in runc, calls newer than every call
//! the profile names fail with `ENOSYS` if the default action is to refuse.
//!
//! Programs look numbers up in a binary tree: the depth is about six comparisons for a profile of four hundred names.
//!
//! ```
//! use hull::spec::Seccomp;
//! use hull::spec::seccomp::{Action, Rule};
//!
//! let rule = Rule { names: vec!["reboot".into()], action: Action::Errno, ..Rule::default() };
//! let profile = Seccomp { default_action: Action::Allow, syscalls: vec![rule], ..Seccomp::default() };
//! let program = hull::seccomp::compile(&profile)?;
//! println!("{} instructions", program.instructions.len());
//! # Ok::<(), hull::seccomp::CompileError>(())
//! ```

mod arch;
mod assemble;
mod cache;
mod decide;
mod emit;
mod multiplexed;
mod rules;
mod tables;
#[cfg(test)]
pub(crate) mod tests;

pub(crate) use arch::Arch;
pub(crate) use cache::Unsaved;
pub use cache::{Cache, CacheError};
pub(crate) use decide::{decide, exists};
/// One instruction of a program, as the kernel has it.
///
/// ```
/// use hull::seccomp::SockFilter;
///
/// // BPF_RET | BPF_K with SECCOMP_RET_ALLOW.
/// let allow = SockFilter { code: 0x06, jt: 0, jf: 0, k: 0x7fff_0000 };
/// let profile = serde_json::from_str(r#"{"defaultAction": "SCMP_ACT_ALLOW"}"#)?;
/// assert!(hull::seccomp::compile(&profile)?.instructions.contains(&allow));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub use hull_sys::seccomp::SockFilter;

use crate::spec::Seccomp;
use crate::spec::seccomp::{Action, Flag};

/// Most instructions the kernel takes in one program (`BPF_MAXINSNS`).
pub(crate) const MAX_INSTRUCTIONS: usize = 4096;

/// A compiled filter.
///
/// ```
/// let profile = serde_json::from_str(r#"{"defaultAction": "SCMP_ACT_ALLOW"}"#)?;
/// for instruction in hull::seccomp::compile(&profile)?.instructions {
///     println!("{instruction:?}");
/// }
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Program {
    /// In the order the kernel runs them.
    pub instructions: Vec<SockFilter>,
    /// `SECCOMP_FILTER_FLAG_*` to install it with, `NEW_LISTENER` included if [`Program::notifies`].
    pub flags: u32,
    /// Whether some call asks a listener: seccomp(2) then returns a descriptor, which belongs to `listenerPath`.
    pub notifies: bool,
}

impl Program {
    /// Appends it as [`Program::read`] takes it: flags, notifies, instructions.
    pub(crate) fn write(&self, bytes: &mut Vec<u8>) {
        bytes.extend_from_slice(&self.flags.to_le_bytes());
        bytes.push(u8::from(self.notifies));
        for instruction in &self.instructions {
            bytes.extend_from_slice(&instruction.code.to_le_bytes());
            bytes.extend_from_slice(&[instruction.jt, instruction.jf]);
            bytes.extend_from_slice(&instruction.k.to_le_bytes());
        }
    }

    /// A program that was written; none if these bytes cannot be one.
    pub(crate) fn read(bytes: &[u8]) -> Option<Self> {
        let (flags, rest) = bytes.split_first_chunk::<4>()?;
        let (notifies, rest) = rest.split_first()?;
        let (chunks, remainder) = rest.as_chunks::<8>();
        if !remainder.is_empty() || chunks.is_empty() || chunks.len() > MAX_INSTRUCTIONS {
            return None;
        }
        let instructions = chunks
            .iter()
            .map(|[c0, c1, jt, jf, k0, k1, k2, k3]| SockFilter {
                code: u16::from_le_bytes([*c0, *c1]),
                jt: *jt,
                jf: *jf,
                k: u32::from_le_bytes([*k0, *k1, *k2, *k3]),
            })
            .collect();
        Some(Self { instructions, flags: u32::from_le_bytes(*flags), notifies: *notifies != 0 })
    }
}

/// Why a profile cannot become a filter.
///
/// ```
/// let profile = serde_json::from_str(r#"{"defaultAction": "SCMP_ACT_NOTIFY"}"#)?;
/// println!("{}", hull::seccomp::compile(&profile).unwrap_err());
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum CompileError {
    /// hull has no table for the machine it runs on.
    #[error("hull has no system call table for this machine's architecture; remove `linux.seccomp`")]
    Machine,
    /// `errnoRet` beside an action without one.
    #[error("`{action:?}` takes no error number, but `errnoRet` is {value}; remove it")]
    ErrnoUnused {
        /// The action.
        action: Action,
        /// Its number.
        value: u32,
    },
    /// An error number that the kernel would cut.
    #[error("error number {value} of `{action:?}` is larger than {max}")]
    ErrnoRange {
        /// The action.
        action: Action,
        /// Its number.
        value: u32,
        /// What is possible.
        max: u32,
    },
    /// An argument that no call has.
    #[error("argument index {index}; system calls have arguments 0 to 5")]
    Argument {
        /// The index.
        index: u32,
    },
    /// Asking the listener about everything would stop the container before it starts.
    #[error("SCMP_ACT_NOTIFY cannot be the default action; name the calls that the listener decides")]
    NotifyDefault,
    /// A call the runtime itself needs before the listener can answer.
    #[error("SCMP_ACT_NOTIFY cannot be used for the {name} syscall: the runtime needs it before the listener answers")]
    NotifyForbidden {
        /// The call.
        name: String,
    },
    /// More than the kernel takes.
    #[error(
        "the profile needs {length} instructions, the kernel takes {MAX_INSTRUCTIONS}; use fewer argument conditions"
    )]
    TooLong {
        /// Instructions.
        length: usize,
    },
}

/// Compiles a profile for this machine.
///
/// # Errors
/// The profile asks for something impossible; see [`CompileError`].
///
/// ```
/// let profile = serde_json::from_str(
///     r#"{"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [{"names": ["reboot"], "action": "SCMP_ACT_ERRNO"}]}"#,
/// )?;
/// let program = hull::seccomp::compile(&profile)?;
/// assert!(program.instructions.len() < 20 && !program.notifies);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub fn compile(seccomp: &Seccomp) -> Result<Program, CompileError> {
    compile_for(Arch::native().ok_or(CompileError::Machine)?, seccomp)
}

/// Compiles a profile for machines of architecture `native`.
fn compile_for(native: Arch, seccomp: &Seccomp) -> Result<Program, CompileError> {
    let instructions = emit::emit(&plan(native, seccomp)?);
    if instructions.len() > MAX_INSTRUCTIONS {
        return Err(CompileError::TooLong { length: instructions.len() });
    }
    let notifies = seccomp.syscalls.iter().any(|rule| rule.action == Action::Notify);
    Ok(Program { instructions, flags: flags(&seccomp.flags, notifies), notifies })
}

/// Where in a profile the cause of an error is, as a path below it.
pub(crate) fn culprit(seccomp: &Seccomp, error: &CompileError) -> String {
    if *error == CompileError::NotifyDefault {
        return ".defaultAction".to_owned();
    }
    let field = match error {
        CompileError::ErrnoUnused { .. } | CompileError::ErrnoRange { .. } => "errnoRet",
        CompileError::Argument { .. } => "args",
        CompileError::NotifyForbidden { .. } => "action",
        _ => return String::new(),
    };
    let fails = |rule: &crate::spec::seccomp::Rule| {
        let alone = Seccomp { syscalls: vec![rule.clone()], ..seccomp.clone() };
        Arch::native().is_some_and(|native| rules::entries(native, &alone).is_err())
    };
    if rules::verdict(seccomp.default_action, seccomp.default_errno_ret).is_err() {
        return ".defaultErrnoRet".to_owned();
    }
    let index = seccomp.syscalls.iter().position(fails);
    index.map_or_else(String::new, |index| format!(".syscalls[{index}].{field}"))
}

/// The rules of a profile, resolved for machines of architecture `native`.
fn plan(native: Arch, seccomp: &Seccomp) -> Result<emit::Plan, CompileError> {
    if seccomp.default_action == Action::Notify {
        return Err(CompileError::NotifyDefault);
    }
    let default = rules::verdict(seccomp.default_action, seccomp.default_errno_ret)?;
    let entries = rules::entries(native, seccomp)?;
    // Programs of other families cannot run here: leaving their architecture out changes nothing.
    let listed: Vec<Arch> = seccomp.architectures.iter().filter_map(|arch| Arch::of(*arch)).collect();
    let arches = native
        .family()
        .iter()
        .filter(|arch| **arch == native || listed.contains(arch))
        .map(|arch| (*arch, rules::ArchRules::resolve(*arch, &entries, default)))
        .collect();
    let permissive = matches!(seccomp.default_action, Action::Allow | Action::Log | Action::Trace);
    Ok(emit::Plan { default, newer_fail: !permissive, arches })
}

fn flags(names: &[Flag], notifies: bool) -> u32 {
    use hull_sys::seccomp as sys;
    let mut flags = names.iter().fold(0, |flags, name| {
        flags
            | match name {
                Flag::Tsync => sys::FLAG_TSYNC,
                Flag::Log => sys::FLAG_LOG,
                Flag::SpecAllow => sys::FLAG_SPEC_ALLOW,
                Flag::WaitKillableRecv => sys::FLAG_WAIT_KILLABLE_RECV,
            }
    });
    if notifies {
        flags |= sys::FLAG_NEW_LISTENER;
        if flags & sys::FLAG_TSYNC != 0 {
            // Both return a number; without this flag the kernel refuses the pair.
            flags |= sys::FLAG_TSYNC_ESRCH;
        }
    } else {
        // It speaks of calls that wait for a listener only; the kernel refuses it where there is none.
        flags &= !sys::FLAG_WAIT_KILLABLE_RECV;
    }
    flags
}
