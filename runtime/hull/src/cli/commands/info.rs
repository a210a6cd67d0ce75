//! `hull version` and `hull info`.

use std::fmt::Write as _;

use super::super::parse::Parsed;
use super::super::{Global, SPEC_VERSION, VERSION, print};
use crate::cgroup::layout::Layout;
use crate::error::Result;
use crate::process::labels;

pub(in super::super) fn print_version() -> Result<i32> {
    print(&format!("hull version {VERSION}\nspec: {SPEC_VERSION}\n"))
}

pub(in super::super) fn version(_: &Global, _: &Parsed) -> Result<i32> {
    print_version()
}

pub(in super::super) fn run(global: &Global, _: &Parsed) -> Result<i32> {
    let layout = Layout::detect()?;
    let kernel = rustix::system::uname();
    let mut out = format!("version      {VERSION}\nspec         {SPEC_VERSION}\n");
    let _ = writeln!(out, "kernel       {} {}", kernel.release().to_string_lossy(), kernel.machine().to_string_lossy());
    let cgroups = match (layout.unified(), layout.hybrid()) {
        (true, _) => "version 2".to_owned(),
        (_, true) => "version 1 for limits, version 2 beside it (hybrid)".to_owned(),
        _ => "version 1".to_owned(),
    };
    let _ = writeln!(out, "cgroups      {cgroups}");
    for hierarchy in &layout.v1 {
        let _ = writeln!(out, "             {} at {}", hierarchy.name, hierarchy.own);
    }
    let landlock = hull_sys::landlock::abi().map_or_else(|_| "no".to_owned(), |abi| format!("version {abi}"));
    let yes = |on: bool| if on { "yes" } else { "no" };
    let _ = writeln!(
        out,
        "apparmor     {}\nselinux      {}\nlandlock     {landlock}",
        yes(labels::apparmor_enabled()),
        yes(labels::selinux_enabled())
    );
    let _ = writeln!(out, "root         {}", global.root);
    print(&out)
}
