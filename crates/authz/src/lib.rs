//! Who is asking, and what they may do.
//!
//! A request becomes a [`Principal`] in one place (the [`Authenticator`] on the router), and a right becomes a value:
//! a store function that stops a workspace takes an [`Authorized<Workspace, Stop>`](Authorized), which only a [`Policy`] hands out.

mod authenticate;
mod authorized;
mod principal;
mod remote;

pub use authenticate::{Authenticated, Authenticator, Presented, PrincipalExtension};
pub use authorized::{Action, Authorized, Decision, Denied, Policy};
pub use berth_api_types::public::OrganizationRole;
pub use principal::{Credential, Membership, Principal};
pub use remote::RemoteAuthenticator;
