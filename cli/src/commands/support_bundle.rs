//! `berth support-bundle`: what helps to diagnose a fault, without secrets.

use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::Path;
use std::process::Command;

use anyhow::Context as _;

use super::Context;
use crate::output;

/// Collects versions, configuration without secrets, logs, the doctor's findings and the state of workspaces into a tar.
pub(crate) async fn run(context: &Context, file: &Path) -> anyhow::Result<()> {
    let scratch = std::env::temp_dir().join(format!("berth-support-{}", std::process::id()));
    // Logs and configuration are for the caller, not for everybody on the machine.
    std::fs::DirBuilder::new()
        .mode(0o700)
        .create(&scratch)
        .with_context(|| format!("cannot make the folder {}", scratch.display()))?;
    let result = collect(context, &scratch).await.and_then(|()| pack(&scratch, file));
    std::fs::remove_dir_all(&scratch)?;
    result?;
    output::result(context.output, &serde_json::json!({ "file": file }), |_| {
        format!("wrote {}: read it before you pass it on", file.display())
    })
}

async fn collect(context: &Context, folder: &Path) -> anyhow::Result<()> {
    let write = |name: &str, text: &[u8]| std::fs::write(folder.join(name), text).context("the bundle");
    write("version.txt", format!("berth {}\n", env!("CARGO_PKG_VERSION")).as_bytes())?;
    let doctor = Command::new(std::env::current_exe()?)
        .args(["doctor", "--output", "json", "--home"])
        .arg(context.home.path())
        .output()?;
    write("doctor.json", &doctor.stdout)?;
    for (name, path) in [
        ("server.json", "/api/v1/server"),
        ("workspaces.json", "/api/v1/workspaces?limit=200&owner=all"),
        ("classes.json", "/api/v1/classes"),
    ] {
        let text = match context.client.get::<serde_json::Value>(path).await {
            Ok(value) => serde_json::to_vec_pretty(&value)?,
            Err(error) => format!("{error:#}\n").into_bytes(),
        };
        write(name, &text)?;
    }
    if let Ok(log) = std::fs::read(context.home.log()) {
        const TAIL_BYTES: usize = 4 * 1024 * 1024;
        write("server.log", &log[log.len().saturating_sub(TAIL_BYTES)..])?;
    }
    if let Some(config) = context.home.config() {
        let text = std::fs::read_to_string(&config)?;
        write("berth.toml", redact(&text).as_bytes())?;
    }
    for (name, program, args) in [
        ("uname.txt", "uname", &["-a"][..]),
        ("mounts.txt", "cat", &["/proc/mounts"][..]),
        ("memory.txt", "cat", &["/proc/meminfo"][..]),
        ("disk.txt", "df", &["-h"][..]),
        ("loop.txt", "losetup", &["--list"][..]),
    ] {
        if let Ok(out) = Command::new(program).args(args).output() {
            write(name, &out.stdout)?;
        }
    }
    Ok(())
}

/// Removes the values of keys that may be secret, and passwords in URLs.
fn redact(text: &str) -> String {
    text.lines()
        .map(|line| match line.split_once('=') {
            Some((key, _))
                if ["password", "token", "secret", "key"].iter().any(|word| key.to_lowercase().contains(word)) =>
            {
                format!("{key}= \"[hidden]\"")
            }
            Some((key, value)) if value.contains("://") && value.contains('@') => format!("{key}= \"[hidden URL]\""),
            _ => line.to_owned(),
        })
        .collect::<Vec<_>>()
        .join("\n")
}

fn pack(folder: &Path, file: &Path) -> anyhow::Result<()> {
    let archive = std::fs::OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(file)
        .with_context(|| format!("cannot write {}", file.display()))?;
    let status = Command::new("tar")
        .args(["--create", "--file=-", "--directory"])
        .arg(folder)
        .arg(".")
        .stdout(archive)
        .status()?;
    anyhow::ensure!(status.success(), "tar could not write {}", file.display());
    Ok(())
}

#[cfg(test)]
mod tests {
    #[test]
    fn secrets_are_hidden() {
        let text = super::redact("listen = \"x\"\nmaster_key = \"abc\"\nurl = \"postgres://me:pw@h/d\"");
        assert!(text.contains("listen") && !text.contains("abc") && !text.contains("pw"), "{text}");
    }
}
