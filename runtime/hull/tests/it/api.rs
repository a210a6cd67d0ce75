//! The library's public interface, line by line, in `api.txt`: nobody changes it unawares, and a reviewer sees what a
//! change breaks. `UPDATE_API=1 cargo test -p hull --test it public_interface` writes the file.

use std::path::{Path, PathBuf};
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

/// Fields and variants are shown by the example of their type. Of other crates' items only what this crate says of them counts.
#[test]
fn every_public_item_has_an_example() {
    let json: serde_json::Value = serde_json::from_slice(&std::fs::read(rustdoc_json()).unwrap()).unwrap();
    let items = json["index"].as_object().unwrap();
    let ours = |id: &serde_json::Value| items.get(&id.to_string()).is_some_and(|item| item["crate_id"] == 0);
    let of_traits: Vec<_> =
        items.values().filter_map(|item| item["inner"]["trait"]["items"].as_array()).flatten().collect();
    let counts = |item: &serde_json::Value| {
        let kinds = ["module", "struct", "enum", "trait", "function", "constant", "static", "type_alias", "macro"];
        let public = item["visibility"] == "public" || of_traits.contains(&&item["id"]);
        let kind = item["inner"].as_object().and_then(|inner| inner.keys().next()).unwrap();
        let of_others = kind == "use" && !ours(&item["inner"]["use"]["id"]);
        item["crate_id"] == 0 && public && (kinds.contains(&kind.as_str()) || of_others)
    };
    let public: Vec<_> = items.values().filter(|item| counts(item)).collect();
    let bare: Vec<_> = public
        .iter()
        .filter(|item| !item["docs"].as_str().is_some_and(|docs| docs.contains("```")))
        .map(|item| format!("{} in {}:{}", item["name"], item["span"]["filename"], item["span"]["begin"][0]))
        .collect();
    println!("{} public items", public.len());
    assert!(public.len() > 90, "rustdoc's JSON has changed: {} items", public.len());
    assert!(bare.is_empty(), "without an example:\n{}", bare.join("\n"));
}

/// The README cannot be compiled whole: its other blocks are no Rust.
#[test]
fn the_readme_shows_the_example_that_is_compiled() {
    let block = |text: &str, fence: &str| {
        let (_, after) = text.split_once(fence).unwrap();
        let (block, _) = after.split_once("```").unwrap();
        let lines = block.lines().map(str::trim_end).filter(|line| !line.starts_with("# ") && !line.is_empty());
        lines.map(str::to_owned).collect::<Vec<_>>()
    };
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    let readme = std::fs::read_to_string(here.join("../README.md")).unwrap();
    let source = std::fs::read_to_string(here.join("src/lib.rs")).unwrap();
    let docs = source.lines().filter_map(|line| line.strip_prefix("//!"));
    let docs: Vec<_> = docs.map(|line| line.strip_prefix(' ').unwrap_or(line)).collect();
    assert_eq!(block(&readme, "```rust\n"), block(&docs.join("\n"), "```no_run\n"));
}

/// What rustdoc finds. Its JSON is not stable, so the compiler has to be told that it may; the version of the crate that
/// reads it belongs to the version of Rust in `rust-toolchain.toml`.
fn rustdoc_json() -> PathBuf {
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
    target.join("doc/hull.json")
}

fn public_interface() -> String {
    let interface = public_api::Builder::from_rustdoc_json(rustdoc_json())
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
