//! `hull create`.

use super::super::Global;
use super::super::parse::Parsed;
use crate::container::CreateOptions;
use crate::container::create;
use crate::error::Result;

/// Options that `create` and `run` share.
pub(super) fn options(global: &Global, parsed: &Parsed, id: &str) -> Result<CreateOptions> {
    Ok(CreateOptions {
        root: global.root.clone(),
        id: id.to_owned(),
        bundle: parsed.get("bundle").filter(|b| !b.is_empty()).unwrap_or(".").to_owned(),
        console_socket: parsed.owned("console-socket"),
        pid_file: parsed.owned("pid-file"),
        pidfd_socket: parsed.owned("pidfd-socket"),
        no_pivot: parsed.is("no-pivot"),
        no_new_keyring: parsed.is("no-new-keyring"),
        preserve_fds: parsed.number("preserve-fds")?.unwrap_or(0),
        listen_fds: listen_fds(),
        driver: global.driver,
        run: false,
        foreground: false,
    })
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
    let mut made: Vec<&str> = Vec::new();
    for id in &parsed.args {
        let mut options = options(global, parsed, id)?;
        if several {
            // Of several containers, each has the bundle of its name below the one given.
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
