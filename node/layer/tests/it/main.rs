//! What is unpacked, beside what others unpack of the same archives.
#![expect(
    clippy::disallowed_methods,
    clippy::panic,
    clippy::unwrap_used,
    reason = "a test, which looks at what was unpacked from outside"
)]

mod gnu_tar;
mod random;
mod tree;
mod umoci;

/// Owners need root, and a peer has to be there.
#[expect(clippy::print_stderr, reason = "a skipped test says why")]
fn can_compare(peer: &str) -> bool {
    let there = std::process::Command::new(peer).arg("--version").output().is_ok_and(|output| output.status.success());
    if !rustix::process::geteuid().is_root() || !there {
        eprintln!("skipped: needs root and {peer}");
        return false;
    }
    true
}
