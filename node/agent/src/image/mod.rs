//! Images: where they come from, and how they lie on the node.

pub mod base;
mod blob;
mod collect;
mod document;
pub mod import;
pub mod layout;
pub mod pull;
pub mod reference;
mod store;

pub use document::ImageConfig;
pub use layout::Image;
pub use reference::{Digest, Reference};
pub use store::{ImageError, ImageStore, Progress};
