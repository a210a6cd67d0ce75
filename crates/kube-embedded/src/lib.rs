//! The Kubernetes API server of Berth's one-machine shape.
//!
//! ws-manager and the node agent speak the Kubernetes API and nothing else. In a cluster they speak to kube-apiserver;
//! on one machine they are given this server, as an [`axum::Router`] in the same process, and `kubectl` reaches it over
//! a socket. It has the API conventions that kube-rs, kubectl and controllers count on, measured against a real
//! kube-apiserver 1.36, over a store in memory or in Postgres.
//!
//! ```no_run
//! # async fn example(crd: k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition) -> Result<(), berth_kube_embedded::StartError> {
//! use berth_kube_embedded::{Builder, Store, Tokens, User};
//!
//! let server = Builder::new()
//!     .store(Store::Memory)
//!     .crd(crd)
//!     .namespace("berth")
//!     .authenticator(Tokens::new().token("secret", User::admin("kubectl")))
//!     .start()
//!     .await?;
//! let in_process = server.router(); // kube::Client::new(in_process, "berth")
//! let for_sockets = server.authenticated_router();
//! server.shutdown().await;
//! # Ok(())
//! # }
//! ```
//!
//! How it is built: `store` holds every object in memory as the bytes that clients get, and orders writes through one
//! task; `handlers` turn requests into proposals with an expected revision and try again when somebody was faster;
//! `watch` reads the shared history; `react` does what kube-controller-manager would.

mod auth;
mod body;
mod discovery;
mod error;
mod fields;
mod handlers;
mod meta;
mod openapi;
mod output;
mod patch;
mod protobuf;
mod react;
mod registry;
mod request;
mod schema;
mod selector;
mod server;
mod store;
mod view;
mod watch;

pub use auth::{Authenticator, Rule, Tokens, User};
pub use server::{ApiServer, Builder, StartError};
pub use store::{MIGRATION, Store, StoreError};
