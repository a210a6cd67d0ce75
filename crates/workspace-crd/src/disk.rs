//! A workspace's disk: where it lies, how big it is.

use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// The disk of a workspace; the object's name is the workspace's id. Deleting the object deletes the data.
#[derive(CustomResource, Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[kube(
    group = "berth.dev",
    version = "v1",
    kind = "Disk",
    doc = "The disk of a workspace on its node; it outlives the runs.",
    plural = "disks",
    namespaced,
    status = "DiskStatus",
    printcolumn = r#"{"name":"Node","type":"string","jsonPath":".spec.node"}"#,
    printcolumn = r#"{"name":"Size","type":"integer","jsonPath":".spec.sizeBytes"}"#,
    printcolumn = r#"{"name":"Used","type":"integer","jsonPath":".status.usedBytes"}"#,
    printcolumn = r#"{"name":"Age","type":"date","jsonPath":".metadata.creationTimestamp"}"#
)]
#[serde(rename_all = "camelCase")]
pub struct DiskSpec {
    /// The node that holds it.
    pub node: String,
    /// Size of its file system in bytes.
    pub size_bytes: i64,
    /// Digest of the image manifest its layers were mounted over; a disk stays with the image it began with.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub image: Option<String>,
}

/// What the node agent last saw of the disk.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct DiskStatus {
    /// Bytes that the node's file system spends on it.
    #[serde(default)]
    pub used_bytes: i64,
    /// Content was initialised once: from then on a start never runs the checkout again.
    #[serde(default)]
    pub initialized: bool,
}
