//! The runtime as a program.

fn main() {
    hull::cli::main()
}
