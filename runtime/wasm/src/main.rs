//! Runs the WebAssembly modules and components of hull's containers.
//!
//! hull starts `hull-wasm run` inside the container, in place of the process, with everything that process would have
//! had: namespaces, user, capabilities, limits, filters. Before that it may start `hull-wasm cache` outside, which
//! compiles the module once for all containers that use it.

mod artifact;
mod cache;
mod engine;
mod errno;
mod files;
mod options;
mod program;
mod run;
mod worker;

use options::Command;

fn main() {
    let result = match options::parse(std::env::args_os().skip(1)) {
        Ok(Command::Run(options)) => run::run(&options).map_err(|e| (e.to_string(), e.status())),
        Ok(Command::Cache { directory }) => cache::serve(&directory).map(|()| 0).map_err(|e| (e.to_string(), 1)),
        Ok(Command::Version) => {
            say(
                &mut std::io::stdout(),
                &format!("hull-wasm {}, wasmtime {}\n", env!("CARGO_PKG_VERSION"), engine::VERSION),
            );
            Ok(0)
        }
        Err(error) => Err((error.to_string(), 2)),
    };
    let status = result.unwrap_or_else(|(message, status)| {
        say(&mut std::io::stderr(), &format!("hull-wasm: {message}\n"));
        status
    });
    std::process::exit(status)
}

/// Output that nobody reads any more is no reason to fail.
fn say(stream: &mut impl std::io::Write, text: &str) {
    let _ = stream.write_all(text.as_bytes());
}
