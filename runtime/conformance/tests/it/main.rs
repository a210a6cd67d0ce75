//! hull below the engines that people use. Each test starts an engine of its own, with folders and a socket of its own,
//! and says why it skips where the engine is not installed.

mod containerd;
mod docker;
mod podman;
mod support;
