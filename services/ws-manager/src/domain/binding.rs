//! Where an instance may run. Berth writes no scheduler: it names a node only where there is no choice.

use berth_workspace_crd::Disk;

use crate::domain::view::Nodes;

/// What is decided about the place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Binding {
    /// This node.
    Node(String),
    /// The cluster's scheduler chooses.
    Scheduler,
    /// Nowhere at present; the text is for the user.
    Wait(String),
}

/// The disk's node, else the only ready node, else the scheduler.
#[must_use]
pub fn bind(nodes: &Nodes, disk: Option<&Disk>) -> Binding {
    if let Some(disk) = disk {
        let node = &disk.spec.node;
        return if nodes.is_ready(node) {
            Binding::Node(node.clone())
        } else if nodes.exists(node) {
            Binding::Wait(format!("waiting for node {node}, which holds the workspace's disk and is not ready"))
        } else {
            Binding::Wait(format!(
                "waiting for node {node}, which holds the workspace's disk and is not in the cluster"
            ))
        };
    }
    let mut ready = nodes.ready();
    match (ready.next(), ready.next()) {
        (Some(node), None) => Binding::Node(node.to_owned()),
        (Some(_), Some(_)) => Binding::Scheduler,
        (None, _) => Binding::Wait("waiting for a node to be ready".to_owned()),
    }
}
