//! The part of bpf(2) that cgroup v2 device control needs.
//!
//! Every call passes a zeroed union of full size: some kernels write past a short one (`BPF_PROG_QUERY`).

use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};

use rustix::io::Errno;

use crate::raw::{check, owned};

const PROG_TYPE_CGROUP_DEVICE: u32 = 15;
const ATTACH_CGROUP_DEVICE: u32 = 6;

const PROG_LOAD: libc::c_long = 5;
const PROG_ATTACH: libc::c_long = 8;
const PROG_DETACH: libc::c_long = 9;
const PROG_GET_FD_BY_ID: libc::c_long = 13;
const PROG_QUERY: libc::c_long = 16;

/// `BPF_F_ALLOW_MULTI`.
pub const ALLOW_MULTI: u32 = 2;
/// `BPF_F_REPLACE`.
pub const REPLACE: u32 = 4;

#[repr(C, align(8))]
struct Attr([u8; 192]);

impl Attr {
    fn new() -> Self {
        Self([0; 192])
    }

    fn put32(&mut self, offset: usize, value: u32) {
        if let Some(slot) = self.0.get_mut(offset..offset.saturating_add(4)) {
            slot.copy_from_slice(&value.to_ne_bytes());
        }
    }

    fn put64(&mut self, offset: usize, value: u64) {
        if let Some(slot) = self.0.get_mut(offset..offset.saturating_add(8)) {
            slot.copy_from_slice(&value.to_ne_bytes());
        }
    }

    fn put_fd(&mut self, offset: usize, fd: BorrowedFd<'_>) {
        self.put32(offset, fd.as_raw_fd().unsigned_abs());
    }

    fn get32(&self, offset: usize) -> u32 {
        match self.0.get(offset..offset.saturating_add(4)) {
            Some(&[a, b, c, d]) => u32::from_ne_bytes([a, b, c, d]),
            _ => 0,
        }
    }

    fn call(&mut self, command: libc::c_long) -> Result<libc::c_long, Errno> {
        // SAFETY: the union is full-size, so every command reads and writes inside it; the buffers it points to are
        // owned by the functions below for the time of the call.
        check(unsafe { libc::syscall(libc::SYS_bpf, command, &raw mut *self, size_of::<Self>()) })
    }
}

/// Loads a device program; instructions are 8 bytes each.
pub fn load_device_program(instructions: &[u64]) -> Result<OwnedFd, Errno> {
    let license = c"Apache-2.0";
    let mut attr = Attr::new();
    attr.put32(0, PROG_TYPE_CGROUP_DEVICE);
    attr.put32(4, u32::try_from(instructions.len()).map_err(|_| Errno::TOOBIG)?);
    attr.put64(8, instructions.as_ptr().expose_provenance() as u64);
    attr.put64(16, license.as_ptr().expose_provenance() as u64);
    owned(attr.call(PROG_LOAD)?)
}

/// Attaches a program to a cgroup, in place of `replace` if given.
pub fn attach_device_program(
    cgroup: BorrowedFd<'_>,
    program: BorrowedFd<'_>,
    replace: Option<BorrowedFd<'_>>,
) -> Result<(), Errno> {
    let mut attr = Attr::new();
    attr.put_fd(0, cgroup);
    attr.put_fd(4, program);
    attr.put32(8, ATTACH_CGROUP_DEVICE);
    attr.put32(12, if replace.is_some() { ALLOW_MULTI | REPLACE } else { ALLOW_MULTI });
    if let Some(old) = replace {
        attr.put_fd(16, old);
    }
    attr.call(PROG_ATTACH).map(drop)
}

/// Detaches a program from a cgroup.
pub fn detach_device_program(cgroup: BorrowedFd<'_>, program: BorrowedFd<'_>) -> Result<(), Errno> {
    let mut attr = Attr::new();
    attr.put_fd(0, cgroup);
    attr.put_fd(4, program);
    attr.put32(8, ATTACH_CGROUP_DEVICE);
    attr.call(PROG_DETACH).map(drop)
}

/// Ids of the device programs attached to a cgroup (64 is the kernel's limit).
pub fn device_programs(cgroup: BorrowedFd<'_>) -> Result<Vec<u32>, Errno> {
    let mut ids = [0u32; 64];
    let mut attr = Attr::new();
    attr.put_fd(0, cgroup);
    attr.put32(4, ATTACH_CGROUP_DEVICE);
    attr.put64(16, ids.as_mut_ptr().expose_provenance() as u64);
    attr.put32(24, 64);
    attr.call(PROG_QUERY)?;
    let count = usize::try_from(attr.get32(24)).unwrap_or(0);
    Ok(ids.iter().copied().take(count).collect())
}

/// A descriptor of the program with that id.
pub fn program_by_id(id: u32) -> Result<OwnedFd, Errno> {
    let mut attr = Attr::new();
    attr.put32(0, id);
    owned(attr.call(PROG_GET_FD_BY_ID)?)
}
