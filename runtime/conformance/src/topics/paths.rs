//! config-linux.md "Masked Paths" and "Readonly Paths".

use std::fs;

use anyhow::{Result, ensure};
use serde_json::json;

use crate::context::Context;
use crate::suite::{Test, test};

pub(crate) const TESTS: &[Test] = &[
    test("masked-file", "maskedPaths: mask over the provided paths so that they cannot be read", masked_file),
    test("masked-folder", "maskedPaths: a masked folder is empty and cannot be written", masked_folder),
    test("masked-missing", "a masked path that does not exist is no error", masked_missing),
    test("masked-in-mount", "a path inside a mount can be masked", masked_in_mount),
    test(
        "masked-symlink",
        "a masked path that is a link in the image hides what it leads to inside, nothing outside",
        masked_symlink,
    ),
    test("masked-same-superblock", "many masked folders share one file system (runc#5275)", masked_shared),
    test("readonly-file", "readonlyPaths: set the provided paths as readonly", readonly_file),
    test("readonly-folder", "readonlyPaths: a folder and what is below it", readonly_folder),
    test("readonly-root", "readonlyPaths: the root itself", readonly_root),
    test("readonly-missing", "a read-only path that does not exist is no error", readonly_missing),
    test("readonly-submount", "readonlyPaths: keeps the flags the mount already has", readonly_flags),
    test("proc-sys", "the default read-only paths cannot be written by root", proc_sys),
    test("relative", "the values MUST be absolute paths in the container namespace", relative),
];

fn masked_file(context: &Context) -> Result<()> {
    let mut bundle = context.bundle()?;
    fs::write(bundle.rootfs().join("secret"), "secret")?;
    bundle.set("/linux/maskedPaths", json!(["/secret", "/proc/version"]));
    let said = bundle.run_script("cat /secret /proc/version | wc -c")?;
    ensure!(said == "0", "{said}");
    Ok(())
}

fn masked_folder(context: &Context) -> Result<()> {
    let mut bundle = context.bundle()?;
    fs::create_dir(bundle.rootfs().join("secrets"))?;
    fs::write(bundle.rootfs().join("secrets/one"), "secret")?;
    bundle.set("/linux/maskedPaths", json!(["/secrets"]));
    let said = bundle.run_script("ls -A /secrets | wc -l; touch /secrets/x 2>/dev/null || echo refused")?;
    ensure!(said == "0\nrefused", "{said}");
    Ok(())
}

fn masked_missing(context: &Context) -> Result<()> {
    let mut bundle = context.bundle()?;
    bundle.set("/linux/maskedPaths", json!(["/no/such/path", "/proc/no-such-file"]));
    bundle.run_script("true").map(drop)
}

fn masked_in_mount(context: &Context) -> Result<()> {
    let mut bundle = context.bundle()?;
    fs::create_dir_all(bundle.path.join("data/inner"))?;
    fs::write(bundle.path.join("data/inner/file"), "secret")?;
    bundle.mount("bind", "data", "/mnt", &["bind"]).set("/linux/maskedPaths", json!(["/mnt/inner"]));
    let said = bundle.run_script("ls -A /mnt/inner | wc -l")?;
    ensure!(said == "0", "{said}");
    Ok(())
}

fn masked_symlink(context: &Context) -> Result<()> {
    let mut bundle = context.bundle()?;
    std::os::unix::fs::symlink("/etc/passwd", bundle.rootfs().join("link"))?;
    bundle.set("/linux/maskedPaths", json!(["/link"]));
    let output = bundle.script("cat /link | wc -c").run()?;
    ensure!(!output.success() || output.text() == "0", "{}", output.text());
    Ok(())
}

fn masked_shared(context: &Context) -> Result<()> {
    let mut bundle = context.bundle()?;
    let names: Vec<String> = (0..8).map(|number| format!("/masked{number}")).collect();
    for name in &names {
        fs::create_dir(bundle.rootfs().join(name.trim_start_matches('/')))?;
    }
    bundle.set("/linux/maskedPaths", json!(names));
    let said = bundle.run_script("stat -c %d /masked* | sort -u | wc -l")?;
    ensure!(said == "1", "{said} file systems");
    Ok(())
}

fn readonly_file(context: &Context) -> Result<()> {
    let mut bundle = context.bundle()?;
    fs::write(bundle.rootfs().join("fixed"), "text")?;
    bundle.set("/linux/readonlyPaths", json!(["/fixed"]));
    let said = bundle.run_script("cat /fixed; echo x 2>/dev/null > /fixed || echo -refused")?;
    ensure!(said == "text-refused", "{said}");
    Ok(())
}

fn readonly_folder(context: &Context) -> Result<()> {
    let mut bundle = context.bundle()?;
    fs::create_dir_all(bundle.rootfs().join("fixed/below"))?;
    bundle.set("/linux/readonlyPaths", json!(["/fixed"]));
    let said = bundle.run_script("touch /fixed/x /fixed/below/x 2>&1 | grep -c Read-only")?;
    ensure!(said == "2", "{said}");
    Ok(())
}

fn readonly_root(context: &Context) -> Result<()> {
    let mut bundle = context.bundle()?;
    bundle.mount("tmpfs", "tmpfs", "/mnt", &[]);
    bundle.set("/linux/readonlyPaths", json!(["/"]));
    let said = bundle.run_script("touch /x 2>&1 | grep -o Read-only; touch /mnt/x && echo written")?;
    ensure!(said == "Read-only\nwritten", "{said}");
    Ok(())
}

fn readonly_missing(context: &Context) -> Result<()> {
    let mut bundle = context.bundle()?;
    bundle.set("/linux/readonlyPaths", json!(["/no/such/path"]));
    bundle.run_script("true").map(drop)
}

fn readonly_flags(context: &Context) -> Result<()> {
    let mut bundle = context.bundle()?;
    bundle.mount("tmpfs", "tmpfs", "/mnt", &["nosuid", "nodev", "noexec"]);
    bundle.set("/linux/readonlyPaths", json!(["/mnt"]));
    let said = bundle.run_script("awk '$5 == \"/mnt\" {line = $6} END {print line}' /proc/self/mountinfo")?;
    for want in ["ro", "nosuid", "nodev", "noexec"] {
        ensure!(said.split(',').any(|one| one == want), "{said} lacks {want}");
    }
    Ok(())
}

fn proc_sys(context: &Context) -> Result<()> {
    let mut bundle = context.bundle()?;
    let said = bundle.run_script("for f in /proc/sys/kernel/core_pattern /proc/sys/kernel/panic /proc/sys/vm/drop_caches; do ( : >> $f ) 2>&1; done; true")?;
    ensure!(said.matches("Read-only").count() == 3, "{said}");
    Ok(())
}

fn relative(context: &Context) -> Result<()> {
    let mut bundle = context.bundle()?;
    fs::write(bundle.rootfs().join("secret"), "secret")?;
    bundle.set("/linux/maskedPaths", json!(["secret"]));
    bundle.refused().map(drop)
}
