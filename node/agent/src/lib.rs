//! The node agent: everything a machine does for its workspaces.
//!
//! Three layers. The stores ([`image`], [`disk`], [`network`]) know nothing of instances; [`instance`] starts, watches and stops them and
//! knows nothing of Kubernetes; the agent on top reconciles pods.

mod agent;
pub mod checkout;
pub mod config;
pub mod container;
pub mod credentials;
pub mod disk;
pub mod home;
pub mod image;
pub mod instance;
pub mod network;
mod scm;
mod supervisor;

pub use agent::{AgentError, Deps, NodeAgent};
pub use config::{Config, ConfigError};
pub use credentials::{Credential, CredentialQuery, CredentialSource, NoCredentials};
pub use scm::ScmCredentials;
