//! Makes the entry of the program the one of `hull_sys::early_start!` in main.rs.

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    let target = |name| std::env::var(name).unwrap_or_default();
    if target("CARGO_CFG_TARGET_ARCH") == "x86_64" && target("CARGO_CFG_TARGET_ENV") == "gnu" {
        println!("cargo::rustc-link-arg-bins=-Wl,-e,hull_early_start");
    }
}
