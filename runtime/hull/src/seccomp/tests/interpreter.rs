//! Classic BPF as the kernel runs it for seccomp, with the kernel's checks before.

use crate::seccomp::SockFilter;

/// `struct seccomp_data`.
#[derive(Clone, Copy, Debug)]
pub(super) struct Call {
    pub(super) arch: u32,
    pub(super) number: u32,
    pub(super) args: [u64; 6],
}

impl Call {
    fn word(&self, offset: u32) -> u32 {
        let half =
            |value: u64, high: bool| u32::try_from(if high { value >> 32 } else { value & 0xffff_ffff }).unwrap();
        match offset {
            0 => self.number,
            4 => self.arch,
            8 | 12 => 0,
            _ => half(self.args[usize::try_from((offset - 16) / 8).unwrap()], offset % 8 == 4),
        }
    }
}

/// What `bpf_check_classic` and `seccomp_check_filter` refuse.
pub(super) fn check(program: &[SockFilter]) {
    assert!(!program.is_empty() && program.len() <= 4096, "{} instructions", program.len());
    for (at, instruction) in program.iter().enumerate() {
        let left = program.len() - at - 1;
        match instruction.code {
            0x20 => assert!(instruction.k < 64 && instruction.k % 4 == 0),
            0x54 | 0x06 | 0x01 | 0x02 | 0x60 | 0x61 | 0x07 | 0x87 | 0x00 => {}
            0x05 => assert!(usize::try_from(instruction.k).unwrap() < left, "jump at {at}"),
            0x15 | 0x25 | 0x35 | 0x45 => {
                assert!(usize::from(instruction.jt) < left && usize::from(instruction.jf) < left, "branch at {at}");
            }
            code => panic!("instruction {at}: {code:#x}"),
        }
    }
    assert_eq!(program.last().unwrap().code, 0x06);
}

/// The value the program returns, and how many instructions that took.
pub(super) fn run(program: &[SockFilter], call: &Call) -> (u32, usize) {
    let mut accumulator = 0_u32;
    let mut at = 0;
    let mut steps = 0;
    loop {
        let SockFilter { code, jt, jf, k } = program[at];
        steps += 1;
        at += 1;
        let branch = |taken: bool| usize::from(if taken { jt } else { jf });
        match code {
            0x20 => accumulator = call.word(k),
            0x54 => accumulator &= k,
            0x05 => at += usize::try_from(k).unwrap(),
            0x15 => at += branch(accumulator == k),
            0x25 => at += branch(accumulator > k),
            0x35 => at += branch(accumulator >= k),
            0x45 => at += branch(accumulator & k != 0),
            0x06 => return (k, steps),
            code => panic!("instruction {code:#x}"),
        }
    }
}
