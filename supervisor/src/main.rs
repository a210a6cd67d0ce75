//! `berth-init`: process 1 of a workspace, and the small programs around it. One static binary with roles:
//!
//! | role | where | what |
//! |---|---|---|
//! | `init` | in the workspace, PID 1 | runs commands, terminals, tasks and services; speaks the supervisor protocol |
//! | `worker` | in the workspace, child of PID 1 | one file or copy request, as the user, so that PID 1 never touches the workspace's files |
//! | `folder` | in the workspace, child of PID 1 | makes, removes and renames the checkout's folder as root |
//! | `git-credential` | in the workspace, child of git | asks PID 1 for the owner's credential |
//! | `rootfs` | on the host | makes the user namespace and mounts the root file system |
//! | `monitor` | on the host | parent of the container |

mod cli;
mod clock;
mod credential_helper;
mod folder;
mod init;
mod launch;
mod ring;
mod worker;

use std::process::ExitCode;

fn main() -> ExitCode {
    let started = std::time::Instant::now();
    let mut arguments = std::env::args_os().skip(1);
    let role = arguments.next().unwrap_or_default();
    let status = match role.to_str() {
        Some("init") => match cli::Options::parse(arguments) {
            Ok(options) => init::main(&options, started),
            Err(error) => usage(&error.to_string()),
        },
        Some("worker") => worker::main(),
        Some("folder") => folder::main(arguments),
        Some("git-credential") => credential_helper::main(arguments),
        Some("rootfs") => berth_sandbox::rootfs::main(),
        Some("monitor") => berth_sandbox::monitor::main(),
        Some("--version" | "version") => {
            cli::say(&format!("berth-init {}", env!("CARGO_PKG_VERSION")));
            0
        }
        _ => usage("no such role"),
    };
    ExitCode::from(u8::try_from(status).unwrap_or(1))
}

fn usage(problem: &str) -> i32 {
    cli::complain(&format!(
        "{problem}\nusage: berth-init init --listen-fd N [--user NAME] [--cwd DIR] [--env KEY=VALUE]... [--run-dir DIR]\n       \
         berth-init git-credential [--run-dir DIR] get\n       berth-init version"
    ));
    2
}
