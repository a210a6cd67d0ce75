//! The gateway between real websocket clients and a scripted supervisor, with api, ws-manager and the node agent played at the protocol's edge.
#![expect(clippy::unwrap_used, clippy::panic, clippy::print_stdout, unreachable_pub, reason = "helpers of tests")]

mod access;
mod peers;
mod real;
mod sockets;
mod transfers;
