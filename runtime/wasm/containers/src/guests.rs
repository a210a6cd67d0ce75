//! Modules and components to run: a C program with wasi-libc, and modules in the text format.

use std::path::{Path, PathBuf};
use std::process::Command;

/// Both formats of the same program.
pub const KINDS: [Kind; 2] = [Kind::Module, Kind::Component];

/// A format.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// WASI 0.1.
    Module,
    /// WASI 0.2.
    Component,
}

/// `guests/tool.c`.
pub fn tool(kind: Kind) -> Vec<u8> {
    let module = std::fs::read(compiled()).unwrap();
    match kind {
        Kind::Module => module,
        Kind::Component => component(&module),
    }
}

/// A component that gives a module WASI 0.2 in place of 0.1.
fn component(module: &[u8]) -> Vec<u8> {
    use wasi_preview1_component_adapter_provider as adapter;
    wit_component::ComponentEncoder::default()
        .validate(true)
        .module(module)
        .unwrap()
        .adapter(adapter::WASI_SNAPSHOT_PREVIEW1_ADAPTER_NAME, adapter::WASI_SNAPSHOT_PREVIEW1_COMMAND_ADAPTER)
        .unwrap()
        .encode()
        .unwrap()
}

/// A module that prints a text.
pub fn says(text: &str) -> Vec<u8> {
    let length = text.len();
    let module = format!(
        r#"(module
            (import "wasi_snapshot_preview1" "fd_write" (func $write (param i32 i32 i32 i32) (result i32)))
            (memory (export "memory") 1)
            (data (i32.const 0) "\10\00\00\00\{length:02x}\00\00\00")
            (data (i32.const 16) "{text}")
            (func (export "_start") (drop (call $write (i32.const 1) (i32.const 0) (i32.const 1) (i32.const 8)))))"#
    );
    wat::parse_str(module).unwrap()
}

/// A module with so many functions that compiling it can be watched.
pub fn large(functions: usize) -> Vec<u8> {
    let line = "local.get 0 i64.const 7 i64.mul local.get 0 i64.xor local.set 0 ";
    let function = format!("(func (param i64) (result i64) {} local.get 0)", line.repeat(50));
    wat::parse_str(format!("(module {} (func (export \"_start\")))", function.repeat(functions))).unwrap()
}

/// The C program as a module, compiled once for all tests.
fn compiled() -> PathBuf {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("guests/tool.c");
    let target = std::env::current_exe().unwrap().with_file_name("tool.wasm");
    let changed = |path: &Path| path.metadata().and_then(|m| m.modified()).ok();
    if changed(&target) < changed(&source) {
        let own = target.with_extension(format!("{}.wasm", std::process::id()));
        let status = Command::new("clang").args(["--target=wasm32-wasi", "-O2", "-o"]).arg(&own).arg(&source).status();
        assert!(status.unwrap().success(), "clang could not compile {}", source.display());
        std::fs::rename(own, &target).unwrap();
    }
    target
}
