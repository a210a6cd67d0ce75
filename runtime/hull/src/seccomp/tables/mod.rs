//! Names and numbers of system calls, one table for each family of architectures that can run on one kernel.

use super::Arch;

#[cfg(any(test, target_arch = "aarch64"))]
mod arm;
#[cfg(any(test, target_arch = "powerpc64"))]
mod ppc64le;
#[cfg(any(test, target_arch = "riscv64"))]
mod riscv64;
#[cfg(any(test, target_arch = "s390x"))]
mod s390;
#[cfg(any(test, target_arch = "x86_64"))]
mod x86;

/// Marks a call that an architecture does not have.
const ABSENT: u32 = u32::MAX;

/// A system call: its number on each architecture of a family.
#[derive(Clone, Copy, Debug)]
pub(super) struct Call(&'static [u32]);

impl Call {
    /// The call of that name in `arch`'s family. `next` is the row to look at first, and afterwards the one after the call:
    /// profiles list names in the order of the table.
    pub(super) fn named(arch: Arch, name: &str, next: &mut usize) -> Option<Call> {
        match arch {
            #[cfg(any(test, target_arch = "x86_64"))]
            Arch::X86_64 | Arch::X86 | Arch::X32 => find(x86::TABLE, name, next),
            #[cfg(any(test, target_arch = "aarch64"))]
            Arch::Aarch64 | Arch::Arm => find(arm::TABLE, name, next),
            #[cfg(any(test, target_arch = "s390x"))]
            Arch::S390x | Arch::S390 => find(s390::TABLE, name, next),
            #[cfg(any(test, target_arch = "powerpc64"))]
            Arch::Ppc64Le => find(ppc64le::TABLE, name, next),
            #[cfg(any(test, target_arch = "riscv64"))]
            Arch::Riscv64 => find(riscv64::TABLE, name, next),
            #[cfg_attr(test, expect(unreachable_patterns, reason = "test builds carry every table"))]
            _ => None,
        }
    }

    /// Its number on `arch`, `None` when that architecture has no such call.
    pub(super) fn number(self, arch: Arch) -> Option<u32> {
        let column = match arch {
            Arch::X86_64 | Arch::Aarch64 | Arch::S390x | Arch::Ppc64Le | Arch::Riscv64 => 0,
            Arch::X86 | Arch::Arm | Arch::S390 => 1,
            Arch::X32 => 2,
        };
        self.0.get(column).copied().filter(|number| *number != ABSENT)
    }
}

fn find<const N: usize>(table: &'static [(&'static str, [u32; N])], name: &str, next: &mut usize) -> Option<Call> {
    /// A profile leaves out a few calls here and there.
    const AHEAD: usize = 4;
    let ahead = table.iter().enumerate().skip(*next).take(AHEAD).find(|(_, (candidate, _))| *candidate == name);
    let row = match ahead {
        Some((row, _)) => row,
        None => table.binary_search_by(|(candidate, _)| (*candidate).cmp(name)).ok()?,
    };
    *next = row.saturating_add(1);
    table.get(row).map(|(_, numbers)| Call(numbers))
}

/// The number of `name` on `arch`, `None` when that architecture has no such call.
pub(super) fn number(arch: Arch, name: &str) -> Option<u32> {
    Call::named(arch, name, &mut 0)?.number(arch)
}

/// Every name of `arch`'s family, for tests and for `hull features`.
#[cfg(test)]
pub(super) fn names(arch: Arch) -> Vec<&'static str> {
    match arch {
        Arch::X86_64 | Arch::X86 | Arch::X32 => x86::TABLE.iter().map(|row| row.0).collect(),
        Arch::Aarch64 | Arch::Arm => arm::TABLE.iter().map(|row| row.0).collect(),
        Arch::S390x | Arch::S390 => s390::TABLE.iter().map(|row| row.0).collect(),
        Arch::Ppc64Le => ppc64le::TABLE.iter().map(|row| row.0).collect(),
        Arch::Riscv64 => riscv64::TABLE.iter().map(|row| row.0).collect(),
    }
}
