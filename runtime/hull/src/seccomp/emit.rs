//! From resolved rules to instructions: a dispatch over architectures, a binary tree over numbers, argument checks.

use super::assemble::{Assembler, Label, Test};
use super::rules::{ArchRules, Chain, Condition, Outcome, Verdict};
use super::{Arch, SockFilter};
use crate::spec::seccomp::Op;

/// Offsets in `struct seccomp_data`.
const NUMBER: u32 = 0;
const ARCH: u32 = 4;
const ARGS: u32 = 16;

/// x32 calls have this bit in their number.
const X32_BIT: u32 = 0x4000_0000;
/// A tracer that wants a call skipped sets this number; the filter then sees it and must not kill.
const SKIPPED: u32 = u32::MAX;

const KILL_THREAD: Verdict = 0;
pub(super) const ENOSYS: Verdict = 0x0005_0000 | 38;

/// What filters are made of.
#[derive(Debug)]
pub(super) struct Plan {
    pub(super) default: Verdict,
    /// Calls newer than the profile fail with `ENOSYS`, so that programs fall back as they do on an old kernel.
    pub(super) newer_fail: bool,
    pub(super) arches: Vec<(Arch, ArchRules)>,
}

/// Where the numbers from `start` on lead.
#[derive(Clone, Copy)]
struct Segment {
    start: u32,
    target: Label,
}

/// Writes the program.
pub(super) fn emit(plan: &Plan) -> Vec<SockFilter> {
    let mut assembler = Assembler::default();
    let mut dispatch = assembler.ret(KILL_THREAD);
    let mut done = Vec::new();
    // The program is written from its end, so the native architecture comes last to be tested first.
    for (arch, _) in plan.arches.iter().rev() {
        let audit = arch.audit();
        if done.contains(&audit) {
            continue;
        }
        done.push(audit);
        let segments = segments(&mut assembler, plan, audit);
        let tree = tree(&mut assembler, &segments);
        let body = assembler.load(NUMBER, tree);
        dispatch = assembler.branch(Test::Equal, audit, body, dispatch);
    }
    let entry = assembler.load(ARCH, dispatch);
    assembler.finish(entry)
}

/// The numbers of all architectures that share one audit value, without holes.
fn segments(assembler: &mut Assembler, plan: &Plan, audit: u32) -> Vec<Segment> {
    let mut segments: Vec<Segment> = Vec::new();
    let mut add = |start: u32, target: Label| match segments.last_mut() {
        Some(last) if last.target == target => {}
        Some(last) if last.start == start => last.target = target,
        _ => segments.push(Segment { start, target }),
    };
    let shares = |arch: Arch| plan.arches.iter().find(|(one, _)| *one == arch && arch.audit() == audit);
    for (arch, rules) in plan.arches.iter().filter(|(arch, _)| arch.audit() == audit && *arch != Arch::X32) {
        fill(assembler, plan, *arch, rules, 0, &mut add);
    }
    if audit == Arch::X32.audit() {
        match shares(Arch::X32) {
            Some((arch, rules)) => fill(assembler, plan, *arch, rules, X32_BIT, &mut add),
            None => {
                let refused = assembler.ret(KILL_THREAD);
                add(X32_BIT, refused);
            }
        }
    }
    let skipped = assembler.ret(plan.default);
    add(SKIPPED, skipped);
    segments
}

fn fill(
    assembler: &mut Assembler,
    plan: &Plan,
    arch: Arch,
    rules: &ArchRules,
    first: u32,
    add: &mut impl FnMut(u32, Label),
) {
    let mut next = first;
    for (number, outcome) in &rules.outcomes {
        if *number > next {
            let default = assembler.ret(plan.default);
            add(next, default);
        }
        let target = match outcome {
            Outcome::Always(verdict) => assembler.ret(*verdict),
            Outcome::Depends(chains) => chain_tree(assembler, arch, chains, plan.default),
        };
        add(*number, target);
        next = number.saturating_add(1);
    }
    match rules.last {
        Some(last) if plan.newer_fail => {
            if last >= next {
                let default = assembler.ret(plan.default);
                add(next, default);
            }
            let newer = assembler.ret(ENOSYS);
            add(last.saturating_add(1), newer);
        }
        _ => {
            let default = assembler.ret(plan.default);
            add(next, default);
        }
    }
}

/// A balanced tree of comparisons; the accumulator holds the number.
fn tree(assembler: &mut Assembler, segments: &[Segment]) -> Label {
    match segments {
        [] => assembler.ret(KILL_THREAD),
        [only] => only.target,
        _ => {
            let (low, high) = segments.split_at(segments.len() / 2);
            let above = tree(assembler, high);
            let below = tree(assembler, low);
            assembler.branch(Test::GreaterOrEqual, high[0].start, above, below)
        }
    }
}

/// The first chain that holds decides.
fn chain_tree(assembler: &mut Assembler, arch: Arch, chains: &[Chain], default: Verdict) -> Label {
    let mut otherwise = assembler.ret(default);
    for chain in chains.iter().rev() {
        let mut then = assembler.ret(chain.verdict);
        for condition in chain.conditions.iter().rev() {
            then = compare(assembler, arch, condition, then, otherwise);
        }
        otherwise = then;
    }
    otherwise
}

const fn halves(value: u64) -> (u32, u32) {
    #[expect(clippy::cast_possible_truncation, reason = "the two halves are what is asked for")]
    ((value >> 32) as u32, value as u32)
}

/// One comparison. Arguments are 64 bits wide, the accumulator 32, so each half is looked at on its own; 32-bit
/// architectures have the low half only, and the value is cut to it, so that -1 means -1 there too.
fn compare(assembler: &mut Assembler, arch: Arch, condition: &Condition, then: Label, otherwise: Label) -> Label {
    let (high, low) = halves(condition.value);
    let (high_mask, low_mask) = halves(condition.mask);
    let base = ARGS + 8 * u32::from(condition.index);
    let (high_at, low_at) = if arch.little_endian() { (base + 4, base) } else { (base, base + 4) };
    let high_at = arch.wide().then_some(high_at);
    match condition.op {
        Op::Eq | Op::MaskedEq => {
            let rest = equal(assembler, low_at, low_mask, low, then, otherwise);
            match high_at {
                Some(at) => equal(assembler, at, high_mask, high, rest, otherwise),
                None => rest,
            }
        }
        Op::Ne => {
            let equal = Condition { op: Op::Eq, ..*condition };
            compare(assembler, arch, &equal, otherwise, then)
        }
        Op::Lt => {
            let at_least = Condition { op: Op::Ge, ..*condition };
            compare(assembler, arch, &at_least, otherwise, then)
        }
        Op::Le => {
            let more = Condition { op: Op::Gt, ..*condition };
            compare(assembler, arch, &more, otherwise, then)
        }
        Op::Ge | Op::Gt => {
            let test = if condition.op == Op::Ge { Test::GreaterOrEqual } else { Test::Greater };
            let branch = assembler.branch(test, low, then, otherwise);
            let rest = assembler.load(low_at, branch);
            match high_at {
                Some(at) => {
                    let tie = assembler.branch(Test::Equal, high, rest, otherwise);
                    let branch = assembler.branch(Test::Greater, high, then, tie);
                    assembler.load(at, branch)
                }
                None => rest,
            }
        }
    }
}

/// `word & mask == value`, nothing at all when the mask leaves no bit.
fn equal(assembler: &mut Assembler, at: u32, mask: u32, value: u32, then: Label, otherwise: Label) -> Label {
    if mask == 0 {
        return then;
    }
    let mut next = assembler.branch(Test::Equal, value, then, otherwise);
    if mask != u32::MAX {
        next = assembler.and(mask, next);
    }
    assembler.load(at, next)
}
