//! Networks: a namespace, a veth pair and a closed packet filter a workspace.

mod host;
mod link;
mod pool;
mod resolve;
pub mod rules;
pub mod slot;

pub(crate) use host::choose_subnets;
pub use link::LinkError;
pub use pool::{Network, NetworkPool};
pub use resolve::{Resolved, resolve};
pub use rules::{Opening, OpeningKind};
pub use slot::{ID_COUNT, Slot, Subnets, SubnetsUsed};
