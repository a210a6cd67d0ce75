//! What both shapes of the installation need: programs, a user, patience.

mod installation;
mod user;

use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::{Duration, Instant};

pub(crate) use installation::{Installation, SERVICES};
pub(crate) use user::User;

/// The repository's folder.
pub(crate) fn repository() -> &'static Path {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../.."))
}

/// A program of this build, or of the release build beside it.
pub(crate) fn program(name: &str) -> Option<PathBuf> {
    let exe = std::env::current_exe().unwrap();
    let built = exe.ancestors().find(|path| path.ends_with("debug") || path.ends_with("release"))?;
    [built.to_owned(), built.with_file_name("release")]
        .iter()
        .map(|folder| folder.join(name))
        .find(|path| path.is_file())
}

/// Every program of the split shape, or why there is no test.
pub(crate) fn missing_programs() -> Option<String> {
    if !rustix::process::geteuid().is_root() {
        return Some("needs root".to_owned());
    }
    let mut names: Vec<String> = SERVICES.iter().map(|service| format!("berth-{service}")).collect();
    names.extend(["berth", "hull", "berth-init"].map(str::to_owned));
    let missing: Vec<&str> = names.iter().map(String::as_str).filter(|name| program(name).is_none()).collect();
    (!missing.is_empty()).then(|| format!("build {} first (cargo build --workspace --bins)", missing.join(", ")))
}

/// Waits for `done`, which is asked again and again for at most `seconds`.
pub(crate) fn wait_for<T>(what: &str, seconds: u64, mut done: impl FnMut() -> Option<T>) -> T {
    let begun = Instant::now();
    loop {
        if let Some(value) = done() {
            return value;
        }
        assert!(begun.elapsed() < Duration::from_secs(seconds), "waited {seconds} seconds for {what}");
        std::thread::park_timeout(Duration::from_millis(100));
    }
}

/// What a command that must succeed wrote.
pub(crate) fn ok(command: &mut Command) -> String {
    let output = command.output().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    assert!(output.status.success(), "{command:?}: {}", told(&output));
    String::from_utf8(output.stdout).unwrap()
}

/// Everything that a command wrote.
pub(crate) fn told(output: &Output) -> String {
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    format!("{}\n{out}\n{err}", output.status)
}
