//! hull below the engines that people use, and hull killed at every system call. Each test of an engine starts one of its
//! own, with folders and a socket of its own, and says why it skips where the engine is not installed.

#![expect(clippy::print_stderr, reason = "tests say what they counted")]

mod containerd;
mod crio;
mod docker;
mod interrupted;
mod podman;
mod results;
mod sandbox;
mod support;
mod tracer;
mod vm;
