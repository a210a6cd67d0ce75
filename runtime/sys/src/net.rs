//! Network interfaces: bringing one up, moving one to another network namespace.

use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};

use rustix::io::Errno;

use crate::raw::{check, check_int, owned};

const NAME_SIZE: usize = 16;

#[repr(C)]
struct IfReq {
    name: [u8; NAME_SIZE],
    value: [u8; 24],
}

fn request(name: &str) -> Result<IfReq, Errno> {
    let mut req = IfReq { name: [0; NAME_SIZE], value: [0; 24] };
    if name.len() >= NAME_SIZE || name.contains('\0') {
        return Err(Errno::NAMETOOLONG);
    }
    for (slot, byte) in req.name.iter_mut().zip(name.bytes()) {
        *slot = byte;
    }
    Ok(req)
}

fn socket(family: libc::c_int, kind: libc::c_int, protocol: libc::c_int) -> Result<OwnedFd, Errno> {
    // SAFETY: integers only.
    owned(check_int(unsafe { libc::socket(family, kind | libc::SOCK_CLOEXEC, protocol) })?.into())
}

fn interface_ioctl(number: libc::c_ulong, req: &mut IfReq) -> Result<(), Errno> {
    let socket = socket(libc::AF_INET, libc::SOCK_DGRAM, 0)?;
    // SAFETY: the request has the size of struct ifreq (40 bytes) and outlives the call.
    check_int(unsafe { libc::ioctl(socket.as_raw_fd(), number, &raw mut *req) }).map(drop)
}

const _: () = assert!(size_of::<IfReq>() == 40);

/// Sets `IFF_UP` on an interface of the caller's network namespace.
pub fn interface_up(name: &str) -> Result<(), Errno> {
    let mut req = request(name)?;
    let up = u16::try_from(libc::IFF_UP | libc::IFF_RUNNING).map_err(|_| Errno::INVAL)?;
    if let Some(slot) = req.value.get_mut(..2) {
        slot.copy_from_slice(&up.to_ne_bytes());
    }
    interface_ioctl(libc::SIOCSIFFLAGS, &mut req)
}

/// Index of an interface of the caller's network namespace.
pub fn interface_index(name: &str) -> Result<u32, Errno> {
    let mut req = request(name)?;
    interface_ioctl(libc::SIOCGIFINDEX, &mut req)?;
    let [a, b, c, d, ..] = req.value;
    Ok(u32::from_ne_bytes([a, b, c, d]))
}

/// A routing netlink socket in the caller's network namespace.
pub fn route_socket() -> Result<OwnedFd, Errno> {
    socket(libc::AF_NETLINK, libc::SOCK_RAW, libc::NETLINK_ROUTE)
}

/// Sends one netlink message and reads the kernel's answers into `answer`; gives their length.
pub fn netlink_exchange(socket: BorrowedFd<'_>, message: &[u8], answer: &mut [u8]) -> Result<usize, Errno> {
    // SAFETY: pointer and length describe the slice.
    check_size(unsafe { libc::send(socket.as_raw_fd(), message.as_ptr().cast(), message.len(), 0) })?;
    // SAFETY: pointer and length describe the slice.
    check_size(unsafe { libc::recv(socket.as_raw_fd(), answer.as_mut_ptr().cast(), answer.len(), 0) })
}

/// Reads further netlink answers.
pub fn netlink_receive(socket: BorrowedFd<'_>, answer: &mut [u8]) -> Result<usize, Errno> {
    // SAFETY: pointer and length describe the slice.
    check_size(unsafe { libc::recv(socket.as_raw_fd(), answer.as_mut_ptr().cast(), answer.len(), 0) })
}

fn check_size(ret: isize) -> Result<usize, Errno> {
    let value = check(libc::c_long::try_from(ret).map_err(|_| Errno::OVERFLOW)?)?;
    usize::try_from(value).map_err(|_| Errno::OVERFLOW)
}
