//! A shared volume in which something is swapped for a link, over and over, while containers are created.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::{Result, ensure};
use rustix::fs::{CWD, RenameFlags, renameat_with};
use serde_json::json;

use crate::bundle::Bundle;
use crate::context::Context;

const ROUNDS: usize = 40;

/// Exchanges two names until told to stop.
fn swap(one: &Path, other: &Path, stop: &AtomicBool) {
    while !stop.load(Ordering::Relaxed) {
        if renameat_with(CWD, one, CWD, other, RenameFlags::EXCHANGE).is_err() {
            std::thread::yield_now();
        }
    }
}

/// A volume with a folder `real` and a link `fake`, which change places all the time.
struct Volume {
    path: PathBuf,
    canary: PathBuf,
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

    /// Runs `round` again and again while the names are swapped.
    fn race(&self, mut round: impl FnMut() -> Result<()>) -> Result<()> {
        let stop = AtomicBool::new(false);
        let (real, fake) = (self.path.join("real"), self.path.join("fake"));
        std::thread::scope(|scope| {
            scope.spawn(|| swap(&real, &fake, &stop));
            let result = (0..ROUNDS).try_for_each(|_| round());
            stop.store(true, Ordering::Relaxed);
            result
        })
    }

    fn untouched(&self) -> Result<()> {
        let names: Vec<_> = fs::read_dir(&self.canary)?.flatten().map(|entry| entry.file_name()).collect();
        ensure!(names.is_empty(), "on the host appeared {names:?}");
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
    volume.race(|| {
        let output = bundle.run()?;
        // With the link in place the mount may end at the same path inside the root; it may not be missing.
        ensure!(!output.success() || output.text() == "1", "a mount went outside the container");
        Ok(())
    })?;
    volume.untouched()
}

pub(super) fn made_mount_point(context: &Context) -> Result<()> {
    let (mut bundle, volume) = bundle(context)?;
    let mut number = 0;
    volume.race(|| {
        number += 1;
        if let Some(mounts) = bundle.config["mounts"].as_array_mut() {
            mounts.retain(|mount| mount["source"] != "racer");
        }
        bundle.mount("tmpfs", "racer", &format!("/vol/real/made{number}/deeper"), &[]);
        bundle.run()?;
        volume.untouched()
    })
}

pub(super) fn readonly_path(context: &Context) -> Result<()> {
    let (mut bundle, volume) = bundle(context)?;
    bundle.set("/linux/readonlyPaths", json!(["/vol/real"]));
    bundle.script("awk '$5 ~ /^\\/vol\\/|canary/ {print $6}' /proc/self/mountinfo");
    volume.race(|| {
        let output = bundle.run()?;
        if !output.success() || output.text().is_empty() {
            // Nothing there at that moment, or the target does not exist inside.
            return Ok(());
        }
        let writable = output.text().lines().any(|options| !options.split(',').any(|option| option == "ro"));
        ensure!(!writable, "the path is mounted, but can be written: {}", output.text());
        Ok(())
    })?;
    volume.untouched()
}
