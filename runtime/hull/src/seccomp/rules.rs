//! From the rules of a profile to what each system call number of one architecture leads to.

use std::collections::BTreeMap;

use super::tables::{self, Call};
use super::{Arch, CompileError, multiplexed};
use crate::spec::Seccomp;
use crate::spec::seccomp::{Action, Arg, Op};

/// `SECCOMP_RET_*` with its sixteen bits of data.
pub(super) type Verdict = u32;

/// A comparison as the filter makes it; masks are separate from the operator.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Condition {
    pub(super) index: u8,
    pub(super) op: Op,
    /// All ones unless `op` is [`Op::MaskedEq`].
    pub(super) mask: u64,
    pub(super) value: u64,
}

/// All conditions hold: this verdict.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Chain {
    pub(super) conditions: Vec<Condition>,
    pub(super) verdict: Verdict,
}

/// What a system call leads to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    Always(Verdict),
    /// The first chain that holds; the default if none does.
    Depends(Vec<Chain>),
}

/// The rules of one architecture.
#[derive(Debug, Default)]
pub(super) struct ArchRules {
    pub(super) outcomes: BTreeMap<u32, Outcome>,
    /// The largest number that any rule names: later calls did not exist when the profile was written.
    pub(super) last: Option<u32>,
}

/// The value a filter returns for an action.
///
/// # Errors
/// An error number is given to an action that takes none, or it does not fit.
pub(super) fn verdict(action: Action, errno: Option<u32>) -> Result<Verdict, CompileError> {
    const EPERM: u32 = 1;
    // The kernel silently reduces larger error numbers to this one.
    const MAX_ERRNO: u32 = 4095;
    let (base, max) = match action {
        Action::Errno => (0x0005_0000, MAX_ERRNO),
        Action::Trace => (0x7ff0_0000, u32::from(u16::MAX)),
        Action::Kill | Action::KillThread => (0, 0),
        Action::KillProcess => (0x8000_0000, 0),
        Action::Trap => (0x0003_0000, 0),
        Action::Notify => (0x7fc0_0000, 0),
        Action::Log => (0x7ffc_0000, 0),
        Action::Allow => (0x7fff_0000, 0),
    };
    match errno {
        None if max == 0 => Ok(base),
        None => Ok(base | EPERM),
        Some(value) if max == 0 => Err(CompileError::ErrnoUnused { action, value }),
        Some(value) if value > max => Err(CompileError::ErrnoRange { action, value, max }),
        Some(value) => Ok(base | value),
    }
}

fn condition(arg: &Arg) -> Result<Condition, CompileError> {
    let index = match u8::try_from(arg.index) {
        Ok(index) if index < 6 => index,
        _ => return Err(CompileError::Argument { index: arg.index }),
    };
    Ok(match arg.op {
        Op::MaskedEq => Condition { index, op: arg.op, mask: arg.value, value: arg.value_two & arg.value },
        op => Condition { index, op, mask: u64::MAX, value: arg.value },
    })
}

/// The alternatives a rule's conditions stand for: all must hold, but several on one argument are read as "any of
/// them", each a rule of its own, as every runtime on libseccomp (one comparison an argument) has always done.
fn alternatives(args: &[Arg]) -> Result<Vec<Vec<Condition>>, CompileError> {
    let conditions = args.iter().map(condition).collect::<Result<Vec<_>, _>>()?;
    let repeated = conditions
        .iter()
        .enumerate()
        .any(|(position, one)| conditions[..position].iter().any(|earlier| earlier.index == one.index));
    Ok(if repeated { conditions.into_iter().map(|one| vec![one]).collect() } else { vec![conditions] })
}

/// One entry of `syscalls`, read once for all architectures.
#[derive(Debug)]
pub(super) struct Entry<'a> {
    /// The names, each looked up once for all architectures: comparing names is most of a compilation.
    calls: Vec<(&'a str, Option<Call>)>,
    verdict: Verdict,
    alternatives: Vec<Vec<Condition>>,
}

/// Reads the entries of a profile for machines of architecture `native`.
///
/// # Errors
/// An entry is not possible (see [`CompileError`]).
pub(super) fn entries(native: Arch, seccomp: &Seccomp) -> Result<Vec<Entry<'_>>, CompileError> {
    let entry = |rule: &crate::spec::seccomp::Rule| -> Result<_, CompileError> {
        // The listener's descriptor is sent by these very calls: asking the listener about them would wait for ever.
        if rule.action == Action::Notify
            && let Some(name) = rule.names.iter().find(|name| *name == "write")
        {
            return Err(CompileError::NotifyForbidden { name: name.clone() });
        }
        Ok((verdict(rule.action, rule.errno_ret)?, alternatives(&rule.args)?))
    };
    let mut next = 0;
    seccomp
        .syscalls
        .iter()
        .map(|rule| {
            let calls = rule.names.iter().map(|name| (name.as_str(), Call::named(native, name, &mut next))).collect();
            entry(rule).map(|(verdict, alternatives)| Entry { calls, verdict, alternatives })
        })
        .collect()
}

impl ArchRules {
    /// Resolves the entries for `arch`. Names it does not have are skipped: profiles list the calls of all architectures
    /// and of kernels to come.
    pub(super) fn resolve(arch: Arch, entries: &[Entry<'_>], default: Verdict) -> ArchRules {
        let mut rules = ArchRules::default();
        for entry in entries {
            for (name, call) in &entry.calls {
                rules.add(arch, name, *call, entry, default);
            }
        }
        rules
    }

    fn add(&mut self, arch: Arch, name: &str, call: Option<Call>, entry: &Entry<'_>, default: Verdict) {
        let direct = call.and_then(|call| call.number(arch));
        self.last = self.last.max(direct);
        // A rule with the default action would only hide others for the same call.
        if entry.verdict == default {
            return;
        }
        if let Some(number) = direct {
            self.insert(number, &entry.alternatives, entry.verdict);
        }
        if arch.multiplexes()
            && let Some((carrier, operation)) = multiplexed::carrier(name)
            && let Some(number) = tables::number(arch, carrier)
        {
            // The real arguments are behind a pointer here, so conditions on them cannot be kept.
            let operation = Condition { index: 0, op: Op::Eq, mask: u64::MAX, value: u64::from(operation) };
            let alternatives: Vec<Vec<Condition>> = entry
                .alternatives
                .iter()
                .map(|conditions| {
                    let others = conditions.iter().filter(|one| one.index != 0);
                    std::iter::once(operation).chain(others.copied()).collect()
                })
                .collect();
            self.insert(number, &alternatives, entry.verdict);
        }
    }

    /// Adds one rule. An unconditional one replaces all conditional ones, the first of its kind stays.
    fn insert(&mut self, number: u32, alternatives: &[Vec<Condition>], verdict: Verdict) {
        let outcome = self.outcomes.entry(number).or_insert_with(|| Outcome::Depends(Vec::new()));
        for conditions in alternatives {
            match outcome {
                Outcome::Always(_) => return,
                Outcome::Depends(_) if conditions.is_empty() => *outcome = Outcome::Always(verdict),
                Outcome::Depends(chains) => {
                    let chain = Chain { conditions: conditions.clone(), verdict };
                    if !chains.contains(&chain) {
                        chains.push(chain);
                    }
                }
            }
        }
    }
}
