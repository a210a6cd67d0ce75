//! A one-pass assembler for classic BPF.
//!
//! Jumps of classic BPF only go forward, so the program is written from its end: every target exists, at a known
//! distance, when a jump to it is made. Targets too far for the eight bits of a conditional jump get a trampoline.

use super::SockFilter;

const LOAD_WORD: u16 = 0x20; // BPF_LD | BPF_W | BPF_ABS
const AND: u16 = 0x54; // BPF_ALU | BPF_AND | BPF_K
const JUMP: u16 = 0x05; // BPF_JMP | BPF_JA
const RETURN: u16 = 0x06; // BPF_RET | BPF_K

/// A conditional jump's comparison of the accumulator with a constant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Test {
    Equal,
    Greater,
    GreaterOrEqual,
}

impl Test {
    const fn code(self) -> u16 {
        match self {
            Test::Equal => 0x15,
            Test::Greater => 0x25,
            Test::GreaterOrEqual => 0x35,
        }
    }
}

/// An instruction, counted from the end of the program.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Label(usize);

/// The program so far, last instruction first.
#[derive(Debug, Default)]
pub(super) struct Assembler {
    reversed: Vec<SockFilter>,
    /// Where each value was returned last.
    returns: Vec<(u32, Label)>,
}

/// Conditional jumps reach 255; two are left for the trampolines of the jump itself.
const REACH: usize = 253;

impl Assembler {
    fn push(&mut self, code: u16, jt: u8, jf: u8, k: u32) -> Label {
        self.reversed.push(SockFilter { code, jt, jf, k });
        Label(self.reversed.len() - 1)
    }

    /// Instructions that a jump placed now would skip.
    fn distance(&self, target: Label) -> usize {
        self.reversed.len() - target.0 - 1
    }

    /// Returns `value`, sharing an instruction that does so nearby.
    pub(super) fn ret(&mut self, value: u32) -> Label {
        if let Some((_, label)) = self.returns.iter().find(|entry| entry.0 == value)
            && self.distance(*label) < REACH
        {
            return *label;
        }
        let label = self.push(RETURN, 0, 0, value);
        match self.returns.iter_mut().find(|entry| entry.0 == value) {
            Some(entry) => entry.1 = label,
            None => self.returns.push((value, label)),
        }
        label
    }

    /// Makes `next` the instruction that follows what is pushed now.
    fn fall_into(&mut self, next: Label) {
        let distance = self.distance(next);
        if distance > 0 {
            // A program has at most 4,096 instructions; the final check refuses longer ones.
            self.push(JUMP, 0, 0, u32::try_from(distance).unwrap_or(u32::MAX));
        }
    }

    /// Loads the word at `offset` of `seccomp_data`, then goes on at `next`.
    pub(super) fn load(&mut self, offset: u32, next: Label) -> Label {
        self.fall_into(next);
        self.push(LOAD_WORD, 0, 0, offset)
    }

    /// Masks the accumulator, then goes on at `next`.
    pub(super) fn and(&mut self, mask: u32, next: Label) -> Label {
        self.fall_into(next);
        self.push(AND, 0, 0, mask)
    }

    /// Brings a target into the reach of a conditional jump.
    fn near(&mut self, target: Label) -> Label {
        let distance = self.distance(target);
        if distance <= REACH {
            return target;
        }
        let instruction = self.reversed[target.0];
        if instruction.code == RETURN {
            return self.ret(instruction.k);
        }
        self.push(JUMP, 0, 0, u32::try_from(distance).unwrap_or(u32::MAX))
    }

    /// Compares the accumulator with `k` and goes on at one of two places.
    pub(super) fn branch(&mut self, test: Test, k: u32, then: Label, otherwise: Label) -> Label {
        if then == otherwise {
            return then;
        }
        let then = self.near(then);
        let otherwise = self.near(otherwise);
        let jt = u8::try_from(self.distance(then)).unwrap_or(u8::MAX);
        let jf = u8::try_from(self.distance(otherwise)).unwrap_or(u8::MAX);
        self.push(test.code(), jt, jf, k)
    }

    /// The program that begins at `entry`.
    pub(super) fn finish(mut self, entry: Label) -> Vec<SockFilter> {
        self.fall_into(entry);
        self.reversed.reverse();
        self.reversed
    }
}
