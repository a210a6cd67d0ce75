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

fn find<const N: usize>(table: &[(&str, [u32; N])], name: &str, column: usize) -> Option<u32> {
    let row = table.binary_search_by(|(candidate, _)| (*candidate).cmp(name)).ok()?;
    table[row].1.get(column).copied().filter(|number| *number != ABSENT)
}

/// The number of `name` on `arch`, `None` when that architecture has no such call.
pub(super) fn number(arch: Arch, name: &str) -> Option<u32> {
    match arch {
        #[cfg(any(test, target_arch = "x86_64"))]
        Arch::X86_64 => find(x86::TABLE, name, 0),
        #[cfg(any(test, target_arch = "x86_64"))]
        Arch::X86 => find(x86::TABLE, name, 1),
        #[cfg(any(test, target_arch = "x86_64"))]
        Arch::X32 => find(x86::TABLE, name, 2),
        #[cfg(any(test, target_arch = "aarch64"))]
        Arch::Aarch64 => find(arm::TABLE, name, 0),
        #[cfg(any(test, target_arch = "aarch64"))]
        Arch::Arm => find(arm::TABLE, name, 1),
        #[cfg(any(test, target_arch = "s390x"))]
        Arch::S390x => find(s390::TABLE, name, 0),
        #[cfg(any(test, target_arch = "s390x"))]
        Arch::S390 => find(s390::TABLE, name, 1),
        #[cfg(any(test, target_arch = "powerpc64"))]
        Arch::Ppc64Le => find(ppc64le::TABLE, name, 0),
        #[cfg(any(test, target_arch = "riscv64"))]
        Arch::Riscv64 => find(riscv64::TABLE, name, 0),
        #[cfg_attr(test, expect(unreachable_patterns, reason = "test builds carry every table"))]
        _ => None,
    }
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
