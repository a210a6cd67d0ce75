//! The node agent: everything a machine does for its workspaces.

mod error_text;
pub mod checkout;
pub mod container;
pub mod disk;
pub mod home;
pub mod image;
pub mod network;
mod supervisor;
