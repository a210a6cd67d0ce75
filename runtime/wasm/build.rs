//! Tells the program which wasmtime it is built with, from the lock file.

#[expect(clippy::expect_used, reason = "a build script has nobody to return an error to")]
fn main() {
    println!("cargo::rerun-if-changed=Cargo.lock");
    let lock = std::fs::read_to_string("Cargo.lock").expect("Cargo.lock is there: cargo writes it before it builds");
    let version = lock
        .split("[[package]]")
        .find(|package| package.contains("name = \"wasmtime\"\n"))
        .and_then(|package| package.split("version = \"").nth(1)?.split('"').next())
        .expect("Cargo.lock names wasmtime");
    println!("cargo::rustc-env=WASMTIME_VERSION={version}");
}
