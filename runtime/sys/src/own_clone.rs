//! The handle of the read-only clone that the program runs from, if it executed itself again from one.
//!
//! The last handle of a detached mount is dear to close: the kernel waits until no processor looks at mounts any more
//! (a grace period of RCU), some 50 µs on an idle machine and milliseconds on a busy one. So it is not left to execve,
//! which would do that before the program begins, but kept until there is time for it.

use std::os::fd::{FromRawFd as _, OwnedFd, RawFd};
use std::sync::atomic::{AtomicI32, Ordering};

static HANDLE: AtomicI32 = AtomicI32::new(-1);

/// Takes over the descriptor, which must be nobody else's. Also called before the C library has started.
#[cfg_attr(not(all(target_arch = "x86_64", target_env = "gnu")), expect(dead_code, reason = "no early start there"))]
pub(crate) fn keep(handle: RawFd) {
    HANDLE.store(handle, Ordering::Relaxed);
}

/// Whether the program runs from such a clone, and still has its handle.
pub fn is_kept() -> bool {
    HANDLE.load(Ordering::Relaxed) >= 0
}

/// Closes the handle. A process that is going to be a container's does this first of all, while its creator still has
/// its own: then nobody waits.
pub fn let_go() {
    let handle = HANDLE.swap(-1, Ordering::Relaxed);
    if handle >= 0 {
        // SAFETY: `keep` made it this module's own, and the swap gives it to one caller.
        drop(unsafe { OwnedFd::from_raw_fd(handle) });
    }
}
