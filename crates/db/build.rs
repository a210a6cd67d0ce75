//! `sqlx::migrate!` reads the folder at compile time; cargo must know of it, or a new file is missed.

fn main() {
    println!("cargo::rerun-if-changed=../../migrations");
}
