//! Roots that were changed without pivot_root: the host's mounts are still in the namespace.

use std::fs;

use anyhow::{Result, ensure};
use serde_json::json;

use crate::bundle::Bundle;
use crate::command::Output;
use crate::context::Context;
use crate::probe;

const CHDIR: u64 = 80;
const CHROOT: u64 = 161;
const ACCESS: u64 = 21;

fn run(bundle: &Bundle<'_>) -> Result<Output> {
    bundle.save()?;
    bundle.runtime(&["run", "--no-pivot", "--bundle", &bundle.path.to_string_lossy(), &bundle.id])
}

/// A hook that looks at the root by its path has it attached there.
fn with_hook<'a>(context: &'a Context, kind: &str) -> Result<Bundle<'a>> {
    let mut bundle = context.bundle()?;
    if !kind.is_empty() {
        bundle.push(&format!("/hooks/{kind}"), json!({"path": "/bin/sh", "args": ["sh", "-c", "cat > /dev/null"]}));
    }
    Ok(bundle)
}

fn give(bundle: &mut Bundle<'_>, capability: &str) {
    for set in ["bounding", "effective", "permitted"] {
        bundle.push(&format!("/process/capabilities/{set}"), json!(capability));
    }
}

pub(super) fn second_chroot(context: &Context) -> Result<()> {
    for kind in ["", "createRuntime", "createContainer"] {
        let mut bundle = with_hook(context, kind)?;
        give(&mut bundle, "CAP_SYS_CHROOT");
        let canary = bundle.path.join("canary");
        fs::write(&canary, "bird")?;
        // The working directory stays outside of the second root, so nothing stops it on its way up.
        let mut calls = vec![(CHROOT, "tmp")];
        calls.extend([(CHDIR, ".."); 64]);
        let host = canary.to_string_lossy().into_owned();
        calls.extend([(CHROOT, "."), (ACCESS, &host)]);
        bundle.program("climb", &probe::calls_of_paths(&calls))?;
        bundle.set("/process/args", json!(["/climb"]));
        let output = run(&bundle)?;
        ensure!(!output.success(), "a file of the host was reached, with hook {kind:?}");
        // It ran, and stayed in the root that it had.
        calls.pop();
        calls.push((ACCESS, "/climb"));
        bundle.program("climb", &probe::calls_of_paths(&calls))?;
        run(&bundle)?.ok()?;
    }
    Ok(())
}

pub(super) fn bare_proc(context: &Context) -> Result<()> {
    for kind in ["", "createRuntime"] {
        let mut bundle = with_hook(context, kind)?;
        // To be root there, one needs it here.
        give(&mut bundle, "CAP_SETFCAP");
        bundle.script(
            "unshare -mrnpf sh -c 'mount -t proc proc /tmp && echo bare; mount -t sysfs sysfs /tmp && echo bare'; \
             unshare -mr echo able",
        );
        let output = run(&bundle)?.ok()?;
        ensure!(!output.stdout.contains("bare"), "mounted without masks, with hook {kind:?}: {}", output.stdout);
        ensure!(output.stdout.contains("able"), "no user namespace was made: {}", output.stderr);
    }
    Ok(())
}
