//! Loop devices: a file as a block device (`loop(4)`).

use std::fs::File;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};

use rustix::io::Errno;

use crate::raw::check_int;

const LOOP_CONFIGURE: libc::Ioctl = 0x4C0A;
const LOOP_CLR_FD: libc::Ioctl = 0x4C01;
const LOOP_GET_STATUS64: libc::Ioctl = 0x4C05;
const LOOP_CTL_GET_FREE: libc::Ioctl = 0x4C82;
const FITRIM: libc::Ioctl = 0xC018_5879;
const LO_FLAGS_AUTOCLEAR: u32 = 4;

/// `struct loop_info64` of linux/loop.h.
#[repr(C)]
#[derive(Clone, Copy)]
struct LoopInfo64 {
    device: u64,
    inode: u64,
    rdevice: u64,
    offset: u64,
    size_limit: u64,
    number: u32,
    encrypt_type: u32,
    encrypt_key_size: u32,
    flags: u32,
    file_name: [u8; 64],
    crypt_name: [u8; 64],
    encrypt_key: [u8; 32],
    init: [u64; 2],
}

/// `struct loop_config` of linux/loop.h.
#[repr(C)]
struct LoopConfig {
    fd: u32,
    block_size: u32,
    info: LoopInfo64,
    reserved: [u64; 8],
}

const EMPTY: LoopInfo64 = LoopInfo64 {
    device: 0,
    inode: 0,
    rdevice: 0,
    offset: 0,
    size_limit: 0,
    number: 0,
    encrypt_type: 0,
    encrypt_key_size: 0,
    flags: 0,
    file_name: [0; 64],
    crypt_name: [0; 64],
    encrypt_key: [0; 32],
    init: [0; 2],
};

/// What a loop device shows: device and inode number of the file behind it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Backing {
    /// `st_dev` of the file, as the kernel encodes it for user space.
    pub device: u64,
    /// `st_ino` of the file.
    pub inode: u64,
}

/// Number of a loop device that nothing uses; it may be taken by another process before it is configured.
///
/// # Errors
/// What `LOOP_CTL_GET_FREE` reports.
pub fn free_number(control: BorrowedFd<'_>) -> Result<u32, Errno> {
    // SAFETY: the command takes no argument and returns a number.
    let number = check_int(unsafe { libc::ioctl(control.as_raw_fd(), LOOP_CTL_GET_FREE) })?;
    u32::try_from(number).map_err(|_| Errno::RANGE)
}

/// Puts `file` behind the loop device `device`. The kernel frees the device by itself at its last close or unmount.
///
/// # Errors
/// `EBUSY` when another process was faster: try the next free number.
pub fn configure(device: BorrowedFd<'_>, file: BorrowedFd<'_>) -> Result<(), Errno> {
    let config = LoopConfig {
        fd: u32::try_from(file.as_raw_fd()).map_err(|_| Errno::BADF)?,
        block_size: 0,
        info: LoopInfo64 { flags: LO_FLAGS_AUTOCLEAR, ..EMPTY },
        reserved: [0; 8],
    };
    // SAFETY: `config` has the kernel's layout and outlives the call.
    check_int(unsafe { libc::ioctl(device.as_raw_fd(), LOOP_CONFIGURE, &raw const config) }).map(drop)
}

/// The file behind a loop device; `None` if it is free.
///
/// # Errors
/// What `LOOP_GET_STATUS64` reports, but for `ENXIO`.
pub fn backing(device: BorrowedFd<'_>) -> Result<Option<Backing>, Errno> {
    let mut info = EMPTY;
    // SAFETY: `info` has the kernel's layout and is exclusively borrowed for the call.
    match check_int(unsafe { libc::ioctl(device.as_raw_fd(), LOOP_GET_STATUS64, &raw mut info) }) {
        Ok(_) => Ok(Some(Backing { device: info.device, inode: info.inode })),
        Err(Errno::NXIO) => Ok(None),
        Err(error) => Err(error),
    }
}

/// Takes the file away from a loop device, at once or, when it is mounted, at its unmount.
///
/// # Errors
/// What `LOOP_CLR_FD` reports.
pub fn clear(device: BorrowedFd<'_>) -> Result<(), Errno> {
    // SAFETY: the command takes no argument.
    check_int(unsafe { libc::ioctl(device.as_raw_fd(), LOOP_CLR_FD) }).map(drop)
}

/// `struct fstrim_range` of linux/fs.h.
#[repr(C)]
struct TrimRange {
    start: u64,
    length: u64,
    least: u64,
}

/// Tells the device below a mounted file system, of which `root` is a folder, what holds no file: a loop device gives it back to its file.
///
/// # Errors
/// What `FITRIM` reports.
pub fn trim(root: BorrowedFd<'_>) -> Result<(), Errno> {
    let mut range = TrimRange { start: 0, length: u64::MAX, least: 0 };
    // SAFETY: `range` has the kernel's layout and is exclusively borrowed for the call.
    check_int(unsafe { libc::ioctl(root.as_raw_fd(), FITRIM, &raw mut range) }).map(drop)
}

/// Identity of an open file, as [`backing`] shows it.
///
/// # Errors
/// What fstat(2) reports.
pub fn identity(file: &File) -> Result<Backing, Errno> {
    let stat = rustix::fs::fstat(file.as_fd())?;
    Ok(Backing { device: stat.st_dev, inode: stat.st_ino })
}

const _: () = assert!(size_of::<LoopInfo64>() == 232 && size_of::<LoopConfig>() == 304);
