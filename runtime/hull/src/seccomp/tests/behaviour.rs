//! What single rules mean, said outright; `differential.rs` compares whole profiles.

use super::interpreter::{Call, check, run};
use super::{MOBY, profile};
use crate::seccomp::{Arch, CompileError, Program, compile_for, tables};
use crate::spec::seccomp::Action;

const ALLOW: u32 = 0x7fff_0000;
const ENOSYS: u32 = 0x0005_0000 | 38;
const EPERM: u32 = 0x0005_0001;

fn compiled(json: &str) -> Program {
    let program = compile_for(Arch::X86_64, &profile(json)).unwrap();
    check(&program.instructions);
    program
}

fn call(program: &Program, arch: Arch, name: &str, args: &[u64]) -> u32 {
    numbered(program, arch, tables::number(arch, name).unwrap(), args)
}

fn numbered(program: &Program, arch: Arch, number: u32, args: &[u64]) -> u32 {
    let mut all = [0; 6];
    all[..args.len()].copy_from_slice(args);
    run(&program.instructions, &Call { arch: arch.audit(), number, args: all }).0
}

fn compared(op: &str, value: u64, two: u64) -> Program {
    compiled(&format!(
        r#"{{"defaultAction": "SCMP_ACT_ALLOW", "architectures": ["SCMP_ARCH_X86"], "syscalls": [{{"names": ["prctl"],
        "action": "SCMP_ACT_ERRNO", "args": [{{"index": 1, "value": {value}, "valueTwo": {two}, "op": "SCMP_CMP_{op}"}}]}}]}}"#
    ))
}

#[test]
fn comparisons_are_of_unsigned_64_bit_values() {
    let values = [0, 1, 5, 0xffff_ffff, 0x1_0000_0000, 0x1_0000_0005, 0x5_0000_0000, u64::MAX - 1, u64::MAX];
    type Holds = fn(u64, u64) -> bool;
    let operators: [(&str, Holds); 6] = [
        ("NE", |a, b| a != b),
        ("LT", |a, b| a < b),
        ("LE", |a, b| a <= b),
        ("EQ", |a, b| a == b),
        ("GE", |a, b| a >= b),
        ("GT", |a, b| a > b),
    ];
    for (op, holds) in operators {
        for value in values {
            let program = compared(op, value, 0);
            for argument in values {
                let want = if holds(argument, value) { EPERM } else { ALLOW };
                assert_eq!(call(&program, Arch::X86_64, "prctl", &[0, argument]), want, "{argument} {op} {value}");
            }
        }
    }
    for mask in values {
        for value in values {
            let program = compared("MASKED_EQ", mask, value);
            for argument in values {
                let want = if argument & mask == value & mask { EPERM } else { ALLOW };
                assert_eq!(
                    call(&program, Arch::X86_64, "prctl", &[0, argument]),
                    want,
                    "{argument} & {mask} == {value}"
                );
            }
        }
    }
}

#[test]
fn a_negative_value_matches_its_32_bit_form_on_x86() {
    let program = compared("EQ", u64::MAX, 0);
    assert_eq!(call(&program, Arch::X86, "prctl", &[0, 0xffff_ffff]), EPERM);
}

#[test]
fn several_arguments_must_all_match_and_one_argument_twice_is_an_alternative() {
    let rule = |args: &str| {
        compiled(&format!(
            r#"{{"defaultAction": "SCMP_ACT_ERRNO", "syscalls": [{{"names": ["prctl"], "action": "SCMP_ACT_ALLOW", "args": [{args}]}}]}}"#
        ))
    };
    let equal = |index: u64, value: u64| format!(r#"{{"index": {index}, "value": {value}, "op": "SCMP_CMP_EQ"}}"#);
    let both = rule(&format!("{}, {}", equal(0, 1), equal(1, 2)));
    assert_eq!(call(&both, Arch::X86_64, "prctl", &[1, 2]), ALLOW);
    assert_eq!(call(&both, Arch::X86_64, "prctl", &[1, 3]), EPERM);
    let either = rule(&format!("{}, {}", equal(0, 1), equal(0, 2)));
    assert_eq!(call(&either, Arch::X86_64, "prctl", &[1]), ALLOW);
    assert_eq!(call(&either, Arch::X86_64, "prctl", &[2]), ALLOW);
    assert_eq!(call(&either, Arch::X86_64, "prctl", &[3]), EPERM);
}

#[test]
fn an_architecture_that_is_not_listed_kills() {
    let program = compiled(r#"{"defaultAction": "SCMP_ACT_ALLOW"}"#);
    assert_eq!(numbered(&program, Arch::X86, 1, &[]), 0);
    assert_eq!(numbered(&program, Arch::Aarch64, 1, &[]), 0);
    assert_eq!(numbered(&program, Arch::X32, 0x4000_0001, &[]), 0);
    assert_eq!(numbered(&program, Arch::X86_64, u32::MAX, &[]), ALLOW, "a call that a tracer skips");
}

#[test]
fn calls_newer_than_the_profile_do_not_exist() {
    let rule = |default: &str| {
        compiled(&format!(
            r#"{{"defaultAction": "{default}", "syscalls": [{{"names": ["openat2", "read"], "action": "SCMP_ACT_LOG"}}]}}"#
        ))
    };
    let refuses = rule("SCMP_ACT_ERRNO");
    assert_eq!(call(&refuses, Arch::X86_64, "write", &[]), EPERM);
    assert_eq!(call(&refuses, Arch::X86_64, "faccessat2", &[]), ENOSYS);
    assert_eq!(numbered(&refuses, Arch::X86_64, 5000, &[]), ENOSYS);
    assert_eq!(numbered(&rule("SCMP_ACT_ALLOW"), Arch::X86_64, 5000, &[]), ALLOW);
}

#[test]
fn moby_denies_what_it_is_known_to_deny() {
    let program = compiled(MOBY);
    for arch in [Arch::X86_64, Arch::X86, Arch::X32] {
        for name in ["unshare", "mount", "fsopen", "move_mount", "bpf", "keyctl", "reboot", "setns", "io_uring_setup"] {
            assert_eq!(call(&program, arch, name, &[]), EPERM, "{name} on {arch:?}");
        }
        for name in ["read", "execve", "chroot", "ptrace", "close_range", "openat2", "futex_waitv"] {
            assert_eq!(call(&program, arch, name, &[]), ALLOW, "{name} on {arch:?}");
        }
        assert_eq!(call(&program, arch, "clone3", &[]), ENOSYS);
        let new_user_namespace = 0x1000_0000;
        assert_eq!(call(&program, arch, "clone", &[new_user_namespace | 17]), EPERM);
        assert_eq!(call(&program, arch, "clone", &[17]), ALLOW);
        let (alg, vsock, inet) = (38, 40, 2);
        assert_eq!(call(&program, arch, "socket", &[alg]), EPERM);
        assert_eq!(call(&program, arch, "socket", &[vsock]), EPERM);
        assert_eq!(call(&program, arch, "socket", &[inet]), ALLOW);
        assert_eq!(numbered(&program, arch, 600 + if arch == Arch::X32 { 0x4000_0000 } else { 0 }, &[]), ENOSYS);
    }
    // CVE-2026-31431's first fix broke 32-bit programs, whose sockets all go this way.
    assert_eq!(call(&program, Arch::X86, "socketcall", &[1]), ALLOW);
}

#[test]
fn errors_name_what_is_wrong() {
    let refused = |json: &str| compile_for(Arch::X86_64, &profile(json)).unwrap_err();
    let default = r#""defaultAction": "SCMP_ACT_ALLOW""#;
    assert_eq!(refused(r#"{"defaultAction": "SCMP_ACT_NOTIFY"}"#), CompileError::NotifyDefault);
    assert_eq!(
        refused(&format!(r#"{{{default}, "syscalls": [{{"names": ["write"], "action": "SCMP_ACT_NOTIFY"}}]}}"#)),
        CompileError::NotifyForbidden { name: "write".into() }
    );
    assert_eq!(
        refused(r#"{"defaultAction": "SCMP_ACT_ALLOW", "defaultErrnoRet": 3}"#),
        CompileError::ErrnoUnused { action: Action::Allow, value: 3 }
    );
    assert_eq!(
        refused(r#"{"defaultAction": "SCMP_ACT_ERRNO", "defaultErrnoRet": 4096}"#),
        CompileError::ErrnoRange { action: Action::Errno, value: 4096, max: 4095 }
    );
    let equal = |index: u64, value: u64| format!(r#"{{"index": {index}, "value": {value}, "op": "SCMP_CMP_EQ"}}"#);
    let read = |args: &str| {
        format!(r#"{{{default}, "syscalls": [{{"names": ["read"], "action": "SCMP_ACT_LOG", "args": [{args}]}}]}}"#)
    };
    assert_eq!(refused(&read(&equal(6, 0))), CompileError::Argument { index: 6 });
    let many: Vec<String> = (0..2000).map(|value| equal(0, value * 3)).collect();
    assert!(matches!(refused(&read(&many.join(","))), CompileError::TooLong { length } if length > 4096));
}

#[test]
fn a_listener_is_asked_for_when_a_rule_notifies() {
    let notify = r#""syscalls": [{"names": ["mount"], "action": "SCMP_ACT_NOTIFY"}]"#;
    let flags = r#""flags": ["SECCOMP_FILTER_FLAG_TSYNC", "SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV"]"#;
    let program = compiled(&format!(r#"{{"defaultAction": "SCMP_ACT_ALLOW", {notify}, {flags}}}"#));
    assert!(program.notifies);
    assert_eq!(program.flags, 1 | 8 | 16 | 32);
    let program = compiled(&format!(r#"{{"defaultAction": "SCMP_ACT_ALLOW", {flags}}}"#));
    assert_eq!(program.flags, 1);
}

#[test]
fn moby_is_shallow_small_and_quick() {
    let seccomp = profile(MOBY);
    let program = compile_for(Arch::X86_64, &seccomp).unwrap();
    let worst = (0..500)
        .map(|number| run(&program.instructions, &Call { arch: Arch::X86_64.audit(), number, args: [0; 6] }).1)
        .max()
        .unwrap();
    assert!(worst <= 24, "{worst} instructions for a call");
    assert!(program.instructions.len() < 700, "{} instructions", program.instructions.len());
    // The best of many: the machine is shared, and test builds are not optimised; the bar of a release build is 1 ms.
    let best = (0..50)
        .map(|_| {
            let start = std::time::Instant::now();
            compile_for(Arch::X86_64, &seccomp).unwrap();
            start.elapsed()
        })
        .min()
        .unwrap();
    let bar = std::time::Duration::from_millis(if cfg!(debug_assertions) { 10 } else { 1 });
    assert!(best < bar, "{best:?}");
    #[expect(clippy::print_stderr, reason = "the figure is quoted in the documentation")]
    {
        eprintln!("moby: {best:?}, {} instructions, at most {worst} a call", program.instructions.len());
    }
}
