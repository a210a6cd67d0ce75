//! The node agent: everything a machine does for its workspaces.

mod error_text;
pub mod home;
pub mod image;
