//! The architectures a filter can name.

use crate::spec::seccomp::Arch as SpecArch;

/// An architecture whose system calls hull can filter.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Arch {
    /// 64-bit x86.
    X86_64,
    /// 32-bit x86, also on a 64-bit kernel.
    X86,
    /// 32-bit pointers on 64-bit x86; shares its audit value.
    X32,
    /// 64-bit ARM.
    Aarch64,
    /// 32-bit ARM (EABI), also on a 64-bit kernel.
    Arm,
    /// 64-bit z/Architecture.
    S390x,
    /// 31-bit z/Architecture.
    S390,
    /// 64-bit POWER, little-endian.
    Ppc64Le,
    /// 64-bit RISC-V.
    Riscv64,
}

impl Arch {
    /// The architecture hull was built for; `None` where it has no table.
    #[must_use]
    pub(crate) const fn native() -> Option<Arch> {
        if cfg!(target_arch = "x86_64") {
            Some(Arch::X86_64)
        } else if cfg!(target_arch = "aarch64") {
            Some(Arch::Aarch64)
        } else if cfg!(target_arch = "s390x") {
            Some(Arch::S390x)
        } else if cfg!(all(target_arch = "powerpc64", target_endian = "little")) {
            Some(Arch::Ppc64Le)
        } else if cfg!(target_arch = "riscv64") {
            Some(Arch::Riscv64)
        } else {
            None
        }
    }

    /// The architectures whose programs a kernel of this one runs, itself first.
    #[must_use]
    pub(crate) const fn family(self) -> &'static [Arch] {
        match self {
            Arch::X86_64 => &[Arch::X86_64, Arch::X86, Arch::X32],
            Arch::X86 => &[Arch::X86],
            Arch::X32 => &[Arch::X32],
            Arch::Aarch64 => &[Arch::Aarch64, Arch::Arm],
            Arch::Arm => &[Arch::Arm],
            Arch::S390x => &[Arch::S390x, Arch::S390],
            Arch::S390 => &[Arch::S390],
            Arch::Ppc64Le => &[Arch::Ppc64Le],
            Arch::Riscv64 => &[Arch::Riscv64],
        }
    }

    /// Its name in the specification.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Arch::X86_64 => "SCMP_ARCH_X86_64",
            Arch::X86 => "SCMP_ARCH_X86",
            Arch::X32 => "SCMP_ARCH_X32",
            Arch::Aarch64 => "SCMP_ARCH_AARCH64",
            Arch::Arm => "SCMP_ARCH_ARM",
            Arch::S390x => "SCMP_ARCH_S390X",
            Arch::S390 => "SCMP_ARCH_S390",
            Arch::Ppc64Le => "SCMP_ARCH_PPC64LE",
            Arch::Riscv64 => "SCMP_ARCH_RISCV64",
        }
    }

    /// The specification's name as one of ours. `None` is an architecture whose programs none of our kernels runs.
    pub(super) const fn of(arch: SpecArch) -> Option<Arch> {
        match arch {
            SpecArch::X86_64 => Some(Arch::X86_64),
            SpecArch::X86 => Some(Arch::X86),
            SpecArch::X32 => Some(Arch::X32),
            SpecArch::Aarch64 => Some(Arch::Aarch64),
            SpecArch::Arm => Some(Arch::Arm),
            SpecArch::S390X => Some(Arch::S390x),
            SpecArch::S390 => Some(Arch::S390),
            SpecArch::Ppc64Le => Some(Arch::Ppc64Le),
            SpecArch::Riscv64 => Some(Arch::Riscv64),
            _ => None,
        }
    }

    /// `AUDIT_ARCH_*` as the kernel puts it in `seccomp_data.arch`.
    pub(super) const fn audit(self) -> u32 {
        const LITTLE_ENDIAN: u32 = 0x4000_0000;
        const BITS_64: u32 = 0x8000_0000;
        match self {
            Arch::X86_64 | Arch::X32 => 62 | LITTLE_ENDIAN | BITS_64,
            Arch::X86 => 3 | LITTLE_ENDIAN,
            Arch::Aarch64 => 183 | LITTLE_ENDIAN | BITS_64,
            Arch::Arm => 40 | LITTLE_ENDIAN,
            Arch::S390x => 22 | BITS_64,
            Arch::S390 => 22,
            Arch::Ppc64Le => 21 | LITTLE_ENDIAN | BITS_64,
            Arch::Riscv64 => 243 | LITTLE_ENDIAN | BITS_64,
        }
    }

    /// Whether arguments are compared as 64-bit values. Not so on x32, whose pointers and longs have 32 bits: a value
    /// above them is the same to the kernel as without them.
    pub(super) const fn wide(self) -> bool {
        !matches!(self, Arch::X86 | Arch::X32 | Arch::Arm | Arch::S390)
    }

    /// Whether the low half of an argument comes first in memory.
    pub(super) const fn little_endian(self) -> bool {
        !matches!(self, Arch::S390x | Arch::S390)
    }

    /// Whether sockets and System V IPC also have the old multiplexed calls `socketcall` and `ipc`.
    pub(super) const fn multiplexes(self) -> bool {
        matches!(self, Arch::X86 | Arch::S390x | Arch::S390 | Arch::Ppc64Le)
    }
}
