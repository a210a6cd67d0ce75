//! config.md "Linux mount options": each name, on a file system and on a bind mount, read back from mountinfo.

use std::fs;
use std::process::Command;

use anyhow::{Context as _, Result, ensure};

use super::mounts::mount_tmpfs;
use crate::command::run;
use crate::context::Context;
use crate::suite::{Test, case, test};

pub(crate) const TESTS: &[Test] = &[
    case("tmpfs-ro", "mount option ro", on_tmpfs, "ro"),
    case("tmpfs-nosuid", "mount option nosuid", on_tmpfs, "nosuid"),
    case("tmpfs-nodev", "mount option nodev", on_tmpfs, "nodev"),
    case("tmpfs-noexec", "mount option noexec", on_tmpfs, "noexec"),
    case("tmpfs-noatime", "mount option noatime", on_tmpfs, "noatime"),
    case("tmpfs-nodiratime", "mount option nodiratime", on_tmpfs, "nodiratime"),
    case("tmpfs-strictatime", "mount option strictatime", on_tmpfs, "strictatime"),
    case("tmpfs-relatime", "mount option relatime", on_tmpfs, "relatime"),
    case("tmpfs-sync", "mount option sync", on_tmpfs, "sync"),
    case("tmpfs-nosymfollow", "mount option nosymfollow", on_tmpfs, "nosymfollow"),
    case("tmpfs-dirsync", "mount option dirsync", on_tmpfs, "dirsync"),
    case("tmpfs-lazytime", "mount option lazytime", on_tmpfs, "lazytime"),
    case("tmpfs-mand", "mount option mand", on_tmpfs, "mand"),
    case("tmpfs-acl", "mount option acl", on_tmpfs, "acl"),
    case("tmpfs-iversion", "mount option iversion", on_tmpfs, "iversion"),
    case("tmpfs-rw", "mount option rw", on_tmpfs, "rw"),
    case("tmpfs-suid", "mount option suid", on_tmpfs, "suid"),
    case("tmpfs-dev", "mount option dev", on_tmpfs, "dev"),
    case("tmpfs-exec", "mount option exec", on_tmpfs, "exec"),
    case("tmpfs-atime", "mount option atime", on_tmpfs, "atime"),
    case("tmpfs-diratime", "mount option diratime", on_tmpfs, "diratime"),
    case("tmpfs-symfollow", "mount option symfollow", on_tmpfs, "symfollow"),
    case("tmpfs-norelatime", "mount option norelatime: takes nothing but relatime back", on_tmpfs, "norelatime"),
    case("tmpfs-nostrictatime", "mount option nostrictatime", on_tmpfs, "nostrictatime"),
    case("tmpfs-async", "mount option async", on_tmpfs, "async"),
    case("tmpfs-nolazytime", "mount option nolazytime", on_tmpfs, "nolazytime"),
    case("tmpfs-nomand", "mount option nomand", on_tmpfs, "nomand"),
    case("tmpfs-silent", "mount option silent: nothing that the file system itself is asked for", on_tmpfs, "silent"),
    case("tmpfs-loud", "mount option loud: nothing that the file system itself is asked for", on_tmpfs, "loud"),
    case(
        "tmpfs-defaults",
        "mount option defaults: nothing that the file system itself is asked for",
        on_tmpfs,
        "defaults",
    ),
    case("bind-ro", "mount option ro on a bind mount", on_bind, "ro"),
    case("bind-nosuid", "mount option nosuid on a bind mount", on_bind, "nosuid"),
    case("bind-nodev", "mount option nodev on a bind mount", on_bind, "nodev"),
    case("bind-noexec", "mount option noexec on a bind mount", on_bind, "noexec"),
    case("bind-noatime", "mount option noatime on a bind mount", on_bind, "noatime"),
    case("bind-nodiratime", "mount option nodiratime on a bind mount", on_bind, "nodiratime"),
    case("bind-strictatime", "mount option strictatime on a bind mount", on_bind, "strictatime"),
    case("bind-relatime", "mount option relatime on a bind mount", on_bind, "relatime"),
    case("bind-nosymfollow", "mount option nosymfollow on a bind mount", on_bind, "nosymfollow"),
    case("bind-rw", "mount option rw on a bind mount", on_bind, "rw"),
    case("bind-suid", "mount option suid on a bind mount", on_bind, "suid"),
    case("bind-dev", "mount option dev on a bind mount", on_bind, "dev"),
    case("bind-exec", "mount option exec on a bind mount", on_bind, "exec"),
    case("flagged-rw", "mount option rw: the bind mount is unlike its source", on_flagged, "rw"),
    case("flagged-suid", "mount option suid: the bind mount is unlike its source", on_flagged, "suid"),
    case("flagged-dev", "mount option dev: the bind mount is unlike its source", on_flagged, "dev"),
    case("flagged-exec", "mount option exec: the bind mount is unlike its source", on_flagged, "exec"),
    case("flagged-atime", "mount option atime: the bind mount is unlike its source", on_flagged, "atime"),
    case("flagged-diratime", "mount option diratime: the bind mount is unlike its source", on_flagged, "diratime"),
    case("flagged-symfollow", "mount option symfollow: the bind mount is unlike its source", on_flagged, "symfollow"),
    case(
        "flagged-nostrictatime",
        "mount option nostrictatime: the bind mount is unlike its source",
        on_flagged,
        "nostrictatime",
    ),
    case("flagged-norelatime", "mount option norelatime: a source without relatime stays so", on_flagged, "norelatime"),
    case("recursive-rro", "mount option rro: as without r, and for the mounts below", recursive, "rro"),
    case("recursive-rnosuid", "mount option rnosuid: as without r, and for the mounts below", recursive, "rnosuid"),
    case("recursive-rnodev", "mount option rnodev: as without r, and for the mounts below", recursive, "rnodev"),
    case("recursive-rnoexec", "mount option rnoexec: as without r, and for the mounts below", recursive, "rnoexec"),
    case("recursive-rnoatime", "mount option rnoatime: as without r, and for the mounts below", recursive, "rnoatime"),
    case(
        "recursive-rnodiratime",
        "mount option rnodiratime: as without r, and for the mounts below",
        recursive,
        "rnodiratime",
    ),
    case(
        "recursive-rnosymfollow",
        "mount option rnosymfollow: as without r, and for the mounts below",
        recursive,
        "rnosymfollow",
    ),
    case("recursive-rrw", "mount option rrw: as without r, and for the mounts below", recursive, "rrw"),
    case("recursive-rsuid", "mount option rsuid: as without r, and for the mounts below", recursive, "rsuid"),
    case("recursive-rdev", "mount option rdev: as without r, and for the mounts below", recursive, "rdev"),
    case("recursive-rexec", "mount option rexec: as without r, and for the mounts below", recursive, "rexec"),
    case("recursive-ratime", "mount option ratime: as without r, and for the mounts below", recursive, "ratime"),
    case(
        "recursive-rdiratime",
        "mount option rdiratime: as without r, and for the mounts below",
        recursive,
        "rdiratime",
    ),
    case(
        "recursive-rrelatime",
        "mount option rrelatime: as without r, and for the mounts below",
        recursive,
        "rrelatime",
    ),
    case(
        "recursive-rstrictatime",
        "mount option rstrictatime: as without r, and for the mounts below",
        recursive,
        "rstrictatime",
    ),
    case(
        "recursive-rsymfollow",
        "mount option rsymfollow: as without r, and for the mounts below",
        recursive,
        "rsymfollow",
    ),
    case(
        "recursive-rnostrictatime",
        "mount option rnostrictatime: as without r, and for the mounts below",
        recursive,
        "rnostrictatime",
    ),
    case(
        "recursive-rnorelatime",
        "mount option rnorelatime: as without r, and for the mounts below",
        recursive,
        "rnorelatime",
    ),
    case("propagation-private", "mount option private", propagation, "private"),
    case("propagation-shared", "mount option shared", propagation, "shared"),
    case("propagation-slave", "mount option slave", propagation, "slave"),
    case("propagation-unbindable", "mount option unbindable", propagation, "unbindable"),
    case("propagation-rprivate", "mount option rprivate", propagation, "rprivate"),
    case("propagation-rshared", "mount option rshared", propagation, "rshared"),
    case("propagation-rslave", "mount option rslave", propagation, "rslave"),
    case("propagation-runbindable", "mount option runbindable", propagation, "runbindable"),
    test("remount", "mount option remount changes an earlier mount", remount),
    test("later-wins", "of contradicting options the last one holds", later_wins),
];

/// The options field of the mount at `point`, and its propagation fields.
fn fields(mountinfo: &str, point: &str) -> Result<(Vec<String>, String)> {
    let line = mountinfo
        .lines()
        .rfind(|line| line.split(' ').nth(4) == Some(point))
        .with_context(|| format!("{point} is not mounted"))?;
    let options = line.split(' ').nth(5).unwrap_or_default().split(',').map(str::to_owned).collect();
    let optional = line.split(" - ").next().unwrap_or_default().split(' ').skip(6).collect::<Vec<_>>().join(" ");
    let superblock = line.rsplit(' ').next().unwrap_or_default();
    Ok((options, format!("{optional} super={superblock}")))
}

/// What mountinfo shows for an option: a word that must be there, or one that must not.
fn check(option: &str, options: &[String], rest: &str) -> Result<()> {
    let has = |word: &str| options.iter().any(|one| one == word);
    let of_file_system =
        |word: &str| rest.rsplit("super=").next().unwrap_or_default().split(',').any(|one| one == word);
    let holds = match option {
        "rw" => has("rw"),
        "suid" => !has("nosuid"),
        "dev" => !has("nodev"),
        "exec" => !has("noexec"),
        "atime" => !has("noatime"),
        "diratime" => !has("nodiratime"),
        "symfollow" => !has("nosymfollow"),
        "strictatime" => !has("relatime") && !has("noatime"),
        "nostrictatime" => has("relatime"),
        "norelatime" => has("noatime"),
        "silent" | "loud" | "defaults" => has("rw"),
        // Those of a file system are in its own options.
        "sync" | "dirsync" | "lazytime" | "mand" => of_file_system(option),
        "async" => !of_file_system("sync"),
        "nolazytime" | "nomand" => !of_file_system(option.trim_start_matches("no")),
        // A tmpfs shows neither.
        "acl" | "iversion" => true,
        word => has(word),
    };
    ensure!(holds, "{option} is not in force: {} {rest}", options.join(","));
    Ok(())
}

/// The option that this one takes back when it comes later, or does not take back.
fn opposite(option: &str) -> Option<&'static str> {
    Some(match option {
        "rw" => "ro",
        "suid" => "nosuid",
        "dev" => "nodev",
        "exec" => "noexec",
        "atime" | "norelatime" => "noatime",
        "diratime" => "nodiratime",
        "symfollow" => "nosymfollow",
        "nostrictatime" => "strictatime",
        "async" => "sync",
        "nolazytime" => "lazytime",
        "nomand" => "mand",
        _ => return None,
    })
}

fn on_tmpfs(context: &Context, option: &str) -> Result<()> {
    let mut bundle = context.bundle()?;
    let options: Vec<&str> = opposite(option).into_iter().chain([option]).collect();
    bundle.mount("tmpfs", "tmpfs", "/mnt", &options);
    let (options, rest) = fields(&bundle.run_script("cat /proc/self/mountinfo")?, "/mnt")?;
    check(option, &options, &rest)
}

fn on_bind(context: &Context, option: &str) -> Result<()> {
    let mut bundle = context.bundle()?;
    fs::create_dir(bundle.path.join("data"))?;
    let source = bundle.path.join("data").to_string_lossy().into_owned();
    let options: Vec<&str> = ["bind"].into_iter().chain(opposite(option)).chain([option]).collect();
    bundle.mount("bind", &source, "/mnt", &options);
    let (options, rest) = fields(&bundle.run_script("cat /proc/self/mountinfo")?, "/mnt")?;
    check(option, &options, &rest)
}

/// A bind mount of a source that has what the option takes away.
fn on_flagged(context: &Context, option: &str) -> Result<()> {
    let mut bundle = context.bundle()?;
    let source = bundle.path.join("data");
    fs::create_dir(&source)?;
    mount_tmpfs(&source)?;
    let flags = format!("remount,bind,{}", opposite(option).context("row")?);
    run(Command::new("mount").args(["-o", &flags]).arg(&source), None)?.ok()?;
    bundle.mount("bind", &source.to_string_lossy(), "/mnt", &["bind", option]);
    let (options, rest) = fields(&bundle.run_script("cat /proc/self/mountinfo")?, "/mnt")?;
    check(option, &options, &rest)
}

fn recursive(context: &Context, option: &str) -> Result<()> {
    let mut bundle = context.bundle()?;
    let source = bundle.path.join("data");
    fs::create_dir(&source)?;
    mount_tmpfs(&source)?;
    fs::create_dir(source.join("sub"))?;
    mount_tmpfs(&source.join("sub"))?;
    // What the option takes away has to be there.
    let flags = match option {
        "rrw" | "rsuid" | "rdev" | "rexec" | "ratime" | "rdiratime" | "rrelatime" | "rstrictatime" | "rnorelatime" => {
            Some("remount,bind,ro,nosuid,nodev,noexec,noatime,nodiratime")
        }
        "rsymfollow" => Some("remount,bind,nosymfollow"),
        "rnostrictatime" => Some("remount,bind,strictatime"),
        _ => None,
    };
    if let Some(flags) = flags {
        for folder in [source.join("sub"), source.clone()] {
            run(Command::new("mount").args(["-o", flags]).arg(folder), None)?.ok()?;
        }
    }
    let plain = option.trim_start_matches('r');
    let plain = match option {
        "rro" => "ro",
        "rrw" => "rw",
        "rrelatime" => "relatime",
        "rnorelatime" => "norelatime",
        _ => plain,
    };
    let source = source.to_string_lossy().into_owned();
    bundle.mount("bind", &source, "/mnt", &["rbind", option]);
    let text = bundle.run_script("cat /proc/self/mountinfo")?;
    for point in ["/mnt", "/mnt/sub"] {
        let (options, rest) = fields(&text, point)?;
        check(plain, &options, &rest).with_context(|| point.to_owned())?;
    }
    Ok(())
}

fn propagation(context: &Context, option: &str) -> Result<()> {
    let mut bundle = context.bundle()?;
    fs::create_dir(bundle.path.join("data"))?;
    let source = bundle.path.join("data").to_string_lossy().into_owned();
    bundle.mount("bind", &source, "/mnt", &["rbind", option]);
    let (_, rest) = fields(&bundle.run_script("cat /proc/self/mountinfo")?, "/mnt")?;
    let holds = match option {
        "private" | "rprivate" => !rest.contains("shared:") && !rest.contains("master:"),
        "shared" | "rshared" => rest.contains("shared:"),
        "slave" | "rslave" => !rest.contains("shared:"),
        _ => rest.contains("unbindable"),
    };
    ensure!(holds, "{option}: {rest}");
    Ok(())
}

fn remount(context: &Context) -> Result<()> {
    let mut bundle = context.bundle()?;
    bundle.mount("tmpfs", "tmpfs", "/mnt", &["rw"]).mount("tmpfs", "tmpfs", "/mnt", &["remount", "ro", "nosuid"]);
    let (options, rest) = fields(&bundle.run_script("cat /proc/self/mountinfo")?, "/mnt")?;
    check("ro", &options, &rest)
}

fn later_wins(context: &Context) -> Result<()> {
    let mut bundle = context.bundle()?;
    bundle.mount("tmpfs", "tmpfs", "/mnt", &["nosuid", "suid", "noexec", "exec", "nodev", "dev", "ro", "rw"]);
    let (options, rest) = fields(&bundle.run_script("cat /proc/self/mountinfo")?, "/mnt")?;
    for option in ["suid", "exec", "dev", "rw"] {
        check(option, &options, &rest)?;
    }
    Ok(())
}
