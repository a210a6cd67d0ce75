//! The way to a workspace's supervisor: through the agent of its node.

use std::collections::HashMap;

use berth_api_types::internal::InstanceStatus;
use berth_http::{CallError, InternalClient, Upgraded};
use berth_ids::InstanceId;
use berth_supervisor_client::SupervisorClient;

/// How to reach the node agent of a node.
#[derive(Clone, Debug)]
pub enum Nodes {
    /// There is one, whatever it is called.
    Single(InternalClient),
    /// By the node's name.
    ByName(HashMap<String, InternalClient>),
}

/// A supervisor could not be reached.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ConnectError {
    /// ws-manager or the node agent did not answer, or refused.
    #[error("the workspace cannot be reached")]
    Call(#[from] CallError),
    /// No way to the node is configured.
    #[error("automations knows no way to node {0:?}: name it in the configuration")]
    UnknownNode(String),
}

/// Connects to supervisors.
#[derive(Clone, Debug)]
pub(crate) struct Supervisors {
    pub(crate) nodes: Nodes,
    pub(crate) ws_manager: InternalClient,
}

impl Supervisors {
    /// A connection to the supervisor of a running instance.
    pub(crate) async fn connect(&self, instance: InstanceId) -> Result<SupervisorClient<Upgraded>, ConnectError> {
        let client = match &self.nodes {
            Nodes::Single(client) => client,
            Nodes::ByName(clients) => {
                let status: InstanceStatus = self.ws_manager.get(&format!("/internal/instances/{instance}")).await?;
                let node = status.node.unwrap_or_default();
                clients.get(&node).ok_or(ConnectError::UnknownNode(node))?
            }
        };
        let path = format!("/internal/instances/{instance}/supervisor");
        Ok(SupervisorClient::new(client.upgrade(&path, "berth-supervisor").await?))
    }
}
