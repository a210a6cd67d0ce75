//! The decision of a profile about one call, expressed in rules: read from the same data as the program, so that the two cannot differ.

use super::emit::{ENOSYS, Plan};
use super::rules::{Condition, Outcome, Verdict};
use super::{Arch, CompileError, plan, tables};
use crate::spec::Seccomp;
use crate::spec::seccomp::{Action, Arg, Rule};

/// Whether this machine has a call of that name.
pub(crate) fn exists(name: &str) -> bool {
    Arch::native().is_some_and(|native| tables::number(native, name).is_some())
}

/// The rules that decide about a call on this machine: the first whose conditions hold; the last has none. `None` if there is no such call.
///
/// # Errors
/// The profile asks for something impossible.
pub(crate) fn decide(seccomp: &Seccomp, name: &str) -> Result<Option<Vec<Rule>>, CompileError> {
    let native = Arch::native().ok_or(CompileError::Machine)?;
    Ok(decide_by(&plan(native, seccomp)?, native, name))
}

pub(super) fn decide_by(plan: &Plan, native: Arch, name: &str) -> Option<Vec<Rule>> {
    let number = tables::number(native, name)?;
    let (_, rules) = plan.arches.iter().find(|(arch, _)| *arch == native)?;
    let rule = |conditions: &[Condition], verdict| {
        let (action, errno_ret) = action_of(verdict);
        Rule { names: vec![name.to_owned()], action, errno_ret, args: conditions.iter().map(arg_of).collect() }
    };
    let mut out = Vec::new();
    match rules.outcomes.get(&number) {
        Some(Outcome::Always(verdict)) => out.push(rule(&[], *verdict)),
        Some(Outcome::Depends(chains)) => {
            out.extend(chains.iter().map(|chain| rule(&chain.conditions, chain.verdict)));
            out.push(rule(&[], plan.default));
        }
        None if plan.newer_fail && rules.last.is_some_and(|last| number > last) => out.push(rule(&[], ENOSYS)),
        None => out.push(rule(&[], plan.default)),
    }
    Some(out)
}

fn action_of(verdict: Verdict) -> (Action, Option<u32>) {
    let data = Some(verdict & 0xffff);
    match verdict & 0xffff_0000 {
        0x0003_0000 => (Action::Trap, None),
        0x0005_0000 => (Action::Errno, data),
        0x7fc0_0000 => (Action::Notify, None),
        0x7ff0_0000 => (Action::Trace, data),
        0x7ffc_0000 => (Action::Log, None),
        0x7fff_0000 => (Action::Allow, None),
        0x8000_0000 => (Action::KillProcess, None),
        _ => (Action::KillThread, None),
    }
}

fn arg_of(condition: &Condition) -> Arg {
    let index = u32::from(condition.index);
    match condition.op {
        op @ crate::spec::seccomp::Op::MaskedEq => Arg { index, value: condition.mask, value_two: condition.value, op },
        op => Arg { index, value: condition.value, value_two: 0, op },
    }
}
