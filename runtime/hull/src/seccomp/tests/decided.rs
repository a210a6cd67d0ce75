//! What is said of a call is what the program does.

use super::interpreter::{Call, run};
use super::random::Random;
use super::{MOBY, profile};
use crate::seccomp::{Arch, compile_for, decide, plan, rules, tables};
use crate::spec::Seccomp;
use crate::spec::seccomp::{Arg, Op};

fn holds(arg: &Arg, args: &[u64; 6]) -> bool {
    let value = args[arg.index as usize];
    match arg.op {
        Op::Ne => value != arg.value,
        Op::Lt => value < arg.value,
        Op::Le => value <= arg.value,
        Op::Eq => value == arg.value,
        Op::Ge => value >= arg.value,
        Op::Gt => value > arg.value,
        Op::MaskedEq => value & arg.value == arg.value_two,
    }
}

fn said(seccomp: &Seccomp, name: &str, args: &[u64; 6]) -> u32 {
    let rules = decide::decide_by(&plan(Arch::X86_64, seccomp).unwrap(), Arch::X86_64, name).unwrap();
    let rule = rules.iter().find(|rule| rule.args.iter().all(|arg| holds(arg, args))).unwrap();
    rules::verdict(rule.action, rule.errno_ret).unwrap()
}

#[test]
fn of_every_call_it_is_said_what_the_program_does() {
    let both = r#"{"defaultAction": "SCMP_ACT_ERRNO", "syscalls": [
        {"names": ["prctl"], "action": "SCMP_ACT_LOG", "args": [{"index": 0, "value": 5, "op": "SCMP_CMP_EQ"}]},
        {"names": ["read", "prctl"], "action": "SCMP_ACT_ALLOW"},
        {"names": ["write"], "action": "SCMP_ACT_TRAP", "args": [{"index": 1, "value": 7, "op": "SCMP_CMP_LT"}]}]}"#;
    let mut random = Random(5);
    for text in [MOBY, both, r#"{"defaultAction": "SCMP_ACT_ALLOW"}"#] {
        let seccomp = profile(text);
        let program = compile_for(Arch::X86_64, &seccomp).unwrap();
        for name in tables::names(Arch::X86_64) {
            let Some(number) = tables::number(Arch::X86_64, name) else { continue };
            for _ in 0..8 {
                let args = [(); 6].map(|()| random.next() % 64);
                let does = run(&program.instructions, &Call { arch: Arch::X86_64.audit(), number, args }).0;
                assert_eq!(said(&seccomp, name, &args), does, "{name} {args:?}");
            }
        }
    }
    assert_eq!(said(&profile(both), "openat2", &[0; 6]), 0x0005_0000 | 38, "newer than the profile");
}
