//! Our programs and libseccomp's return the same for random profiles and random calls.

use super::interpreter::{Call, check, run};
use super::oracle::Oracle;
use super::random::Random;
use super::{MOBY, profile};
use crate::seccomp::{Arch, SockFilter, compile_for, rules, tables};
use crate::spec::Seccomp;
use crate::spec::seccomp::{Action, Arch as SpecArch, Arg, Op, Rule};

const ENOSYS: u32 = 0x0005_0000 | 38;
const X86_FAMILY: [(Arch, SpecArch, &str); 3] =
    [(Arch::X86_64, SpecArch::X86_64, "x86_64"), (Arch::X86, SpecArch::X86, "x86"), (Arch::X32, SpecArch::X32, "x32")];
const OPERATORS: [Op; 7] = [Op::Ne, Op::Lt, Op::Le, Op::Eq, Op::Ge, Op::Gt, Op::MaskedEq];
const VALUES: [u64; 12] = [
    0,
    1,
    2,
    16,
    0x7e02_0000,
    0x7fff_ffff,
    0xffff_ffff,
    0x1_0000_0000,
    0x1_0000_0001,
    0x8000_0000_0000_0000,
    u64::MAX - 1,
    u64::MAX,
];

/// Names that both sides know; libseccomp is older than some of ours.
fn shared_names(oracle: &mut Oracle) -> Vec<&'static str> {
    let carriers = ["socketcall", "ipc"]; // rules of their own would overlap with those of what they carry
    let known = |name: &&str| !carriers.contains(name) && oracle.number("x86_64", name) != -1;
    tables::names(Arch::X86_64).into_iter().filter(known).collect()
}

/// How freely profiles are made.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Freedom {
    /// Whatever a profile can say.
    All,
    /// What libseccomp 2.5 gets right: one rule a call with conditions on different arguments, or several rules that
    /// compare for equality. It merges rules to a tree, in which a failed second condition never leads to the other
    /// rules, and in which several ranges of one argument get mixed up (seed 59 without this limit: `a3 <= 1` or
    /// `a3 >= 1 << 32` matches 13).
    Disjoint,
}

fn random_profile(random: &mut Random, names: &[&str], freedom: Freedom) -> Seccomp {
    let actions = [
        (Action::Allow, None),
        (Action::Errno, Some(7)),
        (Action::Errno, None),
        (Action::Trap, None),
        (Action::Log, None),
        (Action::KillProcess, None),
        (Action::KillThread, None),
        (Action::Trace, Some(9)),
        (Action::Notify, None),
    ];
    let (default_action, default_errno_ret) = *random.pick(&actions[..8]);
    let architectures = X86_FAMILY.iter().filter(|_| random.one_in(2)).map(|(_, arch, _)| *arch).collect();
    let pool: Vec<&str> = (0..8 + random.below(40)).map(|_| *random.pick(names)).collect();
    let mut syscalls = Vec::new();
    for _ in 0..1 + random.below(25) {
        let chosen: Vec<&str> = (0..1 + random.below(5)).map(|_| *random.pick(&pool)).collect();
        for name in chosen {
            // One action a name: which of several overlapping ones wins is a matter of libseccomp's internal order.
            let (action, errno_ret) = actions[name.len() % if name == "write" { 8 } else { actions.len() }];
            let known = syscalls.iter().filter(|rule: &&Rule| rule.names[0] == name);
            let equality = [Op::Eq, Op::MaskedEq];
            let (most, operators) = match freedom {
                Freedom::All => (3, &OPERATORS[..]),
                Freedom::Disjoint => match known.map(|rule| &rule.args).find(|args| !args.is_empty()) {
                    None => (3, &OPERATORS[..]),
                    Some(args) if args.len() == 1 && equality.contains(&args[0].op) => (1, &equality[..]),
                    Some(_) => (0, &OPERATORS[..]),
                },
            };
            let count = if most == 0 || random.one_in(3) { 0 } else { 1 + random.below(most) };
            let mut args: Vec<Arg> = (0..count)
                .map(|_| Arg {
                    index: u32::try_from(random.below(6)).unwrap(),
                    value: *random.pick(&VALUES),
                    value_two: *random.pick(&VALUES),
                    op: *random.pick(operators),
                })
                .collect();
            if freedom == Freedom::Disjoint {
                args.sort_by_key(|arg| arg.index);
                args.dedup_by_key(|arg| arg.index);
            }
            syscalls.push(Rule { names: vec![name.to_owned()], action, errno_ret, args });
        }
    }
    Seccomp { default_action, default_errno_ret, architectures, syscalls, ..Seccomp::default() }
}

/// What the specification says in plain words, evaluated without any program.
fn meaning(seccomp: &Seccomp, arch: Arch, call: &Call) -> u32 {
    let default = rules::verdict(seccomp.default_action, seccomp.default_errno_ret).unwrap();
    let wide = arch == Arch::X86_64;
    let cut = |value: u64| if wide { value } else { value & 0xffff_ffff };
    let holds = |arg: &Arg| {
        let (argument, value) = (cut(call.args[usize::try_from(arg.index).unwrap()]), cut(arg.value));
        match arg.op {
            Op::Ne => argument != value,
            Op::Lt => argument < value,
            Op::Le => argument <= value,
            Op::Eq => argument == value,
            Op::Ge => argument >= value,
            Op::Gt => argument > value,
            Op::MaskedEq => argument & value == cut(arg.value_two) & value,
        }
    };
    let repeated = |args: &[Arg]| (0..6).any(|index| args.iter().filter(|arg| arg.index == index).count() > 1);
    let said = |rule: &Rule| rules::verdict(rule.action, rule.errno_ret).unwrap();
    let of_call: Vec<&Rule> = seccomp
        .syscalls
        .iter()
        .filter(|rule| tables::number(arch, &rule.names[0]) == Some(call.number) && said(rule) != default)
        .collect();
    if let Some(rule) = of_call.iter().find(|rule| rule.args.is_empty()) {
        return said(rule);
    }
    let matches = |rule: &&&Rule| {
        if repeated(&rule.args) { rule.args.iter().any(holds) } else { rule.args.iter().all(holds) }
    };
    of_call.iter().find(matches).map_or(default, |rule| said(rule))
}

fn random_call(random: &mut Random, seccomp: &Seccomp) -> (Arch, Call) {
    let (arch, ..) = *random.pick(&X86_FAMILY);
    let number = match random.below(8) {
        0 => u32::try_from(random.next() & 0xffff_ffff).unwrap(),
        1 => u32::MAX,
        2 => u32::try_from(random.below(500)).unwrap(),
        _ => {
            let rule = random.pick(&seccomp.syscalls);
            match tables::number(arch, &rule.names[0]) {
                Some(number) => number,
                None => tables::number(arch, if random.one_in(2) { "socketcall" } else { "ipc" }).unwrap_or(3),
            }
        }
    };
    let mut args = [0; 6];
    for argument in &mut args {
        *argument = match random.below(4) {
            0 => random.next(),
            1 => random.pick(&VALUES).wrapping_add(1),
            2 => u64::try_from(random.below(22)).unwrap(),
            _ => *random.pick(&VALUES),
        };
        if arch == Arch::X86 {
            *argument &= 0xffff_ffff;
        }
    }
    (arch, Call { arch: arch.audit(), number, args })
}

/// Calls newer than the profile are ours to answer; libseccomp leaves them to runc, which patches its programs.
fn newer(seccomp: &Seccomp, call: &Call) -> bool {
    if matches!(seccomp.default_action, Action::Allow | Action::Log | Action::Trace) || call.number == u32::MAX {
        return false;
    }
    let arch = if call.arch == Arch::X86.audit() {
        Arch::X86
    } else if call.number >= 0x4000_0000 {
        Arch::X32
    } else {
        Arch::X86_64
    };
    let listed = arch == Arch::X86_64
        || X86_FAMILY.iter().any(|(ours, theirs, _)| *ours == arch && seccomp.architectures.contains(theirs));
    let names = seccomp.syscalls.iter().flat_map(|rule| &rule.names);
    let last = names.filter_map(|name| tables::number(arch, name)).max();
    listed && last.is_some_and(|last| call.number > last)
}

fn agree(seccomp: &Seccomp, ours: &[SockFilter], theirs: &[SockFilter], call: &Call, what: &dyn Fn() -> String) {
    let (mine, _) = run(ours, call);
    let want = if newer(seccomp, call) { ENOSYS } else { run(theirs, call).0 };
    assert_eq!(mine, want, "{:#x} instead of {want:#x}: {}: {call:x?}\n{seccomp:#?}", mine, what());
}

#[test]
fn random_profiles_mean_what_they_mean_to_libseccomp() {
    let Some(mut oracle) = Oracle::start() else { return };
    let names = shared_names(&mut oracle);
    assert!(names.len() > 400, "{} names", names.len());
    let profiles = std::env::var("SECCOMP_PROFILES").map_or(400, |count| count.parse().unwrap());
    for seed in 0..profiles {
        let mut random = Random(seed);
        let seccomp = random_profile(&mut random, &names, Freedom::Disjoint);
        let ours = compile_for(Arch::X86_64, &seccomp).unwrap().instructions;
        check(&ours);
        let theirs = oracle.compile(&seccomp);
        for _ in 0..400 {
            let (_, call) = random_call(&mut random, &seccomp);
            agree(&seccomp, &ours, &theirs, &call, &|| format!("seed {seed}"));
        }
    }
}

#[test]
fn random_profiles_mean_what_they_say() {
    let names = tables::names(Arch::X86_64);
    for seed in 0..600 {
        let mut random = Random(seed);
        let seccomp = random_profile(&mut random, &names, Freedom::All);
        let ours = compile_for(Arch::X86_64, &seccomp).unwrap().instructions;
        check(&ours);
        for _ in 0..300 {
            let (arch, call) = random_call(&mut random, &seccomp);
            let listed =
                X86_FAMILY.iter().any(|(one, theirs, _)| *one == arch && seccomp.architectures.contains(theirs));
            let elsewhere = (call.number >= 0x4000_0000) != (arch == Arch::X32);
            let carried = ["socketcall", "ipc"].iter().any(|name| tables::number(arch, name) == Some(call.number));
            if elsewhere || carried || newer(&seccomp, &call) || !(listed || arch == Arch::X86_64) {
                continue;
            }
            let want = meaning(&seccomp, arch, &call);
            let (mine, _) = run(&ours, &call);
            assert_eq!(mine, want, "{mine:#x} instead of {want:#x}: seed {seed}: {call:x?}\n{seccomp:#?}");
        }
    }
}

#[test]
fn moby_means_what_it_means_to_libseccomp() {
    let Some(mut oracle) = Oracle::start() else { return };
    let mut seccomp = profile(MOBY);
    for rule in &mut seccomp.syscalls {
        rule.names.retain(|name| oracle.number("x86_64", name) != -1);
    }
    let ours = compile_for(Arch::X86_64, &seccomp).unwrap().instructions;
    let theirs = oracle.compile(&seccomp);
    let mut random = Random(7);
    for audit in [Arch::X86_64, Arch::X86, Arch::X32] {
        let base = if audit == Arch::X32 { 0x4000_0000 } else { 0 };
        for number in base..base + 600 {
            for _ in 0..8 {
                let (_, other) = random_call(&mut random, &seccomp);
                let args = if audit == Arch::X86 { other.args.map(|arg| arg & 0xffff_ffff) } else { other.args };
                let call = Call { arch: audit.audit(), number, args };
                agree(&seccomp, &ours, &theirs, &call, &|| "moby".to_owned());
            }
        }
    }
}

#[test]
fn tables_hold_libseccomps_numbers() {
    let Some(mut oracle) = Oracle::start() else { return };
    let all = [
        (Arch::X86_64, "x86_64"),
        (Arch::X86, "x86"),
        (Arch::X32, "x32"),
        (Arch::Aarch64, "aarch64"),
        (Arch::Arm, "arm"),
        (Arch::S390x, "s390x"),
        (Arch::S390, "s390"),
        (Arch::Ppc64Le, "ppc64le"),
        (Arch::Riscv64, "riscv64"),
    ];
    for (arch, name) in all {
        let mut compared = 0;
        for call in tables::names(arch) {
            let theirs = oracle.number(name, call);
            // -1: not known to it; other negative numbers: not on this architecture, or reached by `socketcall` and `ipc`.
            let multiplexed = arch.multiplexes() && crate::seccomp::multiplexed::carrier(call).is_some();
            let alias = arch == Arch::Arm && call == "sync_file_range2"; // the same number as arm_sync_file_range
            if theirs == -1 || (theirs < 0 && (multiplexed || alias)) {
                continue;
            }
            assert_eq!(tables::number(arch, call), u32::try_from(theirs).ok(), "{call} on {name}");
            compared += 1;
        }
        assert!(compared > 290, "only {compared} calls of {name} compared");
    }
}
