//! The node on the real machine: kernel, hull, git over http. Needs root.

mod content;
mod crash;
mod pods;
mod support;
mod whole_path;
