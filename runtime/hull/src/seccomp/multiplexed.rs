//! The calls that 32-bit x86, z/Architecture and POWER once reached through `socketcall(2)` and `ipc(2)` only.

/// The operations of `socketcall` from 1 on.
static SOCKET: [&str; 20] = [
    "socket",
    "bind",
    "connect",
    "listen",
    "accept",
    "getsockname",
    "getpeername",
    "socketpair",
    "send",
    "recv",
    "sendto",
    "recvfrom",
    "shutdown",
    "setsockopt",
    "getsockopt",
    "sendmsg",
    "recvmsg",
    "accept4",
    "recvmmsg",
    "sendmmsg",
];

/// The operations of `ipc`.
static IPC: [(&str, u32); 12] = [
    ("semop", 1),
    ("semget", 2),
    ("semctl", 3),
    ("semtimedop", 4),
    ("msgsnd", 11),
    ("msgrcv", 12),
    ("msgget", 13),
    ("msgctl", 14),
    ("shmat", 21),
    ("shmdt", 22),
    ("shmget", 23),
    ("shmctl", 24),
];

/// The call that carries `name`, and the operation that it takes as its first argument.
pub(super) fn carrier(name: &str) -> Option<(&'static str, u32)> {
    if let Some(operation) = (1..).zip(&SOCKET).find(|(_, socket)| **socket == name) {
        return Some(("socketcall", operation.0));
    }
    IPC.iter().find(|(ipc, _)| *ipc == name).map(|(_, operation)| ("ipc", *operation))
}
