//! `linux.seccomp`: the system call filter as the specification writes it. Required properties
//! must be present: a forgotten action or comparison is not guessed.
//!
//! ```
//! use hull::spec::Seccomp;
//! use hull::spec::seccomp::Action;
//!
//! let profile: Seccomp = serde_json::from_str(
//!     r#"{"defaultAction": "SCMP_ACT_ERRNO", "syscalls": [{"names": ["read", "write"], "action": "SCMP_ACT_ALLOW"}]}"#,
//! )?;
//! assert_eq!(profile.syscalls[0].action, Action::Allow);
//! # Ok::<(), serde_json::Error>(())
//! ```

use serde::{Deserialize, Serialize};

/// The `seccomp` object.
///
/// ```
/// use hull::spec::Seccomp;
/// use hull::spec::seccomp::{Action, Rule};
///
/// // Everything but two calls, which fail with EPERM.
/// let rule = Rule { names: vec!["mount".into(), "umount2".into()], action: Action::Errno, ..Rule::default() };
/// let profile = Seccomp { default_action: Action::Allow, syscalls: vec![rule], ..Seccomp::default() };
/// assert!(hull::seccomp::compile(&profile).is_ok());
/// ```
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Seccomp {
    /// What happens to calls no rule names.
    pub default_action: Action,
    /// Error number of a default `SCMP_ACT_ERRNO` or `SCMP_ACT_TRACE`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub default_errno_ret: Option<u32>,
    /// Architectures the filter is for; empty means the native one.
    #[serde(default, deserialize_with = "super::null_is_empty", skip_serializing_if = "Vec::is_empty")]
    pub architectures: Vec<Arch>,
    /// Flags of the seccomp system call.
    #[serde(default, deserialize_with = "super::null_is_empty", skip_serializing_if = "Vec::is_empty")]
    pub flags: Vec<Flag>,
    /// Unix socket that gets the notify descriptor.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub listener_path: Option<String>,
    /// Opaque text for that listener.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub listener_metadata: Option<String>,
    /// Rules.
    #[serde(default, deserialize_with = "super::objects", skip_serializing_if = "Vec::is_empty")]
    pub syscalls: Vec<Rule>,
}

/// One rule over some system calls.
///
/// ```
/// use hull::spec::seccomp::{Action, Rule};
///
/// // The error number is EPERM without `errno_ret`; 38 is ENOSYS: programs then try an older call.
/// let rule = Rule { names: vec!["clone3".into()], action: Action::Errno, errno_ret: Some(38), ..Rule::default() };
/// assert!(rule.args.is_empty());
/// // A forgotten action is not guessed.
/// assert!(serde_json::from_str::<Rule>(r#"{"names": ["clone3"]}"#).is_err());
/// ```
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Rule {
    /// Names.
    #[serde(default, deserialize_with = "super::null_is_empty", skip_serializing_if = "Vec::is_empty")]
    pub names: Vec<String>,
    /// What happens.
    pub action: Action,
    /// Error number of `SCMP_ACT_ERRNO` or `SCMP_ACT_TRACE`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub errno_ret: Option<u32>,
    /// Conditions, all of which must hold.
    #[serde(default, deserialize_with = "super::objects", skip_serializing_if = "Vec::is_empty")]
    pub args: Vec<Arg>,
}

/// A condition on one argument.
///
/// ```
/// use hull::spec::seccomp::{Action, Arg, Op, Rule};
///
/// // `clone` without CLONE_NEWUSER: the first argument under that mask is zero.
/// let no_user = Arg { index: 0, value: 0x1000_0000, value_two: 0, op: Op::MaskedEq };
/// let rule = Rule { names: vec!["clone".into()], action: Action::Allow, args: vec![no_user], ..Rule::default() };
/// assert_eq!(rule.args[0].op, Op::MaskedEq);
/// ```
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Arg {
    /// Index of the argument, 0 to 5.
    pub index: u32,
    /// Value, or mask of `SCMP_CMP_MASKED_EQ`.
    pub value: u64,
    /// Compared value of `SCMP_CMP_MASKED_EQ`.
    #[serde(default)]
    pub value_two: u64,
    /// Comparison.
    pub op: Op,
}

/// Actions.
///
/// ```
/// use hull::spec::seccomp::Action;
///
/// assert_eq!(serde_json::to_string(&Action::Errno)?, r#""SCMP_ACT_ERRNO""#);
/// # Ok::<(), serde_json::Error>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Hash, Serialize, Deserialize)]
pub enum Action {
    /// Kill the thread (the specification's historic default).
    #[default]
    #[serde(rename = "SCMP_ACT_KILL")]
    Kill,
    /// Kill the process.
    #[serde(rename = "SCMP_ACT_KILL_PROCESS")]
    KillProcess,
    /// Kill the thread.
    #[serde(rename = "SCMP_ACT_KILL_THREAD")]
    KillThread,
    /// Send SIGSYS.
    #[serde(rename = "SCMP_ACT_TRAP")]
    Trap,
    /// Fail with an error number.
    #[serde(rename = "SCMP_ACT_ERRNO")]
    Errno,
    /// Ask the tracer.
    #[serde(rename = "SCMP_ACT_TRACE")]
    Trace,
    /// Allow.
    #[serde(rename = "SCMP_ACT_ALLOW")]
    Allow,
    /// Allow and log.
    #[serde(rename = "SCMP_ACT_LOG")]
    Log,
    /// Ask the listener.
    #[serde(rename = "SCMP_ACT_NOTIFY")]
    Notify,
}

/// Flags of the filter.
///
/// ```
/// use hull::spec::Seccomp;
/// use hull::spec::seccomp::{Action, Flag};
///
/// let profile = Seccomp { default_action: Action::Allow, flags: vec![Flag::Log], ..Seccomp::default() };
/// // SECCOMP_FILTER_FLAG_LOG
/// assert_eq!(hull::seccomp::compile(&profile)?.flags, 2);
/// # Ok::<(), hull::seccomp::CompileError>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Flag {
    /// Apply to all threads.
    #[serde(rename = "SECCOMP_FILTER_FLAG_TSYNC")]
    Tsync,
    /// Log all actions but allow.
    #[serde(rename = "SECCOMP_FILTER_FLAG_LOG")]
    Log,
    /// Do not turn on the store-bypass mitigation.
    #[serde(rename = "SECCOMP_FILTER_FLAG_SPEC_ALLOW")]
    SpecAllow,
    /// Only fatal signals interrupt a notified call.
    #[serde(rename = "SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV")]
    WaitKillableRecv,
}

/// Comparisons.
///
/// ```
/// use hull::spec::seccomp::{Arg, Op};
///
/// // Sockets of families from 2 on.
/// let others: Arg = serde_json::from_str(r#"{"index": 0, "value": 2, "op": "SCMP_CMP_GE"}"#)?;
/// assert_eq!(others.op, Op::Ge);
/// # Ok::<(), serde_json::Error>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Hash, Serialize, Deserialize)]
pub enum Op {
    /// Not equal.
    #[serde(rename = "SCMP_CMP_NE")]
    Ne,
    /// Less.
    #[serde(rename = "SCMP_CMP_LT")]
    Lt,
    /// Less or equal.
    #[serde(rename = "SCMP_CMP_LE")]
    Le,
    /// Equal.
    #[default]
    #[serde(rename = "SCMP_CMP_EQ")]
    Eq,
    /// Greater or equal.
    #[serde(rename = "SCMP_CMP_GE")]
    Ge,
    /// Greater.
    #[serde(rename = "SCMP_CMP_GT")]
    Gt,
    /// Equal under a mask.
    #[serde(rename = "SCMP_CMP_MASKED_EQ")]
    MaskedEq,
}

/// Architectures the specification names.
///
/// ```
/// use hull::spec::Seccomp;
/// use hull::spec::seccomp::{Action, Arch};
///
/// // The program of one profile for several machines: what this machine cannot run is left out.
/// let architectures = vec![Arch::X86_64, Arch::X86, Arch::Aarch64];
/// let profile = Seccomp { default_action: Action::Allow, architectures, ..Seccomp::default() };
/// assert!(hull::seccomp::compile(&profile).is_ok());
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[expect(missing_docs, reason = "each variant is the architecture its name says")]
pub enum Arch {
    #[serde(rename = "SCMP_ARCH_X86")]
    X86,
    #[serde(rename = "SCMP_ARCH_X86_64")]
    X86_64,
    #[serde(rename = "SCMP_ARCH_X32")]
    X32,
    #[serde(rename = "SCMP_ARCH_ARM")]
    Arm,
    #[serde(rename = "SCMP_ARCH_AARCH64")]
    Aarch64,
    #[serde(rename = "SCMP_ARCH_MIPS")]
    Mips,
    #[serde(rename = "SCMP_ARCH_MIPS64")]
    Mips64,
    #[serde(rename = "SCMP_ARCH_MIPS64N32")]
    Mips64N32,
    #[serde(rename = "SCMP_ARCH_MIPSEL")]
    Mipsel,
    #[serde(rename = "SCMP_ARCH_MIPSEL64")]
    Mipsel64,
    #[serde(rename = "SCMP_ARCH_MIPSEL64N32")]
    Mipsel64N32,
    #[serde(rename = "SCMP_ARCH_PPC")]
    Ppc,
    #[serde(rename = "SCMP_ARCH_PPC64")]
    Ppc64,
    #[serde(rename = "SCMP_ARCH_PPC64LE")]
    Ppc64Le,
    #[serde(rename = "SCMP_ARCH_S390")]
    S390,
    #[serde(rename = "SCMP_ARCH_S390X")]
    S390X,
    #[serde(rename = "SCMP_ARCH_PARISC")]
    Parisc,
    #[serde(rename = "SCMP_ARCH_PARISC64")]
    Parisc64,
    #[serde(rename = "SCMP_ARCH_RISCV64")]
    Riscv64,
    #[serde(rename = "SCMP_ARCH_LOONGARCH64")]
    Loongarch64,
    #[serde(rename = "SCMP_ARCH_M68K")]
    M68k,
    #[serde(rename = "SCMP_ARCH_SH")]
    Sh,
    #[serde(rename = "SCMP_ARCH_SHEB")]
    Sheb,
}
