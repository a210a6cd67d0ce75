//! The node on the real machine: kernel, hull, git over http. Needs root.

mod support;
mod whole_path;
