//! The library's public interface, line by line, in `api.txt`: nobody changes it unawares, and a reviewer sees what a
//! change breaks. `UPDATE_API=1 cargo test -p hull --test it public_interface` writes the file.

use std::path::Path;
use std::process::Command;

#[test]
fn the_public_interface_is_the_one_in_the_list() {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("api.txt");
    let now = public_interface();
    if std::env::var_os("UPDATE_API").is_some() {
        std::fs::write(&file, &now).unwrap();
    }
    let listed = std::fs::read_to_string(&file).unwrap();
    let lacks = |text: &str, line: &str| !text.lines().any(|other| other == line);
    let gone: Vec<_> = listed.lines().filter(|line| lacks(&now, line)).map(|line| format!("- {line}")).collect();
    let new: Vec<_> = now.lines().filter(|line| lacks(&listed, line)).map(|line| format!("+ {line}")).collect();
    assert!(
        listed == now,
        "the public interface changed. What is gone breaks those who use it. If it is meant: \
         UPDATE_API=1 cargo test -p hull --test it public_interface\n{}",
        [gone, new].concat().join("\n")
    );
}

/// What rustdoc finds. Its JSON is not stable, so the compiler has to be told that it may; the version of the crate that
/// reads it belongs to the version of Rust in `rust-toolchain.toml`.
fn public_interface() -> String {
    // A folder of its own: dependencies look at that variable, and would be built again and again in a shared one.
    let target = Path::new(env!("CARGO_TARGET_TMPDIR")).join("api");
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let output = Command::new(cargo)
        .args(["rustdoc", "--quiet", "--locked", "--lib", "--package", "hull", "--target-dir"])
        .arg(&target)
        .args(["--", "-Zunstable-options", "--output-format=json"])
        .env("RUSTC_BOOTSTRAP", "1")
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let interface = public_api::Builder::from_rustdoc_json(target.join("doc/hull.json"))
        .omit_blanket_impls(true)
        .omit_auto_trait_impls(true)
        .build()
        .unwrap();
    let mut lines: Vec<String> = interface.items().map(ToString::to_string).collect();
    // Methods of one name in several implementations are the same line.
    lines.sort();
    lines.dedup();
    lines.join("\n") + "\n"
}
