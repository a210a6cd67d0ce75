//! A shared volume in which something is swapped for a link at the worst moment.
//!
//! There is no race to be won or lost: the runtime stops before each of its system calls, and the names are exchanged before one that
//! names them, in one round after the other before each. They stay so for that call alone, or for all that follow.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::PathBuf;

use anyhow::{Result, ensure};
use rustix::fs::{CWD, RenameFlags, renameat_with};
use serde_json::json;

use crate::bundle::Bundle;
use crate::command::Output;
use crate::context::Context;
use crate::paced;

/// A volume with a folder `real` and a link `fake`, which change places.
struct Volume {
    path: PathBuf,
    canary: PathBuf,
}

/// When the names are exchanged.
#[derive(Clone, Copy)]
struct Moment {
    /// Before which of the calls that name them, counted from 1.
    call: usize,
    /// Whether they are changed back after that call.
    once: bool,
}

impl Volume {
    fn new(bundle: &Bundle<'_>) -> Result<Volume> {
        let (path, canary) = (bundle.path.join("volume"), bundle.path.join("canary"));
        fs::create_dir_all(path.join("real"))?;
        fs::create_dir(&canary)?;
        let outside = format!("{}{}", "../".repeat(30), canary.to_string_lossy().trim_start_matches('/'));
        symlink(outside, path.join("fake"))?;
        Ok(Volume { path, canary })
    }

    fn exchange(&self) -> Result<()> {
        Ok(renameat_with(CWD, self.path.join("real"), CWD, self.path.join("fake"), RenameFlags::EXCHANGE)?)
    }

    /// Runs the bundle, and returns how many calls named what is exchanged.
    fn run(&self, bundle: &Bundle<'_>, moment: Moment) -> Result<(usize, Output)> {
        let (mut calls, mut exchanged) = (0, false);
        bundle.save()?;
        let output = paced::run(&mut bundle.command(&["run", &bundle.id]), &mut |paths| {
            if !paths.iter().any(|path| path.split('/').any(|part| part == "real" || part.starts_with("made"))) {
                return Ok(());
            }
            calls += 1;
            let wanted = if moment.once { calls == moment.call } else { calls >= moment.call };
            if wanted != exchanged {
                exchanged = wanted;
                self.exchange()?;
            }
            Ok(())
        });
        if exchanged {
            self.exchange()?;
        }
        Ok((calls, output?))
    }

    /// Runs the bundle for each moment there is.
    fn at_each_moment(
        &self,
        bundle: &mut Bundle<'_>,
        prepare: impl Fn(&mut Bundle<'_>, usize),
        check: impl Fn(&Output) -> Result<()>,
    ) -> Result<()> {
        for once in [true, false] {
            let mut call = 1;
            loop {
                prepare(bundle, if once { 2 * call } else { 2 * call + 1 });
                let (calls, output) = self.run(bundle, Moment { call, once })?;
                ensure!(calls > 0, "the runtime never named the path: {}", output.stderr.trim());
                check(&output)?;
                let names: Vec<_> = fs::read_dir(&self.canary)?.flatten().map(|entry| entry.file_name()).collect();
                ensure!(names.is_empty(), "on the host appeared {names:?}");
                if calls < call {
                    break;
                }
                call += 1;
            }
        }
        Ok(())
    }
}

fn bundle<'a>(context: &'a Context) -> Result<(Bundle<'a>, Volume)> {
    let mut bundle = context.bundle()?;
    let volume = Volume::new(&bundle)?;
    bundle.mount("bind", &volume.path.to_string_lossy(), "/vol", &["rbind"]);
    Ok((bundle, volume))
}

pub(super) fn mount_point(context: &Context) -> Result<()> {
    let (mut bundle, volume) = bundle(context)?;
    bundle.mount("tmpfs", "racer", "/vol/real", &[]).script("grep -c ' racer ' /proc/self/mountinfo");
    volume.at_each_moment(
        &mut bundle,
        |_, _| {},
        |output| {
            // With the link in place the mount may end at the same path inside the root; it may not be missing.
            ensure!(!output.success() || output.text() == "1", "a mount went outside the container");
            Ok(())
        },
    )
}

pub(super) fn made_mount_point(context: &Context) -> Result<()> {
    let (mut bundle, volume) = bundle(context)?;
    let destination = |bundle: &mut Bundle<'_>, number| {
        if let Some(mounts) = bundle.config["mounts"].as_array_mut() {
            mounts.retain(|mount| mount["source"] != "racer");
        }
        bundle.mount("tmpfs", "racer", &format!("/vol/real/made{number}/deeper"), &[]);
    };
    bundle.script("true");
    volume.at_each_moment(&mut bundle, destination, |_| Ok(()))
}

pub(super) fn readonly_path(context: &Context) -> Result<()> {
    let (mut bundle, volume) = bundle(context)?;
    bundle.set("/linux/readonlyPaths", json!(["/vol/real"]));
    bundle.script("awk '$5 ~ /^\\/vol\\/|canary/ {print $6}' /proc/self/mountinfo");
    volume.at_each_moment(
        &mut bundle,
        |_, _| {},
        |output| {
            // Nothing there at that moment, or the target does not exist inside.
            let writable = output.success()
                && output.text().lines().any(|options| !options.split(',').any(|option| option == "ro"));
            ensure!(!writable, "the path is mounted, but can be written: {}", output.text());
            Ok(())
        },
    )
}
