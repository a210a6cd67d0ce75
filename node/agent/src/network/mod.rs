//! Networks: a namespace, a veth pair and a closed packet filter a workspace.

mod link;
mod pool;
pub mod rules;
pub mod slot;

pub use link::LinkError;
pub(crate) use pool::choose_subnets;
pub use pool::{Network, NetworkPool, Resolved};
pub use rules::{Opening, OpeningKind};
pub use slot::{ID_COUNT, Slot, Subnets};
