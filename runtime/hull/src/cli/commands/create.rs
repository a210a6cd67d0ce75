//! `hull create`.

use super::super::Global;
use super::super::parse::Parsed;
use crate::container::CreateOptions;
use crate::container::create::{self, Tells};
use crate::error::{Error, Result};

/// Options that `create` and `run` share.
pub(super) fn options(global: &Global, parsed: &Parsed, id: &str) -> Result<CreateOptions> {
    let (preserve_fds, listen_fds) = (preserve_fds(parsed)?, listen_fds());
    check_passed(preserve_fds.saturating_add(listen_fds.unwrap_or(0)))?;
    Ok(CreateOptions {
        root: global.root.clone(),
        id: id.to_owned(),
        bundle: parsed.get("bundle").filter(|b| !b.is_empty()).unwrap_or(".").to_owned(),
        config: parsed.owned("config"),
        console_socket: parsed.owned("console-socket"),
        tells: tells(parsed),
        no_pivot: parsed.is("no-pivot"),
        no_new_keyring: parsed.is("no-new-keyring"),
        preserve_fds,
        listen_fds,
        driver: global.driver,
        run: false,
        foreground: false,
        wasm_config: global.wasm_config.clone(),
    })
}

/// Who is told of the process.
pub(super) fn tells(parsed: &Parsed) -> Tells {
    Tells { pid_file: parsed.owned("pid-file"), pidfd_socket: parsed.owned("pidfd-socket") }
}

/// The number of descriptors to pass on.
pub(super) fn preserve_fds(parsed: &Parsed) -> Result<u32> {
    let count: u32 = parsed.number("preserve-fds")?.unwrap_or(0);
    check_passed(count)?;
    Ok(count)
}

/// All descriptors to pass on must be open: a closed number would be reused for a file of the runtime.
fn check_passed(count: u32) -> Result<()> {
    for fd in 3..count.saturating_add(3) {
        if !i32::try_from(fd).is_ok_and(hull_sys::fd::is_open) {
            let text = format!("--preserve-fds {count}: descriptor {fd} is not open");
            return Err(Error::usage("--preserve-fds", text));
        }
    }
    Ok(())
}

/// Descriptors of socket activation, if they are for this process.
fn listen_fds() -> Option<u32> {
    let pid = std::env::var("LISTEN_PID").ok();
    let own = rustix::process::getpid().as_raw_pid().to_string();
    if pid.is_some_and(|p| p != own) {
        return None;
    }
    std::env::var("LISTEN_FDS").ok()?.parse().ok().filter(|n| *n > 0)
}

pub(in super::super) fn run(global: &Global, parsed: &Parsed) -> Result<i32> {
    let bundle = parsed.get("bundle").filter(|b| !b.is_empty()).unwrap_or(".");
    let several = parsed.args.len() > 1;
    if several && parsed.owned("pid-file").is_some() {
        return Err(Error::usage("--pid-file", "--pid-file has room for one container: create them one by one"));
    }
    let mut made: Vec<&str> = Vec::new();
    for id in &parsed.args {
        let mut options = options(global, parsed, id)?;
        if several {
            // With several containers, each has the bundle of its name below the given directory.
            options.bundle = format!("{bundle}/{id}");
        }
        if let Err(error) = create::create(&options) {
            for id in made {
                // All or none.
                let _ = crate::container::delete::delete(&global.root, id, true);
            }
            return Err(error);
        }
        made.push(id);
    }
    Ok(0)
}
