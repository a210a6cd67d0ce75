//! WebAssembly by the annotations of crun and youki, for runtimes that list them in `features`.

use anyhow::{Result, bail, ensure};
use serde_json::{Value, json};

use crate::bundle::Bundle;
use crate::command::run;
use crate::context::Context;
use crate::suite::{Test, skip, test};

pub(crate) const TESTS: &[Test] = &[
    test("module", "run.oci.handler=wasm: the process is a WebAssembly module, or the container is refused", module),
    test("smart-native", "module.wasm.image/variant=compat-smart: an ordinary program runs as ever", smart_native),
    test("smart-module", "module.wasm.image/variant=compat-smart: a module is run as one, or refused", smart_module),
    test("unknown-handler", "run.oci.handler: a handler that is not there is refused", unknown_handler),
];

const HANDLER: &str = "run.oci.handler";
const VARIANT: &str = "module.wasm.image/variant";

/// `(module (import "wasi_snapshot_preview1" "proc_exit" …) (func (export "_start") (call $proc_exit (i32.const 7))))`
const EXITS_WITH_7: &[u8] = b"\0asm\x01\0\0\0\
    \x01\x08\x02\x60\x01\x7f\0\x60\0\0\
    \x02\x24\x01\x16wasi_snapshot_preview1\x09proc_exit\0\0\
    \x03\x02\x01\x01\
    \x05\x03\x01\0\x01\
    \x07\x13\x02\x06memory\x02\0\x06_start\0\x01\
    \x0a\x08\x01\x06\0\x41\x07\x10\0\x0b";

/// What `features` says, if the runtime knows the annotations.
fn features(context: &Context) -> Result<Value> {
    let output = run(context.command().arg("features"), None)?;
    let features: Value = serde_json::from_str(&output.stdout).unwrap_or_default();
    let listed = features["potentiallyUnsafeConfigAnnotations"]
        .as_array()
        .is_some_and(|list| list.iter().any(|one| one == "run.oci.handler" || one == "run.oci."));
    if listed { Ok(features) } else { Err(skip("features does not list the annotation run.oci.handler")) }
}

fn annotated<'a>(context: &'a Context, name: &str, value: &str) -> Result<Bundle<'a>> {
    let mut bundle = context.bundle()?;
    bundle.set("/annotations", json!({name: value}));
    Ok(bundle)
}

fn runs_module(context: &Context, name: &str, value: &str) -> Result<()> {
    let features = features(context)?;
    let mut bundle = annotated(context, name, value)?;
    bundle.program("app.wasm", EXITS_WITH_7)?;
    bundle.set("/process/args", json!(["/app.wasm"]));
    let output = bundle.run()?;
    match features["annotations"]["dev.hull.wasm.enabled"].as_str() {
        Some("false") => {
            ensure!(output.code() == 1 && output.stderr.contains("hull-wasm is not installed"), "{output:?}");
        }
        _ if output.code() == 7 => {}
        _ => bail!("exit status {}: {}", output.code(), output.stderr.trim()),
    }
    Ok(())
}

fn module(context: &Context) -> Result<()> {
    runs_module(context, HANDLER, "wasm")
}

fn smart_module(context: &Context) -> Result<()> {
    runs_module(context, VARIANT, "compat-smart")
}

fn smart_native(context: &Context) -> Result<()> {
    features(context)?;
    let mut bundle = annotated(context, VARIANT, "compat-smart")?;
    bundle.script("echo native");
    let output = bundle.run()?.ok()?;
    ensure!(output.text() == "native", "{output:?}");
    Ok(())
}

fn unknown_handler(context: &Context) -> Result<()> {
    features(context)?;
    let mut bundle = annotated(context, HANDLER, "nonsense")?;
    bundle.script("true");
    bundle.refused().map(drop)
}
