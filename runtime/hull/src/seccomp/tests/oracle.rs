//! libseccomp behind a small C program, compiled when the tests run.

use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use crate::seccomp::{SockFilter, rules};
use crate::spec::Seccomp;
use crate::spec::seccomp::Op;

pub(super) struct Oracle {
    _child: Child,
    questions: ChildStdin,
    answers: BufReader<ChildStdout>,
}

impl Oracle {
    /// `None`, with the reason on standard error, where libseccomp's headers or a C compiler are missing.
    pub(super) fn start() -> Option<Oracle> {
        let directory = tempfile::tempdir().unwrap();
        let binary = directory.path().join("oracle");
        let source = concat!(env!("CARGO_MANIFEST_DIR"), "/src/seccomp/tests/oracle.c");
        let built = Command::new("cc").arg("-O1").arg("-o").arg(&binary).arg(source).arg("-lseccomp").status();
        if !built.is_ok_and(|status| status.success()) {
            #[expect(clippy::print_stderr, reason = "says why the test proves nothing here")]
            {
                eprintln!("SKIP: cannot build the oracle; install a C compiler and libseccomp-dev");
            }
            return None;
        }
        let mut child = Command::new(&binary).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let questions = child.stdin.take().unwrap();
        let answers = BufReader::new(child.stdout.take().unwrap());
        Some(Oracle { _child: child, questions, answers })
    }

    fn answer(&mut self) -> String {
        let mut line = String::new();
        self.answers.read_line(&mut line).unwrap();
        assert!(!line.starts_with("error") && !line.is_empty(), "libseccomp: {line}");
        line.trim_end().to_owned()
    }

    /// The number of `name`, negative where `arch` (in libseccomp's spelling) does not have it.
    pub(super) fn number(&mut self, arch: &str, name: &str) -> i32 {
        writeln!(self.questions, "number {arch} {name}").unwrap();
        self.answer().parse().unwrap()
    }

    /// The program that libseccomp makes of a profile.
    pub(super) fn compile(&mut self, seccomp: &Seccomp) -> Vec<SockFilter> {
        let mut text = format!("begin {}", rules::verdict(seccomp.default_action, seccomp.default_errno_ret).unwrap());
        for arch in &seccomp.architectures {
            let name = serde_json::to_string(arch).unwrap();
            let name = name.trim_matches('"').trim_start_matches("SCMP_ARCH_").to_lowercase();
            text.push_str(&format!(" {name}"));
        }
        text.push('\n');
        for rule in &seccomp.syscalls {
            for name in &rule.names {
                let verdict = rules::verdict(rule.action, rule.errno_ret).unwrap();
                text.push_str(&format!("rule {verdict} {name} {}", rule.args.len()));
                for arg in &rule.args {
                    let op = match arg.op {
                        Op::Ne => 1,
                        Op::Lt => 2,
                        Op::Le => 3,
                        Op::Eq => 4,
                        Op::Ge => 5,
                        Op::Gt => 6,
                        Op::MaskedEq => 7,
                    };
                    text.push_str(&format!(" {} {op} {} {}", arg.index, arg.value, arg.value_two));
                }
                text.push('\n');
            }
        }
        text.push_str("end\n");
        self.questions.write_all(text.as_bytes()).unwrap();
        let answer = self.answer();
        let instruction = |text: &str| {
            let mut fields = text.split(' ').map(|field| field.parse::<u32>().unwrap());
            let mut field = || fields.next().unwrap();
            SockFilter {
                code: u16::try_from(field()).unwrap(),
                jt: u8::try_from(field()).unwrap(),
                jf: u8::try_from(field()).unwrap(),
                k: field(),
            }
        };
        answer.split_terminator(',').map(instruction).collect()
    }
}
